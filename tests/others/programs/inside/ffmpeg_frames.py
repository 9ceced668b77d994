"""imageio-ffmpeg: Each item runs ffmpeg, which would read from a terminal, and reads its output from a pipe.

Write: as it is
"""

import subprocess
import sys

import imageio_ffmpeg

from ordmap import ordered_map

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()


def frame(n):
    source = f"color=c=0x{n * 40:02x}{n * 40:02x}{n * 40:02x}:s=32x32:d=1:r=1"
    command = [FFMPEG, "-loglevel", "error", "-f", "lavfi", "-i", source, "-f", "rawvideo", "-pix_fmt", "gray", "-"]
    pixels = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    assert len(pixels) == 32 * 32
    return abs(pixels[500] - n * 40) <= 2


assert all(ordered_map(frame, range(6), workers=2, backend=sys.argv[1]))
