"""Signals that the program has handlers for: they are the caller's business, and a worker does nothing at them.

A batch system or a terminal that hangs up tells each process of a job. A handler in Python would do in every forked
worker what is to be done once, and a fresh interpreter, which has none, would die. What a process sends itself, by a
timer or through its children, is left as it is.
"""

from __future__ import annotations

# What `signal` wraps: that makes an enum of each of 64 numbers, which takes a quarter of a millisecond.
import _signal  # type: ignore[import-not-found]
import signal
from collections.abc import Iterable

__all__ = ["handled", "leave_to_caller"]

#: A worker's own: those of its timers, its children and its faults, and those that its end and Ctrl-C are told by.
_OWN = frozenset(
    int(getattr(signal, name))
    for name in (
        *("SIGALRM", "SIGVTALRM", "SIGPROF", "SIGCHLD", "SIGPIPE", "SIGINT", "SIGTERM", "SIGBREAK"),
        *("SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGSEGV", "SIGSYS", "SIGTRAP"),
    )
    if hasattr(signal, name)
)

_SIGNALS = [number for number in _signal.valid_signals() if number not in _OWN]


def handled() -> list[int]:
    """Return the signals for which this process has a handler in Python, but for those that are a worker's own."""
    return [number for number in _SIGNALS if callable(_signal.getsignal(number))]


def leave_to_caller(numbers: Iterable[int]) -> None:
    """Have this worker do nothing at these signals. To ignore them would be inherited by what it runs."""
    for number in numbers:
        signal.signal(number, _do_nothing)


def _do_nothing(number: int, frame: object) -> None:
    """Be a handler."""
