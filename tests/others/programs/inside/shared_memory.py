"""numpy: Each item makes a `SharedMemory` block, puts an array into it, and takes it away again.

Write: as it is
Reported: python/cpython#82300
"""

import sys
from multiprocessing.shared_memory import SharedMemory

import numpy as np

from ordmap import ordered_map


def total(n):
    block = SharedMemory(create=True, size=8000)
    try:
        array = np.ndarray(1000, buffer=block.buf)
        array[:] = n
        found = array.sum()
        del array
        return found
    finally:
        block.close()
        block.unlink()


assert list(ordered_map(total, range(6), workers=2, backend=sys.argv[1])) == [1000 * n for n in range(6)]
