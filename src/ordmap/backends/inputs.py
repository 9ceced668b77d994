"""Inputs on their way to other processes: each by itself, so that one that can't travel costs only itself."""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from types import MethodType
from typing import Any, TypeVar

from ordmap.errors import RemoteError
from ordmap.interrupts import came_by_a_signal
from ordmap.names import importable
from ordmap.outcome import Pickled, are_atoms, one_line
from ordmap.reducers import INPUT, Purpose, reducers

__all__ = [
    "TRAVELLING",
    "InputPickler",
    "Pickles",
    "Travelling",
    "pickled",
    "portable",
    "ready",
    "unpacking",
    "unpickling",
    "unsendable",
]


#: Characters of a reason.
_MOST_SAID = 1000


class Travelling:
    """What stands for an input on its way."""

    __slots__ = ()

    def unpacked(self, source: Any) -> Any:
        """Return the input, in a worker; ``source`` is what came with its chunk."""
        raise NotImplementedError


#: What `portable` makes of an input that is not plain, for ``isinstance``: the class of an input may have no hash.
TRAVELLING = (Pickled, Travelling)


class _Unsendable(Travelling):
    """What stands for an input that can't be pickled."""

    __slots__ = ("why",)

    def __init__(self, why: str) -> None:
        self.why = why

    def __reduce__(self) -> tuple[Any, ...]:
        return _Unsendable, (self.why,)

    def unpacked(self, source: Any) -> Any:
        del source
        raise RemoteError(f"the input can't be pickled: {self.why}; use backend='threads'")


def unsendable(error: BaseException) -> Travelling:
    """Return what stands for an input that can't be pickled, or raise what is none of its faults."""
    if came_by_a_signal(error):
        raise error
    return _Unsendable(one_line(error)[:_MOST_SAID])


def ready(keys: Sequence[Any]) -> bool:
    """Whether keys survive any executor's own pickle as they are."""
    if isinstance(keys, range) or are_atoms(keys) or isinstance(keys[0], TRAVELLING):
        return True
    return all(type(key) is tuple for key in keys) and are_atoms(chain.from_iterable(keys))


def portable(keys: Sequence[Any], purpose: Purpose = INPUT) -> Sequence[Any]:
    """Return keys that survive any executor's own pickle: as they are where they are plain, else pickled one by one.

    Keys that are made ready are left as they are. An input that can't be pickled becomes its item's error, in the
    worker. ``purpose``: that of a result, where workers may have other files than this process has.
    """
    return keys if ready(keys) else pickled(keys, purpose)


def pickled(keys: Iterable[Any], purpose: Purpose = INPUT) -> list[Pickled | Travelling]:
    """Return keys pickled one by one."""
    pickler = InputPickler(purpose=purpose)
    sent: list[Pickled | Travelling] = []
    for key in keys:
        try:
            sent.append(Pickled(pickler.dumps(key)))
        except BaseException as error:
            sent.append(unsendable(error))
    return sent


class InputPickler:
    """Pickles inputs, each by itself; those of their buffers that ``is_large`` are left out and added to ``large``."""

    def __init__(self, is_large: Callable[[memoryview], bool] | None = None, purpose: Purpose = INPUT) -> None:
        self._purpose = purpose
        self.large: list[memoryview] = []
        self._collect = None if is_large is None else _collector(is_large, self.large)
        self._file = io.BytesIO()
        self._plain = _PlainPickler(self._file, pickle.HIGHEST_PROTOCOL, buffer_callback=self._collect)
        self._try_plain = _goes_by_name()

    def dumps(self, key: Any) -> bytes:
        """Return the pickle of an input: by ``pickle``, or by value what workers may not find."""
        before = len(self.large)
        try:
            if self._try_plain:
                try:
                    return self._dumped_plainly(key)
                except Exception as error:
                    if came_by_a_signal(error):
                        raise
                    self._try_plain = False  # the others of its chunk are most likely alike
                    del self.large[before:]
            from ordmap.by_value import dumps

            return dumps(key, self._collect, self._purpose)
        except BaseException:
            del self.large[before:]
            raise

    def _dumped_plainly(self, key: Any) -> bytes:
        self._file.seek(0)
        self._file.truncate()
        self._plain.dispatch_table = reducers(self._purpose)
        try:
            self._plain.dump(key)
            return self._file.getvalue()
        finally:
            self._plain.clear_memo()


class _PlainPickler(pickle.Pickler):
    """Refuses what a worker may not find. It is as quick as any where there are but containers, numbers and texts."""

    def __init__(
        self, file: io.BytesIO, protocol: int, *, buffer_callback: Callable[[pickle.PickleBuffer], bool] | None
    ) -> None:
        super().__init__(file, protocol, buffer_callback=buffer_callback)
        self._importable = importable()

    def reducer_override(self, value: Any) -> Any:
        """Be called for everything else."""
        if isinstance(value, _BY_VALUE) or not self._importable[getattr(value, "__module__", None)]:
            raise pickle.PicklingError("it goes by value")
        return NotImplemented


#: What pickle finds by a name, where another may stand: that of a method may be its child's.
_BY_VALUE = (MethodType, TypeVar)


def _goes_by_name() -> bool:
    """Whether no module is registered with ``cloudpickle`` to be pickled by value."""
    cloudpickle = sys.modules.get("cloudpickle")
    registry = getattr(cloudpickle, "list_registry_pickle_by_value", set)
    return not registry()


def _collector(
    is_large: Callable[[memoryview], bool], large: list[memoryview]
) -> Callable[[pickle.PickleBuffer], bool]:
    def collect(buffer: pickle.PickleBuffer) -> bool:
        try:
            view = buffer.raw()
        except BufferError:  # not contiguous
            return True
        if not is_large(view):
            return True
        large.append(view)
        return False

    return collect


class Pickles(list[bytes]):
    """Inputs on their way that are pickled, each by itself."""


def unpickling(compute: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a function of an input's pickle."""
    return lambda data: compute(pickle.loads(data))


def unpacking(compute: Callable[[Any], Any], source: Any = None) -> Callable[[Any], Any]:
    """Return a function of an input that `portable` has made ready; it raises what keeps that from being had."""

    def unpack_and_compute(key: Any) -> Any:
        return compute(pickle.loads(key.data) if type(key) is Pickled else key.unpacked(source))

    return unpack_and_compute
