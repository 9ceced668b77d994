"""Inputs on their way to other processes: each by itself, so that one that can't travel costs only itself."""

from __future__ import annotations

import io
import pickle
import sys
import typing
from collections import deque
from collections.abc import Callable, Iterable
from types import MethodType
from typing import Any, NoReturn, ParamSpec, TypeVar, TypeVarTuple

from ordmap.errors import RemoteError
from ordmap.interrupts import pass_on
from ordmap.names import strangers
from ordmap.outcome import Pickled, one_line
from ordmap.reducers import INPUT, Dispatch, Purpose, pickled_array, reducers
from ordmap.vocabulary import Speaker, Vocabulary

__all__ = [
    "TRAVELLING",
    "InputPickler",
    "Pickles",
    "Travelling",
    "goes_by_name",
    "pickled",
    "reducers_of_inputs",
    "sent",
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


#: What stands for an input that is not plain, for ``isinstance``: the class of an input may have no hash.
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
    pass_on(error)
    return _Unsendable(one_line(error)[:_MOST_SAID])


def pickled(
    keys: Iterable[Any], purpose: Purpose = INPUT, vocabulary: Vocabulary | None = None
) -> list[Pickled | Travelling]:
    """Return keys pickled one by one."""
    pickler = InputPickler(purpose=purpose, vocabulary=vocabulary)
    return [sent(pickler, key) for key in keys]


def sent(pickler: InputPickler, key: Any) -> Pickled | Travelling:
    """Return what stands for an input on its way: its pickle; or its item's error, in the worker, if it has none."""
    try:
        return Pickled(pickler.dumps(key))
    except BaseException as error:
        return unsendable(error)


class InputPickler:
    """Pickles inputs, each by itself; buffers of at least so many bytes as are ``large`` are added to ``left_out``.

    ``vocabulary``: what the workers know by its name, beyond what they import.
    """

    def __init__(
        self,
        large: int | None = None,
        purpose: Purpose = INPUT,
        vocabulary: Vocabulary | None = None,
    ) -> None:
        self._purpose = purpose
        self.left_out: list[memoryview] = []
        self._collect = None if large is None else _collector(large, self.left_out)
        self._file = io.BytesIO()
        self._plain = pickle.Pickler(self._file, pickle.HIGHEST_PROTOCOL, buffer_callback=self._collect)
        self._plain.dispatch_table = Dispatch(reducers_of_inputs(reducers(purpose)), pickle.HIGHEST_PROTOCOL)
        self._strangers = tuple(name.encode() for name in strangers())
        self._vocabulary = vocabulary
        self._speaker = None if vocabulary is None else Speaker(vocabulary)
        self._try_plain = goes_by_name()

    def dumps(self, key: Any) -> bytes:
        """Return the pickle of an input: by ``pickle``, or by value what workers may not find."""
        array = pickled_array(key)
        if array is not None:
            return array
        before = len(self.left_out)
        try:
            if self._try_plain:
                try:
                    data = self._dumped_plainly(key)
                except Exception as error:
                    pass_on(error)
                    data = None
                if data is not None:
                    return data
                self._try_plain = False  # the others of its chunk are most likely alike
                del self.left_out[before:]
            from ordmap.by_value import dumps

            data = dumps(key, self._collect, self._purpose, vocabulary=self._vocabulary)
            return data if self._vocabulary is None else self._vocabulary.before(data)
        except BaseException:
            del self.left_out[before:]
            raise

    def _dumped_plainly(self, key: Any) -> bytes | None:
        """Return the plain pickle of an input; ``None``: workers would not find all that it names."""
        self._file.seek(0)
        self._file.truncate()
        try:
            self._plain.dump(key)
            data = self._file.getvalue()
        finally:
            self._plain.clear_memo()
        for name in self._strangers:
            if name in data:
                return None if self._speaker is None else self._speaker.understood(data)
        return data


def _by_value(_: Any) -> NoReturn:
    raise pickle.PicklingError("it goes by value")


#: What pickle finds by a name, where another may stand: that of a method may be its child's.
_BY_VALUE = dict.fromkeys((MethodType, TypeVar, ParamSpec, TypeVarTuple), _by_value)
if sys.version_info >= (3, 12):
    _BY_VALUE[typing.TypeAliasType] = _by_value

_Reducers = dict[type, Callable[[Any], Any]]

#: What was added to which reducers, the newest last: those of two purposes, and those of what is small.
_added: deque[tuple[_Reducers, _Reducers]] = deque(maxlen=4)


def reducers_of_inputs(own: _Reducers) -> _Reducers:
    """Return reducers with what an input must not be found by; the very same for the same ones."""
    for known, added in _added:
        if known is own:
            return added
    _added.append((own, own | _BY_VALUE))
    return _added[-1][1]


def goes_by_name() -> bool:
    """Whether no module is registered with ``cloudpickle`` to be pickled by value."""
    cloudpickle = sys.modules.get("cloudpickle")
    registry = getattr(cloudpickle, "list_registry_pickle_by_value", set)
    return not registry()


def _collector(large: int, left_out: list[memoryview]) -> Callable[[pickle.PickleBuffer], bool]:
    def collect(buffer: pickle.PickleBuffer) -> bool:
        try:
            view = buffer.raw()
        except BufferError:  # not contiguous
            return True
        if view.nbytes < large:
            return True
        left_out.append(view)
        return False

    return collect


class Pickles(list[bytes]):
    """Inputs on their way that are pickled, each by itself."""


def unpickling(compute: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a function of an input's pickle."""
    return lambda data: compute(pickle.loads(data))


def unpacking(compute: Callable[[Any], Any], source: Any = None) -> Callable[[Any], Any]:
    """Return a function of what stands for an input; it raises what keeps that from being had."""

    def unpack_and_compute(key: Any) -> Any:
        return compute(pickle.loads(key.data) if type(key) is Pickled else key.unpacked(source))

    return unpack_and_compute
