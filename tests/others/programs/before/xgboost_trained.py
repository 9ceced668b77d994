"""xgboost: A model is trained with two threads before the loop, and each item predicts.

Write: as it is
Reported: dmlc/xgboost#7044
"""

import sys

import numpy as np
import xgboost

from ordmap import ordered_map

samples = np.random.default_rng(0).random((20_000, 10))
model = xgboost.train({"nthread": 2}, xgboost.DMatrix(samples, samples.sum(1)), 10)


def predicted(i):
    return float(model.predict(xgboost.DMatrix(samples[i * 1000 : (i + 1) * 1000])).sum())


wanted = [predicted(i) for i in range(6)]
assert np.allclose(list(ordered_map(predicted, range(6), workers=2, backend=sys.argv[1])), wanted)
