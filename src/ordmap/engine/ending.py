"""How workers end: asked, then told, then killed; and with them what their items launched.

Each worker leads a process group of its own. The caller may reap any child at any moment, as programs do that supervise
others: from then on the worker's number may be another's. So nothing here goes by that number alone (see `groups`); a
worker is known by its pidfd.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from ordmap import real_time as time
from ordmap.engine import kernel
from ordmap.engine.clock import TIMED_OUT
from ordmap.engine.groups import reap_group, signal_group
from ordmap.errors import WorkerDiedError

if TYPE_CHECKING:
    from ordmap.engine.staff import Worker

__all__ = ["LEAVE", "Death", "end_gently", "end_workers", "has_ended", "reap"]

#: Seconds that a worker with nothing in hand has to leave by itself, with all that is to be done at its end.
LEAVE = 5.0

#: Seconds that a worker has to follow SIGTERM, which it does at once unless an item has set a handler.
_GRACE = 0.1

#: … and where it has to leave its item, and to run its finalizer.
_GENTLE = 0.5

#: How often such a worker is told so in that time.
_TIMES = 5

#: Seconds after which not even SIGKILL is waited for any longer: the kernel itself is stuck in a system call.
_GIVE_UP = 5.0


class Death(NamedTuple):
    """How a worker ended: its exit code, where known, and where it was if its own clock or a crash ended it."""

    worker: str
    pid: int
    code: int | None
    stack: str

    def __str__(self) -> str:
        return f"worker {self.worker} {_said(self.code)}"

    @property
    def timed_out(self) -> bool:
        """Whether its own clock has ended it."""
        # The code isn't known where the program has other ways to wait for its children. Then the stack tells.
        return self.code == TIMED_OUT or (self.code is None and self.stack != "" and not self.stack.startswith("Fatal"))

    def error(self, message: str) -> WorkerDiedError:
        """Return the error that says so."""
        return WorkerDiedError(
            message, pid=self.pid, exit_code=self.code, signal=_signal_name(self.code), stack=self.stack
        )


def end_workers(workers: Sequence[Worker], busy: Sequence[Worker], *, gently: bool) -> None:
    """End workers that were asked to leave: those busy at once, the others when they don't go. All are reaped.

    ``gently``: they have a finalizer to run. An exception that a signal's handler raises in between comes once all is
    done.
    """
    end = end_gently if gently else _end_at_once
    try:
        _end(workers, busy, end)
    except BaseException:
        _end([worker for worker in workers if not worker.reaped], workers, end)
        raise


def end_gently(worker: Worker) -> Iterator[float]:
    """End a worker that has a finalizer, step by step; yield the seconds until the next step.

    It is told several times, since Python heeds a signal that comes right before a system call only after that. What
    its finalizer has started meanwhile is not told.
    """
    signal_group(worker, signal.SIGTERM)
    for _ in range(_TIMES - 1):
        yield _GENTLE / _TIMES
        with contextlib.suppress(ProcessLookupError):
            kernel.pidfd_send_signal(worker.pidfd, signal.SIGTERM)
    yield _GENTLE / _TIMES
    signal_group(worker, signal.SIGKILL)


def _end_at_once(worker: Worker) -> Iterator[float]:
    signal_group(worker, signal.SIGTERM)
    yield _GRACE
    signal_group(worker, signal.SIGKILL)


def _end(workers: Sequence[Worker], busy: Sequence[Worker], end: Callable[[Worker], Iterator[float]]) -> None:
    now = time.monotonic()
    due = {worker: now + (0 if worker in busy else LEAVE) for worker in workers}
    steps = {worker: chain(end(worker), (_GIVE_UP,)) for worker in workers}
    poll = select.poll()
    by_file = {worker.pidfd: worker for worker in workers}
    for file in by_file:
        poll.register(file, select.POLLIN)
    while due:
        now = time.monotonic()
        for worker, when in list(due.items()):
            if when > now:
                continue
            wait = next(steps[worker], None)
            if wait is None:
                del due[worker]
                poll.unregister(worker.pidfd)
            else:
                due[worker] = now + wait
        if not due:
            break
        wait = min(due.values()) - time.monotonic()
        for file, _ in poll.poll(max(0, wait) * 1000 + 1):
            worker = by_file[file]
            poll.unregister(file)
            due.pop(worker, None)
            reap(worker)


def has_ended(worker: Worker) -> bool:
    """Whether a worker is dead, reaped or not."""
    try:
        return os.waitid(kernel.P_PIDFD, worker.pidfd, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None
    except ChildProcessError:
        return True


def reap(worker: Worker) -> int | None:
    """End what a dead worker launched and left, and return its exit code, as ``subprocess`` gives it, where known.

    It is not known where the caller has reaped it already.
    """
    is_ours = True
    try:
        os.waitid(kernel.P_PIDFD, worker.pidfd, os.WEXITED | os.WNOWAIT)
    except ChildProcessError:
        is_ours = False
    signal_group(worker, signal.SIGKILL)
    if is_ours:
        reap_group(worker)
    worker.reaped = True
    return worker.code


def _said(code: int | None) -> str:
    """Return what an exit code says, as the end of a sentence about a worker."""
    if code is None:
        return "ended"
    name = _signal_name(code)
    if name is None:
        return f"ended with exit code {code}"
    hint = " (probably the kernel's out-of-memory killer)" if code == -signal.SIGKILL else ""
    return f"was killed by {name}{hint}"


def _signal_name(code: int | None) -> str | None:
    if code is None or code >= 0:
        return None
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
