"""opencv-python-headless: OpenCV's threads have resized an image before the loop, and each item resizes one.

Write: as it is
Reported: opencv/opencv#5150
"""

import sys

import cv2
import numpy as np

from ordmap import ordered_map

image = np.random.default_rng(0).integers(0, 255, (1500, 1500, 3), dtype=np.uint8)


def smaller(i):
    return cv2.GaussianBlur(cv2.resize(image, (1000 + i, 1000)), (9, 9), 2)


wanted = [smaller(i) for i in range(4)]
for found, right in zip(ordered_map(smaller, range(4), workers=2, backend=sys.argv[1]), wanted, strict=True):
    assert (found == right).all()
