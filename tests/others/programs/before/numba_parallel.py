"""numba: A function with `parallel=True` has run before the loop, and each item runs it.

Write: as it is
Reported: numba/numba#7872
"""

import sys

import numba
import numpy as np

from ordmap import ordered_map


@numba.njit(parallel=True)
def total(values):
    found = 0.0
    for i in numba.prange(len(values)):
        found += values[i]
    return found


wanted = [total(np.ones(1000) * i) for i in range(6)]
assert list(ordered_map(total, (np.ones(1000) * i for i in range(6)), workers=2, backend=sys.argv[1])) == wanted
