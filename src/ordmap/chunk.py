"""Some items that follow each other: the unit that travels to a worker, and its place in the order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ordmap.item import Label
from ordmap.pulling import Load

__all__ = ["REMEMBERED", "Chunk", "Given", "Mark", "Place"]

#: Indices of a sampler that are remembered, so that its state can tell it from another.
REMEMBERED = 16


class Mark(NamedTuple):
    """Where a sampler was that knows its own state: then, so many of its indices ago.

    ``anew``: how often it has come to its end since, and begun anew; so many ago is meant from there.
    """

    state: Any
    past: int
    anew: int = 0

    def later(self, items: int) -> Mark:
        """Return the mark of the place so many items further on."""
        return Mark(self.state, self.past + items, self.anew)


class Given(NamedTuple):
    """The last indices that a sampler has given, from this position of this epoch on: what tells it from another."""

    epoch: int
    position: int
    indices: Sequence[Any]


class Place(NamedTuple):
    """Which item: the ``position``-th of an epoch, counted from 0; there may be none there, at the end.

    ``mark`` and ``given`` are what is known there of a sampler.
    """

    epoch: int
    position: int
    mark: Mark | None = None
    given: Given | None = None


class Chunk:
    """What the dataset (or function) is called with for some items, and where these are.

    ``start`` is the position of the first in its epoch, and ``mark`` what a sampler says of that; ``before`` is the
    chunk that it gave before this one, or what it had given last by then. ``error`` is set for an item that can't be
    computed, since its index is not ``valid``: a chunk of one. ``load`` is what the keys were pulled into.
    """

    __slots__ = ("before", "error", "keys", "label", "load", "mark", "start", "valid")

    def __init__(  # noqa: PLR0917
        self,
        keys: Sequence[Any],
        label: Label,
        start: int,
        mark: Mark | None = None,
        error: Exception | None = None,
        before: Chunk | Given | None = None,
    ) -> None:
        self.keys = keys
        self.label = label
        self.start = start
        self.mark = mark
        self.before = before
        self.error = error
        self.valid = error is None
        self.load: Load | None = None

    @classmethod
    def of(cls, load: Load, label: Label, start: int) -> Chunk:
        """Return the chunk of a load."""
        chunk = cls(load.keys, label, start)
        chunk.load = load
        return chunk

    @property
    def nbytes(self) -> int:
        """The bytes of large inputs on their way."""
        return 0 if self.load is None else self.load.nbytes

    @property
    def packing(self) -> float:
        """The seconds that it took to make the inputs ready to travel."""
        return 0.0 if self.load is None else self.load.packing

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def indices(self) -> Sequence[int]:
        """The indices of the items."""
        first = self.label.first
        return self.keys if first is None else range(first, first + len(self.keys))

    def place(self, item: int = 0) -> Place:
        """Return the place of one of the items."""
        return Place(self.label.epoch, self.start + item, self.mark and self.mark.later(item), self.given_after(item))

    def given_after(self, items: int) -> Given | None:
        """Return what a sampler has given last once so many of these items are given, all of it in one epoch."""
        one: Chunk | Given | None = self
        keys = self.keys[:items]
        last: list[Any] = []
        epoch = stop = 0
        while isinstance(one, Chunk):
            if keys and last and one.label.epoch != epoch:
                break
            if keys and not last:
                epoch, stop = one.label.epoch, one.start + len(keys)
            last[:0] = keys[-REMEMBERED:]
            if len(last) >= REMEMBERED:
                break
            one = one.before
            keys = one.keys if isinstance(one, Chunk) else ()
        if one is None:
            return None
        if isinstance(one, Given):
            if not last:
                return one
            if one.epoch == epoch:
                last[:0] = one.indices
        last = last[-REMEMBERED:]
        return Given(epoch, stop - len(last), last)

    def part(self, start: int, stop: int, *, again: bool = False) -> Chunk:
        """Return some of the items, as a chunk of their own; ``again``: which is tried once more."""
        label = self.label
        if again or label.first is not None:
            first = None if label.first is None else label.first + start
            label = Label(label.epoch, label.attempt + again, first)
        mark, before = self.mark and self.mark.later(start), self.given_after(start)
        return Chunk(self.keys[start:stop], label, self.start + start, mark, before=before)

    def rest(self, done: int, size: int) -> list[Chunk]:
        """Return what is left after ``done`` items, in chunks of at most ``size``."""
        return [self.part(start, start + size) for start in range(done, len(self), size)]
