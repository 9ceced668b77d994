"""A context on its way to another process, which is not forked from this one by now.

A context variable can't be pickled: each process has its own. So it goes as the place where both sides find it: its
number among those that a worker has inherited, or a module's global, or what such a global has as an attribute. Each
value is pickled by itself. What has no such place, or can't be pickled, is left out: an item sees the variable's
default then, and never what was set in another context.
"""

from __future__ import annotations

import importlib
import pickle
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextvars import Context, ContextVar
from functools import reduce
from types import BuiltinFunctionType, FunctionType, MappingProxyType, ModuleType
from typing import Any

from ordmap.context import variables
from ordmap.interrupts import came_by_a_signal
from ordmap.outcome import serialise

__all__ = ["Packed", "packed", "unpacked"]

#: Where a variable is: its number among the inherited, or a module and the names that lead from there.
_Place = int | tuple[str, ...]

#: A context on its way: the name of each variable, its places, and the pickle of its value.
Packed = list[tuple[str, list[_Place], bytes]]

#: Places of a variable that are told of: a module that imports it is one, and may not be imported by the other side.
_MOST_PLACES = 8

#: Modules that are other ones in each process.
_PROGRAM = ("__main__", "__mp_main__")

#: What was found of each variable, and how many modules there were then.
_found: dict[ContextVar[Any], tuple[int, list[tuple[str, ...]]]] = {}


def packed(context: Context, inherited: Sequence[ContextVar[Any]] = ()) -> Packed:
    """Make a context ready for another process. ``inherited``: variables that it has from this one, by number."""
    sent: Packed = []
    for variable in variables(context):
        places: list[_Place]
        value = context[variable]
        special = _special(variable, value, context)
        if special is not None:
            place, value = special
            places = [place]
        else:
            places = [number for number, one in enumerate(inherited) if one is variable] or [*_places(variable)]
        if places:
            try:
                sent.append((variable.name, places, serialise(value)))
            except BaseException as error:  # a user's __reduce__ may raise anything
                if came_by_a_signal(error):
                    raise
    return sent


def unpacked(sent: Packed, inherited: Sequence[ContextVar[Any]] = ()) -> Context:
    """Return a context that has come from another process, as far as it can be had here."""
    context = Context()
    for name, places, data in sent:
        target = _target(name, places, inherited)
        if target is not None:
            try:
                value = pickle.loads(data)
                if isinstance(target, ContextVar):
                    context.run(target.set, value)
                else:
                    context.run(target, **value)
            except Exception as error:
                if came_by_a_signal(error):
                    raise
    return context


def _target(name: str, places: Sequence[_Place], inherited: Sequence[ContextVar[Any]]) -> Any:
    """Return the variable of that name at one of these places, or what sets it; ``None``: there is none."""
    if isinstance(places[0], int):
        return inherited[places[0]]
    paths = [place for place in places if isinstance(place, tuple)]
    for module, *attributes in sorted(paths, key=lambda path: path[0] not in sys.modules):
        try:
            if module not in sys.modules and module in _PROGRAM:
                continue
            found = reduce(_part, attributes, importlib.import_module(module))
        except Exception as error:
            if came_by_a_signal(error):
                raise
            continue
        if (module, *attributes) in _SETTERS or (isinstance(found, ContextVar) and found.name == name):
            return found
    return None


def _part(whole: Any, name: str) -> Any:
    return whole[name] if type(whole) is dict else vars(whole)[name]


# Where a variable is


def _places(variable: ContextVar[Any]) -> list[tuple[str, ...]]:
    """Return the places of a variable that another process may know; the program's own come last."""
    modules = len(sys.modules)
    known = _found.get(variable)
    if known is None or (not known[1] and known[0] != modules):
        places = [path for _, path in zip(range(_MOST_PLACES), _globals(variable), strict=False)]
        if not places:
            places = [path for _, path in zip(range(_MOST_PLACES), _attributes(variable), strict=False)]
        places.sort(key=lambda path: path[0] in _PROGRAM)
        known = _found[variable] = modules, places
    return known[1]


def _modules() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, module in list(sys.modules.items()):
        if issubclass(type(module), ModuleType):
            yield name, ModuleType.__getattribute__(module, "__dict__")


def _globals(variable: ContextVar[Any]) -> Iterator[tuple[str, ...]]:
    for module, names in _modules():
        for name, value in list(names.items()):
            if value is variable:
                yield module, name


#: What has no variables of its own.
_PLAIN = (ModuleType, FunctionType, BuiltinFunctionType)


def _attributes(variable: ContextVar[Any]) -> Iterator[tuple[str, ...]]:
    """Look at the attributes of classes and other objects that are globals, and into dictionaries."""
    seen: set[int] = set()
    for module, names in _modules():
        for name, value in list(names.items()):
            if id(value) in seen or issubclass(type(value), _PLAIN):
                continue
            seen.add(id(value))
            for attribute, one in list(_inside(value).items()):
                if one is variable and type(attribute) is str:
                    yield module, name, attribute


def _inside(value: Any) -> Mapping[Any, Any]:
    """Return the attributes of an object without its own ways to say them, which may warn, or import what is large."""
    kind = type(value)  # not isinstance(), which asks the object, too
    if kind is dict:
        return value  # type: ignore[no-any-return]
    look = type if issubclass(kind, type) else object
    try:
        inside = look.__getattribute__(value, "__dict__")
    except AttributeError:
        return {}
    return inside if type(inside) in {dict, MappingProxyType} else {}


# Variables that only their library's C code has in hand

_SETTERS = {("ordmap.backends.variables", "_set_decimal"), ("ordmap.backends.variables", "_set_numpy")}


def _special(variable: ContextVar[Any], value: Any, context: Context) -> tuple[tuple[str, ...], dict[str, Any]] | None:
    """Return what sets a variable that only its library can set, and the arguments; ``None``: it is another."""
    decimal = sys.modules.get("decimal")
    if decimal is not None and type(value) is decimal.Context and variable.name == "decimal_context":
        return (__name__, "_set_decimal"), {"context": value}
    umath = sys.modules.get("numpy._core.umath")
    if umath is not None and getattr(umath, "_extobj_contextvar", None) is variable:
        return (__name__, "_set_numpy"), context.run(sys.modules["numpy"].geterr)
    return None


def _set_decimal(context: Any) -> None:
    import decimal  # where an item of its caller's uses it

    decimal.setcontext(context)


def _set_numpy(**errors: Any) -> None:
    import numpy as np  # an extra

    np.seterr(**errors)
