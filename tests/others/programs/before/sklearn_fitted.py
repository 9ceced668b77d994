"""scikit-learn: A histogram gradient boosting (OpenMP) is fitted before the loop, and each item predicts.

Write: as it is
"""

import sys

import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor

from ordmap import ordered_map

samples = np.random.default_rng(0).random((5_000, 8))
model = HistGradientBoostingRegressor(max_iter=10).fit(samples, samples.sum(1))


def predicted(i):
    return float(model.predict(samples[i * 500 : (i + 1) * 500]).sum())


wanted = [predicted(i) for i in range(6)]
assert list(ordered_map(predicted, range(6), workers=2, backend=sys.argv[1])) == wanted
