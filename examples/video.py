"""A filter for videos: frames are decoded in order, filtered by the workers, and written in order.

``python examples/video.py RESULT.mp4`` makes a short video of a square that moves, and writes its edges to that file;
``--video VIDEO`` takes a video of yours (its sound is left out). It never holds more than a few frames, however long
the video is. It needs numpy and PyAV: ``pip install numpy av``.
"""

from __future__ import annotations

import argparse
import tempfile
import zlib
from pathlib import Path

import av
import numpy as np

from ordmap import ordered_map

WIDTH, HEIGHT, SIDE = 160, 120, 32


def make(path: Path, frames: int) -> None:
    """Write a video of a bright square that moves from the left to the right."""
    with av.open(path, "w") as video:
        stream = video.add_stream("mpeg4", rate=25, width=WIDTH, height=HEIGHT, pix_fmt="yuv420p")
        for n in range(frames):
            left = 8 + n * (WIDTH - SIDE - 16) // frames
            image = np.full((HEIGHT, WIDTH), 40, np.uint8)
            image[40 : 40 + SIDE, left : left + SIDE] = 220
            video.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="gray")))
        video.mux(stream.encode())  # the last frames


def edges(image: np.ndarray) -> np.ndarray:
    """Return how much each pixel differs from its left and its upper neighbour."""
    light = image.astype(np.int16)
    across = np.abs(np.diff(light, axis=1, prepend=light[:, :1]))
    down = np.abs(np.diff(light, axis=0, prepend=light[:1]))
    return np.minimum(across + down, 255).astype(np.uint8)


def convert(source: Path, target: Path, workers: int | None) -> tuple[int, int]:
    """Write the edges of a video as another; return the number of frames and their checksum."""
    count = checksum = 0
    with av.open(source) as video, av.open(target, "w") as result:
        given = video.streams.video[0]
        made = result.add_stream(
            "mpeg4", rate=given.average_rate, width=given.width, height=given.height, pix_fmt="yuv420p"
        )
        # This generator runs here, inside next(), a few frames ahead of the loop: no worker sees the decoder.
        images = (frame.to_ndarray(format="gray") for frame in video.decode(given))
        # The decoder has threads of its own, which a forked worker would lack and wait for.
        backend = "serial" if workers == 0 else "spawn"
        for image in ordered_map(edges, images, workers=workers, backend=backend):
            result.mux(made.encode(av.VideoFrame.from_ndarray(image, format="gray")))
            checksum = zlib.crc32(image, checksum)
            count += 1
        result.mux(made.encode())
    return count, checksum


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", type=Path)
    parser.add_argument("--video", type=Path)
    parser.add_argument("--frames", type=int, default=60, help="of the video that it makes")
    parser.add_argument("--workers", type=int, help="0: none; as many as there are cores if not given")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        video = arguments.video
        if video is None:
            video = Path(folder) / "square.mp4"
            make(video, arguments.frames)
        count, checksum = convert(video, arguments.result, arguments.workers)
    print(f"{count} frames, checksum {checksum:08x}")


if __name__ == "__main__":
    main()
