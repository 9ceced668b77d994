"""Random numbers: those that a seed gives are the same whoever computes the item, and others where there is none."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from itertools import islice
from multiprocessing import get_context

import numpy as np
import pytest

from ordmap import (
    FromExecutor,
    Processes,
    Spawn,
    Threads,
    item,
    item_rng,
    ordered_imap,
    ordered_map,
    solo,
    worker_info,
)
from ordmap.backends import portable
from ordmap.engine import available
from ordmap.item import InHand, Label, OneInHand
from ordmap.rng import word_of

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")


class Augmented:
    """Samples with noise of every kind; ``own``: of their own generators alone."""

    def __init__(self, length=20, *, own=False, failing=()):
        self.length = length
        self.own = own
        self.failing = failing

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        numbers = [item_rng().random(), item_rng("numpy").standard_normal(), item_rng().gauss(), float(index)]
        if not self.own:
            numbers += [random.random(), random.gauss(), np.random.rand(), np.random.standard_normal()]
            numbers += np.random.permutation(5).tolist()
        if index in self.failing and worker_info().attempt < 3:
            raise LookupError(index)
        return np.array(numbers).tobytes()


def expected(own=False, **options):
    return list(ordered_imap(Augmented(own=own), 0, epochs=2, seed=11, **options))


PROCESSES = {
    "processes": Processes,
    "spawn": Spawn,
    "portable processes": portable.Processes,
    "portable spawn": portable.Spawn,
    "fork executor": lambda workers: ProcessPoolExecutor(workers, mp_context=get_context("fork")),
    "spawn executor": lambda workers: ProcessPoolExecutor(workers, mp_context=get_context("spawn")),
}
THREADS = {"threads": Threads, "thread executor": ThreadPoolExecutor}


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("make", PROCESSES)
def test_the_bytes_are_the_same_in_any_processes(make, workers):
    with PROCESSES[make](workers) as pool:
        for chunksize in (1, 7, None):
            found = ordered_imap(Augmented(), prefetch=16, backend=pool, epochs=2, seed=11, chunksize=chunksize)
            assert list(found) == expected()


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("make", THREADS)
def test_the_items_own_are_the_same_in_threads(make, workers):
    with THREADS[make](workers) as pool:
        for chunksize in (1, 7, None):
            options = {"prefetch": 16, "backend": pool, "epochs": 2, "seed": 11, "chunksize": chunksize}
            assert list(ordered_imap(Augmented(own=True), **options)) == expected(own=True)


def test_workers_0_is_the_same_whatever_the_order():
    assert len(set(expected())) == 40
    shuffled = expected(shuffle=True)
    assert shuffled != expected()
    assert sorted(shuffled) == sorted(expected())
    assert list(ordered_imap(Augmented(), 2, epochs=2, seed=11, shuffle=True)) == shuffled
    shards = [expected(shuffle=True, shard=(rank, 3)) for rank in range(3)]
    assert sorted(sum(shards, [])) == sorted(expected())


#: An iterator that stops, and one that goes on there.
WAYS = [("processes", "serial"), ("serial", "processes"), ("portable processes", "spawn"), ("threads", "fork executor")]


@pytest.mark.parametrize(("first", "second"), WAYS)
def test_another_goes_on_with_the_same_bytes_from_any_position(first, second):
    own = "threads" in {first, second}
    whole = expected(own)

    def made(pool):
        return ordered_imap(Augmented(own=own), backend=pool, epochs=2, seed=11)

    def pool(name):
        return THREADS[name](2) if name in THREADS else PROCESSES[name](2)

    with Processes(1) as either:  # any context manager
        one = either if first == "serial" else pool(first)
        two = either if second == "serial" else pool(second)
        with one, two:
            for position in range(41):
                with made("serial" if first == "serial" else one) as stopped:
                    assert list(islice(stopped, position)) == whole[:position]
                other = made("serial" if second == "serial" else two)
                other.load_state_dict(json.loads(json.dumps(stopped.state_dict())))
                assert list(other) == whole[position:]


@pytest.mark.parametrize("make", [*PROCESSES, *THREADS])
def test_an_item_that_is_tried_again_gets_the_same_numbers(make):
    own = make in THREADS
    whole = expected(own)[:20]
    with (THREADS if own else PROCESSES)[make](2) as pool:
        for chunksize in (1, 7, None):
            dataset = Augmented(own=own, failing={0, 3, 4, 13, 19})
            options = {"prefetch": 16, "backend": pool, "seed": 11, "chunksize": chunksize, "retries": 2}
            assert list(ordered_imap(dataset, **options)) == whole
    assert list(ordered_imap(Augmented(failing={2}), 0, seed=11, retries=2)) == expected()[:20]


@pytest.mark.skipif(not available(), reason="the engine is for Linux")
@pytest.mark.parametrize("backend", ["processes", "spawn"])
def test_what_a_dead_worker_had_is_computed_again_with_the_same_numbers(backend, tmp_path):
    class Deadly(Augmented):
        def __getitem__(self, index):
            try:
                (tmp_path / f"{index}").touch(exist_ok=index % 5 != 2)
            except FileExistsError:
                return super().__getitem__(index)
            if index % 5 == 2:
                os.kill(os.getpid(), 9)
            return super().__getitem__(index)

    found = ordered_imap(Deadly(), 2, 14, backend=backend, seed=11, chunksize=7, retries=1)
    assert list(found) == expected()[:20]


def test_a_function_gets_the_numbers_of_the_position():
    def noisy(letter):
        return letter, random.random(), item_rng().random()

    one = list(ordered_map(noisy, "abcdefgh", workers=0, seed=5))
    assert list(ordered_map(noisy, "abcdefgh", workers=2, seed=5, chunksize=3, prefetch=9)) == one
    assert list(ordered_map(noisy, iter("abcdefgh"), workers=2, backend="spawn", seed=5)) == one
    other = list(ordered_map(noisy, "abcdefgh", workers=0, seed=6))
    assert not {number for _, *numbers in one for number in numbers} & {number for _, *ns in other for number in ns}


# The caller's own


def states():
    return random.getstate(), repr(np.random.get_state(legacy=False))


@pytest.mark.parametrize("seed", [None, 11])
def test_the_callers_own_numbers_go_on_as_if_nothing_had_been(seed):
    class Failing(Augmented):
        def __getitem__(self, index):
            item_rng().random()
            if seed is not None:
                random.gauss()
                np.random.standard_normal()
            if index % 3 == 1:
                raise LookupError
            if index == 5:
                raise KeyboardInterrupt
            return states() if seed is not None else 0

    random.gauss()
    np.random.standard_normal()  # of which a second is kept ready
    before = states()
    iterator = ordered_imap(Failing(), 0, seed=seed, on_error="skip")
    finders = list(sys.meta_path)
    for _ in range(3):
        assert next(iterator) != before
        assert states() == before
        assert sys.meta_path == finders
    with pytest.raises(KeyboardInterrupt):
        next(iterator)
    assert states() == before
    assert sys.meta_path == finders


def test_iterators_within_items_leave_them_their_numbers():
    def item(index):
        first = random.random()
        inner = list(ordered_map(lambda n: (n, random.random(), worker_info().index), range(3), workers=0, seed=2))
        return first, inner, random.random(), worker_info().index, item_rng().random()

    found = list(ordered_map(item, range(6), workers=0, seed=1))
    assert [inner for _, inner, *_ in found] == [found[0][1]] * 6
    assert [index for *_, index, _ in found] == list(range(6))
    assert len({(first, last) for first, _, last, *_ in found}) == 6
    assert list(ordered_map(item, range(6), workers=2, seed=1)) == found


@pytest.mark.parametrize("kind", [np.random.PCG64, np.random.Philox])
def test_numpy_with_another_bit_generator_is_seeded_too(kind):
    def draw(_):
        return float(np.random.rand()), float(np.random.standard_normal())

    np.random.standard_normal()  # of which a second is kept ready
    before = np.random.get_bit_generator()
    np.random.set_bit_generator(kind(3))
    try:
        state = repr(np.random.get_bit_generator().state)
        one = list(ordered_map(draw, range(6), workers=0, seed=1))
        assert repr(np.random.get_bit_generator().state) == state
        assert list(ordered_map(draw, range(6), workers=2, seed=1)) == one
        assert len({number for numbers in one for number in numbers}) == 12
        assert len(set(ordered_map(draw, range(40), workers=4, chunksize=1))) == 40
    finally:
        np.random.set_bit_generator(before)


def test_threads_that_do_without_workers_take_turns():
    whole = expected()
    before = states()
    found = []
    threads = [threading.Thread(target=lambda: found.append(expected())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [whole] * 3
    assert states() == before


def test_a_fork_that_computes_in_threads_keeps_its_generators():
    with ThreadPoolExecutor(1) as executor:
        list(ordered_map(abs, range(3), backend=executor))
    np.random.seed(1)
    pid = os.fork()
    if not pid:
        code = 1
        try:
            with ThreadPoolExecutor(1) as executor:
                list(ordered_map(abs, range(3), backend=executor, seed=1))
            code = int(np.random.rand() != np.random.RandomState(1).rand())
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0


def test_an_executor_s_workers_keep_their_generators():
    with ProcessPoolExecutor(1, mp_context=get_context("fork")) as executor:
        drawn = [executor.submit(draw_once).result()]
        for _ in range(3):
            assert list(ordered_imap(Augmented(), backend=executor, epochs=2, seed=11)) == expected()
            drawn.append(executor.submit(draw_once).result())
    assert len({number for numbers in drawn for number in numbers[:2]}) == 8
    assert len({finders for *_, finders in drawn}) == 1


def draw_once():
    return random.random(), float(np.random.rand()), len(sys.meta_path)


# Imported in the midst of an item

LATE = """
import sys
from ordmap import Processes, Spawn, Threads, item_rng, ordered_map
from ordmap.backends import portable

def late(n):
    if n != {first}:
        import numpy
        return n, float(numpy.random.rand()), float(item_rng("numpy").random()), numpy.random.__loader__.__class__.__name__
    return n, __import__("random").random()

if __name__ == "__main__":
    how = {{"prefetch": 8}}
    if {backend!r} == "serial":
        how["workers"] = 0
    else:
        how["backend"] = {{"p": Processes, "s": Spawn, "pp": portable.Processes, "ps": portable.Spawn}}[{backend!r}](2)
    assert "numpy" not in sys.modules
    found = list(ordered_map(late, range(6), seed=3, **how))
    print(found)
    if {backend!r} == "serial":
        import numpy
        after = numpy.random.rand(), numpy.random.rand()
        list(ordered_map(late, range(6), seed=3, **how))
        assert float(numpy.random.rand()) not in [number for _, number, *_ in found]
        print(after, file=sys.stderr)
"""


@pytest.mark.parametrize("first", [0, 3])
def test_numpy_first_imported_within_an_item_is_seeded_for_it(script, first):
    printed = []
    for backend in ("serial", "p", "s", "pp", "ps"):
        path = script(LATE.format(first=first, backend=backend))
        done = subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        printed.append(done.stdout)
        if backend == "serial":
            again = subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=60, check=True)
            assert again.stderr != done.stderr  # numpy's own numbers, by chance, go on as if it had not been seeded
    assert len(printed[0]) > 200
    assert "SourceFileLoader" in printed[0]
    assert len(set(printed)) == 1


def test_random_itself_may_be_imported_late(script):
    path = script("""
import sys
from ordmap import ordered_map

def late(n):
    import random
    return random.random()

assert "random" not in sys.modules
one = list(ordered_map(late, range(4), workers=0, seed=3))
assert len(set(one)) == 4
assert list(ordered_map(late, range(4), workers=2, seed=3)) == one
""")
    done = subprocess.run([sys.executable, "-S", path], capture_output=True, text=True, timeout=60, check=False,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_what_an_inner_iterator_or_a_thread_imports_is_seeded_for_the_item(script):
    path = script("""
import sys, threading
from ordmap import ordered_map

def use(_=None):
    import numpy
    return float(numpy.random.rand())

def inner(n):
    return list(ordered_map(use, range(2), workers=0))[0], use()

def inner_seeded(n):
    return list(ordered_map(use, range(2), workers=0, seed=9))[0], use()

def thread(n):
    one = threading.Thread(target=use)
    one.start()
    one.join()
    return use()

assert "numpy" not in sys.modules
how = {"inner": inner, "seeded": inner_seeded, "thread": thread}[sys.argv[1]]
workers = int(sys.argv[2])
print(list(ordered_map(how, range(3), workers=workers, seed=3)))
""")
    for how in ("inner", "seeded", "thread"):
        printed = {
            subprocess.run(
                [sys.executable, path, how, workers], capture_output=True, text=True, timeout=60, check=True
            ).stdout
            for workers in ("0", "0", "1", "2")
        }
        assert len(printed) == 1, printed


def test_other_finders_and_other_modules_of_these_names_do_no_harm(script, tmp_path):
    (tmp_path / "torch").mkdir()  # with nothing in it, it is a package of a sort
    path = script("""
import sys
from ordmap import ordered_map

class Old:
    def find_module(self, name, path=None):
        return None

class Strange(type(sys)):
    pass

sys.meta_path.insert(0, Old())

def item(n):
    try:
        import torch
    except ImportError:
        pass
    import random
    return random.random()

one = list(ordered_map(item, range(4), workers=0, seed=1))
assert list(ordered_map(item, range(4), workers=2, seed=1)) == one
""")
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


# By chance


@pytest.mark.parametrize("make", [*PROCESSES])
def test_workers_without_a_seed_do_not_repeat_each_others_numbers(make):
    def draw(barrier):
        return random.random(), float(np.random.rand()), item_rng().random(), float(item_rng("numpy").random())

    random.seed(1)
    np.random.seed(1)
    with PROCESSES[make](4) as pool:
        for _ in range(2):
            found = list(ordered_map(draw, range(40), backend=pool, chunksize=1))
            assert len({number for numbers in found for number in numbers}) == 160


@pytest.mark.parametrize("make", PROCESSES)
def test_a_seeded_run_leaves_no_numbers_behind(make):
    def draw(_):
        return random.random(), float(np.random.rand())

    with PROCESSES[make](1) as pool:
        drawn = []
        for _ in range(3):
            drawn += ordered_map(draw, range(5), backend=pool)
            list(ordered_map(draw, range(4), backend=pool, seed=0))
        assert len({number for numbers in drawn for number in numbers}) == 30


@pytest.mark.parametrize("make", [Processes, portable.Processes])
def test_an_initializer_may_seed_its_worker(make):
    with make(1, initializer=np.random.seed, initargs=(7,)) as pool:
        found = list(ordered_map(lambda _: float(np.random.rand()), range(3), backend=pool))
    assert found == np.random.RandomState(7).rand(3).tolist()


def test_an_executors_initializer_may_seed_its_worker():
    np.random.seed(1)
    context = get_context("fork")
    with ProcessPoolExecutor(1, mp_context=context, initializer=np.random.seed, initargs=(7,)) as pool:
        found = list(ordered_map(lambda _: float(np.random.rand()), range(3), backend=pool))
    assert found == np.random.RandomState(7).rand(3).tolist()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_worker_forked_while_a_thread_draws_does_not_wait_for_it():
    """The lock of numpy's generator is inherited as it is, and the thread that has it is not."""
    lock = np.random.mtrand._rand._bit_generator.lock
    with lock:
        found = list(ordered_map(lambda _: float(np.random.rand()), range(8), workers=2, item_timeout=20))
    assert len(set(found)) == 8


# An item's own


def test_item_rng_goes_on_within_an_item_and_is_new_for_each():
    def item(_):
        assert item_rng() is item_rng()
        assert item_rng("numpy") is item_rng("numpy")
        return item_rng(), item_rng().random(), item_rng().random(), item_rng("numpy").random()

    for seed in (None, 3):
        found = list(ordered_map(item, range(5), workers=0, seed=seed))
        assert len({id(own) for own, *_ in found}) == 5
        assert len({number for _, *numbers in found for number in numbers}) == 15


def test_item_rng_outside_of_items():
    assert item_rng().random() != item_rng().random()
    assert item_rng("numpy").random() != item_rng("numpy").random()
    with pytest.raises(ValueError, match="generators of 'random' and of 'numpy', not of 'torch'"):
        item_rng("torch")
    assert worker_info() is None


def test_a_thread_that_an_item_starts_is_not_inside_it():
    def item(_):
        seen = []
        thread = threading.Thread(target=lambda: seen.append(worker_info()))
        thread.start()
        thread.join()
        return seen[0]

    assert list(ordered_map(item, range(2), workers=2, seed=1)) == [None, None]


def test_an_initializer_and_a_finalizer_are_not_inside_an_item(tmp_path):
    def note(name):
        (tmp_path / f"{name}{os.getpid()}").write_text(repr(worker_info()))

    with Processes(2, initializer=note, initargs=("i",), finalizer=lambda: note("f")) as pool:
        list(ordered_map(abs, range(10), backend=pool, seed=1))
    found = [path.read_text() for path in tmp_path.iterdir()]
    assert {text for text in found if text} == {"None"}  # one that has only just begun may be ended amid its writing
    assert len(found) >= 2


def test_the_numbers_are_these_in_every_version():
    """Stored, since they may never change."""

    class Item:
        def __len__(self):
            return 1 << 41

        def __getitem__(self, index):
            drawn = [random.getrandbits(64), item_rng().getrandbits(64)]
            return [*drawn, np.random.randint(1 << 30), int(item_rng("numpy").integers(1 << 40))]

    found = list(ordered_imap(Item(), 0, seed=2017, epochs=2, indices=[0, (1 << 40) - 1]))
    assert found == STORED


STORED = [
    [2936836602214773459, 13644152602538234062, 729909658, 588911451705],
    [8428766517052199713, 7628634364803327495, 802485590, 243244257089],
    [16104349443781745543, 14875719416059021648, 429057448, 676069756198],
    [12475863594915162531, 2526853323787359288, 906535739, 307298473735],
]


def test_no_two_items_of_an_epoch_give_numpy_the_same_seed():
    hand = InHand(0, 1)
    words = set()
    for first in (0, 1 << 20, (1 << 32) - 5000):
        for index in range(first, first + 5000):
            hand.take([0], Label(0, 1, index), 7)
            words.add(word_of(hand, "numpy"))
    assert len(words) == 15_000
    hand.take([0], Label(0, 1, (1 << 40) + 3), 7)
    assert 0 <= word_of(hand, "numpy") < 1 << 32
    spread = [0] * 16
    for word in words:
        spread[word >> 28] += 1
    assert max(spread) < 1.2 * min(spread)


def test_an_executor_of_threads_leaves_the_generators_alone():
    with ThreadPoolExecutor(2) as executor:
        before = states()
        list(ordered_map(abs, range(20), backend=FromExecutor(executor), seed=1))
        assert states() == before


@pytest.mark.parametrize("before", [0, 2])
@pytest.mark.parametrize("times", [1, 2])
def test_after_ctrl_c_at_any_instant_nobody_is_inside_an_item(monkeypatch, times, before):
    """Else an iterator of the program's would take itself for one of an item's, and do without workers."""
    left = [times]

    class Interrupted:
        @staticmethod
        def interrupt():
            left[0] -= 1
            if left[0] >= 0:
                raise KeyboardInterrupt

        def set(self, hand):
            return item.current.set(hand)

        def reset(self, token):
            self.interrupt()
            item.current.reset(token)

    iterator = ordered_map(abs, range(5), workers=0)
    assert [next(iterator) for _ in range(before)] == list(range(before))
    put_down = OneInHand.put_down
    monkeypatch.setattr(solo, "current", Interrupted())
    if times == 2:
        monkeypatch.setattr(OneInHand, "put_down", lambda hand: (Interrupted.interrupt(), put_down(hand)))
    with pytest.raises(KeyboardInterrupt):
        next(iterator)
    assert worker_info() is None
    assert ordered_map(abs, range(5))._settings.backend.name == "processes"


@pytest.mark.parametrize("backend", ["serial", "threads", "processes", "spawn", "asyncio"])
@pytest.mark.parametrize("numbers", [range(60), range(7, 67), range(0, 180, 3), range(59, -1, -1), range(0)], ids=repr)
def test_the_index_of_a_number_of_a_range_is_its_position(backend, numbers):
    def item(number):
        return number, worker_info().index, item_rng().random()

    async def awaited(number):
        return item(number)

    fn = awaited if backend == "asyncio" else item
    workers = 0 if backend == "serial" else 2
    results = list(ordered_map(fn, numbers, workers=workers, backend=backend, seed=3, chunksize=4 if workers else None))
    assert [result[:2] for result in results] == [(number, i) for i, number in enumerate(numbers)]
    assert results == list(ordered_map(item, list(numbers), workers=0, seed=3))
