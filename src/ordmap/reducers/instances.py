"""Instances of classes that leave it to Python how they are pickled, such as most dataclasses.

Python's own way asks the class for five methods that it may have, for each instance, which takes half the time. All
that a class has is looked at once here, and for each instance no more than what may well have changed since.
"""

from __future__ import annotations

import copyreg
from collections.abc import Callable
from types import GetSetDescriptorType
from typing import Any

__all__ = ["OF_AN_INSTANCE", "has_own_way", "has_plain_attributes", "reducer_of"]

_WAYS = ("__reduce__", "__reduce_ex__", "__getstate__")
_ARGUMENTS = ("__getnewargs__", "__getnewargs_ex__")
_LOOKUP = "__getattribute__"

#: What an instance may have for itself, and Python would call.
OF_AN_INSTANCE = frozenset((*_WAYS, *_ARGUMENTS))


class _Bare:
    """Has what each class has: a dict for its instances' attributes."""


def has_own_way(kind: type) -> bool:
    """Whether a class says how its objects are pickled."""
    return any(getattr(kind, way) is not getattr(object, way) for way in _WAYS)


def reducer_of(kind: type) -> Callable[[Any], Any] | None:
    """Return what reduces instances of a class as Python would; ``None``: there is more to them than attributes."""
    return _reduced if _has_attributes_alone(kind) else None


_make: Callable[..., Any] = copyreg.__newobj__  # type: ignore[attr-defined]  # pickle has a code of its own for it
_REDUCE, _REDUCE_EX, _GETSTATE = (getattr(object, way) for way in _WAYS)


def _reduced(one: Any) -> Any:
    kind, state = type(one), one.__dict__
    if (
        kind.__reduce_ex__ is not _REDUCE_EX  # it may have been changed since
        or kind.__reduce__ is not _REDUCE
        or kind.__getstate__ is not _GETSTATE
        or not OF_AN_INSTANCE.isdisjoint(state)
    ):
        return one.__reduce_ex__(4)
    return _make, (kind,), state or None


def _has_attributes_alone(kind: type) -> bool:
    """Whether all that Python would pickle of an instance of this class is the dict of its attributes."""
    if has_own_way(kind) or any(hasattr(kind, way) for way in _ARGUMENTS):
        return False
    if getattr(kind, _LOOKUP) is not getattr(object, _LOOKUP):
        return False
    return (kind.__basicsize__, kind.__itemsize__, kind.__dictoffset__) == _SIZES and has_plain_attributes(kind)


def has_plain_attributes(kind: type) -> bool:
    """Whether the instances of a class have a dict of attributes, and no slots beside it."""
    if any(vars(base).get("__slots__") for base in kind.__mro__):
        return False
    dicts = (vars(base)["__dict__"] for base in kind.__mro__ if "__dict__" in vars(base))
    return type(next(dicts, None)) is GetSetDescriptorType


_SIZES = _Bare.__basicsize__, _Bare.__itemsize__, _Bare.__dictoffset__
