"""Which class that travels by value is one that a process has already: it was there when the process was forked.

Processes that were forked from each other have the same classes at the same addresses. So a class says on its way where
it lies, and as of which fork. The process that forks notes what classes there are that no name leads to, once its
workers are under way: it is they that it waits for then.
"""

from __future__ import annotations

import gc
import os
import sys
import weakref
from collections.abc import Iterable, Mapping
from types import FunctionType
from typing import NamedTuple

from ordmap.names import SCRIPT, importable

__all__ = ["Whereabouts", "begin_fork", "begin_in_fork", "found", "note_classes", "whereabouts"]

#: What processes have in common that were forked from each other.
_family = ""

#: How many forks there were, here and in those that this process was forked from; which of them made it, if any.
_forks = _born = 0

#: What was there at a fork and those that follow, by address; weakly.
_noted: list[tuple[int, dict[int, weakref.ref[type]]]] = []

#: The last fork that there is a note for.
_noted_until = 0

#: Notes that are kept: so often was something else there.
_MOST = 64


class Whereabouts(NamedTuple):
    """Where a class lies that has a name, since a fork at the latest.

    ``vouched``: its sender has noted that; else its sender was made by that fork, and the one that made it knows.
    """

    family: str
    fork: int
    address: int
    name: tuple[str, str]
    vouched: bool


def begin_fork() -> None:
    """Say that this process is about to be forked."""
    global _family, _forks
    _family = _family or os.urandom(8).hex()
    _forks += 1


def begin_in_fork() -> None:
    """Say that this process was forked."""
    global _born, _noted_until
    _born = _noted_until = _forks
    _noted.clear()


def note_classes() -> None:
    """Note the classes that processes have which were forked since the last note."""
    global _noted_until
    there = {id(kind): kind for kind in _unnamed(_census())}
    last = _noted[-1][1] if _noted else {}
    if not _noted or there.keys() != last.keys() or any(last[at]() is not kind for at, kind in there.items()):
        _noted.append((_noted_until + 1, {at: weakref.ref(kind) for at, kind in there.items()}))
        del _noted[:-_MOST]
    _noted_until = _forks


def whereabouts(kind: type) -> Whereabouts | None:
    """Return where a class lies that is about to travel; ``None``: no other process has it."""
    if not _family:
        return None
    at, name = id(kind), (kind.__module__, kind.__qualname__)
    for fork, noted in _noted:
        if at in noted and noted[at]() is kind:
            return Whereabouts(_family, fork, at, name, vouched=True)
    return Whereabouts(_family, _born, at, name, vouched=False) if _born else None


def found(where: Whereabouts | None) -> type | None:
    """Return the class that is meant, if this process has it."""
    if where is None or where.family != _family:
        return None
    noted = next((noted for fork, noted in reversed(_noted) if fork <= where.fork), {})
    kind = noted[where.address]() if where.address in noted else None
    if kind is None and where.vouched and _born >= where.fork:
        kind = next((kind for kind in _classes() if id(kind) == where.address), None)
    return kind if kind is not None and (kind.__module__, kind.__qualname__) == where.name else None


def _classes() -> list[type]:
    """Return all classes that there are."""
    classes: dict[int, type] = {}  # by address: a metaclass may make its classes equal, or unhashable
    pending: list[type] = [object]
    while pending:
        subclasses: list[type] = type.__subclasses__(pending.pop())
        for kind in subclasses:
            if id(kind) not in classes:
                classes[id(kind)] = kind
                pending.append(kind)
    return list(classes.values())


#: An object, and the classes older than it that may travel by value, now or once no name leads to them, by address.
#: They are replaced together: threads that note classes at the same time may each have missed what the other has seen.
_seen: tuple[object, dict[int, weakref.ref[type]]] = object(), {}

#: So many young objects are looked through at most: it is quicker to go through all classes than through more.
_YOUNG = 20_000


def _census() -> list[type]:
    """Return the classes that may travel by value, now or once no name leads to them."""
    global _seen
    marker, seen = _seen
    next_marker: list[object] = []  # a class that is made from here on is younger, and seen next time
    young = _young_with(marker)
    if young is None:
        seen, young = {}, _classes()
    there = {at: kind for at, reference in seen.items() if (kind := reference()) is not None}
    there.update((id(kind), kind) for kind in _that_may_travel(young))
    _seen = next_marker, {at: weakref.ref(kind) for at, kind in there.items()}
    return list(there.values())


def _young_with(marker: object) -> list[type] | None:
    """Return young classes, and so all that were made after this object was; ``None``: that isn't known, or not soon.

    The garbage collector moves all that is young into the next generation at once. So while an object is among the
    young ones, all that was made after it is, too.
    """
    counts, (threshold, *_) = gc.get_count(), gc.get_threshold()
    if counts[0] + counts[1] * threshold > _YOUNG:
        return None
    classes: list[type] = []
    for generation in (0, 1):
        found = False
        for one in gc.get_objects(generation):
            if one is marker:
                found = True
            elif issubclass(type(one), type):  # not isinstance(), which asks the object
                classes.append(one)
        if found:
            return classes
    return None


def _that_may_travel(kinds: Iterable[type]) -> list[type]:
    """Return those of these classes that may travel by value, now or once no name leads to them."""
    spaces = _Spaces(_settled)
    # Nearly all of the thousand classes that there are fail these tests, at a tenth of a microsecond each.
    return [
        kind
        for kind in kinds
        if (space := spaces[getattr(kind, "__module__", None)]) is not None
        and (space is not _INSTALLED or "<locals>" in kind.__qualname__)
    ]


def _unnamed(kinds: Iterable[type]) -> list[type]:
    """Return those of these classes that travel by value."""
    spaces = _Spaces(_settled)
    unnamed = [
        kind
        for kind in kinds
        if "<locals>" in kind.__qualname__
        or ((space := spaces[kind.__module__]) is not None and space is not _INSTALLED and not _is_named(kind, space))
    ]
    # A class that is made in C may say that it is of any module, such as none; it never goes by value.
    in_python = {kind.__module__ for kind in unnamed if FunctionType in map(type, vars(kind).values())}
    return [kind for kind in unnamed if "<locals>" in kind.__qualname__ or kind.__module__ in in_python | SCRIPT]


#: What stands for the names of a library that is installed: it may hide classes, which are many, and seldom travel.
_INSTALLED: Mapping[str, object] = {"": None}


class _Spaces(dict[object, Mapping[str, object] | None]):
    """By module: the names that lead to classes in another process. ``None``: it is the standard library's."""

    def __missing__(self, module: object) -> Mapping[str, object] | None:
        self[module] = space = _space(module)
        if space is None or (space is _INSTALLED and module in sys.modules):
            _settled[module] = space
        return space


#: Modules that were met and stay what they are: the standard library's, and those of libraries.
_settled: dict[object, Mapping[str, object] | None] = {}


def _space(module: object) -> Mapping[str, object] | None:
    if not isinstance(module, str) or module.partition(".")[0] in sys.stdlib_module_names:
        return None
    if not importable()[module]:
        return {}
    loaded = sys.modules.get(module)
    ours = module.partition(".")[0] == __name__.partition(".")[0]
    installed = ours or loaded is None or "-packages" in str(getattr(loaded, "__file__", None))
    return _INSTALLED if installed else vars(loaded)


def _is_named(kind: type, space: Mapping[str, object]) -> bool:
    """Whether the name of a class leads to it; one within a class is where that is."""
    outer, _, inner = kind.__qualname__.partition(".")
    return outer in space if inner else space.get(outer) is kind
