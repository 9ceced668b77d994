"""When a worker has done enough: it then leaves between two items, and another takes its place."""

from __future__ import annotations

import os
import sys

from ordmap import real_time as time

__all__ = ["Wear", "own_memory"]

#: The part of its time that a worker may spend on looking at its memory, each time roughly and each time closely.
_SHARE = 0.02


class Wear:
    """How many items a worker may still compute, ``left``, and whether it holds too much memory for another.

    Its memory counts once it has computed an item: else one that has too much from the start would give nothing.
    """

    def __init__(self, most_items: int | None, most_bytes: int | None) -> None:
        self.left = sys.maxsize if most_items is None else most_items
        self._most_bytes = most_bytes
        self._has_computed = False
        self._look_again = 0.0
        self._look_closely = 0.0
        self._suspect = 0  # bytes in all with which its own may have become too many

    def note(self, items: int) -> None:
        """Note that so many items were computed."""
        self.left -= items
        self._has_computed = True

    def is_over(self, *, amid: bool = False) -> bool:
        """Whether the worker is to leave now, ``amid`` a chunk of which it has computed some or between two.

        It looks at its memory as often as that costs next to nothing.
        """
        if self.left <= 0:
            return True
        now = time.perf_counter()
        if self._most_bytes is None or not (amid or self._has_computed) or now < self._look_again:
            return False
        began = time.thread_time()  # what other processes take of the core meanwhile is no cost of this
        resident = _resident()
        self._look_again = now + (time.thread_time() - began) / _SHARE
        if resident > self._most_bytes and (resident > self._suspect or now > self._look_closely):
            own = own_memory()
            self._suspect = resident + self._most_bytes - own
            self._look_closely = now + (time.thread_time() - began) / _SHARE
            if own > self._most_bytes:
                self.left = 0
                return True
        return False


def own_memory() -> int:
    """Return the bytes of memory that this process has for itself alone, without what it has mapped of files.

    A forked worker shares with the caller what neither has written to since.
    """
    with open("/proc/self/smaps_rollup", encoding="ascii") as file:  # noqa: PTH123  pathlib takes long to import
        lines = [line.split() for line in file]
    kinds = {words[0]: int(words[1]) * 1024 for words in lines if words[-1] == "kB"}
    # A page of a file is dirty, too, until it is written, and anonymous memory may be shared: it is less than either.
    return min(kinds["Private_Dirty:"], kinds["Anonymous:"]) + kinds.get("Private_Hugetlb:", 0)


def _resident() -> int:
    """Return the bytes of memory that this process has, shared or not: much quicker to be had."""
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
