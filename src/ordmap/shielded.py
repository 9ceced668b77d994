"""Exceptions that one thread raises in another, kept from the instants at which something would be left behind.

Task queues and time limits do so (``PyThreadState_SetAsyncExc``): such an exception may come after any call, and
between a call and what is done with its result. Nothing holds it up as signals can be held up. So what must not be lost
is noted by the very call that makes it, in C; or it is made by a short thread that no other knows, and so can't aim at.
"""

from __future__ import annotations

import _thread
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import starmap
from typing import Any, TypeVar

from ordmap import real_time as time

__all__ = ["give_way", "hearing", "noted", "passes", "shielded"]

T = TypeVar("T")


def noted(made: list[T], make: Callable[..., T], *args: object) -> None:
    """Call a function and put what it returns into a list: one call of C's, so that nothing comes in between."""
    made.extend(starmap(make, (args,)))


def passes(lock: Any, *how: object) -> bool:
    """Take a lock and give it back at once; ``False``: it can't be had in the way that ``acquire`` is told."""
    taken: list[bool] = []
    try:
        noted(taken, lock.acquire, *how)
        return taken == [True]
    finally:
        if taken == [True]:
            lock.release()


def give_way() -> None:
    """Let an exception come now that another thread has for this one; the next waits some milliseconds for its turn.

    The main thread needs none of it: signals are for that.
    """
    if not _is_main():
        time.sleep(0)


def shielded(make: Callable[[], T], undo: Callable[[T], object] = lambda _: None) -> T:
    """Return what a function makes, in a short thread of its own; undo it where an exception keeps it from the caller.

    The main thread makes it itself. The function may not wait for a lock that its caller has.
    """
    if _is_main():
        return make()
    made: list[T] = []
    failed: list[BaseException] = []
    begun: list[int] = []
    done = _thread.allocate_lock()
    done.acquire()

    def run() -> Iterator[None]:
        try:
            yield
            noted(made, make)
        except BaseException as error:
            failed.append(error)
        finally:
            done.release()

    # Before Python 3.12 an exception for the thread that starts another may hit that one, at its first line: which is
    # within the ``try`` where a generator goes on there.
    running = run()
    next(running)
    give_way()
    try:
        try:
            noted(begun, _thread.start_new_thread, next, (running, None))
        finally:
            if begun:
                done.acquire()
    except BaseException as error:
        if not begun and type(error) is RuntimeError:
            return make()  # there can be no more threads
        for one in made:
            undo(one)
        raise
    if failed:
        raise failed.pop()
    return made[0]


def hearing(call: Callable[..., object], *args: object) -> None:
    """Call a function which calls others in vain that fail, and raise what another thread has raised in those.

    Python does so around a fork: it reports what a function raises that was registered for that, and ignores it. From
    another thread comes a class, of which Python makes an exception without arguments.
    """
    global _before
    if _is_main():
        call(*args)
        return
    heard: list[BaseException] = []
    me = threading.get_ident()
    try:
        _hearing[me] = heard
        if sys.unraisablehook is not _overhear:
            _before, sys.unraisablehook = sys.unraisablehook, _overhear
        call(*args)
    finally:  # nothing is called here, so nothing comes in between, nor does another thread
        del _hearing[me]
        if not _hearing and sys.unraisablehook is _overhear:
            sys.unraisablehook = _before
    if heard:
        raise heard[0]


#: By thread: what was heard there so far.
_hearing: dict[int, list[BaseException]] = {}
_before: Callable[[Any], Any] = sys.unraisablehook


def _overhear(unraisable: Any) -> None:
    heard = _hearing.get(threading.get_ident())
    if heard is None or unraisable.exc_value is None or unraisable.exc_value.args:
        _before(unraisable)
    else:
        heard.append(unraisable.exc_value)


def _is_main() -> bool:
    return threading.get_ident() == threading.main_thread().ident
