"""Exceptions as they travel among other things: what made one is left out, since it ran once already.

An exception's own way to be pickled calls its class with ``args``. That fails, or doubles its text, where the class has
a constructor that takes others. So such a one is built by the constructor of the builtin exception under it alone, and
is given all else that it has. A class that says how it is pickled is left to it.
"""

from __future__ import annotations

import copyreg
from functools import cache
from types import BuiltinFunctionType, GetSetDescriptorType, MemberDescriptorType, WrapperDescriptorType
from typing import Any

from ordmap.interrupts import pass_on

__all__ = [
    "built",
    "builtin_under",
    "completed",
    "fields_of",
    "parts_of",
    "reduced_error",
    "reduced_to_parts",
    "reducers_of_errors",
    "reduces_itself",
]

#: How a class of C has its ``__init__`` and its ``__new__``: it may hold what no attribute leads to.
_OF_C = (WrapperDescriptorType, BuiltinFunctionType)


#: Whether the classes that were found last have constructors of their own.
_known: dict[type, bool] = {}


def reducers_of_errors() -> dict[type, Any]:
    """Return the reducers of the exceptions that there are by now, but for those of functions: no name leads there."""
    global _known
    kinds: list[Any] = [BaseException]
    for kind in kinds:
        kinds += type.__subclasses__(kind)
    known = _known
    _known = {
        kind: known[kind] if kind in known else _has_own_constructor(kind)
        for kind in kinds
        if "<locals>" not in kind.__qualname__
    }
    return {kind: reduced_to_parts for kind, has_own in _known.items() if has_own}


def reduced_error(error: BaseException) -> Any:
    """Reduce an exception; ``NotImplemented``: its own way does."""
    kind = type(error)
    return (
        NotImplemented if kind in copyreg.dispatch_table or not _has_own_constructor(kind) else reduced_to_parts(error)
    )


def reduced_to_parts(error: BaseException) -> tuple[Any, ...]:
    """Reduce an exception to class, arguments of the builtin one under it, and all else, whatever its class says."""
    kind, args, state = parts_of(error)
    # What it has may lead back to it, so it is given that when it is there.
    return built, (kind, args), state or None, None, None, completed


def _has_own_constructor(kind: type[BaseException]) -> bool:
    """Whether a class is not made as the builtin one under it is, by code of Python's."""
    if type(kind.__init__) in _OF_C and type(kind.__new__) in _OF_C:
        return False
    own = [vars(base) for base in kind.__mro__ if base.__module__ != "builtins"]
    makers = [names[maker] for names in own for maker in ("__init__", "__new__") if maker in names]
    return bool(makers) and not any(isinstance(maker, _OF_C) for maker in makers) and not reduces_itself(kind)


def reduces_itself(kind: type[BaseException]) -> bool:
    """Whether a class that is not builtin says how it is pickled."""
    own = (base for base in kind.__mro__ if base.__module__ != "builtins")
    says = {"__reduce__", "__reduce_ex__", "__getstate__", "__setstate__"}
    return any(not says.isdisjoint(vars(base)) for base in own)


def parts_of(error: BaseException) -> tuple[type[BaseException], tuple[Any, ...], dict[str, Any]]:
    """Return a class, the arguments that the builtin exception under it was made with, and all else."""
    kind = type(error)
    builtin = builtin_under(kind)
    args, state = (*builtin.__reduce__(error), None)[1:3]
    state = state if isinstance(state, dict) else vars(error)
    slots = {name: getattr(error, name) for name in copyreg._slotnames(kind) if hasattr(error, name)}  # type: ignore[attr-defined]
    fields = {name: value for name in fields_of(builtin) if (value := getattr(error, name, None)) is not None}
    return kind, args, {**fields, **slots, **state}


def builtin_under(kind: Any) -> Any:
    """Return the builtin exception whose layout a class has."""
    while kind.__module__ != "builtins":
        kind = kind.__base__
    return kind


@cache
def fields_of(builtin: Any) -> tuple[str, ...]:
    """Return what a builtin exception has beside its arguments, such as the name that was not found.

    But for what has no attribute of that name, which pickle leaves where it is, too.
    """
    fields: dict[str, object] = {}
    for base in builtin.__mro__[:-2]:  # those of BaseException itself are for its chain
        if not issubclass(base, BaseExceptionGroup):
            fields |= vars(base)
    kinds = MemberDescriptorType, GetSetDescriptorType
    return tuple(name for name, field in fields.items() if isinstance(field, kinds) and name != "obj")


def built(kind: type[BaseException], args: tuple[Any, ...]) -> BaseException:
    """Build an exception without its class's own constructor: only that of the builtin exception under it."""
    builtin = builtin_under(kind)
    error: BaseException = builtin.__new__(kind, *args)
    try:
        vars(builtin).get("__init__", BaseException.__init__)(error, *args)
    except Exception as refusal:  # its own constructor has not called that one either, then
        pass_on(refusal)
    return error


def completed(error: BaseException, state: dict[str, Any]) -> BaseException:
    """Give an exception attributes, also where its class lets nobody set anything."""
    for name, value in state.items():
        try:
            BaseException.__setattr__(error, name, value)
        except AttributeError:
            vars(error)[name] = value
    return error
