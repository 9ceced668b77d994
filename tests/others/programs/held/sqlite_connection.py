"""Python: The dataset holds a connection of `sqlite3`, and each item asks it.

Write: a connection for each worker and thread, as in the next row
"""

import sqlite3
import sys

from ordmap import ordered_imap

with sqlite3.connect("words.db") as writer:
    writer.execute("create table words (n integer primary key, word text)")
    writer.executemany("insert into words values (?, ?)", [(n, f"word {n}") for n in range(20)])
writer.close()


class Words:
    def __init__(self):
        self.connection = sqlite3.connect("words.db")

    def __len__(self):
        return 20

    def __getitem__(self, i):
        return self.connection.execute("select word from words where n = ?", (i,)).fetchone()[0]


assert list(ordered_imap(Words(), workers=2, backend=sys.argv[1])) == [f"word {n}" for n in range(20)]
