"""joblib: Each item runs a `Parallel` of two processes of its own.

Write: as it is; threads of joblib's (`prefer="threads"`) are enough where the workers share the cores already
"""

import sys

from joblib import Parallel, delayed

from ordmap import ordered_map


def roots(n):
    return sum(Parallel(n_jobs=2)(delayed(pow)(k, 2) for k in range(n)))


assert list(ordered_map(roots, [3, 5, 8], workers=2, backend=sys.argv[1])) == [5, 30, 140]
