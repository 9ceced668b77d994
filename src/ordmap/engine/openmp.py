"""OpenMP runtimes that are loaded in this process: what a fork makes of their threads.

A thread that has run something in parallel keeps the threads of its team. A fork copies the team and none of its
threads: GNU's runtime (libgomp) then waits for ever for them at the next parallel region. So the caller lets its team
go before a fork, which costs a quarter of a millisecond, and has another when it needs one; a worker begins without.
LLVM's and Intel's runtimes see to a fork by themselves.
"""

from __future__ import annotations

from ctypes import CDLL

from ordmap.backends.cores import loaded

__all__ = ["Teams"]

#: ``omp_pause_soft``
_SOFT = 1


class Teams:
    """The teams of GNU's runtimes that are the calling thread's, which will fork."""

    def __init__(self) -> None:
        self._kept: list[CDLL] = []

    def let_go(self) -> None:
        """Let them go, right before a fork."""
        # Before GCC 9 a runtime couldn't; and in a parallel region (of C code that called Python) it may not.
        self._kept = [
            runtime
            for runtime in loaded()
            if "/libgomp" in runtime._name
            and (not hasattr(runtime, "omp_pause_resource_all") or runtime.omp_pause_resource_all(_SOFT))
        ]

    def begin_in_fork(self) -> None:
        """In the fork: have none of the threads waited for that the caller has not let go."""
        for runtime in self._kept:
            runtime.omp_set_max_active_levels(0)  # no region is parallel, not even one that asks for threads
