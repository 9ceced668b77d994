"""Where a program has what can't be pickled: an error of pickle's says of what class that is, and not where it was."""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Iterable
from functools import partial
from types import FunctionType, MethodType

from ordmap.backends.reach import Reached, reached
from ordmap.interrupts import pass_on
from ordmap.reducers import has_own_way

__all__ = ["said_of"]

#: Objects that are looked at, and elements of a container.
_LOOKS, _BREADTH = 2_000, 64

#: What is pickled in a way of its own, with all that it has.
_WHOLE = frozenset({FunctionType, MethodType, deque, partial})


def said_of(error: BaseException | None, roots: Iterable[object]) -> str:
    """Return what an error of pickle's says, and the way from these objects to what it is about, if that is found."""
    text = f"{type(error).__name__}: {error}"
    try:
        way = _way(text, roots)
    except Exception as fault:  # of a class that is asked for what it has
        pass_on(fault)
        return text
    return text if way is None else f"{text} ({way})"


def _way(text: str, roots: Iterable[object]) -> Reached | None:
    for one in reached(roots, _LOOKS, _BREADTH):
        kind = type(one.thing)
        if has_own_way(kind):
            one.ends = kind not in _WHOLE and not issubclass(kind, type)  # it may leave out what it has inside
        elif kind.__name__ in text:
            try:
                one.thing.__reduce_ex__(pickle.HIGHEST_PROTOCOL)
            except Exception as refusal:
                pass_on(refusal)
                return one
    return None
