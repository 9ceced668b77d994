"""Objects pickled as far as they can be: what can't travel costs itself alone, and something stands for it.

This is for exceptions, which say more with most of their attributes than with none. A lock comes as a new one, since
what has one needs one, and no more than that. Of an object that ends something when it ends no part is left out: it
stays behind as a whole.
"""

from __future__ import annotations

import io
import pickle
import threading
from collections.abc import Callable
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

from ordmap import by_value
from ordmap.reducers import RESULT

__all__ = ["LeftOut", "dumped_in_part", "spared_parts", "travels"]

#: What pickle finds by its name, and calls nothing for.
_BY_NAME = (type, FunctionType, BuiltinFunctionType, ModuleType)

_LOCKS: dict[type, Callable[[], object]] = {
    type(threading.Lock()): threading.Lock,
    type(threading.RLock()): threading.RLock,
}


class LeftOut:
    """Stands for what can't be pickled. Its class has the name of that one's, and it has no attribute."""

    def __init__(self, why: str) -> None:
        self.__dict__["left out since"] = why

    def __repr__(self) -> str:
        return f"<{type(self).__name__}, left out on the way: {self.__dict__['left out since']}>"

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{self!r} has no attribute {name!r}")

    def __reduce__(self) -> tuple[Any, ...]:
        return _left_out, (type(self).__name__, self.__dict__["left out since"])


def _left_out(name: str, why: str) -> LeftOut:
    kind: type[LeftOut] = type(name, (LeftOut,), {"__module__": __name__})
    return kind(why)


class _Pickler(by_value._Pickler):
    def __init__(self, file: io.BytesIO, reduce_error: Callable[[BaseException], tuple[Any, ...]]) -> None:
        super().__init__(file, None, RESULT, back=True)
        self._reduce_error = reduce_error

    def reducer_override(self, value: Any) -> Any:
        """Be called for everything but containers, numbers and texts."""
        kind = type(value)
        if kind in _LOCKS:
            return _LOCKS[kind], ()
        try:
            if isinstance(value, BaseException):
                return self._reduce_error(value)
            reduced = super().reducer_override(value)
            if reduced is not NotImplemented or isinstance(value, _BY_NAME):
                return reduced
            reduce = self.dispatch_table.get(kind)
            reduced = value.__reduce_ex__(pickle.HIGHEST_PROTOCOL) if reduce is None else reduce(value)
        except Exception as error:
            return _left_out, (kind.__name__, _reason(error))
        obstacle = _obstacle(value) if hasattr(kind, "__del__") else None
        return reduced if obstacle is None else (_left_out, (kind.__name__, _reason(obstacle)))


def dumped_in_part(value: object, reduce_error: Callable[[BaseException], tuple[Any, ...]]) -> bytes:
    """Pickle a value, without what in it can't be pickled; ``reduce_error`` says what exceptions in it are made of."""
    with io.BytesIO() as file:
        _Pickler(file, reduce_error).dump(value)
        return file.getvalue()


def spared_parts(parts: tuple[type, tuple[Any, ...], dict[str, Any]]) -> tuple[Any, ...]:
    """Return a class, arguments and attributes, with something in the place of each that can't be had again."""
    kind, args, state = parts
    return kind, tuple(map(_spared, args)), {name: _spared(value) for name, value in state.items()}


def _spared(value: object) -> object:
    error = _obstacle(value)
    return value if error is None else _left_out(type(value).__name__, _reason(error))


def travels(value: object) -> bool:
    """Whether a value can be pickled and had again."""
    return _obstacle(value) is None


def _obstacle(value: object) -> Exception | None:
    """Return what keeps a value from being pickled, or from being had again."""
    try:
        pickle.loads(by_value.dumps(value))
    except Exception as error:
        return error
    return None


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:200]
