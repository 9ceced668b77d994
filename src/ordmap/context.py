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

__all__ = ["captured", "separate", "variables"]


def captured() -> Context:
    """Return a copy of the present context. What the caller changes later does not reach it."""
    return separate(copy_context())


def separate(context: Context, own: Context | None = None) -> Context:
    """Return a copy of a context, in which all that stands in a worker's ``own`` is set, too."""
    copied = context.copy()
    settings: dict[ContextVar[Any], Any] = {} if own is None else dict(own)
    decimal = sys.modules.get("decimal")
    kind = getattr(decimal, "Context", None)
    if kind is not None:
        # The one value that the standard library changes in place: a copy of the context would share it. And it is set
        # by whatever computes, if to nothing but the default.
        usual = _rules(getattr(decimal, "DefaultContext", None))
        settings = {
            variable: value
            for variable, value in settings.items()
            if type(value) is not kind or variable not in context or _rules(value) != usual
        }
        both = {**context, **settings}
        settings |= {variable: value.copy() for variable, value in both.items() if type(value) is kind}
    if settings:
        copied.run(_set, settings)
    return copied


def _rules(context: Any) -> tuple[Any, ...]:
    """Return the rules that a context of ``decimal`` says, without what has happened in it."""
    return () if context is None else (context.prec, context.rounding, context.Emin, context.Emax, context.traps)


def _set(settings: dict[ContextVar[Any], Any]) -> None:
    for variable, value in settings.items():
        variable.set(value)


def variables(context: Context) -> list[ContextVar[Any]]:
    """Return the variables that are set in a context, but for our own."""
    return [variable for variable in context if variable is not current]
