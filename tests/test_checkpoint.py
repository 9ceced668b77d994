"""Where an iterator is, and how another goes on from there."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from itertools import count, islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ordmap import CheckpointError, Processes, Spawn, ordered_imap, ordered_map

EXAMPLE = Path(__file__).parents[1] / "examples" / "resume.py"


class Letters:
    """Some letters, of which a few can't be had."""

    def __init__(self, length=23):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        if index % 10 == 7:
            raise LookupError(index)
        return chr(97 + index)


def gathered(iterator, most=None):
    """Return what an iterator gives, errors included, up to so many."""
    found = []
    while most is None or len(found) < most:
        try:
            found.append(next(iterator))
        except StopIteration:
            break
        except LookupError as error:
            found.append(str(error))
    return found


def sampler(epoch):
    return random.Random(epoch).sample(range(23), 5 + epoch)


#: How an iterator may be made, so that its rest is the same wherever it goes on.
MADE = {
    "in order": lambda **how: ordered_imap(Letters(), epochs=3, **how),
    "shuffled": lambda **how: ordered_imap(Letters(), epochs=3, shuffle=True, seed=5, **how),
    "a shard": lambda **how: ordered_imap(Letters(), epochs=3, shuffle=True, seed=5, shard=(1, 4), **how),
    "a padded shard": lambda **how: ordered_imap(Letters(), epochs=3, shard=(2, 5, "pad"), **how),
    "a list": lambda **how: ordered_imap(Letters(), epochs=2, indices=[5, 3, 17, 17, 0], **how),
    "a range": lambda **how: ordered_imap(Letters(), epochs=2, indices=range(20, 2, -3), **how),
    "a sampler": lambda **how: ordered_imap(Letters(), epochs=4, indices=sampler, **how),
    "a sampler's shard": lambda **how: ordered_imap(Letters(), epochs=4, indices=sampler, shard=(0, 2), **how),
    "a mapped list": lambda **how: ordered_map(Letters().__getitem__, list(range(20)), **how),
    "mapped iterators": lambda **how: ordered_map(lambda a, b: (a, b), iter(range(30)), "abcdefghijklmnopq", **how),
}

#: An iterator that stops, and one that goes on there.
WAYS = [
    ({"workers": 0}, {"backend": "threads", "workers": 3}),
    ({"backend": "threads", "workers": 3, "prefetch": 11, "chunksize": 4}, {"workers": 0}),
    ({"backend": "processes", "workers": 2}, {"backend": "threads", "workers": 2, "chunksize": 1}),
    ({"workers": 0}, {"backend": "spawn", "workers": 1, "chunksize": 7, "prefetch": 7}),
]


@pytest.mark.parametrize("how", MADE)
@pytest.mark.parametrize("way", [*range(len(WAYS) - 1), pytest.param(len(WAYS) - 1, marks=pytest.mark.long)])
def test_another_goes_on_from_any_position(how, way):
    make, (first, second) = MADE[how], WAYS[way]
    whole = gathered(make(workers=0))
    positions = range(len(whole) + 1) if way < 2 else sorted({0, 1, len(whole) // 2, len(whole)})
    for position in positions:
        with make(**first) as iterator:
            assert gathered(iterator, position) == whole[:position]
            state = json.loads(json.dumps(iterator.state_dict()))
        other = make(**second)
        other.load_state_dict(state)
        assert other.state_dict() == state
        if how != "mapped iterators":
            assert other.__length_hint__() in {NotImplemented, len(whole) - position}
        assert gathered(other) == whole[position:]


@given(
    st.integers(1, 200),
    st.integers(1, 3),
    st.none() | st.integers(),
    st.integers(1, 4),
    st.sampled_from(["drop", "pad", "keep"]),
    st.data(),
)
def test_a_state_of_any_position_goes_there_and_back(length, epochs, seed, world, rest, data):
    rank = data.draw(st.integers(0, world - 1))
    options = {"epochs": epochs, "shuffle": seed is not None, "seed": seed, "shard": (rank, world, rest)}
    whole = list(ordered_imap(range(length), 0, **options))
    position = data.draw(st.integers(0, len(whole)))
    size = data.draw(st.integers(1, 30))
    with ordered_imap(range(length), backend="threads", prefetch=4 * size, chunksize=size, **options) as iterator:
        assert [*islice(iterator, position)] == whole[:position]
        state = iterator.state_dict()
    assert iterator.state_dict() == state  # closed, it still knows
    other = ordered_imap(range(length), 0, **options)
    other.load_state_dict(state)
    assert list(other) == whole[position:]


@pytest.mark.parametrize("make", [Processes, Spawn])
def test_what_is_computed_ahead_does_not_count(make):
    iterator = ordered_imap(range(1000), backend=make(2), prefetch=500).start()
    assert iterator.state_dict()["position"] == 0
    assert next(iterator) == 0
    assert iterator.state_dict()["position"] == 1
    iterator.close()
    assert iterator.state_dict()["position"] == 1


@pytest.mark.parametrize(("on_error", "found"), [("skip", "f"), ("return", "f"), (lambda failure: "-", "f")])
def test_items_that_failed_count_whatever_became_of_them(on_error, found):
    def iterator():
        return ordered_imap(Letters(), 2, backend="threads", on_error=on_error, retries=1)

    one = iterator()
    assert [*islice(one, 6)][-1] == found
    failed = next(one)
    assert on_error != "skip" or failed == "g"
    if on_error == "skip":
        assert next(one) == "i"  # past the one that failed
    else:
        next(one)
    other = iterator()
    other.load_state_dict(one.state_dict())
    assert next(other) == ("j" if on_error == "skip" else "i")


def test_a_retry_that_is_under_way_counts_as_not_given():
    failing = iter([True, True])

    class Dataset(Letters):
        def __getitem__(self, index):
            if index == 3 and next(failing, False):
                raise LookupError(index)
            return index

    iterator = ordered_imap(Dataset(), 1, 8, backend="threads", retries=2, chunksize=4)
    for position in range(8):
        assert iterator.state_dict()["position"] == position
        assert next(iterator) == position


def test_endless_epochs_go_on_too():
    iterator = ordered_imap("abcd", 2, backend="threads", epochs=None, shuffle=True, seed=1)
    whole = [*islice(iterator, 100)]
    other = ordered_imap("abcd", 0, epochs=None, shuffle=True, seed=1)
    other.load_state_dict({**iterator.state_dict(), "epoch": 10, "position": 2})
    assert [*islice(other, 50)] == whole[42:92]


def test_an_endless_sampler_is_gone_through_up_to_there():
    iterator = ordered_imap(range(1000), 2, backend="threads", indices=(7 * n % 1000 for n in count()))
    whole = [*islice(iterator, 50)]
    other = ordered_imap(range(1000), 0, indices=(7 * n % 1000 for n in count()))
    other.load_state_dict({**iterator.state_dict(), "position": 30})
    assert [*islice(other, 20)] == whole[30:]


@pytest.mark.parametrize("options", [{}, {"shuffle": True, "seed": 3}, {"shuffle": True, "seed": 3, "shard": (1, 3)}])
def test_the_end_of_a_billion_items_is_as_near_as_the_beginning(options):
    state = ordered_imap(range(10**9), 0, **options).state_dict()
    iterator = ordered_imap(range(10**9), 0, **options)
    last = len(iterator) - 1
    began = time.perf_counter()
    iterator.load_state_dict({**state, "position": last})
    assert len(list(iterator)) == 1
    assert time.perf_counter() - began < 1  # far from the minutes that it takes to count there


def test_a_seed_that_was_left_out_is_taken_over():
    one = ordered_imap(range(50), 0, epochs=2, shuffle=True)
    whole = [*islice(one, 30)]
    other = ordered_imap(range(50), 0, epochs=2, shuffle=True)
    other.load_state_dict(one.state_dict())
    rest = list(other)
    assert sorted(whole + rest[:20]) == sorted(rest[20:]) == list(range(50))
    assert rest == list(one)


STATE = {"epoch": 1, "position": 3}


@pytest.mark.parametrize(
    ("options", "change", "message"),
    [
        ({}, {"length": 24}, "the state has the length 24, and here it is 23"),
        ({"shuffle": True, "seed": 1}, {"seed": 2}, "the state has the seed 2, and here it is 1"),
        ({"shuffle": True, "seed": 1}, {"seed": None}, "the state has the seed None, and here it is 1"),
        ({}, {"seed": 2}, "the state has the seed 2, and here it is None"),
        ({"shard": (0, 2)}, {"shard": [1, 2, "keep"]}, r"the shard \[1, 2, 'keep'\], and here it is \[0, 2, 'keep'\]"),
        ({"indices": [1, 2, 3]}, {"indices": None}, "the indices None, and here it is 'list'"),
        ({"indices": [1, 2, 3]}, {"number of indices": 4}, "the number of indices 4, and here it is 3"),
        ({"indices": sampler}, {"indices": "other.sampler"}, r"and here it is 'sampler'"),
        ({}, {"version": 2}, "this is no state that state_dict.. of this version of ordmap gives"),
        ({}, {"position": 24}, "the state is of position 24 in an epoch of 23 items"),
        ({}, {"epoch": 4}, "the state is of epoch 4, and there are 3"),
        ({}, {"epoch": 3, "position": 1}, "the state is of epoch 3, and there are 3"),
        ({}, {"position": -1}, "the position -1"),
        ({}, {"position": "3"}, "the position '3'"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(options, change, message):
    iterator = ordered_imap(Letters(), 0, epochs=3, **options)
    state = {**iterator.state_dict(), **STATE, **change}
    with pytest.raises(CheckpointError, match=message):
        iterator.load_state_dict(state)
    assert iterator.state_dict()["position"] == 0


@pytest.mark.parametrize("state", [None, [], {}, {"version": 1}, ordered_map(abs, "abc").state_dict()])
def test_what_is_no_state_of_such_an_iterator_is_refused(state):
    with pytest.raises(CheckpointError):
        ordered_imap(Letters(), 0).load_state_dict(state)


def test_a_state_of_a_map_that_does_not_fit_is_refused():
    state = ordered_map(abs, [1, 2, 3], workers=0).state_dict()
    with pytest.raises(CheckpointError, match=r"the state has the lengths \[3\], and here it is \[4\]"):
        ordered_map(abs, [1, 2, 3, 4], workers=0).load_state_dict(state)
    with pytest.raises(CheckpointError, match="the state is of position 4, and there are 3 items"):
        ordered_map(abs, [1, 2, 3], workers=0).load_state_dict({**state, "position": 4})


def test_a_state_comes_too_late_for_an_iterator_that_has_begun():
    for begin in (next, lambda one: one.start(), lambda one: one.close()):
        iterator = ordered_imap(Letters(), 0)
        state = iterator.state_dict()
        begin(iterator)
        with pytest.raises(CheckpointError, match="has begun: load the state into a new one"):
            iterator.load_state_dict(state)


def test_the_state_is_not_asked_for_in_the_midst_of_an_item():
    iterator = ordered_map(lambda _: iterator.state_dict(), "ab", workers=0)
    with pytest.raises(ValueError, match="ask for its state between two items"):
        next(iterator)


def test_training_that_is_killed_twenty_times_ends_as_an_undisturbed_one(tmp_path):
    def training(name, *more):
        return [sys.executable, str(EXAMPLE), str(tmp_path / name), "--epochs", "2", *more]

    undisturbed = subprocess.run(training("one"), capture_output=True, text=True, check=True, timeout=60).stdout
    assert undisturbed.endswith("after 2000 steps\n")
    chance = random.Random()
    for _ in range(20):
        process = subprocess.Popen(
            training("other", "--workers", str(chance.randrange(1, 4))), stdout=subprocess.DEVNULL
        )
        time.sleep(chance.random() * 0.4)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert (
        subprocess.run(training("other"), capture_output=True, text=True, check=True, timeout=60).stdout == undisturbed
    )


# What iterables there are


class Doubling(list):
    """A list that is not what its positions say."""

    def __iter__(self):
        return (2 * one for one in super().__iter__())


@pytest.mark.parametrize(
    "make", [list, tuple, "".join, lambda items: range(len(items)), Doubling, iter, lambda i: (x for x in i)]
)
def test_a_map_goes_on_over_any_iterable(make):
    items = [str(n) for n in range(9)]
    whole = list(make(items))
    for position in range(10):
        one = ordered_map(lambda x: x, make(items), workers=0)
        assert [*islice(one, position)] == whole[:position]
        other = ordered_map(lambda x: x, make(items), workers=0)
        other.load_state_dict(one.state_dict())
        other.load_state_dict(one.state_dict())
        assert list(other) == whole[position:]


def test_a_list_that_grows_meanwhile_is_gone_through_to_its_end():
    items = [0, 1, 2]
    results = ordered_map(lambda x: x, items, workers=0, prefetch=1)
    state = {**results.state_dict(), "position": 2}
    results.load_state_dict(state)
    assert next(results) == 2
    items.append(3)
    assert list(results) == [3]


def test_one_iterator_feeds_another():
    def chain(length):
        return ordered_map(abs, ordered_map(abs, (n for n in range(length)), workers=0), workers=0)

    def ordered(length):
        return ordered_imap(range(100), 0, indices=ordered_map(abs, range(length), workers=0))

    for make in (chain, ordered):
        one = make(10)
        assert [*islice(one, 3)] == [0, 1, 2]
        other = make(10)
        other.load_state_dict(one.state_dict())
        assert list(other) == [*range(3, 10)]


@pytest.mark.parametrize("indices", [((0, 1), (1, 0)).__getitem__, lambda epoch: [epoch, 1]])
def test_any_function_may_give_the_indices(indices):
    one = ordered_imap("ab", 0, epochs=2, indices=indices)
    whole = list(ordered_imap("ab", 0, epochs=2, indices=indices))
    next(one)
    other = ordered_imap("ab", 0, epochs=2, indices=indices)
    other.load_state_dict(one.state_dict())
    assert list(other) == whole[1:]


@pytest.mark.parametrize(
    "make",
    [
        lambda **how: ordered_map(abs, (n for n in range(3)), workers=0),
        lambda **how: ordered_imap(range(9), 0, indices=iter(range(3))),
    ],
)
def test_a_position_beyond_an_order_whose_length_was_not_known_is_an_error(make):
    other = make()
    other.load_state_dict({**make().state_dict(), "position": 9})
    with pytest.raises(CheckpointError, match="the state is of position 9, and there are 3 items"):
        next(other)


def test_a_state_that_is_refused_leaves_nothing():
    iterator = ordered_imap(range(9), 0, shuffle=True)
    before = iterator.state_dict()
    with pytest.raises(CheckpointError, match="length"):
        iterator.load_state_dict({**ordered_imap(range(8), 0, shuffle=True).state_dict()})
    assert iterator.state_dict() == before


@pytest.mark.parametrize("indices", [list(range(10**6)), np.arange(10**6)])
def test_the_end_of_a_long_list_of_indices_is_near(indices):
    for shard in (None, (1, 2), (1, 2, "drop")):
        iterator = ordered_imap(range(10**6), 0, indices=indices, shard=shard)
        iterator.load_state_dict({**iterator.state_dict(), "position": len(iterator) - 1})
        began = time.perf_counter()
        assert next(iterator) in {10**6 - 1, 10**6 - 2}
        assert time.perf_counter() - began < 0.5
        iterator.close()


# Signals


def test_the_state_asked_for_in_a_handler_is_the_state():
    class Dataset(Letters):
        def __len__(self):
            signal.raise_signal(signal.SIGUSR1)
            return 23

    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        iterator = ordered_imap(Dataset(), 0)
        signal.signal(
            signal.SIGUSR1,
            lambda *_: found.append(signal.signal(signal.SIGUSR1, signal.SIG_IGN) and iterator.state_dict()),
        )
        found = []
        assert iterator.state_dict() == found[0]
    finally:
        signal.signal(signal.SIGUSR1, before)


class Interrupt(BaseException):
    pass


@pytest.mark.parametrize(
    ("options", "most"), [({"workers": 0}, 1), ({"backend": "threads", "workers": 2, "prefetch": 128}, 1)]
)
def test_an_interrupted_next_counts_one_item_too_many_at_the_most(options, most):
    """A signal arrives at every line of the window and of its source."""
    offs = set()
    for instant in range(60):
        iterator = ordered_imap(range(1000), **options)
        given = [next(iterator) for _ in range(200)]
        seen = 0

        def trace(frame, event, _):
            nonlocal seen
            if event == "line" and frame.f_code.co_filename.endswith(("window.py", "indices.py")):
                seen += 1
                if seen > instant:
                    sys.settrace(None)
                    raise Interrupt
            return trace

        sys.settrace(trace)
        try:
            while len(given) < 1000:
                given.append(next(iterator))
        except Interrupt:
            pass
        finally:
            sys.settrace(None)
        offs.add(iterator.state_dict()["position"] - len(given))
        iterator.close()
        offs.add(iterator.state_dict()["position"] - len(given))
    assert offs <= {0, most}
