"""lightgbm: As in the row below, and scikit-learn, whose threadpoolctl limits OpenMP, isn't installed.

Write: as it is
Reported: lightgbm-org/LightGBM#6137
"""

import sys

sys.modules["sklearn"] = None  # as if it were not installed

import lightgbm
import numpy as np

from ordmap import ordered_map

samples = np.random.default_rng(0).random((20_000, 10))
model = lightgbm.train({"verbose": -1, "num_threads": 2}, lightgbm.Dataset(samples, samples.sum(1)), 10)


def predicted(i):
    return float(model.predict(samples[i * 1000 : (i + 1) * 1000]).sum())


wanted = [predicted(i) for i in range(6)]
assert list(ordered_map(predicted, range(6), workers=2, backend=sys.argv[1])) == wanted
