"""An item's limit of time where it runs in a thread, which can't be ended: the item is left alone in it.

::

    worker's thread   Watch.run ──> outcomes             (None: somebody has given up on it meanwhile)
    who watches it    Watch.give_up ──> outcomes so far, and the `ItemTimeoutError` of the present item

Whoever of the two comes first answers for the chunk.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextvars import copy_context
from queue import Empty, SimpleQueue
from typing import Any

from ordmap import real_time as time
from ordmap.item import InHand
from ordmap.limit import FRAME, timed, too_long
from ordmap.outcome import Raised, run_chunk

__all__ = ["Watch", "run_in_time"]

#: The least time to wait for an item that is overdue by now, in seconds: it may just be ending.
_MOMENT = 0.001


class Watch:
    """A chunk that one thread runs and others watch."""

    def __init__(
        self, compute: Callable[[Any], Any], hand: InHand, limit: float, keys: Iterable[Any] | None = None
    ) -> None:
        self._compute = timed(compute, limit)
        self._hand = hand
        self._keys = hand.keys if keys is None else keys
        self._limit = limit
        self._lock = threading.Lock()
        self._thread = 0
        self._items = 0  # that have begun
        self._first_began = 0.0
        self._began: float | None = None  # when the present item did
        self._given_up = False

    @property
    def worker(self) -> int | None:
        """The number of the worker that runs it."""
        return self._hand.worker

    def run(self, patience: float | None) -> tuple[list[Any], float] | None:
        """Run the chunk, in this thread; see `run_chunk`. ``None``: nobody wants it any more."""
        self._thread = threading.get_ident()
        ran = run_chunk(self._compute, self._hand, patience, self._begun())
        with self._lock:
            self._began = None
            return None if self._given_up else ran

    def _begun(self) -> Iterator[Any]:
        """Yield the keys, and note when each item begins; no more of them once the chunk is given up."""
        for key in self._keys:
            with self._lock:
                if self._given_up:
                    return
                self._items += 1
                self._began = time.perf_counter()
                self._first_began = self._first_began or self._began
            yield key

    def wait(self) -> float:
        """Return the seconds after which to look again whether an item takes too long."""
        began = self._began
        return self._limit if began is None else max(began + self._limit - time.perf_counter(), _MOMENT)

    @property
    def is_overdue(self) -> bool:
        """Whether the present item takes too long."""
        began = self._began
        return began is not None and time.perf_counter() - began > self._limit

    def give_up(self) -> tuple[list[Any], float] | None:
        """Return the outcomes so far, and how long they took, if the present item takes too long: it is one of them."""
        with self._lock:
            began = self._began
            done = self._hand.outcomes
            if began is None or self._given_up or len(done) >= self._items:
                return None
            elapsed = time.perf_counter() - began
            if elapsed <= self._limit:
                return None
            stack = _stack(self._thread)  # which can't go on to another item before this lock is free
            error = too_long(self._limit, elapsed, "was left alone in its thread", stack)
            # It may have come to its end just now, as one more outcome.
            outcomes = [*done[: self._items - 1], Raised(error, stack)]
            done[:] = [None] * len(done)  # the thread may have this list for ever
            self._given_up = True
        return outcomes, began - self._first_began


def run_in_time(
    compute: Callable[[Any], Any], hand: InHand, patience: float | None, limit: float
) -> tuple[list[Any], float]:
    """Run a chunk in a thread of its own, which is left alone with an item that takes too long. See `run_chunk`.

    It runs in a copy of the present context.
    """
    watch = Watch(compute, hand, limit)
    ended: SimpleQueue[tuple[list[Any], float] | BaseException | None] = SimpleQueue()

    def run() -> None:
        try:
            ended.put(watch.run(patience))
        except BaseException as error:  # whatever it is, somebody waits
            ended.put(error)

    thread = threading.Thread(target=copy_context().run, args=(run,), name="ordmap-item", daemon=True)
    thread.start()
    while True:
        try:
            ran = ended.get(timeout=watch.wait())
        except Empty:
            given = watch.give_up()
            if given is not None:
                return given
        else:
            thread.join()
            if isinstance(ran, BaseException):
                raise ran
            assert ran is not None  # noqa: S101  nobody else gives up on it
            return ran


def _stack(thread: int) -> str:
    """Return where the item of a thread is, as text."""
    import traceback  # only for who is late

    frames = traceback.extract_stack(sys._current_frames().get(thread))
    while any(one.filename == FRAME for one in frames):
        frames.pop(0)
    return "".join(("Traceback (most recent call last):\n", *traceback.format_list(frames)))
