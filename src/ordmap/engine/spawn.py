"""Workers as fresh interpreters, which never run the caller's ``__main__``.

All are started before the first is waited for. What the caller's ``__main__`` defines comes by value, made by
cloudpickle; its classes are put into the worker's own ``__main__``, where plain pickle finds them when they come back
in results: a reference is far smaller and quicker than a class by value.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, NoReturn

from ordmap.backends.pool import Life
from ordmap.engine import channel, codec
from ordmap.engine.board import Board
from ordmap.engine.last_words import LastWords
from ordmap.engine.parcel import Parcel, unpacked_parcel
from ordmap.engine.staff import Started, Worker
from ordmap.engine.worker import Seat, leashed, work
from ordmap.errors import BackendUnavailableError
from ordmap.interrupts import came_by_a_signal
from ordmap.shielded import shielded

if TYPE_CHECKING:
    from ordmap.engine.pool import Crew

__all__ = ["Interpreter", "main"]


class Interpreter:
    """Starts workers by running Python anew."""

    inherits = False

    def __init__(self, life: Life) -> None:
        self.life = life
        try:
            self._luggage = Parcel((sys.argv, life))
        except BaseException as error:
            if came_by_a_signal(error):
                raise
            raise BackendUnavailableError(
                "the initializer, its initargs or the finalizer can't be pickled for fresh interpreters: "
                f"{type(error).__name__}: {error}"
            ) from error

    def __call__(self, crew: Crew, number: int, started: Started, *, recorded: bool) -> Worker:
        return shielded(lambda: self._start(crew, number, started, recorded=recorded), lambda _: None)

    def _start(self, crew: Crew, number: int, started: Started, *, recorded: bool) -> Worker:
        with channel.to_worker(started.opened) as (ours, theirs, file), contextlib.ExitStack() as cleanup:
            own_results, own_leash = theirs
            stderr = -1
            if recorded:
                stderr = os.dup(2)
                cleanup.callback(os.close, stderr)
            files = (
                crew.board_file,
                crew.taking.fileno(),
                crew.offers.fileno(),
                own_results.fileno(),
                own_leash.fileno(),
                file,
                self._luggage.file,
                *([stderr] if recorded else []),
            )
            code = (
                f"import sys; sys.path[:] = {sys.path!r}; from ordmap.engine.spawn import main; "
                f"main({files}, {number}, {crew.size}, {crew.allowance})"
            )
            flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
            command = [sys.executable, *flags, "-c", code]
            process = subprocess.Popen(  # noqa: S603  this very interpreter
                command,
                pass_fds=files,
                stdin=subprocess.DEVNULL,
                stderr=file if recorded else None,
                process_group=0,
            )
            process.returncode = 0  # the crew waits for it
            started.pids.append(process.pid)
            pidfd = os.pidfd_open(process.pid)
            started.opened.append(pidfd)
            return Worker(number, process.pid, pidfd, *ours, LastWords(file), crew.board, recorded=recorded)

    def close(self) -> None:
        """Let go of what every worker gets."""
        self._luggage.close()


def main(files: tuple[int, ...], number: int, workers: int, allowance: tuple[int, int]) -> NoReturn:
    """Be a worker: all that a fresh interpreter does."""
    board_file, taking, offers, results, leash, file, luggage, *stderr = files
    for one in files:
        os.set_inheritable(one, False)
    last_words = LastWords(file)
    last_words.tell_of_crashes()
    if stderr:
        last_words.record(*stderr)
    leash_end = socket.socket(fileno=leash)
    leashed(leash_end)
    # Ctrl-C is the caller's. A handler that does nothing, since "ignore" would be inherited by what an item runs.
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # the caller has them all wait while it starts workers
    board = Board(workers, board_file)
    os.close(board_file)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    life: Life
    try:
        sys.argv[:], life = unpacked_parcel(luggage)
    except BaseException as error:
        life = Life(_raise, (error,))
    codec.find_classes = fill_main
    seat = Seat(
        number,
        workers,
        board,
        socket.socket(fileno=taking),
        socket.socket(fileno=offers),
        socket.socket(fileno=results),
        leash_end,
        last_words,
        {},
        0,
        allowance,
        life,
    )
    work(seat)


def _raise(error: BaseException) -> None:
    raise error


def fill_main() -> bool:
    """Put the classes that cloudpickle has made for ``__main__`` into it; ``True``: there were any."""
    from cloudpickle import cloudpickle

    own = vars(sys.modules["__main__"])
    found = False
    for kind in list(getattr(cloudpickle, "_DYNAMIC_CLASS_TRACKER_BY_CLASS", ())):
        name = kind.__qualname__
        if kind.__module__ == "__main__" and "." not in name and own.get(name) is not kind:
            own[name] = kind
            found = True
    return found
