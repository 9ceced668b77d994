"""Which arguments a function is called with: the source of `ordered_map`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeGuard

from ordmap.chunk import Chunk, Place
from ordmap.dataset import number_of
from ordmap.errors import CheckpointError
from ordmap.item import Label
from ordmap.pulling import Load, Puller, close_source, is_swift, length_of, past
from ordmap.states import check_identity, place_of

__all__ = ["Arguments"]


class Arguments:
    """What a function is called with: items of one iterable, or tuples of several in step; numbered from 0."""

    def __init__(self, iterables: Sequence[Iterable[Any]], *, strict: bool, seed: int | None = None) -> None:
        self._iterables = iterables
        self._strict = strict
        self._seed = seed
        self._pulled: list[Iterator[Any]] = []
        self._puller: Puller[Load] | None = None
        self._taken = 0
        self.may_wait = not all(isinstance(iterable, Sequence) for iterable in iterables)
        # Then a chunk travels as a few numbers.
        self._indices = iterables[0] if len(iterables) == 1 and _counts_from_0(iterables[0]) else None

    @property
    def ready(self) -> bool:
        return True

    def begin(self) -> bool:
        return False

    def take(self, most: int, load: Callable[[int], Load] = Load) -> Chunk | None:
        start = self._taken
        if self._indices is not None:
            chunk = Chunk(self._indices[start : start + most], Label(), start)
        else:
            chunk = Chunk.of(self._inputs(load(most)), Label(first=start), start)
        self._taken = start + len(chunk)
        return chunk or None

    def feed(self) -> Iterator[Any]:
        keys: Iterable[Any] = () if self._puller is None else self._puller.one_by_one()
        for key in keys if self._indices is None else self._indices[self._taken :]:
            self._taken += 1
            yield key

    def _inputs(self, load: Load) -> Load:
        """Return the next inputs, none at the end."""
        if self._puller is None:
            self._pulled = [past(iterable, self._taken) for iterable in self._iterables]
            several = len(self._pulled) > 1
            items = zip(*self._pulled, strict=self._strict) if several else self._pulled[0]
            self._puller = Puller(items, swift=all(map(is_swift, self._pulled)))
        return self._puller.fill(load)

    def turn(self) -> bool:
        return False

    def remaining(self) -> int | None:
        length = self._length()
        return None if length is None else max(0, length - self._taken)

    def _length(self) -> int | None:
        """Return the number of items, where that is known."""
        lengths = [length_of(iterable) for iterable in self._iterables]
        return None if None in lengths else min(length for length in lengths if length is not None)

    def place(self) -> Place:
        return Place(0, self._taken)

    def state(self, place: Place) -> dict[str, Any]:
        return {"epoch": place.epoch, "position": place.position, **self._identity()}

    def resume(self, state: Mapping[str, Any]) -> None:
        check_identity(state, self._identity())
        epoch, position = place_of(state)
        if epoch:
            raise CheckpointError(f"the state is of epoch {epoch}, and ordered_map has but one")
        length = self._length()
        if length is not None and position > length:
            raise CheckpointError(f"the state is of position {position}, and there are {length} items")
        self._taken = position

    def _identity(self) -> dict[str, Any]:
        lengths = [number_of(one) if isinstance(one, Sequence) else None for one in self._iterables]
        return {"lengths": lengths, "seed": self._seed}

    def close(self) -> None:
        if self._indices is not None:
            self._indices = range(0)
            return
        ended = self._puller is not None and self._puller.ended and len(self._pulled) == 1
        self._puller = Puller(())
        pulled, self._pulled = self._pulled, []
        for source in pulled:
            close_source(source, ended=ended)


def _counts_from_0(items: object) -> TypeGuard[range]:
    """Whether each item is its own index."""
    return isinstance(items, range) and items.start == 0 and items.step == 1
