"""Signals that wait: where what a handler raises, Ctrl-C above all, would leave something behind, or be lost.

And how what a handler raises, or another thread, is told from an error of the code that it interrupts.
"""

from __future__ import annotations

# What `signal` wraps: that makes an enum of each of 64 numbers, which takes a quarter of a millisecond.
import _signal  # type: ignore[import-not-found]
import _thread
import io
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import starmap
from types import FrameType
from typing import Any, ClassVar

from ordmap import real_time as time

__all__ = ["came_from_outside", "pass_on", "postponed", "send_later", "uninterrupted", "was_given"]

_ALL_SIGNALS: set[int] = _signal.valid_signals()

#: Of a function's code: whether it takes any number of arguments.
_VARARGS = 4

#: Instructions at which code raises what it means to, or what was thrown into it.
_RAISING = frozenset({"RAISE_VARARGS", "RERAISE", "YIELD_VALUE", "SEND"})

#: What functions in C raise without arguments.
_BARE = (StopIteration, StopAsyncIteration, GeneratorExit, MemoryError)


class _StandIns:
    """Handlers in place of those that Python has to call, which only note what arrives; for the main thread."""

    standing_in: ClassVar[_StandIns | None] = None

    def __init__(self) -> None:
        self.arrived: list[int] = []
        self._handlers: dict[int, Any] = {}

    @classmethod
    def put(cls) -> _StandIns | None:
        """Put them in place; ``None``: others are there already, or this is no thread that handlers run in."""
        if cls.standing_in is not None or threading.get_ident() != threading.main_thread().ident:
            return None
        made = cls()
        try:
            made._replace()
        except BaseException as error:  # of a handler that was not replaced yet
            if isinstance(error, ValueError) and made._changed_nothing():
                return None  # handlers are the business of the main interpreter alone, and this is another
            try:
                made._put_back()
            finally:
                call_all(made.arrived)
            raise
        cls.standing_in = made
        return made

    def remove(self) -> None:
        """Put the handlers back. What one raises that is back already comes once all are."""
        _StandIns.standing_in = None
        self._put_back()

    def _put_back(self) -> None:
        try:
            self._set_back()
        except BaseException:  # of a handler that is back already
            self._set_back()
            raise

    # Loops have a function of their own: where one begins anew a handler may run, and what it raises misses the ``try``
    # around the loop in Python 3.13.

    def _set_back(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _replace(self) -> None:
        for number in _ALL_SIGNALS:
            handler = _signal.getsignal(number)
            if callable(handler):
                self._handlers[number] = handler
                signal.signal(number, self._note)

    def _changed_nothing(self) -> bool:
        return all(_signal.getsignal(number) is handler for number, handler in self._handlers.items())

    def _note(self, number: int, _: object) -> None:
        self.arrived.append(number)

    @classmethod
    def restore_in_child(cls) -> None:
        """Have this process, which was forked in the meantime, begin with the handlers that the caller had before."""
        made, cls.standing_in = cls.standing_in, None
        if made is not None:
            made._set_back()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_StandIns.restore_in_child)


def pass_on(error: BaseException) -> None:
    """Raise an exception that was caught, if it came from outside: it is no fault of what was called."""
    if came_from_outside(error):
        raise error


def came_from_outside(error: BaseException) -> bool:
    """Whether an exception is a signal handler's or another thread's, not of the code that was interrupted by it.

    Ctrl-C always is. Any other handler was called with the frame that it interrupted, which comes right before its own
    in the traceback; it may have been replaced by another since, so that nothing else tells.
    """
    if isinstance(error, KeyboardInterrupt):
        return True
    if threading.get_ident() != threading.main_thread().ident:
        return _may_be_another_threads(error)
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        if was_given(place.tb_next.tb_frame, place.tb_frame):
            return True
        place = place.tb_next
    return False


def _may_be_another_threads(error: BaseException) -> bool:
    """Whether another thread may have raised an exception here.

    It gives a class (``PyThreadState_SetAsyncExc``), of which Python makes an exception without arguments; and it comes
    at an instruction that raises nothing by itself. So may what a function in C raises without arguments, which few do.
    """
    place = error.__traceback__
    if error.args or place is None or isinstance(error, _BARE) or type(error).__module__ == "_queue":
        return False
    while place.tb_next is not None:
        place = place.tb_next
    import opcode  # one loop does without

    return opcode.opname[place.tb_frame.f_code.co_code[place.tb_lasti]] not in _RAISING


def was_given(called: FrameType, frame: FrameType) -> bool:
    """Whether a function was called with a frame as one of its arguments."""
    code = called.f_code
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & _VARARGS)]
    arguments = [called.f_locals.get(name) for name in names]
    return any(one is frame or (type(one) is tuple and any(each is frame for each in one)) for one in arguments)


def call_all(numbers: Sequence[int]) -> None:
    """Call the handlers of these signals, each of them, also where those before raise; in the main thread.

    Not through the kernel: the wake-up descriptor was written to when a signal arrived, and an event loop would take
    the same signal for two.
    """
    if not numbers:
        return
    number = numbers[0]
    try:
        handler = _signal.getsignal(number)
        if callable(handler):
            handler(number, sys._getframe())
        else:  # a handler that was called before has given it back to the system
            signal.raise_signal(number)
    finally:
        call_all(numbers[1:])


class _Belated:
    """A handler in another's place until it has raised what that one raised already, where nothing heard it."""

    def __init__(self, handler: Callable[[int, FrameType | None], object]) -> None:
        self.handler = handler
        self.errors: list[BaseException] = []

    def __call__(self, number: int, frame: FrameType | None) -> object:
        error = self.errors.pop(0) if self.errors else None
        if not self.errors and _signal.getsignal(number) is self:
            signal.signal(number, self.handler)
        if error is not None:
            raise error
        return self.handler(number, frame)


class uninterrupted(io.IOBase):  # noqa: N801  used as a function is
    """Have signals wait to the end: an exception of a handler's must not leave a worker behind.

    To block them is not enough. Another thread, which doesn't, may receive one, and Python then runs the handler in the
    main thread, wherever that is: so there the handlers wait, too.

    In any other thread an exception from outside may come at the first instruction of any Python function. So ``with``
    ends there without one: `io.IOBase` has an ``__exit__`` in C that calls ``close``, and that is a call of C's, too.
    """

    closed = True  # else the end of the object would close it once more

    def __init__(self) -> None:
        self._stand_ins: _StandIns | None = None
        self._mask: set[int] = set()  # before

    def __enter__(self) -> None:  # type: ignore[override]  # it has nothing to be used
        self._mask = _signal.pthread_sigmask(signal.SIG_BLOCK, ())
        if threading.get_ident() != threading.main_thread().ident:
            restoring = starmap(_signal.pthread_sigmask, ((signal.SIG_SETMASK, self._mask),))
            self.close = partial(deque[Any]().extend, restoring)  # type: ignore[method-assign]
        try:
            _signal.pthread_sigmask(signal.SIG_BLOCK, _ALL_SIGNALS)
            self._stand_ins = _StandIns.put()
        except BaseException:  # of a handler that was due
            _signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
            raise

    def close(self) -> None:
        """Let signals come again."""
        stand_ins = self._stand_ins
        try:
            if stand_ins is not None:
                stand_ins.remove()
        finally:
            try:
                _signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
            finally:
                if stand_ins is not None:
                    call_all(stand_ins.arrived)


class postponed:  # noqa: N801  used as a function is
    """Have the main thread's handlers wait to the end, and what they raise until it is where that can be heard.

    ``deaf``: whether it isn't, as its innermost frame tells. What is ``kept`` lives on until then: its end, too, may be
    Python code in which nothing is heard.
    """

    def __init__(self, deaf: Callable[[FrameType | None], bool], kept: object) -> None:
        self._deaf = deaf
        self._kept = kept
        self._stand_ins: _StandIns | None = None

    def __enter__(self) -> None:
        self._stand_ins = _StandIns.put()

    def __exit__(self, *exc_info: object) -> None:
        if self._stand_ins is None:
            return
        try:
            self._stand_ins.remove()
        finally:
            self._call(self._stand_ins.arrived)

    def _call(self, arrived: Sequence[int]) -> None:
        """Call the handlers here and now, and have what they raise come later."""
        for number in arrived:
            handler = _signal.getsignal(number)
            belated = handler if isinstance(handler, _Belated) else _Belated(handler)
            try:
                if callable(belated.handler):
                    belated.handler(number, sys._getframe())
            except BaseException as error:
                belated.errors.append(error)
                signal.signal(number, belated)
                try:
                    _thread.start_new_thread(send_later, ([number], self._deaf, self._kept))
                except RuntimeError:  # the program ends
                    belated(number, None)


def send_later(numbers: Sequence[int], deaf: Callable[[FrameType | None], bool], _kept: object) -> None:
    """Send the main thread signals, as soon as it is not ``deaf`` to what their handlers raise; in another thread."""
    main = threading.main_thread().ident or 0
    for number in numbers:
        while deaf(sys._current_frames().get(main)):
            time.sleep(0.001)
        if hasattr(signal, "pthread_kill"):
            signal.pthread_kill(main, number)
        else:
            _thread.interrupt_main(signal.Signals(number))
