"""Workers that are forked while other threads of the caller are in the midst of something."""

from __future__ import annotations

import functools
import os
import queue
import subprocess
import sys
import threading
import time
import types
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

import ordmap.engine.bystanders as bystanders
import ordmap.engine.pool as pool
import ordmap.engine.vigil as vigil
from ordmap import Processes, ordered_imap, ordered_map


@contextmanager
def another_thread(work, *args):
    """Have a thread do something, and wait at its end: ``with`` it, it has begun, and behind it has ended."""
    begun, leave = threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: work(begun, leave, *args))
    thread.start()
    assert begun.wait(60)
    try:
        yield thread
    finally:
        leave.set()
        thread.join()


def holds(begun, leave, lock):
    with lock:
        begun.set()
        leave.wait()


def takes_again_and_again(begun, leave, lock):
    while not leave.is_set():
        with lock:
            begun.set()
            time.sleep(0.005)


# Locks


class Guarded:
    """Two numbers behind a lock."""

    def __init__(self, lock):
        self.lock = lock

    def __len__(self):
        return 2

    def __getitem__(self, i):
        with self.lock:
            return i


class Slotted(Guarded):
    __slots__ = ("inner",)

    def __init__(self, lock):
        self.inner = [{"lock": lock}]

    def __getitem__(self, i):
        with self.inner[0]["lock"]:
            return i


class Sized(threading.Condition):
    pass


def by_closure(lock):
    def work(i):
        with lock:
            return i

    return work


def by_argument(i, held):
    with held:
        return i


module = types.ModuleType("module_with_a_lock")


def by_module(i):
    with module.lock:
        return i


LOCK = threading.RLock()


class ByGlobal:
    @property
    def value(self):
        with LOCK:
            return 1

    def __call__(self, i):
        return i * self.value


def at_once(lock):
    """What items can do, by name, each with a way to the lock."""
    module.lock = lock
    return {
        "attribute": Guarded(lock).__getitem__,
        "slot": Slotted(lock).__getitem__,
        "closure": by_closure(lock),
        "nested": (lambda f: lambda i: f(i))(by_closure(lock)),
        "partial": functools.partial(by_argument, held=lock),
        "default": types.FunctionType(by_argument.__code__, globals(), "by_default", (lock,)),
        "module": by_module,
    }


#: Each way to a lock with each kind of one. How it is found has little to do with what it is.
PAIRS = [
    pytest.param(
        way,
        kind,
        id=f"{way}-{kind.__name__}",
        marks=() if kind is threading.Lock or way in {"attribute", "module"} else pytest.mark.long,
    )
    for way in at_once(None)
    for kind in (threading.Lock, threading.RLock, Sized)
]


@pytest.mark.parametrize(("way", "kind"), PAIRS)
def test_a_lock_that_another_thread_holds_is_free_in_workers(way, kind):
    lock = kind()
    with another_thread(holds, lock):
        assert list(ordered_map(at_once(lock)[way], range(2), workers=2)) == [0, 1]
        assert not lock.acquire(False), "the caller's own is free, too"


def test_it_is_found_in_a_dataset_a_property_and_a_global():
    with another_thread(holds, LOCK):
        assert list(ordered_imap(Guarded(LOCK), 2)) == [0, 1]
        assert list(ordered_map(ByGlobal(), range(2), workers=2)) == [0, 1]


def test_it_is_found_in_a_queue_and_an_executor_of_the_dataset():
    items = queue.Queue()
    items.put(7)

    def look(i):
        return items.qsize() + i

    with another_thread(holds, items.mutex):
        assert list(ordered_map(look, range(2), workers=2)) == [1, 2]
    with ThreadPoolExecutor(1) as executor:
        executor.submit(abs, 1).result()
        with another_thread(holds, executor._shutdown_lock):
            got = ordered_map(lambda i: executor._shutdown, range(2), workers=2)
            assert list(got) == [False, False]


def test_a_lock_that_is_taken_again_and_again_is_free_in_workers():
    lock = threading.Lock()
    with another_thread(takes_again_and_again, lock):
        for _ in range(10):
            assert list(ordered_imap(Guarded(lock), 2)) == [0, 1]


def test_what_a_short_hold_guards_is_whole_in_workers():
    """The fork waits for its end."""
    lock = threading.Lock()
    pair = [0, 0]

    def changes(begun, leave):
        with lock:
            pair[0] += 1
            begun.set()
            time.sleep(0.05)
            pair[1] += 1
        leave.wait()

    def work(i):
        with lock:
            return pair[0] == pair[1]

    with another_thread(changes):
        assert list(ordered_map(work, range(2), workers=2)) == [True, True]


def test_a_lock_that_the_forking_thread_holds_can_be_held_on():
    lock = threading.RLock()
    with another_thread(lambda begun, leave: (begun.set(), leave.wait())), lock:
        assert list(ordered_imap(Guarded(lock), 2)) == [0, 1]


def test_a_library_s_own_hook_at_the_fork_takes_the_lock_as_it_is_used_to():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", """
import os, threading
from ordmap import ordered_map

lock = threading.Lock()
os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)
leave = threading.Event()
threading.Thread(target=leave.wait).start()

def work(i):
    with lock:
        return i

print(list(ordered_map(work, range(4), workers=2)))
leave.set()
"""],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("[0, 1, 2, 3]\n", "")


def test_a_worker_that_takes_the_place_of_another_finds_locks_free_too():
    lock = threading.Lock()

    def work(i):
        with lock:
            if i == 1:
                os._exit(1)
            return i

    with another_thread(takes_again_and_again, lock):
        assert list(ordered_map(work, range(5), workers=1, on_error="skip")) == [0, 2, 3, 4]


def test_no_code_of_the_user_s_runs_in_the_search():
    class Touchy:
        def __getattribute__(self, name):
            if name.startswith("__"):
                return object.__getattribute__(self, name)
            raise AssertionError(name)

        @property
        def __class__(self):
            raise AssertionError("asked for its class")

        def __hash__(self):
            raise AssertionError("hashed")

        def __eq__(self, other):
            raise AssertionError("compared")

        def __len__(self):
            raise AssertionError("measured")

    class Strange(type):
        __hash__ = None

        def __eq__(cls, other):
            raise AssertionError("compared")

    class OfStrange(metaclass=Strange):
        pass

    lock = threading.Lock()
    roots = [Touchy(), OfStrange(), OfStrange, {"lock": lock}]
    assert list(bystanders._locks_within(roots)) == [lock]


def test_the_search_ends_in_what_is_large_or_endless():
    one = []
    for _ in range(100_000):
        one = [one]
    one.append(one)
    assert list(bystanders._locks_within([one, [one] * 1000])) == []


# Imports


@pytest.fixture
def slow_module(script, monkeypatch):
    """Write a module that takes a while to be imported, and return what a thread imports it by."""

    def make(name, text):
        path = script(text, f"{name}.py")
        monkeypatch.syspath_prepend(str(path.parent))

        def imports(begun, leave):
            threading.Timer(0.2, begun.set).start()
            __import__(name)
            leave.wait()

        return imports

    yield make
    for name in [name for name in sys.modules if name.startswith("slow_")]:
        del sys.modules[name]


def test_a_module_that_another_thread_imports_is_there_in_workers(slow_module):
    imports = slow_module("slow_one", "import time; time.sleep(0.7); VALUE = 7")

    def work(i):
        import slow_one

        return slow_one.VALUE + i

    with another_thread(imports):
        assert list(ordered_map(work, range(4), workers=2)) == [7, 8, 9, 10]


def test_an_import_that_takes_very_long_begins_anew_in_workers(slow_module, monkeypatch):
    monkeypatch.setattr(bystanders, "_IMPORTING", 0.1)
    leave = threading.Event()
    monkeypatch.setattr(bystanders, "leave", leave, raising=False)
    imports = slow_module(
        "slow_two",
        f"import os, ordmap.engine.bystanders as b\nif os.getpid() == {os.getpid()}: b.leave.wait()\nVALUE = 7",
    )

    def work(i):
        import slow_two

        return slow_two.VALUE + i

    began = len(bystanders._endless)
    with another_thread(imports):
        try:
            assert list(ordered_map(work, range(4), workers=2)) == [7, 8, 9, 10]
            assert len(bystanders._endless) == began + 1  # another loop doesn't wait for it again
            assert list(ordered_map(work, range(4), workers=2)) == [7, 8, 9, 10]
        finally:
            leave.set()


def test_a_loop_in_a_module_that_another_thread_waits_for_begins_at_once(script):
    """The other thread imports something, which imports this very module: neither may wait for the other."""
    folder = script(
        """
import threading, time
import slow_outer_state as state
thread = threading.Thread(target=lambda: __import__("slow_inner"))
thread.start()
time.sleep(0.3)
from ordmap import ordered_map
GOT = list(ordered_map(lambda i: i, range(4), workers=2))
""",
        "slow_outer.py",
    ).parent
    script("", "slow_outer_state.py")
    script("import slow_outer", "slow_inner.py")
    main = script("import slow_outer; slow_outer.thread.join(); print(slow_outer.GOT)")
    done = subprocess.run([sys.executable, str(main)], cwd=folder, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[0, 1, 2, 3]\n", "")


# A word about those that wait


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(vigil, "IDLE", 0.3)
    monkeypatch.setattr(vigil, "_PERIOD", 0.05)
    monkeypatch.setattr(pool, "_HEARTBEAT", 0.05)


def idles(begun, leave):
    begun.set()
    leave.wait()


def test_of_a_worker_that_waits_in_its_first_item_beside_threads_is_told_once(impatient):
    with another_thread(idles) as thread, pytest.warns(RuntimeWarning, match="no processor time") as told:
        assert list(ordered_map(time.sleep, [1, 1, 1, 1], workers=2)) == [None] * 4
    assert len(told) == 1
    assert thread.name in str(told[0].message) and "backend='spawn'" in str(told[0].message)


def test_nothing_is_told_of_workers_that_work_or_have_worked_or_stand_beside_nothing(impatient, script):
    def works(i):
        until = time.perf_counter() + 1
        while time.perf_counter() < until:
            pass

    with another_thread(idles):
        assert list(ordered_map(works, range(2), workers=2)) == [None] * 2
        with Processes(1) as used:
            assert list(ordered_map(time.sleep, [0, 1], backend=used, chunksize=1)) == [None] * 2
        assert list(ordered_map(time.sleep, [1], workers=1, backend="spawn")) == [None]
    path = script("""
import time, ordmap.engine.pool as pool, ordmap.engine.vigil as vigil
from ordmap import ordered_map

vigil.IDLE, vigil._PERIOD, pool._HEARTBEAT = 0.3, 0.05, 0.05
print(list(ordered_map(time.sleep, [1], workers=1)))
""")
    done = subprocess.run([sys.executable, "-W", "error", str(path)], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[None]\n", "")


def test_an_initializer_that_waits_is_told_of_too(impatient):
    with another_thread(idles), pytest.warns(RuntimeWarning, match="no processor time"):
        with Processes(1, initializer=time.sleep, initargs=(1,)) as waiting:
            assert list(ordered_map(abs, [-1], backend=waiting)) == [1]
