"""A pickler's dispatch table that asks each class once how its objects are reduced."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import methodcaller
from typing import Any

from ordmap.reducers.errors import reducer_of_errors
from ordmap.reducers.instances import reducer_of

__all__ = ["Dispatch"]

#: Classes that one keeps at the most: each item may make one anew.
_MOST = 128


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
        if len(self) >= len(self.known) + _MOST:
            self.clear()
            self.update(self.known)
        self[kind] = reducer
        return reducer
