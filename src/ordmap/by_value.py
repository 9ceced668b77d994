"""Pickles for other processes: by value goes what a fresh interpreter would not find by its name.

cloudpickle does so for what ``__main__`` defines, and takes all other modules that are loaded here for importable
there. This module is imported when something can't go by plain pickle: cloudpickle is heavy.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from contextvars import ContextVar
from types import FunctionType, ModuleType
from typing import Any, TypeVar

from cloudpickle import cloudpickle

from ordmap import places
from ordmap.names import SCRIPT, give_name, importable, names_here
from ordmap.reducers import RESULT, Purpose, reducers

__all__ = ["dumps", "make_whole"]


def dumps(
    value: object,
    buffer_callback: Callable[[pickle.PickleBuffer], bool] | None = None,
    purpose: Purpose = RESULT,
) -> bytes:
    """Return the pickle of a value, which ``pickle.loads`` opens in any process that has the same packages."""
    with io.BytesIO() as file:
        _Pickler(file, buffer_callback, purpose).dump(value)
        return file.getvalue()


def _table(purpose: Purpose) -> dict[type, Any]:
    """Return cloudpickle's reducers, but for those that we, or the user's libraries, have others of."""
    own = reducers(purpose)
    if _tables.get(purpose, _NONE)[0] is not own:
        _tables[purpose] = own, {**cloudpickle.Pickler._dispatch_table, **own}
    return _tables[purpose][1]


_NONE: tuple[object, dict[type, Any]] = None, {}

#: By purpose, what a table was made of, and the table.
_tables: dict[Purpose, tuple[object, dict[type, Any]]] = {}


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # it has no types
    def __init__(
        self, file: io.BytesIO, buffer_callback: Callable[[pickle.PickleBuffer], bool] | None, purpose: Purpose
    ) -> None:
        self.dispatch_table = _table(purpose)  # it is looked at right now
        super().__init__(file, pickle.HIGHEST_PROTOCOL, buffer_callback=buffer_callback)
        self._importable = importable()

    def reducer_override(self, value: Any) -> Any:
        """Be called for everything but containers, numbers and texts."""
        kind = type(value)  # what isinstance() asks may be a lie
        if kind is ContextVar:
            return places.reduced(value)
        reduced = super().reducer_override(value)
        if issubclass(kind, type):
            return self._with_name(value, reduced)
        if kind in _NAMED and reduced is NotImplemented:
            return self._reduced(value)
        return reduced

    def _with_name(self, kind: type, reduced: Any) -> Any:
        """Reduce a class; where its name leads to it here, that goes along."""
        if reduced is NotImplemented and not self._importable[kind.__module__]:
            reduced = cloudpickle._dynamic_class_reduce(kind)
        if reduced is not NotImplemented and reduced[0] is cloudpickle._make_skeleton_class:
            reduced[1][3]["__qualname__"] = kind.__qualname__  # which it would lose, where it is another than its name
        if kind.__module__ in SCRIPT and reduced is not NotImplemented and names_here(kind):
            *others, _ = reduced
            return *others, make_whole
        return reduced

    def _reduced(self, value: Any) -> Any:
        """Reduce what cloudpickle would name."""
        name = value.__name__ if type(value) is ModuleType else value.__module__
        if self._importable[name]:
            return NotImplemented
        if type(value) is FunctionType:
            return self._dynamic_function_reduce(value)
        if type(value) is TypeVar:
            return cloudpickle._make_typevar, cloudpickle._decompose_typevar(value)
        if name in SCRIPT:
            return cloudpickle.subimport, ("__main__",)  # that of the process that opens this
        state = {name: one for name, one in vars(value).items() if name != "__builtins__"}
        return cloudpickle.dynamic_subimport, (name, state)


#: What cloudpickle names by its module, beside classes.
_NAMED = frozenset({FunctionType, ModuleType, TypeVar})


def make_whole(kind: type, state: Any) -> None:
    """Give a class that has arrived by value, and whose name leads to it where it came from, all that it has."""
    cloudpickle._class_setstate(kind, state)
    give_name(kind)
