"""polars: A query is collected before the loop, and one by each item.

Write: as it is
Reported: pola-rs/polars#17526
"""

import sys

import polars as pl

from ordmap import ordered_map

frame = pl.DataFrame({"a": range(200_000), "b": [i % 7 for i in range(200_000)]})


def total(i):
    return frame.lazy().filter(pl.col("b") == i).group_by("b").agg(pl.col("a").sum()).collect()["a"].item()


wanted = [total(i) for i in range(6)]
assert list(ordered_map(total, range(6), workers=2, backend=sys.argv[1])) == wanted
