"""pandas: A frame is grouped before the loop; each item sends a frame back.

Write: as it is
"""

import sys

import pandas as pd

from ordmap import ordered_map

frame = pd.DataFrame({"shop": ["a", "b", "c"] * 30_000, "price": range(90_000)})
sums = frame.groupby("shop")["price"].sum()


def shop(name):
    return frame[frame["shop"] == name].assign(share=lambda rows: rows["price"] / sums[name])


for name, rows in zip("abc", ordered_map(shop, "abc", workers=2, backend=sys.argv[1]), strict=True):
    pd.testing.assert_frame_equal(rows, shop(name))
