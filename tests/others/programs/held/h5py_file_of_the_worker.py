"""h5py: The dataset opens the file in the process that first reads from it.

Write: as it is
Reported: pytorch/pytorch#11887
"""

import os
import sys

import h5py
import numpy as np

from ordmap import ordered_imap

with h5py.File("numbers.h5", "w") as file:
    file["numbers"] = np.arange(20_000).reshape(20, 1000)


class Rows:
    def __init__(self):
        self.opened = {}

    def __len__(self):
        return 20

    def __getitem__(self, i):
        if os.getpid() not in self.opened:
            self.opened = {os.getpid(): h5py.File("numbers.h5", "r")}
        return int(self.opened[os.getpid()]["numbers"][i].sum())


wanted = [int(np.arange(i * 1000, (i + 1) * 1000).sum()) for i in range(20)]
assert list(ordered_imap(Rows(), workers=2, backend=sys.argv[1])) == wanted
