"""Whether what a script has under a name is still what it was: a digest, which changes when the value does.

Digests are made in one process, and compared in any. There is one only for what is small and can be looked at without
code of the user's; what has none is taken for changed. A function or a class is known by its identity: one that is
defined again is another, and so has none of what was kept with the old one, such as a cache.
"""

from __future__ import annotations

import copyreg
import functools
import itertools
import os
import pickle
import sys
import weakref
from collections.abc import Callable
from enum import Enum
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, NewType, ParamSpec, TypeVar, TypeVarTuple

from ordmap.interrupts import pass_on
from ordmap.names import importable

__all__ = ["digest_of"]

#: Bytes of a pickle up to which it is looked at.
_MOST = 1 << 16

#: Objects but for containers, numbers and texts up to which …
_MOST_OBJECTS = 100

#: Bytes up to which a pickle is its own digest.
_SHORT = 64

_ATOMS = frozenset({bool, int, float, complex, type(None)})


def digest_of(value: Any) -> bytes | None:
    """Return the digest of a value; ``None``: there is none."""
    try:
        if type(value) in _ATOMS:
            return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
        if hasattr(value, "__len__") and type(value) in _SIZED and len(value) > _MOST:
            return None
        sink = _Sink()
        _Pickler(sink, pickle.HIGHEST_PROTOCOL).dump(value)
    except Exception as error:  # what has no digest says so in many ways
        pass_on(error)
        return None
    data = b"".join(sink.parts)
    if len(data) <= _SHORT:
        return data
    # What `hashlib` wraps: that loads all of OpenSSL, which takes longer than a fork.
    from _blake2 import blake2b

    digest: bytes = blake2b(data, digest_size=16).digest()
    return digest


_SIZED = frozenset({str, bytes, bytearray, list, tuple, dict, set, frozenset})


class _Sink:
    """Takes so many bytes, and no more."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self._left = 2 * _MOST

    def write(self, data: Any) -> int:
        self._left -= len(data)
        if self._left < 0:
            raise OverflowError
        self.parts.append(bytes(data))
        return len(data)


class _Pickler(pickle.Pickler):
    """Pickles what is never unpickled. An object of its own kind is a state: it may hold itself."""

    objects = 0

    def reducer_override(self, value: Any) -> Any:
        """Be called for everything but containers, numbers and texts."""
        self.objects += 1
        if self.objects > _MOST_OBJECTS:
            raise OverflowError
        kind = type(value)
        if value is object or value is str:  # what the others here are reduced to
            return NotImplemented
        if kind in _KINDS:
            return _KINDS[kind](value)
        if issubclass(kind, type) or (kind is BuiltinFunctionType and value.__module__ not in sys.modules):
            return _identity(value)  # pickle would import its module, and say of whatever comes meanwhile that it can't
        return NotImplemented if _is_plain(kind, value) else _state(kind, value)


def _is_plain(kind: type, value: Any) -> bool:
    """Whether the library that has made an object says in its pickle, and quickly, all that is in it."""
    if kind.__module__ == "numpy":
        return bool(value.nbytes <= _MOST)
    return kind is BuiltinFunctionType or kind.__module__.partition(".")[0] in sys.stdlib_module_names


def _state(kind: type, value: Any) -> Any:
    """Reduce an object of a class of the user's, unless that has its own way, to what it is and has."""
    if issubclass(kind, Enum):
        return str, (_serial(kind) + value._name_,)
    if all(getattr(kind, way) is getattr(object, way) for way in ("__reduce_ex__", "__reduce__", "__getstate__")):
        return object, (), (_serial(kind), object.__reduce_ex__(value, pickle.HIGHEST_PROTOCOL)[2:])
    if not importable()[kind.__module__] and not getattr(value, "__dict__", None) and not copyreg._slotnames(kind):  # type: ignore[attr-defined]
        return _identity(value)  # it has no state, as what stands for a missing value
    raise TypeError


def _identity(value: Any) -> Any:
    return str, (_serial(value),)


def _function(value: Any) -> Any:
    return object, (), (_serial(value), vars(value), value.__defaults__, value.__kwdefaults__)


_KINDS: dict[type, Callable[[Any], Any]] = {
    FunctionType: _function,
    functools._lru_cache_wrapper: _identity,
    TypeVar: _identity,
    ParamSpec: _identity,
    TypeVarTuple: _identity,
    NewType: _identity,
    ModuleType: lambda it: (str, (it.__name__,)),
    staticmethod: lambda it: (object, (), it.__func__),
    classmethod: lambda it: (object, (), it.__func__),
    property: lambda it: (object, (), (it.fget, it.fset, it.fdel, it.__doc__)),
    functools.cached_property: lambda it: (object, (), it.func),
}

_serials: dict[int, tuple[weakref.ref[Any], str]] = {}
_numbers = itertools.count()


def _serial(thing: Any) -> str:
    """Return the number of an object, which no other of this process has or had."""
    key = id(thing)
    known = _serials.get(key)
    if known is None or known[0]() is not thing:
        reference = weakref.ref(thing, lambda _: _serials.pop(key, None))
        known = _serials[key] = reference, f"{os.getpid()}.{next(_numbers)}"
    return known[1]
