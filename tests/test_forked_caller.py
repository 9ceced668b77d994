"""A program that forks itself: pools made before go on in the fork, and what the caller has at hand stays the caller's."""

from __future__ import annotations

import os
import sys

import pytest

from ordmap import Asyncio, Processes, Spawn, Threads, ordered_map
from ordmap.backends import portable
from ordmap.engine import available
from ordmap.errors import OrdmapError

pytestmark = [
    pytest.mark.skipif(not available(), reason="the engine is for Linux"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning"),  # of the tests' own forks
]


def in_fork(check):
    """Return whether a check is true in a fork of this process, which ends with it."""
    child = os.fork()
    if not child:
        code = 1
        try:
            code = 0 if check() else 2
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def absolute(number):
    return abs(number)


async def awaited(number):
    return abs(number)


POOLS = {
    "processes": Processes,
    "spawn": Spawn,
    "threads": Threads,
    "asyncio": Asyncio,
    "portable": portable.Processes,
}


@pytest.mark.parametrize("begun", ["new", "used", "held", "in the midst"])
@pytest.mark.parametrize("name", POOLS)
def test_a_pool_that_was_made_before_a_fork_has_workers_of_its_own_there(name, begun):
    function = awaited if name == "asyncio" else absolute
    pool = POOLS[name](2)

    def results():
        return list(ordered_map(function, range(-20, 0), backend=pool))

    expected = list(range(20, 0, -1))

    def check():
        with pool:
            return results() == expected

    others = None
    if begun == "used":
        assert results() == expected
    elif begun == "held":
        pool.hold()
        assert results() == expected
    elif begun == "in the midst":
        others = ordered_map(function, range(100), backend=pool)
        assert next(others) == 0
    try:
        assert in_fork(check)
        if others is not None:
            assert list(others) == list(range(1, 100))
        assert results() == expected
    finally:
        pool.close()


def listed(number):
    return [number]


def gives_nothing(results):
    with pytest.raises(OrdmapError, match="is a fork of it: make a new one here"):
        next(results)
    return True


@pytest.mark.parametrize("backend", ["processes", "threads", "serial"])
@pytest.mark.parametrize("function", [abs, str, listed], ids=["numbers", "texts", "lists"])
@pytest.mark.parametrize("taken", [1, 7, 60])
def test_a_fork_in_the_midst_of_a_loop_gets_nothing_that_the_caller_gives(backend, function, taken):
    results = ordered_map(function, range(100), workers=1, backend=backend, chunksize=50, prefetch=100)
    before = [next(results) for _ in range(taken)]
    assert in_fork(lambda: gives_nothing(results))
    assert before + list(results) == [function(i) for i in range(100)]


def test_a_fork_that_goes_on_with_the_loop_itself_ends_with_the_error():
    results = ordered_map(abs, range(100), workers=1, chunksize=50, prefetch=100)
    child, given = None, []
    try:
        for result in results:
            if result == 3:
                child = os.fork()
            given.append(result)
    except OrdmapError:
        os._exit(7 if given == [0, 1, 2, 3] else 8)
    assert given == list(range(100))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
