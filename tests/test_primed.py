"""Small inputs that are pickled one by one and opened together: each as it was when it was pulled, each its own."""

from __future__ import annotations

import collections
import copyreg
import dataclasses
import datetime
import gc
import os
import pickle
import sys
import types
import weakref
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ordmap import Failure, Processes, WorkerDiedError, item_rng, ordered_map, worker_info
from ordmap.changes import changes
from ordmap.engine.primed import InputRows, Primed, Row, row_of
from ordmap.reducers.instances import reducer_of
from ordmap.vocabulary import Vocabulary


@dataclasses.dataclass
class Point:
    x: int
    name: str = "name"
    more: object = None


class Plain:
    def __init__(self, **attributes):
        self.__dict__.update(attributes)

    def __eq__(self, other):
        return type(self) is type(other) and vars(self) == vars(other)

    __hash__ = None


class Unopened:
    """Can't be unpickled, in a way of its own."""

    def __init__(self, way):
        self.way = way

    def __setstate__(self, state):
        if state["way"] == "raises":
            raise ValueError("not to be opened")
        if state["way"] == "exits":
            raise SystemExit(3)
        if state["way"] == "dies":
            os._exit(7)
        self.__dict__.update(state)

    def __eq__(self, other):
        return type(self) is type(other) and self.way == other.way

    __hash__ = None


def same(one):
    return one


def number_of(one):
    return one.x


@pytest.fixture
def pool():
    with Processes(2) as pool:
        yield pool


def each(pool, inputs, function=same, **more):
    return list(ordered_map(function, inputs, backend=pool, **more))


KINDS = {
    "dataclasses": lambda i: Point(i, str(i), [i]),
    "dates": lambda i: (datetime.datetime(2020, 1, 1, fold=i % 2), [i]),
    "lists": lambda i: [i, "text", None, b"bytes"],
    "dicts": lambda i: {"a": i, "b": {"c": [1.5] * (i % 7)}},
    "sets": lambda i: {i, i + 1},
    "fractions": lambda i: [Fraction(i, 7)],
    "ordered": lambda i: collections.OrderedDict(a=i, b=[i]),
    "classes": lambda i: [Point, int, dict, i],
    "functions": lambda i: [same, len, i],
    "byte arrays": lambda i: bytearray(b"%d" % i),
    "namespaces": lambda i: types.SimpleNamespace(x=i, y=[i]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_inputs_come_as_they_were_pulled(pool, kind):
    make = KINDS[kind]
    assert each(pool, (make(i) for i in range(700))) == [make(i) for i in range(700)]


@pytest.mark.parametrize(
    "array",
    [
        np.arange(40.0),
        np.zeros(0),
        np.float32(3) * np.ones((3, 4), "f4"),
        np.asfortranarray(np.arange(12).reshape(3, 4)),
        np.array(["a", "bc"]),
        np.array([1, "x"], object),
        np.arange(5)[::2],
        np.arange(6, dtype=">i4"),
        np.array(3),
        np.zeros(4096, "i4"),
        np.zeros(2, [("a", "i4"), ("b", "f8")]),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_small_arrays_are_writable_and_their_own(pool, array):
    def changed(one):
        if one.size:
            one.flat[0] = one.flat[-1]
        return one

    wanted = changed(array.copy("K"))
    for one in each(pool, (array for _ in range(300)), changed):
        np.testing.assert_array_equal(one, wanted)
        assert (one.dtype, one.shape, one.flags.writeable) == (array.dtype, array.shape, True)


def test_whether_an_array_may_be_written_to_does_not_depend_on_how_it_travels(pool):
    arrays = [
        np.arange(6), np.arange(6.0).reshape(2, 3).T, np.arange(8)[::2], np.array(["2020-01-01"], "M8[D]"),
        np.array([1, "x"], object), np.arange(4, dtype=">i4"), np.broadcast_to(np.float64(2), (3, 4)), np.array(["a"]),
        np.zeros(2, [("a", "i4"), ("b", "f8")]), np.zeros(1000),
    ]  # fmt: skip
    for array in arrays:
        array.flags.writeable = False
    for function in (lambda one: one.flags.writeable, lambda one: one):
        one_by_one = each(pool, arrays, function, chunksize=1)
        together = each(pool, arrays * 20, function, chunksize=20)
        for one, other in zip(one_by_one * 20, together, strict=True):
            assert getattr(one, "flags", one) == getattr(other, "flags", other)


def test_read_only_arrays_stay_so(pool):
    array = np.arange(40.0)
    array.flags.writeable = False
    inputs = [array, array[3:9], np.frombuffer(b"12345678", "i4")] * 50
    assert not any(each(pool, inputs, lambda one: one.flags.writeable))
    for one, wanted in zip(each(pool, inputs), inputs, strict=True):
        np.testing.assert_array_equal(one, wanted)


@pytest.mark.parametrize(
    "holder", [list, lambda held: {"held": held}, lambda held: Point(1, "x", held), lambda held: Plain(held=held)]
)
def test_a_source_may_change_what_it_gave_before(pool, holder):
    def source():
        held = [0]
        for i in range(600):
            held[0] = i
            yield holder(held)

    def content(one):
        return (
            one[0] if isinstance(one, list) else getattr(one, "more", None) or getattr(one, "held", None) or one["held"]
        )

    given = [content(one) for one in each(pool, source())]
    assert [one if isinstance(one, int) else one[0] for one in given] == list(range(600))


def test_two_inputs_share_nothing(pool):
    shared = ["shared"]

    def alone(one):
        one.more.append(one.x)
        return one.more

    assert each(pool, [Point(i, "p", shared) for i in range(500)], alone) == [["shared", i] for i in range(500)]


@pytest.mark.parametrize("way", ["raises", "exits"])
def test_an_input_that_cannot_be_opened_costs_itself_alone(pool, way):
    inputs = [Unopened(way if i % 90 == 70 else i) for i in range(400)]
    outcomes = each(pool, inputs, on_error="return")
    bad = [i for i, one in enumerate(outcomes) if isinstance(one, Failure)]
    assert bad == [i for i in range(400) if i % 90 == 70]
    assert all(one == inputs[i] for i, one in enumerate(outcomes) if i not in bad)
    assert outcomes[70].index == 70


def test_an_input_that_ends_its_worker_is_the_one_named(pool):
    inputs = [Unopened("dies" if i == 170 else i) for i in range(300)]
    outcomes = each(pool, inputs, on_error="return")
    assert [i for i, one in enumerate(outcomes) if isinstance(one, Failure)] == [170]
    assert isinstance(outcomes[170].error, WorkerDiedError)
    assert [one for i, one in enumerate(outcomes) if i != 170] == [one for i, one in enumerate(inputs) if i != 170]


class Says:
    """Says, when it is unpickled, which random number it was given there."""

    def __init__(self, x):
        self.x = x

    def __setstate__(self, state):
        self.__dict__.update(state)
        self.drawn = item_rng().getrandbits(30)


def test_with_a_seed_inputs_are_opened_within_their_items(pool):
    drawn = [each(pool, [Says(i) for i in range(200)], lambda one: one.drawn, seed=3) for _ in range(2)]
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) == 200


class Told:
    """Says which item was computed when it was unpickled."""

    def __init__(self, x):
        self.x = x

    def __setstate__(self, state):
        self.__dict__.update(state)
        info = worker_info()
        self.told = None if info is None else info.index


def test_inputs_are_opened_within_their_items(pool):
    assert each(pool, [Told(i) for i in range(300)], lambda one: one.told) == list(range(300))


ALIVE = []


class Alive:
    def __init__(self, x):
        self.x = x

    def __setstate__(self, state):
        self.__dict__.update(state)
        ALIVE.append(weakref.ref(self))


def test_an_input_lives_no_longer_than_its_item(pool):
    def alive(_):
        return sum(one() is not None for one in ALIVE)

    assert set(each(pool, [Alive(i) for i in range(300)], alive)) == {1}


class Changing:
    def __init__(self, x):
        self.x = x


def test_a_class_may_change_while_it_travels(pool):
    def source():
        for i in range(500):
            if i == 250:
                Changing.__getstate__ = lambda one: {"x": -one.x}
            yield Changing(i)

    try:
        given = each(pool, source(), number_of)
    finally:
        del Changing.__getstate__
    assert given == [*range(250), *range(-250, -500, -1)]


class Alike(type):
    def __eq__(cls, other):
        return type(other) is Alike

    def __hash__(cls):
        return 1


class One(metaclass=Alike):
    def __init__(self, x):
        self.x = x


class Two(metaclass=Alike):
    def __init__(self, x):
        self.x = x


def test_classes_that_call_themselves_equal_are_not_mixed_up(pool):
    def made(one):
        return (One if one.x % 2 else Two)(one.x)

    given = each(pool, [(Two if i % 2 else One)(i) for i in range(200)], made)
    assert [type(one) is (One if one.x % 2 else Two) for one in given] == [True] * 200


def test_with_a_time_limit_inputs_come_as_they_were(pool):
    inputs = [Point(i, "x", [i]) for i in range(300)]
    assert each(pool, inputs, item_timeout=30) == inputs


def test_items_of_a_row_are_tried_again(pool, tmp_path):
    def once(one):
        if one.x % 50 == 49:
            try:
                (tmp_path / str(one.x)).touch(exist_ok=False)
            except FileExistsError:
                return one
            raise ValueError(one.x)
        return one

    inputs = [Point(i, "x", [i]) for i in range(300)]
    assert each(pool, inputs, once, retries=1) == inputs


def test_an_input_is_held_no_longer_than_its_chunk(pool):
    def source():
        for i in range(300):
            yield Plain(x=i)

    assert each(pool, source(), number_of) == list(range(300))
    gc.collect()
    assert not [one for one in gc.get_objects() if type(one) is Plain]


def row(inputs, vocabulary=None, rounds=4):
    rows = InputRows(vocabulary)
    for _ in range(rounds):
        assert rows.begin_chunk(len(inputs))
        keys = [rows.put(one) for one in inputs]
    return keys


def test_what_all_inputs_have_is_said_once():
    given = [Fraction(i, 7) for i in range(10)]
    keys = row(given)
    assert all(b"Fraction" in key.primer and b"Fraction" not in key.data for key in keys)
    assert [pickle.loads(key.whole) for key in keys] == [key.unpacked(None) for key in keys] == given
    found = row_of(keys)
    assert list(map(found.opening(same), found)) == given
    found = pickle.loads(pickle.dumps(found))
    assert (type(found), list(map(found.opening(same), found))) == (Row, given)


def test_inputs_of_two_primers_are_no_row():
    one, other = Primed(b"a", b"b"), Primed(b"".join((b"a", b"")), b"b")
    assert row_of([one, one]) == [b"b", b"b"]
    assert row_of([one, Primed(bytes(bytearray(b"a")), b"b")]) is None
    assert row_of([one, "x"]) is None
    assert other.primer == one.primer


@pytest.mark.parametrize(
    "one", [np.zeros(20_000), b"x" * 20_000, Plain(f=lambda: 0), Plain(x=1).__eq__, memoryview(b"x")]
)
def test_what_is_large_or_goes_by_value_goes_another_way(one):
    rows = InputRows(None)
    assert rows.begin_chunk(10)
    assert rows.put(one) is None
    assert not rows.on


# How instances are reduced


class Slotted:
    __slots__ = ("x",)


class PartlySlotted(Slotted):
    def __init__(self):
        self.x, self.y = 1, [2]


class SlottedDict:
    __slots__ = ("__dict__", "x")


class WithState(Plain):
    def __getstate__(self):
        return {"told": 1}


class WithArguments(Plain):
    def __getnewargs__(self):
        return ()


class Looking(Plain):
    def __getattribute__(self, name):
        return {"x": "seen"} if name == "__dict__" else object.__getattribute__(self, name)


class OtherDict:
    @property
    def __dict__(self):
        return {"x": "other"}


class Listed(list):
    pass


class Raised(Exception):
    pass


class Generic(collections.abc.Iterable):
    def __iter__(self):
        return iter(())


@pytest.mark.parametrize(
    "kind",
    [Slotted, PartlySlotted, SlottedDict, WithState, WithArguments, Looking, OtherDict, Listed, Raised, Fraction],
)
def test_instances_that_are_more_than_attributes_are_left_to_python(kind):
    assert reducer_of(kind) is None


@pytest.mark.parametrize("kind", [Plain, Point, Generic, types.new_class("Made", (Plain,))])
@given(attributes=st.dictionaries(st.text(max_size=3), st.integers() | st.lists(st.integers()), max_size=4))
@settings(max_examples=20)
def test_other_instances_are_reduced_as_by_python(kind, attributes):
    one = kind.__new__(kind)
    vars(one).update(attributes)
    own, python = reducer_of(kind)(one), one.__reduce_ex__(4)
    assert own == python[: len(own)]
    assert all(part is None for part in python[len(own) :])


@pytest.mark.parametrize("way", ["__reduce_ex__", "__reduce__", "__getstate__"])
def test_an_instance_with_a_way_of_its_own_goes_that_way(way):
    one = Plain(x=1)
    setattr(one, way, lambda *_: (Plain, ()) if "reduce" in way else {"told": 1})
    assert reducer_of(Plain)(one) == one.__reduce_ex__(4)


def test_a_registered_reducer_is_heeded(pool):
    copyreg.pickle(Point, lambda one: (Point, (one.x + 1000,)))
    try:
        assert each(pool, [Point(i) for i in range(100)], number_of) == list(range(1000, 1100))
    finally:
        del copyreg.dispatch_table[Point]


# Labels


def test_labels_of_frames_are_their_own():
    pd = pytest.importorskip("pandas")

    def renamed(frame):
        frame.columns.name = f"mine {int(frame.a.iloc[0])}"
        return frame.columns.name, list(frame.columns)

    def source(columns):
        for i in range(100):
            columns.name = f"name {i}"
            yield pd.DataFrame([[i, i]], columns=columns)

    with Processes(2) as pool:
        given = each(pool, source(pd.Index(["a", "b"])), lambda frame: frame.columns.name)
        assert given == [f"name {i}" for i in range(100)]
        given = each(pool, source(pd.Index(["a", "b"])), renamed)
        assert given == [(f"mine {i}", ["a", "b"]) for i in range(100)]
        frames = [pd.DataFrame({"a": [i], "b": [str(i)]}) for i in range(100)]
        assert all(one.equals(other) for one, other in zip(each(pool, frames), frames, strict=True))


@pytest.mark.parametrize(
    "make",
    [
        lambda pd: pd.Index(["a", "b"], name="n"),
        lambda pd: pd.Index([1.5, 2]),
        lambda pd: pd.Index([1, "a", None]),
        lambda pd: pd.Index([3, 1], dtype="Int64"),
        lambda pd: pd.Index(["a"], name=("x", 1)),
        lambda pd: pd.Index([Fraction(1, 2), Fraction(1, 3)], dtype=object),
        lambda pd: pd.RangeIndex(4),
        lambda pd: pd.MultiIndex.from_tuples([("a", 1), ("b", 2)]),
        lambda pd: pd.date_range("2020", periods=3),
        lambda pd: pd.CategoricalIndex(["a", "b"]),
        lambda pd: pd.Index([f"label {i}" for i in range(500)]),
        lambda pd: pd.Index(["a", "b"], dtype="string"),
    ],
)
def test_labels_come_as_they_were(make):
    pd = pytest.importorskip("pandas")
    index = make(pd)
    with Processes(2) as pool:
        for one in each(pool, [[index, i] for i in range(50)]):
            pd.testing.assert_index_equal(one[0], index, exact=True)
            assert one[0].name == index.name


def test_a_class_that_has_globals_is_no_function(monkeypatch):
    made = types.ModuleType("made")
    exec("class Odd:\n    __globals__ = property()\n\ndef function(): return limit\n\nlimit = 3", vars(made))
    monkeypatch.setitem(sys.modules, "made", made)
    vocabulary = Vocabulary.inherited()
    vocabulary.seen.clear()
    changes(vocabulary)
    assert ("made", "limit") in vocabulary.seen
