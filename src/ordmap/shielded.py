"""Exceptions that one thread raises in another, kept from the instants at which something would be left behind.

Task queues and time limits do so (``PyThreadState_SetAsyncExc``): such an exception may come after any call, and
between a call and what is done with its result. Nothing holds it up as signals can be held up. So what must not be lost
is noted by the very call that makes it, in C; or it is made by a short thread that no other knows, and so can't aim at.
"""

from __future__ import annotations

import _thread
import threading
import time
from collections.abc import Callable
from itertools import starmap
from typing import ParamSpec, TypeVar

__all__ = ["give_way", "noted", "shielded"]

T = TypeVar("T")
P = ParamSpec("P")


def noted(made: list[T], make: Callable[P, T], *args: P.args, **_: P.kwargs) -> None:
    """Call a function and put what it returns into a list: one call of C's, so that nothing comes in between."""
    made.extend(starmap(make, (args,)))


def give_way() -> None:
    """Let an exception come now that another thread has for this one; the next waits some milliseconds for its turn.

    The main thread needs none of it: signals are for that.
    """
    if not _is_main():
        time.sleep(0)


def shielded(make: Callable[[], T], undo: Callable[[T], object]) -> T:
    """Return what a function makes, in a short thread of its own; undo it where an exception keeps it from the caller.

    The main thread makes it itself.
    """
    if _is_main():
        return make()
    made: list[T] = []
    failed: list[BaseException] = []
    begun: list[int] = []
    done = _thread.allocate_lock()
    done.acquire()

    def run() -> None:
        try:
            noted(made, make)
        except BaseException as error:
            failed.append(error)
        finally:
            done.release()

    try:
        try:
            noted(begun, _thread.start_new_thread, run, ())
        finally:
            if begun:
                done.acquire()
    except BaseException:
        for one in made:
            undo(one)
        raise
    if failed:
        raise failed.pop()
    return made[0]


def _is_main() -> bool:
    return threading.get_ident() == threading.main_thread().ident
