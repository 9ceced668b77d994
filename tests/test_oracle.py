"""The oracle is `map`: whatever the settings, the outcomes are the serial ones."""

from __future__ import annotations

import time

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ordmap import Processes, Threads, ordered_imap, ordered_map
from ordmap.testing import outcomes


class Moody:
    """A dataset with items that fail and items that take their time."""

    def __init__(self, length, failing, slow):
        self.length, self.failing, self.slow = length, failing, slow

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        if index in self.slow:
            time.sleep(0.002)
        if index in self.failing:
            raise LookupError(index)
        return [index, str(index)]


def serial(dataset, order):
    found = []
    for index in order:
        try:
            found.append(dataset[index])
        except LookupError as error:
            found.append(error)
    return found


def comparable(found):
    return [(type(x), x.args) if isinstance(x, Exception) else x for x in found]


@st.composite
def runs(draw):
    length = draw(st.integers(0, 60))
    some = st.sets(st.integers(0, max(length - 1, 0)), max_size=6)
    dataset = Moody(length, draw(some), draw(some))
    epochs = draw(st.integers(0, 3))
    order = draw(st.none() | st.lists(st.integers(0, length - 1), max_size=40)) if length else None
    kind = draw(st.sampled_from(["list", "function", "generator"]))
    epoch_order = list(range(length)) if order is None else order
    indices = None
    if order is not None:
        if kind == "generator":
            epochs = 1
        indices = {"list": order, "function": lambda _: iter(order), "generator": (i for i in order)}[kind]
    prefetch = draw(st.none() | st.integers(1, 20))
    chunksize = draw(st.none() | st.integers(1, prefetch or 30))
    return dataset, epoch_order * epochs, {
        "epochs": epochs, "indices": indices, "prefetch": prefetch, "chunksize": chunksize
    }  # fmt: skip


@given(runs(), st.integers(1, 6))
@settings(max_examples=150)
def test_threads(run, workers):
    dataset, order, options = run
    found = outcomes(ordered_imap(dataset, backend=Threads(workers), **options))
    assert comparable(found) == comparable(serial(dataset, order))


@given(runs())
@settings(max_examples=100)
def test_serial(run):
    dataset, order, options = run
    found = outcomes(ordered_imap(dataset, backend="serial", **options))
    assert comparable(found) == comparable(serial(dataset, order))


@pytest.fixture(params=[1, 3])
def pool(request):
    with Processes(request.param) as pool:
        yield pool


@given(run=runs())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_processes(run, pool):
    dataset, order, options = run
    found = outcomes(ordered_imap(dataset, backend=pool, **options))
    assert comparable(found) == comparable(serial(dataset, order))


@given(st.lists(st.integers() | st.text() | st.none(), max_size=60), st.integers(1, 9), st.none() | st.integers(1, 9))
@example(list(range(50)), 9, 3)
def test_a_stream(inputs, prefetch, chunksize):
    chunksize = None if chunksize is None else min(chunksize, prefetch)
    found = ordered_map(repr, iter(inputs), workers=2, prefetch=prefetch, chunksize=chunksize, backend="threads")
    assert list(found) == list(map(repr, inputs))
