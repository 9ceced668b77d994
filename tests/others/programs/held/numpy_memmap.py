"""numpy: The dataset holds a memory-mapped array, and each item reads a row.

Write: as it is
"""

import sys

import numpy as np

from ordmap import ordered_imap

np.save("numbers.npy", np.arange(200_000).reshape(20, 10_000))


class Rows:
    def __init__(self):
        self.array = np.load("numbers.npy", mmap_mode="r")

    def __len__(self):
        return 20

    def __getitem__(self, i):
        return int(self.array[i].sum())


wanted = [int(np.arange(i * 10_000, (i + 1) * 10_000).sum()) for i in range(20)]
assert list(ordered_imap(Rows(), workers=2, backend=sys.argv[1])) == wanted
