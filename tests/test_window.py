"""The window, over a backend whose answers the test gives by hand: order, bound, and every way out, without a sleep."""

from __future__ import annotations

import itertools
import pickle
import threading
from typing import ClassVar

import pytest

from ordmap.backends import Job
from ordmap.errors import OrdmapError
from ordmap.arguments import Arguments
from ordmap.chunk import Chunk
from ordmap.indices import Indices
from ordmap.outcome import Answer, Raised, Sealed
from ordmap.pace import PATIENCE, Budget, Pace
from ordmap.pulling import Load, Puller
from ordmap.window import Window


class ByHand:
    """A run whose answers the test gives."""

    def __init__(self):
        self.submitted: dict[int, Chunk] = {}
        self.answers: list[tuple[int, Answer]] = []
        self.log: list[int] = []
        self.on_wait = lambda: pytest.fail("the window waits, and nobody would ever answer")
        self.closed = False

    def submit(self, ticket, chunk):
        assert ticket not in self.submitted
        self.submitted[ticket] = chunk
        self.log.append(ticket)

    def answer(self, ticket, outcomes=None, *, elapsed=1.0, nbytes=10):
        chunk = self.submitted.pop(ticket)
        results = [f"r{key}" for key in chunk.keys] if outcomes is None else outcomes
        self.answers.append((ticket, Answer(results, elapsed, nbytes, "hand")))

    def collect(self, *, wait):
        if wait and not self.answers:
            self.on_wait()
        answers, self.answers = self.answers, []
        return answers

    def wake(self):
        pass

    def close(self):
        self.closed = True


class One(Window):
    """The window, asked for one outcome at a time, as a loop does."""

    def one(self):
        if not self._given:
            given = self.take()
            if type(given) is not list:
                return given
        return self._given.pop()


def make(length=10, *, prefetch=None, chunksize=1, workers=2, epochs=1, source=None):
    run = ByHand()
    source = source or Indices(range(length), epochs)
    return run, One(source, run, Pace(workers, prefetch, chunksize))


def test_submits_exactly_the_window_and_waits_for_the_oldest_alone():
    run, window = make(prefetch=3)
    window.fill()
    assert run.log == [0, 1, 2]
    run.answer(2)
    run.answer(1)
    run.on_wait = lambda: run.answer(0)
    assert window.one() == "r0"
    assert run.log == [0, 1, 2]  # nothing more while the item is on its way out


def test_the_bound_holds_while_it_waits():
    run, window = make(prefetch=3)
    seen = []

    def on_wait():
        seen.append(window.in_flight)
        run.answer(min(run.submitted))

    run.on_wait = on_wait
    given = [window.one() for _ in range(10)]
    assert given == [f"r{n}" for n in range(10)]
    assert max(seen) == 3
    assert window.most_in_flight == 3
    assert window.one() is None


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_any_order_of_answers_gives_the_same_results(order):
    run, window = make(4, prefetch=4)
    window.fill()
    left = list(order)
    run.on_wait = lambda: run.answer(left.pop(0))
    assert [window.one() for _ in range(4)] == ["r0", "r1", "r2", "r3"]


def test_a_failure_fills_its_place():
    run, window = make(3, prefetch=3)
    window.fill()
    error = ValueError()
    run.answer(0)
    run.answer(1, [Raised(error)])
    run.answer(2)
    assert window.one() == "r0"
    item = window.one()
    assert type(item) is Raised
    assert (item.error, item.index, item.worker) == (error, 1, "hand")
    assert window.one() == "r2"


def test_chunks_keep_to_the_bound_and_the_end():
    run, window = make(25, prefetch=13, chunksize=3)
    window.fill()
    assert [len(chunk) for chunk in run.submitted.values()] == [3, 3, 3, 3]
    run.on_wait = lambda: run.answer(min(run.submitted))
    assert [window.one() for _ in range(25)] == [f"r{n}" for n in range(25)]
    assert run.log == list(range(0, 25, 3))
    assert window.one() is None
    assert window.most_in_flight == 12


def test_a_chunk_is_cut_short_to_fill_the_window_where_there_would_be_too_few():
    run, window = make(20, prefetch=7, chunksize=5)
    window.fill()
    assert [len(chunk) for chunk in run.submitted.values()] == [5, 2]


@pytest.mark.parametrize("prefetch", [None, Budget(1000)])
def test_what_was_handed_back_goes_out_though_the_bound_has_shrunk_below_what_has_come(prefetch):
    run, window = make(64, prefetch=prefetch, chunksize=None)

    def grow():
        run.answer(min(run.submitted), elapsed=1e-6, nbytes=1)

    run.on_wait = grow
    given = [window.one() for _ in range(20)]
    window.fill()
    first, *others = sorted(run.submitted)
    assert len(run.submitted[first]) > 1
    key = run.submitted[first].keys[0]
    run.answer(first, [f"r{key}"])
    for ticket in others:
        run.answer(ticket, nbytes=10**9)
    run.on_wait = lambda: run.answer(min(run.submitted)) if run.submitted else pytest.fail("nothing was submitted")
    given += [window.one() for _ in range(44)]
    assert given == [f"r{n}" for n in range(64)]


def test_a_run_that_closes_while_a_chunk_is_on_its_way_to_it_ends_the_iterator_quietly():
    run, window = make(prefetch=3)

    def closing(ticket, chunk):
        window.wake()  # as another thread does
        raise OrdmapError("closed")

    run.submit = closing
    assert window.take() is None


@pytest.mark.parametrize("handed_back", [1, 3, 30, 62])
@pytest.mark.parametrize("prefetch", [64, 100])
def test_the_bound_holds_when_chunks_are_handed_back(prefetch, handed_back):
    run, window = make(1000, prefetch=prefetch, chunksize=None)
    most = 0

    def on_wait():
        nonlocal most
        most = max(most, sum(map(len, run.submitted.values())))
        for ticket in sorted(run.submitted, reverse=True)[:2] + [min(run.submitted)]:
            if ticket in run.submitted:
                keys = list(run.submitted[ticket].keys)
                done = max(1, len(keys) - handed_back)
                run.answer(ticket, [f"r{key}" for key in keys[:done]], elapsed=done * 1e-5)

    run.on_wait = on_wait
    assert [window.one() for _ in range(1000)] == [f"r{n}" for n in range(1000)]
    assert window.one() is None
    assert max(most, window.most_in_flight) <= prefetch


def test_chunks_grow_for_tiny_items_and_shrink_for_slow_ones():
    pace = Pace(2, None, None)
    sizes = []
    for _ in range(12):
        sizes.append(pace.chunk)
        pace.learn(pace.chunk, pace.chunk * 1e-6, pace.chunk * 8)
    assert sizes == [1, 2, 4, 8, 16, 32, 64, 128, 256, 256, 256, 256]
    assert pace.width == 1024
    pace.learn(1, 0.012, 8)  # one slow item in many: the rest was handed back
    assert 32 <= pace.chunk < 256
    for _ in range(3):
        pace.learn(1, 1.0, 8)
    assert pace.chunk == 1
    pace = Pace(2, 64, None)
    for _ in range(12):
        pace.learn(pace.chunk, pace.chunk * 1e-6, pace.chunk * 8)
    assert (pace.chunk, pace.width) == (16, 64)


def test_large_results_that_come_quickly_travel_together_up_to_4_mb():
    pace = Pace(2, 64, None)
    for _ in range(6):
        pace.learn(pace.chunk, pace.chunk * 50e-6, pace.chunk * 600_000)
    assert pace.chunk == 6
    pace.learn(6, 6 * 50e-6, 6 * 24_000_000)
    assert pace.chunk == 1


def test_a_window_that_nobody_set_holds_64_mb_at_most():
    pace = Pace(2, None, None)
    for _ in range(12):
        pace.learn(pace.chunk, pace.chunk * 1e-6, pace.chunk * 8)
    pace.learn(1, 0.001, 8_000_000)
    assert pace.width == 8
    pace.learn(1, 0.001, 600_000_000)
    assert pace.width == 4  # two a worker, whatever they are


def test_what_is_handed_back_goes_out_again_in_its_place():
    run, window = make(8, prefetch=8, chunksize=4)
    window.fill()
    run.answer(4)
    run.on_wait = lambda: run.answer(0, ["r0"])
    assert window.one() == "r0"
    assert {ticket: list(chunk.keys) for ticket, chunk in run.submitted.items()} == {1: [1, 2, 3]}
    run.answer(1)
    assert [window.one() for _ in range(7)] == [f"r{n}" for n in range(1, 8)]
    assert window.one() is None


def test_the_oldest_is_always_submitted_even_where_the_window_has_become_narrow():
    run, window = make(2000, chunksize=None)
    for _ in range(9):
        window.fill()
        for ticket in sorted(run.submitted):
            run.answer(ticket, elapsed=len(run.submitted[ticket]) * 1e-6)
        window.one()
    window.fill()
    first = window.delivered
    for ticket in sorted(run.submitted):  # everything that is out comes back, all but the oldest of it huge
        run.answer(ticket, nbytes=10**12)
    given = 0
    run.on_wait = lambda: run.answer(min(run.submitted), nbytes=10**12)
    while (result := window.one()) is not None:
        assert result == f"r{first + given}"
        given += 1
    assert first + given == 2000


def test_a_source_that_raises_does_so_after_its_results():
    def source():
        yield 0
        yield 1
        raise OSError("broken")

    run, window = make(prefetch=5, source=Arguments([source()], strict=False))
    run.on_wait = lambda: run.answer(min(run.submitted))
    assert window.one() == "r0"
    assert window.one() == "r1"
    with pytest.raises(OSError, match="broken"):
        window.one()
    assert window.one() is None


def test_a_ready_head_goes_out_before_a_slow_source_is_pulled_again():
    pulled = []

    def source():
        for n in range(4):
            threading.Event().wait(0.001)
            run.answers += [(t, Answer(["r"], 1.0, 1, "hand")) for t in list(run.submitted)]
            run.submitted.clear()
            pulled.append(n)
            yield n

    run, window = make(prefetch=4, source=Arguments([source()], strict=False))
    assert window.one() == "r"
    assert pulled == [0, 1]


def test_small_chunks_that_have_come_are_given_out_together():
    run, window = make(200, prefetch=64)
    window.fill()
    for ticket in range(30):
        run.answer(ticket, [Raised(ValueError())] if ticket == 10 else None)
    results = [f"r{n}" for n in range(200)]

    def take():
        given = window.take()
        assert window.in_flight == 64 and len(run.log) == window.delivered + 64
        taken = given[::-1]
        given.clear()
        return taken

    assert take() == results[:8]  # an eighth of the window: that much it is behind before it is filled again
    assert take() == results[8:10]
    assert type(window.take()) is Raised
    assert take() == results[11:19]
    assert take() == results[19:27]
    assert take() == results[27:30]  # the others have not come
    assert window.most_in_flight == 64


@pytest.mark.parametrize(("prefetch", "together"), [(1, 1), (15, 1), (16, 2), (128, 16), (5000, 16)])
def test_a_window_is_behind_by_an_eighth_or_16_items_at_most(prefetch, together):
    run, window = make(10_000, prefetch=prefetch)
    window.fill()
    for ticket in range(prefetch):
        run.answer(ticket)
    assert len(window.take()) == together


class Closed(Sealed):
    opened: ClassVar[list[int]] = []

    def __init__(self, number):
        self.number = number

    def open(self):
        self.opened.append(self.number)
        if self.number == 5:
            raise ValueError("this one is spoilt")
        return self.number


def test_what_must_be_opened_is_so_some_at_a_time_and_a_failure_among_them_waits_its_turn():
    Closed.opened.clear()
    run, window = make(40, prefetch=40, chunksize=40)
    window.fill()
    run.answer(0, [Closed(n) for n in range(40)])
    assert [window.one() for _ in range(5)] == [0, 1, 2, 3, 4]
    assert Closed.opened == [0, 1, 2, 3, 4, 5]
    raised = window.one()
    assert (type(raised), raised.index, window.delivered, window.in_flight) == (Raised, 5, 6, 34)
    assert "this one is spoilt" in str(raised.error)
    assert window.one() == 6
    assert len(Closed.opened) == 6 + 16  # each once, and the rest when it is needed
    assert [window.one() for _ in range(33)] == list(range(7, 40))
    assert Closed.opened == list(range(40))
    assert (window.delivered, window.in_flight, window.take()) == (40, 0, None)


def test_wake_ends_a_take():
    run, window = make(prefetch=2)
    run.on_wait = window.wake
    assert window.one() is None


def test_close_lets_go_of_everything():
    run, window = make(prefetch=4)
    window.fill()
    assert window.remaining() == 10
    window.close()
    assert (window.in_flight, window.one()) == (0, None)


@pytest.mark.parametrize("bad", [[0, 1, 99, 2], [99, 0, 1, 2], [0, 1, 2, 99], [0, "x", 1, 2]])
@pytest.mark.parametrize("chunksize", [1, 2, 4])
def test_a_bad_index_is_alone_in_its_chunk(bad, chunksize):
    run, window = make(prefetch=8, chunksize=chunksize, source=Indices(range(10), 1, iter(bad)))
    run.on_wait = lambda: run.answer(min(run.submitted))
    found = [window.one() for _ in range(4)]
    assert window.one() is None
    assert [x if type(x) is str else type(x.error) for x in found] == [
        f"r{key}" if type(key) is int and key < 10 else (IndexError if type(key) is int else TypeError) for key in bad
    ]


def test_patience_is_for_adaptive_chunks_alone():
    assert Pace(2, 8, 4).patience is None
    assert Pace(2, 8, None).patience == PATIENCE
    assert Job(abs, None).patience is None


def test_what_is_given_out_as_a_list_counts_until_it_is_taken():
    run, window = make(12, prefetch=8, chunksize=4)
    window.fill()
    run.answer(0)
    given = window.take()
    assert given == ["r3", "r2", "r1", "r0"]
    lengths = []
    while given:
        lengths.append((window.in_flight, window.remaining(), window.delivered))
        given.pop()
    assert lengths == [(8, 12, 0), (7, 11, 1), (6, 10, 2), (5, 9, 3)]
    assert run.log == [0, 4]
    window.fill()
    assert run.log == [0, 4, 8]
    assert (window.in_flight, window.delivered) == (8, 4)


def test_a_wide_window_is_filled_with_ever_larger_chunks_and_whole():
    run, window = make(100_000, prefetch=5003, chunksize=None)

    def collect(*, wait):
        for ticket in list(run.submitted):
            run.answer(ticket, elapsed=1e-7 * len(run.submitted[ticket]), nbytes=len(run.submitted[ticket]))
        answers, run.answers = run.answers, []
        return answers

    run.collect = collect
    window.fill()
    assert window.in_flight == 5003
    assert 64 < len(run.log) < 120
    assert window.take()[-1] == "r0"


@pytest.mark.parametrize("most", [1, 5, 64, 256, 1000])
@pytest.mark.parametrize("ends", [0, 1, 63, 300, 1000])
def test_a_puller_takes_what_it_may_and_stops_where_its_source_does(most, ends):
    pulled = []

    def source():
        for n in range(ends):
            pulled.append(n)
            yield n
        raise LookupError("here")

    puller, given = Puller(source()), []
    while len(given) < ends:
        some = puller.fill(Load(most)).keys
        assert 1 <= len(some) <= most
        given += some
        assert len(pulled) == len(given)
    assert given == list(range(ends))
    with pytest.raises(LookupError, match="here"):
        puller.fill(Load(most))
    assert puller.ended
    assert puller.fill(Load(most)).keys == []


def test_a_puller_does_not_ask_a_source_again_that_has_ended():
    ends = iter([1, 2, None, 3])
    puller = Puller(iter(lambda: next(ends), None))
    assert puller.fill(Load(100)).keys == [1, 2]
    assert puller.ended


def test_a_puller_leaves_a_source_that_turns_slow_after_a_row(monkeypatch):
    now = 0.0

    def source():
        nonlocal now
        for n in itertools.count():
            now += 0.002 if n >= 256 else 1e-7
            yield n

    monkeypatch.setattr("ordmap.pulling.time.perf_counter", lambda: now)
    puller = Puller(source())
    assert len(puller.fill(Load(256)).keys) == 256
    assert len(puller.fill(Load(256)).keys) == 16
    assert len(puller.fill(Load(1)).keys) == 1


@pytest.mark.parametrize("items", [[*range(300)], tuple(range(300)), range(300), dict.fromkeys(range(300)), "x" * 300])
def test_a_puller_takes_what_can_not_be_slow_in_one_row(items, monkeypatch):
    looks = itertools.count()
    monkeypatch.setattr("ordmap.pulling.time.perf_counter", lambda: float(next(looks)))  # a second goes by
    puller = Puller(iter(items))
    assert puller.fill(Load(256)).keys == list(items)[:256]
    assert puller.fill(Load(256)).keys == list(items)[256:]
    assert puller.ended


def test_what_keeps_a_run_from_going_on_comes_after_what_has_come():
    run, window = make(1000, prefetch=200, chunksize=None)
    answered = iter(range(1000))

    def collect(*, wait):
        if len(run.log) > 70:
            raise OrdmapError("the workers are gone")
        for _ in run.submitted.copy():
            run.answer(next(answered))
        answers, run.answers = run.answers, []
        return answers

    run.collect = collect
    window.fill()
    come = sum(slot.answer is not None for slot in window._slots)
    assert 64 <= come < len(window._slots)
    assert [window.one() for _ in range(come)] == [f"r{n}" for n in range(come)]
    submitted = len(run.log)
    for _ in range(2):
        with pytest.raises(OrdmapError, match="the workers are gone"):
            window.one()
    assert len(run.log) == submitted


@pytest.mark.parametrize("took", [0.0, 0.001])
def test_small_pickles_are_opened_together_as_long_as_that_is_quick(took, monkeypatch):
    clock = itertools.count(step=took / 16)
    monkeypatch.setattr("ordmap.window.time.perf_counter", lambda: next(clock))
    run, window = make(400, prefetch=400, chunksize=400)
    window.fill()
    run.answers.append((0, Answer([pickle.dumps([n]) for n in range(400)], 1.0, 400, "hand", pickled=True)))
    run.submitted.clear()
    given = window.take()
    assert len(given) == (400 if not took else 64)
    assert given[::-1] == [[n] for n in range(len(given))]


class Clock:
    """A clock that stands still unless it is told otherwise, or somebody sleeps."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr("ordmap.window.time", self)

    def perf_counter(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


@pytest.mark.parametrize(("takes", "singly"), [(0.0, 100), (0.001, 100), (0.02, 12), (0.04, 6), (10.0, 0)])
def test_what_a_source_gives_at_once_after_a_silence_goes_out_before_it_is_silent_again(takes, singly, monkeypatch):
    clock = Clock(monkeypatch)
    given, given_at_pull, due = [], [], {}

    def source():
        for n in range(102):
            clock.now += 1.0 if n in {0, 1} else 1e-6
            given_at_pull.append(len(given))
            yield n

    run, window = make(prefetch=64, chunksize=None, source=Arguments([source()], strict=False))

    def collect(*, wait):
        for ticket in list(run.submitted):
            when = due.setdefault(ticket, clock.now + takes)
            if wait:
                clock.now = max(clock.now, when)
            if clock.now >= when:
                run.answer(ticket, elapsed=takes * len(run.submitted[ticket]), nbytes=10)
        answers, run.answers = run.answers, []
        return answers

    run.collect = collect
    while (one := window.one()) is not None:
        given.append(one)
    assert given == [f"r{n}" for n in range(102)]
    behind = [n - seen for n, seen in enumerate(given_at_pull)]
    alone = next((n for n, one in enumerate(behind[2:]) if one > 1), 100)
    assert singly - 1 <= alone <= singly + 1
    assert max(behind) <= 63


def test_a_source_that_is_always_quick_is_trusted_soon(monkeypatch):
    clock = Clock(monkeypatch)
    pulls = []

    def source():
        for n in itertools.count():
            pulls.append(clock.now)
            yield n

    run, window = make(prefetch=1024, chunksize=None, source=Arguments([source()], strict=False))

    def collect(*, wait):
        clock.now += 0.0001
        for ticket in list(run.submitted):
            run.answer(ticket, elapsed=1e-7 * len(run.submitted[ticket]), nbytes=10)
        answers, run.answers = run.answers, []
        return answers

    run.collect = collect
    for _ in range(5000):
        window.one()
    assert 10 < sum(when < 0.0015 for when in pulls) < 40
    assert len(run.log) < 150


def test_who_may_not_wait_trusts_a_source_at_once(monkeypatch):
    Clock(monkeypatch)
    run, window = make(prefetch=1000, chunksize=None, source=Arguments([iter(range(5000))], strict=False))
    found = []
    while len(found) < 5000:
        for ticket in list(run.submitted):
            run.answer(ticket, elapsed=1e-7 * len(run.submitted[ticket]), nbytes=10)
        if type(given := window.take(wait=False)) is list:
            found += given[::-1]
            given.clear()
    assert found == [f"r{n}" for n in range(5000)]
    assert len(run.log) < 1100  # the first window went out before anything came
