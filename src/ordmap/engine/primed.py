"""Small inputs of the engine's chunks: each pickled when it is pulled, all after one primer.

A worker reads the primer once a chunk, and opens each input within its item, which is at fault where that fails.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ordmap.backends.inputs import Travelling, goes_by_name, reducers_of_inputs
from ordmap.interrupts import pass_on
from ordmap.names import strangers
from ordmap.reducers import INPUT, array_in_pickle, in_band, restored
from ordmap.rows import RowWriter
from ordmap.vocabulary import Vocabulary

__all__ = ["InputRows", "Primed", "Row", "row_of"]

#: Inputs that name what the script has defined, and no primer has, from which on the rest goes another way at once.
_MOST_NAMED = 8


class Primed(Travelling):
    """An input on its way: its pickle, and the primer that this follows."""

    __slots__ = ("data", "primer")

    def __init__(self, primer: bytes, data: bytes) -> None:
        self.primer = primer
        self.data = data

    def __reduce__(self) -> tuple[Any, ...]:
        return Primed, (self.primer, self.data)

    @property
    def whole(self) -> bytes:
        """A pickle of its own."""
        return b"".join((self.primer, self.data, pickle.STOP))

    def unpacked(self, source: Any) -> Any:
        del source
        return pickle.loads(self.whole)


class Row(list[bytes]):
    """The inputs of a chunk on their way, with one primer."""

    def __init__(self, pickles: Iterable[bytes] = (), primer: bytes = b"") -> None:
        super().__init__(pickles)
        self.primer = primer

    def opening(self, compute: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Return a function that computes the next input at each call; it raises what keeps that from being had."""
        read: Callable[[], Any] | None = None
        place = 0

        def open_and_compute(_: Any) -> Any:
            nonlocal read, place
            try:
                if read is None:
                    read = _reader(self.primer, self[place:])
                one = read()
            except BaseException:
                read = None  # it stands in the midst of that one
                raise
            finally:
                place += 1
            return compute(one)

        return open_and_compute


def _reader(primer: bytes, row: Sequence[bytes]) -> Callable[[], Any]:
    """Return a function that opens the next of these pickles."""
    data = b"".join((primer, pickle.NONE, pickle.STOP, *(one + pickle.STOP for one in row)))
    unpickler = pickle.Unpickler(io.BufferedReader(io.BytesIO(data), len(data)))
    unpickler.load()
    primed: Any = pickle.Unpickler(io.BytesIO())
    primed.memo = unpickler.memo
    memo = primed.memo

    def read() -> Any:
        try:
            return unpickler.load()
        finally:
            unpickler.memo = memo  # what it has now would keep the input

    return read


def row_of(keys: Iterable[Any]) -> Row | None:
    """Return the row that these inputs are; ``None``: they are not all of one."""
    primer, pickles = None, []
    for key in keys:
        if type(key) is not Primed or (primer is not None and key.primer is not primer):
            return None
        primer = key.primer
        pickles.append(key.data)
    return None if primer is None else Row(pickles, primer)


class InputRows(RowWriter):
    """Pickles the small inputs of a run. ``vocabulary``: what its workers know beyond what they import."""

    always = (restored,)

    def __init__(self, vocabulary: Vocabulary | None) -> None:
        super().__init__()
        self._vocabulary = vocabulary
        self._strangers: tuple[str, ...] = ()
        self._names: tuple[bytes, ...] = ()
        self._primer = b""
        self._restored = b""
        self._named = 0  # inputs of this primer that named what is no part of it

    def reducers(self) -> dict[type, Any]:
        return reducers_of_inputs(in_band(INPUT))

    def finds(self, constant: Any) -> bool:
        return not self._is_ours(constant) or (self._vocabulary is not None and self._vocabulary.has(constant))

    def passes(self, error: BaseException) -> None:
        pass_on(error)

    def _is_ours(self, constant: Any) -> bool:
        """Whether the script has defined it."""
        return getattr(constant, "__module__", None) in self._strangers

    def begin_chunk(self, items: int) -> bool:
        """Begin with a chunk of about so many inputs; return whether a row pays."""
        if not goes_by_name():
            return False
        self._strangers = strangers()
        if not all(map(self.finds, self.common)):
            self.forget()
        if not self.begin(0, items):
            return False
        self._names = tuple(name.encode() for name in self._strangers)
        primer = self.primer
        if self._vocabulary is not None and any(map(self._is_ours, self.common)):
            if self._vocabulary.is_due:
                self._vocabulary.catch_up()
            primer = self._vocabulary.before(primer)
        if primer != self._primer:  # else it stays the very same, by which a row is known
            self._primer = primer
            self._named = 0
        self._restored = pickle.BINGET + bytes([self.number_of(restored)])
        return True

    def put(self, one: Any) -> Primed | None:
        """Return an input as it travels in the row that was begun; ``None``: it must go another way."""
        data = array_in_pickle(one, self._restored)
        if data is not None:
            return Primed(self._primer, data)
        data = self.add(one)
        if data is None:
            return None
        for name in self._names:  # any() would take four times as long
            if name in data:
                self._named += 1
                if self._named > _MOST_NAMED:
                    self.refuse()
                return None
        return Primed(self._primer, data)
