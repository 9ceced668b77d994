"""Some items that follow each other: the unit that travels to a worker, and its place in the order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ordmap.item import Label

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

    def later(self, epoch: int, start: int, keys: Sequence[Any]) -> Given:
        """Return the last indices once these, from the position ``start`` on, have been given, too."""
        if not keys:
            return self
        before = self.indices if epoch == self.epoch else ()
        last = [*before, *keys[-REMEMBERED:]][-REMEMBERED:]
        return Given(epoch, start + len(keys) - len(last), last)


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

    ``start`` is the position of the first in its epoch, and ``mark`` what a sampler says of that; ``given`` is what it
    had given before. ``error`` is set for an item that can't be computed, since its index is not valid: a chunk of one.
    ``nbytes`` are those of large inputs on their way.
    """

    __slots__ = ("error", "given", "keys", "label", "mark", "nbytes", "start")

    def __init__(  # noqa: PLR0917
        self,
        keys: Sequence[Any],
        label: Label,
        start: int,
        mark: Mark | None = None,
        error: Exception | None = None,
        given: Given | None = None,
    ) -> None:
        self.keys = keys
        self.label = label
        self.start = start
        self.mark = mark
        self.given = given
        self.error = error
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def indices(self) -> Sequence[int]:
        """The indices of the items."""
        first = self.label.first
        return self.keys if first is None else range(first, first + len(self.keys))

    def place(self, item: int = 0) -> Place:
        """Return the place of one of the items."""
        return Place(self.label.epoch, self.start + item, self.mark and self.mark.later(item), self._given(item))

    def _given(self, item: int) -> Given | None:
        return self.given and self.given.later(self.label.epoch, self.start, self.keys[:item])

    def part(self, start: int, stop: int, *, again: bool = False) -> Chunk:
        """Return some of the items, as a chunk of their own; ``again``: which is tried once more."""
        label = self.label
        if again or label.first is not None:
            first = None if label.first is None else label.first + start
            label = Label(label.epoch, label.attempt + again, first)
        mark, given = self.mark and self.mark.later(start), self._given(start)
        return Chunk(self.keys[start:stop], label, self.start + start, mark, given=given)

    def rest(self, done: int, size: int) -> list[Chunk]:
        """Return what is left after ``done`` items, in chunks of at most ``size``."""
        return [self.part(start, start + size) for start in range(done, len(self), size)]
