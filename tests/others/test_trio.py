"""Schedulers that are not asyncio's: one clear error where ordmap can't await, and what to write instead."""

from __future__ import annotations

import asyncio
import threading
import time

import anyio
import pytest
import trio

from ordmap import OrdmapError, Processes, ordered_map


@pytest.fixture(autouse=True)
def trio_s_threads_end(monkeypatch):
    """Have the threads end soon that trio keeps for its next call, for ten seconds: they are none of ours."""
    monkeypatch.setattr("trio._core._thread_cache.IDLE_TIMEOUT", 0.1)
    yield
    while any(thread.name.startswith("Trio thread") for thread in threading.enumerate()):
        time.sleep(0.01)


def square(number):
    return number * number


async def awaited(number):
    await asyncio.sleep(0.02)
    return number


@pytest.mark.parametrize("backend", ["asyncio", "threads", "processes", "spawn", "serial"])
def test_on_trio_nothing_begins_and_the_error_says_what_to_write(backend):
    pulled = []

    def source():
        for number in range(3):
            pulled.append(number)
            yield number

    async def main():
        iterator = ordered_map(square, source(), workers=0 if backend == "serial" else 2, backend=backend)
        before = threading.active_count()
        with pytest.raises(OrdmapError, match=r"needs asyncio's event loop.*trio\.to_thread\.run_sync"):
            async for _ in iterator:
                pass
        assert (pulled, threading.active_count()) == ([], before)
        return await trio.to_thread.run_sync(list, iterator)  # as it says

    assert trio.run(main) == [0, 1, 4]


def test_anyio_on_trio():
    async def main():
        with pytest.raises(OrdmapError, match="needs asyncio's event loop"):
            await anext(ordered_map(awaited, range(3), workers=2, backend="asyncio"))
        async with anyio.create_task_group() as group:
            with Processes(2) as pool:
                found = await anyio.to_thread.run_sync(list, ordered_map(square, range(20), backend=pool))
            group.cancel_scope.cancel()
        return found

    assert anyio.run(main, backend="trio") == [number * number for number in range(20)]


def test_anyio_s_deadlines_give_up_the_wait_alone():
    async def main():
        iterator = ordered_map(awaited, range(8), workers=2, backend="asyncio")
        found, beats = [], 0
        while len(found) < 8:
            with anyio.move_on_after(0.005) as scope:
                found.append(await anext(iterator))
            beats += scope.cancelled_caught
        assert beats
        with pytest.raises(StopAsyncIteration):
            await anext(iterator)
        return found

    assert anyio.run(main) == list(range(8))


def test_items_use_anyio_s_own_locks_limiters_and_task_groups():
    async def main():
        limiter, lock = anyio.CapacityLimiter(2), anyio.Lock()

        async def item(number):
            async with limiter:
                async with anyio.create_task_group() as group:
                    group.start_soon(anyio.sleep, 0.001)
                async with lock:
                    return await anyio.to_thread.run_sync(square, number)

        return [one async for one in ordered_map(item, range(20), workers=6, backend="asyncio")]

    assert anyio.run(main) == [number * number for number in range(20)]
