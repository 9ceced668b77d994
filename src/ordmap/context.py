"""The context variables that items see: those of the loop that asks, as they are when its run begins.

A worker that has a context of its own, which is all but the caller, computes in a copy: what an item sets reaches
neither the caller nor another run. What a pool's initializer has set in a worker stands in that copy, too, and before
what the caller has set: it was set for this worker.
"""

from __future__ import annotations

import sys
from contextvars import Context, ContextVar, copy_context
from typing import Any

from ordmap.item import current

__all__ = ["captured", "separate", "shares", "variables"]


def captured() -> Context:
    """Return a copy of the present context. What the caller changes later does not reach it."""
    return separate(copy_context())


def separate(context: Context, own: Context | None = None) -> Context:
    """Return a copy of a context, in which all that stands in a worker's ``own`` is set, too."""
    copied = context.copy()
    settings: dict[ContextVar[Any], Any] = {} if not own else dict(own)
    kind = _kind()
    if kind is not None and (settings or len(context)):
        theirs = {variable: value.copy() for variable, value in context.items() if type(value) is kind}
        settings = theirs | {
            variable: value.copy() if type(value) is kind else value
            for variable, value in settings.items()
            if type(value) is not kind or variable not in theirs or _says_anything(value)
        }
    if settings:
        copied.run(_set, settings)
    return copied


def _kind() -> Any:
    """Return the kind of value that the standard library changes in place, so that a copy of a context shares it."""
    return getattr(sys.modules.get("decimal"), "Context", None)


def shares(context: Context) -> bool:
    """Whether a mere copy of a context would share with it what may be changed in place."""
    kind = _kind() if len(context) else None
    return kind is not None and any(type(value) is kind for value in context.values())


def _says_anything(context: Any) -> bool:
    """Whether a context of ``decimal`` is another than that which whatever computes has, if it has set none."""
    usual = sys.modules["decimal"].DefaultContext
    return any(getattr(context, rule) != getattr(usual, rule) for rule in ("prec", "rounding", "Emin", "Emax", "traps"))


def _set(settings: dict[ContextVar[Any], Any]) -> None:
    for variable, value in settings.items():
        variable.set(value)


def variables(context: Context) -> list[ContextVar[Any]]:
    """Return the variables that are set in a context, but for our own."""
    return [variable for variable in context if variable is not current]
