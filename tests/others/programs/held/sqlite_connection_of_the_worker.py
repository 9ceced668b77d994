"""Python: The dataset opens a connection of `sqlite3` in each worker, process or thread, that asks for one.

Write: as it is
"""

import os
import sqlite3
import sys
import threading

from ordmap import ordered_imap

with sqlite3.connect("words.db") as writer:
    writer.execute("create table words (n integer primary key, word text)")
    writer.executemany("insert into words values (?, ?)", [(n, f"word {n}") for n in range(20)])
writer.close()


class Words:
    def __init__(self):
        self.opened = {}

    def __len__(self):
        return 20

    def __getitem__(self, i):
        worker = os.getpid(), threading.get_ident()
        if worker not in self.opened:
            self.opened[worker] = sqlite3.connect("words.db")
        return self.opened[worker].execute("select word from words where n = ?", (i,)).fetchone()[0]


assert list(ordered_imap(Words(), workers=2, backend=sys.argv[1])) == [f"word {n}" for n in range(20)]
