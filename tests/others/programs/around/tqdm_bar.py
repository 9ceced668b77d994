"""tqdm: A bar counts the items, and its monitor thread runs.

Write: as it is, or `progress=True`
"""

import io
import sys
import time

from tqdm import tqdm

from ordmap import ordered_map


def slow(n):
    time.sleep(0.01)
    return n


drawn = io.StringIO()
items = ordered_map(slow, range(50), workers=2, backend=sys.argv[1])
assert list(tqdm(items, file=drawn, mininterval=0)) == list(range(50))
assert "50/50" in drawn.getvalue()
