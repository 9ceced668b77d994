"""A machine that takes, keeps, views, writes, drops and forks at random: no live result ever shares memory."""

from __future__ import annotations

import gc
import os
import zlib

import pytest

np = pytest.importorskip("numpy")

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import ordmap
from ordmap import Processes, ordered_imap
from ordmap.engine import available

pytestmark = [pytest.mark.long, pytest.mark.skipif(not available(), reason="the engine is for Linux")]

LENGTH = 60
SIZES = (100, 1000, 5000, 5000, 70_000)


class Arrays:
    """Arrays of few sizes, so that blocks are soon used again.

    Every third is made in place, every fifth in a scratch array that the dataset keeps; some kill.
    """

    def __init__(self, salt: int, deadly: bool) -> None:
        self.salt = salt
        self.deadly = deadly
        self.scratch = None

    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, index: int):
        if self.deadly and index % 20 == 7:
            os._exit(1)
        result = self.made(index)
        if index % 5 == 0:
            if self.scratch is None:
                self.scratch = ordmap.empty(max(SIZES), np.int64)
            self.scratch[: len(result)] = result
            return self.scratch[: len(result)]
        if index % 3 == 0:
            in_place = ordmap.empty_like(result)
            in_place[:] = result
            return in_place
        return result

    def made(self, index: int):
        return np.arange(SIZES[(self.salt + index) % len(SIZES)]) * (index + 1) + self.salt


def checksum(array) -> int:
    return zlib.crc32(np.ascontiguousarray(array))


class Memory(RuleBasedStateMachine):
    """What is kept, with what its checksum must be."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = Processes(2)
        self.pool.__enter__()
        self.kept: list[tuple[object, int]] = []
        self.salt = 0
        self.children: list[tuple[int, int]] = []  # each with the pipe that it waits at

    @initialize()
    def begin(self) -> None:
        self.begin_anew(deadly=False, prefetch=8, chunksize=None)

    @rule(deadly=st.booleans(), prefetch=st.sampled_from([1, 4, 16]), chunksize=st.sampled_from([None, 1, 3]))
    def begin_anew(self, deadly: bool, prefetch: int, chunksize: int | None) -> None:
        self.salt += 1
        self.dataset = Arrays(self.salt, deadly)
        chunksize = None if chunksize is not None and chunksize > prefetch else chunksize
        self.results = ordered_imap(self.dataset, backend=self.pool, prefetch=prefetch, chunksize=chunksize)
        self.index = 0

    @precondition(lambda self: self.index < LENGTH)
    @rule(count=st.integers(1, 12), keep=st.integers(0, 3))
    def take(self, count: int, keep: int) -> None:
        for n in range(min(count, LENGTH - self.index)):
            expected = self.dataset.made(self.index)
            try:
                result = next(self.results)
            except ordmap.WorkerDiedError as error:
                assert error.index == self.index
                assert self.dataset.deadly
            else:
                assert np.array_equal(result, expected)
                if n % 4 < keep:
                    self.kept.append((result, checksum(result)))
                del result
            self.index += 1

    @precondition(lambda self: self.kept)
    @rule(data=st.data())
    def view(self, data) -> None:
        array, _ = self.kept.pop(data.draw(st.integers(0, len(self.kept) - 1)))
        view = array[len(array) // 3 :: 2]
        self.kept.append((view, checksum(view)))

    @precondition(lambda self: self.kept)
    @rule(data=st.data())
    def write(self, data) -> None:
        place = data.draw(st.integers(0, len(self.kept) - 1))
        array, _ = self.kept[place]
        array += 1
        self.kept[place] = array, checksum(array)

    @precondition(lambda self: self.kept)
    @rule(data=st.data())
    def drop(self, data) -> None:
        del self.kept[data.draw(st.integers(0, len(self.kept) - 1)) :: 2]
        gc.collect()

    @precondition(lambda self: self.kept and len(self.children) < 3)
    @rule()
    def fork(self) -> None:
        """Have a child live on with what is kept, which both sides then change and drop as they like."""
        go, at_go = os.pipe()
        pid = os.fork()
        if pid:
            os.close(go)
            self.children.append((pid, at_go))
        else:
            code = 1
            try:
                os.close(at_go)
                for _, other in self.children:
                    os.close(other)
                os.read(go, 1)
                same = all(checksum(array) == known for array, known in self.kept)
                for array, _ in self.kept:
                    array[:] = -1
                self.kept.clear()
                gc.collect()
                code = 0 if same else 2
            finally:
                os._exit(code)

    @precondition(lambda self: self.children)
    @rule()
    def join(self) -> None:
        pid, at_go = self.children.pop()
        os.write(at_go, b".")  # closing would not do: workers that were forked meanwhile have it, too
        os.close(at_go)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, "a child's array has changed"

    @invariant()
    def kept_is_as_it_was(self) -> None:
        assert all(checksum(array) == known for array, known in self.kept)

    def teardown(self) -> None:
        while self.children:
            self.join()
        self.results.close()
        self.pool.__exit__()
        assert all(checksum(array) == known for array, known in self.kept)


Memory.TestCase.settings = settings(max_examples=40, stateful_step_count=40)
TestMemory = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")(Memory.TestCase)
