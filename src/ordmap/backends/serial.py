"""The backend without workers: each item is computed inside ``next()``, in the caller's thread.

For debugging (a breakpoint in the dataset just works) and as what the other backends are compared with.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Self

from ordmap.backends import Immediate, Job
from ordmap.backends.promises import refused, row, weaker
from ordmap.chunk import Chunk
from ordmap.generators import borrowed, seeding
from ordmap.item import InHand, OneInHand
from ordmap.outcome import Answer, Raised, approximate_nbytes, run_chunk

__all__ = ["Serial"]


class Serial:
    """Compute each item inside ``next()``, in the caller's own thread.

    Attention: a ``KeyboardInterrupt`` that an item raises in the main thread can't be told from Ctrl-C: it closes the
    iterator.
    """

    name = "serial"
    workers = 0
    promises = row(
        filled=weaker("nothing is computed ahead: each item is, inside its `next()`"),
        worker_death=refused("there is no worker: what kills an item kills the program"),
        parent_death=weaker("there is no worker; an item ends with the program"),
        timeouts=weaker("none is enforced: an item may stand in a debugger for as long as you like"),
    )

    def open(self, job: Job) -> _SerialRun:
        """Begin a run."""
        return _SerialRun(job)

    def close(self) -> None:
        """Do nothing: there are no workers."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class _SerialRun(Immediate):
    """A run that computes where it is told to, and, for who stands between it and a window, what was submitted."""

    def __init__(self, job: Job) -> None:
        self.hand = OneInHand(0, 1, job.seed)
        self.compute = job.compute if job.seed is None else _seeded(job.compute, self.hand)
        self._job = job
        self._hand = InHand(0, 1)
        self._waiting: deque[tuple[int, Chunk]] = deque()

    def submit(self, ticket: int, chunk: Chunk) -> None:
        self._waiting.append((ticket, chunk))

    def collect(self, *, wait: bool) -> Sequence[tuple[int, Answer]]:
        if not wait or not self._waiting:
            return ()
        ticket, chunk = self._waiting.popleft()
        job, hand = self._job, self._hand
        hand.take(chunk.keys, chunk.label, job.seed)
        try:
            if job.seed is None:
                outcomes, elapsed = run_chunk(job.compute, hand, job.patience, in_worker=False)
            else:
                with borrowed(hand):
                    outcomes, elapsed = run_chunk(seeding(job.compute, hand), hand, job.patience, in_worker=False)
        finally:
            hand.put_down()
        if _is_ctrl_c(outcomes[-1]) and threading.current_thread() is threading.main_thread():
            raise outcomes.pop().error
        return [(ticket, Answer(outcomes, elapsed, approximate_nbytes(outcomes), "of the caller"))]

    def wake(self) -> None:
        """Do nothing: `collect` never waits for another."""

    def close(self) -> None:
        self._waiting.clear()
        self._hand.put_down()  # whatever Ctrl-C has cut short: this thread may go on for long, and is in no item


def _seeded(compute: Callable[[Any], Any], hand: InHand) -> Callable[[Any], Any]:
    """Return a function that computes an item with the global generators set for it, and sets them back."""
    seeded = seeding(compute, hand)

    def seed_and_compute(key: Any) -> Any:
        with borrowed(hand):
            return seeded(key)

    return seed_and_compute


def _is_ctrl_c(outcome: object) -> bool:
    return type(outcome) is Raised and isinstance(outcome.error, KeyboardInterrupt)
