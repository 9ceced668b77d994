"""lmdb: The dataset holds an open environment, and each item reads from it.

Write: open it on first use in the worker, as in the next row
Reported: pytorch/vision#689
"""

import sys

import lmdb

from ordmap import ordered_imap

with lmdb.open("words.lmdb") as environment, environment.begin(write=True) as transaction:
    for n in range(20):
        transaction.put(b"%d" % n, b"word %d" % n)


class Words:
    def __init__(self):
        self.environment = lmdb.open("words.lmdb", readonly=True, lock=False)

    def __len__(self):
        return 20

    def __getitem__(self, i):
        with self.environment.begin() as transaction:
            return transaction.get(b"%d" % i)


assert list(ordered_imap(Words(), workers=2, backend=sys.argv[1])) == [b"word %d" % n for n in range(20)]
