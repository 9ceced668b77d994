"""How workers end: asked, then told, then killed; and with them what their items launched.

Each worker leads a process group of its own. A group is signalled before its leader is reaped: until then the leader's
number can't be another's.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from ordmap.engine.staff import Worker

__all__ = ["end_workers", "has_ended", "reap", "said", "uninterrupted"]

_ALL_SIGNALS = signal.valid_signals()

#: Seconds that a worker with nothing in hand has to leave by itself, which includes its finalizers.
_LEAVE = 1.0

#: Seconds that a worker has to follow SIGTERM, which it does at once unless an item has set a handler.
_GRACE = 0.1

#: Seconds after which not even SIGKILL is waited for any longer: the kernel itself is stuck in a system call.
_GIVE_UP = 5.0


class uninterrupted:  # noqa: N801  used as a function is
    """Have signals wait: an exception that a handler raises, Ctrl-C above all, must not leave a worker behind.

    To block them is not enough. Another thread, which doesn't, may receive one, and Python then runs the handler in the
    main thread, wherever that is: so there the handlers wait, too. Inside another of these one has nothing to do.
    """

    _outermost: ClassVar[uninterrupted | None] = None

    def __init__(self) -> None:
        self._handlers: dict[int, Any] = {}
        self._arrived: list[int] = []
        self._mask: set[int] | None = None  # before this one; `None`: it is inside another

    def __enter__(self) -> None:
        in_main_thread = threading.current_thread() is threading.main_thread()
        if in_main_thread and uninterrupted._outermost is not None:
            return
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, _ALL_SIGNALS)
        if not in_main_thread:
            return
        try:
            for number in _ALL_SIGNALS:
                handler = signal.getsignal(number)
                if callable(handler):
                    self._handlers[number] = handler
                    signal.signal(number, self._note)
        except BaseException:  # of a handler that was not replaced yet
            self._restore()
            raise
        uninterrupted._outermost = self

    def __exit__(self, *exc_info: object) -> None:
        if self._mask is None:
            return
        if uninterrupted._outermost is self:
            uninterrupted._outermost = None
        self._restore()
        for number in self._arrived:
            signal.raise_signal(number)

    def _note(self, number: int, _: object) -> None:
        self._arrived.append(number)

    def _restore(self) -> None:
        error: BaseException | None = None
        rest = list(self._handlers)
        while rest:
            try:
                signal.signal(rest[-1], self._handlers[rest[-1]])
                rest.pop()
            except BaseException as raised:  # of a handler that is back already
                error = raised
        if self._mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        if error is not None:
            raise error

    @classmethod
    def restore_in_child(cls) -> None:
        """Have this process, which was forked in the meantime, begin with the handlers that the caller had before."""
        outermost, cls._outermost = cls._outermost, None
        if outermost is not None:
            for number, handler in outermost._handlers.items():
                signal.signal(number, handler)


os.register_at_fork(after_in_child=uninterrupted.restore_in_child)


def end_workers(workers: Sequence[Worker], busy: Sequence[Worker]) -> None:
    """End workers that were asked to leave: those busy at once, the others when they don't go. All are reaped.

    An exception that a signal's handler raises in between comes once all is done.
    """
    try:
        _end(workers, busy)
    except BaseException:
        _end([worker for worker in workers if not worker.reaped], workers)
        raise


def _end(workers: Sequence[Worker], busy: Sequence[Worker]) -> None:
    now = time.monotonic()
    due: dict[Worker, tuple[int | None, float]] = {
        worker: (signal.SIGTERM, now + (0 if worker in busy else _LEAVE)) for worker in workers
    }
    poll = select.poll()
    by_file = {worker.pidfd: worker for worker in workers}
    for file in by_file:
        poll.register(file, select.POLLIN)
    while due:
        now = time.monotonic()
        for worker, (number, when) in list(due.items()):
            if when > now:
                continue
            if number is None:
                del due[worker]
                poll.unregister(worker.pidfd)
                continue
            _signal_group(worker, number)
            due[worker] = (signal.SIGKILL, now + _GRACE) if number == signal.SIGTERM else (None, now + _GIVE_UP)
        if not due:
            break
        wait = min(when for _, when in due.values()) - time.monotonic()
        for file, _ in poll.poll(max(0, wait) * 1000 + 1):
            worker = by_file[file]
            poll.unregister(file)
            due.pop(worker, None)
            reap(worker)


def has_ended(worker: Worker) -> bool:
    """Whether a worker is dead, reaped or not."""
    try:
        return os.waitid(os.P_PIDFD, worker.pidfd, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None
    except ChildProcessError:
        return True


def reap(worker: Worker) -> int | None:
    """End what a dead worker launched and left, and return its exit code, as ``subprocess`` gives it, where known."""
    try:
        os.waitid(os.P_PIDFD, worker.pidfd, os.WEXITED | os.WNOWAIT)
        _signal_group(worker, signal.SIGKILL)
        _, status = os.waitpid(worker.pid, 0)
    except ChildProcessError:  # reaped already, by a caller that waits for any child
        worker.reaped = True
        return None
    worker.reaped = True
    return os.waitstatus_to_exitcode(status)


def said(code: int | None) -> str:
    """Return what an exit code says, as the end of a sentence about a worker."""
    if code is None:
        return "ended"
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"was killed by {name}"


def _signal_group(worker: Worker, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(worker.pid, number)
