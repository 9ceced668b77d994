"""Going on in any epoch with samplers that draw anew each time, and states that are of another order."""

from __future__ import annotations

import itertools
import json
import os
import random
import subprocess
import sys
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ordmap import CheckpointError, Threads, batches, mapped, ordered_imap, subset

N = 8


class Drawn:
    """A sampler with a generator of its own, which goes on from epoch to epoch, as PyTorch's with a seed."""

    def __init__(self, seed=3):
        self.rng = random.Random(seed)
        self.begun = 0

    def __len__(self):
        return N

    def __iter__(self):
        self.begun += 1
        return iter(self.rng.sample(range(N), N))


class Generated(Drawn):
    """One that draws while it is gone through, with replacement; it has no length."""

    __len__ = None

    def __iter__(self):
        for _ in range(self.rng.randrange(4, 9)):
            yield self.rng.randrange(N)


class Numpy(Drawn):
    def __init__(self, seed=3):
        self.rng = np.random.default_rng(seed)

    def __iter__(self):
        return iter(self.rng.permutation(N))


class Counting(Drawn):
    """One whose order depends on how often it came to its end."""

    def __init__(self, seed=3):
        self.seed = seed
        self.ended = 0

    def __iter__(self):
        yield from random.Random(self.seed + self.ended).sample(range(N), N)
        self.ended += 1


class Narrowing(Drawn):
    """One that gives fewer in each epoch, and none in the end."""

    def __iter__(self):
        self.begun += 1
        return iter(self.rng.sample(range(N), max(0, 6 - 2 * self.begun)))

    __len__ = None


class ToldEpoch(Drawn):
    """One whose order is given by the epoch that it is told, as ``DistributedSampler``."""

    def __init__(self, seed=3):
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        return iter(random.Random(1000 * self.seed + self.epoch).sample(range(N), N))


class ToldInVain(Drawn):
    """One that can be told the epoch, and draws as it likes."""

    def set_epoch(self, epoch):
        self.told = epoch


def of_the_epoch(seed=3):
    return lambda epoch: random.Random(1000 * seed + epoch).sample(range(N), N)


def lazily_of_the_epoch(seed=3):
    return lambda epoch: (index for index in of_the_epoch(seed)(epoch)[epoch:])


def array_of_the_epoch(seed=3):
    return lambda epoch: np.array(of_the_epoch(seed)(epoch))


def told_by_a_function(seed=3):
    sampler = ToldEpoch(seed)

    def order(epoch):
        sampler.set_epoch(epoch)
        return sampler

    return order


SAMPLERS = [Drawn, Generated, Numpy, Counting, Narrowing, ToldEpoch, ToldInVain]
FUNCTIONS = [of_the_epoch, lazily_of_the_epoch, array_of_the_epoch, told_by_a_function]
SHARDS = [None, (0, 2), (2, 3), (1, 3, "pad"), (0, 3, "drop")]


def made(indices, **how):
    return ordered_imap(range(N), indices=indices, **{"workers": 0, "epochs": 4, **how})


def oracle(sampler, epochs=4):
    """Return what plain Python gives in these epochs, each as a list."""
    found = []
    for epoch in range(epochs):
        if epoch and hasattr(sampler, "set_epoch"):
            sampler.set_epoch(epoch)
        found.append([int(index) for index in (sampler(epoch) if callable(sampler) else sampler)])
    return found


def dealt(order, shard):
    """Return a shard's part of an epoch."""
    rank, world, rest = (*(shard or (0, 1)), "keep")[:3]
    if rest == "drop":
        order = order[: len(order) - len(order) % world]
    elif rest == "pad":
        order = [order[n % len(order)] for n in range(-(-len(order) // world) * world)] if order else order
    return order[rank::world]


@pytest.mark.parametrize("shard", SHARDS, ids=str)
@pytest.mark.parametrize("make", [*SAMPLERS, *FUNCTIONS])
def test_it_goes_on_from_any_position_of_any_epoch(make, shard):
    if len(shard or ()) == 3 and make in {Generated, Narrowing, lazily_of_the_epoch}:
        pytest.skip("such a shard needs a length")
    whole = [index for order in oracle(make()) for index in dealt(order, shard)]
    assert list(made(make(), shard=shard)) == whole
    for how in ({}, {"workers": 2, "backend": "threads", "prefetch": 12, "chunksize": 5}):
        for cut in range(len(whole) + 1):
            with made(make(), shard=shard, **how) as iterator:
                assert list(islice(iterator, cut)) == whole[:cut]
            state = json.loads(json.dumps(iterator.state_dict()))
            other = made(make(), shard=shard)
            other.load_state_dict(state)
            assert other.state_dict() == state
            assert list(other) == whole[cut:]


@settings(max_examples=40)
@given(st.sampled_from([*SAMPLERS, *FUNCTIONS]), st.integers(1, 5), st.lists(st.integers(0, 9), max_size=4))
def test_it_goes_on_again_and_again(make, epochs, steps):
    whole = list(itertools.chain(*oracle(make(), epochs)))
    found = []
    state = None
    for step in [*steps, None]:
        iterator = made(make(), epochs=epochs)
        if state is not None:
            iterator.load_state_dict(state)
        found += islice(iterator, step)
        state = json.loads(json.dumps(iterator.state_dict()))
    assert found == whole


@pytest.mark.parametrize("backend", ["processes", "spawn"])
def test_it_goes_on_in_worker_processes(backend):
    whole = list(itertools.chain(*oracle(Drawn())))
    with made(Drawn(), workers=2, backend=backend) as iterator:
        assert list(islice(iterator, 19)) == whole[:19]
    other = made(Drawn(), workers=2, backend=backend)
    other.load_state_dict(iterator.state_dict())
    assert list(other) == whole[19:]


def test_for_ever():
    whole = list(itertools.chain(*oracle(Drawn(), 20)))
    iterator = made(Drawn(), epochs=None)
    assert list(islice(iterator, 100)) == whole[:100]
    other = made(Drawn(), epochs=None)
    other.load_state_dict(iterator.state_dict())
    assert list(islice(other, 50)) == whole[100:150]


def test_a_sampler_is_told_of_later_epochs_alone():
    sampler = ToldEpoch()
    sampler.set_epoch(5)  # as in a loop of one's own
    expected = [random.Random(3000 + epoch).sample(range(N), N) for epoch in (5, 6, 7)]
    assert list(made(sampler, epochs=3)) == list(itertools.chain(*expected))
    sampler.set_epoch(5)
    assert list(made(sampler, epochs=1)) == expected[0]
    assert sampler.epoch == 5


# Another order


@pytest.mark.parametrize("make", [*SAMPLERS, *FUNCTIONS])
def test_another_seed_is_refused(make):
    whole = list(made(make()))
    for cut in (4, 8, 12, 20):
        if cut >= len(whole):
            continue
        iterator = made(make(3))
        assert list(islice(iterator, cut)) == whole[:cut]
        other = made(make(4))
        before = other.state_dict()
        with pytest.raises(CheckpointError, match=r"the state has the index \d at position|of position \d"):
            other.load_state_dict(iterator.state_dict())
        assert other.state_dict() == before


class Unseeded(Drawn):
    def __init__(self):
        super().__init__(None)


def test_a_sampler_without_a_seed_is_refused_where_items_would_be_lost():
    for cut in (5, 8, 11):
        iterator = made(Unseeded())
        list(islice(iterator, cut))
        with pytest.raises(CheckpointError, match="the sampler or its seed is another, or it was gone through before"):
            made(Unseeded()).load_state_dict(iterator.state_dict())


def test_a_function_that_draws_anew_with_each_call_is_refused_beyond_the_first_epoch():
    def drawing():
        rng = random.Random(3)
        return lambda _: rng.sample(range(N), N)

    whole = list(made(drawing()))
    for cut in range(25):
        iterator = made(drawing())
        assert list(islice(iterator, cut)) == whole[:cut]
        other = made(drawing())
        if 8 < cut and cut != 16:
            with pytest.raises(CheckpointError, match="the sampler or its seed is another"):
                other.load_state_dict(iterator.state_dict())
        elif cut <= 8:
            other.load_state_dict(iterator.state_dict())
            assert list(other) == whole[cut:]


def test_a_sampler_that_was_gone_through_before_is_refused():
    sampler = Drawn()
    iterator = made(sampler)
    list(islice(iterator, 11))
    with pytest.raises(CheckpointError, match="gone through before"):
        made(sampler).load_state_dict(iterator.state_dict())


def test_one_state_may_be_loaded_twice_and_two_states_may_not():
    whole = list(made(Drawn()))
    states = []
    for cut in (11, 13):
        iterator = made(Drawn())
        list(islice(iterator, cut))
        states.append(iterator.state_dict())
    other = made(Drawn())
    other.load_state_dict(states[0])
    other.load_state_dict(states[0])
    with pytest.raises(CheckpointError, match="was gone through for another state: load this into a new iterator"):
        other.load_state_dict(states[1])
    assert list(other) == whole[11:]
    of_a_function = made(of_the_epoch())
    one = made(of_the_epoch())
    list(islice(one, 11))
    of_a_function.load_state_dict(one.state_dict())
    next(one)
    of_a_function.load_state_dict(one.state_dict())
    assert list(of_a_function) == list(one)


def test_an_iterator_of_indices_is_gone_through_when_its_first_is_needed():
    def drawn(seed):
        return iter(random.Random(seed).sample(range(N), N))

    one = made(drawn(1), epochs=1)
    before = list(islice(one, 5))
    state = one.state_dict()
    other = made(drawn(1), epochs=1)
    other.load_state_dict(state)
    assert other.state_dict() == state
    assert before + list(other) == list(drawn(1))
    another = made(drawn(2), epochs=1)
    another.load_state_dict(state)
    with pytest.raises(CheckpointError, match="the sampler or its seed is another"):
        next(another)


def test_bad_indices_of_a_sampler_are_told_from_others_too():
    def bad(third):
        return lambda _: iter([1, 2, third, 3, 4])

    for third in (-1, 99, "a", 0.5, None):
        how = {"epochs": 1, "on_error": "skip"}
        one = made(bad(third), **how)
        assert list(islice(one, 3)) == [1, 2, 3]
        state = json.loads(json.dumps(one.state_dict()))
        other = made(bad(third), **how)
        other.load_state_dict(state)
        assert list(other) == [4]
        with pytest.raises(CheckpointError, match="at position 2 of epoch 0, and here it is 7"):
            made(bad(7), **how).load_state_dict(state)


DATA = range(30)


@pytest.mark.parametrize(
    ("one", "another", "message"),
    [
        (subset(DATA, [1, 2, 3]), subset(DATA, [1, 3, 2]), "the views"),
        (subset(DATA, range(3)), subset(DATA, range(2, -1, -1)), "the views"),
        (subset(DATA, [1, 2, 3]), subset(DATA, np.array([1, 2, 4])), "the views"),
        (batches(DATA, 4), batches(DATA, 5, drop_last=True), "the length 8, and here it is 6"),
        (batches(DATA, 20), batches(DATA, 25), r"the views \['batches of 20'\], and here it is \['batches of 25'\]"),
        (batches(range(10), 4, drop_last=True), batches(range(10), 5), "the views"),
        (batches(subset(DATA, [1, 2, 3]), 2), batches(subset(DATA, [3, 2, 1]), 2), "the views"),
        (mapped(str, subset(DATA, [1, 2])), mapped(str, subset(DATA, [2, 1])), "the views"),
        (subset(batches(DATA, 5), [0, 1]), batches(subset(DATA, [*range(10)]), 5), "the views"),
        (DATA, mapped(str, subset(DATA, DATA)), "the views"),
    ],
)
def test_a_state_of_other_views_is_refused(one, another, message):
    iterator = ordered_imap(one, 0, epochs=2)
    next(iterator)
    other = ordered_imap(another, 0, epochs=2)
    with pytest.raises(CheckpointError, match=f"the state has {message}"):
        other.load_state_dict(iterator.state_dict())
    with pytest.raises(CheckpointError, match="the state has"):
        iterator = ordered_imap(one, 0, epochs=2)
        iterator.load_state_dict(other.state_dict())


def test_what_is_done_to_each_item_may_be_another():
    iterator = ordered_imap(mapped(str, subset(DATA, [1, 2])), 0)
    next(iterator)
    other = ordered_imap(mapped(float, subset(DATA, np.array([1, 2]))), 0)
    other.load_state_dict(iterator.state_dict())
    assert list(other) == [2.0]


def test_states_of_before_are_taken_without_what_they_lack():
    new = {"digest of indices", "views", "given"}
    for make in (
        lambda: ordered_imap(DATA, 0, epochs=3, shuffle=True, seed=2),
        lambda: ordered_imap(batches(DATA, 4, collate=list), 0, epochs=3),
        lambda: ordered_imap(DATA, 0, epochs=3, indices=[5, 3, 4]),
        lambda: made(Drawn()),
        lambda: made(of_the_epoch()),
    ):
        iterator = make()
        whole = list(make())
        assert list(islice(iterator, 7)) == whole[:7]
        state = {name: value for name, value in iterator.state_dict().items() if name not in new}
        other = make()
        other.load_state_dict(state)
        assert list(other) == whole[7:]


@pytest.mark.parametrize("given", [3, [0, 1], [0, "1", []], ["0", 1, []], [0, 1, 2], {"epoch": 0}])
def test_what_is_no_memory_of_indices_is_refused(given):
    state = made(Drawn()).state_dict()
    with pytest.raises(CheckpointError, match="the state has given"):
        made(Drawn()).load_state_dict({**state, "position": 1, "given": given})


def test_a_state_is_the_same_in_other_processes(tmp_path):
    """With other hash seeds, from other containers."""
    script = tmp_path / "script.py"
    script.write_text(
        "import json, random, sys\n"
        "from ordmap import *\n"
        "views = batches(subset(range(50), [int(n) for n in sys.argv[1].split()]), 2)\n"
        "one = ordered_imap(views, 0, epochs=2, indices=lambda e: random.Random(e).sample(range(3), 3))\n"
        "two = ordered_imap(range(50), 0, indices=random.Random(1).sample(range(50), 50))\n"
        "for _ in range(2): next(one), next(two)\n"
        "print(json.dumps([one.state_dict(), two.state_dict()]))\n"
    )
    states = {
        subprocess.run(
            [sys.executable, script, "1 2 3 4 5 6"],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        for seed in "12"
    }
    assert len(states) == 1
    one = ordered_imap(batches(subset(range(50), np.arange(1, 7)), 2), 0, epochs=2, indices=lambda e: random.Random(e).sample(range(3), 3))  # fmt: skip
    list(islice(one, 2))
    here = one.state_dict()
    there = json.loads(states.pop())[0]
    assert there | {"indices": here["indices"]} == here


# Datasets that are told


class Told:
    """A dataset that notes what it was told, and shows it in its items."""

    def __init__(self):
        self.begun = self.ended = 0

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return self.begun, self.ended, index

    def on_epoch_begin(self):
        self.begun += 1

    def on_epoch_end(self):
        self.ended += 1


class ToldOfBegin(Told):
    on_epoch_end = None


class Kept(Told):
    def state_dict(self):
        return {"begun": self.begun, "ended": self.ended}

    def load_state_dict(self, state):
        vars(self).update(state)


class Renewed(Kept):
    """One that draws its items when an epoch begins, and whose length is another in each."""

    def __len__(self):
        return self.begun + 1

    on_epoch_end = None


BACKENDS = {
    "serial": lambda: {"workers": 0},
    "threads": lambda: {"backend": Threads(2), "chunksize": 2, "prefetch": 8},
    "processes": lambda: {"workers": 2},
    "spawn": lambda: {"backend": "spawn", "workers": 2},
}


def plain(dataset, epochs):
    """Return what a loop like Keras' gives."""
    found = []
    for _ in range(epochs):
        dataset.on_epoch_begin()
        found += [dataset[index] for index in range(len(dataset))]
        if dataset.on_epoch_end:
            dataset.on_epoch_end()
    return found


@pytest.mark.parametrize("make", BACKENDS)
@pytest.mark.parametrize("kind", [Told, ToldOfBegin, Renewed])
def test_a_dataset_is_told_when_an_epoch_begins(make, kind):
    dataset = kind()
    iterator = ordered_imap(dataset, epochs=3, **BACKENDS[make]())
    assert dataset.begun == 0  # nothing starts before the first next()
    assert list(iterator) == plain(kind(), 3)
    assert (dataset.begun, dataset.ended) == (3, 3 if kind is Told else 0)


def test_start_tells_of_the_first_epoch():
    dataset = Told()
    with ordered_imap(dataset, backend=Threads(2), epochs=2).start():
        assert (dataset.begun, dataset.ended) == (1, 0)


def test_no_epoch_no_word():
    dataset = Told()
    assert list(ordered_imap(dataset, 0, epochs=0)) == []
    assert dataset.begun == 0


def test_views_pass_it_on():
    dataset = Told()
    view = batches(mapped(lambda item: item[:2], dataset), 3, collate=list)
    assert list(ordered_imap(view, 0, epochs=2)) == [[(1, 0)] * 3, [(2, 1)] * 3]


def test_a_pool_that_was_promised_that_nothing_changes_sees_it_all_the_same():
    from ordmap import Processes

    with Processes(1, static_dataset=True) as pool:
        dataset = Told()
        assert list(ordered_imap(dataset, backend=pool)) == [(1, 0, 0), (1, 0, 1), (1, 0, 2)]
        assert list(ordered_imap(dataset, backend=pool)) == [(2, 1, 0), (2, 1, 1), (2, 1, 2)]


@pytest.mark.parametrize("kind", [Kept, Renewed])
def test_one_that_keeps_its_state_goes_on_and_is_told_no_more_than_once(kind):
    whole = plain(kind(), 3)
    for cut in range(len(whole) + 1):
        iterator = ordered_imap(kind(), epochs=3, **BACKENDS["threads"]())
        assert list(islice(iterator, cut)) == whole[:cut]
        iterator.close()
        state = json.loads(json.dumps(iterator.state_dict()))
        dataset = kind()
        other = ordered_imap(dataset, 0, epochs=3)
        other.load_state_dict(state)
        assert other.state_dict() == state
        assert list(other) == whole[cut:]
        assert dataset.begun == 3


def test_one_that_keeps_none_goes_on_in_its_first_epoch_alone():
    for kind in (Told, ToldOfBegin):
        whole = plain(kind(), 2)
        iterator = ordered_imap(kind(), 0, epochs=2)
        assert list(islice(iterator, 2)) == whole[:2]
        other = ordered_imap(kind(), 0, epochs=2)
        other.load_state_dict(iterator.state_dict())
        assert list(other) == whole[2:]
        list(islice(iterator, 2))
        with pytest.raises(
            CheckpointError, match=r"on_epoch_(begin|end)\(\) was called, and what it has changed is lost"
        ):
            iterator.state_dict()


def test_what_it_raises_ends_the_iterator():
    class Failing(Told):
        def on_epoch_begin(self):
            super().on_epoch_begin()
            if self.begun == self.fails:
                raise self.error

    for fails, error, raised in [(1, LookupError("told"), LookupError), (2, StopIteration(), RuntimeError)]:
        dataset = Failing()
        dataset.fails, dataset.error = fails, error
        iterator = ordered_imap(dataset, backend=Threads(2), epochs=3)
        assert len(list(islice(iterator, 3 * fails - 3))) == 3 * fails - 3
        with pytest.raises(raised, match=r"told|on_epoch_begin raised StopIteration"):
            next(iterator)
        assert list(iterator) == []


def test_it_may_close_the_iterator_but_not_ask_it_for_more():
    class Asking(Told):
        def on_epoch_begin(self):
            self.ask()

    dataset = Asking()
    for epochs in (1, 2):
        iterator = ordered_imap(dataset, backend=Threads(2), epochs=epochs)
        dataset.ask = iterator.close
        assert list(iterator) == []
        other = ordered_imap(dataset, backend=Threads(2), epochs=epochs)
        dataset.ask = lambda other=other: next(other)
        with pytest.raises(ValueError, match="computing"):
            list(other)


def test_one_that_does_nothing_or_can_not_be_called_so():
    class Nothing(Told):
        def on_epoch_begin(self):
            """Method called at the beginning of every epoch."""
            pass

        def on_epoch_end(self):
            """Method called at the end of every epoch."""
            pass

    iterator = ordered_imap(Nothing(), 0, epochs=3)
    list(islice(iterator, 5))
    other = ordered_imap(Nothing(), 0, epochs=3)
    other.load_state_dict(iterator.state_dict())  # nothing was lost, for nothing was told
    assert list(other) == [(0, 0, 2), *((0, 0, index) for index in range(3))]

    class Wrong(Told):
        def on_epoch_begin(self, epoch):
            raise AssertionError

    with pytest.raises(TypeError, match="on_epoch_begin is called without arguments, and .* needs some"):
        ordered_imap(Wrong(), 0)

    class Awaited(Told):
        async def on_epoch_begin(self):
            raise AssertionError

    with pytest.raises(TypeError, match="on_epoch_begin is called, not awaited"):
        ordered_imap(Awaited(), 0)
