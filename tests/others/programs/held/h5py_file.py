"""h5py: The dataset holds an open file, and each item reads a row.

Write: as it is; fresh interpreters open it themselves, as in the next row
Reported: h5py/h5py#934
"""

import sys

import h5py
import numpy as np

from ordmap import ordered_imap

with h5py.File("numbers.h5", "w") as file:
    file["numbers"] = np.arange(20_000).reshape(20, 1000)


class Rows:
    def __init__(self):
        self.file = h5py.File("numbers.h5", "r")

    def __len__(self):
        return 20

    def __getitem__(self, i):
        return int(self.file["numbers"][i].sum())


wanted = [int(np.arange(i * 1000, (i + 1) * 1000).sum()) for i in range(20)]
assert list(ordered_imap(Rows(), workers=2, backend=sys.argv[1])) == wanted
