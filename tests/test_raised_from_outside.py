"""Exceptions that another thread raises in one, as time limits of task queues do: they come, and nothing is left."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import inspect
import itertools
import random
import signal
import subprocess
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar, copy_context

import pytest

from ordmap import Asyncio, Processes, Spawn, Threads, ordered_imap, ordered_map
from ordmap.backends import portable
from ordmap.dropping import close_dropped
from ordmap.engine import available
from ordmap.interrupts import uninterrupted
from ordmap.shielded import hearing, shielded
from test_engine import children, until

pytestmark = [
    pytest.mark.skipif(not available(), reason="the engine is for Linux"),
    # What was just opened when the exception came, and is owned by an object of Python's, is closed by that, which warns
    # of it; and Python itself loses what is raised in a finalizer.
    pytest.mark.filterwarnings(
        "ignore:unclosed (<socket|file|scandir iterator):ResourceWarning",
        r"ignore:(?s)Exception ignored.*\b(Limit|Late)\b:pytest.PytestUnraisableExceptionWarning",
    ),
]


#: Exceptions that come at one instant or another.
ROUNDS = 400


#: Where those came that were made so far.
came = []


class Limit(BaseException):
    def __init__(self, *args):
        super().__init__(*args)
        came.append("".join(traceback.format_stack()))


class Late(Exception):
    def __init__(self, *args):
        super().__init__(*args)
        came.append("".join(traceback.format_stack()))


def raise_in(thread, kind):
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(kind))


def absolute(number):
    time.sleep(0.001)
    return abs(number)


async def awaited(number):
    return abs(number)


@pytest.mark.parametrize("kind", [Limit, Late])
@pytest.mark.parametrize("backend", [Processes, Spawn, Threads, Asyncio])
def test_it_comes_whenever_it_is_raised_and_nothing_is_left(backend, kind):
    began = threading.Event()
    ended = []
    chance = random.Random(f"{backend.name} {kind}")

    def loop():
        try:
            began.set()
            for _ in ordered_map(awaited if backend is Asyncio else absolute, range(100_000), backend=backend(2)):
                pass
        except kind:
            ended.append(True)

    for _ in range(10 if backend is Spawn else 30):
        began.clear()
        came.clear()
        thread = threading.Thread(target=loop)
        thread.start()
        assert began.wait(10)
        time.sleep(0.0002 + chance.random() * (0.1 if backend is Spawn else 0.02))
        raise_in(thread.ident, kind)
        thread.join(30)
        assert not thread.is_alive(), f"it came and was lost: {came}"
        gc.collect()
        until(lambda: not children())
    assert len(ended) == (10 if backend is Spawn else 30)


def calls(function, stop, kind=None):
    """Raise an exception at the n-th instant of ordmap's own at which Python would: where a call begins, or C's returns.

    Not where Python begins to call a finalizer, or goes on with a generator, which it does to end one, too: it loses
    what is raised there. Return how many instants there were until the function had returned, and until its result was
    dropped.
    """
    count = 0

    def profile(frame, event, _):
        nonlocal count
        code = frame.f_code
        begins = event == "call" and code is not close_dropped.__code__ and not code.co_flags & inspect.CO_GENERATOR
        if "/ordmap/" in code.co_filename and (begins or event == "c_return"):
            count += 1
            if count == stop:
                sys.setprofile(None)
                raise_in(threading.get_ident(), kind)

    sys.setprofile(profile)
    try:
        result = function()
        returned = count
        del result
    finally:
        sys.setprofile(None)
    return returned, count


@pytest.mark.parametrize("kind", [Limit, Late])
@pytest.mark.parametrize("backend", [Processes, Spawn, Threads])
def test_it_may_come_at_any_call_of_the_start(backend, kind):
    def start():
        return ordered_map(abs, range(10), backend=backend(1)).start()

    with ThreadPoolExecutor(1) as other:  # not the main thread
        other.submit(lambda: start() and None).result()
        begun, total = other.submit(calls, start, -1).result()
        for stop in range(1, total, max(1, total // 60)):
            # While an iterator is dropped Python may lose it.
            come = pytest.raises(kind) if stop < 0.9 * begun else contextlib.suppress(kind)
            came.clear()
            with come:
                other.submit(calls, start, stop, kind).result()
            gc.collect()
            until(lambda: not children())
            end = time.monotonic() + 10
            while any(thread.name.startswith("ordmap-") for thread in threading.enumerate()):
                assert time.monotonic() < end, f"a thread is left by what came here: {came}"
                time.sleep(0.001)


class Interrupted:
    """Something in the midst of whose pickling an exception comes."""

    def __reduce__(self):
        raise_in(threading.get_ident(), Late)
        time.sleep(0)
        return abs, (1,)


@pytest.mark.parametrize(
    ("backend", "place"),
    [
        *itertools.product([Processes, Spawn, portable.Processes, portable.Spawn], ["input", "dataset", "variable"]),
        (Spawn, "initarg"),
        (portable.Spawn, "initarg"),
    ],
)
def test_it_is_no_failure_of_what_is_pickled_meanwhile(backend, place):
    """Nor is it lost there, or left out."""
    one = Interrupted()

    def loop():
        life = {"initializer": print, "initargs": (one,)} if place == "initarg" else {}
        with backend(2, **life) as workers:
            list(ordered_map(abs, [1, 2], backend=workers))  # those that are forked have what there was by now
            if place == "variable":
                ContextVar("variable").set(one)
            items = (
                ordered_imap([one], backend=workers)
                if place == "dataset"
                else ordered_map(abs, iter([one]), backend=workers)
            )
            list(items)

    with ThreadPoolExecutor(1) as other, pytest.raises(Late):
        other.submit(copy_context().run, loop).result()


def test_what_can_not_be_handed_over_is_undone():
    undone = []

    def make():
        raise_in(caller, Limit)
        return "made"

    def call():
        nonlocal caller
        caller = threading.get_ident()
        with pytest.raises(Limit):
            shielded(make, undone.append)

    caller = 0
    with ThreadPoolExecutor(1) as other:
        other.submit(call).result()
    assert undone == ["made"]


def test_what_is_raised_around_a_fork_is_heard_and_the_hook_is_as_before(capsys):
    before = sys.unraisablehook

    class Fails:
        def __init__(self, error):
            self.error = error

        def __del__(self):
            raise self.error

    def call():
        def drop(*errors):
            for error in errors:
                Fails(error)

        with pytest.raises(Limit):
            hearing(drop, Limit())
        hearing(drop)

    with ThreadPoolExecutor(1) as other:
        other.submit(call).result()
    assert sys.unraisablehook is before


def test_the_lock_of_logging_is_free_after_it(script):
    program = script(
        """
import ctypes, logging, os, threading
from ordmap import ordered_map

class Limit(BaseException):
    pass

def hook():
    if thread is threading.current_thread() and os.getpid() == process:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(Limit))

def loop():
    try:
        list(ordered_map(abs, range(100), workers=2))
    except Limit:
        print("limit", flush=True)

process = os.getpid()
os.register_at_fork(before=hook)
thread = threading.Thread(target=loop)
thread.start()
thread.join()
logging.getLogger().warning("logged")
thread = None
print(list(ordered_map(abs, range(3), workers=2)))
"""
    )
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "limit\n[0, 1, 2]\n", done.stderr
    assert "logged" in done.stderr


def test_a_child_has_nothing_of_an_exception_that_was_for_its_caller(tally):
    """A copy of the caller would go on as the caller does, in its own ``finally``."""

    def loop():
        try:
            for _ in ordered_map(absolute, range(100_000), workers=2):
                pass
        except Limit:
            pass
        finally:
            tally.add()

    for delay in range(20):
        thread = threading.Thread(target=loop)
        thread.start()
        time.sleep(0.0005 * (1 + delay))
        raise_in(thread.ident, Limit)
        thread.join(30)
    assert int(tally) == 20


@pytest.mark.parametrize("ends", ["well", "with an error"])
def test_whenever_it_comes_signals_are_let_through_again(ends):
    """It comes where the thread gives way: after a call, or at the first instruction of a function."""

    def section():
        with uninterrupted():
            assert signal.pthread_sigmask(signal.SIG_BLOCK, ())
            if ends != "well":
                raise LookupError

    def attempts():
        while len(masks) < ROUNDS:
            try:
                begun.append(len(masks))
                while True:
                    with contextlib.suppress(LookupError):
                        section()
            except Limit:
                masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))

    masks, begun = [], []
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        thread = threading.Thread(target=attempts)
        thread.start()
        for round_ in range(ROUNDS):
            until(lambda r=round_: begun and begun[-1] == r)
            time.sleep(random.random() / 5000)
            raise_in(thread.ident, Limit)
            until(lambda r=round_: len(masks) > r)
        thread.join()
    finally:
        sys.setswitchinterval(switch)
    assert masks == [set()] * ROUNDS
