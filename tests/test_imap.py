"""The calls: what they refuse, each with a message that says what to write instead, and before anything starts."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy
import pytest

import ordmap
import ordmap.testing
from ordmap import FromExecutor, Processes, RemoteError, Serial, Spawn, Threads, ordered_imap, ordered_map
from ordmap.resources import free_memory, usable_cores
from ordmap.testing import outcomes, wait_until


class OnlyItems:
    def __getitem__(self, index):
        return index


class OnlyLength:
    def __len__(self):
        return 3


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ordered_imap(iter([1])), TypeError, r"no __getitem__ and no __len__: .*ordered_map\(fn, iterable\)"),
        (lambda: ordered_imap(n for n in "ab"), TypeError, r"generator has no .*ordered_map\(fn, iterable\)"),
        (lambda: ordered_imap(OnlyItems()), TypeError, "OnlyItems has no __len__"),
        (lambda: ordered_imap(OnlyLength()), TypeError, "OnlyLength has no __getitem__"),
        (lambda: ordered_imap(7), TypeError, "int has no __getitem__"),
        (lambda: ordered_imap(list), TypeError, "is the class list: write an instance"),
        (lambda: ordered_imap({"a": 1}), TypeError, r"a dict is not had by index .* write list\(…\) around it"),
        (lambda: ordered_imap("abc", prefetch=0), ValueError, "prefetch=0: it must be at least 1"),
        (lambda: ordered_imap("abc", prefetch=2.5), TypeError, "prefetch must be a whole number or None, not 2.5"),
        (lambda: ordered_imap("abc", workers=-1), ValueError, "workers=-1: it must be at least 0; workers=None uses"),
        (lambda: ordered_imap("abc", workers="2"), TypeError, "workers must be a whole number or None, not '2'"),
        (lambda: ordered_imap("abc", workers=True), TypeError, "workers must be a whole number or None, not True"),
        (lambda: ordered_imap("abc", chunksize=0), ValueError, "chunksize=0: it must be at least 1"),
        (lambda: ordered_imap("abc", prefetch=3, chunksize=4), ValueError, "does not fit into prefetch=3: write"),
        (lambda: ordered_imap("abc", epochs=-1), ValueError, "epochs=-1: it must be at least 0; epochs=None cycles"),
        (lambda: ordered_imap("abc", epochs=1.5), TypeError, "epochs must be a whole number or None"),
        (lambda: ordered_imap("", epochs=None), ValueError, "the dataset is empty, and with epochs=None"),
        (lambda: ordered_imap("abc", epochs=None, indices=[]), ValueError, "there are no indices, and with epochs=No"),
        (lambda: ordered_imap("abc", backend="thread"), ValueError, "no backend 'thread': use one of 'serial', 'thr"),
        (lambda: ordered_imap("abc", backend=3), TypeError, "backend must be a name, a concurrent.futures.Executor"),
        (lambda: ordered_imap("abc", backend=Threads), TypeError, r"the class Threads: write .*backend=Threads\(\)"),
        (lambda: ordered_imap("abc", 0, backend="threads"), ValueError, "backend='threads' can't: leave one of them"),
        (lambda: ordered_imap("abc", 0, backend=Threads(2)), ValueError, "workers=0, but the backend given has 2"),
        (lambda: ordered_imap("abc", 3, backend=Processes(2)), ValueError, "workers=3, but the backend given has 2"),
        (lambda: ordered_imap("abc", indices=[0, 3]), IndexError, "index 3 is out of range: the dataset has 3 items"),
        (lambda: ordered_imap("abc", indices=range(5)), IndexError, "index 4 is out of range"),
        (lambda: ordered_imap("abc", indices=range(2, -2, -1)), IndexError, "index -1 is negative: .* = 2"),
        (lambda: ordered_imap("abc", indices=[-1]), IndexError, "index -1 is negative"),
        (lambda: ordered_imap("abc", indices=numpy.array([0, 3])), IndexError, "index 3 is out of range"),
        (lambda: ordered_imap("abc", indices=[0.5]), TypeError, "an index must be an integer, not 0.5"),
        (lambda: ordered_imap("abc", indices="012"), TypeError, "indices must be integers, not '012'"),
        (lambda: ordered_imap("abc", indices=3), TypeError, "an iterable of integers, or a function from the epoch"),
        (lambda: ordered_imap("abc", indices=iter([1]), epochs=2), ValueError, "can be gone through once only"),
        (lambda: ordered_map([1], abs), TypeError, r"can't be called: write ordered_map\(fn, iterable\)"),
        (lambda: ordered_map(abs), TypeError, "something to map over"),
        (lambda: ordered_map(abs, 3), TypeError, "can't iterate over 3: write workers=3"),
        (lambda: ordered_imap("abc", indices=[True, False]), TypeError, "not True: of a mask, give the positions"),
        (lambda: ordered_imap("abc", indices={0, 1}), TypeError, r"a set has no order .* write sorted\(…\)"),
        (
            lambda: ordered_imap("abc", retries=-1),
            ValueError,
            "retries=-1: it must be at least 0; retries=0 tries each",
        ),
        (lambda: ordered_imap("abc", retries=None), TypeError, "retries must be a whole number, not None"),
        (
            lambda: ordered_imap("abc", on_error="ignore"),
            ValueError,
            "on_error='ignore'; write 'raise', 'skip', 'return'",
        ),
        (
            lambda: ordered_imap("abc", on_error=None),
            TypeError,
            "on_error=None; write 'raise', 'skip', 'return' or a f",
        ),
        (lambda: ordered_map(int, "a", on_error=ValueError), TypeError, "not the class of what may fail, ValueError"),
        (lambda: Threads(0), ValueError, "workers=0: a pool has at least 1"),
        (lambda: Processes(2.0), TypeError, "workers must be a whole number or None"),
        (lambda: FromExecutor(3), TypeError, "needs a concurrent.futures.Executor"),
    ],
)
def test_refuses(call, error, message):
    threads = threading.active_count()
    with pytest.raises(error, match=message):
        call()
    assert threading.active_count() == threads


def test_workers_none_is_what_this_process_may_use():
    assert 1 <= usable_cores() <= 4096
    assert Threads().workers == usable_cores()
    assert Processes(None).workers == usable_cores()


@pytest.fixture
def system_files(monkeypatch):
    """Give a mapping of what the system's files are to hold; there are no others, and 64 cores."""

    def read_text(path):
        if path not in files:
            raise FileNotFoundError(path)
        return files[path]

    files = {}
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.setattr("ordmap.resources.read_text", read_text)
    return files


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"/proc/self/cgroup": "0::/\n"}, 64),
        ({"/proc/self/cgroup": "0::/\n", "/sys/fs/cgroup/cpu.max": "250000 100000\n"}, 2),
        ({"/proc/self/cgroup": "0::/a/b\n", "/sys/fs/cgroup/a/b/cpu.max": "max 100000\n"}, 64),
        (
            {
                "/proc/self/cgroup": "0::/a/b\n",
                "/sys/fs/cgroup/a/b/cpu.max": "600000 100000\n",
                "/sys/fs/cgroup/a/cpu.max": "300000 100000\n",
            },
            3,
        ),
        ({"/proc/self/cgroup": "0::/../../other\n", "/sys/fs/cgroup/cpu.max": "500000 100000\n"}, 5),
        ({"/proc/self/cgroup": "0::/a\n", "/sys/fs/cgroup/a/cpu.max": "10000 100000\n"}, 1),
        (
            {
                "/proc/self/cgroup": "3:memory:/a\n2:cpu,cpuacct:/a\n",
                "/sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "400000\n",
                "/sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "100000\n",
                "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            4,
        ),
    ],
)
def test_the_quota_of_a_container_and_of_those_around_it_bounds_the_usable_cores(files, cores, system_files):
    system_files |= files
    assert usable_cores() == cores


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, 8192),
        ({"/sys/fs/cgroup/memory.max": "max\n"}, 8192),
        (
            {
                "/sys/fs/cgroup/a/b/memory.max": "5000\n",
                "/sys/fs/cgroup/a/b/memory.current": "1000\n",
                "/sys/fs/cgroup/a/b/memory.stat": "anon 900\ninactive_file 100\n",
                "/sys/fs/cgroup/a/memory.max": "9000\n",
                "/sys/fs/cgroup/a/memory.current": "6000\n",
                "/sys/fs/cgroup/a/memory.stat": "inactive_file 7\n",
            },
            3007,
        ),
        (
            {
                "/proc/self/cgroup": "4:memory:/c\n2:cpu,cpuacct:/a\n",
                "/sys/fs/cgroup/memory/c/memory.limit_in_bytes": "2000\n",
                "/sys/fs/cgroup/memory/c/memory.usage_in_bytes": "2500\n",
                "/sys/fs/cgroup/memory/c/memory.stat": "inactive_file 1\ntotal_inactive_file 2\n",
            },
            0,
        ),
    ],
)
def test_the_limit_of_a_container_and_of_those_around_it_bounds_the_free_memory(files, free, system_files):
    system_files |= {
        "/proc/meminfo": "MemTotal: 16 kB\nMemAvailable: 8 kB\n",
        "/proc/self/cgroup": "0::/a/b\n",
        **files,
    }
    assert free_memory() == free


def test_workers_zero_is_serial():
    iterator = ordered_imap([threading.current_thread().name], 0)
    assert iterator._settings.backend.name == "serial"


def test_serial_takes_any_workers_and_prefetch_for_debugging():
    here = []
    assert list(ordered_map(lambda _: here.append(threading.current_thread()), "abc", workers=4, prefetch=16,
                            backend="serial")) == [None] * 3  # fmt: skip
    assert set(here) == {threading.current_thread()}


def test_a_borrowed_executor_is_sized_by_itself_or_by_the_call():
    with ThreadPoolExecutor(3) as executor:
        assert FromExecutor(executor).workers == 3
        assert FromExecutor(executor, 7).workers == 7
        assert list(ordered_imap("abc", 7, backend=executor)) == ["a", "b", "c"]
        assert executor.submit(int).result() == 0  # it is not shut down


def test_numpy_datasets_and_indices():
    dataset = numpy.arange(12).reshape(4, 3)
    found = list(ordered_imap(dataset, 2, backend="threads", indices=numpy.array([3, 1])))
    assert numpy.array_equal(found, dataset[[3, 1]])


def test_asking_for_more_from_inside_an_item_is_refused():
    iterator = ordered_map(lambda _: next(iterator), "ab", backend="serial")
    with pytest.raises(ValueError, match="is computing already"):
        next(iterator)


def test_an_infinite_iterator_has_no_len_but_is_true():
    iterator = ordered_imap("abc", epochs=None)
    with pytest.raises(TypeError, match="not known"):
        len(iterator)
    assert iterator
    assert iterator.__length_hint__() is NotImplemented
    assert not len(ordered_imap("abc", epochs=0))
    assert ordered_imap("abc", epochs=0)


@pytest.mark.parametrize("make", [Threads, Processes, Spawn])
def test_an_initializer_runs_once_a_worker_and_its_failure_is_one_clear_error(make, tmp_path):
    log = tmp_path / "log"
    log.touch()

    def begin(word):
        with log.open("a") as file:
            file.write(word)

    with make(2, initializer=begin, initargs=("x",)) as pool:
        for _ in range(2):
            assert list(ordered_imap(range(50), backend=pool, chunksize=1)) == list(range(50))
    assert log.read_text() in {"x", "xx"}

    def fail():
        raise RuntimeError("no database")

    with pytest.raises(ordmap.WorkerDiedError, match="initializer failed .* RuntimeError: no database"):
        list(ordered_imap("abc", backend=make(2, initializer=fail)))


@pytest.mark.parametrize("make", [Processes, Spawn])
def test_a_static_dataset_reaches_a_worker_once_for_all_runs(make):
    class Counting(list):
        pickled = 0

        def __reduce__(self):
            Counting.pickled += 1
            return (list, (list(self),))

    dataset = Counting([1, 2, 3])
    with make(2, static_dataset=True) as pool:
        for _ in range(4):
            assert list(ordered_imap(dataset, backend=pool)) == [1, 2, 3]
    assert Counting.pickled <= 1


def test_a_dataset_that_cannot_be_pickled():
    dataset = [threading.Lock(), 2]
    assert len(list(ordered_map(lambda i: bool(dataset[i]), range(2), workers=2, backend="processes"))) == 2
    with Processes(2) as pool:  # warm workers are forked again
        assert list(ordered_imap([1, 2], backend=pool)) == [1, 2]
        assert list(ordered_map(lambda i: i + bool(dataset), range(2), backend=pool)) == [1, 2]
    with pytest.raises(ordmap.BackendUnavailableError, match="list can't be pickled.*backend='processes'"):
        list(ordered_imap(dataset, 2, backend="spawn"))


@pytest.mark.parametrize("backend", ["threads", "processes", "spawn"])
def test_an_input_that_cannot_be_pickled_costs_its_own_item(backend):
    found = ordmap.testing.outcomes(
        ordered_map(lambda x: type(x).__name__, [1, threading.Lock(), "x"], workers=2, backend=backend)
    )
    assert (found[0], found[2]) == ("int", "str")
    if backend != "threads":
        assert type(found[1]) is ordmap.RemoteError
        assert "input can't be pickled" in str(found[1])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forks")
def test_fork_is_left_alone_where_a_library_does_not_survive_it(monkeypatch):
    from ordmap.backends import forking

    monkeypatch.setitem(sys.modules, "jax", sys)
    monkeypatch.setattr(forking, "_told", set())
    with pytest.warns(RuntimeWarning, match="jax is in use and does not survive a fork"):
        assert list(ordered_imap("ab", 1)) == ["a", "b"]
    assert list(ordered_imap("ab", 1)) == ["a", "b"]  # said once


def test_a_pool_of_threads_is_not_for_its_own_items():
    with Threads(2) as pool:
        found = ordmap.testing.outcomes(
            ordered_map(lambda i: list(ordered_imap(range(i), backend=pool)), range(3), backend=pool)
        )
    assert [type(error) for error in found] == [ordmap.OrdmapError] * 3
    assert "make another" in str(found[0])


def test_a_pool_that_a_forked_worker_has_inherited_has_workers_of_its_own_there():
    with Processes(2) as pool:
        nested = ordered_map(lambda i: list(ordered_imap(range(i), backend=pool)), range(3), backend=pool)
        assert list(nested) == [[], [0], [0, 1]]


@pytest.mark.parametrize("make", [Processes, Spawn, lambda n, **o: FromExecutor(ThreadPoolExecutor(n), **o)])
def test_two_static_datasets_on_one_pool(make):
    with make(2, static_dataset=True) as pool:
        for _ in range(3):
            both = zip(ordered_imap([1, 2, 3], backend=pool), ordered_imap("abc", backend=pool), strict=True)
            assert list(both) == [(1, "a"), (2, "b"), (3, "c")]
        executor = getattr(pool, "_executor", None)
    if executor is not None:
        executor.shutdown()


def test_a_static_dataset_that_is_a_function_too_is_told_apart():
    class Both(list):
        def __call__(self, value):
            return ("called", value)

    both = Both([7])
    with Processes(1, static_dataset=True) as pool:
        assert list(ordered_imap(both, backend=pool)) == [7]
        assert list(ordered_map(both, [1], backend=pool)) == [("called", 1)]


def test_a_file_stays_its_owner_s(tmp_path):
    path = tmp_path / "lines"
    path.write_text("a\nbb\n")
    with path.open() as file:
        assert list(ordered_map(len, file, workers=1, backend="threads")) == [2, 3]
        assert file.seek(0) == 0


def test_a_dataset_that_can_be_pickled_and_not_rebuilt():
    class Fragile:
        def __len__(self):
            return 3

        def __getitem__(self, index):
            return index

        def __setstate__(self, state):
            raise FileNotFoundError("/w")

        def __getstate__(self):
            return {"a": 1}

    with pytest.raises(ordmap.RemoteError, match="the dataset can't be rebuilt in worker .*FileNotFoundError: /w"):
        list(ordered_imap(Fragile(), 1, backend="spawn"))


def test_an_executor_that_breaks_off():
    class Broken(ThreadPoolExecutor):
        calls = 0

        def submit(self, *args, **kwargs):
            self.calls += 1
            if self.calls > 2:
                raise OSError("connection lost")
            return super().submit(*args, **kwargs)

    with Broken(1) as executor, pytest.raises(ordmap.BackendUnavailableError, match="OSError: connection lost"):
        list(ordered_imap("abcdef", backend=executor))


def test_ctrl_c_at_any_instant_leaves_nothing_locked():
    import signal
    import time

    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            iterator = ordered_imap(range(100_000), 0)
            found = []
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.0005)
                for x in iterator:
                    found.append(x)
            except KeyboardInterrupt:
                pass
            signal.setitimer(signal.ITIMER_REAL, 0)
            rest = ordmap.testing.outcomes(iterator)  # none, unless it struck outside of next(): never a hang
            assert rest in ([], list(range(100_000 - len(rest), 100_000)))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_collected_in_the_middle_of_anything_it_is_closed_elsewhere():
    import gc

    closers = []

    class Noting(Threads):
        def _closed(self, run):
            closers.append(threading.get_ident())
            super()._closed(run)

    iterator = ordered_imap(range(50), backend=Noting(1))
    next(iterator)
    cycle = [iterator]
    cycle.append(cycle)
    del iterator, cycle
    gc.collect()
    ordmap.testing.wait_until(lambda: closers, "it is closed")
    assert closers[0] != threading.get_ident()


def test_the_backend_names_make_what_they_say():
    for make, name in ((Serial, "serial"), (Threads, "threads"), (Processes, "processes"), (Spawn, "spawn")):
        assert make().name == name


def test_no_cycle_keeps_an_error_or_a_result_alive():
    import gc
    import weakref

    class Big:
        pass

    def work(index):
        big = Big()
        seen.append(weakref.ref(big))
        if index:
            raise ValueError(index)
        return big

    seen = []
    gc.collect()
    gc.disable()
    try:
        iterator = ordered_map(work, range(2), backend="serial")
        next(iterator)
        assert seen[0]() is None
        try:
            next(iterator)
        except ValueError:
            pass
        assert seen[1]() is None
        iterator.close()
    finally:
        gc.enable()


def test_an_interrupt_that_comes_while_a_dropped_iterator_ends_is_not_lost(monkeypatch):
    def deaf(i):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return i and time.sleep(60)

    lost = []
    monkeypatch.setattr(sys, "unraisablehook", lost.append)
    for after in (0.02, 0.05, 0.08):
        results = ordered_map(deaf, range(10), workers=1, backend="processes")
        assert next(results) == 0
        timer = threading.Timer(after, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012
            del results  # takes 0.1 s, since the item doesn't heed SIGTERM
            time.sleep(10)
        timer.join()
    assert not lost


@pytest.mark.parametrize("backend", ["threads", "processes"])
def test_an_iterator_dropped_while_garbage_is_collected_all_the_time_is_closed(monkeypatch, backend):
    lost = []
    monkeypatch.setattr(sys, "unraisablehook", lost.append)
    before = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for _ in range(200 if backend == "threads" else 50):
            results = ordered_imap(range(4), 1, backend=backend)
            next(results)
            del results
    finally:
        gc.set_threshold(*before)
    assert not [str(one.exc_value) for one in lost]


def test_an_interrupt_that_comes_while_garbage_is_collected_is_not_lost(monkeypatch):
    class Interrupt(Exception):
        pass

    def interrupt(*_):
        if collecting:
            interrupts.append("begun")
            raise Interrupt

    def collect(until):
        # By itself: an exception that comes where a loop begins anew may miss the ``with`` around it, in Python 3.13.
        signal.setitimer(signal.ITIMER_REAL, until)
        end = time.monotonic() + 0.5
        collecting.append(True)
        while time.monotonic() < end:
            gc.collect(0)
        collecting.clear()  # where other threads run Python itself may forget a signal until the next one

    collecting = []
    interrupts = []
    lost = []
    monkeypatch.setattr(sys, "unraisablehook", lost.append)
    assert gc.callbacks  # ours
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for n in range(400):
            with contextlib.suppress(Interrupt):
                collect(0.0005 + n * 1e-7)
            collecting.clear()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert len(interrupts) > 300
    assert not lost


class Unhashable(type):
    def __eq__(cls, other):
        return cls is other


class Odd(metaclass=Unhashable):
    pass


@pytest.mark.parametrize("backend", ["serial", "threads", "processes"])
def test_a_result_whose_class_has_no_hash_costs_no_other_item(backend):
    results = ordered_map(lambda i: Odd() if i == 1 else i, range(3), workers=1 if backend != "serial" else None,
                          backend=backend)  # fmt: skip
    assert next(results) == 0
    if backend == "processes":  # pickle can't have it either
        with pytest.raises(RemoteError, match="can't be pickled"):
            next(results)
    else:
        assert type(next(results)) is Odd
    assert list(results) == [2]


@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")
@pytest.mark.parametrize("backend", ["threads", "processes"])
def test_memory_stays_flat_over_a_million_streamed_items(backend):
    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    with ordered_map(abs, itertools.count(), workers=2, backend=backend) as numbers:
        for _ in itertools.islice(numbers, 50_000):
            pass
        before = resident()
        for _ in itertools.islice(numbers, 1_000_000):
            pass
        assert resident() - before < 8_000_000


@pytest.mark.parametrize("backend", ["threads", "processes"])
def test_close_ends_the_workers_though_the_source_blocks(backend):
    blocked, release = threading.Event(), threading.Event()

    def source():
        yield 1
        yield 2
        blocked.set()
        release.wait(60)
        yield 3

    pool = ordmap.Processes(2) if backend == "processes" else ordmap.Threads(2)
    numbers = ordered_map(abs, source(), backend=pool, prefetch=8)
    found = []
    consumer = threading.Thread(target=lambda: found.extend(numbers))
    consumer.start()
    assert blocked.wait(60)
    numbers.close()
    wait_until(lambda: not pool._runs and pool._crew is None, "the workers are gone")
    assert consumer.is_alive()
    release.set()
    consumer.join(60)
    assert not consumer.is_alive()
    assert found == [1, 2][: len(found)]


def test_a_source_whose_iter_begins_anew():
    class Reader:
        def __iter__(self):
            self.line = 0
            return self

        def __next__(self):
            self.line += 1
            if self.line > 300:
                raise StopIteration
            return self.line

    for how in ({"workers": 0}, {"workers": 2}, {"workers": 2, "backend": "threads", "chunksize": 7}):
        assert list(ordered_map(abs, Reader(), **how)) == list(range(1, 301))
        assert list(ordered_imap(range(400), indices=Reader(), **how)) == list(range(1, 301))


def test_an_input_whose_class_has_no_hash():
    class Odd(type):
        def __eq__(cls, other):
            return cls is other

        __hash__ = None

    class Thing(metaclass=Odd):
        value = 3

    found = list(ordered_map(lambda thing: thing.value, [Thing(), Thing()], workers=2, backend="threads"))
    assert found == [3, 3]
    for backend in ("processes", "spawn"):  # cloudpickle can't have it; that costs its item
        errors = outcomes(ordered_map(lambda thing: thing.value, [Thing(), Thing()], workers=2, backend=backend))
        assert [type(error) for error in errors] == [RemoteError] * 2
