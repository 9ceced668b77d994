"""The marks by which cloudpickle knows a class that travels by value, in every process that has it.

A class that was marked on one side only, when it travelled, would be another class on the other side. So those which a
fork copies are marked before it.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
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
    spaces = _Spaces(_standard)
    # Nearly all of the thousand classes that there are fail these tests, at a tenth of a microsecond each.
    unnamed = [
        kind
        for kind in found.values()
        if (space := spaces[getattr(kind, "__module__", None)]) is not None
        and ("<locals>" in kind.__qualname__ or (space is not _INSTALLED and not _is_named(kind, space)))
    ]
    # A class that is made in C may say that it is of any module, such as none; it never goes by value.
    in_python = {kind.__module__ for kind in unnamed if FunctionType in map(type, vars(kind).values())}
    local = [kind for kind in unnamed if "<locals>" in kind.__qualname__ or kind.__module__ in in_python | SCRIPT]
    if local:
        from cloudpickle import cloudpickle  # heavy; most programs have no such class

        for kind in local:
            with contextlib.suppress(TypeError):
                cloudpickle._get_or_create_tracker_id(kind)


#: What stands for the names of a library that is installed: it may hide classes, which are many, and seldom travel.
_INSTALLED: Mapping[str, object] = {"": None}


class _Spaces(dict[object, Mapping[str, object] | None]):
    """By module: the names that lead to classes in another process. ``None``: it is the standard library's."""

    def __missing__(self, module: object) -> Mapping[str, object] | None:
        self[module] = space = _space(module)
        if space is None:
            _standard[module] = None
        return space


#: Modules of the standard library that were met, which stay so.
_standard: dict[object, Mapping[str, object] | None] = {}


def _space(module: object) -> Mapping[str, object] | None:
    if not isinstance(module, str) or module.partition(".")[0] in sys.stdlib_module_names:
        return None
    if not importable()[module]:
        return {}
    loaded = sys.modules.get(module)
    installed = loaded is None or "-packages" in str(getattr(loaded, "__file__", None))
    return _INSTALLED if installed else vars(loaded)


def _is_named(kind: type, space: Mapping[str, object]) -> bool:
    """Whether the name of a class leads to it; one within a class is where that is."""
    outer, _, inner = kind.__qualname__.partition(".")
    return outer in space if inner else space.get(outer) is kind
