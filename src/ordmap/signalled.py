"""Which signals are whose: those that the program has handlers for are the caller's, and a worker does nothing at them.

A batch system or a terminal that hangs up tells each process of a job. A handler in Python would do in every forked
worker what is to be done once, and a fresh interpreter, which has none, would die. What a process sends itself, by a
timer or through its children, is left as it is. Ctrl-C is the caller's in any case, and SIGTERM ends a worker.
"""

from __future__ import annotations

# What `signal` wraps: that makes an enum of each of 64 numbers, which takes a quarter of a millisecond.
import _signal  # type: ignore[import-not-found]
import signal
from collections.abc import Iterable

__all__ = ["handled", "leave_to_caller", "take_own"]

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


def take_own() -> None:
    """Have this worker leave Ctrl-C to the caller, and end with SIGTERM, also where the caller ignores that."""
    leave_to_caller([signal.SIGINT])
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _do_nothing(number: int, frame: object) -> None:
    """Be a handler."""
