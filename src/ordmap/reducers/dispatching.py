"""A pickler's dispatch table that asks each class once how its objects are reduced."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import methodcaller
from typing import Any

from ordmap.names import names_here
from ordmap.reducers.errors import reducer_of_errors
from ordmap.reducers.instances import reducer_of

__all__ = ["Dispatch"]


class Dispatch(dict[type, Callable[[Any], Any]]):
    """How objects are reduced: as those say who are ``known``, else as for a protocol of pickle's."""

    def __init__(self, known: Mapping[type, Callable[[Any], Any]], protocol: int) -> None:
        super().__init__(known)
        self.known = known
        self._reduced = methodcaller("__reduce_ex__", protocol)

    def __missing__(self, kind: type) -> Callable[[Any], Any]:
        if issubclass(kind, type):  # a class, which goes by its name
            raise KeyError(kind)
        reducer = reducer_of(kind) or reducer_of_errors(kind) or self._reduced
        # One that is made for an item is not kept by this; and another may say that it is equal to such a one.
        is_lasting = kind.__module__ == "builtins" or names_here(kind)
        if is_lasting and not any("__eq__" in vars(base) for base in type.mro(type(kind))[:-1]):
            self[kind] = reducer
        return reducer
