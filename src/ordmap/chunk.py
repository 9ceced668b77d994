"""Some items that follow each other: the unit that travels to a worker, and its place in the order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ordmap.item import Label

__all__ = ["Chunk", "Mark", "Place"]


class Mark(NamedTuple):
    """Where a sampler was that knows its own state: then, so many of its indices ago.

    ``anew``: how often it has come to its end since, and begun anew; so many ago is meant from there.
    """

    state: Any
    past: int
    anew: int = 0


class Place(NamedTuple):
    """Which item: the ``position``-th of an epoch, counted from 0; there may be none there, at the end."""

    epoch: int
    position: int
    mark: Mark | None = None

    def later(self, items: int) -> Place:
        """Return the place so many items further on."""
        mark = self.mark
        return Place(self.epoch, self.position + items, mark and mark._replace(past=mark.past + items))


class Chunk:
    """What the dataset (or function) is called with for some items, and where these are.

    ``place`` is that of the first; ``first`` its index, where the keys are not the indices themselves. ``error`` is set
    for an item that can't be computed, since its index is not valid: a chunk of one.
    """

    __slots__ = ("attempt", "error", "first", "keys", "place")

    def __init__(
        self,
        keys: Sequence[Any],
        place: Place,
        first: int | None = None,
        error: Exception | None = None,
        attempt: int = 1,
    ) -> None:
        self.keys = keys
        self.place = place
        self.first = first
        self.error = error
        self.attempt = attempt

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def indices(self) -> Sequence[int]:
        """The indices of the items."""
        return self.keys if self.first is None else range(self.first, self.first + len(self.keys))

    @property
    def label(self) -> Label:
        """What a worker is told of it, beside the keys."""
        return Label(self.place.epoch, self.attempt, self.first)

    def part(self, start: int, stop: int) -> Chunk:
        """Return some of the items, as a chunk of their own."""
        first = None if self.first is None else self.first + start
        return Chunk(self.keys[start:stop], self.place.later(start), first, attempt=self.attempt)

    def rest(self, done: int, size: int) -> list[Chunk]:
        """Return what is left after ``done`` items, in chunks of at most ``size``."""
        return [self.part(start, start + size) for start in range(done, len(self), size)]
