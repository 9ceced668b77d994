"""What a fresh interpreter is to have as its caller has it, beyond what a process inherits and command lines say.

A forked worker has all that. Environment, working directory, umask and limits any process inherits.
"""

from __future__ import annotations

import sys
import threading
import warnings
from typing import Any, NamedTuple

from ordmap.interrupts import pass_on
from ordmap.signalled import handled, leave_to_caller

__all__ = ["Surroundings", "settle_warnings"]

#: A filter of warnings, with its category by name: to import a whole library for one that may never warn is too much.
_Filter = tuple[str, Any, tuple[str, str], Any, int]


class Surroundings(NamedTuple):
    """What the interpreter was told to do, by its command line or by the program."""

    path: list[Any]
    argv: list[str]
    filters: list[_Filter]
    default_action: str
    recursion_limit: int
    most_digits: int
    switch_interval: float
    stack_size: int
    no_bytecode: bool
    bytecode_folder: str | None
    locale: str | None
    handled_signals: list[int]

    @classmethod
    def here(cls) -> Surroundings:
        """Return what this process has."""
        return cls(
            list(sys.path),
            list(sys.argv),
            [_by_name(*one) for one in warnings.filters if isinstance(one[2], type)],
            getattr(warnings, "defaultaction", "default"),
            sys.getrecursionlimit(),
            sys.get_int_max_str_digits(),
            sys.getswitchinterval(),
            threading.stack_size(),
            sys.dont_write_bytecode,
            sys.pycache_prefix,
            _locale(),
            handled(),
        )

    def take_on(self) -> None:
        """Have this process be like that."""
        sys.path[:] = self.path
        sys.argv[:] = self.argv
        sys.setrecursionlimit(self.recursion_limit)
        sys.set_int_max_str_digits(self.most_digits)
        sys.setswitchinterval(self.switch_interval)
        threading.stack_size(self.stack_size)
        sys.dont_write_bytecode = self.no_bytecode
        sys.pycache_prefix = self.bytecode_folder
        if self.locale != _locale():
            _locale(self.locale)
        leave_to_caller(self.handled_signals)
        warnings.defaultaction = self.default_action  # type: ignore[attr-defined]
        warnings.filters[:] = []  # type: ignore[index]
        _callers[:] = self.filters
        settle_warnings()


def _by_name(action: str, message: Any, category: Any, module: Any, line: int) -> _Filter:
    return action, message, (category.__module__, category.__qualname__), module, line


#: The caller's filters of warnings, where this is a fresh interpreter.
_callers: list[_Filter] = []


def settle_warnings() -> None:
    """Have the caller's filters also for categories whose module was imported meanwhile, in the caller's order."""
    filters: list[Any] = warnings.filters  # type: ignore[assignment]
    place = len(filters)
    for action, message, (module, name), where, line in reversed(_callers):
        category = getattr(sys.modules.get(module), name, None)
        if category is None:
            continue
        one = (action, message, category, where, line)
        if one in filters:
            place = filters.index(one)
        else:
            filters.insert(place, one)


def _locale(wanted: str | None = None) -> str | None:
    """Return the locale of this process, or set it; ``None``: this system has none."""
    try:
        import _locale  # the part of `locale` that is in C

        return _locale.setlocale(_locale.LC_ALL, wanted)
    except Exception as error:  # one that was removed since
        pass_on(error)
        return None
