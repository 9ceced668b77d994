"""Tests of a user's that set the program's clocks: the library measures with its own, and items see the user's."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import select, sys, time
real = time.perf_counter
tool, backend, when = sys.argv[1:]

def wait(seconds):
    select.select([], [], [], seconds)

if tool == "freezegun":
    import freezegun
    def clocks(**options):
        return freezegun.freeze_time("2024-01-01", **options)
elif tool == "freezegun, ticking":
    import freezegun
    def clocks():
        return freezegun.freeze_time("2024-01-01", auto_tick_seconds=600)
elif tool == "time-machine":
    import time_machine
    def clocks():
        return time_machine.travel(0.0, tick=False)
elif tool == "mocks":
    from contextlib import ExitStack
    from unittest import mock
    def clocks():
        stack = ExitStack()
        for name in ("time", "monotonic", "monotonic_ns", "perf_counter", "sleep"):
            stack.enter_context(mock.patch(f"time.{name}", side_effect=AssertionError(f"{name} is a mock")))
        return stack

if when == "import":
    with clocks():
        import ordmap
from ordmap import ItemTimeoutError, ordered_map

if backend == "asyncio":
    import asyncio
    async def item(n):
        if n == 7:
            await asyncio.Event().wait()
        await asyncio.sleep(0)
        return n
else:
    def item(n):
        wait(30 if n == 7 else 0.002)
        return n

def source():
    for n in range(40):
        if n % 10 == 0:
            wait(0.01)
        yield n

def run(items, start, end):
    failed = []
    expected = [None if n == 7 else n for n in range(40)]
    got = ordered_map(item, items, workers=2, backend=backend, item_timeout=1, on_error=failed.append)
    results = []
    for n in range(start):
        results.append(next(got))
    with clocks():
        for n in range(start, end):
            results.append(next(got))
    results += got
    assert results == expected, results
    (failure,) = failed
    assert failure.index == 7 and isinstance(failure.error, ItemTimeoutError), failure

began = real()
run(range(40), *((0, 40) if when != "midst" else (3, 30)))
run(source(), *((0, 40) if when != "midst" else (12, 30)))
with clocks():
    endless = ordered_map(item, [7] * 8, workers=2, backend=backend, item_timeout=1)
    endless.start()
    endless.close()
took = real() - began
assert took < 20, took
print("right")
"""

TOOLS = ["freezegun", "freezegun, ticking", "time-machine", "mocks"]


@pytest.mark.parametrize("when", ["around", "midst", "import"])
@pytest.mark.parametrize("backend", ["processes", "spawn", "threads", "asyncio"])
@pytest.mark.parametrize("tool", TOOLS)
def test_an_item_takes_as_long_as_it_takes(tool, backend, when, script):
    command = [sys.executable, script(PROGRAM), tool, backend, when]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert (done.returncode, done.stdout) == (0, "right\n"), done.stderr
