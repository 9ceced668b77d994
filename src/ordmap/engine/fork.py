"""Workers by fork: each begins as a copy of the caller, with all that it holds."""

from __future__ import annotations

import atexit
import contextlib
import io
import os
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from ordmap.backends.pool import Life
from ordmap.engine import channel
from ordmap.engine.last_words import LastWords
from ordmap.engine.staff import Worker
from ordmap.engine.worker import Seat, leashed, work
from ordmap.generators import begin_in_fork

if TYPE_CHECKING:
    from ordmap.engine.pool import Crew

__all__ = ["Fork"]


class Fork:
    """Starts workers by ``os.fork``."""

    inherits = True

    def __init__(self, life: Life) -> None:
        _mark_classes()
        self.life = life

    def __call__(self, crew: Crew, number: int, *, recorded: bool) -> Worker:
        with channel.to_worker() as (ours, theirs, file), crew.taking.dup() as tasks, crew.offers.dup() as offers:
            own_results, own_leash = theirs
            last_words = LastWords(file)
            seat = Seat(
                number,
                crew.size,
                crew.board,
                tasks,
                offers,
                own_results,
                own_leash,
                last_words,
                crew.jobs.held,
                crew.jobs.newest,
                crew.allowance,
                self.life,
                crew.variables,
            )
            shared = threading.active_count() > 1
            pid = _forked()
            if not pid:
                _be_worker(seat, ours, recorded=recorded, shared=shared)
            with contextlib.suppress(OSError):  # the child does the same; whoever comes first
                os.setpgid(pid, pid)
            return Worker(number, pid, *ours, last_words, crew.board, recorded=recorded)

    def close(self) -> None:
        """Do nothing: a fork needs nothing beforehand."""


def _mark_classes() -> None:
    """Have cloudpickle know each class that travels by value by one mark, here and in the workers.

    A class that was marked on one side only, when it travelled, would be another class on the other side.
    """
    found: dict[int, type] = {}  # by address: a metaclass may make its classes equal, or unhashable
    pending: list[type] = [object]
    while pending:
        subclasses: list[type] = type.__subclasses__(pending.pop())
        for kind in subclasses:
            if id(kind) not in found:
                found[id(kind)] = kind
                pending.append(kind)
    # Nearly all of the thousand classes that there are fail the first test, at a tenth of a microsecond each.
    local = [
        kind
        for kind in found.values()
        if ("<locals>" in kind.__qualname__ or getattr(kind, "__module__", None) == "__main__") and _goes_by_value(kind)
    ]
    if local:
        from cloudpickle import cloudpickle  # heavy; most programs have no such class

        for kind in local:
            with contextlib.suppress(TypeError):
                cloudpickle._get_or_create_tracker_id(kind)


def _goes_by_value(kind: type) -> bool:
    module = getattr(kind, "__module__", None)
    if module == "__main__":
        return True
    if "<locals>" not in kind.__qualname__ or not isinstance(module, str):
        return False
    return module.partition(".")[0] not in sys.stdlib_module_names


def _forked() -> int:
    """Fork, with all text printed that has been written so far."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # a closed or odd stream has nothing that could be printed twice
            stream.flush()
    with warnings.catch_warnings():
        # Python ≥ 3.12 warns of a fork beside threads. The child runs no code of theirs.
        warnings.filterwarnings("ignore", ".*multi-threaded", DeprecationWarning)
        return os.fork()


def _be_worker(seat: Seat, callers: Sequence[socket.socket], *, recorded: bool, shared: bool) -> None:
    """Turn this copy of the caller into a worker; does not return. ``shared``: the caller had other threads."""
    try:
        os.setpgid(0, 0)
        leashed(seat.leash)
        if recorded:
            seat.last_words.record_from_now_on()
        seat.last_words.tell_of_crashes()
        for end in callers:
            end.close()
        signal.set_wakeup_fd(-1)
        # Ctrl-C is the caller's. A handler that does nothing, since "ignore" would be inherited by what an item runs.
        signal.signal(signal.SIGINT, lambda *_: None)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())  # they waited for the caller's sake, see `Crew`
        atexit._clear()
        util = sys.modules.get("multiprocessing.util")
        if util is not None:
            util._finalizer_registry.clear()
            util._run_after_forkers()
        _renew_streams()
        begin_in_fork(shared=shared)
    except BaseException:
        os._exit(1)
    work(seat)


#: The caller's streams, kept so that nothing they have buffered is ever written here.
_inherited: list[object] = []


def _renew_streams() -> None:
    """Have standard streams of this process's own: the caller's may hold text, which the caller will print."""
    _inherited.extend((sys.stdin, sys.stdout, sys.stderr))
    sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115, PTH123  for the life of this process
    if os.isatty(0):  # a program that an item runs would be stopped when it reads, being in the background
        os.dup2(sys.stdin.fileno(), 0)
    sys.stdout = _renewed(sys.stdout, 1)
    sys.stderr = _renewed(sys.stderr, 2)


def _renewed(stream: TextIO, file: int) -> TextIO:
    """Return a stream like this one, empty; one that isn't plainly the process's own is left as it is."""
    if not isinstance(stream, io.TextIOWrapper) or stream.closed:
        return stream
    try:
        if stream.fileno() != file:
            return stream
    except (OSError, ValueError):
        return stream
    # Line by line, since a worker that is ended in an item has no time to flush.
    return open(file, "w", encoding=stream.encoding, errors=stream.errors, buffering=1, closefd=False)
