"""What the workers of a pool know by its name, beyond what any interpreter imports.

Forked workers have inherited what the script had defined by then. Others are taught what an input needs when it first
does. Either goes by name after that, as long as the name leads to the very same thing here: what is defined again goes
by value.
"""

from __future__ import annotations

import functools
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FunctionType
from typing import Any, NewType

from ordmap.digest import digest_of
from ordmap.interrupts import came_by_a_signal
from ordmap.names import strangers
from ordmap.namespace import learn

__all__ = ["Lesson", "Vocabulary"]

#: What a pickle begins with that has its reader learn something first: a call of `learn`, whose result is dropped.
_LEARN = b"\x80\x05cordmap.namespace\nlearn\nI%d\n\x85R0"

#: What pickle writes before a text of less than 256 bytes.
_SHORT_TEXT = b"\x8c"


class Lesson:
    """Some things by value, which workers are to know by name, once they have learnt what came before."""

    def __init__(self, previous: int, things: list[Any]) -> None:
        self._previous = previous
        self._things = things

    def __reduce__(self) -> tuple[Any, ...]:
        return _learnt, (_Earlier(self._previous), self._things)


class _Earlier:
    def __init__(self, number: int) -> None:
        self._number = number

    def __reduce__(self) -> tuple[Any, ...]:
        return learn, (self._number,)


def _learnt(*_: Any) -> None:
    """Do nothing more: what is to be learnt was unpickled."""


class Vocabulary:
    """What workers know. ``teach``: sends them a lesson, and returns its number, to be told of in inputs."""

    def __init__(self, teach: weakref.WeakMethod[Callable[[Lesson], int]] | None = None) -> None:
        # By module and name; weakly, for what the script lets go of is not to stay for this.
        self._inherited: dict[str, dict[str, weakref.ref[Any]]] = {}
        self._lessons: dict[str, dict[str, weakref.ref[Any]]] = {}
        self._digests: dict[tuple[str, str], bytes] = {}
        self._refused: set[tuple[str, str]] = set()
        self._newest = 0
        self._teach = teach

    @classmethod
    def inherited(cls, teach: weakref.WeakMethod[Callable[[Lesson], int]] | None = None) -> Vocabulary:
        """Return what processes know that are forked now."""
        self = cls(teach)
        for module in strangers():
            defined = self._inherited[module] = {name: weakref.ref(thing) for name, thing in _defined(module)}
            for name, value in list(_names(module).items()):
                if name not in defined and (digest := digest_of(value)) is not None:
                    self._digests[module, name] = digest
        return self

    def has(self, thing: Any) -> bool:
        """Whether workers have inherited this very function or class, or one that it is within."""
        name, _, inner = thing.__qualname__.partition(".")
        known = _held(self._inherited, thing.__module__, name)
        if not inner or known is None:
            return known is thing
        try:
            return functools.reduce(getattr, inner.split("."), known) is thing
        except AttributeError:
            return False

    def has_value(self, module: str, name: str, value: object, digest: bytes | None) -> bool:
        """Whether workers have inherited this value under this name; if not, they are about to be told of it."""
        defined = self._inherited.get(module, {})
        if name in defined:
            if defined[name]() is value:
                return True
            del defined[name]
        known = self._digests.get((module, name))
        if known is not None and known != digest:
            del self._digests[module, name]
        return known is not None and known == digest

    def told_first(self, data: bytes) -> bytes | None:
        """Return a pickle, before which workers learn what it names; ``None``: they can't, and it goes by value."""
        new: list[tuple[str, str, Any]] = []
        for module in [name for name in strangers() if name.encode() in data]:
            new += [(module, *pair) for pair in self._unknown(module) if _is_named(pair[0], data)]
        if new and not self._taught(new):
            return None
        return self.before(data)

    def before(self, data: bytes) -> bytes:
        """Return a pickle that has its reader learn first what workers were taught until now."""
        return _LEARN % self._newest + data if self._newest else data

    def _taught(self, new: Sequence[tuple[str, str, Any]]) -> bool:
        """Teach workers what is new to them; what has a name that they know for something else can't be taught."""
        teach = None if self._teach is None else self._teach()
        if teach is None or any(one[:2] in self._refused or self._knows(*one[:2]) for one in new):
            return False
        try:
            self._newest = teach(Lesson(self._newest, [thing for *_, thing in new]))
        except Exception as error:
            if came_by_a_signal(error):
                raise
            self._refused.update(one[:2] for one in new)
            return False
        for module, name, thing in new:
            self._lessons.setdefault(module, {})[name] = weakref.ref(thing)
        return True

    def _knows(self, module: str, name: str) -> bool:
        """Whether workers know something by a name, be it what it leads to here or not."""
        return name in self._inherited.get(module, {}) or name in self._lessons.get(module, {})

    def _unknown(self, module: str) -> list[tuple[str, Any]]:
        known = {**self._lessons.get(module, {}), **self._inherited.get(module, {})}
        return [(name, it) for name, it in _defined(module) if name not in known or known[name]() is not it]


def _held(known: Mapping[str, Mapping[str, weakref.ref[Any]]], module: str, name: str) -> Any:
    reference = known.get(module, {}).get(name)
    return None if reference is None else reference()


def _names(module: str) -> Mapping[str, Any]:
    return getattr(sys.modules.get(module), "__dict__", {})


def _defined(module: str) -> Iterator[tuple[str, Any]]:
    """Yield the functions and classes that a module has defined, and the objects of these classes."""
    for name, thing in list(_names(module).items()):
        kind = type(thing)  # not isinstance(), which asks the object
        is_defined = kind in _DEFINED or issubclass(kind, type)
        if (thing if is_defined else kind).__module__ == module and kind.__weakrefoffset__:
            yield name, thing


#: What is defined in a module, beside classes.
_DEFINED = frozenset({FunctionType, functools._lru_cache_wrapper, NewType})


def _is_named(name: str, data: bytes) -> bool:
    text = name.encode()
    return _SHORT_TEXT + bytes([min(len(text), 255)]) + text in data or text + b"." in data
