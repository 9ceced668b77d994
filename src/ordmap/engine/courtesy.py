"""How a worker stands to its caller where both want a core.

What wakes a worker up is the caller, and the kernel may well give it the caller's own core at once, in the midst of its
loop. Where items are short this happens thousands of times a second, and there is no hurry: other chunks are ready. So
a worker is a batch process then, which takes no core from another. One whose items take longer is woken more seldom,
and should not wait for a core.
"""

from __future__ import annotations

import os

from ordmap.resources import read_text

__all__ = ["Courtesy"]

#: Items of a chunk from which on they are short: only where they take less than a millisecond are there several.
_SEVERAL = 2


class Courtesy:
    """That of the thread which makes it, unless somebody else sees to how it is scheduled."""

    current: Courtesy | None = None  # of this process

    def __init__(self) -> None:
        self._policy = os.SCHED_OTHER
        self._is_ours = True
        Courtesy.current = self

    def show(self, items: int) -> None:
        """Be as courteous as befits a chunk of so many items, whose size was adapted to them."""
        policy = os.SCHED_BATCH if items >= _SEVERAL else os.SCHED_OTHER
        if policy == self._policy or not self._is_ours:
            return
        try:
            self._is_ours = os.sched_getscheduler(0) == self._policy and not _may_kill()
            if self._is_ours:
                os.sched_setscheduler(0, policy, os.sched_param(0))
                self._policy = policy
        except OSError:  # the system allows it to none
            self._is_ours = False

    @staticmethod
    def forgo() -> None:
        """Be as at first, for what is started now inherits it: workers within a worker."""
        if Courtesy.current is not None:
            Courtesy.current.show(0)


def _may_kill() -> bool:
    """Whether system calls are filtered here, as in many a container: some filters kill a process that asks."""
    return "\nSeccomp:\t2" in read_text("/proc/self/status")
