"""Small results that are pickled one by one and opened together: each as it was when its item ended, each its own."""

from __future__ import annotations

import collections
import copyreg
import dataclasses
import datetime
import decimal
import enum
import pickle
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ordmap import Processes, RemoteError, ordered_map
from ordmap.rows import RowWriter, opened_alone, opened_together


@dataclasses.dataclass
class Point:
    x: int
    name: str = "name"
    more: object = None


@dataclasses.dataclass(frozen=True, slots=True)
class Slotted:
    x: int
    y: tuple[int, ...] = ()


class Colour(enum.Enum):
    RED = 1
    BLUE = "b"


class Outer:
    class Inner:
        def __init__(self, x):
            self.x = x

        def __eq__(self, other):
            return type(other) is type(self) and other.x == self.x

        __hash__ = None

    def __init__(self, x):
        self.x = x


Pair = collections.namedtuple("Pair", "x y")


class WithArguments:
    def __new__(cls, *, x):
        made = super().__new__(cls)
        made.x = x
        return made

    def __getnewargs_ex__(self):
        return (), {"x": self.x}

    def __eq__(self, other):
        return self.x == other.x

    __hash__ = None


class OnlyNew:
    """Refuses old protocols."""

    def __init__(self, x):
        self.x = x

    def __reduce_ex__(self, protocol):
        if protocol < 5:
            raise NotImplementedError("protocol 5 or none")
        return OnlyNew, (self.x,)

    def __eq__(self, other):
        return self.x == other.x

    __hash__ = None


class Registered:
    def __init__(self, x):
        self.x = x

    def __eq__(self, other):
        return self.x == other.x

    __hash__ = None


copyreg.pickle(Registered, lambda one: (Registered, (one.x,)))


class Bad(ValueError):
    pass


def refuse(x):
    raise Bad(x)


class Unopenable:
    def __init__(self, x):
        self.x = x

    def __reduce__(self):
        return refuse, (self.x,)


def travelled(results, rounds=4):
    """Send results as rows, some times, so that a primer is found; return what comes of the last."""
    writer = RowWriter()
    for _ in range(rounds):
        writer.begin(1, 100)
        row = [writer.add(result) for result in results]
    together = opened_together(writer.primer, row)
    assert len(together) == len(results)
    for data, one in zip(row, together, strict=True):
        assert type(opened_alone(writer.primer, data)) is type(one)
    return together


KINDS = {
    "dataclass": Point,
    "nested dataclass": lambda x: Point(x, "other", [Point(x), {"a": Point}]),
    "slots": Slotted,
    "enum": lambda x: {Colour.RED: x, x: Colour.BLUE, "class": Colour},
    "inner class": Outer.Inner,
    "namedtuple": lambda x: Pair(x, [x]),
    "dict": lambda x: {"id": x, "tags": ["a", "b"], "text": "ä\udc80", "long": 1 << 100},
    "sets": lambda x: [{x, 1}, frozenset((x, 2)), bytearray(b"12"), b"34", 1.5, None, True, ..., range(x)],
    "datetimes": lambda x: [(datetime.datetime(2020, 1, 1), decimal.Decimal(x))] * 20,
    "fold": lambda x: datetime.datetime(2020, 10, 25, 2, 30, fold=x & 1),
    "time zone": lambda x: datetime.datetime(2020, 1, 1, x, tzinfo=datetime.UTC),
    "keyword arguments of __new__": lambda x: WithArguments(x=x),
    "copyreg": Registered,
    "functions": lambda x: [len, refuse, Outer, dict.fromkeys, x],
    "defaultdict": lambda x: collections.defaultdict(list, a=[x]),
    "deep": lambda x: [[[[[[[[[[[[[[[[[[[[x]]]]]]]]]]]]]]]]]]]],
    "more than 255 objects": lambda x: [[f"{x} {n}"] for n in range(300)],
}


@pytest.mark.parametrize("kind", KINDS)
def test_results_of_a_row_are_what_they_were(kind):
    results = [KINDS[kind](x) for x in range(20)]
    assert travelled(results) == results


def test_datetimes_keep_their_fold():
    moments = [datetime.datetime(2020, 10, 25, 2, 30, fold=x & 1) for x in range(6)]
    assert [one.fold for one in travelled(moments)] == [0, 1, 0, 1, 0, 1]


@pytest.mark.parametrize("dtype", ["f4", ">f4", "i2,U3", "M8[s]", "O", "?", "c16"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_a_row(dtype, order):
    arrays = [np.ones((3, 4), dtype, order=order) for _ in range(5)] + [np.zeros((), dtype)]
    came = travelled(arrays)
    for one, other in zip(came, arrays, strict=True):
        assert one.dtype == other.dtype
        assert one.flags.writeable
        assert np.isfortran(one) == np.isfortran(other)
        np.testing.assert_array_equal(one, other)


def test_arrays_that_may_not_be_written_to_come_back_so():
    frozen = np.arange(6.0).reshape(2, 3)
    frozen.flags.writeable = False
    broadcast = np.broadcast_arrays(np.ones(1), np.ones(4))[0]  # calls itself writeable, and warns
    for one, other in zip(travelled([frozen, broadcast, frozen.T, frozen.astype(">f4")]), range(4), strict=True):
        assert one.flags.writeable == (other == 3)


TREES = st.recursive(
    st.one_of(st.none(), st.integers(), st.floats(allow_nan=False), st.text(), st.binary(), st.sampled_from(Colour)),
    lambda one: st.one_of(
        st.lists(one, max_size=4),
        st.tuples(one, one),
        st.dictionaries(st.text(max_size=3), one, max_size=3),
        st.builds(Point, st.integers(), st.text(), one),
    ),
    max_leaves=12,
)


@settings(max_examples=40)
@given(st.lists(TREES, min_size=1, max_size=12))
def test_any_row(results):
    assert travelled(results) == results


def test_identity_within_a_result_stays_and_none_is_between_results():
    shared = ["constant"]
    ring = []
    ring.append(ring)
    results = [Point(x, more=[shared, shared]) for x in range(8)] + [ring]
    came = travelled(results)
    *points, circle = came
    assert all(one.more[0] is one.more[1] for one in points)
    assert len({id(one.more[0]) for one in points}) == len(points)
    assert circle[0] is circle


def test_a_primer_has_only_what_can_not_change():
    mutable, text = ["shared"], "a text"
    writer = RowWriter()
    for _ in range(4):
        writer.begin(1, 8)
        for x in range(8):
            writer.add({"mutable": mutable, "moment": datetime.UTC, text: Point(x), "array": np.ones(2)})
    common = pickle.loads(writer.primer.removesuffix(b"0") + b".")
    assert Point in common
    assert text in common
    assert np.dtype(float) in common
    assert mutable not in common
    # … and it stays as it is, though what it has is pickled with strings of its own.
    before = writer.primer
    for _ in range(20):
        writer.begin(1, 8)
        for x in range(8):
            writer.add({"mutable": mutable, "moment": datetime.UTC, text: Point(x), "array": np.ones(2)})
    assert writer.primer == before


def test_a_primer_of_many_things_begins_anew():
    writer = RowWriter()
    for chunk in range(300):
        writer.begin(1, 8)
        words = [f"{chunk} {n}" for n in range(30)]
        row = [writer.add(words) for _ in range(8)]
        assert opened_together(writer.primer, row) == [words] * 8
    assert len(writer.primer) < 100_000


def test_a_writer_keeps_no_result():
    import weakref

    writer = RowWriter()
    writer.begin(1, 8)
    for x in range(8):
        point = Point(x, more=[x])
        gone = weakref.ref(point)
        writer.add(point)
        del point
        assert gone() is None
    failing = threading.Thread()  # can't be pickled
    gone = weakref.ref(failing)
    assert writer.add([failing]) is None
    del failing
    assert gone() is None


def test_what_is_large_or_can_not_be_reduced_goes_another_way_for_ever_longer():
    writer = RowWriter()
    tried = 0
    for _ in range(500):
        writer.begin(1, 8)
        if writer.on:
            tried += 1
            assert writer.add(b"x" * 200_000) is None
            assert not writer.on
    assert 6 < tried < 16


def same_buffer_again(buffer=[0, []]):  # noqa: B006
    def fill(x):
        buffer[0] = x
        buffer[1][:] = [x] * (x % 3)
        return buffer

    return fill


def same_array_again():
    array = np.zeros(16)

    def fill(x):
        array[:] = x
        return {"x": x, "array": array}

    return fill


def same_point_again():
    point = Point(0, more={"deep": [0]})

    def fill(x):
        point.x = x
        point.more["deep"][0] = x
        return [point, point]

    return fill


@pytest.mark.parametrize(
    ("fill", "backend"),
    [
        (same_buffer_again, "processes"),
        (same_array_again, "processes"),
        (same_point_again, "processes"),
        (same_point_again, "spawn"),
    ],
)
def test_what_an_item_returns_is_seen_as_it_was_then(fill, backend):
    expected = [pickle.loads(pickle.dumps(one)) for one in map(fill(), range(200))]
    came = list(ordered_map(fill(), range(200), workers=2, backend=backend, chunksize=50))
    assert str(came) == str(expected)


def mixed(x):
    """All ways that a result can go, by turns."""
    return [
        x,
        "text",
        (x, 1.5, None),
        (x, "text"),
        {"x": x},
        b"bytes",
        Point(x),
        np.full(1_000, x),
        b"x" * 100_000,
        OnlyNew(x),
        Colour.RED,
        lambda: x,
        None,
        np.full(50_000, x),
        "t" * 5_000,
        (),
    ][x * 7 % 16]


@pytest.mark.parametrize("chunksize", [None, 1, 4, 100])
def test_results_of_all_kinds_in_one_chunk(chunksize):
    came = list(ordered_map(mixed, range(400), workers=2, chunksize=chunksize, prefetch=400))
    for one, other in zip(came, map(mixed, range(400)), strict=True):
        if callable(one) and not isinstance(one, type):
            assert one() == other()
        elif isinstance(one, np.ndarray):
            np.testing.assert_array_equal(one, other)
        else:
            assert type(one) is type(other)
            assert one == other


def some_unopenable(x):
    if x % 10 == 3:
        return Unopenable(x)
    if x % 10 == 7:
        raise Bad(x)
    if x % 10 == 8:
        return Point(x, more=threading.Lock())
    return Point(x)


@pytest.mark.parametrize("retries", [0, 1])
def test_one_of_a_row_that_can_not_be_opened_costs_itself(retries):
    items = ordered_map(some_unopenable, range(100), workers=2, chunksize=25, on_error="return", retries=retries)
    for x, one in enumerate(items):
        if x % 10 in (3, 8):
            assert type(one.error) is RemoteError
            assert one.index == x
            assert one.attempts == 1 + retries
        elif x % 10 == 7:
            assert type(one.error) is Bad
        else:
            assert one == Point(x)


def named(x):
    return Slotted(x)


def test_runs_that_follow_each_other_on_one_pool():
    with Processes(2) as pool:
        for fn in (Point, named, mixed, Point):
            came = list(ordered_map(fn, range(64), backend=pool, chunksize=16))
            assert len(came) == 64
            assert [one.x for one in came if type(one) is Slotted] == (list(range(64)) if fn is named else [])


def test_a_tuple_of_numbers_is_sent_as_it_is():
    came = list(ordered_map(lambda x: (x, x / 2, None, True, 1j), range(100), workers=2, chunksize=10))
    assert came == [(x, x / 2, None, True, 1j) for x in range(100)]


class SlowToPickle:
    def __init__(self, x):
        self.x = x

    def __reduce__(self):
        time.sleep(0.4)
        return SlowToPickle, (self.x,)


def test_to_pickle_a_result_is_no_part_of_its_time():
    came = list(ordered_map(SlowToPickle, range(4), workers=1, chunksize=4, item_timeout=0.3))
    assert [one.x for one in came] == list(range(4))
