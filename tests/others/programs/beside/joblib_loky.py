"""joblib: joblib's own processes, which it keeps, have worked before the loop and work after it.

Write: as it is
"""

import sys

from joblib import Parallel, delayed

from ordmap import ordered_map

squares = [n * n for n in range(8)]
assert Parallel(n_jobs=2)(delayed(pow)(n, 2) for n in range(8)) == squares
assert list(ordered_map(lambda n: n * n, range(8), workers=2, backend=sys.argv[1])) == squares
assert Parallel(n_jobs=2)(delayed(pow)(n, 2) for n in range(8)) == squares
