"""The window's place where there are no workers: nothing is ahead, and each item is computed inside its ``next()``.

::

    source ──feed──> step: compute ──> next()               as long as an item has nothing to tell but its result
    source ──take──> take: compute ──> OrderedIterator      the first of an epoch, failures, retries, the end

A step is one Python call, which the chain under the iterator makes (see `relay`). Whatever is unusual it leaves to
`Solo.take`, which the iterator calls as it calls `Window.take`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

from ordmap import real_time as time
from ordmap.backends import Immediate
from ordmap.chunk import Chunk, Place
from ordmap.frames import show_the_users
from ordmap.indices import Source
from ordmap.item import Label, current
from ordmap.outcome import Raised
from ordmap.window import LATER, Closing, Later

__all__ = ["Solo"]

#: Modules between the caller and an item, whose frames are of no interest to the user.
_OWN = frozenset({__name__, "ordmap.backends.serial", "ordmap.generators"})


class Solo(Closing):
    """What an iterator has in place of a `Window`, over an `Immediate` run.

    ``lock`` is the iterator's: the thread that computes has it. ``ended_by`` refers to what is to be told of whatever
    ends a step, errors of items aside.
    """

    def __init__(
        self,
        source: Source,
        run: Immediate,
        retries: int,
        lock: Any,
        ended_by: Callable[[], Callable[[BaseException], None] | None],
    ) -> None:
        self._source = source
        self._hand, self._compute = run.hand, run.compute
        self._retries = retries
        self._lock = lock
        self._ended_by = ended_by
        self._feed: Iterator[Any] = iter(())
        self._last = Place(0, 0)  # of the item that `take` took last: steps are counted from there
        self._held: Chunk | None = None  # the item that is being computed, or was, and is not given out
        self._raised: Raised | None = None  # by a step's item, which is held
        self._given: list[Any] = []  # by the last `take`, as far as the iterator has left it
        self._counted = 0  # items given out, these included
        self._woken = False
        self.flows = False  # whether the next item may be had by a step
        self.inside: int | None = None  # the thread that computes an item
        self.waited = 0.0  # seconds that steps took
        self.most_in_flight = 0

    def step(self, _: None) -> Any:
        """Compute the next item and return its result; ``StopIteration``: it is to be had by `take`."""
        try:
            began = time.perf_counter()
            with self._lock:
                if self.flows and self.inside is None and not self._woken:
                    hand = self._hand
                    self.inside = threading.get_ident()
                    try:
                        hand.key = next(self._feed)
                        hand.is_item = True
                        before = current.set(hand)
                        try:
                            result = self._compute(hand.key)
                        except BaseException as error:
                            self._raised = _failure(error)
                        finally:
                            current.reset(before)
                        if self._raised is None and not self._woken:
                            hand.is_item = False
                            hand.place += 1
                            self._counted += 1
                            return result
                    finally:
                        in_hand = hand.is_item  # which is not given out
                        hand.is_item = False  # first: whatever a signal's handler raises from here on, no item is
                        self.inside = None
                        if in_hand:
                            self._held = self._in_hand()
                        hand.key = None
                        self.waited += time.perf_counter() - began
                self.flows = False
                raise StopIteration
        except StopIteration:
            self.flows = False
            raise
        except BaseException as error:
            end = self._ended_by()
            if end is not None:
                end(error)
            show_the_users(error)
            raise

    def _in_hand(self) -> Chunk:
        """Return the item of the present step, as `take` would have taken it."""
        hand = self._hand
        first = None if hand.label.first is None else hand.label.first + hand.place
        return Chunk([hand.key], Label(hand.label.epoch, 1, first), self._last.position + hand.place)

    def take(self, *, wait: bool = True) -> list[Any] | Raised | Later | None:
        """Compute the next item, and give it out: see `Window.take`. It never waits."""
        del wait
        while not self._woken:
            if self._held is None:
                if not self._source.ready:
                    return LATER
                self._held = self._source.take(1)
                self.most_in_flight = 1
            chunk = self._held
            if chunk is None:
                return None
            outcome, self._raised = self._raised or self._outcome(chunk), None
            if type(outcome) is Raised:
                if chunk.error is None and chunk.label.attempt <= self._retries:
                    outcome.hand_over()
                    self._held = chunk.part(0, 1, again=True)
                    continue
                label = chunk.label
                outcome.locate(chunk.indices[0], label.epoch, "of the caller", label.attempt)
            if not self._woken:
                return self._give(chunk, outcome)
        return None

    def _outcome(self, chunk: Chunk) -> Any:
        """Return what an item gives, or `Raised`."""
        if chunk.error is not None:
            return Raised(chunk.error)
        hand = self._hand
        self.inside = threading.get_ident()
        try:
            hand.begin(chunk.keys[0], chunk.label)
            before = current.set(hand)
            try:
                return self._compute(hand.key)
            except BaseException as error:
                return _failure(error)
            finally:
                current.reset(before)
        finally:
            self.inside = None
            hand.put_down()

    def _give(self, chunk: Chunk, outcome: Any) -> list[Any] | Raised:
        """Give out the item that is held; those that follow it may come by steps."""
        label = chunk.label
        self._hand.label, self._hand.place, self._hand.generators = Label(label.epoch, 1, label.first), 1, None
        self._feed = self._source.feed()
        given: Any = outcome if type(outcome) is Raised else [outcome]
        results = given if type(given) is list else []
        now: tuple[Any, ...] = chunk.place(), results, self._counted + 1, None
        self._last, self._given, self._counted, self._held = now  # at once: no signal's handler comes in between
        self.flows = True
        return given  # type: ignore[no-any-return]

    @property
    def in_flight(self) -> int:
        """Whether an item is under way or not given out yet: 1 or 0."""
        return int(self._held is not None or self._hand.is_item or bool(self._given))

    @property
    def delivered(self) -> int:
        """The number of items given out so far, failed ones included."""
        return self._counted - len(self._given)

    def place(self) -> Place:
        """Return the place of the next item to be given out."""
        if self._place is not None:
            return self._place
        if self._given:
            return self._last
        held = self._held
        return self._source.place() if held is None else held.place()

    def remaining(self) -> int | None:
        """Return the number of items not given out yet, as far as the source knows its length."""
        to_take = self._source.remaining()
        return None if to_take is None else to_take + self.in_flight

    def first_missing(self) -> int | None:
        """Return the index of the item that is under way, if one is."""
        held = self._held
        return None if held is None else held.indices[0]

    def fill(self) -> None:
        """Do nothing: nothing is computed, nor pulled, before it is asked for."""

    def go_on(self, run: Any) -> None:
        """Go on with another run, once its source has turned to another epoch."""
        self._hand, self._compute = run.hand, run.compute

    @property
    def wants(self) -> bool:
        """Whether there is room for an item that the source doesn't have ready."""
        return not (self._woken or self._source.ready)

    def watch(self, loop: Any, callback: Callable[[], None]) -> Callable[[], None]:
        """Return what ends a watch; there is nothing to be told of, for nothing comes by itself."""
        del loop, callback
        return lambda: None

    async def settled(self) -> None:
        """Do nothing: nothing is under way on an event loop."""

    def wake(self) -> None:
        """End it: the item under way is not given out, and none is computed after it; from any thread."""
        self._woken = True

    def withdraw(self) -> None:
        """Have nothing more given out; from any thread."""
        self._woken = True

    def _let_go(self) -> None:
        self.closed = True
        self.flows = False
        self._feed = iter(())
        self._counted, self._given = self._counted - len(self._given), []
        self._held = self._raised = None
        self._hand.put_down()
        self._source.close()


def _failure(error: BaseException) -> Raised:
    """Return the failure of an item, or raise what is Ctrl-C's."""
    if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
        raise error
    place = error.__traceback__
    while place is not None and place.tb_frame.f_globals.get("__name__") in _OWN:
        place = place.tb_next
    return Raised(error.with_traceback(place))
