"""2,000 awaits of 50 ms, 200 at a time, in order: ours, in both kinds of loops, beside a plain window of tasks."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator

from workload import Metric, Target, Task, Workload, WrongResultError

SECONDS = 0.05
AT_ONCE = 200
COUNT = 2000


async def item(number: int) -> int:
    await asyncio.sleep(SECONDS)
    return number


def plain_for() -> list[int]:
    """Ours, on a loop of its own."""
    from ordmap import ordered_map

    return list(ordered_map(item, range(COUNT), workers=AT_ONCE, backend="asyncio"))


def async_for() -> list[int]:
    """Ours, on the caller's loop."""
    from ordmap import ordered_map

    async def main() -> list[int]:
        return [one async for one in ordered_map(item, range(COUNT), workers=AT_ONCE, backend="asyncio")]

    return asyncio.run(main())


def tasks() -> list[int]:
    """A window of tasks: the next begins when the oldest has ended."""

    async def window() -> AsyncIterator[int]:
        waiting: deque[asyncio.Task[int]] = deque()
        for number in range(COUNT):
            waiting.append(asyncio.create_task(item(number)))
            if len(waiting) == AT_ONCE:
                yield await waiting.popleft()
        while waiting:
            yield await waiting.popleft()

    async def main() -> list[int]:
        return [one async for one in window()]

    return asyncio.run(main())


CONTENDERS = {"asyncio": plain_for, "asyncio:async-for": async_for, "tasks": tasks}


def measure(task: Task) -> dict[str, float]:
    import ordmap.backends.asyncio  # noqa: F401  before the clock

    began, used = time.perf_counter(), time.process_time()
    found = CONTENDERS[task.contender]()
    elapsed, used = time.perf_counter() - began, time.process_time() - used
    if found != list(range(COUNT)):
        raise WrongResultError("an item is wrong, missing or out of order")
    return {"elapsed": elapsed, "processor": used}


WORKLOADS = [
    Workload(
        name="awaits",
        title=f"{COUNT:,} awaits of {1000 * SECONDS:.0f} ms, {AT_ONCE} at a time (ideal {COUNT / AT_ONCE * SECONDS} s)",
        contenders=tuple(CONTENDERS),
        metrics=(Metric("elapsed", "s", less_is_better=True), Metric("processor", "s of processor time", True)),
        targets=(
            Target("asyncio", "elapsed", at_most=0.65),
            Target("asyncio:async-for", "elapsed", at_most=0.65),
        ),
        measure=measure,
        counted=False,
    )
]
