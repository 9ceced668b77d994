"""A context on its way to another process, which is not forked from this one by now.

A context variable can't be pickled: each process has its own. So it goes as the place where both sides find it: its
number among those that a worker has inherited, or as `ordmap.places` says. Each value is pickled by itself. What can't
be found there, or can't be pickled, is left out: an item sees the variable's default then, and never what was set in
another context.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Sequence
from contextvars import Context, ContextVar
from typing import Any

from ordmap.context import variables
from ordmap.interrupts import pass_on
from ordmap.names import SCRIPT
from ordmap.outcome import serialise
from ordmap.places import found_at, places_of

__all__ = ["Packed", "packed", "unpacked"]

#: Where a variable is: its number among the inherited, or a module and the names that lead from there.
_Place = int | tuple[str, ...]

#: A context on its way: the name of each variable, its places, and the pickle of its value.
Packed = list[tuple[str, list[_Place], bytes]]


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
            places = [number for number, one in enumerate(inherited) if one is variable] or [*places_of(variable)]
        try:
            sent.append((variable.name, places, serialise(value, back=False)))
        except BaseException as error:  # a user's __reduce__ may raise anything
            pass_on(error)
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
                pass_on(error)
    return context


def _target(name: str, places: Sequence[_Place], inherited: Sequence[ContextVar[Any]]) -> Any:
    """Return the variable of that name at one of these places, or what sets it; ``None``: there is none."""
    if isinstance(places[0], int):
        return inherited[places[0]]
    paths = [place for place in places if isinstance(place, tuple)]
    for module, *attributes in sorted(paths, key=lambda path: path[0] not in sys.modules):
        if module not in sys.modules and module in SCRIPT:
            continue
        try:
            found = found_at(module, *attributes)
        except Exception as error:
            pass_on(error)
            continue
        if (module, *attributes) in _SETTERS or (isinstance(found, ContextVar) and found.name == name):
            return found
    return None


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
