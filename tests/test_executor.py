"""Borrowed executors: in what order chunks reach workers that begin at different times. The workers are played here."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import BrokenExecutor, Executor, Future

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ordmap import FromExecutor, WorkerDiedError, ordered_imap
from ordmap.backends.remote import Reply

ITEMS = 8


class Played(Executor):
    """Two workers in processes of their own, of which each takes the next task when the test says so."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.submitted_while_locked = False
        self.queue: deque[tuple[Future, object, list[int]]] = deque()
        self.holders: set[str] = set()
        self.computed: list[int] = []

    def submit(self, fn, /, key, task, payload, keys, patience, limit):
        future: Future = Future()
        self.submitted_while_locked |= self.lock.locked()  # the standard library's would wait for itself, for ever
        self.queue.append((future, payload, keys))
        return future

    def break_down(self) -> None:
        """As the standard library does it."""
        with self.lock:
            for future, *_ in list(self.queue):
                future.set_exception(BrokenExecutor("gone"))

    def take(self, worker: str) -> None:
        if not self.queue:
            return
        future, payload, (item,) = self.queue.popleft()
        if payload is not None:
            self.holders.add(worker)
        if worker in self.holders:
            self.computed.append(item)
            future.set_result(Reply([item], 0.001, 0, worker))
        else:
            future.set_result(Reply(None, 0.0, 0, worker))


@given(st.lists(st.sampled_from("AB"), max_size=60))
@example(list("AAABBB" + "ABBBA"))  # B refuses two old items, then takes a young one that brings the job
def test_the_oldest_never_waits_behind_more_than_the_workers_have_in_hand(turns):
    executor = Played()
    with ordered_imap(range(ITEMS), prefetch=ITEMS, chunksize=1, backend=FromExecutor(executor, 2)) as iterator:
        iterator.start()
        for worker in turns + ["A"] * (3 * ITEMS):
            executor.take(worker)
            oldest = min(set(range(ITEMS)) - set(executor.computed), default=ITEMS)
            younger = [item for item in executor.computed if item > oldest]
            assert len(younger) < 2, executor.computed
        assert sorted(executor.computed) == list(range(ITEMS))
        assert list(iterator) == list(range(ITEMS))


def test_an_executor_that_breaks_down_is_sent_nothing_more():
    executor = Played()
    with ordered_imap(range(ITEMS), prefetch=ITEMS, chunksize=1, backend=FromExecutor(executor, 2)) as iterator:
        iterator.start()
        executor.break_down()
        with pytest.raises(WorkerDiedError):
            next(iterator)
        assert not executor.submitted_while_locked
