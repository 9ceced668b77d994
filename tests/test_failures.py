"""How failures are said, and what a worker's death costs at each instant of its life."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import socket
import sys
import time
import weakref

import numpy as np
import pytest
from conftest import Tally

from ordmap import (
    BackendUnavailableError,
    Failure,
    Processes,
    Spawn,
    Threads,
    WorkerDiedError,
    ordered_imap,
    ordered_map,
)
from ordmap.backends import portable
from ordmap.engine import available, channel, points
from ordmap.engine import pool as engine_pool
from ordmap.engine.wear import own_memory
from ordmap.testing import outcomes, wait_until

pytestmark = pytest.mark.skipif(not available(), reason="the engine is for Linux")

ENGINE = ["processes", "spawn"]


def kill_by(how):
    if how == "exit":
        os._exit(7)
    if how == "SIGKILL":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "SIGABRT":
        os.abort()
    ctypes.string_at(0)


class Deadly:
    """Ten numbers; one of them kills the worker, each time that it is asked for."""

    def __init__(self, how, tally):
        self.how = how
        self.pids = tally.path

    def __len__(self):
        return 10

    def __getitem__(self, index):
        if index == 6:
            self.pids.write_text(str(os.getpid()))
            kill_by(self.how)
        return index


# What is said of a death


@pytest.mark.parametrize("chunksize", [None, 4])
@pytest.mark.parametrize("backend", ENGINE)
@pytest.mark.parametrize(
    ("how", "code", "name", "said"),
    [
        ("exit", 7, None, "ended with exit code 7"),
        ("SIGKILL", -9, "SIGKILL", "was killed by SIGKILL (probably the kernel's out-of-memory killer)"),
        ("SIGSEGV", -11, "SIGSEGV", "was killed by SIGSEGV"),
        ("SIGABRT", -6, "SIGABRT", "was killed by SIGABRT"),
    ],
)
def test_a_death_says_how_and_which_and_where(how, code, name, said, backend, chunksize, tally):
    dataset = Deadly(how, tally)
    found = outcomes(ordered_imap(dataset, 2, 8, backend=backend, chunksize=chunksize, retries=2))
    death = found.pop(6)
    assert found == [0, 1, 2, 3, 4, 5, 7, 8, 9]
    assert type(death) is WorkerDiedError
    assert (death.index, death.attempts, death.exit_code, death.signal) == (6, 3, code, name)
    assert death.pid == int(dataset.pids.read_text())
    assert f"{said} while it computed this item" in str(death)
    if name in {"SIGSEGV", "SIGABRT"}:
        assert death.stack.startswith("Fatal Python error")
        assert "in kill_by" in death.stack
        assert "worker.py" not in death.stack  # what called the item is no concern of the user's
        assert death.stack.strip() in "".join(death.__notes__)
    else:
        assert death.stack == ""


def test_a_crash_of_an_item_s_own_child_is_not_taken_for_the_worker_s():
    def fork(index):
        if index == 2:
            child = os.fork()
            if not child:
                ctypes.string_at(0)
            os.waitpid(child, 0)
            os._exit(1)
        return index

    found = outcomes(ordered_map(fork, range(4), workers=2))
    assert (found[2].exit_code, found[2].stack) == (1, "")


def test_a_failure_is_frozen_and_travels():
    import pickle

    (failure,) = ordered_map(int, ["x"], workers=1, on_error="return")
    with pytest.raises(AttributeError):
        failure.index = 3
    again = pickle.loads(pickle.dumps(failure))
    assert (again.index, again.attempts, type(again.error)) == (0, 1, ValueError)


def test_a_result_that_can_not_be_opened_is_tried_again(tally):
    class Sometimes:
        def __reduce__(self):
            tally.add()
            return (refuse, ()) if int(tally) < 3 else (int, (5,))

    def make(index):
        return Sometimes() if index == 2 else index

    assert list(ordered_map(make, range(5), workers=2, retries=2, chunksize=3, prefetch=6)) == [0, 1, 5, 3, 4]
    assert int(tally) == 3


def refuse():
    raise ValueError("not yet")


def test_a_retry_keeps_the_bound_and_holds_up_nobody(tally):
    gate = tally.path.with_name("gate")

    def work(index):
        if index == 0:
            tally.add()
            if int(tally) == 1:
                raise OSError
            wait_until(gate.exists, "the gate opens")
        elif index == 7:
            gate.touch()  # the window goes on while the first item is tried again
        return index

    numbers = ordered_map(work, range(40), workers=2, prefetch=8, chunksize=1, retries=1)
    assert list(numbers) == [*range(40)]
    assert numbers.stats.most_in_flight == 8
    assert numbers.stats.delivered == 40


def test_what_on_error_gives_is_no_end_of_the_loop():
    def stop(failure):
        raise StopIteration

    with pytest.raises(RuntimeError, match="on_error raised StopIteration"):
        next(ordered_map(int, ["x"], workers=1, on_error=stop))


def test_an_interrupt_in_on_error_ends_the_iterator():
    def interrupt(failure):
        raise KeyboardInterrupt

    numbers = ordered_map(int, ["x", "1"], workers=1, on_error=interrupt)
    with pytest.raises(KeyboardInterrupt):
        next(numbers)
    assert list(numbers) == []


# Workers that can't begin


class FromNowOn:
    """Kills each worker at its start, or the first few only."""

    def __init__(self, tally, most=1000):
        self.tally = tally
        self.most = most

    def __call__(self):
        self.tally.add()
        if int(self.tally) <= self.most:
            os.write(2, b"no licence is left\n")
            os._exit(4)
        os.write(2, b"found a licence\n")


@pytest.mark.parametrize("make", [Processes, Spawn])
def test_workers_that_die_at_their_start_are_one_error_with_what_they_said(make, tally, capfd):
    with pytest.raises(
        WorkerDiedError, match="(?s)die before they begin.*exit code 4, having said:\nno licence"
    ) as caught:
        next(ordered_map(abs, [1], backend=make(2, initializer=FromNowOn(tally))))
    assert (caught.value.exit_code, caught.value.index) == (4, 0)
    assert int(tally) <= 2 * 3


def test_a_crash_at_the_start_is_said(tally):
    with pytest.raises(WorkerDiedError, match="(?s)SIGSEGV, having said:\nFatal Python error.* in kill_by"):
        next(ordered_map(abs, [1], backend=Processes(2, initializer=kill_by, initargs=("SIGSEGV",))))


@pytest.mark.parametrize("make", [Processes, Spawn])
def test_what_a_worker_says_that_begins_after_all_is_passed_on(make, tally, capfd):
    numbers = ordered_map(abs, range(5), backend=make(1, initializer=FromNowOn(tally, 2)))
    assert list(numbers) == [*range(5)]
    assert capfd.readouterr().err.count("found a licence") == 1


def test_a_fresh_interpreter_that_can_not_import_what_it_needs_is_said(tmp_path, monkeypatch, capfd):
    package = tmp_path / "ordmap"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('this ordmap is broken')")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(WorkerDiedError, match="(?s)die before they begin.*ImportError: this ordmap is broken"):
        next(ordered_map(abs, [1], backend=Spawn(2)))


# Workers come and go


@pytest.mark.parametrize("chunksize", [None, 1, 7])
@pytest.mark.parametrize("make", [Processes, Spawn])
def test_a_worker_computes_so_many_items_at_most(make, chunksize, tally):
    def work(index):
        tally.add()
        return os.getpid(), np.full(40_000, index)

    length = 60 if make is Processes else 30  # fresh interpreters take their time
    with make(2, max_items_per_worker=5) as pool:
        found = list(ordered_imap(range_of(work, length), prefetch=14, backend=pool, chunksize=chunksize))
    assert [int(array[-1]) for _, array in found] == [*range(length)]  # kept beyond their workers
    pids = [pid for pid, _ in found]
    assert len(set(pids)) >= length // 5
    assert max(pids.count(pid) for pid in pids) == 5
    assert int(tally) == length


class range_of:
    def __init__(self, function, length):
        self.function = function
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return self.function(index)


_leak = []


@pytest.mark.parametrize("chunksize", [None, 20])
def test_a_worker_that_leaks_is_replaced(chunksize):
    def leak(index):
        before = own_memory()
        _leak.append(bytearray(os.urandom(1024) * 20 * 1024))
        return os.getpid(), before

    gc.collect()
    gc.freeze()  # else the worker's collector makes much of what this process has its own, at any time
    try:
        with Processes(1, max_memory_per_worker="90MB") as pool:
            found = list(ordered_map(leak, range(20), backend=pool, chunksize=chunksize, prefetch=20))
    finally:
        gc.unfreeze()
    assert 4 <= len({pid for pid, _ in found}) <= 10
    # It begins no item with more, but for the little that it takes to receive the next one: much less than 20 MB.
    assert max(before for _, before in found) < 100e6


def test_what_a_worker_shares_with_the_caller_is_not_its_own():
    held = np.ones(30_000_000)

    def look(index):
        return os.getpid(), float(held[index::1000].sum())

    with Processes(1, max_memory_per_worker="100MB") as pool:
        found = list(ordered_map(look, range(50), backend=pool))
    assert found == [(found[0][0], 30_000.0)] * 50


@pytest.mark.parametrize("make", [Threads, Processes, Spawn, portable.Processes, portable.Spawn])
def test_a_finalizer_runs_once_a_worker_that_ends_in_peace(make, tally):
    begun = Tally(tally.path.with_name("begun"))
    with make(2, initializer=begun.add, finalizer=tally.add) as pool:
        assert list(ordered_map(abs, range(20), backend=pool)) == [*range(20)]
    wait_until(lambda: int(tally) == int(begun) > 0, "each has run it")


@pytest.mark.parametrize("make", [Processes, Spawn])
def test_a_finalizer_runs_where_a_worker_is_ended_in_the_midst_of_its_initializer(make, tally):
    begun, inside = Tally(tally.path.with_name("begun")), Tally(tally.path.with_name("inside"))

    def begin():
        inside.add()
        time.sleep(0.05)
        begun.add()

    with make(2, initializer=begin, finalizer=tally.add) as pool:
        iterator = ordered_map(abs, range(20), backend=pool).start()
        wait_until(lambda: int(inside) == 2, "both are in it")
        iterator.close()
    assert (int(begun), int(tally)) == (2, 2)


@pytest.mark.parametrize("make", [Processes, Spawn])
def test_a_finalizer_runs_in_the_midst_of_an_item_that_nobody_wants(make, tally):
    inside = Tally(tally.path.with_name("inside"))

    def work(index):
        if index > 1:
            inside.add()
            try:
                time.sleep(60)
            except Exception:  # it is not the item's to catch
                time.sleep(60)
        return index

    numbers = ordered_map(work, range(9), backend=make(2, finalizer=tally.add), prefetch=4, chunksize=1)
    assert [next(numbers), next(numbers)] == [0, 1]
    wait_until(lambda: int(inside) == 2, "both are inside an item")
    numbers.close()
    assert int(tally) == 2


def test_a_finalizer_runs_in_workers_that_are_recycled_and_not_in_those_that_are_killed(tally):
    def work(index):
        if index == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return index

    with Processes(1, finalizer=tally.add, max_items_per_worker=3) as pool:
        found = list(ordered_map(work, range(11), backend=pool, on_error="skip", chunksize=1))
    assert found == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10]
    assert int(tally) == 3  # of four workers one was killed


def test_a_finalizer_is_none_of_an_item_s_child(tally):
    def fork(index):
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            os.write(writing, b".")
            time.sleep(60)
            os._exit(1)
        os.read(reading, 1)  # Python forgets what comes while it forks
        os.close(reading)
        os.close(writing)
        os.kill(child, signal.SIGTERM)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    with Processes(1, finalizer=tally.add) as pool:
        assert list(ordered_map(fork, range(3), backend=pool)) == [-signal.SIGTERM] * 3
    assert int(tally) == 1


def test_a_finalizer_that_raises_is_said_and_harms_nothing(capfd):
    with Processes(1, finalizer=lambda: 1 / 0) as pool:
        assert list(ordered_map(abs, range(3), backend=pool)) == [0, 1, 2]
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_the_portable_path_refuses_to_recycle():
    for make in (portable.Processes, portable.Spawn):
        with pytest.raises(BackendUnavailableError, match="process engine"):
            make(2, max_items_per_worker=3)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"initializer": 3}, TypeError, "initializer must be a function"),
        ({"finalizer": "close"}, TypeError, "finalizer must be a function"),
        ({"initializer": print, "initargs": 3}, TypeError, r"write initargs=\(3,\)"),
        ({"initargs": (3,)}, ValueError, "initargs are for an initializer"),
        ({"max_items_per_worker": 0}, ValueError, "at least 1"),
        ({"max_items_per_worker": True}, TypeError, "whole number"),
        ({"max_memory_per_worker": "2 gigs"}, ValueError, 'such as "512MB"'),
        ({"max_memory_per_worker": -1}, ValueError, "at least 1"),
        ({"max_memory_per_worker": 1.5}, TypeError, "whole number"),
    ],
)
def test_pools_refuse(options, error, message):
    with pytest.raises(error, match=message):
        Processes(2, **options)


def test_a_bound_that_is_passed_before_the_first_item_still_gives_items():
    with Processes(2, max_memory_per_worker="1MB") as pool:
        assert list(ordered_map(abs, range(12), backend=pool)) == [*range(12)]


def test_what_a_worker_reads_of_a_file_is_not_its_own(tmp_path):
    path = tmp_path / "numbers"
    with path.open("wb") as file:
        np.arange(16_000_000.0).tofile(file)
        file.flush()
        os.fsync(file.fileno())
    numbers = np.memmap(path)

    def look(index):
        return os.getpid(), int(numbers[index::4096].sum())

    # The file has 128 MB. What a fork of this process writes to, were it but counts of references, may have 40 by itself.
    with Processes(1, max_memory_per_worker="100MB") as pool:
        assert len({pid for pid, _ in ordered_map(look, range(30), backend=pool)}) == 1


def test_recycling_does_not_hold_up_the_oldest_item_of_a_wide_window(tally):
    with Processes(2, initializer=tally.add, max_items_per_worker=100) as pool:
        assert list(ordered_map(abs, range(4000), prefetch=4000, chunksize=1, backend=pool)) == [*range(4000)]
    assert 40 <= int(tally) <= 60


def test_a_recycled_worker_whose_end_takes_too_long_is_ended(monkeypatch, tally):
    monkeypatch.setattr(engine_pool, "LEAVE", 0.2)

    def hang():
        tally.add()
        time.sleep(60)

    with Processes(1, finalizer=hang, max_items_per_worker=3) as pool:
        assert list(ordered_map(abs, range(8), chunksize=1, backend=pool)) == [*range(8)]
    assert int(tally) == 3


def test_an_input_is_what_it_was_also_when_it_is_tried_again(tally):
    memory = np.zeros(3)

    def source():
        for n in range(9):
            memory[:] = n
            yield memory

    def work(array):
        if array[0] == 1:
            tally.add()
            if int(tally) == 1:
                raise OSError
        return int(array[0])

    assert list(ordered_map(work, source(), workers=2, prefetch=6, retries=1)) == [*range(9)]
    assert int(tally) == 2


def test_the_item_s_clock_is_none_of_the_finalizer_s(tally):
    inside = Tally(tally.path.with_name("inside"))

    def work(index):
        if index:
            inside.add()
            time.sleep(60)

    def finish():
        time.sleep(0.3)
        tally.add()

    numbers = ordered_map(work, range(3), backend=Processes(1, finalizer=finish), item_timeout=0.25, chunksize=1)
    assert next(numbers) is None
    wait_until(lambda: int(inside) == 1, "it is in its item")
    numbers.close()
    assert int(tally) == 1


def test_a_death_in_a_chunk_is_found_once_though_its_worker_is_to_leave(tally):
    def work(index):
        if index == 15:
            tally.add()
            kill_by("SIGKILL")
        return index

    with Processes(2, max_items_per_worker=10) as pool:
        found = outcomes(ordered_map(work, range(40), prefetch=40, chunksize=20, backend=pool))
    assert type(found.pop(15)) is WorkerDiedError
    assert found == [*range(15), *range(16, 40)]
    assert int(tally) == 1


def test_the_note_of_a_death_names_the_worker_that_died():
    found = outcomes(
        ordered_map(lambda n: kill_by("exit") if n == 5 else n, range(8), workers=2, prefetch=8, chunksize=8)
    )
    assert f":{found[5].pid}, attempt 1" in found[5].__notes__[0]


def test_a_worker_that_is_told_to_end_by_others_says_so_also_where_it_has_a_finalizer(tally):
    def work(index):
        if index == 2:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        return index

    with Processes(1, finalizer=tally.add) as pool:
        found = outcomes(ordered_map(work, range(4), backend=pool, chunksize=1))
    assert (found[2].signal, found[2].index) == ("SIGTERM", 2)
    assert int(tally) == 2


def test_a_stray_in_a_warm_pool_runs_its_finalizer(tally):
    inside = Tally(tally.path.with_name("inside"))

    def work(index):
        if index:
            inside.add()
            time.sleep(60)

    with Processes(1, finalizer=tally.add) as pool:
        numbers = ordered_map(work, range(3), backend=pool, chunksize=1)
        assert next(numbers) is None
        wait_until(lambda: int(inside) == 1, "it is in its item")
        numbers.close()
        assert list(ordered_map(abs, range(3), backend=pool)) == [0, 1, 2]
    assert int(tally) == 2


@pytest.mark.parametrize("make", [Processes, Spawn])
def test_workers_that_die_before_they_compute_anything_are_one_error(make, tally):
    def close_all():
        tally.add()
        os.closerange(3, 256)

    with pytest.raises(WorkerDiedError, match="workers die before they begin"):
        next(ordered_map(abs, [1], backend=make(2, initializer=close_all)))
    assert int(tally) <= 2 * 3


@pytest.mark.parametrize("on_error", ["skip", "return", lambda failure: None])
@pytest.mark.parametrize("backend", ["serial", "threads", "processes"])
def test_nothing_of_a_failed_attempt_is_kept(backend, on_error):
    class Kept:
        pass

    alive = weakref.WeakSet()

    def work(index):
        if index % 3 == 1:
            error = OSError(index)
            alive.add(error)
            raise error
        result = Kept()
        alive.add(result)
        return result

    gc.collect()
    gc.disable()
    try:
        for one in ordered_map(work, range(60), workers=2 if backend != "serial" else None, prefetch=12,
                               chunksize=4, backend=backend, retries=1, on_error=on_error):  # fmt: skip
            del one
        assert not alive
    finally:
        gc.enable()


# A death at each instant


class Mixed:
    """Numbers, texts and arrays, small and large; some take a moment, so that chunks are handed back, and offered."""

    def __init__(self, length):
        self.length = length
        self.moment, self.size = (0.004, 60_000) if length < 1000 else (0.015, 1000)

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        if index % 10 == 7:
            time.sleep(self.moment)
        return [index, "x" * index, np.full(50, index), np.full(self.size, index)][index % 4]


#: How each instant is come by: the backend, the chunk size, the items, the window.
COMMON = [(Processes, None, 120, 24), (Processes, 1, 120, 24), (Processes, 6, 120, 24), (Spawn, None, 120, 24)]
MANY = [(Processes, 1, 1000, 1000), (Spawn, 1, 1000, 1000)]  # more chunks than the channel has room for one by one
INSTANTS = [
    pytest.param(
        point, *how, id=f"{point}, {how[0].name}, chunks of {how[1]}", marks=[pytest.mark.long] if place else []
    )
    for point in points.POINTS
    for place, how in enumerate(MANY if point == "an offered task given up" else COMMON)
]


@pytest.mark.parametrize(("point", "make", "chunksize", "length", "window"), INSTANTS)
def test_a_worker_that_dies_at_any_instant_costs_one_item_at_most(
    point, make, chunksize, length, window, tmp_path, monkeypatch
):
    claimed = tmp_path / "claimed"
    monkeypatch.setattr(channel, "pair", lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    monkeypatch.setenv("ORDMAP_DIE_AT", f"{points.POINTS[point]}@{claimed}")
    dataset = Mixed(length)
    most = 100 if make is Spawn else 50  # so that some of them have done enough
    with make(2, max_items_per_worker=max(most, length // 4)) as pool:
        for _ in range(2):  # the second time the workers are there, and are told of the dataset
            found = list(ordered_imap(dataset, None, window, backend=pool, chunksize=chunksize, on_error="return"))
            assert len(found) == length
            failures = [one for one in found if isinstance(one, Failure)]
            assert len(failures) <= 1
            for failure in failures:
                assert type(failure.error) is WorkerDiedError
                assert (failure.error.signal, found[failure.index]) == ("SIGKILL", failure)
            for index, one in enumerate(found):
                if not isinstance(one, Failure):
                    np.testing.assert_array_equal(one, dataset[index])
    assert claimed.exists()
