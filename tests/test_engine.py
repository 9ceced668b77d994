"""The process engine: what a naive one gets wrong, each under its own name."""

from __future__ import annotations

import contextlib
import copyreg
import errno
import faulthandler
import gc
import multiprocessing
import os
import platform
import random
import re
import resource
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from ordmap import (
    BackendUnavailableError,
    OrdmapError,
    Processes,
    Spawn,
    WorkerDiedError,
    ordered_imap,
    ordered_map,
)
from ordmap.engine import kernel, available, channel
from ordmap.engine.board import Board
from ordmap.engine.ledger import Ledger, Task
from ordmap.engine.message import Order, packed_orders, unpacked_orders
from ordmap.interrupts import uninterrupted
from ordmap.item import Label

pytestmark = pytest.mark.skipif(not available(), reason="the engine is for Linux")


def children() -> set[int]:
    """Return this process's children, but for what other tests' executors keep to its end: resource trackers."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        try:
            found |= {int(pid) for pid in (task / "children").read_text().split()}
        except OSError:
            continue
    return {pid for pid in found if not is_a_resource_tracker(pid)}


def is_a_resource_tracker(pid: int) -> bool:
    try:
        return b"resource_tracker" in Path("/proc", str(pid), "cmdline").read_bytes()
    except OSError:
        return False


def files() -> set[str]:
    return {f"{entry.name} {os.readlink(entry)}" for entry in Path("/proc/self/fd").iterdir() if entry.exists()}


@pytest.fixture(autouse=True)
def nothing_left():
    gc.collect()
    before = children(), files(), set(threading.enumerate())
    yield
    gc.collect()
    until(lambda: set(threading.enumerate()) <= before[2])
    assert children() <= before[0]
    assert files() <= before[1]


def until(true, seconds=20.0):
    """Wait for something that will happen; the limit is only there to end a test that fails."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.002)


class Items:
    """A dataset by function."""

    def __init__(self, length, function):
        self.length = length
        self.function = function

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return self.function(index)


def program(text, *arguments, **options):
    """Run a script to its end, for what must not happen in the process of the tests."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(text), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        **options,
    )


# Order and answers


@pytest.mark.parametrize("chunksize", [None, 1, 3, 16])
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_results_are_those_of_map(workers, chunksize):
    dataset = Items(101, lambda i: (i, "x" * (i % 7 * 1000)))
    assert list(ordered_imap(dataset, workers, 48, chunksize=chunksize)) == [dataset[i] for i in range(101)]


def test_inputs_and_results_longer_than_a_message_travel_in_files():
    inputs = [bytes([i]) * size for i, size in enumerate((10, 40_000, 300_000, 5_000_000))]
    assert list(ordered_map(lambda data: data + b"!", inputs, workers=2, prefetch=3)) == [x + b"!" for x in inputs]


def test_shuffled_indices_and_inputs_that_can_not_be_pickled():
    order = random.sample(range(500), 500)
    assert list(ordered_imap(range(500), 2, 64, indices=order)) == order
    results = ordered_map(lambda x: x, [1, threading.Lock(), 3], workers=2)
    assert next(results) == 1
    with pytest.raises(Exception, match="input can't be pickled"):
        next(results)
    assert list(results) == [3]


def test_items_fail_one_by_one():
    def item(i):
        if i % 3 == 1:
            raise ValueError(i)
        return i

    got = []
    results = ordered_imap(Items(20, item), 2, 8)
    while True:
        try:
            got.append(next(results))
        except StopIteration:
            break
        except ValueError as error:
            got.append(str(error))
    assert got == [str(i) if i % 3 == 1 else i for i in range(20)]


def test_a_failing_initializer_is_said():
    with pytest.raises(WorkerDiedError, match="initializer failed.*1/0|initializer failed.*division"):
        list(ordered_imap(range(4), backend=Processes(2, initializer=lambda: 1 / 0)))


def test_each_run_is_told_of_the_pool_s_failure_with_its_own_index(monkeypatch):
    # As tblib does it, which Dask brings along: a copy then has the very attributes of the original.
    monkeypatch.setitem(copyreg.dispatch_table, WorkerDiedError, lambda error: (lambda: error, ()))

    def fail():
        go_on.acquire()
        raise ValueError("not today")

    go_on = multiprocessing.get_context("fork").Semaphore(0)
    with Processes(1, initializer=fail) as pool:
        runs = [ordered_imap(range(50), backend=pool), ordered_imap(range(50), backend=pool, indices=range(20, 50))]
        for run in runs:
            run.start()
        go_on.release()
        for run, index in zip(runs, (0, 20)):
            with pytest.raises(WorkerDiedError, match="not today") as caught:
                next(run)
            assert caught.value.index == index
            assert type(caught.value.__cause__) is ValueError


def test_a_deadly_initializer_is_said():
    with pytest.raises(WorkerDiedError, match="before they begin.*exit code 3"):
        list(ordered_imap(range(4), backend=Processes(2, initializer=partial(os._exit, 3))))


@pytest.mark.parametrize(
    "orders",
    [
        [Order(1, 5, False, range(0, 1))],
        [Order(1, 5 + i, False, range(3 * i, min(3 * i + 3, 20))) for i in range(7)],
        [Order(1, 5 + i, False, range(9 - i, 8 - i, -1)) for i in range(9)],
        [Order(1, 1, False, range(4)), Order(1, 2, False, range(5, 9)), Order(2, 3, False, range(9, 13))],
        [Order(1, 1, False, range(4)), Order(1, 2, True, range(4, 8)), Order(1, 4, True, range(8, 12))],
        [Order(1, 1, False, b"abc"), Order(1, 2, False, range(4)), Order(1, 3, False, b""), Order(1, 4, False, b"d")],
        [Order(1, 1, False, range(0, 2)), Order(1, 2, False, range(2, 6)), Order(1, 3, False, range(6, 7))],
    ],
)
def test_orders_are_read_as_they_were_written(orders):
    head, inputs = packed_orders(orders)
    assert list(unpacked_orders(head + inputs)) == list(unpacked_orders(head, inputs)) == orders
    assert all(list(order.keys) == list(other.keys) for order, other in zip(unpacked_orders(head + inputs), orders))


# A window that gets filled


@pytest.mark.parametrize(
    ("size", "window"), [(10, 5000), (1000, 2000), (4000, 1000), (12_000, 256), (1_000_000, 24), (10, 8)]
)
@pytest.mark.parametrize("narrow", [False, True])
def test_the_whole_window_is_computed_while_the_consumer_is_busy(size, window, narrow, tally, monkeypatch):
    if narrow:  # a system that grants no more room than it must
        monkeypatch.setattr(channel, "pair", lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))

    def item(i):
        tally.add()
        return bytes([i % 256]) * size

    with ordered_imap(Items(window + 20, item), 2, window, chunksize=1) as results:
        assert next(results) == bytes(size)
        until(lambda: int(tally) == window)  # what next() gave made no room yet
        for i in range(1, 20):
            assert next(results) == bytes([i]) * size
        until(lambda: int(tally) >= window + 19 - min(16, window // 8))
        assert len(list(results)) == window
    assert int(tally) == window + 20


def test_no_worker_idles_behind_a_huge_chunk(tally):
    """Items turn from quick to slow in mid-run."""
    workers = set()

    def item(i):
        if i >= 3000:
            time.sleep(0.02)
        return os.getpid()

    for i, pid in enumerate(ordered_imap(Items(3100, item), 2)):
        if i >= 3000:
            workers.add(pid)
        assert i < 3000 or len(workers) == 2 or i < 3060
    assert len(workers) == 2


@pytest.mark.parametrize("slow", range(0, 600, 150))
def test_chunks_packed_into_one_message_are_shared_once_they_are_slow(slow, monkeypatch):
    monkeypatch.setattr(channel, "pair", lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))

    def item(i):
        if slow <= i < slow + 20:
            time.sleep(0.02)
        return i

    assert list(ordered_imap(Items(3000, item), 3, 2500, chunksize=1)) == list(range(3000))


# Death


def killed(i, victim=5):
    if i == victim:
        os.kill(os.getpid(), signal.SIGKILL)
    return i


def gathered(results):
    got = []
    while True:
        try:
            got.append(next(results))
        except StopIteration:
            return got
        except WorkerDiedError as error:
            got.append(error)


@pytest.mark.parametrize("chunksize", [None, 1, 4, 7])
@pytest.mark.parametrize("way", ["kill", "exit", "abort"])
def test_a_death_costs_its_own_item_only(way, chunksize):
    def item(i):
        if i in (0, 5, 17, 18, 39):
            faulthandler.disable()  # it would fill the log
            {"kill": lambda: os.kill(os.getpid(), signal.SIGKILL), "exit": lambda: os._exit(7), "abort": os.abort}[
                way
            ]()
        return i

    got = gathered(ordered_imap(Items(40, item), 2, 16, chunksize=chunksize))
    for i, result in enumerate(got):
        if i in (0, 5, 17, 18, 39):
            assert isinstance(result, WorkerDiedError)
            assert result.index == i
            assert {"kill": "SIGKILL", "exit": "exit code 7", "abort": "SIGABRT"}[way] in str(result)
        else:
            assert result == i
    assert len(got) == 40


def test_every_item_kills():
    got = gathered(ordered_imap(Items(12, lambda i: os._exit(1)), 2, 6))
    assert [error.index for error in got] == list(range(12))


def test_workers_are_killed_at_random_from_outside():
    """Whatever a worker is doing: nothing is lost, nothing hangs; what is in hand may be blamed."""
    with Processes(3) as pool:
        results = ordered_imap(Items(4000, lambda i: (i, "x" * (i % 3000))), backend=pool, prefetch=200)
        got = []
        deaths = 0
        while True:
            try:
                got.append(next(results))
            except StopIteration:
                break
            except WorkerDiedError as error:
                got.append((error.index, "x" * (error.index % 3000)))
            if len(got) % 250 == 0 and deaths < 12:
                deaths += 1
                time.sleep(random.random() * 0.002)
                os.kill(random.choice(sorted(children())), signal.SIGKILL)
        assert got == [(i, "x" * (i % 3000)) for i in range(4000)]


@pytest.mark.parametrize("moment", ["received", "about to be noted", "noted"])
def test_a_worker_killed_between_taking_a_task_and_noting_it(moment, monkeypatch, tmp_path):
    def die_once():
        if not once.exists():
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    def take(self, serial, worker):
        if serial == 7 and moment == "about to be noted":
            die_once()
        note(self, serial, worker)
        if serial == 7 and moment == "noted":
            die_once()

    def receive(end, *, wait):
        got = received(end, wait=wait)
        if wait and got and got[0] and os.getpid() != caller and moment == "received":
            die_once()
        return got

    caller, once = os.getpid(), tmp_path / "once"
    note, received = Board.take, channel.receive
    monkeypatch.setattr(Board, "take", take)
    monkeypatch.setattr(channel, "receive", receive)
    assert list(ordered_imap(range(30), 2, 12, chunksize=2)) == list(range(30))
    assert once.exists()


def test_a_death_is_known_at_once_though_a_grandchild_holds_the_channel(tmp_path):
    def item(i):
        if i == 3:
            if os.fork() == 0:
                os.setsid()  # it is not ended with the worker's group
                (tmp_path / "written").write_text(str(os.getpid()))
                (tmp_path / "written").rename(tmp_path / "pid")
                time.sleep(600)
                os._exit(0)
            until((tmp_path / "pid").exists)
            os._exit(9)
        return i

    try:
        got = gathered(ordered_imap(Items(10, item), 2, 4))
        assert isinstance(got.pop(3), WorkerDiedError)
        assert got == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    finally:
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


def test_an_input_that_kills_while_it_is_unpickled():
    class Deadly:
        def __reduce__(self):
            return os._exit, (5,)

    got = gathered(ordered_map(lambda x: 0, [1, Deadly(), 2], workers=2, prefetch=2))
    assert isinstance(got[1], WorkerDiedError)
    assert got[0] == got[2] == 0


def test_a_child_that_an_item_forks_and_that_returns_is_not_a_second_worker():
    def item(i):
        if i % 3 == 1:
            os.fork()
        return bytes([i]) * 50_000 if i % 2 else i

    for _ in range(3):
        assert list(ordered_imap(Items(40, item), 2, 8, chunksize=4)) == [
            bytes([i]) * 50_000 if i % 2 else i for i in range(40)
        ]


@pytest.mark.parametrize("closed", ["all", "results"])
def test_an_item_that_closes_its_workers_descriptors_costs_itself(closed):
    def item(i):
        if i == 5:
            if closed == "all":
                os.closerange(3, 500)
            else:
                for entry in list(os.listdir("/proc/self/fd")):
                    with contextlib.suppress(OSError):
                        if int(entry) > 2 and os.readlink(f"/proc/self/fd/{entry}").startswith("socket:"):
                            os.close(int(entry))
        return i

    got = gathered(ordered_imap(Items(12, item), 2, 4, chunksize=1))
    assert isinstance(got[5], WorkerDiedError)
    assert [i for i in got if isinstance(i, int)] == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11]


def test_what_is_offered_to_all_and_lost_with_the_next_worker_is_done_again(monkeypatch, tmp_path):
    from ordmap.engine import board

    monkeypatch.setattr(channel, "pair", lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    real_give_up, real_take = board.Board.give_up, board.Board.take
    once = tmp_path / "once"

    def give_up(self, serial):
        (tmp_path / str(serial)).touch()
        real_give_up(self, serial)

    def take(self, serial, worker):
        if (tmp_path / str(serial)).exists() and not once.exists():
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        real_take(self, serial, worker)

    monkeypatch.setattr(board.Board, "give_up", give_up)
    monkeypatch.setattr(board.Board, "take", take)
    slow = lambda i: time.sleep(0.002) or i
    assert list(ordered_imap(Items(1200, slow), 2, 1000, chunksize=1)) == list(range(1200))
    assert once.exists()


def test_the_dataset_of_a_worker_in_a_dead_ones_place_is_that_of_then(tmp_path):
    """The table of promises says so: 'lazy' is kept in a weaker form by forked workers."""
    value = [0]

    def item(i):
        if i == 3:
            os._exit(1)
        return value[0]

    results = ordered_imap(Items(8, item), 1, 2, chunksize=1)
    got = [next(results)]
    value[0] = 1
    got += gathered(results)
    assert Processes(1).promises["lazy"].word == "weaker"
    assert got[:3] == [0, 0, 0]
    assert got[4:] == [1] * 4


def test_inputs_are_those_that_were_given_though_their_memory_is_used_again(monkeypatch):
    monkeypatch.setattr(channel, "pair", lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    buffer = bytearray(20_000)

    def source():
        for i in range(200):
            buffer[:] = bytes([i]) * 20_000
            yield buffer

    results = ordered_map(lambda data: (data[0], data[-1]), source(), workers=2, prefetch=128, chunksize=1)
    assert list(results) == [(i, i) for i in range(200)]


def test_the_whole_window_is_computed_for_large_inputs(monkeypatch, tally):
    monkeypatch.setattr(channel, "pair", lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))

    def item(data):
        tally.add()
        return len(data)

    with ordered_map(item, [bytes(20_000)] * 600, workers=2, prefetch=512, chunksize=1) as results:
        assert next(results) == 20_000
        until(lambda: int(tally) == 512)
        assert len(list(results)) == 599


@pytest.mark.parametrize("size", [40_000, 1_000_000])
def test_a_long_error_of_an_initializer_arrives_whole(size):
    def fail():
        raise ValueError("x" * size)

    with pytest.raises(WorkerDiedError, match="x" * 1000):
        list(ordered_imap(range(4), backend=Processes(2, initializer=fail)))


def test_an_iterator_closed_by_a_signal_handler_in_the_midst_of_sending_another():
    with Processes(2) as pool:
        for _ in range(20):
            other = ordered_imap(Items(3000, lambda i: i), backend=pool, prefetch=1000, chunksize=1)
            next(other)
            with handled(lambda *_: other.close(), random.random() * 0.01):
                assert list(ordered_imap(range(2000), backend=pool, prefetch=500, chunksize=1)) == list(range(2000))


def test_ctrl_c_while_workers_end_leaves_none():
    class Stop(BaseException):
        pass

    def stop(*_):
        raise Stop

    def deaf(i):
        signal.signal(signal.SIGTERM, lambda *_: None)
        return i and time.sleep(600)

    for _ in range(5):
        sleeper = threading.Thread(target=time.sleep, args=(0.3,))  # which gets the signal that this thread blocks
        sleeper.start()
        results = ordered_imap(Items(10, deaf), 2, 4)
        assert next(results) == 0
        with contextlib.suppress(Stop), handled(stop, 0.05):
            until(lambda: time.sleep(0.02) or True)
            results.close()
        sleeper.join()
        assert not children()
        results.close()


def test_ctrl_c_while_a_dead_worker_is_buried_leaves_nothing(monkeypatch):
    from ordmap.engine.shelf import Shelf

    class Stop(BaseException):
        pass

    def stop(*_):
        raise Stop

    def close(shelf):
        real(shelf)
        if not stopped:
            stopped.append(True)
            signal.raise_signal(signal.SIGUSR1)

    stopped = []
    real = Shelf.close
    monkeypatch.setattr(Shelf, "close", close)
    before = signal.signal(signal.SIGUSR1, stop)
    try:
        with pytest.raises(Stop), ordered_imap(Items(10, lambda i: i == 3 and os._exit(1)), 2, 4) as results:
            list(results)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_signal_handler_that_asks_a_pool_in_the_midst_of_its_work_is_refused(monkeypatch):
    """Where the pool only waits, it gets what it asks for."""
    got = []
    real = channel.send

    def send(end, message, file=None):
        sent = real(end, message, file)
        if len(got) == 1 and os.getpid() == caller:
            got.append("asks")
            signal.raise_signal(signal.SIGUSR1)
        return sent

    def ask(*_):
        got.append(list(ordered_imap(range(5), backend=pool)))

    caller = os.getpid()
    before = signal.signal(signal.SIGUSR1, ask)
    try:
        with Processes(2) as pool:
            items = Items(200, lambda i: i if i != 1 else (time.sleep(0.5), 1)[1])
            results = ordered_imap(items, backend=pool, prefetch=4, chunksize=1)
            assert next(results) == 0
            with handled(ask, 0.1):
                assert next(results) == 1
            assert got == [list(range(5))]
            monkeypatch.setattr(channel, "send", send)
            with pytest.raises(OrdmapError, match="a signal handler has asked a pool for items"):
                list(results)
            assert list(ordered_imap(range(5), backend=pool)) == list(range(5))
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_chunks_sent_together_fail_one_by_one_where_there_is_no_file(monkeypatch):
    class Run:
        number = 1

    def no_file(parts):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    offers, taking = channel.pair()
    with offers, taking:
        ledger = Ledger(Board(1), offers, taking)
        inputs = [b"x" * 600, b"y" * 600, range(1), b"z" * 40_000]
        tasks = [Task(Run(), n, keys, 1, Label()) for n, keys in enumerate(inputs)]
        for task in tasks:
            ledger._number(task)
            ledger._waiting.append(task)
        ledger.strike(tasks[1])  # it is answered
        monkeypatch.setattr(channel, "written_file", no_file)
        assert ledger._send_waiting(8)
        assert ledger.take_unsendable()[0] is tasks[3]
        assert ledger.take_unsendable() is None
        sent = [order.keys for _ in range(2) for order in unpacked_orders(channel.receive(taking, wait=False)[0])]
        assert sent == [b"x" * 600, range(1)]


@pytest.mark.parametrize("backend", ["processes", "spawn"])
def test_no_descriptor_is_left_for_a_large_input(backend):
    before = resource.getrlimit(resource.RLIMIT_NOFILE)

    def source():
        try:
            for i in range(12):
                if i == 5:
                    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
                elif i == 8:
                    resource.setrlimit(resource.RLIMIT_NOFILE, before)
                yield bytes(100_000 + i)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)

    results = ordered_map(len, source(), workers=2, prefetch=4, backend=backend, chunksize=1)
    found = []
    for _ in range(12):
        try:
            found.append(next(results))
        except OSError as error:
            found.append(error.errno)
    assert found == [errno.EMFILE if i in {5, 6, 7} else 100_000 + i for i in range(12)]
    assert list(results) == []


@pytest.mark.parametrize("make", [Processes, Spawn])
def test_no_descriptors_are_left_for_a_pool(make):
    assert list(ordered_imap(range(20), backend=make(2))) == list(range(20))  # what is imported needs files, too
    gc.collect()
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    base = max(map(int, os.listdir("/proc/self/fd"))) + 2
    fillers = [os.dup(2)]
    while fillers[-1] < base:
        fillers.append(os.dup(2))
    base = fillers[-1] + 1
    held = files()
    results = set()
    for spare in range(0, 44, 4):
        resource.setrlimit(resource.RLIMIT_NOFILE, (base + spare, before[1]))
        try:
            results.add(str(list(ordered_imap(range(20), backend=make(2)))))
        except OrdmapError as error:
            results.add(type(error).__name__)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        gc.collect()
        assert files() <= held
        assert not children()
    for filler in fillers:
        os.close(filler)
    assert "BackendUnavailableError" in results
    assert str(list(range(20))) in results


@pytest.mark.parametrize("make", [Processes, Spawn])
def test_no_descriptor_is_left_for_a_worker_s_end(monkeypatch, make):
    """The worker runs by then: it is ended, and reaped."""
    real = kernel.pidfd_open
    opened = []

    def second_fails(pid, flags=0):
        if opened:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        opened.append(pid)
        return real(pid, flags)

    monkeypatch.setattr(kernel, "pidfd_open", second_fails)
    with pytest.raises(BackendUnavailableError, match="no worker process can be started"):
        list(ordered_imap(range(20), backend=make(3)))
    assert not children()


# Starting


def test_a_thread_that_started_the_pool_ends_and_the_workers_live_on():
    results = ordered_imap(Items(50, lambda i: (i, os.getpid())), 2, 4)
    first = []
    thread = threading.Thread(target=lambda: first.append(next(results)))
    thread.start()
    thread.join()
    before = children()
    time.sleep(0.05)
    rest = list(results)
    assert [i for i, _ in first + rest] == list(range(50))
    assert {pid for _, pid in first + rest} <= before


def test_two_iterators_at_once_and_threads_of_both():
    with Processes(2) as pool:
        iterators = [
            ordered_imap(Items(300, partial(lambda k, i: (k, i), k)), backend=pool, prefetch=20, chunksize=1 + k)
            for k in range(4)
        ]
        got = {}

        def consume(k):
            got[k] = list(iterators[k])

        threads = [threading.Thread(target=consume, args=(k,)) for k in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert got == {k: [(k, i) for i in range(300)] for k in range(4)}


def test_two_iterators_in_one_thread_take_turns():
    with Processes(2) as pool:
        one = ordered_imap(Items(200, lambda i: i), backend=pool, prefetch=8)
        two = ordered_imap(Items(200, lambda i: -i), backend=pool, prefetch=50)
        assert list(zip(one, two)) == [(i, -i) for i in range(200)]


def test_an_iterator_inside_an_item():
    def item(i):
        return sum(ordered_imap(range(i), 2, 4, backend="processes"))

    assert list(ordered_imap(Items(12, item), 2, 4)) == [sum(range(i)) for i in range(12)]


def test_a_warm_pool_gets_the_next_dataset():
    offset = 100
    with Processes(2) as pool:
        first = children()
        for run in range(5):
            assert list(ordered_imap(Items(20, lambda i: i + offset * run), backend=pool)) == [
                i + offset * run for i in range(20)
            ]
            first = first or children()
            assert children() == first or run == 0
            first = children()


def test_a_warm_pool_is_forked_again_for_a_dataset_that_can_not_be_pickled():
    with Processes(2) as pool:
        assert list(ordered_imap(range(5), backend=pool)) == list(range(5))
        lock = threading.Lock()
        assert list(ordered_imap(Items(5, lambda i: (i, lock.locked())), backend=pool)) == [
            (i, False) for i in range(5)
        ]


def test_a_local_class_that_only_workers_have_used_is_the_caller_s():
    class Local:
        pass

    with Processes(2) as pool:
        for _ in range(2):  # inherited, then sent
            assert {type(x) for x in ordered_map(lambda _: Local(), range(4), backend=pool)} == {Local}


def test_a_run_that_is_given_up_leaves_a_warm_pool_to_the_next(tally):
    def slow(i):
        time.sleep(0.01)
        return i

    with Processes(2) as pool:
        for _ in range(5):
            results = ordered_imap(Items(1000, slow), backend=pool, prefetch=100)
            assert next(results) == 0
            results.close()
            assert list(ordered_imap(Items(20, lambda i: i * i), backend=pool)) == [i * i for i in range(20)]


def test_a_run_that_is_given_up_in_an_endless_item_does_not_hold_up_a_warm_pool():
    with Processes(2) as pool:
        for _ in range(2):
            results = ordered_imap(Items(10, lambda i: i and time.sleep(600)), backend=pool, prefetch=6)
            assert next(results) == 0
            time.sleep(0.01)
            results.close()
            assert list(ordered_imap(Items(20, lambda i: i * i), backend=pool)) == [i * i for i in range(20)]


# Ending


def test_closing_ends_workers_in_the_middle_of_an_item():
    for item in (lambda i: i and time.sleep(600), lambda i: i and all(iter(lambda: 1, 0))):
        results = ordered_imap(Items(10, item), 2, 4)
        assert next(results) == 0
        results.close()
        assert not children()


def test_closing_ends_what_an_item_launched(tmp_path):
    def item(i):
        child = subprocess.Popen(["sleep", "600"])
        (tmp_path / str(child.pid)).touch()
        child.wait()

    results = ordered_imap(Items(10, item), 2, 4).start()
    until(lambda: len(list(tmp_path.iterdir())) == 2)
    results.close()
    for pid in tmp_path.iterdir():
        until(
            lambda pid=pid: (
                not Path("/proc", pid.name).exists() or "\nState:\tZ" in Path("/proc", pid.name, "status").read_text()
            )
        )


def test_close_from_another_thread_ends_a_waiting_next():
    results = ordered_imap(Items(10, lambda i: time.sleep(600)), 2, 4)
    outcome = []
    thread = threading.Thread(target=lambda: outcome.append(next(results, "over")))
    thread.start()
    until(lambda: len(children()) == 2)
    time.sleep(random.random() * 0.01)
    results.close()
    thread.join(20)
    assert outcome == ["over"]


@contextlib.contextmanager
def handled(handler, seconds):
    """Have a signal reach this process soon, at any instruction."""
    before = signal.signal(signal.SIGUSR1, handler)
    sender = subprocess.Popen(["sh", "-c", f"sleep {seconds}; kill -USR1 {os.getpid()}"])
    try:
        yield
    finally:
        try:
            sender.wait()
        finally:  # it may come as late as here
            sender.wait()
            signal.signal(signal.SIGUSR1, before)


def test_close_from_a_signal_handler_inside_next():
    results = ordered_imap(Items(10, lambda i: time.sleep(600)), 2, 4)
    with handled(lambda *_: results.close(), 0.001 + random.random() * 0.05):
        assert next(results, "over") == "over"


def test_ctrl_c_ends_everything():
    def interrupt(*_):
        raise KeyboardInterrupt

    results = ordered_imap(Items(10, lambda i: time.sleep(600)), 2, 4)
    with pytest.raises(KeyboardInterrupt), handled(interrupt, random.random() * 0.06):
        next(results)
    gc.collect()
    assert not children()


@pytest.mark.parametrize("seconds", [0.0, 0.002, 0.005, 0.01, 0.02, 0.04])
def test_ctrl_c_that_another_thread_receives_ends_everything(seconds):
    """The handler runs in the main thread all the same, at any of its instructions, also while workers begin."""

    def interrupt(*_):
        raise KeyboardInterrupt

    over = threading.Event()
    other = threading.Thread(target=over.wait)
    other.start()
    before = signal.signal(signal.SIGUSR1, interrupt)

    def send():
        time.sleep(seconds)
        signal.pthread_kill(other.ident, signal.SIGUSR1)

    sender = threading.Thread(target=send)
    try:
        results = ordered_imap(Items(10, lambda i: time.sleep(600)), 2, 4)
        with pytest.raises(KeyboardInterrupt):
            sender.start()
            next(results)
            time.sleep(60)
        gc.collect()
        assert not children()
        assert signal.getsignal(signal.SIGUSR1) is interrupt
        assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())
        locked = threading.Thread(target=lambda: list(ordered_imap(range(4), 2)))  # no lock is left behind
        locked.start()
        locked.join(20)
        assert not locked.is_alive()
    finally:
        over.set()
        other.join()
        sender.join()
        signal.signal(signal.SIGUSR1, before)


def test_a_child_that_another_thread_forks_while_signals_wait_has_the_handlers_of_before():
    def handler(*_):
        raise AssertionError("nobody sends it")

    codes = []

    def fork():
        child = os.fork()
        if not child:
            os._exit(7 if signal.getsignal(signal.SIGUSR1) is handler else 1)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with uninterrupted(), uninterrupted():
            assert signal.getsignal(signal.SIGUSR1) is not handler
            forker = threading.Thread(target=fork)
            forker.start()
            forker.join(20)
        assert codes == [7]
        assert signal.getsignal(signal.SIGUSR1) is handler
        assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        signal.signal(signal.SIGUSR1, before)


def alive(pid):
    try:
        return "State:\tZ" not in Path("/proc", str(pid), "status").read_text()
    except OSError:
        return False


@pytest.mark.parametrize(
    "item", ["time.sleep(600)", "re.match(r'(a+)+$', 'a' * 64 + 'b')", "subprocess.run(['sleep', '600'])"]
)
def test_workers_end_when_the_caller_is_killed(item, tmp_path):
    script = f"""
        import os, re, signal, subprocess, sys, threading, time
        from pathlib import Path
        from ordmap import ordered_imap
        class Items:
            def __len__(self): return 10
            def __getitem__(self, i):
                Path(sys.argv[1], str(os.getpid())).touch()
                {item}
        thread = threading.Thread(target=lambda: next(ordered_imap(Items(), 2)), daemon=True)
        thread.start()
        while len(list(Path(sys.argv[1]).iterdir())) < 2:
            time.sleep(0.01)
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    assert program(script, tmp_path).returncode == -signal.SIGKILL
    workers = [int(entry.name) for entry in tmp_path.iterdir()]
    assert len(workers) == 2
    until(lambda: not any(map(alive, workers)))


def test_a_program_that_ends_in_mid_run_ends_its_workers(tmp_path):
    script = """
        import os, sys, time
        from pathlib import Path
        from ordmap import Processes, ordered_imap
        class Items:
            def __len__(self): return 100
            def __getitem__(self, i):
                Path(sys.argv[1], str(os.getpid())).touch()
                return i
        pool = Processes(2)
        pool.__enter__()
        for i in ordered_imap(Items(), backend=pool):
            if i == 50:
                break
        kept = ordered_imap(Items(), backend=Processes(2))
        next(kept)
    """
    done = program(script, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert not any(alive(int(entry.name)) for entry in tmp_path.iterdir())


def test_garbage_collection_ends_a_run():
    results = ordered_imap(Items(100, lambda i: i), 2, 4)
    next(results)
    assert len(children()) == 2
    del results
    gc.collect()
    assert not children()


# What a forked worker has of its caller


def test_output_that_the_caller_had_buffered_is_printed_once():
    script = """
        import sys, threading
        from ordmap import ordered_imap
        sys.stdout.write("once ")
        open("/dev/null", "w")
        class Items:
            def __len__(self): return 4
            def __getitem__(self, i):
                print("item", i)
                return i
        list(ordered_imap(Items(), 2))
        print("end")
    """
    done = program(script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("once") == 1
    assert sorted(done.stdout.split("\n")) == sorted(["once item 0", "item 1", "item 2", "item 3", "end", ""]) or (
        sorted(done.stdout.replace("once ", "").split("\n")) == ["", "end", "item 0", "item 1", "item 2", "item 3"]
    )


def test_a_program_started_by_an_item_gets_ctrl_c():
    def item(i):
        child = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "import signal, sys, time\nprint(signal.getsignal(2) is signal.default_int_handler,"
                "2 in signal.pthread_sigmask(0, []), flush=True)\n"
                "while True: time.sleep(0.01)",  # Python may miss a signal right before a sleep until that is over
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        said = child.stdout.readline().strip()
        os.killpg(0, signal.SIGINT)  # to worker and program alike, as a terminal does
        child.stdout.close()
        return said, child.wait()

    assert next(ordered_imap(Items(1, item), 1)) == ("True False", -signal.SIGINT)


def test_a_fork_of_the_whole_program_leaves_the_pool_to_the_caller():
    with Processes(2) as pool:
        results = ordered_imap(Items(100, lambda i: i), backend=pool, prefetch=8)
        assert next(results) == 0
        pid = os.fork()
        if not pid:
            code = 1
            try:
                with pytest.raises(Exception, match="fork"):
                    next(results)
                results.close()
                own = list(ordered_imap(Items(10, lambda i: -i), backend=pool)) == [-i for i in range(10)]
                pool.close()
                inner = own and list(ordered_imap(Items(10, lambda i: -i), 2)) == [-i for i in range(10)]
                del results
                gc.collect()
                code = 0 if inner else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert list(results) == list(range(1, 100))


def test_a_forked_child_that_lives_on_does_not_keep_workers_alive(tmp_path):
    script = """
        import os, signal, sys, time
        from pathlib import Path
        from ordmap import ordered_imap
        class Items:
            def __len__(self): return 10
            def __getitem__(self, i):
                Path(sys.argv[1], str(os.getpid())).touch()
                return i or time.sleep(600)
        results = ordered_imap(Items(), 2).start()
        while len(list(Path(sys.argv[1]).iterdir())) < 2:
            time.sleep(0.01)
        if os.fork() == 0:
            os.close(1), os.close(2)
            time.sleep(5)
            os._exit(0)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    assert program(script, tmp_path).returncode == -signal.SIGKILL
    until(lambda: not any(alive(int(entry.name)) for entry in tmp_path.iterdir()), 4)


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_process_of_multiprocessing_and_a_program_begun_in_mid_run_leave_the_run_as_it_is():
    def loop():
        assert list(ordered_imap(range(20), 2)) == list(range(20))

    results = ordered_imap(Items(200, lambda i: bytes([i]) * 5_000), 2, 8)
    for i, result in enumerate(results):
        assert result == bytes([i]) * 5_000
        if i % 50 == 10:
            process = multiprocessing.get_context("fork").Process(target=loop)
            process.start()
            process.join()
            assert process.exitcode == 0
            assert subprocess.run([sys.executable, "-c", "print(1)"], capture_output=True, text=True).stdout == "1\n"
    assert i == 199


def test_workers_hold_no_descriptor_of_the_caller_s_pools():
    def item(i):
        return len(os.listdir("/proc/self/fd"))

    with Processes(3) as one, Processes(3) as two:
        counts = set(ordered_imap(Items(30, item), backend=one)) | set(ordered_imap(Items(30, item), backend=two))
    assert max(counts) - min(counts) <= 1


def held():
    """Return what the caller and its workers hold: descriptors, mappings, those of /dev/shm, and bytes of memory."""
    processes = [os.getpid(), *children()]
    maps = "".join(Path(f"/proc/{pid}/maps").read_text() for pid in processes)
    return (
        sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in processes),
        maps.count("\n"),
        maps.count("/dev/shm"),
        sum(
            1024 * int(re.search(r"Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text())[1])
            for pid in processes
        ),
    )


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="what it does is glibc's")
@pytest.mark.parametrize("backend", ["processes", "spawn"])
def test_memory_that_an_item_frees_is_the_next_one_s(backend, monkeypatch):
    for name in ("GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"):
        monkeypatch.delenv(name, raising=False)

    def item(i):
        buffers = [b"x" * 1_000_000 for _ in range(8)]
        assert len(buffers) == 8
        del buffers
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

    faults = list(ordered_imap(Items(60, item), 1, backend=backend))
    assert faults[-1] - faults[9] < 50 * 100  # of the 2,000 pages an item


@pytest.mark.parametrize(("length", "kind"), [(1_000_000, "numbers"), (100_000, "arrays")])
def test_a_long_run_holds_no_more_at_its_end_than_at_its_beginning(length, kind):
    np = pytest.importorskip("numpy")
    item = (lambda i: i) if kind == "numbers" else (lambda i: np.full(1200, i))
    results = ordered_imap(Items(length, item), 2, 256)
    for _ in range(length // 20):
        next(results)
    before = held()
    for _ in range(length - length // 20 - 1):
        next(results)
    after = held()
    next(results)
    files, mappings, shared, nbytes = (now - then for now, then in zip(after, before))
    assert (shared, list(results)) == (0, [])
    assert max(files, mappings) <= 2 * 256, (before, after)  # a block costs both sides one; how many idle varies
    assert nbytes < 16_000_000, (before, after)


def test_a_worker_with_short_items_takes_no_core_from_the_caller():
    filtered = "\nSeccomp:\t2" in Path("/proc/self/status").read_text(encoding="utf-8")
    courteous = os.SCHED_OTHER if filtered else os.SCHED_BATCH

    def policies(_):
        return os.sched_getscheduler(0)

    def short(_):
        time.sleep(0.0001)
        return os.sched_getscheduler(0)

    def slow(_):
        time.sleep(0.003)
        return os.sched_getscheduler(0)

    with Processes(1) as pool:
        tiny = list(ordered_map(policies, range(5000), backend=pool))
        assert tiny[0] == os.SCHED_OTHER
        assert courteous in tiny[1000:]
        assert courteous in list(ordered_map(short, range(400), backend=pool, prefetch=8))  # two items a chunk
        assert set(ordered_map(slow, range(50), backend=pool)) == {os.SCHED_OTHER}
        assert set(ordered_map(policies, range(500), backend=pool, chunksize=100)) == {os.SCHED_OTHER}

        def nested(i):
            if i < 4000:
                return None
            return set(ordered_imap(Items(3, slow), 1, backend=way)) if i == 4000 else os.sched_getscheduler(0)

        for way in ("processes", "spawn"):
            found = list(ordered_map(nested, range(9000), backend=pool))
            assert found[4000] == {os.SCHED_OTHER}
            assert courteous in found[4001:]
    with Processes(1, initializer=lambda: os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))) as pool:
        assert set(ordered_map(policies, range(5000), backend=pool)) == {os.SCHED_IDLE}
