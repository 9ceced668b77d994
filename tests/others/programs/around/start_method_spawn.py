"""Python: `multiprocessing.set_start_method("spawn")` stands before the loop.

Write: as it is
"""

import multiprocessing
import sys

from ordmap import ordered_map

multiprocessing.set_start_method("spawn")
assert list(ordered_map(abs, range(-5, 0), workers=2, backend=sys.argv[1])) == [5, 4, 3, 2, 1]
