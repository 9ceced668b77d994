"""The order of an epoch: a permutation that needs no memory, and its shards."""

from __future__ import annotations

import hashlib
import itertools
import math
import random
import struct
import time
import tracemalloc
from collections import Counter, deque

import numpy as np
import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ordmap import Processes, Spawn, Threads, ordered_imap
from ordmap import shuffle as module
from ordmap.indices import Indices, Shard
from ordmap.shuffle import Permutation


def listed(length, *key):
    return list(Permutation(length, *key).at(range(length)))


def taken(source, most=7):
    """Return what a source gives, in chunks of so many, with the epoch of each item."""
    found = []
    while (chunk := source.take(most)) is not None:
        found += [(chunk.label.epoch, index) for index in chunk.indices]
    return found


# The permutation


def test_it_is_a_permutation_of_every_small_length():
    for length in range(5001):
        assert sorted(listed(length, 3, length)) == list(range(length))


@given(st.integers(5000, 200_000), st.integers(), st.integers(0, 10**6))
def test_it_is_a_permutation_of_greater_lengths(length, seed, epoch):
    found = bytearray(length)
    for index in listed(length, seed, epoch):
        found[index] += 1
    assert found == b"\1" * length


@given(st.integers(4097, 10**12), st.integers(), st.data())
def test_whatever_is_asked_for_in_whichever_steps_is_the_same(length, seed, data):
    permutation, fresh = Permutation(length, seed, 0), {}
    start = data.draw(st.integers(0, length - 1))
    for _ in range(5):
        step = data.draw(st.integers(1, 10))
        positions = range(start, min(length, start + step * data.draw(st.integers(1, 700))), step)
        found = permutation.at(positions)
        assert len(set(found)) == len(positions)
        assert all(0 <= index < length for index in found)
        for position in {positions[0], positions[len(positions) // 2], positions[-1]}:
            fresh[position] = Permutation(length, seed, 0).at(range(position, position + 1))[0]
            assert found[positions.index(position)] == fresh[position]
        start = positions.stop if positions.stop < length and data.draw(st.booleans()) else start


#: Of the first 10,000 items: they may never change, or nobody could go on where he was.
DIGESTS = {
    (0, 0, 0): "e3b0c44298fc1c14",
    (10, 0, 0): "b04557edc533d1d9",
    (4096, 1, 2): "c9e3a80ee26f6b92",
    (4097, 1, 2): "2f9c06db16d96958",
    (10_000, -5, 0): "22c24ad17ec52e54",
    (1_000_000, 2**70, 3): "1ebcd3fa9459154b",
    (10**9, 42, 7): "82065653cccf68a5",
    (10**12, 42, 7): "49b5b7f2687af185",
    (2**63 - 1, 42, 7): "a0b335a1fb3703b2",
}


@pytest.mark.parametrize("key", DIGESTS)
def test_it_is_the_same_for_ever(key):
    length, *rest = key
    first = Permutation(length, *rest).at(range(min(length, 10_000)))
    assert hashlib.sha256(struct.pack(f"<{len(first)}Q", *first)).hexdigest()[:16] == DIGESTS[key]


# Whether it looks like one of all that there are


def chi_square(counts, cells):
    """Return how far counts that should be equal are from that, in standard deviations."""
    expected = sum(counts.values()) / cells
    found = sum((counts[cell] - expected) ** 2 / expected for cell in range(cells))
    return (found - cells) / math.sqrt(2 * cells)


def oddities(orders, length):
    """Return, of some orders of so many items, how odd each of several things about them is, in standard deviations."""
    places, pairs, steps, ends, falls, fixed, seen = Counter(), Counter(), Counter(), Counter(), 0, 0, 0
    for order in orders:
        seen += 1
        tens = [10 * index // length for index in order]
        places.update(20 * position // length * 10 + ten for position, ten in enumerate(tens))
        pairs.update(one * 10 + other for one, other in zip(tens, tens[1:], strict=False))
        steps.update((other - one) % length * 64 // length for one, other in zip(order, order[1:], strict=False))
        ends.update(one % 8 * 8 + other % 8 for one, other in zip(order, order[1:], strict=False))
        falls += sum(one > other for one, other in zip(order, order[1:], strict=False))
        fixed += sum(position == index for position, index in enumerate(order))
    return {
        "an item's place": chi_square(places, 200),
        "who follows whom": chi_square(pairs, 100),
        "how far it is to the next": chi_square(steps, 64),
        "the last bits of neighbours": chi_square(ends, 64),
        "falls": (falls - seen * (length - 1) / 2) / math.sqrt(seen * (length + 1) / 12),
        "items in their own place": (fixed - seen) / math.sqrt(seen),
    }


def real(length):
    order = list(range(length))
    random.shuffle(order)
    return order


# An order drawn at random is more than five standard deviations off once in millions.


@pytest.mark.parametrize("length", [1000, 5000, 8192, 8193, 20_000])
def test_it_looks_like_a_real_one(length):
    assert all(abs(odd) < 5 for odd in oddities((listed(length, 1, epoch) for epoch in range(40)), length).values())
    assert all(abs(odd) < 5 for odd in oddities((real(length) for _ in range(10)), length).values())


def test_one_whose_network_has_too_few_rounds_does_not(monkeypatch):
    monkeypatch.setattr(module, "_ROUNDS", 2)
    found = oddities((listed(8192, 1, epoch) for epoch in range(40)), 8192)
    assert any(abs(odd) > 10 for odd in found.values())


@pytest.mark.parametrize("length", [1000, 100_000])
@pytest.mark.parametrize(
    "keys", [[(n, 0) for n in range(5000)], [(0, n) for n in range(5000)]], ids=["seeds", "epochs"]
)
def test_a_place_has_any_item_in_the_many_orders_that_there_are(length, keys):
    at = length // 3
    there = Counter(Permutation(length, *key).at(range(at, at + 1))[0] * 50 // length for key in keys)
    assert abs(chi_square(there, 50)) < 5


def test_the_orders_of_two_epochs_have_nothing_to_do_with_each_other():
    length = 200_000
    pairs = Counter(
        one * 20 // length * 20 + other * 20 // length
        for one, other in zip(listed(length, 1, 0), listed(length, 1, 1), strict=True)
    )
    assert abs(chi_square(pairs, 400)) < 5


def test_a_billion_items_need_neither_time_nor_memory():
    tracemalloc.start()
    try:
        indices = Indices(range(10**9), 1, None, 42)
        began = time.perf_counter()
        assert len(indices.take(1000)) == 1000
        elapsed = time.perf_counter() - began
        for _ in range(100):
            indices.take(100)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000
    assert elapsed < 1  # far from the minutes that a list takes


# Shards


lengths, worlds = st.integers(0, 60), st.integers(1, 9)


@given(st.one_of(lengths, st.integers(4090, 4200)), worlds, st.integers(0, 3), st.none() | st.integers(), st.data())
def test_the_shards_of_each_epoch_are_the_epoch(length, world, epochs, seed, data):
    def shard(rest, rank):
        source = Indices(range(length), epochs, None, seed, Shard(rank, world, rest))
        remaining = source.remaining()
        found = taken(source, data.draw(st.sampled_from([1, 7, 500])) if length < 100 else 500)
        assert remaining == len(found)
        return found

    whole = taken(Indices(range(length), epochs, None, seed), 500)
    kept, dropped, padded = ([shard(rest, rank) for rank in range(world)] for rest in ("keep", "drop", "pad"))
    for epoch in range(epochs):
        order = [index for number, index in whole if number == epoch]
        assert sorted(order) == list(range(length))

        def dealt(shards, epoch=epoch):
            of_epoch = [[index for number, index in one if number == epoch] for one in shards]
            return [one[turn] for turn in range(max(map(len, of_epoch))) for one in of_epoch if turn < len(one)]

        assert dealt(kept) == order
        assert dealt(dropped) == order[: length - length % world]
        assert dealt(padded) == [order[place % length] for place in range(-(-length // world) * world)]
    assert len({len(one) for one in dropped}) == len({len(one) for one in padded}) == 1


@given(st.integers(0, 40), worlds, st.data())
@pytest.mark.parametrize("of", [list, tuple, range, lambda order: lambda _: list(order), lambda order: Sampler(order)])
def test_shards_of_other_orders(of, length, world, data):
    order = range(3, 3 + length) if of is range else data.draw(st.permutations(range(3, 3 + length)))
    indices = order if of is range else of(order)

    def shards(rest):
        sources = [Indices(range(50), 1, indices, None, Shard(rank, world, rest)) for rank in range(world)]
        return [[index for _, index in taken(source)] for source in sources]

    assert shards("keep") == [list(order[rank::world]) for rank in range(world)]
    assert shards("drop") == [list(order[: length - length % world][rank::world]) for rank in range(world)]
    turns = [order[place % length] for place in range(-(-length // world) * world)]
    assert shards("pad") == [turns[rank::world] for rank in range(world)]


class Sampler:
    """As those of PyTorch: it has a length, and no more."""

    def __init__(self, order):
        self.order = order

    def __iter__(self):
        return iter(self.order)

    def __len__(self):
        return len(self.order)


@pytest.mark.parametrize("rest", ["keep", "drop", "pad"])
def test_an_order_is_had_as_it_is_iterated_over_whatever_its_keys(rest):
    labelled = pandas.Series([5, 6, 7, 8], index=[3, 2, 1, 0])
    for order in (labelled, lambda _: deque([5, 6, 7, 8]), lambda _: dict.fromkeys([5, 6, 7, 8]), np.arange(5, 9)):
        found = [list(ordered_imap(range(9), 0, indices=order, shard=(rank, 2, rest))) for rank in range(2)]
        assert found == [[5, 7], [6, 8]]


@pytest.mark.parametrize("shard", [None, (1, 3)])
def test_a_generator_of_indices_is_closed_with_the_iterator(shard):
    def endless():
        try:
            yield from itertools.cycle(range(9))
        finally:
            ended.append(True)

    ended = []
    with ordered_imap(range(9), 2, backend="threads", indices=endless(), shard=shard) as iterator:
        next(iterator)
        assert not ended
    assert ended == [True]


def test_a_shard_of_an_order_without_a_length():
    endless = iter(range(0, 10**9, 2))
    assert [index for _, index in zip(range(4), ordered_imap(range(10**9), 0, indices=endless, shard=(1, 3)), strict=False)] == [2, 8, 14, 20]  # fmt: skip
    with pytest.raises(TypeError, match=r"no length: give a list, or shard=\(1, 3, 'keep'\)"):
        list(ordered_imap(range(9), 0, indices=lambda _: iter(range(9)), shard=(1, 3, "drop")))


# The calls


@pytest.mark.parametrize("backend", ["serial", Threads(3), Processes(2), Spawn(2)])
@pytest.mark.parametrize("chunksize", [None, 1, 3])
def test_every_backend_gives_the_same_order(backend, chunksize):
    def found(backend, chunksize, **more):
        options = {"epochs": 2, "shuffle": True, "seed": 5, "prefetch": 6, **more}
        return list(ordered_imap(range(100, 150), backend=backend, chunksize=chunksize, **options))

    expected = [100 + index for epoch in range(2) for index in Permutation(50, 5, epoch).at(range(50))]
    assert found(backend, chunksize) == expected
    assert expected[:50] != expected[50:]
    assert found(backend, chunksize, shard=(1, 2)) == expected[1:50:2] + expected[51::2]


def test_without_a_seed_each_loop_has_another_order():
    orders = {tuple(ordered_imap(range(30), 0, shuffle=True)) for _ in range(20)}
    assert len(orders) == 20
    assert all(sorted(order) == list(range(30)) for order in orders)


def test_an_iterator_knows_how_many_items_its_shard_has():
    assert len(ordered_imap(range(10), 0, epochs=3, shuffle=True, seed=1, shard=(0, 4))) == 9
    assert len(ordered_imap(range(10), 0, epochs=3, shard=(3, 4))) == 6
    assert len(ordered_imap(range(10), 0, indices=[5, 6, 7], shard=(0, 2))) == 2


def test_an_error_names_the_index_and_not_the_place():
    def fail(index):
        raise LookupError(index)

    class Dataset:
        def __len__(self):
            return 50

        def __getitem__(self, index):
            return fail(index) if index == 17 else index

    results = ordered_imap(Dataset(), 2, shuffle=True, seed=1)
    with pytest.raises(LookupError) as raised:
        list(results)
    assert raised.value.__notes__[0].startswith("ordmap: item 17, epoch 0")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"shuffle": 42}, TypeError, "shuffle must be True or False, not 42; the seed of the shuffle is seed="),
        ({"shuffle": True, "seed": 1.5}, TypeError, "seed must be a whole number or None, not 1.5"),
        ({"shuffle": True, "seed": True}, TypeError, "seed must be a whole number or None, not True"),
        ({"shuffle": True, "indices": [1, 2]}, ValueError, "indices are an order already"),
        ({"shuffle": True, "shard": (0, 2)}, ValueError, "need one seed, the same for all ranks: write seed="),
        ({"shard": 3}, TypeError, "shard must be a pair of whole numbers or None, not 3; write shard=.rank, world."),
        ({"shard": (1,)}, TypeError, "shard must be a pair"),
        ({"shard": ("0", 2)}, TypeError, "the rank of shard must be a whole number, not '0'"),
        ({"shard": (0, 0)}, ValueError, "the world of shard=0: it must be at least 1"),
        ({"shard": (-1, 2)}, ValueError, "the rank of shard=-1: it must be at least 0"),
        ({"shard": (2, 2)}, ValueError, "the ranks of 2 shards are 0 to 1"),
        ({"shard": (0, 2, "cut")}, ValueError, "'drop', 'pad' or 'keep', not 'cut'"),
        ({"shard": (8, 9), "epochs": None}, ValueError, "of so few items is empty, and with epochs=None"),
        ({"shard": (1, 2), "epochs": None, "indices": [0]}, ValueError, "of so few items is empty"),
        ({"shard": (0, 2, np.arange(2))}, ValueError, "'drop', 'pad' or 'keep', not array"),
        ({"shard": (0, 2, "pad"), "indices": iter([1])}, TypeError, "no length: give a list, or shard="),
        ({"shuffle": True, "seed": np.array([3])}, TypeError, "seed must be a whole number or None, not array"),
        ({"shuffle": True, "seed": 10**5000}, ValueError, "seed has 16,610 bits: it may have 1,024"),
    ],
)
def test_refuses(options, error, message):
    with pytest.raises(error, match=message):
        ordered_imap(range(5), **options)
