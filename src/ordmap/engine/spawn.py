"""Workers as fresh interpreters, which never run the caller's ``__main__``.

All are started before the first is waited for. What the caller's ``__main__`` defines comes by value, made by
cloudpickle; its classes are put into the worker's own ``__main__``, where plain pickle finds them when they come back
in results: a reference is far smaller and quicker than a class by value.
"""

from __future__ import annotations

# What `signal` wraps: that makes an enum of each of 64 numbers, which takes a quarter of a millisecond.
import _signal  # type: ignore[import-not-found]
import contextlib
import marshal
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING, NoReturn

from ordmap import namespace
from ordmap.backends import cores, logs, streams
from ordmap.backends.pool import Life
from ordmap.engine import channel, kernel
from ordmap.engine.board import Board
from ordmap.engine.child import Introduction
from ordmap.engine.executable import Command, checked_executable
from ordmap.engine.last_words import LastWords
from ordmap.engine.parcel import Parcel, unpacked_parcel
from ordmap.engine.staff import Started, Worker
from ordmap.engine.terminal import let_go_of_terminal
from ordmap.engine.trackers import callers_tracker, outlive_workers
from ordmap.engine.worker import Seat, leashed, work
from ordmap.errors import BackendUnavailableError
from ordmap.imports import refuse_workers_in_imports, works
from ordmap.interrupts import pass_on
from ordmap.shielded import shielded
from ordmap.signalled import take_own
from ordmap.surroundings import Surroundings

if TYPE_CHECKING:
    from ordmap.engine.pool import Crew

__all__ = ["Interpreter", "main"]


class Interpreter:
    """Starts workers by running Python anew."""

    inherits = False
    beside = ""

    def __init__(self, life: Life, instead: str) -> None:
        """``instead``: what to write where there is no program to run, in words."""
        refuse_workers_in_imports()
        self.life = life
        self._executable = checked_executable(instead)
        path = marshal.dumps(_path())
        try:
            self._luggage = Parcel((Introduction(), Surroundings.here(), life, logs.note()))
        except BaseException as error:
            pass_on(error)
            raise BackendUnavailableError(
                "the initializer, its initargs or the finalizer can't be pickled for fresh interpreters: "
                f"{type(error).__name__}: {error}"
            ) from error
        # A whole path may be longer than a command line. What reads it is built into Python, since any file of the
        # working directory may be in the place of a module that is not. It is put behind what the luggage itself has.
        place = self._luggage.append(path)
        self._prelude = (
            "import sys, marshal, posix; "
            f"sys.path[:] = marshal.loads(posix.pread({self._luggage.file}, {len(path)}, {place})); "
        )

    def __call__(self, crew: Crew, number: int, started: Started, *, recorded: bool) -> Worker:
        return shielded(lambda: self._start(crew, number, started, recorded=recorded))

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
            tracker = callers_tracker()
            told = files, number, crew.size, crew.allowance, crew.first + number, tracker
            command = Command.calling(self._executable, self._prelude, __name__, "main", *told)
            pid = command.run(
                files if tracker is None else (*files, tracker),
                stderr=file if recorded else None,
                env=cores.environment(self.life.threads),
            )
            started.pids.append(pid)
            pidfd = kernel.pidfd_open(pid)
            started.opened.append(pidfd)
            return Worker(number, pid, pidfd, *ours, LastWords(file), crew.board, recorded=recorded)

    def close(self) -> None:
        """Let go of what every worker gets."""
        self._luggage.close()


def _path() -> list[str]:
    """Return where this process imports from: what is no text is passed over, here as there."""
    path = [str.__str__(entry) for entry in sys.path if isinstance(entry, str)]
    own = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))  # noqa: PTH120
    return path if own in path else [*path, own]


@works
def main(  # noqa: PLR0917  what a command line says
    files: tuple[int, ...], number: int, workers: int, allowance: tuple[int, int], place: int, tracker: int | None
) -> NoReturn:
    """Be a worker: all that a fresh interpreter does. ``place``: which child of the caller's it is."""
    board_file, taking, offers, results, leash, file, luggage, *stderr = files
    for one in files:
        os.set_inheritable(one, False)
    last_words = LastWords(file)
    last_words.tell_of_crashes()
    if stderr:
        last_words.record(*stderr)
    leash_end = socket.socket(fileno=leash)
    leashed(leash_end)
    let_go_of_terminal()
    take_own()
    _signal.pthread_sigmask(signal.SIG_SETMASK, ())  # the caller has them all wait while it starts workers
    board = Board(workers, board_file)
    os.close(board_file)
    streams.begin(inherited=False)
    namespace.keep()
    if tracker is not None:
        os.set_inheritable(tracker, False)
    outlive_workers(leash, tracker)
    Introduction.expected = place, leash
    life: Life
    try:
        _, surroundings, life, configured = unpacked_parcel(luggage)
        surroundings.take_on()
        logs.take_over(configured)
    except BaseException as error:
        life = Life(_raise, (error,))
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
