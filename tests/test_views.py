"""Views of datasets, and the dataset that is computed ahead."""

from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
import threading
import time
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import ordmap
from ordmap import (
    Failure,
    OrderedIterator,
    ParallelDataset,
    Processes,
    Threads,
    batches,
    mapped,
    ordered_imap,
    subset,
    worker_info,
)
from ordmap.engine import available
from ordmap.testing import wait_until

Pair = namedtuple("Pair", ["image", "label"])


class Images:
    """Some images and their labels, one at a time, or many at once; how it was asked is noted."""

    def __init__(self, length=10, size=4):
        self.length = length
        self.size = size

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return np.full((self.size, 3), index, np.float32), index


class Several(Images):
    def __init__(self, *args):
        super().__init__(*args)
        self.asked = []

    def __getitem__(self, index):
        raise AssertionError

    def __getitems__(self, indices):
        self.asked.append(indices)
        return [super(Several, self).__getitem__(index) for index in indices]


# Views


def test_each_view_is_a_sequence():
    for view, whole in [
        (mapped(str.upper, "abcdef"), list("ABCDEF")),
        (subset("abcdef", [5, 0, 0, 3]), list("faad")),
        (subset("abcdef", range(5, 0, -2)), list("fdb")),
        (batches("abcdefg", 3), [list("abc"), list("def"), list("g")]),
        (batches("abcdefg", 3, drop_last=True), [list("abc"), list("def")]),
        (batches("abcdef", 3), [list("abc"), list("def")]),
        (batches("", 3), []),
        (mapped("".join, batches(subset(mapped(str.upper, "abcdef"), [1, 2, 3]), 2)), ["BC", "D"]),
        (subset("abcdef", np.array([2, 1])), list("cb")),
        (subset("abcdef", (n for n in (2, 1))), list("cb")),
    ]:
        assert len(view) == len(whole)
        assert list(view) == [view[n] for n in range(len(view))] == whole
        assert list(reversed(view)) == whole[::-1]
        assert [view[n - len(whole)] for n in range(len(whole))] == whole
        for part in (slice(1, None), slice(None, None, -2), slice(0, 0), slice(1, 99)):
            assert list(view[part]) == whole[part]
        with pytest.raises(IndexError):
            view[len(whole)]
        with pytest.raises(IndexError):
            view[-len(whole) - 1]
        assert list(pickle.loads(pickle.dumps(view))) == whole
        assert list(ordered_imap(view, 2, backend="threads")) == whole
        assert type(view).__name__.strip("_").lower() in repr(view)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: mapped("abc", len), TypeError, r"can't be called: write mapped\(fn, dataset\)"),
        (lambda: mapped(len, iter("abc")), TypeError, "(dataset has __getitem__ and __len__|is the class)"),
        (lambda: subset("abc", [3]), IndexError, "index 3 is out of range: the dataset has 3 items"),
        (lambda: subset("abc", [-1]), IndexError, "index -1 is negative"),
        (lambda: subset("abc", [True]), TypeError, "an index must be an integer"),
        (lambda: subset(5, [1]), TypeError, "(dataset has __getitem__ and __len__|is the class)"),
        (lambda: batches({1: 2}, 1), TypeError, "is not had by index"),
        (lambda: batches("abc", 0), ValueError, "size=0: a batch has at least 1 item"),
        (lambda: batches("abc", "2"), TypeError, "must be a whole number, not '2'"),
        (lambda: batches("abc", True), TypeError, "must be a whole number, not True"),
        (lambda: batches("abc", 2, collate=3), TypeError, "collate must be a function"),
        (lambda: batches(list, 2), TypeError, "(dataset has __getitem__ and __len__|is the class)"),
    ],
)
def test_bad_arguments_are_refused_at_the_call(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_batch_is_stacked():
    image, label = batches(Images(), 4)[1]
    assert image.shape == (4, 4, 3)
    assert image.dtype == np.float32
    assert image[:, 0, 0].tolist() == label.tolist() == [4, 5, 6, 7]
    assert len(batches(Images(), 4)[2][1]) == 2


def test_what_is_stacked_and_what_is_listed():
    def batch(*items, **options):
        return batches(items, len(items), **options)[0]

    assert batch("a", "b") == ["a", "b"]
    assert batch([1], [2, 3]) == [[1], [2, 3]]
    assert batch(None, None) == [None, None]
    assert batch(1, "a") == [1, "a"]
    assert batch(1, 2.5).tolist() == [1.0, 2.5]
    assert batch(2**63, 1) == [2**63, 1]
    masked = batch(np.ma.masked_less(np.arange(3), 1), np.ma.masked_less(np.arange(3), 2))
    assert masked.mask.tolist() == [[True, False, False], [True, True, False]]
    assert batch(1, 2).dtype == np.int64
    assert batch(1.5, 2.5).tolist() == [1.5, 2.5]
    assert batch(True, False).dtype == bool
    assert batch(np.float32(1), np.float32(2)).dtype == np.float32
    assert batch((1, "a"), (2, "b"))[1] == ["a", "b"]
    found = batch({"x": np.zeros(2), "y": "a"}, {"x": np.ones(2), "y": "b"})
    assert found["x"].tolist() == [[0, 0], [1, 1]]
    assert found["y"] == ["a", "b"]
    found = batch(Pair(np.zeros(2), 1), Pair(np.ones(2), 2))
    assert type(found) is Pair
    assert found.label.tolist() == [1, 2]
    assert batch(np.int8(1), np.int16(300)).dtype == np.int16
    assert batch(np.zeros(2, np.int8), np.ones(2, np.int16)).dtype == np.int16
    assert batch(np.array("ab"), np.array("c")).tolist() == ["ab", "c"]
    assert batch(1, 2, collate=sum) == 3
    with pytest.raises(ValueError, match=r"different shapes, \(2,\), \(3,\): give collate=list"):
        batch(np.zeros(2), np.zeros(3))
    with pytest.raises(ValueError, match="different keys: give collate=list"):
        batch({"x": 1}, {"y": 1})
    with pytest.raises(ValueError, match="different lengths: give collate=list"):
        batch((1,), (1, 2))


def test_a_dataset_gives_several_items_at_once_where_it_can():
    dataset = Several()
    image, label = batches(dataset, 4)[1]
    assert dataset.asked == [[4, 5, 6, 7]]
    assert label.tolist() == [4, 5, 6, 7]
    dataset.asked.clear()
    assert batches(mapped(lambda item: item[1], subset(dataset, range(9, 0, -1))), 3)[2].tolist() == [3, 2, 1]
    assert dataset.asked == [[3, 2, 1]]
    assert subset(dataset, [3])[0][1] == 3
    assert batches(batches(dataset, 2), 2)[1][1].tolist() == [[4, 5], [6, 7]]

    class Short(Several):
        def __getitems__(self, indices):
            return super().__getitems__(indices)[1:]

    with pytest.raises(ValueError, match="Short.__getitems__ gave 1 items for 2 indices"):
        batches(Short(), 2)[0]


@pytest.mark.skipif(not available(), reason="the engine is for Linux")
@pytest.mark.parametrize("backend", ["processes", "spawn"])
def test_a_batch_is_stacked_where_it_travels(backend):
    """No copy is made of it in the worker: its memory is that in which it was stacked."""

    def stacked(index):
        from ordmap.engine import blocks

        batch = batches(Images(16, 4096), 8)[index]
        return blocks.current.given_at(batch[0].ctypes.data) is not None, batch

    for index, (in_place, (image, label)) in enumerate(ordered_imap(mapped(stacked, range(2)), 1, backend=backend)):
        assert in_place
        assert image[:, 0, 0].tolist() == label.tolist() == list(range(8 * index, 8 * index + 8))
        image += 1


def test_a_view_has_what_its_dataset_is_told():
    class Told(Images):
        epochs = 0

        def on_epoch_end(self):
            self.epochs += 1

        def state_dict(self):
            return {"epochs": self.epochs}

        def load_state_dict(self, state):
            self.epochs = state["epochs"]

    dataset = Told(4)
    view = batches(mapped(lambda item: (dataset.epochs, item[1]), dataset), 2)
    found = [
        (epochs.tolist(), labels.tolist()) for epochs, labels in ordered_imap(view, 2, epochs=2, backend="threads")
    ]
    assert found == [([0, 0], [0, 1]), ([0, 0], [2, 3]), ([1, 1], [0, 1]), ([1, 1], [2, 3])]
    assert dataset.epochs == 2
    assert not hasattr(batches(Images(), 2), "on_epoch_end")
    one = ordered_imap(view, 0, epochs=4)
    next(one)
    state = one.state_dict()
    assert state["dataset"] == {"epochs": 2}


def test_an_index_error_of_an_item_is_no_end():
    lines = ["a,b", "c,d", "e", "f,g"]
    view = mapped(lambda line: line.split(",")[1], lines)
    for whole in (list, batches):
        with pytest.raises(IndexError):
            list(view) if whole is list else list(batches(view, 1))
    with ParallelDataset(view, 2, backend="threads") as parallel, pytest.raises(IndexError):
        list(parallel)


# ParallelDataset


def squares(length=10):
    return mapped(lambda n: n * n, range(length))


@pytest.mark.parametrize("backend", ["serial", "threads", "processes", "spawn", Processes, ThreadPoolExecutor])
def test_it_is_the_sequence_that_its_dataset_is(backend):
    pool = backend(2) if isinstance(backend, type) else None
    whole = [n * n for n in range(10)]
    how = {"backend": pool or backend} if backend != "serial" else {"workers": 0}
    with ParallelDataset(squares(), **how) as parallel:
        assert len(parallel) == 10
        assert list(parallel) == list(parallel) == whole
        assert [parallel[n] for n in range(-10, 10)] == whole * 2
        assert list(parallel[2:8:3]) == whole[2:8:3]
        assert list(parallel[::-1][1:3]) == [64, 49]
        assert list(reversed(parallel)) == whole[::-1]
        assert 49 in parallel
        assert 50 not in parallel
        assert parallel.index(49) == 7
        assert parallel.count(4) == 1
        assert parallel[[3][0]] == parallel[np.int64(3)] == 9
        with pytest.raises(IndexError):
            parallel[10]
        iterator = iter(parallel)
        assert isinstance(iterator, OrderedIterator)
        assert next(iterator) == 0
        assert next(iter(parallel)) == 0
        assert next(iterator) == 1
        assert isinstance(parallel, ordmap.ParallelDataset)
        assert list(pickle.loads(pickle.dumps(ParallelDataset([1, 2], 2)))) == [1, 2]
    if isinstance(pool, ThreadPoolExecutor):
        pool.shutdown()


def test_the_workers_stay_until_it_is_closed_or_dropped(tally):
    def pids(parallel):
        return set(parallel)

    dataset = mapped(lambda _: (time.sleep(0.01), os.getpid())[1], range(20))
    parallel = ParallelDataset(dataset, 2)
    first = pids(parallel)
    assert pids(parallel) | pids(parallel[5:]) | pids(parallel) == first
    parallel.close()
    assert not {str(pid) for pid in first} & set(os.listdir("/proc"))
    again = pids(parallel)
    assert not again & first
    parallel.close()

    parallel = ParallelDataset(dataset, 2)
    part = parallel[:10]
    first = pids(parallel)
    del parallel
    gc.collect()
    assert pids(part) <= first
    iterator = iter(part)
    seen = {next(iterator)}
    del part
    gc.collect()
    assert seen | set(iterator) <= first
    wait_until(lambda: not {str(pid) for pid in first} & set(os.listdir("/proc")), "the workers have ended")


def test_dropped_in_a_cycle_it_ends_its_workers():
    parallel = ParallelDataset(mapped(lambda _: os.getpid(), range(5)), 2)
    (first, *_) = parallel
    cycle = [parallel]
    cycle.append(cycle)
    del parallel, cycle
    gc.collect()
    wait_until(lambda: str(first) not in os.listdir("/proc"), "the workers have ended")


def test_a_copy_in_a_worker_does_without_workers():
    parallel = ParallelDataset(squares(), 2)

    def item(index):
        return list(parallel)[index], parallel[index], worker_info().index, os.getpid()

    for backend in ("processes", "spawn", "threads"):
        found = list(ordered_imap(mapped(item, range(10)), 2, backend=backend))
        assert [one[:3] for one in found] == [(n * n, n * n, n) for n in range(10)]
    parallel.close()


def test_a_fork_has_workers_of_its_own():
    parallel = ParallelDataset(squares(), 2)
    assert sum(parallel) == 285
    pid = os.fork()
    if not pid:
        code = 1
        try:
            code = int(sum(parallel) != 285 or sum(parallel[1:]) != 285)
            parallel.close()
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    assert sum(parallel) == 285
    parallel.close()


def test_from_several_threads():
    with ParallelDataset(squares(50), 2, backend="threads") as parallel:
        found = []
        threads = [threading.Thread(target=lambda: found.append(sum(parallel))) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [sum(n * n for n in range(50))] * 5


def test_its_options_are_those_of_ordered_imap():
    def item(index):
        if index == 3:
            raise LookupError(index)
        return index

    parallel = ParallelDataset(
        mapped(item, range(5)), 2, 4, backend="threads", on_error="return", retries=1, chunksize=2
    )
    found = list(parallel)
    assert [one for one in found if not isinstance(one, Failure)] == [0, 1, 2, 4]
    assert found[3].attempts == 2
    with pytest.raises(LookupError):
        parallel[3]
    assert [type(one) for one in pickle.loads(pickle.dumps(ParallelDataset([1], 2, on_error="return")))] == [int]
    parallel.close()
    assert list(ParallelDataset("abc", 0, chunksize=1)) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"epochs": 2}, TypeError, "has the order of its dataset, and no epochs: go through it several times"),
        ({"shuffle": True}, TypeError, r"no shuffle: write ordered_imap\(dataset, shuffle=True, …\)"),
        ({"indices": [1]}, TypeError, r"no indices: write ordmap.subset\(dataset, indices\)"),
        ({"shard": (0, 2)}, TypeError, "no shard"),
        ({"on_error": "skip"}, ValueError, "fewer items than len"),
        ({"workers": -1}, ValueError, "workers=-1"),
        ({"backend": "thread"}, ValueError, "there is no backend 'thread'"),
        ({"nonsense": 1}, TypeError, "nonsense"),
    ],
)
def test_what_it_can_not_be_is_refused_at_once(options, error, message):
    with pytest.raises(error, match=message):
        ParallelDataset("abc", **options)
    with pytest.raises(TypeError, match=r"for an iterable write ordered_map\(fn, iterable\)"):
        ParallelDataset(iter("abc"))


def test_a_pool_of_the_users_own_is_theirs_to_close():
    with Threads(2) as pool:
        parallel = ParallelDataset(squares(), backend=pool)
        assert sum(parallel) == 285
        parallel.close()
        del parallel
        gc.collect()
        assert pool._held == 1
        assert list(ordered_imap("ab", backend=pool)) == ["a", "b"]


def test_a_program_may_end_with_one(script):
    path = script("""
from ordmap import ParallelDataset
parallel = ParallelDataset(range(10), 2)
print(sum(parallel))
iterator = iter(parallel)
next(iterator)
""")
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "45\n", "")


# Within items


def test_an_iterator_within_an_item_does_without_workers():
    def item(_):
        inner = list(ordered_imap(mapped(lambda _: (os.getpid(), worker_info().workers), range(3))))
        return os.getpid(), inner

    for backend in ("processes", "spawn", "threads", "serial"):
        workers = 0 if backend == "serial" else 2
        for pid, inner in ordered_imap(mapped(item, range(3)), workers, backend=backend):
            assert inner == [(pid, 1)] * 3

    def asked(_):
        return os.getpid(), list(ordered_imap(mapped(lambda _: os.getpid(), range(3)), 1))

    for pid, inner in ordered_imap(mapped(asked, range(3)), 2):
        assert pid not in inner
