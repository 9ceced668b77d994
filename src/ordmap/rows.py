"""Small inputs and results on their way: each pickled by itself, at once, after what all of a chunk have in common.

To open a pickle by itself costs more than what is in it: classes are looked up by name, each time. A chunk in one
pickle would be the quickest, but each is to be seen as it was when it was pulled, or its item ended, and two share no
object. So each has a pickle of its own that follows a *primer*, which has what all have in common and can't change,
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
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, NamedTuple

from ordmap.reducers import in_band
from ordmap.reducers.dispatching import Dispatch

__all__ = ["RowWriter", "opened_alone", "opened_together"]

_WRITTEN, _REDUCED = 3, 4  # protocols

#: Bytes up to which a pickle belongs in a row. Beyond that it is quicker to copy it but once.
_MOST = 16 * 1024

#: Items of a chunk from which on a row pays.
_FEW = 4

#: Chunks between two looks for what they have in common, where the last has found nothing new.
_RARELY = 64

#: Chunks without a row after some that didn't belong in one, at most.
_SELDOM = 1024

#: What a primer may have, and characters of a text in it.
_MOST_COMMON = 128
_SHORT = 256

_START, _END, _NEXT, _STOP = b"](", b"e.", b"0", b"."


class RowWriter:
    """Pickles small results, in the process that has them; what pickles inputs says how these differ."""

    always: Sequence[Any] = ()

    def __init__(self) -> None:
        self._written: list[bytes] = []
        self._table = Dispatch({}, _REDUCED)
        self._pickler = _pickler(self._written, self._table)
        self._run: int | None = None
        self.common: Sequence[Any] = ()  # what primers have that begin from now on, beside what is ``always`` there
        self._seen: dict[int, Any] = {}
        self._wait = self._pause = 1
        self._off = self._out = 0  # chunks without a row, after results that don't belong in one: left, and next time
        self.on = False

    def reducers(self) -> Mapping[type, Callable[[Any], Any]]:
        """Return how objects are reduced; another mapping where that has changed."""
        return in_band()

    def finds(self, constant: Any) -> bool:
        """Whether the other process has the very same thing by the name of this constant; else no primer has it."""
        del constant
        return True

    def passes(self, error: BaseException) -> None:
        """Raise an error that is no fault of the object that is pickled."""

    def begin(self, run: int, items: int) -> bool:
        """Begin with a chunk of a run; return whether a row pays. The writer is ``on`` then, until it refuses."""
        if run != self._run:
            self._run, self._off, self._out = run, 0, 1
            self._table = self._pickler.dispatch_table = Dispatch({}, _REDUCED)
            self._prime([])
        self.on = items >= _FEW and not self._off
        if not self.on:
            self._off -= self._off > 0
            return False
        reducers = self.reducers()
        if reducers is not self._table.known:
            self._table = self._pickler.dispatch_table = Dispatch(reducers, _REDUCED)
        self.primer, self._memo = self._next
        self._pickler.memo = self._memo
        self._wait -= 1
        self._looks = 0 if self._wait else 2
        if not self._wait:
            self._wait = self._pause
        return True

    def add(self, one: Any) -> bytes | None:
        """Return the pickle of an input or result, for a row that has the ``primer``; ``None``: it goes another way."""
        pickler = self._pickler
        try:
            pickler.dump(one)
            if self._looks:
                self._look()
        except BaseException as error:  # a user's __reduce__ may raise anything; it is called again, by what says so
            self.refuse()
            self.passes(error)
            return None
        finally:
            pickler.memo = self._memo  # what it has now would keep it
        data = self._written.pop()
        if self._written or len(data) > _MOST:
            self.refuse()
            return None
        return data[:-1]

    def number_of(self, thing: Any) -> int:
        """Return the number by which a row refers to something in its primer."""
        return self._memo.copy()[id(thing)][0]

    def forget(self) -> None:
        """Have nothing in common be known any more."""
        self._prime([])

    def refuse(self) -> None:
        """Have what is left of this chunk, and some after it, go another way."""
        self._written.clear()
        self.on = False
        self._off = self._out
        self._out = min(2 * self._out, _SELDOM)

    def _look(self) -> None:
        """See what two in a row have in common, for later chunks."""
        self._looks -= 1
        constants = {key: one for key, (_, one) in self._pickler.memo.copy().items() if _is_constant(one)}
        if self._looks:
            self._seen = constants
            return
        primed = self._next[1].copy()
        common = [one for key, one in self._seen.items() if key in constants and key not in primed and self.finds(one)]
        self._seen = {}
        if not common:
            self._pause = min(2 * self._pause, _RARELY)
        elif len(self.common) + len(common) <= _MOST_COMMON:
            self._prime([*self.common, *common])
        else:
            self._prime([])

    def _prime(self, common: list[Any]) -> None:
        """Have these be in the primer of the chunks that begin from now on."""
        self.common = common
        self._wait = self._pause = 1
        written: list[bytes] = []
        pickler = _pickler(written, self._table)
        pickler.dump([*self.always, *common])
        self._next = b"".join(written).removesuffix(_STOP) + _NEXT, pickler.memo


def opened_together(primer: bytes, row: Sequence[bytes]) -> list[Any]:
    """Return what these are the pickles of, or raise what one of them does."""
    opened: list[Any] = pickle.loads(b"".join((primer, _START, *row, _END)))
    return opened


def opened_alone(primer: bytes, data: bytes) -> Any:
    """Return what this is the pickle of."""
    return pickle.loads(primer + data + _STOP)


class _Paper(NamedTuple):
    """A file of which a pickler needs no more."""

    write: Callable[[bytes], None]


def _pickler(written: list[bytes], table: Dispatch) -> pickle.Pickler:
    pickler = pickle.Pickler(_Paper(written.append), _WRITTEN)
    pickler.dispatch_table = table
    return pickler


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
