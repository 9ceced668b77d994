"""Python: `async for` in `asyncio.run`, beside another task of the loop that goes on meanwhile.

Write: as it is
"""

import asyncio
import sys
import time

from ordmap import ordered_map


def slow(n):
    time.sleep(0.02)
    return n


async def main():
    ticks = 0

    async def tick():
        nonlocal ticks
        while True:
            await asyncio.sleep(0.001)
            ticks += 1

    ticker = asyncio.create_task(tick())
    found = [n async for n in ordered_map(slow, range(20), workers=2, backend=sys.argv[1])]
    ticker.cancel()
    assert ticks > 20
    return found


assert asyncio.run(main()) == list(range(20))
