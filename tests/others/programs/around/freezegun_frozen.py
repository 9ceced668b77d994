"""freezegun: The time is frozen around the loop, items have a limit of ten seconds and none needs it.

Write: as it is
Reported: spulec/freezegun#384
"""

import sys
import time

import freezegun

from ordmap import ordered_map


def slow(n):
    time.sleep(0.01)
    return n


with freezegun.freeze_time("2024-01-01"):
    items = ordered_map(slow, range(50), workers=2, backend=sys.argv[1], item_timeout=10)
    assert list(items) == list(range(50))
