"""Where a program has what can't be pickled: an error of pickle's says of what class that is, and not where it was."""

from __future__ import annotations

import pickle
from collections.abc import Iterable

from ordmap.backends.reach import reached
from ordmap.interrupts import pass_on

__all__ = ["said_of"]

#: Objects that are looked at, and elements of a container.
_LOOKS, _BREADTH = 2_000, 64

_WAYS = "__reduce__", "__reduce_ex__"


def said_of(error: BaseException | None, roots: Iterable[object]) -> str:
    """Return what an error of pickle's says, and the way from these objects to what it is about, if that is found."""
    text = f"{type(error).__name__}: {error}"
    for one in reached(roots, _LOOKS, _BREADTH):
        kind = type(one.thing)
        # What has a way of its own to be pickled is not asked: what it has inside comes next.
        if kind.__name__ in text and all(getattr(kind, way) is getattr(object, way) for way in _WAYS):
            try:
                one.thing.__reduce_ex__(pickle.HIGHEST_PROTOCOL)
            except Exception as refusal:
                pass_on(refusal)
                return f"{text} ({one})"
    return text
