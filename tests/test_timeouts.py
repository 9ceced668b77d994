"""``item_timeout``: what is ended, what is left alone, and that nothing else is."""

from __future__ import annotations

import gc
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
import weakref

import numpy
import pytest

from ordmap import ItemTimeoutError, OrdmapError, Processes, Spawn, Threads, ordered_imap, ordered_map
from ordmap.backends import portable
from ordmap.backends.watch import run_in_time
from ordmap.engine import available
from ordmap.item import InHand, Label
from ordmap.outcome import Raised
from ordmap.testing import outcomes, wait_until

engine = pytest.mark.skipif(not available(), reason="the engine is for Linux")
engines = pytest.mark.parametrize("make", [pytest.param(Processes, marks=engine), pytest.param(Spawn, marks=engine)])

#: A matching that backtracks for hours, in C, with the GIL held.
ENDLESS = r"(a+)+$", "a" * 60 + "b"


def match(arguments):
    return bool(re.match(*arguments))


class SlowToPickle:
    def __reduce__(self):
        time.sleep(0.6)
        return int, (7,)


# What is refused


@pytest.mark.parametrize("value", ["3", True, numpy.True_, b"1", bytearray(b"1"), [1], object()])
def test_what_is_no_number_of_seconds_is_refused(value):
    with pytest.raises(TypeError, match=r"item_timeout must be a number of seconds or None.*item_timeout=30"):
        ordered_imap("abc", item_timeout=value)


@pytest.mark.parametrize("value", [0, -1, 0.0, math.nan, math.inf])
def test_what_can_be_no_limit_is_refused(value):
    with pytest.raises(ValueError, match=r"it must be more than 0.*item_timeout=None for no limit"):
        ordered_map(abs, [1], item_timeout=value)


@pytest.mark.parametrize("value", [5, 5.0, numpy.float32(5), numpy.int8(5), 1e300, 10**400, None])
@pytest.mark.parametrize("backend", ["serial", "threads", "processes"])
def test_any_number_of_seconds_will_do(value, backend):
    assert list(ordered_imap("abc", backend=backend, item_timeout=value)) == ["a", "b", "c"]


# Worker processes


@engines
def test_an_item_that_holds_the_gil_in_c_is_ended(make):
    inputs = [("a", "a"), ENDLESS, ("b", "a"), ("c", "c")]
    found = outcomes(ordered_map(match, inputs, prefetch=4, backend=make(2), item_timeout=0.5))
    error = found.pop(1)
    assert found == [True, False, True]
    assert isinstance(error, ItemTimeoutError)
    assert "ran for 0.5 s with item_timeout=0.5, and was ended, with its worker" in str(error)
    frames = re.findall(r'File "(.*)", line \d+ in (\w+)', error.stack)
    assert frames[0][1] == "match"
    assert frames[0][0].endswith("__init__.py")
    assert not [file for file, _ in frames if "ordmap/engine" in file]


@engines
def test_an_item_that_is_ended_ends_with_what_it_launched(make):
    def launch(index):
        if index == 1:
            subprocess.run(["sleep", "60"], check=False)
        return index

    found = outcomes(ordered_map(launch, range(3), backend=make(2), item_timeout=0.5))
    assert isinstance(found[1], ItemTimeoutError)  # the fixture sees to the rest


@engines
@pytest.mark.parametrize("prefetch", [None, 16])
def test_many_time_outs_cost_no_other_item(make, prefetch):
    def work(index):
        if index % 7 == 3:
            time.sleep(60)
        return numpy.full(30_000, index)

    numbers = ordered_map(work, range(30), prefetch=prefetch, backend=make(2), item_timeout=0.4)
    for index, found in enumerate(outcomes(numbers)):
        if index % 7 == 3:
            assert isinstance(found, ItemTimeoutError)
            assert found.index == index
        else:
            assert (found == index).all()


@engines
def test_short_items_are_timed_one_by_one_though_not_each_sets_the_clock(make):
    """Together they take several times the limit, in chunks that take long, too."""

    def work(index):
        time.sleep(0.002)
        return index, os.getpid()

    with make(2) as pool:
        for chunksize in (None, 256):
            found = [*ordered_map(work, range(1000), prefetch=512, backend=pool, chunksize=chunksize, item_timeout=0.4)]
            assert [index for index, _ in found] == [*range(1000)]
            assert len({pid for _, pid in found}) <= 2


@engines
def test_a_worker_that_waits_is_not_timed(make):
    numbers = ordered_map(lambda _: os.getpid(), range(40), prefetch=4, backend=make(1), item_timeout=0.2)
    pids = {next(numbers) for _ in range(10)}
    time.sleep(0.6)
    assert {*numbers} == pids


@engines
@pytest.mark.parametrize("seconds", [0, 0.02])
def test_what_comes_after_an_item_is_not_timed(make, seconds):
    def work(_):
        time.sleep(seconds)
        return SlowToPickle()

    assert list(ordered_map(work, range(3), backend=make(2), item_timeout=0.4)) == [7, 7, 7]


@engines
def test_one_pool_may_have_runs_with_limits_and_without(make):
    with make(2, static_dataset=True) as pool:
        naps = [0.0, 0.5, 0.0]
        for limit in (0.2, None, 0.2, 5):
            found = outcomes(ordered_map(time.sleep, naps, backend=pool, item_timeout=limit))
            assert [type(one) for one in found] == [type(None), ItemTimeoutError if limit == 0.2 else type(None)] + [
                type(None)
            ]


@engines
def test_the_clock_goes_on_in_a_worker_of_a_worker(make):
    def outer(_):
        inner = ordered_map(match, [("a", "a"), ENDLESS], workers=2, backend="processes", item_timeout=0.3)
        return [getattr(one, "stack", one) for one in outcomes(inner)]

    ((first, stack),) = ordered_map(outer, [0], backend=make(1), item_timeout=20)
    assert first is True
    assert " in match" in stack


@engines
def test_a_time_out_is_one_though_the_item_has_closed_all_files(make):
    def work(index):
        if index == 1:
            os.closerange(3, 4096)
            time.sleep(60)
        return index

    found = outcomes(ordered_map(work, range(4), backend=make(2), item_timeout=0.5))
    assert isinstance(found[1], ItemTimeoutError)
    assert found[1].stack == ""
    assert found[0::2] == [0, 2]


@engines
def test_a_time_out_is_no_death_and_a_death_no_time_out(make):
    def work(index):
        if index == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if index == 2:
            time.sleep(60)
        return index

    found = outcomes(ordered_map(work, range(4), backend=make(2), item_timeout=0.5))
    assert [type(one).__name__ for one in found] == ["int", "WorkerDiedError", "ItemTimeoutError", "int"]


@engines
def test_the_clock_is_made_ready_again_where_other_items_have_used_its_signal(make):
    def use_it(_):
        signal.signal(signal.SIGALRM, lambda *_: None)
        signal.setitimer(signal.ITIMER_REAL, 0)

    with make(1) as pool:
        assert list(ordered_map(abs, [0], backend=pool, item_timeout=20)) == [0]
        assert list(ordered_map(use_it, [0], backend=pool)) == [None]
        (found,) = outcomes(ordered_map(match, [ENDLESS], backend=pool, item_timeout=0.3))
        assert " in match" in found.stack


@engine
def test_a_time_out_is_one_though_somebody_else_waits_for_our_children(script):
    program = script(
        """
import signal, time
from ordmap import ordered_map

signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # so that the kernel does
numbers = ordered_map(time.sleep, [0, 60], workers=1, item_timeout=0.3)
assert next(numbers) is None
try:
    next(numbers)
except TimeoutError as error:
    print(error.index)
"""
    )
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("1\n", "", 0)


@engine
def test_a_timer_that_the_caller_has_set_by_faulthandler_holds_no_worker_up(script):
    """A fork inherits it without its thread: `faulthandler` would wait for that for ever."""
    program = script(
        """
import faulthandler, time
from ordmap import ordered_map

faulthandler.dump_traceback_later(1000)
numbers = ordered_map(time.sleep, [0, 60, 0], workers=2, item_timeout=0.3)
assert next(numbers) is None
try:
    next(numbers)
except TimeoutError as error:
    print(error.index)
assert next(numbers) is None
"""
    )
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("1\n", "", 0)


@engine
def test_a_child_that_an_item_forks_has_no_clock(tally):
    def work(index):
        if index == 1 and not os.fork():
            time.sleep(0.9)
            tally.add()
            os._exit(0)
        return index

    numbers = ordered_map(work, range(5), workers=1, prefetch=2, item_timeout=0.5)
    assert [next(numbers) for _ in range(3)] == [0, 1, 2]
    wait_until(lambda: int(tally), "the child has come to its end")
    assert list(numbers) == [3, 4]


# Threads


def test_another_thread_takes_the_place_of_one_that_hangs():
    def workers():
        return set(threading.enumerate()) - before

    before = set(threading.enumerate())
    release = threading.Event()

    def work(index):
        if index % 4 == 1:
            release.wait(60)
        return index

    with Threads(2) as pool:
        numbers = ordered_map(work, range(12), prefetch=12, backend=pool, item_timeout=0.2)
        found = outcomes(numbers)
        assert [index for index, one in enumerate(found) if isinstance(one, ItemTimeoutError)] == [1, 5, 9]
        assert [one for one in found if isinstance(one, int)] == [0, 2, 3, 4, 6, 7, 8, 10, 11]
        assert len(workers()) == 5  # two to work, and three that are left alone
        release.set()
        wait_until(lambda: len(workers()) == 2, "they have ended")
        assert list(ordered_map(work, range(4), backend=pool)) == [0, 1, 2, 3]


def test_another_run_on_the_same_threads_gets_on_though_nobody_asks_for_what_hangs():
    release = threading.Event()
    with Threads(2) as pool:
        hanging = ordered_map(lambda _: release.wait(60), range(2), prefetch=2, backend=pool, item_timeout=0.2)
        hanging.start()
        assert list(ordered_map(abs, range(5), backend=pool)) == [*range(5)]
        found = outcomes(hanging)
        release.set()
    assert [type(one) for one in found] == [ItemTimeoutError] * 2


def test_what_a_thread_gives_that_was_left_alone_comes_nowhere():
    release = threading.Event()
    worked = []

    def work(index):
        if index == 1:
            release.wait(60)
        worked.append(index)
        return index

    with Threads(1) as pool:
        numbers = ordered_map(work, range(6), prefetch=6, backend=pool, chunksize=3, item_timeout=0.2)
        found = [next(numbers)]
        with pytest.raises(ItemTimeoutError):
            next(numbers)
        release.set()
        found += numbers
        wait_until(lambda: 1 in worked, "the item has come to its end")
    assert found == [0, 2, 3, 4, 5]
    assert sorted(worked) == [0, 1, 2, 3, 4, 5]


def test_a_thread_left_alone_keeps_no_results_of_others_alive():
    release = threading.Event()
    made = []

    def work(index):
        if index == 2:
            release.wait(60)
        result = numpy.full(3, index)
        made.append(weakref.ref(result))
        return result

    numbers = ordered_map(work, range(3), workers=1, backend="threads", prefetch=3, chunksize=3, item_timeout=0.2)
    assert [next(numbers)[0] for _ in range(2)] == [0, 1]
    with pytest.raises(ItemTimeoutError):
        next(numbers)
    gc.collect()
    assert [ref() for ref in made] == [None, None]
    numbers.close()
    release.set()


def test_a_thread_that_takes_anothers_place_lets_signals_through():
    """Its programs could not be ended by them, else."""

    def work(index):
        if index == 0:
            release.wait(60)
        return signal.pthread_sigmask(signal.SIG_BLOCK, ())

    release = threading.Event()
    found = outcomes(ordered_map(work, range(4), workers=1, backend="threads", item_timeout=0.2))
    release.set()
    assert isinstance(found.pop(0), ItemTimeoutError)
    assert found == [set()] * 3


def test_where_no_thread_can_be_started_that_is_said_and_nothing_is_lost(monkeypatch):
    def refuse(_):
        raise RuntimeError("can't start new thread")

    release = threading.Event()
    with Threads(2) as pool:
        one = ordered_map(lambda _: release.wait(60), range(2), prefetch=2, backend=pool, item_timeout=0.2).start()
        other = ordered_map(abs, range(3), backend=pool)
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            with pytest.raises(OrdmapError, match="no thread can be started to go on with the others: can't start"):
                next(other)
        time.sleep(0.4)  # both are too late by now
        release.set()
        assert [type(error) for error in outcomes(one)] == [ItemTimeoutError] * 2


def test_a_pool_that_is_closed_with_a_thread_left_alone_hires_nobody():
    release = threading.Event()
    before = set(threading.enumerate())
    numbers = ordered_map(lambda _: release.wait(60), range(4), workers=2, backend="threads", item_timeout=0.1)
    with pytest.raises(ItemTimeoutError):
        next(numbers)
    numbers.close()
    release.set()
    wait_until(lambda: set(threading.enumerate()) <= before, "all threads have ended")


def test_an_item_is_not_given_up_that_ends_in_time():
    """The thread that watches looks at the very moment: whichever of the two comes first, the outcome is one."""
    for n in range(60):
        seconds = 0.005 + n / 20_000
        hand = InHand(0, 1)
        hand.take([seconds], Label(first=n), None)
        (outcome,), _ = run_in_time(time.sleep, hand, None, 0.0065)
        assert outcome is None or (type(outcome) is Raised and outcome.error.elapsed > 0.0065)


# Executors


@pytest.mark.parametrize("make", [portable.Processes, portable.Spawn])
def test_the_portable_processes_leave_an_item_alone(make):
    with make(1) as pool:
        found = outcomes(ordered_map(time.sleep, [0, 1.2, 0], prefetch=3, backend=pool, item_timeout=0.4))
        assert [type(one) for one in found] == [type(None), ItemTimeoutError, type(None)]
        assert list(ordered_map(abs, range(4), backend=pool)) == [0, 1, 2, 3]
