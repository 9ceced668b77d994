"""Workers that have waited long: they leave by themselves, and others come when there is something to do."""

from __future__ import annotations

import math
import os
import socket
import struct
import time

import pytest

from ordmap import Processes, Spawn, ordered_imap, ordered_map
from ordmap.backends import portable
from ordmap.engine import available
from ordmap.errors import BackendUnavailableError
from test_engine import until

pytestmark = pytest.mark.skipif(not available(), reason="the engine is for Linux")

IDLE = 0.2


def alive():
    """Return the children that run: no zombies, and not the standard library's tracker, which stays."""
    found = set()
    for task in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{task}/children", encoding="utf-8") as file:
            found.update(map(int, file.read().split()))
    return {pid for pid in found if state(pid) != "Z" and b"resource_tracker" not in command(pid)}


def command(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read()
    except OSError:
        return b""


def state(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def with_pid(number):
    return number, os.getpid()


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("kind", [Processes, Spawn])
def test_workers_of_a_held_pool_leave_and_come_back(kind, static):
    numbers = range(6)
    with kind(2, idle_timeout=IDLE, static_dataset=static) as pool:
        seen = set()
        for _ in range(3):
            results = list(ordered_map(with_pid, numbers, backend=pool, chunksize=1))
            assert [number for number, _ in results] == [0, 1, 2, 3, 4, 5]
            assert not seen & {pid for _, pid in results}
            seen |= {pid for _, pid in results}
            until(lambda: not alive())
    assert not alive()


def test_a_loop_that_is_kept_unfinished_keeps_no_worker():
    try:
        results = ordered_imap(range(100), backend=Processes(2, idle_timeout=IDLE), prefetch=8)
        for result in results:
            1 / (3 - result)
    except ZeroDivisionError as error:
        kept = error.__traceback__  # as `sys.last_traceback` keeps it, with the frame and its iterator
    assert alive()
    until(lambda: not alive())
    assert kept is not None
    assert list(results) == list(range(4, 100))


@pytest.mark.parametrize("kind", [Processes, Spawn])
def test_a_loop_goes_on_after_a_long_pause(kind):
    results = ordered_map(with_pid, range(40), backend=kind(2, idle_timeout=IDLE), prefetch=4, chunksize=1)
    given = [next(results)[0]]
    for _ in range(3):
        until(lambda: not alive())
        given.append(next(results)[0])
        # The rest of the window is computed without another ``next()``.
        assert alive()
    given += [number for number, _ in results]
    assert given == list(range(40))
    assert not alive()


def test_one_that_is_idle_leaves_beside_one_that_is_busy_and_is_not_replaced_for_nothing(tally):
    def item(number):
        time.sleep(10 * IDLE if number == 0 else 0)
        return number

    pool = Processes(2, idle_timeout=IDLE, initializer=tally.add)
    # All are submitted at once: a task that comes later has good reason to call another worker.
    assert list(ordered_map(item, range(5), backend=pool, prefetch=5, chunksize=1)) == [0, 1, 2, 3, 4]
    assert int(tally) == 2


def test_one_that_leaves_runs_its_finalizer(tally):
    with Processes(2, idle_timeout=IDLE, finalizer=tally.add) as pool:
        assert list(ordered_map(abs, range(5), backend=pool)) == [0, 1, 2, 3, 4]
        until(lambda: int(tally) == 2)
        assert list(ordered_map(abs, range(5), backend=pool)) == [0, 1, 2, 3, 4]
    assert int(tally) >= 3  # one that has not begun yet has none to run


@pytest.mark.long
def test_tasks_come_at_the_very_instant_at_which_workers_leave():
    with Processes(2, idle_timeout=0.002) as pool:
        for pause in range(60):
            assert list(ordered_map(abs, range(3), backend=pool, chunksize=1)) == [0, 1, 2]
            time.sleep(0.0001 * pause)


def test_results_that_are_kept_stay_as_they_are():
    numpy = pytest.importorskip("numpy")
    with Processes(2, idle_timeout=IDLE) as pool:
        kept = list(ordered_map(lambda i: numpy.full(100_000, i), range(4), backend=pool))
        until(lambda: not alive())
        more = list(ordered_map(lambda i: numpy.full(100_000, -i), range(4), backend=pool))
    assert [int(array.max()) for array in kept] == [0, 1, 2, 3]
    assert [int(array.min()) for array in more] == [0, -1, -2, -3]


@pytest.mark.parametrize("value", [math.inf, 1, None])
def test_a_time_that_does_not_come_is_no_matter(value):
    assert list(ordered_map(abs, range(5), backend=Processes(2, idle_timeout=value))) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("value", "kind"), [(0, ValueError), (-1, ValueError), ("1", TypeError), (True, TypeError)])
def test_a_time_that_is_none_is_refused(value, kind):
    with pytest.raises(kind, match="idle_timeout"):
        Processes(2, idle_timeout=value)


def test_a_loop_s_own_workers_wait_for_minutes_and_those_of_a_held_pool_for_longer():
    pool = Processes(1)
    list(ordered_map(abs, range(2), backend=pool))
    waits = []
    for held in (False, True):
        if held:
            pool.hold()
        results = ordered_map(abs, range(9), backend=pool)
        next(results)
        taking = pool._crew.taking
        waits.append(struct.unpack("ll", taking.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16)))
        results.close()
    pool.close()
    assert waits == [(300, 0), (3600, 0)]


def test_the_portable_path_refuses_it():
    with pytest.raises(BackendUnavailableError, match="idle_timeout"):
        portable.Processes(2, idle_timeout=1)
