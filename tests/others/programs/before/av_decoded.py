"""av: Frames of a video are converted before the loop, and by each item.

Write: as it is, in the main thread; from PyAV 19 on it works by fresh interpreters
Fresh since: av 19
"""

import sys

import av
import numpy as np

from ordmap import ordered_map

with av.open("film.mp4", "w") as film:
    stream = film.add_stream("mpeg4", rate=10)
    stream.width = stream.height = 64
    for n in range(8):
        frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 20 * n, np.uint8), format="rgb24")
        film.mux(stream.encode(frame))
    film.mux(stream.encode(None))


def brightness(n):
    with av.open("film.mp4") as film:
        frames = [frame.to_ndarray(format="rgb24").mean() for frame in film.decode(video=0)]
    return round(frames[n])


wanted = [brightness(n) for n in range(8)]
assert list(ordered_map(brightness, range(8), workers=2, backend=sys.argv[1])) == wanted
