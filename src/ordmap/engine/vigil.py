"""The caller's watch over workers that may not be able to help themselves: stopped ones, and forks that wait for ever.

An item is timed by its worker's own clock, which stands still where the worker is stopped, or where the item has put it
out of order. And a fork may wait for a thread that was not copied with it, or for a lock that such a thread held. Both
are seen from outside: by the board, and by what the kernel says of the process.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from ordmap import real_time as time
from ordmap.engine import kernel
from ordmap.engine.board import Board
from ordmap.resources import read_text
from ordmap.telling import warn

if TYPE_CHECKING:
    from ordmap.engine.staff import Worker

__all__ = ["Vigil"]

#: Seconds between two looks.
_PERIOD = 0.25

#: Seconds that a worker's own clock may be late.
_LATE = 0.5

#: Seconds that a worker has, once it is continued, to be ended by its own clock, which leaves word of where it was.
_CONTINUED = 1.0

#: Seconds in which a worker that is at work uses at least a nanosecond of a core.
IDLE = 10.0


class _Sight(NamedTuple):
    """What a busy worker was at, when the caller looked, and the nanoseconds of cores that it had used."""

    at: tuple[int, int]
    since: float
    used: int


class Vigil:
    """A watch over the workers of one crew; ``beside``: the threads that forked workers lack, in words, or nothing."""

    def __init__(self, board: Board, beside: str) -> None:
        self._board = board
        self._beside = beside
        self._seen: dict[Worker, _Sight] = {}
        self._told: set[Worker] = set()
        self._has_told = False
        self.due = time.monotonic() + _PERIOD  # when to look next

    def look(self, workers: Iterable[Worker]) -> None:
        """End what is overdue, and say once of a worker that it seems to wait for ever."""
        now = time.monotonic()
        self.due = now + _PERIOD
        seen, self._seen = self._seen, {}
        for worker in workers:
            row = self._board.row(worker.number)
            if row[5]:
                _end_overdue(worker, (row[0], row[1]), time.perf_counter() - row[5] / 1e6)
            if worker in self._told or not self._board.is_busy(worker.number):
                continue
            at = row[0], row[1]
            sight = seen.get(worker)
            if sight is None or sight.at != at:
                sight = _Sight(at, now, _used(worker.pid))
            elif now - sight.since >= IDLE:
                last, sight = sight, _Sight(at, now, _used(worker.pid))
                if sight.used == last.used:
                    self._tell(worker, now - last.since)
            self._seen[worker] = sight

    def _tell(self, worker: Worker, idle: float) -> None:
        said = None
        if _is_stopped(worker.pid):
            said = (
                f"is stopped, and has been for {idle:.0f} s or longer: `kill -CONT {worker.pid}` lets it go on, and "
                "item_timeout= would have ended its item"
            )
        elif self._beside and not worker.proven and not self._has_told:
            self._has_told = True
            said = (
                f"has used no processor time for {idle:.0f} s, in its first item. It was forked beside {self._beside}, "
                "which a fork lacks, and may wait for that for ever: with backend='spawn' workers are fresh "
                "interpreters, backend='threads' needs none, and item_timeout= ends such an item. If the item just "
                "waits for something else, all is well"
            )
        if said is not None:
            self._told.add(worker)
            warn(f"worker {worker.name} {said}")


def _end_overdue(worker: Worker, at: tuple[int, int], late: float) -> None:
    """End a worker whose own clock should have done so; first let that do it, if it is but stopped."""
    if late < _LATE:
        return
    with contextlib.suppress(ProcessLookupError):
        if worker.overdue != at:
            worker.overdue = at
            kernel.pidfd_send_signal(worker.pidfd, signal.SIGCONT)
        elif late > _LATE + _CONTINUED:
            worker.condemned = True
            kernel.pidfd_send_signal(worker.pidfd, signal.SIGKILL)


def _used(pid: int) -> int:
    """Return the nanoseconds of cores that the threads of a process have used."""
    used = 0
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208  pathlib takes longer to import than all this
            used += int(read_text(f"/proc/{pid}/task/{thread}/schedstat").split()[0])
    except OSError:  # it has just ended, or the kernel keeps no such account
        return time.monotonic_ns()  # as if it worked
    return used


def _is_stopped(pid: int) -> bool:
    try:
        return read_text(f"/proc/{pid}/stat").rpartition(") ")[2][:1] in {"T", "t"}
    except OSError:  # it has just ended
        return False
