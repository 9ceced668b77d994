"""What an iterator has at hand, it gives without Python code: whoever asks, whatever is raised, nothing is lost."""

from __future__ import annotations

import contextlib
import copy
import gc
import os
import pickle
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from operator import length_hint

import pytest

from ordmap import ordered_imap, ordered_map
from ordmap.relay import Relay


class Rows(Relay):
    """Gives the numbers of some rows: by rows, or one by one where ``singly`` says so."""

    def __init__(self, *rows, singly=()):
        self.rows = rows
        self.singly = singly
        self.row = 0, iter(())  # how many rows were begun, and the last of them: in one, lest an interrupt part them
        self.lock = threading.Lock()
        self.closed = 0

    def _advance(self):
        with self.lock:
            while not length_hint(self.row[1]):
                begun = self.row[0]
                if begun == len(self.rows):
                    self._over()
                self.row = begun + 1, iter(list(self.rows[begun]))
            if self.row[0] - 1 in self.singly:
                return next(self.row[1])
        self._leave(self.row[1])

    def close(self):
        self.closed += 1


ROWS = range(3), range(3, 4), (), range(4, 9), range(9, 12)


@pytest.mark.parametrize("singly", [(), (0, 1, 3, 4), (1, 3), (0, 4)])
def test_it_gives_what_is_left_and_what_is_ready_in_order_and_then_nothing_more(singly):
    rows = Rows(*ROWS, singly=singly)
    assert next(rows) == 0
    assert list(rows) == list(range(1, 12))
    rows.rows += (range(3),)
    assert list(rows) == []
    assert next(rows, None) is None


def test_it_goes_on_after_an_error_and_ends_only_where_it_says_so():
    class Failing(Rows):
        def _advance(self):
            self.rows, failed = self.rows[1:], self.rows[0]
            if isinstance(failed, Exception):
                raise failed
            self._leave(iter(failed))

    relay = Failing(KeyError("first"), [1, 2], ValueError("second"), ValueError("third"), [], [3])
    with pytest.raises(KeyError, match="first"):
        next(relay)
    assert [next(relay), next(relay)] == [1, 2]
    for name in ("second", "third"):
        with pytest.raises(ValueError, match=name):
            next(relay)
    assert next(relay) == 3
    with pytest.raises(IndexError):  # there are no rows
        next(relay)
    relay.rows = ([4],)
    assert next(relay) == 4


@pytest.mark.parametrize("singly", [(), range(1, 4000, 3)])
def test_each_result_goes_to_exactly_one_of_several_threads(singly):
    numbers = iter(range(40_000))
    rows = [[next(numbers) for _ in range(1 + n % 19)] for n in range(4000)]
    length = sum(map(len, rows))
    relay = Rows(*rows, singly=frozenset(singly))
    taken = [[] for _ in range(4)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=lambda mine=mine: mine.extend(n for n in relay)) for mine in taken]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert sorted(sum(taken, [])) == list(range(length))
    assert all(mine == sorted(mine) for mine in taken)


class Interrupt(BaseException):
    pass


def interrupted_at(relay, instant):
    """Take the results, with an `Interrupt` raised before so many instructions of the relay's; tell whether it was."""
    left = instant
    raised = False

    def trace(frame, event, _):
        nonlocal left, raised
        inside = frame.f_globals["__name__"] == "ordmap.relay" or frame.f_code is Rows._advance.__code__
        if not inside:
            return None
        frame.f_trace_opcodes = True
        if event in {"opcode", "call"}:
            left -= 1
            if left == 0:
                raised = True
                raise Interrupt
        return trace

    taken = []
    while True:
        before = sys.gettrace()
        sys.settrace(trace if not raised else None)
        try:
            for number in relay:
                taken.append(number)  # noqa: PERF402  one by one
        except Interrupt:
            continue
        finally:
            sys.settrace(before)
        return taken, raised


def test_whatever_is_raised_at_whatever_instant_nothing_is_lost_but_what_was_being_returned():
    closed = 0
    for instant in range(1, 2000):
        relay = Rows(*ROWS, singly=(1, 3))
        relay.lock = contextlib.nullcontext()  # else it may be locked, and the interrupt come before it is noted
        # In a thread of its own: what is raised between two instructions of an `except` leaves Python in the midst of it.
        with ThreadPoolExecutor(1) as thread:
            taken, raised = thread.submit(interrupted_at, relay, instant).result()
        if not raised:
            break
        closed += relay.closed
        missing = set(range(12)) - set(taken)
        assert taken == sorted(taken)
        assert len(missing) <= 1, (instant, taken)
        assert missing <= {3, 4, 5, 6, 7, 8}, (instant, taken)  # what was returned by Python code
    assert instant > 100
    assert not raised
    assert closed  # by what came where a result is popped, whatever had a hand in that


def test_nothing_holds_it_but_its_owner():
    relay = Rows(range(5))
    gone = weakref.ref(relay)
    assert next(relay) == 0
    del relay
    assert gone() is None


@pytest.mark.parametrize("taken", [0, 10])
def test_garbage_that_goes_on_iterating_while_it_is_collected_ends(taken):
    class Holder:
        def __init__(self):
            self.results = ordered_map(abs, range(1000), workers=1, backend="threads", chunksize=50, prefetch=200)
            self.me = self

        def __del__(self):
            try:
                for result in self.results:
                    said.append(result)
            except ReferenceError as error:
                said.append(str(error))

    said = []
    holder = Holder()
    assert [next(holder.results) for _ in range(taken)] == list(range(taken))
    del holder
    gc.collect()
    assert said[-1] == "this iterator is garbage that is being collected: it has ended"
    assert said[:-1] == list(range(taken, 50 if taken else 0))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform has no forks")
def test_a_forked_child_that_closes_it_gets_nothing_that_was_at_hand():
    results = ordered_map(abs, range(1000), workers=1, chunksize=50, prefetch=200)
    assert [next(results) for _ in range(10)] == list(range(10))
    child = os.fork()
    if not child:
        results.close()
        with contextlib.suppress(BaseException):
            next(results)
            os._exit(1)
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert list(results) == list(range(10, 1000))


@pytest.mark.parametrize("attempt", [copy.copy, copy.deepcopy, pickle.dumps])
def test_an_iterator_is_not_copied(attempt):
    for iterator in (ordered_imap([1, 2], 0), Rows([1])):
        with pytest.raises(TypeError, match="can't be copied or pickled"):
            attempt(iterator)


@pytest.mark.parametrize("backend", ["processes", "spawn", "threads"])
@pytest.mark.parametrize("by_another", [False, True])
def test_a_closed_iterator_gives_nothing_that_was_at_hand_and_knows_where_it_was(backend, by_another):
    results = ordered_map(abs, range(1000), workers=1, backend=backend, chunksize=50, prefetch=200)
    assert [next(results) for _ in range(10)] == list(range(10))
    assert results.stats.delivered == 10
    assert results.state_dict()["position"] == 10
    if by_another:
        closing = threading.Thread(target=results.close)
        closing.start()
        closing.join()
    else:
        results.close()
    assert next(results, None) is None
    assert results.stats.delivered == 10
    assert results.stats.in_flight == 0
    state = results.state_dict()
    assert state["position"] == 10
    again = ordered_map(abs, range(1000), workers=1, backend=backend)
    again.load_state_dict(state)
    assert list(again) == list(range(10, 1000))


def test_several_threads_take_plain_results_of_one_iterator():
    results = ordered_map(abs, range(30_000), workers=2, prefetch=700)
    taken = [[] for _ in range(4)]
    threads = [threading.Thread(target=lambda mine=mine: mine.extend(n for n in results)) for mine in taken]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(sum(taken, [])) == list(range(30_000))
