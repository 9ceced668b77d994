"""trio: `async for` in `trio.run`.

Write: `for`, in `trio.to_thread.run_sync`
"""

import sys

import trio

from ordmap import ordered_map


async def main():
    return [n async for n in ordered_map(abs, range(5), workers=2, backend=sys.argv[1])]


assert trio.run(main) == list(range(5))
