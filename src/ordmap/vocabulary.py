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
from enum import Enum
from types import FunctionType
from typing import Any, NamedTuple, NewType

from ordmap.digest import digest_of
from ordmap.interrupts import pass_on
from ordmap.names import strangers
from ordmap.namespace import learn

__all__ = ["Lesson", "Speaker", "Vocabulary", "defined", "token_of"]

#: What a pickle begins with that has its reader learn something first: a call of `learn`, whose result is dropped.
_LEARN = b"\x80\x05cordmap.namespace\nlearn\nI%d\n\x85R0"

#: What pickle writes before a text of less than 256 bytes.
_SHORT_TEXT = b"\x8c"


class Lesson:
    """Some things by value, which workers are to know by name, once they have learnt what came before."""

    def __init__(self, previous: int, things: list[Any] | None) -> None:
        """``things``: ``None``: what has changed, which the sender finds out."""
        self.previous = previous
        self.things = things

    def __reduce__(self) -> tuple[Any, ...]:
        return _learnt, (_Earlier(self.previous), self.things)


class _Earlier:
    def __init__(self, number: int) -> None:
        self._number = number

    def __reduce__(self) -> tuple[Any, ...]:
        return learn, (self._number,)


def _learnt(*_: Any) -> None:
    """Do nothing more: what is to be learnt was unpickled."""


#: Returns what sends a lesson to all workers and gives it a number; ``None``: they are gone.
Teach = Callable[[], Callable[[Lesson], int] | None]


#: What a token begins with that is none of a digest.
_IDENTITY = b"identity "


def token_of(value: Any) -> bytes:
    """Return what changes with a value: its digest, or else what there is to tell that it is another object."""
    digest = digest_of(value)
    if digest is not None:
        return digest
    try:
        size = len(value)
    except Exception as error:  # the user's
        pass_on(error)
        size = 0
    return _IDENTITY + f"{id(value)} {size}".encode()


class Vocabulary:
    """What workers know. ``teach``: sends them a lesson, and returns its number, to be told of in inputs."""

    def __init__(self, teach: Teach | None = None) -> None:
        # By module and name; weakly, for what the script lets go of is not to stay for this.
        self._inherited: _Known = {}
        self._others: _Known = {}  # what workers were taught, and objects that pickle finds by a name
        self._digests: dict[tuple[str, str], bytes] = {}
        self._refused: set[tuple[str, str]] = set()
        self._newest = 0
        self._teach = teach
        self.seen: dict[tuple[str, str], bytes] = {}  # tokens of what workers were told of last
        self.is_due = False  # there may be changes to tell of

    @classmethod
    def inherited(cls, teach: Teach | None = None) -> Vocabulary:
        """Return what processes know that are forked now."""
        self = cls(teach)
        for module in strangers():
            known = self._inherited[module] = {name: weakref.ref(thing) for name, thing in defined(module)}
            self._others[module] = {name: weakref.ref(thing) for name, thing in _named_objects(module)}
            for name, value in list(_names(module).items()):
                token = self.seen[module, name] = token_of(value)
                if name not in known and not token.startswith(_IDENTITY):
                    self._digests[module, name] = token
        return self

    def has(self, thing: Any) -> bool:
        """Whether workers have inherited this very function or class, or one that it is within."""
        name, _, inner = thing.__qualname__.partition(".")
        reference = self._inherited.get(thing.__module__, {}).get(name)
        known = None if reference is None else reference()
        if _names(thing.__module__).get(name) is not known:
            return False  # the name is another's by now: a result that has it would come back as that
        if not inner or known is None:
            return known is thing
        try:
            return functools.reduce(getattr, inner.split("."), known) is thing
        except AttributeError:
            return False

    def has_value(self, module: str, name: str, value: object, digest: bytes | None) -> bool:
        """Whether workers have inherited this value under this name; if not, they are about to be told of it."""
        inherited = self._inherited.get(module, {})
        if name in inherited:
            if inherited[name]() is value:
                return True
            del inherited[name]
        known = self._digests.get((module, name))
        if known is not None and known != digest:
            del self._digests[module, name]
        return known is not None and known == digest

    def unknown(self) -> list[Unknown]:
        """Return what pickle may name by now that workers don't know."""
        return [
            Unknown(module, name, thing, _patterns(name))
            for module in strangers()
            for name, thing in (*defined(module), *_named_objects(module))
            if (reference := self._reference(module, name)) is None or reference() is not thing
        ]

    def teach(self, new: Sequence[Unknown]) -> bool:
        """Teach workers what is new to them; what has a name that they know for something else can't be taught."""
        send = None if self._teach is None else self._teach()
        if send is None or any((one.module, one.name) in self._refused or self._reference(*one[:2]) for one in new):
            return False
        try:
            self._newest = send(Lesson(self._newest, [one.thing for one in new]))
        except Exception as error:
            pass_on(error)
            self._refused.update((one.module, one.name) for one in new)
            return False
        for one in new:
            self._others.setdefault(one.module, {})[one.name] = weakref.ref(one.thing)
        return True

    def begin(self) -> None:
        """Note that there is another run: what workers know may need what has another value by now."""
        self.is_due = any(self._inherited.values()) or any(self._others.values())

    def catch_up(self) -> None:
        """Have workers be told of what has changed."""
        self.is_due = False
        send = None if self._teach is None else self._teach()
        if send is not None:
            self._newest = send(Lesson(self._newest, None))

    def before(self, data: bytes) -> bytes:
        """Return a pickle that has its reader learn first what workers were taught until now."""
        return _LEARN % self._newest + data if self._newest else data

    def _reference(self, module: str, name: str) -> weakref.ref[Any] | None:
        return self._inherited.get(module, {}).get(name) or self._others.get(module, {}).get(name)


class Speaker:
    """Says, of some pickles in a row, what goes before each for workers to understand it."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._unknown: list[Unknown] | None = None

    def understood(self, data: bytes) -> bytes | None:
        """Return a pickle as workers understand it; ``None``: they can't, and it goes by value."""
        if self._vocabulary.is_due:
            self._vocabulary.catch_up()
        if self._unknown is None:
            self._unknown = self._vocabulary.unknown()
        new = [one for one in self._unknown if any(pattern in data for pattern in one.patterns)]
        if new and self._vocabulary.teach(new):
            self._unknown = None
        elif new and not _globals_of(data).isdisjoint(one[:2] for one in new):
            return None
        return self._vocabulary.before(data)


_Known = dict[str, dict[str, weakref.ref[Any]]]


class Unknown(NamedTuple):
    """A function, a class or an object of the script's, and how a pickle that names it may be told."""

    module: str
    name: str
    thing: Any
    patterns: tuple[bytes, bytes]


def _patterns(name: str) -> tuple[bytes, bytes]:
    text = name.encode()
    return _SHORT_TEXT + bytes([min(len(text), 255)]) + text, text + b"."  # of what is within, the name begins so


def _globals_of(data: bytes) -> set[tuple[Any, Any]]:
    """Return the module and the first name of each global that a pickle names."""
    from pickletools import genops  # where a text in it happens to be a name

    said: list[Any] = []
    memory: list[Any] = []
    found: set[tuple[Any, Any]] = set()
    for operation, argument, _ in genops(data):
        if operation.name == "STACK_GLOBAL":
            module, name = said[-2:]
            found.add((module, str(name).partition(".")[0]))
        if operation.name == "MEMOIZE":
            memory.append(said[-1])
        elif operation.name in {"BINGET", "LONG_BINGET"}:
            said.append(memory[int(argument or 0)])
        else:
            said.append(argument)
    return found


def _names(module: str) -> Mapping[str, Any]:
    return getattr(sys.modules.get(module), "__dict__", {})


#: What is defined in a module, beside classes.
_DEFINED = frozenset({FunctionType, functools._lru_cache_wrapper, NewType})


def defined(module: str) -> Iterator[tuple[str, Any]]:
    """Yield the functions and classes that a module has defined."""
    for name, thing in list(_names(module).items()):
        kind = type(thing)  # not isinstance(), which asks the object
        if (kind in _DEFINED or issubclass(kind, type)) and thing.__module__ == module:
            yield name, thing


def _named_objects(module: str) -> Iterator[tuple[str, Any]]:
    """Yield the objects of a module's classes that may say to pickle that a name leads to them."""
    for name, thing in list(_names(module).items()):
        kind = type(thing)
        says = any(getattr(kind, way) is not getattr(object, way) for way in ("__reduce__", "__reduce_ex__"))
        if kind.__module__ == module and says and kind.__weakrefoffset__ and not issubclass(kind, Enum | type):
            yield name, thing
