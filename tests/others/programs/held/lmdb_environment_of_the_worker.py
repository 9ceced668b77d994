"""lmdb: The dataset opens the environment in the process that first reads from it.

Write: as it is
"""

import os
import sys
import threading

import lmdb

from ordmap import ordered_imap

with lmdb.open("words.lmdb") as environment, environment.begin(write=True) as transaction:
    for n in range(20):
        transaction.put(b"%d" % n, b"word %d" % n)


class Words:
    def __init__(self):
        self.opened = {}

    def __len__(self):
        return 20

    def __getitem__(self, i):
        # A process opens an environment once; threads share it.
        with opening:
            if os.getpid() not in self.opened:
                self.opened = {os.getpid(): lmdb.open("words.lmdb", readonly=True, lock=False)}
        with self.opened[os.getpid()].begin() as transaction:
            return transaction.get(b"%d" % i)


class Opening:
    """A lock that each process makes for itself."""

    def __init__(self):
        self.lock = threading.Lock()

    def __reduce__(self):
        return Opening, ()

    def __enter__(self):
        self.lock.acquire()

    def __exit__(self, *_):
        self.lock.release()


opening = Opening()
assert list(ordered_imap(Words(), workers=2, backend=sys.argv[1])) == [b"word %d" % n for n in range(20)]
