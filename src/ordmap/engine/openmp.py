"""OpenMP runtimes that are loaded in this process: what a fork makes of their threads, and how many they use.

A thread that has run something in parallel keeps the threads of its team. A fork copies the team and none of its
threads: GNU's runtime (libgomp) then waits for ever for them at the next parallel region. So the caller lets its team
go before a fork, which costs a quarter of a millisecond, and has another when it needs one; a worker begins without.
LLVM's and Intel's runtimes see to a fork by themselves.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ctypes import CDLL

__all__ = ["Teams", "limit_loaded"]

#: The path of a runtime, as `/proc/self/maps` ends a line: wheels bring their own, under a longer name.
_RUNTIME = re.compile(rb" (/[^\n]*/lib(?:gomp|i?omp5?)[-.][^\n/]*)\n")

#: ``omp_pause_soft``
_SOFT = 1


def limit_loaded(threads: int) -> None:
    """Have each runtime that is loaded use so many threads in what this thread asks of it from now on.

    What is asked for in so many words, as by LightGBM's ``num_threads``, is done all the same.
    """
    global _inherited
    runtimes, _inherited = _inherited, None
    for runtime in _loaded() if runtimes is None else runtimes:
        runtime.omp_set_num_threads(threads)


#: In a worker that was forked, until it first asks: those that the caller has found.
_inherited: list[CDLL] | None = None


class Teams:
    """The teams of GNU's runtimes that are the calling thread's, which will fork."""

    def __init__(self) -> None:
        self._modules = 0  # so many were imported when it was last seen what is loaded
        self._loaded: list[CDLL] = []
        self._kept: list[CDLL] = []

    def let_go(self) -> None:
        """Let them go, right before a fork."""
        if self._modules != len(sys.modules):  # a worker's place may be filled long after the first began
            self._modules = len(sys.modules)
            self._loaded = _loaded()
        # Before GCC 9 a runtime couldn't; and in a parallel region (of C code that called Python) it may not.
        self._kept = [
            runtime
            for runtime in self._loaded
            if "/libgomp" in runtime._name
            and (not hasattr(runtime, "omp_pause_resource_all") or runtime.omp_pause_resource_all(_SOFT))
        ]

    def begin_in_fork(self) -> None:
        """In the fork: have none of the threads waited for that the caller has not let go."""
        global _inherited
        _inherited = self._loaded
        for runtime in self._kept:
            runtime.omp_set_max_active_levels(0)  # no region is parallel, not even one that asks for threads


def _loaded() -> list[CDLL]:
    try:
        paths = set(_RUNTIME.findall(Path("/proc/self/maps").read_bytes()))
    except OSError:  # there is no descriptor left, so that there will be no worker either
        paths = set()
    if not paths:
        return []
    from ctypes import CDLL  # most programs that load such a runtime have it anyway

    runtimes = []
    for path in sorted(paths):
        with contextlib.suppress(OSError):  # its file was deleted or replaced since it was loaded
            runtimes.append(CDLL(os.fsdecode(path), mode=os.RTLD_NOLOAD | os.RTLD_NOW))
    return runtimes
