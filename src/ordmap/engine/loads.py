"""Inputs of the engine's chunks: pickled into the message or, where they have large buffers, copied into a crate.

Either is done before the next input is pulled, which may use the same memory. So a crate is taken before it is known
what the chunk will need: as many times what its first large input needs as there are inputs to come. What it has no
place for begins another chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ordmap.apart import Apart
from ordmap.backends.inputs import InputPickler, pickled, unsendable
from ordmap.engine.crates import Boxed, Crate, Crates, Span
from ordmap.engine.primed import InputRows, Primed
from ordmap.outcome import Pickled

__all__ = ["CrateLoad"]

#: Bytes from which on a buffer lies in a crate.
_LARGE = 16 * 1024

_ALIGNMENT = 64

#: What stands for inputs that go by message.
_IN_MESSAGE = frozenset({Pickled, Primed})

#: Inputs, and buffers of theirs, that a crate may have: where they lie has to fit into the message.
_MOST_PARTS = 256

#: Bytes that are kept at the most for inputs that are still to come.
_AHEAD = 16 << 20


class CrateLoad(Apart):
    """Inputs as they travel to workers of the engine: all are plain, or go by message, or all lie in one crate.

    ``rows``: what pickles the small ones of its run.
    """

    __slots__ = ("_buffers", "_crate", "_crates", "_in_row", "_pickler", "_place", "_rows", "_target")

    def __init__(self, crates: Crates, most: int, rows: InputRows) -> None:
        super().__init__(most)
        self._crates = crates
        self._rows = rows
        self._in_row: bool | None = None  # whether the next input may join a row; None: there was none yet
        self._pickler: InputPickler | None = None
        self._crate: Crate | None = None
        self._target = memoryview(b"")  # its memory, which is free from a place on
        self._place = 0
        self._buffers = 0

    def put(self, one: Any) -> None:
        if self._in_row is None:
            self._in_row = self._rows.begin_chunk(self.most)
        if self._in_row:
            primed = self._rows.put(one)
            if primed is not None:
                self.keys.append(primed)
                return
            self._in_row = self._rows.on
        pickler = self._pickler
        if pickler is None:
            pickler = self._pickler = InputPickler(_LARGE, vocabulary=self._crates.vocabulary)
        try:
            data = pickler.dumps(one)
        except BaseException as error:
            load = self if self._crate is None else self._another()
            load.keys.append(unsendable(error))
            return
        if self._crate is None and not pickler.left_out:
            self.keys.append(Pickled(data))
            return
        views = pickler.left_out[:]
        pickler.left_out.clear()
        self._put_large(one, data, views)

    def _put_large(self, one: Any, data: bytes, views: Sequence[memoryview]) -> None:
        """Put an input into a crate, be it that of another chunk; where there is none to be had it goes by message."""
        size = _aligned(len(data)) + sum(_aligned(view.nbytes) for view in views)
        if not self._has_room(size, len(views)):
            self._another()._put_large(one, data, views)
        elif self._crate is None and (not views or not self._begin_crate(size, len(views))):
            self.keys.append(Pickled(data) if not views else pickled([one], vocabulary=self._crates.vocabulary)[0])
        else:
            self._put_into_crate(data, views)

    def _another(self) -> CrateLoad:
        """Return a load for what this one has no place for."""
        self.full = True
        self.spare = load = CrateLoad(self._crates, self.most, self._rows)
        return load

    def _has_room(self, size: int, buffers: int) -> bool:
        if self._crate is None:
            return all(type(key) in _IN_MESSAGE for key in self.keys)
        few = len(self.keys) < _MOST_PARTS and self._buffers + buffers <= _MOST_PARTS
        return few and self._place + size <= self._target.nbytes

    def _begin_crate(self, size: int, buffers: int) -> bool:
        """Take a crate for what there is, and for inputs of such a size; ``False``: there is none to be had."""
        if max(len(self.keys) + 1, buffers) > _MOST_PARTS:
            return False
        earlier = [key.data if type(key) is Pickled else key.whole for key in self.keys]
        needed = sum(_aligned(len(data)) for data in earlier) + size
        ahead = min((self.most - len(earlier) - 1) * size, _AHEAD)
        self._crate = self._crates.take(needed + ahead) or self._crates.take(needed)
        if self._crate is None:
            return False
        self._in_row = False
        self._target = memoryview(self._crate.memory.span()).cast("B")
        self.keys.clear()
        for data in earlier:
            self._put_into_crate(data, ())
        return True

    def _put_into_crate(self, data: bytes, views: Sequence[memoryview]) -> None:
        boxed = Boxed(self._copied(data, len(data)), [self._copied(view, view.nbytes) for view in views], self._crate)
        self.keys.append(boxed)
        self._buffers += len(views)
        self.nbytes += boxed.nbytes

    def _copied(self, content: bytes | memoryview, size: int) -> Span:
        start = self._place
        self._target[start : start + size] = content
        self._place = _aligned(start + size)
        return start, size


def _aligned(place: int) -> int:
    return place + -place % _ALIGNMENT
