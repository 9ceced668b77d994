"""Clocks that no test has set: the library's own, in place of the module `time`.

A test that freezes time (freezegun, time-machine), or puts a mock into `time`, means the program's clocks. The library
measures with its own whether an item takes too long, how large a chunk is to be and how long to wait: with a clock that
stands still an innocent item is ended, or a wait has no end. Such a test may also begin while a loop is under way, or
be the first that imports one of these modules. So the functions here are a second making of those in C. Freezegun looks
for the first making in the globals of all modules, and finds none here.

What items see, and what users write, is left as the test has set it.
"""

from __future__ import annotations

import _thread
import time
from collections.abc import Callable
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any

__all__ = ["green_threads", "monotonic", "monotonic_ns", "perf_counter", "sleep", "thread_time"]


def _made_anew(name: str) -> ModuleType:
    """Return a second module of this name, which `sys.modules` doesn't have."""
    spec: Any = find_spec(name)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_time = _made_anew("time")
perf_counter: Callable[[], float] = _time.perf_counter
# Several releases of time-machine replace `monotonic` in the C code, which all makings share, and none `perf_counter`.
monotonic = perf_counter
monotonic_ns: Callable[[], int] = _time.perf_counter_ns
thread_time: Callable[[], float] = _time.thread_time


def green_threads() -> str:
    """Return who has made all threads of this program take turns in one, such as ``gevent``; ``""``: they are real."""
    patcher = getattr(_thread.start_new_thread, "__module__", "_thread").partition(".")[0]
    return "" if patcher in {"_thread", "thread"} else patcher


def sleep(seconds: float) -> None:
    """Wait, whatever has become of ``time.sleep``; but not where green threads need theirs, to take turns meanwhile."""
    (time.sleep if green_threads() else _time.sleep)(seconds)
