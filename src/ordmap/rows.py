"""Small results on their way: each pickled as soon as its item ends, all of a chunk opened together.

To open a pickle by itself costs more than what is in it: classes are looked up by name, each time. A chunk in one
pickle would be the quickest, but what an item returned is to be seen as it was then, and two results share no object.
So each result has a pickle of its own that follows a *primer*, which has what results have in common and can't change,
such as their class::

    primer                a pickle's beginning: the class Point, "x", "y"
    row                   [ {Point, "x": 1, "y": 2}, {Point, "x": 3, "y": 4}, … ]: what isn't in the primer

Objects are reduced as for protocol 4, and written in protocol 3, where whatever is referred to later has its number
written beside it. So pickles that know of nothing but the primer can follow each other in one; in later protocols
these numbers are counted from the beginning.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Mapping, Sequence
from operator import methodcaller
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, NamedTuple

__all__ = ["RowWriter", "opened_alone", "opened_together"]

_WRITTEN, _REDUCED = 3, 4  # protocols

#: Bytes up to which the pickle of a result belongs in a row. Beyond that it is quicker to copy it but once.
_MOST = 16 * 1024

#: Results in a chunk from which on a row pays.
_FEW = 4

#: Chunks between two looks for what results have in common, where the last has found nothing new.
_RARELY = 64

#: Chunks without a row after results that didn't belong in one, at most.
_SELDOM = 1024

#: What a primer may have, and characters of a text in it.
_MOST_COMMON = 128
_SHORT = 256

_START, _END, _NEXT, _STOP = b"](", b"e.", b"0", b"."


class RowWriter:
    """Pickles small results, in the process that has them."""

    def __init__(self, reducers: Callable[[], Mapping[type, Callable[[Any], Any]]]) -> None:
        self._reducers = reducers
        self._written: list[bytes] = []
        self._table = _Table({})
        self._pickler = _pickler(self._written, self._table)
        self._run: int | None = None
        self._seen: dict[int, Any] = {}
        self._wait = self._pause = 1
        self._off = self._out = 0  # chunks without a row, after results that don't belong in one: left, and next time
        self.on = False

    def begin(self, run: int, items: int) -> bool:
        """Begin with a chunk of a run; return whether a row pays. The writer is ``on`` then, until it refuses."""
        if run != self._run:
            self._run, self._off, self._out = run, 0, 1
            self._prime([])
        self.on = items >= _FEW and not self._off
        if not self.on:
            self._off -= self._off > 0
            return False
        reducers = self._reducers()
        if reducers is not self._table.known:
            self._table = self._pickler.dispatch_table = _Table(reducers)
        self.primer, self._memo = self._next
        self._pickler.memo = self._memo
        self._wait -= 1
        self._looks = 0 if self._wait else 2
        if not self._wait:
            self._wait = self._pause
        return True

    def add(self, result: Any) -> bytes | None:
        """Return the pickle of a result, for a row that has the ``primer``; ``None``: it must go another way."""
        pickler = self._pickler
        try:
            pickler.dump(result)
            if self._looks:
                self._look()
        except BaseException:  # a user's __reduce__ may raise anything; it is called again, by what says so
            self._refuse()
            return None
        finally:
            pickler.memo = self._memo  # what it has now would keep the result
        data = self._written.pop()
        if self._written or len(data) > _MOST:
            self._refuse()
            return None
        return data[:-1]

    def _refuse(self) -> None:
        """Have what is left of this chunk, and some after it, go another way."""
        self._written.clear()
        self.on = False
        self._off = self._out
        self._out = min(2 * self._out, _SELDOM)

    def _look(self) -> None:
        """See what two results in a row have in common, for later chunks."""
        self._looks -= 1
        constants = {key: one for key, (_, one) in self._pickler.memo.copy().items() if _is_constant(one)}
        if self._looks:
            self._seen = constants
            return
        primed = self._next[1].copy()
        common = [one for key, one in self._seen.items() if key in constants and key not in primed]
        self._seen = {}
        if not common:
            self._pause = min(2 * self._pause, _RARELY)
        elif len(self._common) + len(common) <= _MOST_COMMON:
            self._prime([*self._common, *common])
        else:
            self._prime([])

    def _prime(self, common: list[Any]) -> None:
        """Have these be in the primer of the chunks that begin from now on."""
        self._common = common
        self._wait = self._pause = 1
        written: list[bytes] = []
        pickler = _pickler(written, self._table)
        pickler.dump(common)
        self._next = b"".join(written).removesuffix(_STOP) + _NEXT, pickler.memo


def opened_together(primer: bytes, row: Sequence[bytes]) -> list[Any]:
    """Return the results that these are the pickles of, or raise what one of them does."""
    results: list[Any] = pickle.loads(b"".join((primer, _START, *row, _END)))
    return results


def opened_alone(primer: bytes, data: bytes) -> Any:
    """Return the result that this is the pickle of."""
    return pickle.loads(primer + data + _STOP)


class _Paper(NamedTuple):
    """A file of which a pickler needs no more."""

    write: Callable[[bytes], None]


def _pickler(written: list[bytes], table: _Table) -> pickle.Pickler:
    pickler = pickle.Pickler(_Paper(written.append), _WRITTEN)
    pickler.dispatch_table = table
    return pickler


class _Table(dict[type, Callable[[Any], Any]]):
    """How objects are reduced: as those say who are ``known``, else as for protocol 4, of which `datetime` has need."""

    def __init__(self, known: Mapping[type, Callable[[Any], Any]]) -> None:
        super().__init__(known)
        self.known = known

    def __missing__(self, kind: type) -> Callable[[Any], Any]:
        if issubclass(kind, type):  # a class, which goes by its name
            raise KeyError(kind)
        if len(self) > len(self.known) + _MOST_COMMON:
            return _reduced  # so many classes may be made anew for each item; this keeps none of them
        self[kind] = _reduced
        return _reduced


_reduced = methodcaller("__reduce_ex__", _REDUCED)


def _is_constant(one: Any) -> bool:
    """Whether one can't change, or goes by its name."""
    kind = type(one)
    if kind is str:
        return len(one) <= _SHORT
    if kind is BuiltinFunctionType:
        return isinstance(one.__self__, ModuleType)
    if kind is FunctionType or issubclass(kind, type):
        return True
    dtype = getattr(sys.modules.get("numpy"), "dtype", ())
    return isinstance(one, dtype) and one.isbuiltin == 1 and one.metadata is None
