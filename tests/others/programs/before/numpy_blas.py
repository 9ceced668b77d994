"""numpy: Large matrices are multiplied before the loop, and by each item.

Write: as it is; a worker computes with one thread of its own
"""

import sys

import numpy as np

from ordmap import ordered_map


def product(i):
    matrix = np.full((600, 600), float(i))
    return (matrix @ matrix)[0, 0]


wanted = [product(i) for i in range(6)]
assert list(ordered_map(product, range(6), workers=2, backend=sys.argv[1])) == wanted
