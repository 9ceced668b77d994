"""sqlalchemy: The dataset holds an engine whose pool has a connection, and each item asks it.

Write: make it on first use in the worker, as `sqlite_connection_of_the_worker` does
"""

import sys

import sqlalchemy as sa

from ordmap import ordered_imap

engine = sa.create_engine("sqlite:///words.db")
with engine.begin() as connection:
    connection.execute(sa.text("create table words (n integer primary key, word text)"))
    for n in range(20):
        connection.execute(sa.text("insert into words values (:n, :word)"), {"n": n, "word": f"word {n}"})


class Words:
    def __init__(self):
        self.engine = engine

    def __len__(self):
        return 20

    def __getitem__(self, i):
        with self.engine.connect() as connection:
            return connection.execute(sa.text("select word from words where n = :n"), {"n": i}).scalar_one()


assert list(ordered_imap(Words(), workers=2, backend=sys.argv[1])) == [f"word {n}" for n in range(20)]
