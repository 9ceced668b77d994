"""Python: Each item logs by the standard library's logging, which the caller has set up.

Write: as it is
"""

import logging
import sys

from ordmap import ordered_map

logging.basicConfig(filename="items.log", format="%(levelname)s %(message)s", level=logging.INFO)


def logged(n):
    logging.getLogger("items").info("item %d", n)
    return n


assert list(ordered_map(logged, range(10), workers=2, backend=sys.argv[1])) == list(range(10))
with open("items.log") as log:
    assert sorted(log.read().splitlines()) == sorted(f"INFO item {n}" for n in range(10))
