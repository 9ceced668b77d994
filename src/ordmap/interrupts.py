"""Signals that wait: where what a handler raises, Ctrl-C above all, would leave something behind, or be lost."""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import FrameType
from typing import Any, ClassVar

__all__ = ["postponed", "send_later", "uninterrupted"]

_ALL_SIGNALS = signal.valid_signals()


class _StandIns:
    """Handlers in place of those that Python has to call, which only note what arrives; for the main thread."""

    standing_in: ClassVar[_StandIns | None] = None

    def __init__(self) -> None:
        self.arrived: list[int] = []
        self._handlers: dict[int, Any] = {}

    @classmethod
    def put(cls) -> _StandIns | None:
        """Put them in place; ``None``: others are there already, or this is no thread that handlers run in."""
        if cls.standing_in is not None or threading.current_thread() is not threading.main_thread():
            return None
        made = cls()
        try:
            for number in _ALL_SIGNALS:
                handler = signal.getsignal(number)
                if callable(handler):
                    made._handlers[number] = handler
                    signal.signal(number, made._note)
        except BaseException:  # of a handler that was not replaced yet
            made._put_back()
            raise
        cls.standing_in = made
        return made

    def remove(self) -> None:
        """Put the handlers back. What one raises that is back already comes once all are."""
        _StandIns.standing_in = None
        self._put_back()

    def _put_back(self) -> None:
        error: BaseException | None = None
        rest = list(self._handlers)
        while rest:
            try:
                signal.signal(rest[-1], self._handlers[rest[-1]])
                rest.pop()
            except BaseException as raised:
                error = raised
        if error is not None:
            raise error

    def _note(self, number: int, _: object) -> None:
        self.arrived.append(number)

    @classmethod
    def restore_in_child(cls) -> None:
        """Have this process, which was forked in the meantime, begin with the handlers that the caller had before."""
        made, cls.standing_in = cls.standing_in, None
        if made is not None:
            for number, handler in made._handlers.items():
                signal.signal(number, handler)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_StandIns.restore_in_child)


class uninterrupted:  # noqa: N801  used as a function is
    """Have signals wait to the end: an exception of a handler's must not leave a worker behind.

    To block them is not enough. Another thread, which doesn't, may receive one, and Python then runs the handler in the
    main thread, wherever that is: so there the handlers wait, too. Inside another of these one has nothing to do.
    """

    _outermost: ClassVar[uninterrupted | None] = None

    def __init__(self) -> None:
        self._stand_ins: _StandIns | None = None
        self._mask: set[int] | None = None  # before this one; `None`: it is inside another

    def __enter__(self) -> None:
        in_main_thread = threading.current_thread() is threading.main_thread()
        if in_main_thread and uninterrupted._outermost is not None:
            return
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, _ALL_SIGNALS)
        try:
            self._stand_ins = _StandIns.put()
        except BaseException:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
            raise
        if in_main_thread:
            uninterrupted._outermost = self

    def __exit__(self, *exc_info: object) -> None:
        if self._mask is None:
            return
        if uninterrupted._outermost is self:
            uninterrupted._outermost = None
        error: BaseException | None = None
        for step in self._last_steps(self._mask):  # all of them, whatever handlers raise in some
            try:
                step()
            except BaseException as raised:
                raised.__context__ = error
                error = raised
        if error is not None:
            raise error

    def _last_steps(self, mask: set[int]) -> Iterator[Callable[[], object]]:
        if self._stand_ins is not None:
            yield self._stand_ins.remove
        yield partial(signal.pthread_sigmask, signal.SIG_SETMASK, mask)
        if self._stand_ins is not None:
            for number in self._stand_ins.arrived:
                yield partial(signal.raise_signal, number)


class postponed:  # noqa: N801  used as a function is
    """Have the main thread's handlers wait until it is where what they raise can be heard.

    ``deaf``: whether it isn't, as its innermost frame tells.
    """

    def __init__(self, deaf: Callable[[FrameType | None], bool]) -> None:
        self._deaf = deaf
        self._stand_ins: _StandIns | None = None

    def __enter__(self) -> None:
        self._stand_ins = _StandIns.put()

    def __exit__(self, *exc_info: object) -> None:
        if self._stand_ins is None:
            return
        self._stand_ins.remove()
        arrived = self._stand_ins.arrived
        if arrived:
            try:
                _thread.start_new_thread(send_later, (arrived, self._deaf))
            except RuntimeError:  # the program ends
                for number in arrived:
                    signal.raise_signal(number)


def send_later(numbers: Sequence[int], deaf: Callable[[FrameType | None], bool]) -> None:
    """Send the main thread signals, as soon as it is not ``deaf`` to what their handlers raise; in another thread."""
    main = threading.main_thread().ident or 0
    for number in numbers:
        while deaf(sys._current_frames().get(main)):
            time.sleep(0.001)
        if hasattr(signal, "pthread_kill"):
            signal.pthread_kill(main, number)
        else:
            _thread.interrupt_main(signal.Signals(number))
