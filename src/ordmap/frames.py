"""Tracebacks in which a user finds his own code: the frames of ours between his lines are left out.

An error that may be a fault of ours keeps them all: it is neither ours on purpose nor from the user's code. Of that
from C code of others the innermost frame of ours stays, since a fault in there would look the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from types import CodeType, TracebackType
from typing import Any, TypeVar

from ordmap.errors import OrdmapError
from ordmap.interrupts import was_given

__all__ = ["asks_others", "gives_out", "show_the_users"]

F = TypeVar("F", bound=Callable[..., Any])

_PACKAGE = os.path.dirname(__file__) + os.sep  # noqa: PTH120  pathlib is heavy
_USED_AS_A_USER_S = frozenset(_PACKAGE + name for name in ("demo.py", "testing.py"))

_givers: set[CodeType] = set()
_askers: set[CodeType] = set()


def gives_out(function: F) -> F:
    """Mark a function that raises what others have raised elsewhere."""
    _givers.add(function.__code__)
    return function


def asks_others(function: F) -> F:
    """Mark a function that calls the user's code, which may be C and have no frames."""
    _askers.add(function.__code__)
    return function


def show_the_users(error: BaseException) -> None:
    """Leave the frames of ours out of an error's traceback, unless it may be a fault of ours."""
    entries: list[TracebackType] = []
    entry = error.__traceback__
    while entry is not None:
        entries.append(entry)
        entry = entry.tb_next
    if not entries:
        return
    innermost = entries[-1].tb_frame.f_code
    is_told = isinstance(error, OrdmapError | KeyboardInterrupt) or innermost in _givers or not _is_ours(innermost)
    if not is_told and innermost not in _askers:
        return
    kept: TracebackType | None = None
    behind: TracebackType | None = None
    for entry in reversed(entries):
        # What a signal's handler has raised is known by the frame that the handler was given.
        stays = was_given(behind.tb_frame, entry.tb_frame) if behind is not None else not is_told
        if stays or not _is_ours(entry.tb_frame.f_code):
            line = -1 if entry.tb_lineno is None else entry.tb_lineno  # of an instruction without a line
            kept = TracebackType(kept, entry.tb_frame, entry.tb_lasti, line)
        behind = entry
    BaseException.with_traceback(error, kept)  # whatever its class makes of attributes that are set


def _is_ours(code: CodeType) -> bool:
    return code.co_filename.startswith(_PACKAGE) and code.co_filename not in _USED_AS_A_USER_S
