"""Which items, in which order: the source that the window pulls its chunks from."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence, Sized
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ordmap.errors import CheckpointError
from ordmap.interrupts import came_by_a_signal

if TYPE_CHECKING:
    from ordmap.shuffle import Permutation

__all__ = ["Arguments", "Chunk", "Indices", "Place", "Shard", "Source", "check_indices"]

#: Once the pulls for a chunk have taken this long (seconds) the source is slow: what there is goes to the workers.
_SLOW = 0.001


class Place(NamedTuple):
    """Which item: the ``position``-th of an epoch, counted from 0; there may be none there, at the end."""

    epoch: int
    position: int


class Chunk:
    """Some items that follow each other: what the dataset (or function) is called with, and their indices.

    ``start`` is the position of the first in its epoch. ``error`` is set for an item that can't be computed, since its
    index is not valid: a chunk of one.
    """

    __slots__ = ("epoch", "error", "indices", "keys", "start")

    def __init__(
        self, keys: Sequence[Any], indices: Sequence[int], start: int, epoch: int = 0, error: Exception | None = None
    ) -> None:
        self.keys = keys
        self.indices = indices
        self.start = start
        self.epoch = epoch
        self.error = error

    def __len__(self) -> int:
        return len(self.keys)

    def part(self, start: int, stop: int) -> Chunk:
        """Return some of the items, as a chunk of their own."""
        return Chunk(self.keys[start:stop], self.indices[start:stop], self.start + start, self.epoch)

    def rest(self, done: int, size: int) -> list[Chunk]:
        """Return what is left after ``done`` items, in chunks of at most ``size``."""
        return [self.part(start, start + size) for start in range(done, len(self), size)]


class Source(Protocol):
    """Where the window's items come from.

    ``by_chance``: what of its identity was drawn here, and may be another's. ``may_wait``: taking from it runs
    somebody's code, which may take its time, or wait for an earlier answer. Where it doesn't, a pull that took long was
    only interrupted.
    """

    by_chance: frozenset[str]
    may_wait: bool

    def take(self, most: int) -> Chunk | None:
        """Return the next chunk of 1 to ``most`` items, ``None`` at the end, or raise what the source raised."""

    def remaining(self) -> int | None:
        """Return the number of items not taken yet; ``None`` where that can't be known."""

    def place(self) -> Place:
        """Return the place of the item that is taken next."""

    def resume(self, place: Place, identity: Mapping[str, Any]) -> None:
        """Go on from a place of a source with that identity; before anything is taken."""

    def identity(self) -> dict[str, Any]:
        """Return what this source has in common with all that give the same items: plain values by name."""

    def close(self) -> None:
        """Take no more, and close what is pulled from."""


class _Puller:
    """Pulls from an iterable, no further than asked; what it raises comes after what it gave before.

    ``owned``: a generator that stands behind it, and is closed with it.
    """

    def __init__(self, items: Iterable[Any], owned: object = None) -> None:
        from more_itertools import peekable  # a range of indices does without

        self._source = iter(items)
        self._owned = owned
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
        """Pull no more, and close what is owned."""
        self._error = None
        self._items = self._items.__class__(())
        close_generator(self._owned)


class Shard(NamedTuple):
    """Every ``world``-th position of an epoch, from ``rank`` on. ``rest``: what becomes of an uneven one.

    ``"keep"``: some shards have one more; ``"drop"``: the last few of the epoch are left out; ``"pad"``: the first few
    stand at its end once more.
    """

    rank: int = 0
    world: int = 1
    rest: str = "keep"

    def positions(self, length: int) -> range:
        """Return the positions in an epoch of this length, as those of a longer one that begins anew where padded."""
        uneven = length % self.world
        if self.rest == "drop":
            length -= uneven
        elif self.rest == "pad" and uneven:
            length += self.world - uneven
        return range(self.rank, length, self.world)

    def share(self, order: Iterable[int], start: int) -> Iterable[int]:
        """Return this shard's part of an order of somebody's, from a position of that on."""
        kind = type(order)
        listed: Any = order
        if kind not in {list, tuple} and kind.__name__ != "ndarray":  # which alone are surely had by position
            if self.world == 1 or self.rest == "keep":
                return _past(islice(order, self.rank, None, self.world), start)
            self.check(order)
            listed = list(order)
        return (listed[position % len(listed)] for position in self.positions(len(listed))[start:])

    def check(self, order: object) -> None:
        """Refuse an order whose rest can't be known."""
        if self.world > 1 and self.rest != "keep" and _length(order) is None:
            raise TypeError(
                f"the rest {self.rest!r} of a shard needs to know how many indices there are, and {order!r} has no "
                f"length: give a list, or shard=({self.rank}, {self.world}, 'keep')"
            )


class Indices:
    """The indices of a dataset, for ``epochs`` epochs (``None``: for ever); its length is read at the first of them.

    With a ``seed``, maybe one drawn ``by_chance``, each epoch is shuffled, in a way that this and its number give; what
    counts of an epoch is its ``shard``.
    """

    def __init__(
        self,
        dataset: Sized,
        epochs: int | None,
        indices: Iterable[int] | Callable[[int], Iterable[int]] | None = None,
        seed: int | None = None,
        shard: Shard = Shard(),  # noqa: B008  it can't be changed
        *,
        by_chance: bool = False,
    ) -> None:
        self._dataset = dataset
        self._length: int | None = None
        self._epochs = epochs
        self._indices = indices
        self._seed = seed
        self._shard = shard
        self.by_chance = frozenset({"seed"}) if by_chance and seed is not None else frozenset()
        self._epoch = 0
        self._taken = 0  # of this epoch
        self.may_wait = not (indices is None or isinstance(indices, Sequence))
        self._order: range | Permutation | _Puller | None = None

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
            self._epoch, self._taken, self._order = self._epoch + 1, 0, None
        return None

    def remaining(self) -> int | None:
        an_epoch = self.length_of_epoch()
        if self._epochs is None or an_epoch is None:
            return None
        return max(0, (self._epochs - self._epoch) * an_epoch - self._taken)

    def place(self) -> Place:
        return Place(self._epoch, self._taken)

    def resume(self, place: Place, identity: Mapping[str, Any]) -> None:
        if self._epochs is not None and place > (self._epochs, 0):
            raise CheckpointError(f"the state is of epoch {place.epoch}, and there are {self._epochs}, from 0 on")
        known = self.length_of_epoch()
        if known is not None and place.position > known:
            raise CheckpointError(f"the state is of position {place.position} in an epoch of {known} items")
        self._epoch, self._taken = place
        if self.by_chance:
            self._seed = identity["seed"]

    def identity(self) -> dict[str, Any]:
        order = self._indices
        name = getattr(order, "__qualname__", None) or type(order).__qualname__
        return {
            "length": self._length_of_dataset(),
            "seed": self._seed,
            "shard": list(self._shard),
            "indices": None if order is None else name,
            "number of indices": None if callable(order) else _length(order),
        }

    def length_of_epoch(self) -> int | None:
        """Return the number of items in each epoch, where that is known."""
        if callable(self._indices):
            return None
        an_epoch = self._length_of_dataset() if self._indices is None else _length(self._indices)
        return None if an_epoch is None else len(self._shard.positions(an_epoch))

    def _length_of_dataset(self) -> int:
        return len(self._dataset) if self._length is None else self._length

    def close(self) -> None:
        self._epochs = 0
        if isinstance(self._order, _Puller):
            self._order.close()

    def _open(self, length: int) -> range | Permutation | _Puller:
        if self._seed is not None:
            from ordmap.shuffle import Permutation  # most do without

            return Permutation(length, self._seed, self._epoch)
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
        return _Puller(self._shard.share(order, self._taken), owned=order)

    def _cut(self, order: range | Permutation | _Puller, most: int, length: int) -> Chunk | None:
        """Take a chunk of this epoch's order; ``None``: it is over."""
        if not isinstance(order, _Puller):
            positions = self._shard.positions(len(order))[self._taken : self._taken + most]
            part = _at(order, positions)
            return Chunk(part, part, self._taken, self._epoch) if part else None
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
                return Chunk(given[:1], given[:1], self._taken, self._epoch, error)
        return Chunk(keys, keys, self._taken, self._epoch) if keys else None


def _at(order: range | Permutation, positions: range) -> Sequence[int]:
    """Return what stands at these positions of an order; at those beyond it, it begins anew."""
    length = len(order)
    if positions and positions[-1] >= length:
        within = range(positions.start, length, positions.step)
        anew = (position % length for position in positions[len(within) :])
        return [*_at(order, within), *(_at(order, range(position, position + 1))[0] for position in anew)]
    if isinstance(order, range):
        return order[positions.start : positions.stop : positions.step]
    return order.at(positions)


class Arguments:
    """The argument tuples of a function: items of several iterables in step, numbered from 0."""

    def __init__(self, iterables: Sequence[Iterable[Any]], *, strict: bool) -> None:
        self.by_chance: frozenset[str] = frozenset()
        self._iterables = iterables
        self._strict = strict
        self._pulled: list[Iterator[Any]] = []
        self._puller: _Puller | None = None
        self._taken = 0
        self.may_wait = not all(isinstance(iterable, Sequence) for iterable in iterables)

    def take(self, most: int) -> Chunk | None:
        if self._puller is None:
            self._pulled = [_past(iterable, self._taken) for iterable in self._iterables]
            self._puller = _Puller(zip(*self._pulled, strict=self._strict))
        keys = self._puller.pull(most)
        if not keys:
            return None
        start, self._taken = self._taken, self._taken + len(keys)
        return Chunk(keys, range(start, self._taken), start)

    def remaining(self) -> int | None:
        length = self._length()
        return None if length is None else max(0, length - self._taken)

    def _length(self) -> int | None:
        """Return the number of items, where that is known."""
        lengths = [_length(iterable) for iterable in self._iterables]
        return None if None in lengths else min(length for length in lengths if length is not None)

    def place(self) -> Place:
        return Place(0, self._taken)

    def resume(self, place: Place, identity: Mapping[str, Any]) -> None:
        del identity
        if place.epoch:
            raise CheckpointError(f"the state is of epoch {place.epoch}, and ordered_map has but one")
        length = self._length()
        if length is not None and place.position > length:
            raise CheckpointError(f"the state is of position {place.position}, and there are {length} items")
        self._taken = place.position

    def identity(self) -> dict[str, Any]:
        lengths = [len(one) if isinstance(one, Sequence) else None for one in self._iterables]
        return {"lengths": lengths}

    def close(self) -> None:
        self._puller = _Puller(())
        pulled, self._pulled = self._pulled, []
        for source in pulled:
            close_generator(source)


def _length(items: object) -> int | None:
    """Return how many items there are; ``None``: that can't be known, or changes as they are taken."""
    if not isinstance(items, Sized) or isinstance(items, Iterator):
        return None
    try:
        return len(items)
    except (TypeError, NotImplementedError):
        return None


def _past(items: Iterable[Any], start: int) -> Iterator[Any]:
    """Return an iterator over some items from a position on: those before it are not looked at, where that can be."""
    iterator: Any = iter(items)
    if type(items) in {list, tuple, range, str, bytes}:
        iterator.__setstate__(start)
        return iterator  # type: ignore[no-any-return]
    passed = sum(1 for _ in islice(iterator, start))
    if passed < start:
        raise CheckpointError(f"the state is of position {start}, and there are {passed} items")
    return iterator  # type: ignore[no-any-return]


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
