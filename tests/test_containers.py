"""What holds indices, or items, under labels of its own, on a disk or in another memory: read by position, once."""

from __future__ import annotations

import array
import json
import sys
from collections import OrderedDict, deque, namedtuple
from itertools import islice

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ordmap import CheckpointError, ParallelDataset, batches, mapped, ordered_imap, ordered_map, subset

ITEMS = [f"item {n}" for n in range(40)]


def labelled(order):
    """Return labels that are no positions, though they look like some."""
    return [(7 * place + 3) % 40 for place in range(len(order))]


def stored(order):
    """Return an array as it lies in a file: an item can be had by its position, but each takes a read."""

    class Stored:
        reads = 0

        def __len__(self):
            return len(order)

        def __getitem__(self, place):
            raise AssertionError

        def __array__(self, dtype=None, copy=None):
            Stored.reads += 1
            return np.array(order, dtype or np.int64)

    return Stored()


def on_a_device(order):
    """Return a tensor that numpy can't see, as a GPU's."""

    class Tensor:
        __iter__ = None

        def __array__(self, *_):
            raise TypeError("can't convert device tensor to numpy")

        def tolist(self):
            return list(order)

    return Tensor()


#: What holds the indices of a list.
CONTAINERS = {
    "list": list,
    "tuple": tuple,
    "numpy": np.array,
    "numpy of 8 bits": lambda order: np.array(order, np.uint8),
    "numpy of objects": lambda order: np.array(order, object),
    "numpy, every other": lambda order: np.repeat(order, 2)[::2],
    "numpy, a column": lambda order: np.array(order, int).reshape(-1, 1),
    "numpy.memmap": lambda order: np.array(order, int).view(np.memmap),
    "array": lambda order: array.array("i", order),
    "memoryview": lambda order: memoryview(array.array("q", order)),
    "deque": deque,
    "dict's values": lambda order: dict(enumerate(order)).values(),
    "pandas.Series": lambda order: pd.Series(order, index=labelled(order), dtype=int),
    "pandas.Series by text": lambda order: pd.Series(order, index=[f"row {n}" for n in order], dtype=int),
    "pandas.Series of one label": lambda order: pd.Series(order, index=[0] * len(order), dtype=int),
    "pandas.Series, nullable": lambda order: pd.Series(order, index=labelled(order), dtype="Int64"),
    "pandas.Series of arrow": lambda order: pd.Series(order, index=labelled(order), dtype="int64[pyarrow]"),
    "pandas.Index": lambda order: pd.Index(order, dtype=int),
    "pandas.DataFrame's column": lambda order: pd.DataFrame({"row": order}, labelled(order), dtype=int)["row"],
    "pandas.DataFrame of a column": lambda order: pd.DataFrame({"row": order}, labelled(order), dtype=int),
    "pyarrow.Array": lambda order: pa.array(order, pa.int32()),
    "pyarrow.ChunkedArray": lambda order: pa.chunked_array([order[:3], order[3:]], pa.int64()),
    "pyarrow.Table's column": lambda order: pa.table({"row": pa.array(order, pa.int64())})["row"],
    "stored": stored,
    "on a device": on_a_device,
}


def once(order, container):
    """Return a Python list's own dict keys where the indices differ, else the container."""
    return dict.fromkeys(order).keys() if len(set(order)) == len(order) else container


#: An iterator over items in the order of a container, and what it has to give of the order as a list.
VIEWS = {
    "indices": (
        lambda held, **how: ordered_imap(ITEMS, 0, indices=held, **how),
        lambda order: [ITEMS[n] for n in order],
    ),
    "a function": (
        lambda held, **how: ordered_imap(ITEMS, 0, indices=lambda _: held, **how),
        lambda order: [ITEMS[n] for n in order],
    ),
    "subset": (
        lambda held, **how: ordered_imap(subset(ITEMS, held), 0, **how),
        lambda order: [ITEMS[n] for n in order],
    ),
    "batches": (
        lambda held, **how: ordered_imap(batches(subset(ITEMS, held), 3), 0, **how),
        lambda order: [[ITEMS[n] for n in order[place : place + 3]] for place in range(0, len(order), 3)],
    ),
    "mapped": (
        lambda held, **how: ordered_imap(mapped(str.upper, subset(subset(ITEMS, range(39, -1, -1)), held)), 0, **how),
        lambda order: [ITEMS[39 - n].upper() for n in order],
    ),
    "a slice": (
        lambda held, **how: ordered_imap(subset(ITEMS, held)[::-2], 0, **how),
        lambda order: [ITEMS[n] for n in order][::-2],
    ),
}

orders = st.lists(st.integers(0, 39), max_size=12)


@pytest.mark.parametrize("view", VIEWS)
@settings(max_examples=50)
@given(
    orders, st.sampled_from([*CONTAINERS, "dict's keys"]), st.sampled_from([(0, 1), (0, 2), (2, 3, "pad")]), st.data()
)
def test_any_container_gives_the_order_of_its_positions_from_any_position_on(view, order, kind, shard, data):
    def held():
        return once(order, order) if kind == "dict's keys" else CONTAINERS[kind](order)

    make, oracle = VIEWS[view]
    an_epoch = oracle(order)
    rest = shard[2] if len(shard) > 2 else "keep"
    if rest == "pad" and an_epoch:
        an_epoch = [an_epoch[n % len(an_epoch)] for n in range(-(-len(an_epoch) // shard[1]) * shard[1])]
    whole = 2 * an_epoch[shard[0] :: shard[1]]
    iterator = make(held(), epochs=2, shard=shard)
    if view != "a function":
        assert len(iterator) == len(whole)
    cut = data.draw(st.integers(0, len(whole)))
    assert list(islice(iterator, cut)) == whole[:cut]
    state = json.loads(json.dumps(iterator.state_dict()))
    other = make(held(), epochs=2, shard=shard)
    other.load_state_dict(state)
    assert other.state_dict() == state
    assert list(other) == whole[cut:]


@settings(max_examples=50)
@given(orders, orders, st.sampled_from([*CONTAINERS]), st.sampled_from([*CONTAINERS]))
def test_a_state_fits_the_same_order_in_any_container_and_no_other(order, another, first, second):
    for view in ("indices", "subset", "batches"):
        make, oracle = VIEWS[view]
        one = make(CONTAINERS[first](order))
        next(one, None)
        state = one.state_dict()
        same = make(CONTAINERS[second](order))
        same.load_state_dict(state)
        assert list(same) == oracle(order)[1:]
        if another != order:
            with pytest.raises(CheckpointError, match="the state has the"):
                make(CONTAINERS[second](another)).load_state_dict(state)


def test_rows_that_were_shuffled_and_split_keep_their_order():
    table = pd.DataFrame({"row": range(40), "label": [0, 1] * 20})
    shuffled = table["row"].sample(frac=1, random_state=1)
    assert list(subset(ITEMS, shuffled)) == [ITEMS[n] for n in shuffled]
    assert subset(ITEMS, shuffled)[0] == ITEMS[shuffled.iloc[0]]
    chosen = shuffled[table["label"] == 1]
    assert list(ordered_imap(ITEMS, 2, indices=chosen, backend="threads")) == [ITEMS[n] for n in chosen]
    assert list(subset(ITEMS, table.index[table["label"] == 0])) == ITEMS[::2]
    with ParallelDataset(subset(ITEMS, chosen), 2, backend="threads") as parallel:
        assert list(parallel) == [ITEMS[n] for n in chosen]


def test_what_is_read_from_a_disk_is_read_once():
    held = stored([3, 1, 2])
    view = subset(ITEMS, held)
    assert list(view) + [view[0]] == ["item 3", "item 1", "item 2", "item 3"]
    assert type(held).reads == 1
    iterator = ordered_imap(ITEMS, 0, indices=held, epochs=3)
    assert len(iterator) == len(list(iterator)) == 9
    assert type(held).reads == 2


# What is no order


@pytest.mark.parametrize(
    ("indices", "error", "message"),
    [
        ({1, 2}, TypeError, r"a set has no order .* write sorted\(…\)"),
        (frozenset({1, 2}), TypeError, r"a frozenset has no order .* write sorted\(…\)"),
        (dict.fromkeys([1, 2]).items(), TypeError, "a dict_items has no order"),
        ([True, False], TypeError, "not True: of a mask, give the positions"),
        (np.array([True, False]), TypeError, "not True: of a mask, give the positions"),
        (pd.Series([True, False], index=[5, 6]), TypeError, "not True: of a mask, give the positions"),
        (pd.Series([True, None], dtype="boolean"), TypeError, "not True: of a mask, give the positions"),
        (pa.array([False, True]), TypeError, "not False: of a mask, give the positions"),
        (np.array([0.5, 1]), TypeError, "an index must be an integer, not 0.5"),
        (pd.Series([1, None]), TypeError, "an index must be an integer, and that at position 1 is missing"),
        (
            pd.array([0, None, 2], dtype="Int64"),
            TypeError,
            "an index must be an integer, and that at position 1 is missing",
        ),
        (pd.Series([1, None], dtype="Int64"), TypeError, "that at position 1 is missing"),
        (pa.array([1, None]), TypeError, "that at position 1 is missing"),
        (np.ma.array([1, 2], mask=[False, True]), TypeError, "an index must be an integer, not None"),
        (np.where(np.array([False, True])), TypeError, "an index must be an integer, not array"),
        (np.zeros((2, 2), int), TypeError, r"one dimension, and these have the shape \(2, 2\)"),
        (pd.DataFrame({"a": [0], "b": [0]}), TypeError, r"one dimension, and these have the shape \(1, 2\)"),
        (pa.table({"a": [0, 1], "b": [0, 1]}), TypeError, r"one dimension, and these have the shape \(2, 2\)"),
        (np.int64(3), TypeError, "indices must be an iterable of integers"),
        (np.array(3), TypeError, "indices must be an iterable of integers"),
        (pd.Series(["a", "b"]), TypeError, "an index must be an integer, not 'a'"),
        (pd.Series([39, 40]), IndexError, "index 40 is out of range"),
        (np.array([1, -1]), IndexError, "index -1 is negative"),
        (np.array([2**63 + 1], np.uint64), IndexError, "index 9223372036854775809 is out of range"),
        (deque([1, 40]), IndexError, "index 40 is out of range"),
    ],
)
def test_what_gives_no_order_is_refused_everywhere(indices, error, message):
    with pytest.raises(error, match=message):
        ordered_imap(ITEMS, 0, indices=indices)
    with pytest.raises(error, match=message):
        subset(ITEMS, indices)
    with pytest.raises(error, match=message):
        list(ordered_imap(ITEMS, 0, indices=lambda _: indices))


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (pa.table({"a": [1, 2], "b": [3, 4]}), "a Table gives columns, not rows, by number: write mapped"),
        (pa.record_batch({"a": [1, 2]}), "a RecordBatch gives columns, not rows"),
        (pd.DataFrame({"a": [1, 2]}), "is had by label"),
        (pd.DataFrame([[1, 2], [1, 3]]), "is had by label"),
        (pd.Series([1, 2], index=[1, 0]), "is had by label"),
        (pd.DataFrame([[1, 2], [1, 3]]).groupby(0), "is had by column"),
        ({0: "a", 1: "b"}, "is not had by index"),
    ],
)
def test_a_dataset_whose_items_are_not_its_rows_is_refused_everywhere(dataset, message):
    for call in (
        lambda: ordered_imap(dataset, 0),
        lambda: ParallelDataset(dataset, 0),
        lambda: mapped(str, dataset),
        lambda: subset(dataset, [0]),
        lambda: batches(dataset, 2),
    ):
        with pytest.raises(TypeError, match=message):
            call()


def test_what_the_refusal_of_a_table_says_gives_its_rows():
    table = pa.table({"a": [1, 2, 3], "b": ["x", "y", "z"]})
    rows = mapped(lambda i: table.slice(i, 1), range(len(table)))
    assert [row.to_pylist() for row in ordered_imap(rows, 2, backend="threads")] == [[row] for row in table.to_pylist()]
    found = list(ordered_map(lambda batch: batch.num_rows, table.to_batches(max_chunksize=2), workers=0))
    assert found == [2, 1]


def test_positions_of_an_index_and_of_an_array_are_items():
    assert list(ordered_imap(pd.Index([5, 6, 7]), 0)) == [5, 6, 7]
    assert [one.as_py() for one in ordered_imap(pa.array([5, 6]), 0)] == [5, 6]
    assert list(ordered_imap(deque([5, 6]), 0)) == [5, 6]


# Batches of numbers


def test_numbers_are_stacked_whoever_made_them():
    def batch(*items):
        return batches(items, len(items))[0]

    for items, kind in [
        ((1, np.int64(2)), np.int64),
        ((np.int64(1), 2, 3), np.int64),
        ((1, np.int8(2)), np.int64),
        ((np.int8(1), np.int16(300)), np.int16),
        ((1.5, np.float32(2)), np.float64),
        ((np.float32(1), np.float32(2)), np.float32),
        ((True, np.bool_(False)), np.bool_),
        ((True, np.int32(2)), np.int32),
        ((1, np.float64(2.5)), np.float64),
        ((np.complex64(1), 2.0), np.complex128),
    ]:
        found = batch(*items)
        assert found.dtype == kind
        assert found.tolist() == list(items)
    assert batch((1, "a"), (np.int64(2), "b"))[0].tolist() == [1, 2]
    assert batch({"label": 1}, OrderedDict(label=np.int32(2)))["label"].tolist() == [1, 2]
    assert batch(np.zeros(2).view(np.memmap), np.ones(2)).tolist() == [[0, 0], [1, 1]]
    half = batch(np.ma.array([1, 2], mask=[True, False]), np.array([3, 4]))
    assert half.mask.tolist() == [[True, False], [False, False]]
    assert batch(2**63, np.int64(1)) == [2**63, 1]
    assert batch(np.uint64(2**63), np.int64(1)) == [2**63, 1]
    assert batch(1, "a", np.int64(2)) == [1, "a", 2]
    assert batch(1, np.str_("a")) == [1, "a"]
    assert batch(np.zeros(2), 1)[1] == 1
    one, other = namedtuple("One", "a"), namedtuple("Other", "a")
    assert batch(one(1), other(2)) == [one(1), other(2)]


# More items than `len()` can say


@pytest.mark.parametrize(
    ("items", "backend"),
    [*((items, "serial") for items in (2**63 - 1, 2**63, 2**64, 2**70)), (2**63, "processes"), (2**70, "threads")],
)
def test_a_range_beyond_what_len_can_say(items, backend):
    def made(**how):
        return ordered_imap(range(items), backend=backend, **how)

    def numbers(iterator, most):
        with iterator:
            return list(islice(iterator, most))

    iterator = made()
    assert len(iterator) == iterator.__length_hint__() == min(items, sys.maxsize)
    assert numbers(iterator, 3) == [0, 1, 2]
    state = {**json.loads(json.dumps(iterator.state_dict())), "position": items - 2}
    assert state["length"] == items
    other = made()
    other.load_state_dict(state)
    assert len(other) == 2
    assert list(other) == [items - 2, items - 1]
    assert numbers(made(indices=range(items - 1, -1, -2)), 2) == [items - 1, items - 3]
    assert numbers(made(shard=(1, 3)), 2) == [1, 4]
    assert numbers(made(indices=[items - 1, 0]), 2) == [items - 1, 0]
    if backend == "serial":
        assert numbers(ordered_imap(batches(range(items), 2, collate=list), 0), 2) == [[0, 1], [2, 3]]
        assert numbers(ordered_imap(subset(range(items), range(0, items, 2)), 0), 2) == [0, 2]
    mapping = ordered_map(abs, range(items), backend=backend)
    assert len(mapping) == min(items, sys.maxsize)
    assert numbers(mapping, 2) == [0, 1]
    assert mapping.state_dict()["lengths"] == [items]
    if items > 2**64:
        with pytest.raises(ValueError, match=r"a shuffle is of 2\*\*64 items at most"):
            made(shuffle=True, seed=1)
    else:
        found = numbers(made(shuffle=True, seed=1), 300)
        assert len(set(found)) == 300
        assert 0 <= min(found) <= max(found) < items
