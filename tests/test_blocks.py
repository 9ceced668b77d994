"""Results in memory blocks: they are equal, nobody else writes to them, and nothing of them is left."""

from __future__ import annotations

import copyreg
import gc
import os
import pickle
import random
import resource
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

np = pytest.importorskip("numpy")

import ordmap
from ordmap import Processes, Spawn, ordered_imap, ordered_map
from ordmap.engine import available, blocks, codec
from ordmap.engine.blocks import Arena
from ordmap.engine.board import Board
from ordmap.outcome import opened
from test_engine import Items, children, files, nothing_left, until  # noqa: F401

pytestmark = pytest.mark.skipif(not available(), reason="the engine is for Linux")


def array(i, size=5000):
    return np.full(size, i, dtype=np.float32)


def mappings():
    return Path("/proc/self/maps").read_text().count("memfd:ordmap")


@dataclass
class Sample:
    image: object
    label: int
    more: dict


def read_only(x):
    x.flags.writeable = False
    return x


RESULTS = {
    "plain": np.arange(10_000.0),
    "small": np.arange(7),
    "zero": np.zeros((0, 5)),
    "scalar": np.array(3.5),
    "fortran": np.asfortranarray(np.arange(40_000.0).reshape(100, 400)),
    "strided": np.arange(40_000.0)[::3],
    "transposed": np.arange(40_000.0).reshape(100, 400).T,
    "bool": np.ones(9000, dtype=bool),
    "structured": np.zeros(5000, dtype=[("a", "i4"), ("b", "f8", (2,))]),
    "objects": np.array([{"a": 1}, None, "x"] * 2000, dtype=object),
    "strings": np.array(["abc", "de"] * 4000),
    "dates": np.arange("2020-01", "2024-01", dtype="datetime64[D]"),
    "read-only": read_only(np.arange(20_000)),
    "nested": {"x": [np.arange(5000), (np.ones(3000), "s")], "y": np.arange(3)},
    "dataclass": Sample(np.arange(5000), 3, {"k": np.ones((50, 50))}),
    "bytes": random.Random(0).randbytes(1_000_000),
    "bytearray": bytearray(b"abc" * 100_000),
    "memoryview": memoryview(b"abcd" * 100_000).cast("i", (100, 1000)),
    "text": "ä" * 100_000,
    "list": list(range(50_000)),
    "large": b"x" * 50_000_000,
    "large bytearray": bytearray(50_000_000),
    "large memoryview": memoryview(bytearray(50_000_000)),
    "strided memoryview": memoryview(bytearray(b"abc" * 100_000))[::3],
}


def equal(a, b):
    assert type(a) is type(b)
    if isinstance(a, np.ndarray):
        assert a.dtype == b.dtype
        assert a.flags.writeable == b.flags.writeable
        assert a.flags.f_contiguous == b.flags.f_contiguous
        return np.array_equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and len(a) < 10:
        return len(a) == len(b) and all(map(equal, a, b))
    if isinstance(a, Sample):
        return equal(vars(a), vars(b))
    if isinstance(a, memoryview):
        return a == b and a.format == b.format and a.shape == b.shape and a.readonly == b.readonly
    return a == b


@pytest.mark.parametrize("name", RESULTS)
def test_results_come_back_equal_and_writable_where_they_were(name):
    result = RESULTS[name]
    if name in ("strided", "transposed"):
        for got in ordered_imap(Items(4, lambda i: result), 2, 2):
            assert np.array_equal(got, result)
        return
    for got in ordered_imap(Items(4, lambda i: result), 2, 2):
        assert equal(got, result)


@pytest.mark.parametrize("size", [255, 256, 257, 512, 5000])
def test_arrays_that_differ_in_one_thing_only_come_back_as_they_are(size):
    def item(i):
        kind = ("f8", "i8", "q", "u8", "c8")[i % 5]
        array = np.arange(size, dtype=kind) + i
        shape = (size,) if i % 3 else (1, size)
        array = array.astype(kind).reshape(shape)
        return read_only(array) if i % 2 else array

    for _ in range(2):
        for i, got in enumerate(ordered_imap(Items(90, item), 1, 16)):
            assert equal(got, item(i))


def test_an_array_that_calls_itself_writeable_but_is_not_changes_no_other():
    """numpy warns when one looks at that flag of such an array, which is an error here."""

    def item(i):
        plain = np.full(1000, float(i))
        return np.broadcast_arrays(plain, np.zeros((1, 1)))[0] if i in first else plain[None]

    for first in ({0}, {1, 5}):
        found = list(ordered_imap(Items(8, item), 1))
        expected = [pickle.loads(pickle.dumps(item(i), 5)) for i in range(8)]
        assert [x.flags.writeable for x in found] == [x.flags.writeable for x in expected]
        assert all((x == i).all() for i, x in enumerate(found))


def test_a_user_s_own_way_to_pickle_arrays_is_taken(monkeypatch):
    monkeypatch.setitem(copyreg.dispatch_table, np.ndarray, lambda array: (np.negative, (array.tolist(),)))
    got = list(ordered_imap(Items(4, lambda i: np.full(1000, i)), 1))
    assert [int(x[0]) for x in got] == [0, -1, -2, -3]


def test_results_that_are_kept_stay_as_they_are():
    kept = list(ordered_imap(Items(200, array), 2, 16))
    assert not children()
    assert all((x == i).all() for i, x in enumerate(kept))
    for i, x in enumerate(kept):
        x += 1
        assert (x == i + 1).all()
    del kept, x
    gc.collect()
    assert not mappings()


@pytest.mark.parametrize("view", [lambda x: x[7:], lambda x: x.reshape(50, 100), memoryview, lambda x: x[::2][3:]])
def test_a_kept_view_keeps_its_result(view):
    kept = [view(x) for x in ordered_imap(Items(100, array), 2, 8)]
    assert all((np.asarray(x) == i).all() for i, x in enumerate(kept))


def test_blocks_are_used_again():
    addresses = set()
    for i, x in enumerate(ordered_imap(Items(500, array), 2, 8)):
        assert (x == i).all()
        addresses.add(x.ctypes.data)
    # Each worker may have had all that is in use, and as much that it gave up since.
    assert len(addresses) <= 2 * 2 * 8


def test_a_slow_consumer_has_the_window_held_and_no_more(tally):
    def item(i):
        tally.add()
        return array(i)

    with ordered_imap(Items(60, item), 1, 8, chunksize=1) as results:
        for i in range(60):
            assert next(results)[0] == i
            until(lambda: int(tally) == min(60, i + 8))
            assert mappings() <= 8


def test_one_kept_item_pins_no_more_than_its_own_block():
    results = ordered_imap(Items(600, lambda i: array(i, 250_000)), 2, 8, chunksize=4)
    kept = next(results)
    for x in results:
        most = mappings()
    assert most <= 40
    del x
    results.close()
    assert mappings() == 1
    assert (kept == 0).all()


def test_a_fork_whose_child_drops_a_kept_array_does_not_change_the_caller_s():
    results = ordered_imap(Items(300, array), 2, 8)
    kept = [next(results) for _ in range(5)]
    pid = os.fork()
    if not pid:
        code = 1
        try:
            kept[0] += 100  # a copy of the child's own
            ok = (kept[0] == 100).all() and (kept[4] == 4).all()
            del kept
            gc.collect()
            code = 0 if ok else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    for i, x in enumerate(results):
        assert (x == i + 5).all()
        assert all((y == j).all() for j, y in enumerate(kept))


def test_a_child_sees_what_it_inherited_though_the_caller_drops_it():
    results = ordered_imap(Items(300, array), 2, 8)
    kept = [next(results) for _ in range(5)]
    ready, go = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(go)
        os.read(ready, 1)
        os._exit(0 if all((y == j).all() for j, y in enumerate(kept)) else 3)
    del kept
    assert len(list(results)) == 295
    os.close(go)
    os.close(ready)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_dataset_of_results_is_not_changed_by_items_that_write_to_it():
    dataset = list(ordered_imap(Items(40, array), 2, 8))

    def item(i):
        dataset[i] *= 2
        return dataset[i]

    assert all((x == 2 * i).all() for i, x in enumerate(ordered_imap(Items(40, item), 2, 8)))
    assert all((x == i).all() for i, x in enumerate(dataset))


def test_a_scratch_buffer_that_is_returned_each_time():
    scratch = np.empty(5000)

    def item(i):
        scratch[:] = i
        return scratch

    assert all((x == i).all() for i, x in enumerate(list(ordered_imap(Items(200, item), 2, 16))))


# ordmap.empty


def test_empty_is_plain_outside_a_worker():
    assert ordmap.empty((3, 2), "f4").shape == (3, 2)
    assert ordmap.empty_like(np.ones(5, int)).dtype == np.dtype(int)
    assert ordmap.empty(10_000).flags.owndata


@pytest.mark.parametrize("chunksize", [None, 5])
def test_arrays_made_in_place(chunksize):
    def item(i):
        a = ordmap.empty((100, 50), np.float32)
        b = ordmap.empty_like(np.ones(3000))
        a[:] = i
        b[:] = -i
        return {"a": a, "b": b[100:], "c": np.full(5000, i), "again": a}

    for i, x in enumerate(ordered_imap(Items(300, item), 2, 20, chunksize=chunksize)):
        assert (x["a"] == i).all()
        assert (x["b"] == -i).all()
        assert (x["c"] == i).all()
        assert x["a"] is x["again"]
        assert len(x["b"]) == 2900
        x["a"] += 1


def test_arrays_made_in_place_are_not_copied():
    from ordmap.engine import blocks

    def item(i):
        a = ordmap.empty(10_000)
        a[:] = i
        return a, int(a.ctypes.data == next(iter(blocks.current._given))), len(blocks.current._lent)

    for i, (x, own, lent) in enumerate(ordered_imap(Items(100, item), 1, 2)):
        assert (x == i).all()
        assert own
        assert lent <= 4


def test_arrays_made_in_place_and_kept_are_copied_to_blocks_of_nearly_their_size():
    kept = []

    def item(i):
        if i < 20:
            return np.full(1_200_000, i, "u1")
        kept[:] = [ordmap.empty(1_100_000, "u1")]
        kept[0][:] = i
        return kept[0]

    for i, x in enumerate(ordered_imap(Items(40, item), 1, 4, chunksize=1)):
        assert (x == i).all()


def test_arrays_made_in_place_and_kept_by_the_dataset_are_copied():
    kept = []

    def item(i):
        if not kept:
            kept.append(ordmap.empty(10_000))
        kept[0][:] = i
        return kept[0]

    assert all((x == i).all() for i, x in enumerate(list(ordered_imap(Items(100, item), 2, 8))))


# Bounds


def test_no_descriptors_are_left_for_blocks():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(files()) + 60, before[1]))
    try:
        kept = list(ordered_imap(Items(400, array), 2, 100))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert all((x == i).all() for i, x in enumerate(kept))


@pytest.mark.parametrize("make", [Processes, ordmap.Spawn])
def test_results_kept_from_many_loops_leave_descriptors_for_others(make):
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(files()) + 256, before[1]))
    try:
        kept = [list(ordered_imap(Items(150, array), backend=make(2), prefetch=8)) for _ in range(5)]
        assert len(files()) < len(os.listdir("/proc/self/fd")) + 256
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert all((x == i).all() for loop in kept for i, x in enumerate(loop))


def test_kept_results_stay_below_the_bound_on_mappings(monkeypatch):
    from ordmap.engine import shelf

    monkeypatch.setattr(shelf, "_MOST_MAPPINGS", 60)
    kept = [list(ordered_imap(Items(150, array), 2, 8)) for _ in range(3)]
    assert mappings() <= 60
    assert all((x == i).all() for loop in kept for i, x in enumerate(loop))


@pytest.mark.parametrize(
    ("pool", "limit"),
    [(Processes, resource.RLIMIT_AS)]
    + [(pool, limit) for pool in (Processes, Spawn) for limit in (resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE)],
)
def test_a_limit_of_the_system_costs_items_at_most(limit, pool):
    """What the worker may not have: files of 100 KB, 8 MB of memory more, a descriptor more than it begins with."""

    def restrict():
        np.zeros(1)  # imported before
        sys.dont_write_bytecode = True  # cut off at the limit, it would be read by every later process
        most = {
            resource.RLIMIT_FSIZE: 100_000,
            resource.RLIMIT_AS: 4096 * int(Path("/proc/self/statm").read_text().split()[0]) + 8_000_000,
            resource.RLIMIT_NOFILE: len(os.listdir("/proc/self/fd")),
        }[limit]
        resource.setrlimit(limit, (most, most))

    got, errors = [], []
    with pool(1, initializer=restrict) as workers:
        items = Items(40, lambda i: np.full(500_000 if i < 30 else 100, i, "u1"))
        results = ordered_imap(items, backend=workers, chunksize=1)
        for i in range(40):
            try:
                got.append(next(results))
            except (OSError, MemoryError) as error:
                errors.append(str(error))
            else:
                assert (got[-1] == i).all()
    assert len(got) + len(errors) == 40
    assert len(got) >= 10  # those that are small


@pytest.mark.parametrize("pool", [Processes, Spawn])
def test_an_answer_that_is_too_long_where_there_are_no_files_costs_its_items(pool):
    def restrict():
        sys.dont_write_bytecode = True
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    def line(i):
        return f"{i}, a line of some words" if i < 20_000 else ""

    with pool(1, initializer=restrict) as workers:
        results = list(ordered_imap(Items(30_000, line), backend=workers, chunksize=20_000, on_error="return"))
    failed = [result.index for result in results if isinstance(result, ordmap.Failure)]
    assert 10_000 < len(failed) <= 20_000  # the last few fit into a message again
    assert {(results[i].error.errno, results[i].error.strerror) for i in failed} == {(27, "File too large")}
    assert [results[i].index for i in failed] == failed
    assert all(results[i] == line(i) for i in sorted({*range(30_000)}.difference(failed)))


def test_a_copy_for_which_there_is_no_memory_costs_its_item_and_no_block(monkeypatch):
    arena = Arena(Board(1), 0, 3, 1 << 30)
    monkeypatch.setattr(blocks, "current", arena)
    kept = [ordmap.empty(10_000), ordmap.empty(10_000)]
    lent = []
    for _ in range(3):
        sent, _ = codec.encode([(kept[0], np.ones(9_000), kept[1])], arena, lent)
        failure = opened(sent).error
        assert (type(failure), str(failure)) == (MemoryError, "there is no memory for a copy of this result")
        assert not lent
    kept.pop()
    sent, _ = codec.encode([(kept[0], np.ones(9_000))], arena, lent)
    assert type(sent) is list
    assert len(lent) == 2


@pytest.mark.parametrize("kind", ["arrays and bytes", "numbers"])
def test_a_long_answer_for_which_there_is_no_file_costs_its_items_and_no_block(kind):
    def item(i):
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        arena = sys.modules["ordmap.engine.blocks"].current
        if i == 0:
            made = [ordmap.empty(5000, np.float32) for _ in range(2)]  # blocks that are idle from here on
            assert len(made) == 2
        if i == 40:
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, most))
        if i == 80:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
            return arena._bytes - sum(block.size for stack in arena._idle.values() for block in stack)
        if kind == "numbers":
            return 1 << 16_000
        return array(i) if i in {40, 60} else os.urandom(2000)

    results = ordered_imap(Items(81, item), 1, 80, chunksize=20)
    failed = set()
    for i in range(81):
        try:
            last = next(results)
        except OSError as error:
            assert "Too many open files" in str(error)
            failed.add(i)
    results.close()  # the exceptions' frames hold it, in a circle
    assert failed == set(range(40, 80))
    if kind != "numbers":  # they need no blocks
        assert last == 0, "there are blocks that are neither idle nor lent"


def test_the_block_that_came_back_last_is_used_first():
    def item(i):
        return array(i)

    seen = []
    for x in ordered_imap(Items(60, item), 1, 1):
        seen.append(x.ctypes.data)
        del x
    assert len(set(seen[4:])) <= 2


def test_a_worker_that_waits_long_gives_up_what_is_idle():
    arena = Arena(Board(1), 0, 100, 1 << 30)
    taken = [arena.take(1_000_000) for _ in range(8)]
    for block in taken:
        block.sent = True
        arena.put_back(block)
    arena.spare(0.0)
    assert not arena.dropped
    arena.spare(60.0)
    assert sorted(arena.dropped) == sorted(block.number for block in taken)


def test_blocks_that_nobody_needed_for_a_while_are_given_up_one_after_the_other(monkeypatch):
    monkeypatch.setattr(blocks, "_SECONDS", 0)
    arena = Arena(Board(1), 0, 100, 1 << 30)
    for block in [arena.take(5000) for _ in range(9)]:
        arena.put_back(block)
    for _ in range(20 * blocks._PERIOD):
        arena.put_back(arena.take(5000))
    assert len(arena._numbers) == 99  # all but that of the one which is left


def test_a_block_serves_results_of_nearly_its_size():
    arena = Arena(Board(1), 0, 100, 1 << 30)
    small, large = arena.take(1_000_000), arena.take(1_200_000)
    arena.put_back(small)
    arena.put_back(large)
    for nbytes, block in ((950_000, small), (990_000, large)):
        taken = arena.take(nbytes)
        assert taken is block
    arena.put_back(small)
    for nbytes in (700_000, 1_010_000):
        block = arena.take(nbytes)
        assert block is not small
        assert nbytes <= block.size <= nbytes * 1.008


def test_empty_takes_what_numpy_s_takes():
    def item(i):
        small, large, inner = (
            ordmap.empty(np.int64(5)),
            ordmap.empty([50, 100]),
            ordmap.empty(4000, np.dtype(("f4", (2,)))),
        )
        like = ordmap.empty_like(np.asfortranarray(np.ones((100, 200))))
        return [
            (x.shape, str(x.dtype), x.flags.f_contiguous, x.flags.c_contiguous) for x in (small, large, inner, like)
        ]

    expected = [
        (x.shape, str(x.dtype), x.flags.f_contiguous, x.flags.c_contiguous)
        for x in (
            np.empty(5), np.empty([50, 100]), np.empty(4000, np.dtype(("f4", (2,)))),
            np.empty_like(np.asfortranarray(np.ones((100, 200)))),
        )
    ]  # fmt: skip
    assert item(0) == expected
    assert list(ordered_imap(Items(2, item), 1)) == [expected] * 2


def test_a_fork_while_a_result_is_opened(monkeypatch):
    """Another thread forks at the very instruction at which a result has an exporter and is not watched yet."""
    from ordmap.engine import shelf

    real = shelf._Watch
    pids = []

    def watch(span, unused):
        if len(pids) < 10:
            thread = threading.Thread(target=fork)
            thread.start()
            thread.join()
        return real(span, unused)

    def fork():
        pid = os.fork()
        if not pid:
            os._exit(0)
        pids.append(pid)

    monkeypatch.setattr(shelf, "_Watch", watch)
    for i, x in enumerate(ordered_imap(Items(60, array), 2, 4)):
        assert (x == i).all()
        x[:] = -1
    for pid in pids:
        os.waitpid(pid, 0)


def test_no_memory_is_left_for_blocks(monkeypatch):
    from ordmap.engine import pool

    monkeypatch.setattr(pool, "_allowance", lambda workers, free: (3, 1 << 20))
    for size in (5000, 500_000):
        kept = list(ordered_imap(Items(60, lambda i: array(i, size)), 2, 20))
        assert all((x == i).all() for i, x in enumerate(kept))


def test_results_of_many_sizes_keep_memory_bounded():
    sizes = [random.Random(i).randrange(1, 200_000) for i in range(600)]
    for i, x in enumerate(ordered_imap(Items(600, lambda i: array(i, sizes[i])), 2, 8)):
        assert (x == i).all()
        assert len(x) == sizes[i]


@pytest.mark.parametrize("way", ["kill", "exit"])
def test_a_worker_dies_and_its_results_live_on(way):
    def item(i):
        if i % 50 == 20:
            os._exit(1)
        return array(i)

    kept = []
    results = ordered_imap(Items(300, item), 2, 16, chunksize=3)
    while True:
        try:
            kept.append(next(results))
        except StopIteration:
            break
        except ordmap.WorkerDiedError as error:
            kept.append(array(error.index))
    assert len(kept) == 300
    assert all((x == i).all() for i, x in enumerate(kept))


def test_results_never_taken_give_their_blocks_back():
    with Processes(2) as pool:
        for _ in range(20):
            results = ordered_imap(Items(100, array), backend=pool, prefetch=16)
            assert (next(results) == 0).all()
            results.close()
        del results
        gc.collect()
        assert all((x == i).all() for i, x in enumerate(ordered_imap(Items(100, array), backend=pool, prefetch=16)))
        assert mappings() <= 80


def test_views_that_end_in_other_threads():
    results = ordered_imap(Items(600, array), 2, 16)
    hands = [[] for _ in range(4)]
    stop = threading.Event()

    def drop(hand):
        while not stop.is_set() or hand:
            while hand:
                i, x = hand.pop()
                assert (x == i).all()
                del x
            time.sleep(0.0005)

    threads = [threading.Thread(target=drop, args=(hand,)) for hand in hands]
    for thread in threads:
        thread.start()
    for i, x in enumerate(results):
        hands[i % 4].append((i, x))
        del x
    stop.set()
    for thread in threads:
        thread.join()


def test_never_two_live_results_in_the_same_memory():
    """Keep, drop and fork at random, with checks."""
    rng = random.Random()
    results = ordered_imap(
        Items(3000, lambda i: array(i, 1000 + i % 3 * 3000)), 3, 24, chunksize=rng.choice([None, 1, 4])
    )
    kept = {}
    forked = []
    for i, x in enumerate(results):
        assert (x == i).all()
        if rng.random() < 0.3:
            kept[i] = x
        del x
        while len(kept) > 20 or (kept and rng.random() < 0.2):
            j = rng.choice(list(kept))
            assert (kept.pop(j) == j).all()
        if rng.random() < 0.003:
            pid = os.fork()
            if not pid:
                ok = all((x == j).all() for j, x in kept.items())
                for x in kept.values():
                    x[:] = -1
                kept.clear()
                gc.collect()
                os._exit(0 if ok else 1)
            forked.append(pid)
    for pid in forked:
        assert os.waitpid(pid, 0)[1] == 0


def test_pillow_images_and_inputs():
    Image = pytest.importorskip("PIL.Image")
    image = Image.fromarray(np.arange(30_000, dtype=np.uint8).reshape(100, 100, 3))
    for got in ordered_map(lambda x: x.rotate(0), [image] * 4, workers=2):
        assert np.array_equal(np.asarray(got), np.asarray(image))


def test_an_interrupt_that_comes_when_a_result_is_dropped_is_not_lost(monkeypatch):
    """What Python calls at an object's end can't raise: a signal's handler must not run there."""

    class Interrupt(BaseException):
        pass

    def interrupt(*_):
        raise Interrupt

    def consume(results, after):
        next(results)
        signal.setitimer(signal.ITIMER_REAL, after)
        end = time.monotonic() + 30
        for _ in results:
            if lost or time.monotonic() > end:
                return

    lost = []
    monkeypatch.setattr(sys, "unraisablehook", lost.append)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with Processes(1) as pool:
            for n in range(60):
                with (
                    pytest.raises(Interrupt),
                    ordered_imap(Items(10**9, lambda i: array(i, 40_000)), backend=pool) as results,
                ):
                    consume(results, 0.004 + n * 2e-5)
                    pytest.fail(f"no interrupt came, but {[(str(one.object), repr(one.exc_value)) for one in lost]}")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert not [(str(one.object), repr(one.exc_value)) for one in lost]


def test_memory_that_an_interrupt_keeps_from_being_made_closes_its_file_once(monkeypatch):
    from ordmap.engine import memory

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(memory, "_map", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        memory.Memory.new(4096)
    monkeypatch.undo()
    monkeypatch.setattr(memory._mapped, "add", lambda made: (memory.Weak.add(memory._mapped, made), interrupted()))
    with pytest.raises(KeyboardInterrupt) as caught_later:
        memory.Memory.new(4096)
    assert all(made.file < 0 for made in memory._mapped)  # nothing is done with a number that may be another's
    memory.close_lost(os.getpid())
    with Path(os.devnull).open() as other:  # may have the same number
        del caught, caught_later
        gc.collect()
        assert os.fstat(other.fileno())
