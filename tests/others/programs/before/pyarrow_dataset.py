"""pyarrow: A dataset of Parquet files is scanned before the loop, and by each item.

Write: as it is
Reported: apache/arrow#1946
"""

import sys

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from ordmap import ordered_map

for n in range(4):
    pq.write_table(pa.table({"n": [n] * 5_000, "value": list(range(5_000))}), f"{n}.parquet")
data = ds.dataset([f"{n}.parquet" for n in range(4)])


def total(n):
    return data.to_table(filter=ds.field("n") == n)["value"].to_pandas().sum().item()


wanted = [total(n) for n in range(4)]
assert list(ordered_map(total, range(4), workers=2, backend=sys.argv[1])) == wanted
