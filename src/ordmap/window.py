"""The algorithm: a bounded window that slides over a source, filled ahead and emptied in order.

::

    source ──fill──> [slot][slot][slot][slot] ──take──> next()
             submit │                      ▲ collect
                    ▼                      │
                    run of a backend: workers

A slot is a place in the order: a chunk of items, and their outcomes once they have come. `Window.take` fills the
window, waits for the oldest slot alone, and gives out what it holds. An item that failed fills its place like any
other, once it has been tried as often as it may. An item counts against the bound from its submission until it is
given out, so the bound holds while `take` waits, too. What a worker hands back of a chunk, and each item that is to be
tried again, stands in the order as a smaller slot, not submitted yet.

Results are given out together: a whole chunk, or some of it where they must be opened, or several small chunks that
have come. They come as a list that the iterator empties from its end, for then nothing here holds what it has given
out; or, where they are many numbers, as an iterator. They count as in flight until they are taken from that.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise, takewhile
from operator import length_hint
from typing import Any, NoReturn

from ordmap import real_time as time
from ordmap.backends import Run
from ordmap.chunk import Chunk, Place
from ordmap.errors import OrdmapError
from ordmap.frames import gives_out
from ordmap.indices import Source
from ordmap.interrupts import came_from_outside, pass_on
from ordmap.outcome import Answer, Raised, are_numbers, are_plain, failed_places, opened, unpickled
from ordmap.pace import Pace
from ordmap.pulling import Load, kept
from ordmap.rows import opened_together

__all__ = ["LATER", "Closing", "Later", "Window"]

#: Seconds after which a pull was a slow one, for each item.
_SLOW_PULL = 0.00005

#: Seconds that the oldest item may take before a source of somebody's is pulled for the second time, and what all that
#: follow may take together; later that part of the time for which the source was last waited for. What has come by then
#: goes out first: the source may give but one item a second, or a few at once and then none for long, or wait for what
#: an item does.
_MOMENT, _MOMENTS, _PART = 0.05, 0.002, 0.25

#: Seconds between two looks at the oldest item meanwhile: at first, and at most.
_GLANCE, _LONG_GLANCE = 0.00005, 0.0005

#: Chunks that one filling submits before it looks at what has come, which says how large they may be.
_MANY = 64

#: Results that are opened together, and given out together where chunks are smaller: each then costs the caller's loop
#: little more than a list's. Of small pickles more are opened, for so many seconds.
_AT_ONCE = 16
_QUICK = 0.0002

#: Bytes of a row that are opened together, where they are more results.
_ROW_BYTES = 16 * 1024

#: Numbers up to which they are given out as a list: to begin with an iterator takes longer than to pop so many.
_FEW = 8


class Later:
    """What there is in place of a result that has not come."""


LATER = Later()


class _Slot:
    """A place in the order, known by the position of its first item in the run.

    ``rest`` are the slots that stand behind its own outcomes: what the worker handed back, and what is tried again.
    """

    __slots__ = ("answer", "chunk", "given", "position", "rest")

    def __init__(self, position: int, chunk: Chunk) -> None:
        self.position = position
        self.chunk = chunk
        self.answer: Answer | None = None
        self.given = 0
        self.rest: list[_Slot] = []

    def __lt__(self, other: _Slot) -> bool:
        return self.position < other.position


class Closing:
    """What is closed once, and stays at the place where it was."""

    closed = False
    _place: Place | None = None  # where it was closed

    def place(self) -> Place:
        """Return the place of the next item to be given out."""
        raise NotImplementedError

    def _let_go(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """Let go of everything. What a signal's handler cuts short the next call does."""
        try:
            place = self.place()
        except Exception as error:  # a sampler's own state may not be had
            if not came_from_outside(error):
                self._let_go()
            raise
        if not self.closed:  # by a handler, meanwhile
            self._place = place
            self._let_go()


class Window(Closing):
    """The items that were submitted to a run and are not given out yet, oldest first.

    Not for two threads at once, but for `wake`, which ends a waiting `take`.
    """

    def __init__(self, source: Source, run: Run, pace: Pace, retries: int = 0) -> None:
        self._source = source
        self._run = run
        self._pace = pace
        self._retries = retries
        self._slots: deque[_Slot] = deque()
        self._awaited: dict[int, _Slot] = {}
        self._handed_back: list[_Slot] = []  # a heap: the oldest is submitted first
        self._position = 0
        self._exhausted = False
        self._at_once = 1  # items that a source of somebody's is asked for: more of them while it is quick
        self._patience = _MOMENT  # seconds that are left to wait for the oldest item before pulls
        self._has_waited = False
        self._source_error: Exception | None = None
        self._fault: OrdmapError | None = None  # of the run
        self._woken = False
        self._finished = 0  # items that have come and are not given out
        self._nbytes = 0.0  # about the bytes of these
        self._given: list[Any] | Iterator[Any] = []  # what was given out last, as far as the iterator has left it
        self._given_at_first = 0
        self._withdrawn: list[Any] = []  # of these: they won't be given out
        self._counted = 0  # submitted, and not given out before these
        self._taken_before = 0
        self.most_in_flight = 0

    @property
    def in_flight(self) -> int:
        """The number of items that are submitted and not given out yet."""
        return self._counted - self._given_at_first + self._left()

    @property
    def delivered(self) -> int:
        """The number of items given out so far, failed ones included."""
        return self._taken_before + self._given_at_first - self._left()

    def _left(self) -> int:
        """Return how many of the results that were given out last are still in flight."""
        while self._given_at_first:
            withdrawn = len(self._withdrawn)
            left = withdrawn + length_hint(self._given)
            if len(self._withdrawn) == withdrawn:  # else some were withdrawn between the two
                return left
        return 0

    def place(self) -> Place:
        """Return the place of the next item to be given out."""
        if self._place is not None:
            return self._place
        delivered = self.delivered
        for slot in list(self._slots):  # a signal's handler may close it meanwhile
            if slot.position <= delivered < slot.position + len(slot.chunk):
                return slot.chunk.place(delivered - slot.position)
        return self._source.place()

    def remaining(self) -> int | None:
        """Return the number of items not given out yet, as far as the source knows its length."""
        to_take = self._source.remaining()
        if to_take is None:
            return None
        return to_take + self.in_flight + sum(len(slot.chunk) for slot in self._handed_back)

    def fill(self, *, patient: bool = False) -> None:
        """Submit as many items as there is room for; never waits for an answer, or ``patient`` but for a moment."""
        if not self._left():
            self._settle()
        if not patient:
            self._patience = 0.0
        self._submit_handed_back()
        pace = self._pace
        submitted = 0
        while not (self._exhausted or self._woken or self._handed_back or self._fault) and self._source.ready:
            size = min(pace.chunk, self._room())
            # A chunk is cut short only where there would be too few of them to keep the workers busy, at the end of a
            # window that is filled from the start, and to fit into a budget, which moves with every answer.
            whole = len(self._slots) >= pace.depth and not (pace.budgeted or self._grows(submitted))
            if size < 1 or (size < pace.chunk and whole):
                break
            if self._source.may_wait:
                if patient and self._slots and self._comes_soon():
                    break
                size = min(size, self._at_once) if pace.adaptive else size
            began = time.perf_counter()
            slot = self._pulled(size)
            if slot is None:
                break
            took = time.perf_counter() - began - slot.chunk.packing
            slow = self._source.may_wait and self._was_slow(took, len(slot.chunk))
            self._submit(slot)
            submitted += 1
            if self._grows(submitted) and submitted % pace.depth == 0:
                self._learn()
            # A slow source may even wait for an answer that has come meanwhile: that goes out before the next pull.
            if slow and self._learn() and self._slots[0].answer is not None:
                break

    def _grows(self, submitted: int) -> bool:
        """Whether this is a wide window that is filled from the start, with so many chunks by now: they are to grow."""
        return self._pace.adaptive and submitted >= max(_MANY, self._pace.depth)

    def _learn(self) -> bool:
        """Take in what has come, which says how large chunks may be; ``False``: the run can't go on."""
        try:
            self._collect(wait=False)
        except OrdmapError as error:
            self._fault = error  # it comes after what is there
        return self._fault is None

    def _pulled(self, most: int) -> _Slot | None:
        """Return a slot in the order for the next items of the source; ``None``: it is at its end."""
        try:
            chunk = self._source.take(most, getattr(self._run, "load", Load))
        except Exception as error:  # it comes after the results of what was pulled before
            pass_on(error)
            self._source_error = kept(error)
            chunk = None
        if chunk is None:
            self._exhausted = True
            return None
        slot = _Slot(self._position, chunk)
        self._position += len(chunk)
        self._slots.append(slot)
        return slot

    def go_on(self, run: Run) -> None:
        """Go on with another run, once nothing is left of this one and its source has turned to another epoch."""
        self._run = run
        self._exhausted = False

    def _was_slow(self, took: float, items: int) -> bool:
        """Learn from a pull of so many items, and tell whether it was slow."""
        slow = took > _SLOW_PULL * items
        if slow:
            self._at_once = 1
            self._patience = max(self._patience, _PART * took)
        elif not self._patience:
            self._at_once *= 2
        return slow

    def _comes_soon(self) -> bool:
        """Whether the oldest item comes, or nothing does any more, in the time that there is for it."""
        if not self._patience:
            return False
        began = time.perf_counter()
        give_up = began + min(self._patience, _MOMENT)
        glance = _GLANCE
        while self._learn() and self._slots[0].answer is None and not self._woken:
            if time.perf_counter() > give_up:
                break
            time.sleep(glance)
            glance = min(2 * glance, _LONG_GLANCE)
        left = max(0.0, self._patience - (time.perf_counter() - began))
        self._patience = left if self._has_waited else min(left, _MOMENTS)
        self._has_waited = True
        return self._woken or self._fault is not None or self._slots[0].answer is not None

    @property
    def wants(self) -> bool:
        """Whether there is room for an item that the source doesn't have ready."""
        return not (self._exhausted or self._woken or self._source.ready) and self._room() > 0

    def watch(self, loop: Any, callback: Callable[[], None]) -> Callable[[], None]:
        """Have a callback called on an event loop when there may be something to take; return what ends that."""
        watch = getattr(self._run, "watch", None)
        return watch(loop, callback) if watch is not None else lambda: None

    async def settled(self) -> None:
        """Wait until nothing is under way on the present event loop of what a run had awaited there that is over."""
        settled = getattr(self._run, "settled", None)
        if settled is not None:
            await settled()

    def take(self, *, wait: bool = True) -> list[Any] | Iterator[Any] | Raised | Later | None:
        """Give out what comes next, waiting for it; ``None``: there is nothing left, or `wake` was called.

        `LATER`: there is nothing yet, and it may not wait.

        A list of results is in reverse, for the caller to pop from; many numbers come as an iterator. `take` is called
        again when they are gone. Raises what the source raised, in its place, and what the run raises when it can't go
        on.
        """
        slots = self._slots
        while not self._woken:
            self._drop_given_out()
            self.fill(patient=wait)
            if self._fault is not None and not (slots and slots[0].answer):
                raise self._fault
            if not slots and not self._source.ready and not self._woken:
                return LATER
            if not slots or self._woken:
                break
            answer = slots[0].answer
            if answer is None:
                self._collect(wait=wait)
                if not wait and slots[0].answer is None:
                    return LATER
            elif slots[0].given < len(answer.outcomes):
                return self._give()
        if self._source_error is not None and not slots:
            self._raise_error()
        return None

    @gives_out
    def _raise_error(self) -> NoReturn:
        raise self._taken_error()

    def _taken_error(self) -> Exception:
        """Return what the source raised, and hold it no longer: it will hold the frames that it passes."""
        error, self._source_error = self._source_error, None
        assert error is not None  # noqa: S101  there is one
        return error

    def wake(self) -> None:
        """End a waiting `take`, and every later one; from any thread."""
        self._woken = True
        self._run.wake()

    def withdraw(self) -> None:
        """Have the iterator that was given out last give nothing more; from any thread."""
        given = self._given
        if not isinstance(given, list):
            self._withdrawn.extend(given)  # at once: it is C

    def _let_go(self) -> None:
        self.closed = True
        self._exhausted = True
        self._slots.clear()
        self._awaited.clear()
        self._handed_back.clear()
        self._settle()
        self._counted = 0
        self._source_error = None  # whose frames hold ours
        self._source.close()

    def first_missing(self) -> int | None:
        """Return the index of the next item to be given out, if it is in the window."""
        for slot in list(self._slots):  # another thread may be at it
            if slot.given < len(slot.chunk):
                return slot.chunk.indices[slot.given]
        return None

    def _drop_given_out(self) -> None:
        """Drop the slots that are given out; what a worker handed back of one stands in its place."""
        slots = self._slots
        while slots and (answer := slots[0].answer) is not None and slots[0].given == len(answer.outcomes):
            rest = slots.popleft().rest
            slots.extendleft(reversed(rest))

    def _submit_handed_back(self) -> None:
        waiting = self._handed_back
        while waiting:
            # They were in flight before, so there is room for the oldest at the least, unless the bound has shrunk.
            if len(waiting[0].chunk) > self._room() and waiting[0] is not self._slots[0]:
                break
            self._submit(heapq.heappop(waiting))

    def _room(self) -> int:
        return self._pace.room(self.in_flight, self._finished + self._left(), self._nbytes)

    def _settle(self) -> None:
        """Count what was given out as gone."""
        gone = self._given_at_first - self._left()
        now: tuple[int, int, list[Any], int, list[Any]] = self._taken_before + gone, self._counted - gone, [], 0, []
        # At once: no signal's handler comes in between.
        self._taken_before, self._counted, self._given, self._given_at_first, self._withdrawn = now

    def _submit(self, slot: _Slot) -> None:
        self._counted += len(slot.chunk)
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        if slot.chunk.error is not None:
            slot.answer = Answer([Raised(slot.chunk.error)], 0.0, 0, "of the caller")
            slot.chunk.error = None  # it will hold the frames that it passes, and these this
            self._finished += 1
        else:
            self._awaited[slot.position] = slot
            try:
                self._run.submit(slot.position, slot.chunk)
            except OrdmapError:
                if not self._woken:  # else the run was closed from another thread at this very moment
                    raise

    def _collect(self, *, wait: bool) -> None:
        try:
            answers = self._run.collect(wait=wait)
        except OrdmapError:
            if not self._woken:  # else the run was closed meanwhile, by another thread or a signal handler
                raise
            return
        for position, answer in answers:
            slot = self._awaited.pop(position)
            slot.answer = answer
            done = len(answer.outcomes)
            self._finished += done
            self._nbytes += answer.nbytes
            self._pace.learn(done, answer.elapsed, answer.nbytes, slot.chunk.nbytes * done / len(slot.chunk))
            if done < len(slot.chunk):
                self._counted -= len(slot.chunk) - done
                size = self._pace.chunk
                parts = enumerate(slot.chunk.rest(done, size))
                slot.rest = [_Slot(position + done + i * size, part) for i, part in parts]
                for part in slot.rest:
                    heapq.heappush(self._handed_back, part)
            if not answer.plain and slot.chunk.label.attempt <= self._retries:
                self._try_again(slot, failed_places(answer.outcomes))

    def _try_again(self, slot: _Slot, places: Sequence[int]) -> None:
        """Cut out of an answer the items at these places: each stands in the order as a slot to be submitted again."""
        answer = slot.answer
        if answer is None or not places:
            return
        chunk, position = slot.chunk, slot.position
        outcomes, answer.outcomes[:] = answer.outcomes[:], []  # frames of exceptions may hold that list
        for place in places:
            if type(outcomes[place]) is Raised:
                outcomes[place].hand_over()
        share = answer.nbytes / len(outcomes)

        def part(start: int, stop: int) -> Answer:
            return answer._replace(outcomes=outcomes[start:stop], nbytes=share * (stop - start))

        rest = []
        for place, stop in pairwise((*places, len(outcomes))):
            again = _Slot(position + place, chunk.part(place, place + 1, again=True))
            heapq.heappush(self._handed_back, again)
            rest.append(again)
            if place + 1 < stop:
                fine = _Slot(position + place + 1, chunk.part(place + 1, stop))
                fine.answer = part(place + 1, stop)
                rest.append(fine)
        slot.rest[:0] = rest
        slot.answer = part(0, places[0])
        self._counted -= len(places)
        self._finished -= len(places)
        self._nbytes -= share * len(places)

    def _give(self) -> list[Any] | Iterator[Any] | Raised:
        """Give out a chunk that has come, and the small ones after it that have; or a failure, alone."""
        results: list[Any] = []
        numbers = True
        at_once = min(_AT_ONCE, self._pace.width // 8)  # the window is not filled again before these are gone
        for slot in self._slots:
            answer = slot.answer
            if answer is None or not answer.outcomes or (results and len(results) + len(answer.outcomes) > at_once):
                break
            plain = answer.plain or (not slot.given and are_numbers(answer.outcomes))
            raised = self._add_results(slot, answer, results, plain=plain)
            if raised is not None:
                return raised
            numbers = numbers and plain
            if slot.given < len(answer.outcomes) or slot.rest:
                break
        many = numbers and len(results) > _FEW
        if not many:
            results.reverse()
        self._given, self._given_at_first = iter(results) if many else results, len(results)
        return self._given

    def _add_results(self, slot: _Slot, answer: Answer, results: list[Any], *, plain: bool) -> Raised | None:
        """Add a slot's next results: all, or some where they must be opened. A failure ends them, or is returned."""
        outcomes, first, before = answer.outcomes, slot.given, len(results)
        share = answer.nbytes / len(outcomes)
        if plain:
            results += outcomes
        elif not first and not answer.pickled and are_plain(outcomes):
            results += outcomes
            outcomes[:] = [None] * len(outcomes)  # from here on they are the caller's alone
        else:
            raised = self._add_opened(slot, answer, results)
            if raised is not None:
                return self._hand_out_failure(slot, answer, raised)
        added = len(results) - before
        slot.given += added
        self._finished -= added
        self._nbytes -= share * added
        return None

    def _add_opened(self, slot: _Slot, answer: Answer, results: list[Any]) -> Raised | None:
        """Add some of a slot's results that have to be opened. A failure ends them; if it is the first, return it."""
        outcomes = answer.outcomes
        if answer.primer is not None and (together := _opened_row(answer, slot.given)):
            results += together
            outcomes[slot.given : slot.given + len(together)] = [None] * len(together)
            return None
        enough = time.perf_counter() + _QUICK
        for place in range(slot.given, len(outcomes)):
            outcome = outcomes[place]
            if answer.pickled and type(outcome) is bytes:
                outcome = unpickled(outcome, answer.primer)
            else:
                outcome = opened(outcome)
            if type(outcome) is Raised:
                if slot.chunk.label.attempt <= self._retries and slot.chunk.valid:
                    self._try_again(slot, [place])  # it came, and can't be opened
                elif not results:
                    return outcome
                else:
                    outcomes[place] = outcome  # its turn comes after these
                break
            outcomes[place] = None
            results.append(outcome)
            if answer.primer is not None:
                break  # those after it may be opened together
            if (place - slot.given) % _AT_ONCE == _AT_ONCE - 1 and (not answer.pickled or time.perf_counter() > enough):
                break
        return None

    def _hand_out_failure(self, slot: _Slot, answer: Answer, raised: Raised) -> Raised:
        place, chunk = slot.given, slot.chunk
        raised.locate(chunk.indices[place], chunk.label.epoch, answer.worker, chunk.label.attempt)
        answer.outcomes[place] = None
        slot.given += 1
        self._finished -= 1
        self._nbytes -= answer.nbytes / len(answer.outcomes)
        self._counted -= 1
        self._taken_before += 1
        return raised


def _opened_row(answer: Answer, first: int) -> list[Any]:
    """Return some results of a row from a place on; none where the first of them can't be had, or isn't in the row."""
    outcomes = answer.outcomes
    many = max(_AT_ONCE, int(_ROW_BYTES * len(outcomes) / (answer.nbytes or 1)))
    some = outcomes[first : first + many]
    if not are_plain(some):
        some = list(takewhile(lambda outcome: are_plain((outcome,)), some))
    pickles = [outcome for outcome in some if type(outcome) is bytes]
    try:
        results = opened_together(answer.primer or b"", pickles)
    except BaseException as error:
        pass_on(error)
        return []  # they are opened one by one, to see which it is
    if len(results) == len(some):
        return results
    row = iter(results)
    return [next(row) if type(outcome) is bytes else outcome for outcome in some]
