"""The contract, for every backend in the registry and for executors of other makers."""

from __future__ import annotations

import asyncio
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import pytest

from ordmap import Asyncio
from ordmap.backends import BACKENDS, Job, portable, resolve
from ordmap.backends.promises import PROMISES
from ordmap.outcome import Raised
from ordmap.testing import BackendContract


class InThreads(Asyncio):
    """The loop's backend, for the items of this contract, which don't await anything: each is awaited in a thread."""

    def open(self, job):
        async def work(key):
            return await asyncio.to_thread(_caught, job.compute, key)

        return super().open(Job(work, job.subject, job.patience, job.limit, job.seed))


def _caught(compute, key):
    """Return what an item gives, or the stand-in for what it raises: no coroutine can raise StopIteration."""
    try:
        return compute(key)
    except BaseException as error:
        return Raised(error.with_traceback(error.__traceback__.tb_next))


class TestAsyncio(BackendContract):
    @pytest.fixture
    def backend(self):
        return InThreads(2)


#: A start for each test that takes long; the warm pools, and the forked workers, are tried in all of this, too.
long = pytest.mark.long


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[long] * (name == "spawn")) for name in BACKENDS if name != "asyncio"]
)
class TestByName(BackendContract):
    @pytest.fixture
    def backend(self, name):
        return resolve(name, 0 if name == "serial" else 2)


class TestWarmProcesses(BackendContract):
    """A pool that is held open by ``with``, so that no dataset but the first is inherited."""

    @pytest.fixture
    def backend(self):
        with resolve("processes", 2) as pool:
            yield pool


@pytest.mark.parametrize("make", [pytest.param(one, marks=long) for one in (portable.Processes, portable.Spawn)])
class TestPortable(BackendContract):
    """The processes of systems that the engine doesn't know."""

    @pytest.fixture
    def backend(self, make):
        return make(2)


class TestWarmPortableProcesses(BackendContract):
    """As for `TestWarmProcesses`."""

    @pytest.fixture
    def backend(self):
        with portable.Processes(2) as pool:
            yield pool


class TestThreadPoolExecutor(BackendContract):
    @pytest.fixture
    def backend(self):
        with ThreadPoolExecutor(2) as executor:
            yield executor

    @pytest.fixture
    def grade(self, resolved):
        # An executor's row speaks of processes; no thread can die alone.
        return {**resolved.promises, "worker death": resolve("threads", 2).promises["worker death"]}.__getitem__


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=long)])
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
class TestProcessPoolExecutor(BackendContract):
    @pytest.fixture
    def backend(self, method):
        with ProcessPoolExecutor(2, mp_context=get_context(method)) as executor:
            yield executor


@pytest.fixture(scope="module")
def loky_executors():
    made = []
    yield made
    for executor in made:
        executor.shutdown(kill_workers=True)


@pytest.mark.others_workers
class TestLoky(BackendContract):
    """One executor for all tests, as a program has one for all its loops; another after a worker's death."""

    @pytest.fixture
    def backend(self, loky_executors):
        loky = pytest.importorskip("loky")
        if not loky_executors or loky_executors[-1]._flags.broken is not None:
            loky_executors.append(loky.ProcessPoolExecutor(2))
        return loky_executors[-1]


def test_every_backend_has_a_whole_row():
    backends = [resolve(name, None) for name in BACKENDS]
    assert [backend.name for backend in backends] == list(BACKENDS)
    for backend in [*backends, portable.Processes(), portable.Spawn()]:
        assert list(backend.promises) == list(PROMISES)
        assert all(grade.how or grade.word == "kept" for grade in backend.promises.values())
