"""Signals whose handlers raise, or use ordmap, at the worst of instants: nothing is lost, nothing stays behind."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from ordmap import FromExecutor, OrdmapError, Processes, Spawn, Threads, ordered_imap, ordered_map
from ordmap.backends import portable
from ordmap.backends.executor import ExecutorRun
from ordmap.engine import available, channel, ledger, message
from ordmap.engine.pool import Crew
from ordmap.interrupts import uninterrupted
from ordmap.window import Window
from test_engine import Items, children, nothing_left, until  # noqa: F401

pytestmark = pytest.mark.skipif(not available(), reason="the engine is for Linux")


class Interrupt(BaseException):
    pass


def interrupt(*_):
    raise Interrupt


@contextlib.contextmanager
def handling(**handlers):
    """Have handlers for signals: ``SIGUSR1=function``."""
    before = {name: signal.signal(getattr(signal, name), handler) for name, handler in handlers.items()}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)


@contextlib.contextmanager
def signalled(when):
    """Have SIGUSR1 arrive at the first call for which ``when(frame, event, argument)`` is true."""

    def profile(frame, event, argument):
        if when(frame, event, argument):
            sys.setprofile(None)
            came.append(True)
            signal.raise_signal(signal.SIGUSR1)

    came = []
    sys.setprofile(profile)
    try:
        yield
    finally:
        sys.setprofile(None)
        assert came, "it did not arrive"


def at(function, caller=None):
    """Return what is true when a function is called (by another)."""

    def when(frame, event, _):
        called = event == "call" and frame.f_code is function.__code__
        return called and (caller is None or frame.f_back.f_code is caller.__code__)

    return when


@contextlib.contextmanager
def two_at_work(*windows):
    """Have two runs of one pool in the midst of their items, 100 each, of which each has given its first."""

    def item(i):
        time.sleep(0.01)
        return i

    with Processes(1) as pool:
        runs = [ordered_imap(Items(100, item), backend=pool, prefetch=window, chunksize=1) for window in windows]
        assert [next(run) for run in runs] == [0, 0]
        yield runs


@pytest.mark.parametrize("way", ["close", "drop"])
@pytest.mark.parametrize("instant", [Crew.close_run, Crew._settle, Crew._leave, Crew.end])
def test_a_close_that_is_cut_short_is_finished(way, instant):
    results = ordered_imap(range(1000), 2, backend="processes")
    next(results)
    assert children()
    with handling(SIGUSR1=interrupt):
        if way == "close":
            with pytest.raises(Interrupt), signalled(at(instant)):
                results.close()
            del results
        else:
            with pytest.raises(Interrupt), signalled(at(instant)):
                del results
                until(lambda: False)  # the handler runs once its exception can be heard
    assert not children()


def test_a_handler_that_closes_the_iterator_while_a_dead_worker_is_buried():
    results = ordered_imap(Items(50, lambda i: i if i != 5 else os._exit(3)), 1, 4, chunksize=1)
    assert next(results) == 0
    with handling(SIGUSR1=lambda *_: results.close()), signalled(at(Crew._receive, Crew._bury)):
        assert set(results) <= {1, 2, 3, 4}
    assert not children()


def test_a_handler_that_asks_a_pool_while_another_run_of_it_is_closed_waits_for_that():
    def sorts(frame, event, argument):
        inside = frame.f_code is ledger.Ledger._take_back.__code__
        return event == "c_call" and inside and argument.__name__ == "sort"

    with two_at_work(4, 8) as (one, other):
        got = []
        with handling(SIGUSR1=lambda *_: got.extend(next(other) for _ in range(8))), signalled(sorts):
            one.close()
        assert got == list(range(1, 9))


def test_a_handler_that_raises_while_another_run_of_the_pool_is_closed_costs_that_nothing(tmp_path):
    def received(frame, event, result):
        inside = frame.f_code is channel.receive.__code__ and frame.f_back.f_code is ledger.Ledger._take_back.__code__
        return event == "return" and inside and result is not None

    def item(i):
        if i:
            until(gate.exists)  # with the items after it in the channel
        return i

    gate = tmp_path / "gate"
    with Processes(1) as pool:
        one, other = (ordered_imap(Items(100, f), backend=pool, prefetch=4, chunksize=1) for f in (str, item))
        assert next(one) == "0"
        assert next(other) == 0
        with handling(SIGUSR1=interrupt), pytest.raises(Interrupt), signalled(received):
            one.close()
        gate.touch()
        assert list(other) == list(range(1, 100))


@pytest.mark.parametrize("instant", [Crew._note_strays, ledger.Ledger.strike_run])
def test_a_close_of_an_endless_item_that_is_cut_short_gives_the_worker_back(instant):
    with Processes(1) as pool:
        one = ordered_imap(Items(100, lambda i: i and time.sleep(600)), backend=pool, prefetch=4, chunksize=1)
        assert next(one) == 0
        with handling(SIGUSR1=interrupt), pytest.raises(Interrupt), signalled(at(instant)):
            one.close()
        assert list(ordered_imap(range(5), backend=pool)) == list(range(5))


def test_a_chunk_of_a_run_that_a_handler_closes_before_it_is_sent_holds_up_nobody():
    with Processes(1) as pool:
        one = ordered_imap(Items(100, lambda i: i and time.sleep(600)), backend=pool, prefetch=1, chunksize=1)
        assert next(one) == 0
        with handling(SIGUSR1=lambda *_: one.close()), signalled(at(message.send_orders)):
            assert list(one) == []
        assert list(ordered_imap(range(5), backend=pool)) == list(range(5))


@pytest.mark.parametrize("chunksize", [8, 100])
@pytest.mark.parametrize("instant", [Window.take, Window._give])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_nothing_is_given_after_a_close_that_overtakes_a_call(chunksize, instant, asynchronous):
    def taken(frame, event, _):
        return event == "return" and frame.f_code is instant.__code__

    async def collected():
        return [result async for result in results]

    results = ordered_imap(range(400), 2, 400, backend="threads", chunksize=chunksize)
    with handling(SIGUSR1=lambda *_: results.close()), signalled(taken):
        assert (asyncio.run(collected()) if asynchronous else list(results)) == []
    assert asyncio.run(collected()) == []
    assert next(results, "over") == "over"
    assert results.stats.delivered == 0
    assert results.state_dict()["position"] == 0


@pytest.mark.parametrize("backend", ["threads", "processes"])
def test_wherever_a_handler_looks_or_closes_it_too_a_closed_iterator_says_where_it_was(backend):
    def closed_with(step, instant):
        """Close it, and take the step at so many calls and returns of that; tell whether there were so many."""
        left = instant

        def profile(*_):
            nonlocal left
            left -= 1
            if left == 0:
                sys.setprofile(None)
                step()

        sys.setprofile(profile)
        try:
            results.close()
        finally:
            sys.setprofile(None)
        return left <= 0

    def look():
        assert results.state_dict()["position"] == 10
        assert results.stats.delivered == 10

    with {"threads": Threads, "processes": Processes}[backend](1) as pool:
        for close in (False, True):
            for instant in itertools.count(1):
                results = ordered_map(abs, range(1000), backend=pool, chunksize=50, prefetch=200)
                assert [next(results) for _ in range(10)] == list(range(10))
                is_within = closed_with(results.close if close else look, instant)
                look()
                assert next(results, "over") == "over"
                if not is_within:
                    break
            assert instant > 20


def test_a_static_dataset_of_an_executor_outlives_a_close_that_is_cut_short():
    def closed(frame, event, _):
        return event == "return" and frame.f_code is ExecutorRun.close.__code__

    dataset = Items(1000, lambda i: i)
    dataset.lock = threading.Lock()  # so that it can't be pickled
    with ThreadPoolExecutor(1) as executor, FromExecutor(executor, static_dataset=True) as backend:
        one = ordered_imap(dataset, backend=backend, prefetch=4)
        assert next(one) == 0
        with handling(SIGUSR1=interrupt), pytest.raises(Interrupt), signalled(closed):
            one.close()
        del one
        with ordered_imap(dataset, backend=backend, prefetch=4) as other:
            assert [next(other) for _ in range(3)] == [0, 1, 2]


INTERRUPTS = """
import random, signal, sys, time
from ordmap.interrupts import postponed, uninterrupted

class Interrupt(BaseException):
    pass

def interrupt(*_):
    raise Interrupt

def wait():
    signal.setitimer(signal.ITIMER_REAL, 1e-6 + random.random() * float(sys.argv[2]))
    with uninterrupted() if sys.argv[1] == "uninterrupted" else postponed(lambda _: False, None):
        pass
    time.sleep(0.001)

def settle():
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.raise_signal(signal.SIGALRM)  # Python may have missed the last one until now

# A loop has a function of its own: see interrupts.py.
def catch(function):
    try:
        function()
    except Interrupt:
        return

def wait_often():
    while time.monotonic() < end:
        catch(wait)
        catch(settle)
        assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()), "signals are blocked"
        assert signal.getsignal(signal.SIGALRM) is interrupt
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

signal.signal(signal.SIGALRM, interrupt)
end = time.monotonic() + 1
while time.monotonic() < end:
    catch(wait_often)
    catch(settle)
"""


@pytest.mark.parametrize(("wait", "most"), [("uninterrupted", 2e-4), ("postponed", 6e-5)])
def test_no_instant_of_a_wait_leaves_signals_blocked_or_handlers_replaced(wait, most, script):
    command = [sys.executable, script(INTERRUPTS), wait, str(most)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_signals_wait_in_a_worker_too():
    def item(_):
        with uninterrupted():
            return len(signal.pthread_sigmask(signal.SIG_BLOCK, ())) > 10

    assert list(ordered_imap(Items(2, item), 1)) == [True, True]


IN_ANOTHER_INTERPRETER = '''
import sys

program = """
from ordmap import ordered_imap

results = ordered_imap(range(10), 1, 2, backend="threads")
print(next(results), flush=True)
del results
print("dropped", flush=True)
"""
if sys.version_info >= (3, 13):
    import _interpreters

    error = _interpreters.run_string(_interpreters.create("legacy"), program)
    assert error is None, error.formatted
else:
    import _xxsubinterpreters

    _xxsubinterpreters.run_string(_xxsubinterpreters.create(isolated=False), program)
'''


def test_an_iterator_is_dropped_in_another_interpreter(script):
    """It has no handlers of its own, and may set none."""
    command = [sys.executable, script(IN_ANOTHER_INTERPRETER)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "0\ndropped\n", done.stderr


@pytest.mark.parametrize("raised", [SystemExit, TimeoutError, KeyboardInterrupt])
def test_what_a_handler_raises_while_a_dropped_iterator_s_workers_end_is_raised_once(raised):
    def item(i):
        if i:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # so that it takes a while
            time.sleep(600)
        return i

    def handler(*_):
        called.append(True)
        raise raised

    called = []
    results = ordered_imap(Items(10, item), 1, 3, chunksize=1)
    assert next(results) == 0
    sender = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1))
    with handling(SIGUSR1=handler), pytest.raises(raised):
        sender.start()
        del results
        until(lambda: False)
    sender.join()
    assert called == [True]


def test_two_signals_that_arrive_while_handlers_wait_are_both_handled():
    called = []

    def handler(number, _):
        called.append(number)
        raise Interrupt

    with handling(SIGUSR1=handler, SIGUSR2=handler):
        with pytest.raises(Interrupt) as caught, uninterrupted():
            # As where another thread receives them: Python calls the main thread's handlers all the same.
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1, signal.SIGUSR2})
            signal.raise_signal(signal.SIGUSR1)
            signal.raise_signal(signal.SIGUSR2)
            assert not called
    assert called == [signal.SIGUSR1, signal.SIGUSR2]
    assert type(caught.value.__context__) is Interrupt
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_a_run_that_is_closed_while_another_thread_has_the_pool_for_long():
    class Slow(Items):
        def __reduce__(self):
            arrived.set()
            go_on.wait(20)
            raise TypeError("it can't be pickled: others must inherit it")

    arrived, go_on = threading.Event(), threading.Event()
    with Processes(1) as pool:
        one = ordered_imap(range(100), backend=pool, prefetch=2)
        assert next(one) == 0
        before = children()
        slow = Slow(20, lambda i: i)
        other = threading.Thread(target=lambda: list(ordered_imap(slow, backend=pool)))
        other.start()
        assert arrived.wait(20)
        del one  # waits for a while, and leaves the rest to a thread
        go_on.set()
        other.join()
        until(lambda: not before & children())


class Signalling:
    """What sends SIGUSR1 when it is pickled, or when it is unpickled."""

    def __init__(self, when):
        self.when = when

    def __reduce__(self):
        if self.when == "pickled":
            signal.raise_signal(signal.SIGUSR1)
        return signal.raise_signal, (int(signal.SIGUSR1),)


class Handler:
    def __init__(self, kind):
        self.kind = kind

    def __call__(self, number, _):
        raise self.kind(f"told by signal {number}")


HANDLERS = {
    "a function": lambda kind: lambda number, _: Handler(kind)(number, _),
    "an object": Handler,
    "a method": lambda kind: Handler(kind).__call__,
    "a partial function": lambda kind: functools.partial(Handler.__call__, Handler(kind)),
    "one for once": lambda kind: lambda *given: [signal.signal(given[0], signal.SIG_IGN), Handler(kind)(*given)],
}


@pytest.mark.parametrize("kind", [SystemExit, TimeoutError])
@pytest.mark.parametrize("handler", HANDLERS)
@pytest.mark.parametrize("make", [Processes, portable.Processes])
@pytest.mark.parametrize("when", ["unpickled", "pickled"])
def test_what_a_handler_raises_while_the_caller_pickles_and_unpickles_is_not_an_item_s(when, make, handler, kind):
    def work(given):
        return Signalling("unpickled") if given == 3 else given

    inputs = [0, 1, 2, Signalling("pickled") if when == "pickled" else 3, 4]
    results = ordered_map(work, inputs, backend=make(1), prefetch=1, chunksize=1)
    with handling(SIGUSR1=HANDLERS[handler](kind)):
        assert [next(results) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(kind, match="told by signal"):
            next(results)
    results.close()


class Marked(list):
    """A dataset that is signalled about when it is pickled."""

    def __reduce__(self):
        signal.raise_signal(signal.SIGUSR1)
        return Marked, (list(self),)


@pytest.mark.parametrize("kind", [SystemExit, TimeoutError, LookupError])
@pytest.mark.parametrize("make", [Processes, Spawn, portable.Processes])
def test_what_a_handler_raises_while_the_dataset_is_pickled_is_not_the_dataset_s(make, kind):
    with make(1) as pool:
        assert list(ordered_imap([1, 2], backend=pool)) == [1, 2]  # from here on nothing is inherited
        with handling(SIGUSR1=Handler(kind)), pytest.raises(kind, match="told by signal"):
            list(ordered_imap(Marked([1, 2]), backend=pool))
        assert list(ordered_imap([1, 2], backend=pool)) == [1, 2]


class Numbers:
    """The numbers from 0 to 49; a signal arrives in the midst of the thirtieth pull."""

    def __init__(self):
        self.pulled = 0

    def __iter__(self):
        return self

    def __next__(self):
        self.pulled += 1
        if self.pulled == 30:
            self.pulled -= 1
            signal.raise_signal(signal.SIGUSR1)
            self.pulled += 1
        if self.pulled > 50:
            raise StopIteration
        return self.pulled - 1


def test_what_a_handler_raises_while_the_source_is_pulled_from_comes_at_once():
    results = ordered_map(abs, Numbers(), backend=Processes(1), prefetch=40, chunksize=8)
    with handling(SIGUSR1=lambda *given: [signal.signal(given[0], signal.SIG_IGN), Handler(TimeoutError)(*given)]):
        with pytest.raises(TimeoutError, match="told by signal"):
            list(
                results
            )  # in the first next(), or a later one: a source that is slow just now has ready heads go first
        with pytest.raises(OrdmapError, match="ended by the TimeoutError"):
            next(results)
        assert list(results) == []  # as after Ctrl-C
