"""No workers are started by a worker that is still importing what it has to compute.

A module that runs a loop when it is imported has each worker of that loop import it, to find the function. If that ran
the loop again, each worker would start workers, and these would, without end. An item may start workers as it likes.

Nothing is noted beforehand, which would cost each item something: who starts workers looks at what this thread is at.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import CodeType
from typing import Any, TypeVar

from ordmap.errors import BackendUnavailableError

__all__ = ["begins", "refuse_workers_in_imports", "works"]

F = TypeVar("F", bound=Callable[..., Any])

_workers: set[CodeType] = set()
_beginnings: set[CodeType] = set()


def works(function: F) -> F:
    """Mark a function that is at work, in a worker; our own code imports modules of the user's only as it unpickles."""
    _workers.add(function.__code__)
    return function


def begins(function: F) -> F:
    """Mark a function of a worker's that runs the initializer, in which no module may start workers, either."""
    _beginnings.add(function.__code__)
    return works(function)


def refuse_workers_in_imports() -> None:
    """Raise where this thread, of a worker, is importing a module on our account, which asks for workers."""
    module: str | None = None  # the one that is being imported, the innermost
    inside = is_ours = False
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if frame.f_code.co_name == "<module>" and module is None:
            module = name
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            inside = True
        elif inside and not name.startswith("cloudpickle."):  # which imports what it unpickles
            is_ours = is_ours or name.startswith("ordmap.")
            inside = False
        if module is not None and (frame.f_code in _beginnings or (is_ours and frame.f_code in _workers)):
            raise BackendUnavailableError(
                f"the module {module!r} runs a loop with workers when it is imported, and this is a worker that "
                "imports it to find what it has to compute: put the loop into a function, or under "
                'if __name__ == "__main__":'
            )
        frame = frame.f_back  # type: ignore[assignment]
