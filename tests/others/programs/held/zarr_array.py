"""zarr: The dataset holds an array that was opened and read in the caller; each item reads a row.

Write: as it is
Reported: scverse/anndata#2021
"""

import sys

import numpy as np
import zarr

from ordmap import ordered_imap

array = zarr.create_array("numbers.zarr", shape=(20, 1000), chunks=(1, 1000), dtype="i8")
array[:] = np.arange(20_000).reshape(20, 1000)


class Rows:
    def __init__(self):
        self.array = zarr.open_array("numbers.zarr", mode="r")
        assert self.array[3][0] == 3000

    def __len__(self):
        return 20

    def __getitem__(self, i):
        return int(self.array[i].sum())


wanted = [int(np.arange(i * 1000, (i + 1) * 1000).sum()) for i in range(20)]
assert list(ordered_imap(Rows(), workers=2, backend=sys.argv[1])) == wanted
