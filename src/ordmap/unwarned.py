"""Forks of which Python's warnings hear nothing: the caller's filters, and what they have shown, stay as they are.

Python ≥ 3.12 warns of a fork beside threads. The child of ours runs no code of theirs. To filter the warning would
change the state of the whole process: each change of the filters makes Python forget which warnings it has shown, and
threads that put theirs back in another order leave some of them behind.

A warning that has no module is dropped before any filter is asked: that is how Python treats those that come late, when
it ends. It takes the module's name from the globals of the function that it warns of.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import starmap
from types import FunctionType
from typing import cast

__all__ = ["fork", "unwarned"]


def unwarned(function: FunctionType) -> FunctionType:
    """Return a function that does the same with the globals of now, and whose own lines nothing warns of."""
    return FunctionType(
        function.__code__,
        {**function.__globals__, "__name__": None},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )


def _fork(made: list[int]) -> None:
    made.extend(starmap(os.fork, ((),)))  # as `noted` does; but the warning is of the function that calls


#: Fork, by ``os.fork`` as it is by then, and put what it returns into a list, with nothing in between.
fork = cast("Callable[[list[int]], None]", unwarned(cast("FunctionType", _fork)))
