"""The library's own clocks go on where a test has set the program's; its waits let green threads take turns."""

from __future__ import annotations

import _thread
import subprocess
import sys
import time

import pytest

from ordmap import ordered_map, real_time
from ordmap.engine import available

CLOCKS = ("monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "time", "time_ns")
BACKENDS = ["threads", pytest.param("processes", marks=pytest.mark.skipif(not available(), reason="needs the engine"))]


@pytest.fixture
def frozen(monkeypatch):
    """Set the clocks as freezegun does: in `time`, and in each module that has taken one from there."""
    reals = {id(getattr(time, name)) for name in (*CLOCKS, "sleep")}
    for module in [one for name, one in sys.modules.items() if name.partition(".")[0] == "ordmap"]:
        for name, value in list(vars(module).items()):
            if id(value) in reals:
                monkeypatch.setattr(module, name, lambda *_: 1e9)
    for name in CLOCKS:
        monkeypatch.setattr(time, name, lambda: 1e9)
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("that is the test's own"))


def test_they_go_on(frozen):
    assert time.perf_counter() == time.perf_counter() == time.monotonic()
    seconds, nanoseconds = real_time.perf_counter(), real_time.monotonic_ns()
    real_time.sleep(0.001)
    assert real_time.perf_counter() - seconds >= 0.001
    assert real_time.monotonic() - seconds >= 0.001
    assert real_time.monotonic_ns() - nanoseconds >= 1_000_000


@pytest.mark.parametrize("backend", BACKENDS)
def test_items_are_quick_where_time_stands_still(frozen, backend):
    results = ordered_map(abs, (-n for n in range(300)), workers=2, prefetch=8, backend=backend, item_timeout=5)
    assert list(results) == list(range(300))


def test_green_threads_take_turns_while_the_library_waits(monkeypatch):
    slept = []

    def start_new_green_thread():
        """Stand for gevent's, which is known by its module alone."""

    start_new_green_thread.__module__ = "gevent.thread"
    monkeypatch.setattr(_thread, "start_new_thread", start_new_green_thread)
    monkeypatch.setattr(time, "sleep", slept.append)
    assert real_time.green_threads() == "gevent"
    real_time.sleep(7)
    assert slept == [7]


def test_a_clock_taken_while_time_stands_still_goes_on():
    program = "import time; time.perf_counter = lambda: 1.0; from ordmap import real_time as r; print(r.perf_counter())"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert float(said) != 1.0
