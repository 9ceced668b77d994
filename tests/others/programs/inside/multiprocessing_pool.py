"""Python: Each item runs a `multiprocessing.Pool` of its own, by the start method `spawn`.

Write: as it is
"""

import multiprocessing
import sys

from ordmap import ordered_map


def sums(n):
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        return sum(pool.map(abs, range(-n, 0)))


if __name__ == "__main__":  # for the standard library's sake
    assert list(ordered_map(sums, [2, 3], workers=2, backend=sys.argv[1])) == [3, 6]
