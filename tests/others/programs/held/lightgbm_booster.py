"""lightgbm: A thread beside the loop trains a model while workers begin, and each item predicts with another.

Write: as it is
Reported: lightgbm-org/LightGBM#4751
"""

import sys
import threading

import lightgbm
import numpy as np

from ordmap import ordered_map

samples = np.random.default_rng(0).random((5_000, 10))
data = lightgbm.Dataset(samples, samples.sum(1), free_raw_data=False).construct()
model = lightgbm.train({"verbose": -1, "num_threads": 2}, data, 10)


def predicted(i):
    return float(model.predict(samples[i * 500 : (i + 1) * 500]).sum())


wanted = [predicted(i) for i in range(6)]
trainer = threading.Thread(target=lightgbm.train, args=({"verbose": -1, "num_threads": 2}, data, 50))
trainer.start()
assert list(ordered_map(predicted, range(6), workers=2, backend=sys.argv[1])) == wanted
trainer.join()
