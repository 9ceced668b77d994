"""Which items, in which order: the source that the window pulls its chunks from."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from copy import deepcopy
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ordmap.chunk import REMEMBERED, Chunk, Given, Mark, Place
from ordmap.dataset import number_of
from ordmap.errors import CheckpointError
from ordmap.hooks import BEGIN, END, call_hook, hook_of
from ordmap.item import Label
from ordmap.listed import Listed, checked, digest, is_listed, listed, sound
from ordmap.pulling import Load, Puller, Stream, length_of
from ordmap.samplers import Sampler, check_given, passed
from ordmap.states import check_identity, given_of, keeps_state, mark_of, place_of, plain, views_of

if TYPE_CHECKING:
    from ordmap.shuffle import Permutation

__all__ = ["Indices", "Shard", "Source"]


#: Chunks of a sampler that are kept for what it gave last: to note that alone with each would take longer.
_LINKS = 32

#: Indices after which a sampler that can tell its own state is asked again: that may cost a lot.
_ASK_AGAIN = 256

#: Indices that are had from a range or a permutation at once, where each is used by itself.
_AT_ONCE = 256


class Source(Protocol):
    """Where the window's items come from.

    ``may_wait``: taking from it runs somebody's code, which may take its time, or wait for an earlier answer. Where it
    doesn't, a pull that took long was only interrupted.
    """

    may_wait: bool

    @property
    def ready(self) -> bool:
        """Whether something, or the end, can be taken now; only of an asynchronous source it may not."""

    def begin(self) -> bool:
        """Say that the first item is about to be taken; ``True``: that has changed what items are computed of."""

    def take(self, most: int, load: Callable[[int], Load] = Load) -> Chunk | None:
        """Return the next chunk of 1 to ``most`` items, or raise what the source raised.

        ``load`` makes what inputs are pulled into. ``None``: there are no more of them, or none before `turn`.
        """

    def feed(self) -> Iterator[Any]:
        """Give the keys that follow, each taken when it is asked for; at their end, `take` goes on, or says why."""

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
    ``shard``. A dataset that has a method ``on_epoch_begin`` or ``on_epoch_end`` is told of each, and its length may
    change then.
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
        self._sampler = None if indices is None or is_listed(indices) or callable(indices) else Sampler(indices)
        self._seed = seed
        self._shuffle = shuffle
        self._drawn = int.from_bytes(os.urandom(8)) if shuffle and seed is None else None  # in the place of a seed
        self._shard = shard
        self._epoch = 0
        self._label = Label()  # of all chunks of this epoch
        self._taken = 0  # of this epoch
        self._is_over = False  # this epoch, of which the dataset hears before the next one begins
        self._closed = False
        self._on_epoch_begin = hook_of(dataset, BEGIN)
        self._on_epoch_end = hook_of(dataset, END)
        self._is_told = self._on_epoch_begin is not None or self._on_epoch_end is not None
        self._has_begun = False  # this epoch, and the dataset was told
        self.ready = True
        self.may_wait = not (indices is None or is_listed(indices) or isinstance(indices, Sequence))
        self._order: range | Permutation | Listed | Puller[_Numbers] | None = None
        self._positions = range(0)  # in it, of this shard, where it doesn't change
        self._teller: Any = None  # what can tell its state, of this epoch's order
        self._bad: tuple[object, Exception] | None = None  # the next index, which was pulled, and is none
        self._mark: Mark | None = None
        # What the caller's code has drawn last: the last chunk, which knows the one before it, and so on for some.
        self._last: Chunk | Given | None = Given(0, 0, ()) if self._is_drawn else None
        self._links = 0
        self._resumed = False  # the sampler is yet to be told of the mark, or gone through
        self._fingerprint: dict[str, Any] | None = None

    @property
    def _is_drawn(self) -> bool:
        """Whether the caller's code draws the indices, each epoch anew."""
        return self._sampler is not None or callable(self._indices)

    def begin(self) -> bool:
        if self._on_epoch_begin is None or self._has_begun or self._closed or self._ends_before(self._epoch):
            return False
        call_hook(BEGIN, self._on_epoch_begin)
        self._has_begun = True
        return True

    def take(self, most: int, load: Callable[[int], Load] = Load) -> Chunk | None:
        del load  # an index is a number by the time that the next one is pulled
        if self._length is None:
            self._length = number_of(self._dataset)
        while not self._closed and not self._is_over and not self._ends_before(self._epoch):
            if self._order is None:
                self._order = self._open(self._length)
            chunk = self._cut(self._order, most, self._length)
            if chunk is not None:
                self._taken += len(chunk)
                self._mark = self._mark and self._mark.later(len(chunk))
                if self._last is not None:
                    self._links = (self._links + 1) % _LINKS
                    self._last = chunk if self._links else chunk.given_after(len(chunk))
                return chunk
            if self._epochs is None and not self._taken:
                self._closed = True
                raise ValueError(f"epoch {self._epoch} has no indices; with epochs=None that would go on for ever")
            if self._is_told:
                self._is_over = True
            else:
                self._begin_next()
        return None

    def feed(self) -> Iterator[int]:
        order, length = self._order, self._length
        if order is None or length is None or self._closed or isinstance(order, Puller) or self._is_drawn:
            return  # of what is drawn `take` has to note what was given last
        while (chunk := self._cut(order, _AT_ONCE, length)) is not None:
            for key in chunk.keys:
                self._taken += 1
                yield key

    def _begin_next(self) -> None:
        self._epoch, self._taken, self._order, self._teller = self._epoch + 1, 0, None, None
        self._label = Label(self._epoch)
        if self._mark is not None:
            self._mark = None if callable(self._indices) else Mark(self._mark.state, 0, self._mark.anew + 1)

    def turn(self) -> bool:
        if self._closed or not self._is_over:
            return False
        if self._on_epoch_end is not None:
            call_hook(END, self._on_epoch_end)
        self._length = self._fingerprint = None
        self._begin_next()
        self._is_over = self._has_begun = False
        if self._ends_before(self._epoch):
            return False
        self.begin()
        return True

    def remaining(self) -> int | None:
        if self._closed:
            return 0
        an_epoch = self.length_of_epoch()
        if self._epochs is None or an_epoch is None:
            return None
        return max(0, (self._epochs - self._epoch) * an_epoch - self._taken)

    def place(self) -> Place:
        last = self._last
        given = last.given_after(len(last)) if isinstance(last, Chunk) else last
        return Place(self._epoch, self._taken, self._marked(), given)

    def _marked(self) -> Mark | None:
        """Return where a sampler was that knows its own state, which is asked now and then."""
        order = self._order
        if self._teller is not None and isinstance(order, Puller) and self._taken and not (self._bad or order.ended):
            mark = self._mark
            if mark is None or mark.anew or mark.past >= _ASK_AGAIN:
                self._mark = Mark(deepcopy(self._teller.state_dict()), 0)
        return self._mark

    def state(self, place: Place) -> dict[str, Any]:
        state = {"epoch": place.epoch, "position": place.position, **self._identity()}
        if place.mark is not None:
            state["sampler"] = list(place.mark)
        if place.given is not None:
            state["given"] = [place.given.epoch, place.given.position, plain(place.given.indices)]
        if self._is_told:
            if keeps_state(self._dataset):
                state["dataset"] = deepcopy(self._dataset.state_dict())
                state["begun"] = self._has_begun and place.epoch == self._epoch
            elif place.epoch and not self._ends_before(place.epoch):
                raise self._lost()
        return state

    def _ends_before(self, epoch: int) -> bool:
        return self._epochs is not None and epoch >= self._epochs

    def _lost(self) -> CheckpointError:
        kind = type(self._dataset).__qualname__
        name = BEGIN if self._on_epoch_end is None else END
        if keeps_state(self._dataset):
            return CheckpointError(f"the state has nothing of what {kind}.{name}() had changed")
        return CheckpointError(
            f"{kind}.{name}() was called, and what it has changed is lost with this process: to go on after its "
            f"first epoch {kind} needs methods state_dict() and load_state_dict(state)"
        )

    def resume(self, state: Mapping[str, Any]) -> None:
        ours = self._identity()
        if self._drawn is not None and type(state.get("drawn")) is int:
            ours["drawn"] = state["drawn"]
        if is_listed(self._indices) and isinstance(state.get("digest of indices"), str) and state.get("indices"):
            del ours["indices"]  # whatever holds them
        changes = self._is_told and keeps_state(self._dataset) and "dataset" in state
        later = {name: ours.pop(name) for name in ("length", "views", "digest of indices") if changes}
        check_identity(state, ours)
        epoch, position = place_of(state)
        if self._epochs is not None and (epoch, position) > (self._epochs, 0):
            raise CheckpointError(f"the state is of epoch {epoch}, and there are {self._epochs}, from 0 on")
        if changes:  # it may be as a later epoch has it
            self._dataset.load_state_dict(deepcopy(state["dataset"]))
            self._fingerprint = None
            found = self._identity()
            check_identity(state, {name: found[name] for name in later})
        elif epoch and self._is_told and not self._ends_before(epoch):
            raise self._lost()
        known = self.length_of_epoch()
        if known is not None and position > known:
            raise CheckpointError(f"the state is of position {position} in an epoch of {known} items")
        self._go_to(epoch, position, mark_of(state), given_of(state))
        self._has_begun = changes and state.get("begun") is True
        self._drawn = ours["drawn"]

    def _go_to(self, epoch: int, position: int, mark: Mark | None, given: Given | None) -> None:
        """Go on from a place; a sampler that keeps no state, and can be begun, goes through what it gave before."""
        if not self._is_drawn:
            given = None
        elif given is None:
            given = Given(epoch, position, ())
        if self._order is not None and self._sampler is not None:
            if (epoch, position, given) != (self._epoch, self._taken, self._last):
                raise CheckpointError("the sampler was gone through for another state: load this into a new iterator")
            return
        before = self._epoch, self._taken, self._label, self._mark, self._last
        self._epoch, self._taken, self._label, self._mark, self._last = epoch, position, Label(epoch), mark, given
        self._order, self._resumed = None, True
        if not self._is_drawn or mark is not None or hasattr(self._indices, "__next__") or self._ends_before(epoch):
            return
        if epoch or position:
            try:
                self._order = self._open(self._length_of_dataset())
            except BaseException:
                self._epoch, self._taken, self._label, self._mark, self._last = before
                raise

    def _identity(self) -> dict[str, Any]:
        """Return what this source has in common with all that give the same items."""
        order = self._indices
        name = getattr(order, "__qualname__", None) or type(order).__qualname__
        if self._fingerprint is None:
            self._fingerprint = {
                "digest of indices": digest(order) if is_listed(order) else None,
                "views": views_of(self._dataset),
            }
        return {
            "length": self._length_of_dataset(),
            "shuffle": self._shuffle,
            "seed": self._seed,
            "drawn": self._drawn,
            "shard": list(self._shard),
            "indices": None if order is None else name,
            "number of indices": None if callable(order) else length_of(order),
            **self._fingerprint,
        }

    def length_of_epoch(self) -> int | None:
        """Return the number of items in each epoch, where that is known."""
        if callable(self._indices):
            return None
        an_epoch = self._length_of_dataset() if self._indices is None else length_of(self._indices)
        return None if an_epoch is None else number_of(self._shard.positions(an_epoch))

    def _length_of_dataset(self) -> int:
        return number_of(self._dataset) if self._length is None else self._length

    def close(self) -> None:
        self._closed = True
        if isinstance(self._order, Puller):
            self._order.close()

    def _open(self, items: int) -> range | Permutation | Listed | Puller[_Numbers]:
        """Return the order of this epoch; one that is pulled from begins at the place that is taken next."""
        order = self._indices
        if self._shuffle:
            from ordmap.shuffle import Permutation  # most do without

            seed = self._drawn if self._seed is None else self._seed
            self._positions = self._shard.positions(items)
            return Permutation(items, seed or 0, self._epoch)
        if order is None:
            self._positions = self._shard.positions(items)
            return range(items)
        if not self._is_drawn:
            within = isinstance(order, range) and (
                not order or 0 <= min(order[0], order[-1]) <= max(order[0], order[-1]) < items
            )
            if not within:
                return Listed(order)
            self._positions = self._shard.positions(number_of(order))
            return order  # type: ignore[return-value]
        part, owner = self._begun(self._epoch) if not self._resumed else self._gone_on()
        if self._teller is None:
            self._mark = None
        return part if isinstance(part, Listed) else Puller(part, owned=owner)

    def _begun(self, epoch: int, mark: Mark | None = None) -> tuple[Listed | Iterator[int], object]:
        """Begin what is drawn for an epoch, and return it, and its owner; of what is pulled from, this shard's part."""
        order: Any = self._indices
        sampler, shard = self._sampler, self._shard
        self._teller = None
        if sampler is None:
            order, number = listed(order(epoch)), epoch
            if is_listed(order):
                return Listed(order), None
            if not isinstance(order, Iterable):
                raise TypeError(f"indices({number}) must be an iterable of integers, not {order!r}")
            sampler, epoch = Sampler(order), 0
        if shard.is_counted:
            shard.check(order)
            return Listed(list(sampler.begin(epoch)[0])), None
        iterator, self._teller = sampler.begin(epoch, mark)
        before = shard.world - 1 if mark is not None and self._taken > mark.past else shard.rank
        return islice(iterator, before, None, shard.world), order

    def _gone_on(self) -> tuple[Listed | Iterator[int], object]:
        """Begin where the iterator is resumed, past what comes before that, which has to be what was given before."""
        mark, first = self._mark, 0
        given = self._last if isinstance(self._last, Given) else None
        if mark is not None:
            first = self._epoch - mark.anew
        elif self._sampler is None:
            first = self._epoch if given is None else given.epoch
        for epoch in range(first, self._epoch):
            part, _ = self._begun(epoch, mark)
            self._go_past(part, epoch, given if mark is None else None)
            mark = None
        part, owner = self._begun(self._epoch, mark)
        self._go_past(part, self._epoch, given, self._taken if mark is None else mark.past)
        self._resumed = False
        return part, owner

    def _go_past(self, part: Listed | Iterator[int], epoch: int, given: Given | None, most: int | None = None) -> None:
        """Go past all that is drawn for an epoch, or so many before the place that is taken next."""
        if isinstance(part, Listed):
            positions = self._shard.positions(len(part))[:most]
            count, last = len(positions), _at(part, positions[-REMEMBERED:])
        else:
            count, last = passed(part, most)
        stop = count if most is None else self._taken
        if most is not None and count < most:
            raise CheckpointError(f"the state is of position {stop}, and there are {stop - most + count} items")
        if given is not None:
            check_given(given, epoch, stop, last)

    def _cut(self, order: range | Permutation | Listed | Puller[_Numbers], most: int, items: int) -> Chunk | None:
        """Take a chunk of this epoch's order; ``None``: it is over."""
        taken, label = self._taken, self._label
        keys: Sequence[int]
        if not isinstance(order, Puller):
            if not isinstance(order, Listed):
                keys = _at(order, self._positions[taken : taken + most])
                return Chunk(keys, label, taken) if keys else None
            keys = _at(order, self._shard.positions(len(order))[taken : taken + most])
            if not keys:
                return None
            keys, error = sound(keys, items)
            return Chunk(keys, label, taken, None, error, self._last)
        mark = self._marked()
        if self._teller is not None and mark is None and not (taken or self._epoch):
            most = 1  # it is asked right after, so that what it was at the beginning need not be known
        if self._bad is None:
            found = order.fill(_Numbers(most, items))
            if found.keys:  # these go first
                self._bad = found.bad
                return Chunk(found.keys, label, taken, mark, None, self._last)
            if found.bad is None:
                return None
            self._bad = found.bad
        (key, error), self._bad = self._bad, None
        return Chunk([key], label, taken, mark, error, self._last)


class _Numbers(Load):
    """Indices as they are pulled, up to one that is not valid: ``bad``, with what is wrong with it."""

    __slots__ = ("_items", "bad")

    def __init__(self, most: int, items: int) -> None:
        super().__init__(most)
        self._items = items
        self.bad: tuple[object, Exception] | None = None

    def add(self, stream: Stream, count: int) -> None:
        items, keys = self._items, self.keys
        for key in islice(stream.items, count):
            try:
                keys.append(key if type(key) is int and 0 <= key < items else checked(key, items))
            except (IndexError, TypeError) as error:
                self.bad = key, error.with_traceback(None)  # whose frames hold this
                self.full = True
                break


def _at(order: range | Permutation | Listed, positions: range) -> Sequence[int]:
    """Return what stands at these positions of an order; at those beyond it, it begins anew."""
    items = number_of(order)
    if positions and positions[-1] >= items:
        within = range(positions.start, items, positions.step)
        anew = (position % items for position in positions[len(within) :])
        return [*_at(order, within), *(_at(order, range(position, position + 1))[0] for position in anew)]
    if isinstance(order, range):
        return order[positions.start : positions.stop : positions.step]
    return order.at(positions)
