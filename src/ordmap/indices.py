"""Which items, in which order: the source that the window pulls its chunks from."""

from __future__ import annotations

import operator
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from copy import deepcopy
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ordmap.chunk import Chunk, Mark, Place
from ordmap.errors import CheckpointError
from ordmap.item import Label
from ordmap.pulling import Load, Puller, Stream, length_of, past
from ordmap.states import check_identity, keeps_state, mark_of, place_of

if TYPE_CHECKING:
    from ordmap.shuffle import Permutation

__all__ = ["Indices", "Shard", "Source", "check_indices", "hook_of"]


#: Indices after which a sampler that can tell its own state is asked again: that may cost a lot.
_ASK_AGAIN = 256


class Source(Protocol):
    """Where the window's items come from.

    ``may_wait``: taking from it runs somebody's code, which may take its time, or wait for an earlier answer. Where it
    doesn't, a pull that took long was only interrupted.
    """

    may_wait: bool

    @property
    def ready(self) -> bool:
        """Whether something, or the end, can be taken now; only of an asynchronous source it may not."""

    def take(self, most: int, load: Callable[[int], Load] = Load) -> Chunk | None:
        """Return the next chunk of 1 to ``most`` items, or raise what the source raised.

        ``load`` makes what inputs are pulled into. ``None``: there are no more of them, or none before `turn`.
        """

    def turn(self) -> bool:
        """Go on to the next epoch, once all items of this are given out; ``True``: there may be more to take."""

    def remaining(self) -> int | None:
        """Return the number of items not taken yet; ``None`` where that can't be known."""

    def place(self) -> Place:
        """Return the place of the item that is taken next."""

    def state(self, place: Place) -> dict[str, Any]:
        """Return what another source of the same needs to go on from a place: plain values by name."""

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from where another source of the same was; before anything is taken."""

    def close(self) -> None:
        """Take no more, and close what is pulled from."""


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

    @property
    def is_counted(self) -> bool:
        """Whether it takes the number of items in an epoch to know which of them are its own."""
        return self.world > 1 and self.rest != "keep"

    def share(self, order: Iterable[int], start: int) -> Iterable[int]:
        """Return this shard's part of an order that has a length, from a position of that on."""
        self.check(order)
        listed: Any = order if is_listed(order) else list(order)
        return (listed[position % len(listed)] for position in self.positions(len(listed))[start:])

    def check(self, order: object) -> None:
        """Refuse an order whose rest can't be known."""
        if self.is_counted and length_of(order) is None:
            raise TypeError(
                f"the rest {self.rest!r} of a shard needs to know how many indices there are, and {order!r} has no "
                f"length: give a list, or shard=({self.rank}, {self.world}, 'keep')"
            )


class Indices:
    """The indices of a dataset, for ``epochs`` epochs (``None``: for ever); its length is read at the first of them.

    Each epoch is shuffled, if it is to be, in a way that the ``seed`` and its number give; what counts of it is its
    ``shard``. A dataset that has a method ``on_epoch_end`` is told of each, and its length may change then.
    """

    def __init__(
        self,
        dataset: Sized,
        epochs: int | None,
        indices: Iterable[int] | Callable[[int], Iterable[int]] | None = None,
        seed: int | None = None,
        shard: Shard = Shard(),  # noqa: B008  it can't be changed
        *,
        shuffle: bool = False,
    ) -> None:
        self._dataset: Any = dataset
        self._length: int | None = None
        self._epochs = epochs
        self._indices = indices
        self._seed = seed
        self._shuffle = shuffle
        self._drawn = int.from_bytes(os.urandom(8)) if shuffle and seed is None else None  # in the place of a seed
        self._shard = shard
        self._epoch = 0
        self._label = Label()  # of all chunks of this epoch
        self._taken = 0  # of this epoch
        self._is_over = False  # this epoch, of which the dataset hears before the next one begins
        self._closed = False
        self._on_epoch_end = hook_of(dataset)
        self.ready = True
        self.may_wait = not (indices is None or isinstance(indices, Sequence))
        self._order: range | Permutation | Puller[_Numbers] | None = None
        self._bad: tuple[object, Exception] | None = None  # the next index, which was pulled, and is none
        self._sampler: Any = None  # what can tell its state, of this epoch's order
        self._mark: Mark | None = None
        self._resumed = False  # the sampler is yet to be told of the mark

    def take(self, most: int, load: Callable[[int], Load] = Load) -> Chunk | None:
        del load  # an index is a number by the time that the next one is pulled
        if self._length is None:
            self._length = len(self._dataset)
        while not self._closed and not self._is_over and not self._ends_before(self._epoch):
            if self._order is None:
                self._order = self._open(self._length)
            chunk = self._cut(self._order, most, self._length)
            if chunk is not None:
                self._taken += len(chunk)
                self._mark = self._mark and self._mark.later(len(chunk))
                return chunk
            if self._epochs is None and not self._taken:
                self._closed = True
                raise ValueError(f"epoch {self._epoch} has no indices; with epochs=None that would go on for ever")
            if self._on_epoch_end is not None:
                self._is_over = True
            else:
                self._begin_next()
        return None

    def _begin_next(self) -> None:
        self._epoch, self._taken, self._order, self._sampler = self._epoch + 1, 0, None, None
        self._label = Label(self._epoch)
        if self._mark is not None:
            self._mark = None if callable(self._indices) else Mark(self._mark.state, 0, self._mark.anew + 1)

    def turn(self) -> bool:
        if self._closed or not self._is_over or self._on_epoch_end is None:
            return False
        try:
            self._on_epoch_end()
        except StopIteration as error:  # it would silently end the loop
            raise RuntimeError("on_epoch_end raised StopIteration") from error
        self._length = None
        self._begin_next()
        self._is_over = False
        return not self._ends_before(self._epoch)

    def remaining(self) -> int | None:
        if self._closed:
            return 0
        an_epoch = self.length_of_epoch()
        if self._epochs is None or an_epoch is None:
            return None
        return max(0, (self._epochs - self._epoch) * an_epoch - self._taken)

    def place(self) -> Place:
        order = self._order
        if self._sampler is not None and isinstance(order, Puller) and self._taken and not (self._bad or order.ended):
            mark = self._mark
            if mark is None or mark.anew or mark.past >= _ASK_AGAIN:
                self._mark = Mark(deepcopy(self._sampler.state_dict()), 0)
        return Place(self._epoch, self._taken, self._mark)

    def state(self, place: Place) -> dict[str, Any]:
        state = {"epoch": place.epoch, "position": place.position, **self._identity()}
        if place.mark is not None:
            state["sampler"] = list(place.mark)
        if self._on_epoch_end is not None:
            if keeps_state(self._dataset):
                state["dataset"] = deepcopy(self._dataset.state_dict())
            elif place.epoch and not self._ends_before(place.epoch):
                raise self._lost()
        return state

    def _ends_before(self, epoch: int) -> bool:
        return self._epochs is not None and epoch >= self._epochs

    def _lost(self) -> CheckpointError:
        kind = type(self._dataset).__qualname__
        if keeps_state(self._dataset):
            return CheckpointError(f"the state has nothing of what {kind}.on_epoch_end() had changed")
        return CheckpointError(
            f"{kind}.on_epoch_end() was called, and what it has changed is lost with this process: to go on after its "
            f"first epoch {kind} needs methods state_dict() and load_state_dict(state)"
        )

    def resume(self, state: Mapping[str, Any]) -> None:
        ours = self._identity()
        if self._drawn is not None and type(state.get("drawn")) is int:
            ours["drawn"] = state["drawn"]
        changes = self._on_epoch_end is not None and keeps_state(self._dataset) and "dataset" in state
        if changes:
            del ours["length"]  # it may be that of a later epoch
        check_identity(state, ours)
        epoch, position = place_of(state)
        if self._epochs is not None and (epoch, position) > (self._epochs, 0):
            raise CheckpointError(f"the state is of epoch {epoch}, and there are {self._epochs}, from 0 on")
        if changes:
            self._dataset.load_state_dict(deepcopy(state["dataset"]))
            check_identity(state, self._identity() | ours)
        elif epoch and self._on_epoch_end is not None and not self._ends_before(epoch):
            raise self._lost()
        known = self.length_of_epoch()
        if known is not None and position > known:
            raise CheckpointError(f"the state is of position {position} in an epoch of {known} items")
        self._mark = mark_of(state)
        self._epoch, self._taken, self._label = epoch, position, Label(epoch)
        self._resumed = True
        self._drawn = ours["drawn"]

    def _identity(self) -> dict[str, Any]:
        """Return what this source has in common with all that give the same items."""
        order = self._indices
        name = getattr(order, "__qualname__", None) or type(order).__qualname__
        return {
            "length": self._length_of_dataset(),
            "shuffle": self._shuffle,
            "seed": self._seed,
            "drawn": self._drawn,
            "shard": list(self._shard),
            "indices": None if order is None else name,
            "number of indices": None if callable(order) else length_of(order),
        }

    def length_of_epoch(self) -> int | None:
        """Return the number of items in each epoch, where that is known."""
        if callable(self._indices):
            return None
        an_epoch = self._length_of_dataset() if self._indices is None else length_of(self._indices)
        return None if an_epoch is None else len(self._shard.positions(an_epoch))

    def _length_of_dataset(self) -> int:
        return len(self._dataset) if self._length is None else self._length

    def close(self) -> None:
        self._closed = True
        if isinstance(self._order, Puller):
            self._order.close()

    def _open(self, length: int) -> range | Permutation | Puller[_Numbers]:
        if self._shuffle:
            from ordmap.shuffle import Permutation  # most do without

            seed = self._drawn if self._seed is None else self._seed
            return Permutation(length, seed or 0, self._epoch)
        order = self._indices
        if callable(order):
            order = order(self._epoch)
            if not isinstance(order, Iterable):
                raise TypeError(f"indices({self._epoch}) must be an iterable of integers, not {order!r}")
        if order is None:
            return range(length)
        if isinstance(order, range) and (
            not order or 0 <= min(order[0], order[-1]) <= max(order[0], order[-1]) < length
        ):
            return order
        return Puller(self._share(order), owned=order)

    def _share(self, order: Iterable[int]) -> Iterable[int]:
        """Return what is still to come of an order of somebody's, who may know himself how to go on."""
        shard, taken = self._shard, self._taken
        mark = self._mark if self._resumed else None
        self._resumed = False
        if shard.is_counted or is_listed(order):
            self._mark = None
            return shard.share(order, taken)
        iterator, self._sampler = _begun(order, mark)
        if self._sampler is None:
            self._mark = mark = None
        for _ in range(mark.anew if mark is not None else 0):
            deque(iterator, maxlen=0)  # the few that there may be
            iterator, self._sampler = _begun(order, None)
        before, missing = shard.rank, taken
        if mark is not None:
            before, missing = shard.world - 1 if taken > mark.past else shard.rank, mark.past
        return past(islice(iterator, before, None, shard.world), missing)

    def _cut(self, order: range | Permutation | Puller[_Numbers], most: int, length: int) -> Chunk | None:
        """Take a chunk of this epoch's order; ``None``: it is over."""
        taken, label = self._taken, self._label
        if not isinstance(order, Puller):
            positions = self._shard.positions(len(order))[taken : taken + most]
            part = _at(order, positions)
            return Chunk(part, label, taken) if part else None
        place = self.place()
        if self._sampler is not None and place == (0, 0, None):
            most = 1  # it is asked right after, so that what it was at the beginning need not be known
        if self._bad is None:
            found = order.fill(_Numbers(most, length))
            if found.keys:  # these go first
                self._bad = found.bad
                return Chunk(found.keys, label, taken, place.mark)
            if found.bad is None:
                return None
            self._bad = found.bad
        (key, error), self._bad = self._bad, None
        return Chunk([key], label, taken, place.mark, error)


class _Numbers(Load):
    """Indices as they are pulled, up to one that is not valid: ``bad``, with what is wrong with it."""

    __slots__ = ("_length", "bad")

    def __init__(self, most: int, length: int) -> None:
        super().__init__(most)
        self._length = length
        self.bad: tuple[object, Exception] | None = None

    def add(self, stream: Stream, count: int) -> None:
        length, keys = self._length, self.keys
        for key in islice(stream.items, count):
            try:
                keys.append(_checked(key, length))
            except (IndexError, TypeError) as error:
                self.bad = key, error.with_traceback(None)  # whose frames hold this
                self.full = True
                break


def hook_of(dataset: object) -> Callable[[], object] | None:
    """Return what a dataset wants to have called at the end of each epoch, unless that does nothing, as Keras' own."""
    hook = getattr(dataset, "on_epoch_end", None)
    code = getattr(hook, "__code__", None)
    if code is not None and (code.co_code, code.co_consts[-1:]) in _NOTHING:
        return None
    return hook if callable(hook) else None


def _nothing() -> None:
    pass


def _nothing_said() -> None:
    """Do nothing."""


_NOTHING = {(nothing.__code__.co_code, nothing.__code__.co_consts[-1:]) for nothing in (_nothing, _nothing_said)}


def is_listed(order: object) -> bool:
    """Whether the indices of an order are surely had by position."""
    return type(order) in {list, tuple} or type(order).__name__ == "ndarray"


def _begun(order: Iterable[int], mark: Mark | None) -> tuple[Iterator[int], Any]:
    """Begin with a sampler, once, for it may go on to an epoch of its own each time; go on from a mark.

    Return its iterator, and which of the two knows where it is, if any.
    """
    if keeps_state(order):
        if mark is not None:
            order.load_state_dict(deepcopy(mark.state))  # type: ignore[attr-defined]
        return iter(order), order
    iterator = iter(order)
    if not keeps_state(iterator):
        return iterator, None
    if mark is not None:
        iterator.load_state_dict(deepcopy(mark.state))  # type: ignore[attr-defined]
    return iterator, iterator


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
        number = None
    if number is None:  # raised out here, for an error's context holds frames, too
        raise TypeError(f"an index must be an integer, not {index!r}")
    if number < 0:
        raise IndexError(
            f"index {number} is negative: count from the front, {number} + len(dataset) = {number + length}"
        )
    if number >= length:
        raise IndexError(f"index {number} is out of range: the dataset has {length} items, 0 to {length - 1}")
    return number
