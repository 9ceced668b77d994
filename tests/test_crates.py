"""Large inputs: they arrive as they were when they were given, whoever computes with them, and however often."""

from __future__ import annotations

import gc
import os
import resource
import threading
import time
from itertools import islice

import numpy as np
import pytest

from ordmap import Processes, Spawn, WorkerDiedError, ordered_map
from ordmap.engine import available

if not available():
    pytest.skip("the engine is for Linux", allow_module_level=True)

from ordmap.engine import crates
from ordmap.engine.crates import Boxed, Crates, Opened
from ordmap.engine.loads import CrateLoad
from ordmap.engine.primed import InputRows
from ordmap.pulling import Puller
from ordmap.testing import outcomes

BOTH = pytest.mark.parametrize("make", [Processes, Spawn])


def arrays(count, size=5000):
    """Yield arrays of which each is filled anew, as a reader of frames does."""
    array = np.empty(size)
    for number in range(count):
        array[:] = number
        yield array


def told(array):
    return array.shape, array.dtype, array.tolist()


@BOTH
@pytest.mark.parametrize("chunksize", [1, 5, None])
def test_each_arrives_as_it_was_when_it_was_pulled(make, chunksize):
    with make(2) as pool:
        found = list(
            ordered_map(lambda x: (x.min(), x.max()), arrays(60), backend=pool, prefetch=15, chunksize=chunksize)
        )
    assert found == [(n, n) for n in range(60)]


@BOTH
def test_whatever_they_are(make):
    table = np.arange(60_000.0).reshape(200, 300)
    readonly = np.arange(9000)
    readonly.flags.writeable = False
    inputs = [
        table,
        table.T,
        table[::2, 5:],
        np.asfortranarray(table),
        readonly,
        np.zeros(0),
        np.array(3),
        np.arange(9000).astype("datetime64[s]"),
        np.zeros(3000, [("x", "f4"), ("y", "i8")]),
        np.array(["text", 5, None] * 3000, dtype=object),
        np.arange(5),
        np.ma.masked_less(table, 100),
        {"image": table, "label": 3, "again": table},
        [table, "x", (readonly, b"y" * 30_000)],
        bytearray(b"z" * 30_000),
        b"z" * 30_000,
        "z" * 30_000,
        None,
        7,
    ]
    with make(2) as pool:
        found = list(ordered_map(lambda x: x, inputs, backend=pool, prefetch=8))
        pairs = list(ordered_map(lambda x, y: (x, y), inputs, inputs[::-1], backend=pool, prefetch=12, chunksize=6))
    for got, given in zip(found, inputs, strict=True):
        np.testing.assert_equal(got, given)
        assert type(got) is type(given)
    for (one, other), given, back in zip(pairs, inputs, inputs[::-1], strict=True):
        np.testing.assert_equal(one, given)
        np.testing.assert_equal(other, back)


@BOTH
def test_an_item_may_write_to_its_input_and_is_tried_again_with_what_it_was(make, tally):
    def item(array):
        before = array.sum()
        array += 1
        array[0] = 99
        if before % 3 == 0:
            tally.add()
            if int(tally) % 2:
                raise LookupError
        return before, array[0], array[1]

    given = [np.full(4000, float(n)) for n in range(12)]
    with make(1) as pool:
        found = list(ordered_map(item, given, backend=pool, prefetch=6, chunksize=3, retries=4))
    assert found == [(4000.0 * n, 99, n + 1) for n in range(12)]
    assert [array[0] for array in given] == list(range(12))


@BOTH
def test_an_input_that_is_kept_stays_what_it_was(make):
    def item(array):
        kept = globals().setdefault("kept", [])
        kept.append(array[10:])
        return [one[0] for one in kept] == list(range(len(kept)))

    with make(1) as pool:
        assert all(ordered_map(item, arrays(40), backend=pool, prefetch=2))


@BOTH
def test_a_result_may_be_its_input_or_a_view_of_it(make):
    with make(2) as pool:
        found = list(ordered_map(lambda x: (x, x[5:]), arrays(30), backend=pool, prefetch=4))
    for number, (whole, part) in enumerate(found):
        assert (whole == number).all()
        assert (part == number).all()
        assert whole.size == part.size + 5


@BOTH
def test_a_dead_worker_s_inputs_are_there_for_the_next(make, tmp_path):
    def item(array):
        number = int(array[0])
        array[:] = -1
        if number % 7 == 3 and not (tmp_path / str(number)).exists():
            (tmp_path / str(number)).touch()
            os.kill(os.getpid(), 9)
        return number

    with make(2) as pool:
        given = [np.full(5000, n) for n in range(40)]
        assert list(ordered_map(item, given, backend=pool, prefetch=12, chunksize=4, retries=1)) == list(range(40))

        def deadly(array):
            if array[0] == 5:
                os.kill(os.getpid(), 9)
            return int(array[0])

        found = outcomes(ordered_map(deadly, given[:12], backend=pool, prefetch=12, chunksize=6))
    assert [type(one) for one in found] == [int] * 5 + [WorkerDiedError] + [int] * 6
    assert found[:5] + found[6:] == [n for n in range(12) if n != 5]


@BOTH
def test_what_is_handed_back_and_offered_to_others_keeps_its_inputs(make):
    def item(array):
        if array[0] % 5 == 0:
            time.sleep(0.03)
        return int(array[0])

    with make(3) as pool:
        assert list(ordered_map(item, arrays(200, 3000), backend=pool, prefetch=64)) == list(range(200))


def test_a_window_larger_than_the_crates_is_computed_whole(tally):
    def item(array):
        tally.add()
        return int(array[0])

    given = [np.full(2500, n) for n in range(500)]
    with ordered_map(item, given, workers=2, prefetch=400, chunksize=1) as numbers:
        assert next(numbers) == 0
        give_up = time.monotonic() + 30
        while int(tally) < 400 and time.monotonic() < give_up:
            time.sleep(0.01)
        assert int(tally) == 400
        assert list(islice(numbers, 499)) == list(range(1, 500))


def test_memory_is_filled_again_and_let_go():
    def in_use():
        return sum("memfd:ordmap" in os.readlink(f"/proc/self/fd/{file}") for file in os.listdir("/proc/self/fd")
                   if os.path.exists(f"/proc/self/fd/{file}"))  # fmt: skip

    before = in_use()
    with Processes(2) as pool:
        seen = []
        with ordered_map(lambda x: float(x[0]), arrays(300, 60_000), backend=pool, prefetch=4) as numbers:
            for number, found in enumerate(numbers):
                assert found == number
                seen.append(in_use())
        assert max(seen) <= before + 2 + 16  # the board of each worker, and about three times the window
        assert list(ordered_map(abs, [1], backend=pool)) == [1]
    gc.collect()
    assert in_use() == before


def test_two_runs_at_once():
    with Processes(2) as pool:
        ones = ordered_map(lambda x: ("one", int(x[0])), arrays(50), backend=pool, prefetch=4)
        twos = ordered_map(lambda x: ("two", int(x[0])), arrays(50), backend=pool, prefetch=4)
        assert list(zip(ones, twos, strict=True)) == [(("one", n), ("two", n)) for n in range(50)]
        for _ in range(10):  # left in the midst: what workers still have is not filled again
            with ordered_map(lambda x: time.sleep(0.01), arrays(50), backend=pool, prefetch=8) as left:
                next(left)
            assert list(ordered_map(lambda x: x.min() == x.max(), arrays(8), backend=pool)) == [True] * 8


def test_a_fork_of_the_user_s_sees_nothing_of_it():
    with Processes(2) as pool:
        numbers = ordered_map(lambda x: int(x[0]), arrays(60), backend=pool, prefetch=8)
        assert [next(numbers) for _ in range(10)] == list(range(10))
        pid = os.fork()
        if not pid:
            os._exit(0)
        os.waitpid(pid, 0)
        assert list(numbers) == list(range(10, 60))


def test_an_input_that_can_not_travel_costs_itself():
    class Local:
        def __reduce__(self):
            raise ValueError("not I")

    given = [np.zeros(9000), Local(), np.ones(9000)]
    found = outcomes(ordered_map(lambda x: float(x[0]), given, workers=1, chunksize=3, prefetch=3))
    assert [found[0], found[2]] == [0.0, 1.0]
    assert "the input can't be pickled: ValueError: not I" in str(found[1])


# By hand


def packed(crates, inputs):
    """Return the keys of the chunks that these inputs, of a list, become."""
    puller, keys = Puller(inputs), []
    while chunk := puller.fill(CrateLoad(crates, len(inputs), InputRows(None))).keys:
        keys += chunk
    return keys


def test_a_crate_is_filled_again_once_nobody_needs_it():
    here = Crates(1 << 30)
    keys = packed(here, [(np.full(5000, 1.0),), (np.full(5000, 2.0), "x")])
    assert [type(key) for key in keys] == [Boxed, Boxed]
    first = keys[0].crate
    assert keys[1].crate is first
    address, file = first.watch.memory.address, first.file
    opened = Opened(os.dup(file))
    array, text = keys[1].unpacked(opened)
    assert (array == 2).all()
    assert text == "x"
    assert not opened.close()  # the array is still there
    del keys, first, array
    again = packed(here, [(np.full(9000, 3.0),)])
    assert again[0].crate.watch.memory.address == address
    again[0].crate.retire()
    del again
    other = packed(here, [(np.full(9000, 4.0),)])
    assert other[0].crate.watch.memory.address != address or other[0].crate.file != file
    del other
    here.close()


def test_there_is_a_bound_to_crates(monkeypatch):
    here = Crates(200_000)
    kept = [packed(here, [(np.zeros(5000),)]) for _ in range(8)]
    assert [type(key).__name__ for (key,) in kept] == ["Boxed"] * 4 + ["Pickled"] * 4
    monkeypatch.setattr(crates, "_MOST", 2)
    here = Crates(1 << 30)
    kept = [packed(here, [(np.zeros(5000),)]) for _ in range(4)]
    assert [type(key).__name__ for (key,) in kept] == ["Boxed"] * 2 + ["Pickled"] * 2
    parts = packed(Crates(1 << 30), [([np.zeros(5000) for _ in range(300)],)])
    assert [type(key).__name__ for key in parts] == ["Pickled"]


def test_what_a_crate_has_no_room_for_begins_another_chunk():
    inputs = [(np.full(size, float(size)),) for size in (9000, 9000, 90_000, 9000, 4_000_000, 9000)]
    here, puller, chunks = Crates(1 << 30), Puller(inputs), []
    while keys := puller.fill(CrateLoad(here, 6, InputRows(None))).keys:
        chunks.append(keys)
    assert sum(map(len, chunks)) == 6 > len(chunks) > 1
    for keys in chunks:
        assert {type(key) for key in keys} == {Boxed}
        opened = Opened(os.dup(keys[0].crate.file))
        for key in keys:
            ((array,), (expected,)) = key.unpacked(opened), inputs.pop(0)
            np.testing.assert_equal(array, expected)
            del array
        opened.close()


def test_a_fork_while_another_thread_packs_does_not_wait_for_it():
    stop = threading.Event()

    def pack():
        while not stop.is_set():
            list(ordered_map(lambda x: float(x[0]), arrays(8, 1_000_000), workers=1))

    packing = threading.Thread(target=pack)
    packing.start()
    try:
        for _ in range(8):
            assert list(ordered_map(abs, range(4), workers=1, item_timeout=30)) == [0, 1, 2, 3]
            pid = os.fork()
            if not pid:
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
    finally:
        stop.set()
        packing.join()


def test_a_process_that_an_item_forks_keeps_its_input(tmp_path):
    def item(array):
        if array[0] == 0 and not os.fork():
            while not (tmp_path / "go on").exists():
                time.sleep(0.01)
            (tmp_path / "read").write_text(str(set(array[20_000:])))
            os._exit(0)
        return float(array[0])

    with Processes(1) as pool:
        given = [np.full(60_000, float(n)) for n in range(30)]
        assert list(ordered_map(item, given, backend=pool, prefetch=2, chunksize=1)) == list(range(30))
        (tmp_path / "go on").touch()
        give_up = time.monotonic() + 30
        while not (tmp_path / "read").exists() and time.monotonic() < give_up:
            time.sleep(0.01)
        time.sleep(0.05)
        assert eval((tmp_path / "read").read_text().replace("np.float64", "")) == {0.0}


def test_a_long_reason_beside_large_inputs_costs_its_own_item():
    class Loud:
        def __reduce__(self):
            raise ValueError("x" * 60_000)

    given = [np.zeros(9000), Loud(), Loud(), np.ones(9000)]
    found = outcomes(ordered_map(lambda x: float(x[0]), given, workers=1, chunksize=4, prefetch=4))
    assert [found[0], found[3]] == [0.0, 1.0]
    assert all("can't be pickled: ValueError: xxx" in str(error) for error in found[1:3])


def test_few_files_are_left_to_others():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    here = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (here + 60, hard))
    try:
        given = (np.full(5000, n) for n in range(300))
        found = []
        for number in ordered_map(lambda x: int(x[0]), given, workers=2, prefetch=200, chunksize=1):
            with open(os.devnull):
                found.append(number)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert found == list(range(300))
