"""Exceptions as they travel: what the builtin exception under each was made with, and all else that it has.

An exception's own way to pickle calls its class with ``args``, and fails, or doubles its message, when the class has a
constructor of its own. That constructor is left out here: it ran once already.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from types import FunctionType, GetSetDescriptorType, MemberDescriptorType
from typing import Any

from ordmap.reducers.instances import OF_AN_INSTANCE, has_plain_attributes

__all__ = ["builtin_under", "completed", "fields_of", "made_with", "rebuilt", "reducer_of_errors"]

#: What the class under one says for itself, if it says no more than Python.
_OWN = ("__new__", "__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__getattribute__")


def reducer_of_errors(kind: type) -> Callable[[Any], Any] | None:
    """Return what reduces exceptions of a class; ``None``: Python's own way does, or the class has one."""
    return _reduced if issubclass(kind, BaseException) and _has_only_a_constructor(kind) else None


def _reduced(error: Any) -> Any:
    kind, state = type(error), vars(error)
    if not OF_AN_INSTANCE.isdisjoint(state) or not _has_only_a_constructor(kind):  # it may have been changed since
        return error.__reduce_ex__(4)
    args, fields = made_with(error)
    return rebuilt, (kind, args), {**fields, **state}, None, None, completed


def _has_only_a_constructor(kind: type[BaseException]) -> bool:
    """Whether a class says no more than how its exceptions are made."""
    if issubclass(kind, BaseExceptionGroup) or not isinstance(kind.__init__, FunctionType):
        return False
    builtin = builtin_under(kind)
    return has_plain_attributes(kind) and not any(
        getattr(kind, name, None) is not getattr(builtin, name, None) for name in _OWN
    )


def builtin_under(kind: Any) -> Any:
    """Return the builtin exception whose layout a class has."""
    while kind.__module__ != "builtins":
        kind = kind.__base__
    return kind


def made_with(error: BaseException) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments that the builtin exception under one was made with, and what that has beside these."""
    builtin = builtin_under(type(error))
    args = builtin.__reduce__(error)[1]
    fields: dict[str, Any] = {}
    for name, field in fields_of(builtin).items():
        try:
            value = field.__get__(error)  # not getattr(), which may call the user's code
        except AttributeError:
            continue
        if value is not None:
            fields[name] = value
    if not fields and fields_of(builtin):  # the class's constructor has not called the builtin one's, which makes some
        return (), {"args": error.args}
    return args, fields


@cache
def fields_of(builtin: Any) -> Mapping[str, Any]:
    """Return what a builtin exception has beside its arguments, such as the name that was not found.

    But for what has no attribute of that name, which pickle leaves where it is, too.
    """
    fields: dict[str, object] = {}
    for base in reversed(builtin.__mro__[:-2]):  # those of BaseException itself are for its chain
        if not issubclass(base, BaseExceptionGroup):
            fields |= vars(base)
    kinds = MemberDescriptorType, GetSetDescriptorType
    return {name: field for name, field in fields.items() if isinstance(field, kinds) and name != "obj"}


def rebuilt(kind: type[BaseException], args: tuple[Any, ...]) -> BaseException:
    """Build an exception without its class's own constructor: only that of the builtin exception under it."""
    builtin = builtin_under(kind)
    error: BaseException = builtin.__new__(kind, *args)
    vars(builtin).get("__init__", BaseException.__init__)(error, *args)
    return error


def completed(error: BaseException, state: Mapping[str, Any]) -> BaseException:
    """Give an exception attributes, also where its class refuses to have anything set, or does more than that."""
    for name, value in state.items():
        field = next((vars(base)[name] for base in type(error).__mro__ if name in vars(base)), None)
        if isinstance(field, MemberDescriptorType | GetSetDescriptorType):
            field.__set__(error, value)
        else:
            vars(error)[name] = value
    return error
