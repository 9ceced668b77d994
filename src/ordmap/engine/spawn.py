"""Workers as fresh interpreters, which never run the caller's ``__main__``.

All are started before the first is waited for. What the caller's ``__main__`` defines comes by value, made by
cloudpickle; its classes are put into the worker's own ``__main__``, where plain pickle finds them when they come back
in results: a reference is far smaller and quicker than a class by value.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from ordmap.engine import channel, codec
from ordmap.engine.board import Board
from ordmap.engine.parcel import Parcel, unpacked_parcel
from ordmap.engine.staff import Worker
from ordmap.engine.worker import Seat, leashed, work
from ordmap.errors import BackendUnavailableError

if TYPE_CHECKING:
    from ordmap.engine.pool import Crew

__all__ = ["Interpreter", "main"]


class Interpreter:
    """Starts workers by running Python anew."""

    inherits = False

    def __init__(self, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]) -> None:
        try:
            self._luggage = Parcel((sys.argv, initializer, initargs))
        except Exception as error:
            raise BackendUnavailableError(
                f"the initializer and its initargs can't be pickled for fresh interpreters: {error}"
            ) from error

    def __call__(self, crew: Crew, number: int) -> Worker:
        with channel.to_worker() as (ours, theirs, stack_file):
            own_results, own_leash = theirs
            files = (
                crew.board_file,
                crew.taking.fileno(),
                crew.offers.fileno(),
                own_results.fileno(),
                own_leash.fileno(),
                stack_file,
                self._luggage.file,
            )
            code = (
                f"import sys; sys.path[:] = {sys.path!r}; from ordmap.engine.spawn import main; "
                f"main({files}, {number}, {crew.size}, {crew.allowance})"
            )
            flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
            command = [sys.executable, *flags, "-c", code]
            process = subprocess.Popen(  # noqa: S603  this very interpreter
                command, pass_fds=files, stdin=subprocess.DEVNULL, process_group=0
            )
            process.returncode = 0  # the crew waits for it
            return Worker(number, process.pid, *ours, stack_file, crew.board)


def main(files: tuple[int, ...], number: int, workers: int, allowance: tuple[int, int]) -> NoReturn:
    """Be a worker: all that a fresh interpreter does."""
    board_file, taking, offers, results, leash, stack_file, luggage = files
    for file in files:
        os.set_inheritable(file, False)
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
    initializer: Callable[..., object] | None
    initargs: tuple[Any, ...]
    try:
        sys.argv[:], initializer, initargs = unpacked_parcel(luggage)
    except BaseException as error:
        initializer, initargs = _raise, (error,)
    codec.find_classes = fill_main
    seat = Seat(
        number,
        board,
        socket.socket(fileno=taking),
        socket.socket(fileno=offers),
        socket.socket(fileno=results),
        leash_end,
        stack_file,
        {},
        0,
        allowance,
        initializer,
        initargs,
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
