"""Orders that the caller's code draws: samplers, which are begun anew each epoch, and gone through again to go on.

What a sampler gives in an epoch may depend on how often it was begun before (a generator of random numbers goes on).
So going on in a later epoch goes through the earlier ones first, unless the sampler keeps its own state, or is a
function of the epoch. What it had given last before the state was taken must come again then: else it is another
sampler, or one without a seed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from copy import deepcopy
from itertools import count, islice
from typing import Any

from ordmap.chunk import REMEMBERED, Given, Mark
from ordmap.errors import CheckpointError
from ordmap.states import keeps_state, plain

__all__ = ["Sampler", "check_given", "passed"]


class Sampler:
    """An iterable of indices that is begun once an epoch; one that has ``set_epoch`` is told of each but the first.

    The first is what the caller has set it to.
    """

    def __init__(self, order: Iterable[int]) -> None:
        self._order: Any = order
        self._first: int | None = None

    def begin(self, epoch: int, mark: Mark | None = None) -> tuple[Iterator[int], Any]:
        """Begin an epoch, once, for it may go on to one of its own each time; go on from a mark.

        Return its iterator, and which of the two knows where it is, if any.
        """
        order = self._order
        set_epoch = getattr(order, "set_epoch", None)
        if callable(set_epoch):
            if self._first is None:
                first = getattr(order, "epoch", 0)
                self._first = first if type(first) is int else 0
            if epoch:
                set_epoch(self._first + epoch)
        if keeps_state(order):
            if mark is not None:
                order.load_state_dict(deepcopy(mark.state))
            return iter(order), order
        iterator: Any = iter(order)
        if keeps_state(iterator):
            if mark is not None:
                iterator.load_state_dict(deepcopy(mark.state))
            return iterator, iterator
        if mark is not None:
            kind = type(order).__qualname__
            raise CheckpointError(f"the state has what a sampler said of itself, and {kind} has no load_state_dict()")
        return iterator, None


def passed(iterator: Iterator[int], most: int | None) -> tuple[int, list[int]]:
    """Go past so many indices, or all; return how many there were, and the last of them."""
    last = deque(zip(count(1), islice(iterator, most), strict=False), maxlen=REMEMBERED)
    return (last[-1][0] if last else 0), [index for _, index in last]


def check_given(given: Given, epoch: int, stop: int, last: Iterable[object]) -> None:
    """Refuse indices other than those that were given, of those before the position ``stop`` of an epoch."""
    if given.epoch != epoch:
        return
    found = plain(last)
    here = dict(enumerate(found, stop - len(found)))
    for position, index in enumerate(plain(given.indices), given.position):
        if here.get(position, index) != index:
            raise CheckpointError(
                f"the state has the index {index} at position {position} of epoch {epoch}, and here it is "
                f"{here[position]}: the sampler or its seed is another, or it was gone through before"
            )
