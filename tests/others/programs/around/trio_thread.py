"""trio: A plain loop in `trio.to_thread.run_sync`.

Write: as it is
"""

import sys

import trio

from ordmap import ordered_map


async def main():
    return await trio.to_thread.run_sync(lambda: list(ordered_map(abs, range(5), workers=2, backend=sys.argv[1])))


assert trio.run(main) == list(range(5))
