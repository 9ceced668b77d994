"""Where a context variable is: it can't be pickled, so it travels as the place where the other process finds it.

That is a module's global, or what such a global has as an attribute. One that no module has which the other process
could import, such as the script's, is known by a token there, and made when it is first met.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Iterator, Mapping
from contextvars import Context, ContextVar
from functools import reduce
from types import BuiltinFunctionType, FunctionType, MappingProxyType, ModuleType
from typing import Any

from ordmap.names import SCRIPT, importable

__all__ = ["KEPT", "found_at", "paths", "places_of", "reduced", "token_of"]

#: In the place of a module: that of the variables which go by tokens.
KEPT = ""

#: Places of a variable that are told of: a module that imports it is one, and may not be imported by the other side.
_MOST_PLACES = 8

#: What was found of each variable, and how many modules there were then.
_found: dict[ContextVar[Any], tuple[int, list[tuple[str, ...]]]] = {}


def paths(variable: ContextVar[Any]) -> list[tuple[str, ...]]:
    """Return the places of a variable that another process may know; the program's own come last."""
    modules = len(sys.modules)
    known = _found.get(variable)
    if known is None or (not known[1] and known[0] != modules):
        places = [path for _, path in zip(range(_MOST_PLACES), _globals(variable), strict=False)]
        if not places:
            places = [path for _, path in zip(range(_MOST_PLACES), _attributes(variable), strict=False)]
        places.sort(key=lambda path: path[0] in SCRIPT)
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


def found_at(module: str, *names: str) -> Any:
    """Return what is at a place in this process."""
    if module == KEPT:
        return _by_token[names[0]]
    return reduce(_part, names, importlib.import_module(module))


def _part(whole: Any, name: str) -> Any:
    return whole[name] if type(whole) is dict else vars(whole)[name]


# Those that no other process could import

_tokens: dict[ContextVar[Any], str] = {}
_by_token: dict[str, ContextVar[Any]] = {}


def token_of(variable: ContextVar[Any]) -> str:
    """Return the token by which a variable is known here and where it has travelled to."""
    token = _tokens.get(variable)
    if token is None:
        token = _tokens[variable] = os.urandom(16).hex()  # `secrets` would import OpenSSL
        _by_token[token] = variable
    return token


def places_of(variable: ContextVar[Any]) -> list[tuple[str, ...]]:
    """Return the places where the other process may find a variable, one that it knows by a token included."""
    found = paths(variable)
    if any(place[0] not in SCRIPT and importable()[place[0]] for place in found):
        return found
    return [*found, (KEPT, token_of(variable))]


def reduced(variable: ContextVar[Any]) -> tuple[Any, ...]:
    """Return how a variable is pickled that some function or class needs."""
    for place in paths(variable):
        if place[0] not in SCRIPT and importable()[place[0]]:
            return found_at, place
    default: list[Any] = []
    with contextlib.suppress(LookupError):  # it has none
        default.append(Context().run(variable.get))
    return _kept, (token_of(variable), variable.name, *default)


def _kept(token: str, name: str, *default: Any) -> ContextVar[Any]:
    """Return the variable of a token, which is made where it is not known."""
    variable = _by_token.get(token)
    if variable is None:
        variable = ContextVar(name, default=default[0]) if default else ContextVar(name)
        _tokens[variable] = token
        _by_token[token] = variable
    return variable
