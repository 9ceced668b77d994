"""The marks by which cloudpickle knows a class that travels by value, in every process that has it.

A class that was marked on one side only, when it travelled, would be another class on the other side. So those which a
fork copies are marked before it.
"""

from __future__ import annotations

import contextlib
import sys
from types import FunctionType

from ordmap.names import SCRIPT, importable

__all__ = ["mark_classes"]


def mark_classes() -> None:
    """Have cloudpickle know each class that travels by value by one mark, here and in processes forked from now on."""
    found: dict[int, type] = {}  # by address: a metaclass may make its classes equal, or unhashable
    pending: list[type] = [object]
    while pending:
        subclasses: list[type] = type.__subclasses__(pending.pop())
        for kind in subclasses:
            if id(kind) not in found:
                found[id(kind)] = kind
                pending.append(kind)
    # Nearly all of the thousand classes that there are fail the first test, at a tenth of a microsecond each.
    by_name = importable()
    unnamed = [
        kind
        for kind in found.values()
        if ("<locals>" in kind.__qualname__ or not by_name[getattr(kind, "__module__", None)]) and _is_apart(kind)
    ]
    # A class that is made in C may say that it is of any module, such as none; it never goes by value.
    in_python = {kind.__module__ for kind in unnamed if FunctionType in map(type, vars(kind).values())}
    local = [kind for kind in unnamed if "<locals>" in kind.__qualname__ or kind.__module__ in in_python | SCRIPT]
    if local:
        from cloudpickle import cloudpickle  # heavy; most programs have no such class

        for kind in local:
            with contextlib.suppress(TypeError):
                cloudpickle._get_or_create_tracker_id(kind)


def _is_apart(kind: type) -> bool:
    """Whether a class is none of the standard library's."""
    module = getattr(kind, "__module__", None)
    return isinstance(module, str) and module.partition(".")[0] not in sys.stdlib_module_names
