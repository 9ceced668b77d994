"""Which items, in which order: the source that the window pulls its chunks from."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence, Sized
from typing import Any, Protocol

from ordmap.interrupts import came_by_a_signal

__all__ = ["Arguments", "Chunk", "Indices", "Source", "check_indices"]

#: Once the pulls for a chunk have taken this long (seconds) the source is slow: what there is goes to the workers.
_SLOW = 0.001


class Chunk:
    """Some items that follow each other: what the dataset (or function) is called with, and their indices.

    ``error`` is set for an item that can't be computed, since its index is not valid: a chunk of one.
    """

    __slots__ = ("epoch", "error", "indices", "keys")

    def __init__(
        self, keys: Sequence[Any], indices: Sequence[int], epoch: int = 0, error: Exception | None = None
    ) -> None:
        self.keys = keys
        self.indices = indices
        self.epoch = epoch
        self.error = error

    def __len__(self) -> int:
        return len(self.keys)

    def part(self, start: int, stop: int) -> Chunk:
        """Return some of the items, as a chunk of their own."""
        return Chunk(self.keys[start:stop], self.indices[start:stop], self.epoch)

    def rest(self, done: int, size: int) -> list[Chunk]:
        """Return what is left after ``done`` items, in chunks of at most ``size``."""
        return [self.part(start, start + size) for start in range(done, len(self), size)]


class Source(Protocol):
    """Where the window's items come from.

    ``may_wait``: taking from it runs somebody's code, which may take its time, or wait for an earlier answer. Where it
    doesn't, a pull that took long was only interrupted.
    """

    may_wait: bool

    def take(self, most: int) -> Chunk | None:
        """Return the next chunk of 1 to ``most`` items, ``None`` at the end, or raise what the source raised."""

    def remaining(self) -> int | None:
        """Return the number of items not taken yet; ``None`` where that can't be known."""

    def close(self) -> None:
        """Take no more, and close what is pulled from."""


class _Puller:
    """Pulls from an iterable, no further than asked; what it raises comes after what it gave before."""

    def __init__(self, items: Iterable[Any]) -> None:
        from more_itertools import peekable  # a range of indices does without

        self._source = iter(items)
        self._error: Exception | None = None
        self._items = peekable(self)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        """Return the source's next item, for the pulls; what it raises ends it, but not what comes from elsewhere."""
        try:
            return next(self._source)
        except StopIteration:
            raise
        except Exception as error:
            if came_by_a_signal(error):
                raise
            self._error = error
            self._source = iter(())
            raise StopIteration from None

    def pull(self, most: int) -> list[Any]:
        """Return the next 1 to ``most`` items, none at the end, or raise what the source raised."""
        pulled: list[Any] = []
        slow = time.perf_counter() + _SLOW
        for item in self._items:
            pulled.append(item)
            if len(pulled) == most or time.perf_counter() > slow:
                break
        if not pulled and self._error is not None:
            error, self._error = self._error, None
            raise error
        return pulled

    def put_back(self, items: Sequence[Any]) -> None:
        self._items.prepend(*items)

    def close(self) -> None:
        """Close the source where it can be closed, as a generator can."""
        self._error = None
        self._items = self._items.__class__(())
        close_generator(self._source)


class Indices:
    """The indices of a dataset, for ``epochs`` epochs (``None``: for ever); its length is read at the first of them."""

    def __init__(
        self,
        dataset: Sized,
        epochs: int | None,
        indices: Iterable[int] | Callable[[int], Iterable[int]] | None = None,
    ) -> None:
        self._dataset = dataset
        self._length: int | None = None
        self._epochs = epochs
        self._indices = indices
        self._epoch = 0
        self._taken = 0  # of this epoch
        self.may_wait = not (indices is None or isinstance(indices, Sequence))
        self._order: range | _Puller | None = None

    def take(self, most: int) -> Chunk | None:
        if self._length is None:
            self._length = len(self._dataset)
        while self._epochs is None or self._epoch < self._epochs:
            if self._order is None:
                self._order = self._open(self._length)
            chunk = self._cut(self._order, most, self._length)
            if chunk is not None:
                self._taken += len(chunk)
                return chunk
            if self._epochs is None and not self._taken:
                self._epochs = 0
                raise ValueError(f"epoch {self._epoch} has no indices; with epochs=None that would go on for ever")
            self._epoch += 1
            self._taken = 0
            self._order = None
        return None

    def remaining(self) -> int | None:
        if self._epochs is None:
            return None
        if self._indices is None:
            an_epoch = len(self._dataset) if self._length is None else self._length
        elif not callable(self._indices) and isinstance(self._indices, Sized):
            an_epoch = len(self._indices)
        else:
            return None
        return max(0, (self._epochs - self._epoch) * an_epoch - self._taken)

    def close(self) -> None:
        self._epochs = 0
        if isinstance(self._order, _Puller):
            self._order.close()

    def _open(self, length: int) -> range | _Puller:
        order = self._indices
        if callable(order):
            order = order(self._epoch)
            if not isinstance(order, Iterable):
                raise TypeError(f"indices({self._epoch}) must be an iterable of integers, not {order!r}")
        if order is None:
            return range(length)
        if isinstance(order, range):
            check_indices(order, length)
            return order
        return _Puller(order)

    def _cut(self, order: range | _Puller, most: int, length: int) -> Chunk | None:
        """Take a chunk of this epoch's order; ``None``: it is over."""
        if isinstance(order, range):
            part = order[self._taken : self._taken + most]
            return Chunk(part, part, self._epoch) if part else None
        given = order.pull(most)
        keys: list[int] = []
        for key in given:
            try:
                keys.append(_checked(key, length))
            except (IndexError, TypeError) as error:
                if keys:  # these go first; the bad one is looked at again, alone
                    order.put_back(given[len(keys) :])
                    break
                order.put_back(given[1:])
                return Chunk(given[:1], given[:1], self._epoch, error)
        return Chunk(keys, keys, self._epoch) if keys else None


class Arguments:
    """The argument tuples of a function: items of several iterables in step, numbered from 0."""

    def __init__(self, iterables: Sequence[Iterable[Any]], *, strict: bool) -> None:
        self._iterables = iterables
        self._strict = strict
        self._pulled: list[Iterator[Any]] = []
        self._puller: _Puller | None = None
        self._taken = 0
        self.may_wait = not all(isinstance(iterable, Sequence) for iterable in iterables)

    def take(self, most: int) -> Chunk | None:
        if self._puller is None:
            self._pulled = [iter(iterable) for iterable in self._iterables]
            self._puller = _Puller(zip(*self._pulled, strict=self._strict))
        keys = self._puller.pull(most)
        if not keys:
            return None
        start, self._taken = self._taken, self._taken + len(keys)
        return Chunk(keys, range(start, self._taken))

    def remaining(self) -> int | None:
        if not all(isinstance(iterable, Sized) for iterable in self._iterables):
            return None
        return max(0, min(len(iterable) for iterable in self._iterables if isinstance(iterable, Sized)) - self._taken)

    def close(self) -> None:
        self._puller = _Puller(())
        pulled, self._pulled = self._pulled, []
        for source in pulled:
            close_generator(source)


def close_generator(source: object) -> None:
    """Close a generator that is gone through no further; anything else, such as a file, is its owner's to close."""
    if isinstance(source, Generator):
        source.close()


def check_indices(indices: Sequence[int], length: int) -> None:
    """Refuse an index that is not in ``range(length)``: `IndexError`; or no integer at all: `TypeError`."""
    ends = indices if not isinstance(indices, range) else [*indices[:1], *indices[-1:]]
    for index in ends:
        _checked(index, length)


def _checked(index: object, length: int) -> int:
    if isinstance(index, bool) or type(index).__name__ in {"bool_", "bool"}:
        raise TypeError(f"an index must be an integer, not {index!r}: of a mask, give the positions")
    try:
        number = operator.index(index)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"an index must be an integer, not {index!r}") from None
    if number < 0:
        raise IndexError(
            f"index {number} is negative: count from the front, {number} + len(dataset) = {number + length}"
        )
    if number >= length:
        raise IndexError(f"index {number} is out of range: the dataset has {length} items, 0 to {length - 1}")
    return number
