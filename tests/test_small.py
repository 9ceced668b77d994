"""Small inputs and results: many travel together, and yet each by itself."""

from __future__ import annotations

import collections
import datetime
import errno
import gc
import os
import pickle
import socket
import subprocess
import sys
import threading
import types
import weakref
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePath

import pytest

from ordmap import Processes, Spawn, ordered_imap, ordered_map
from ordmap.backends.inputs import InputPickler, pickled
from ordmap.engine import available
from ordmap.outcome import Pickled, Raised
from ordmap.testing import outcomes, wait_until
from test_engine import Items

if not available():
    pytest.skip("the engine is for Linux", allow_module_level=True)

from ordmap.engine import channel, codec
from ordmap.engine.blocks import Arena
from ordmap.engine.board import Board
from ordmap.engine.ledger import Ledger, Task
from ordmap.engine.message import PLAIN, unpacked_orders
from ordmap.engine.pool import _outcomes
from ordmap.item import Label

BOTH = pytest.mark.parametrize("make", [Processes, Spawn])

Point = collections.namedtuple("Point", "x y")


class Record:
    def __init__(self, number):
        self.number = number

    def __eq__(self, other):
        return type(other) is Record and other.number == self.number

    __hash__ = None


class Text(str):
    __slots__ = ("mark",)


def marked(text, mark):
    made = Text(text)
    made.mark = mark
    return made


SMALL = [
    "",
    "ä" * 2048,
    "x" * 5000,
    "\ud800",
    b"",
    b"bytes",
    b"b" * 5000,
    bytearray(b"abc"),
    True,
    2**100,
    1.5,
    2j,
    None,
    (),
    (1, "two", b"3"),
    [1, [2, [3]]],
    {"a": [1, 2], "b": {"c": None}},
    {1, 2},
    frozenset("ab"),
    range(5),
    slice(1, 2),
    Ellipsis,
    Point(1, 2),
    Record(7),
    Text("text"),
    Decimal("1.10"),
    Fraction(1, 3),
    datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC),
    PurePath("a/b"),
    collections.OrderedDict(a=1),
    collections.Counter("aab"),
    collections.defaultdict(list, a=[1]),
    ValueError,
    len,
    os.path.join,
]


class Parent:
    def name(self):
        return "parent"

    @classmethod
    def kind(cls):
        return cls.__name__

    def __secret(self):
        return "secret"

    def secret(self):
        return self.__secret


class Child(Parent):
    def name(self):
        return "child"

    def name_of_parent(self):
        return super().name


def free(child):
    return type(child).__name__


def same(value):
    return value


@BOTH
@pytest.mark.parametrize("chunksize", [1, 7, None])
def test_whatever_they_are(make, chunksize):
    values = [value for value in SMALL for _ in range(5)]
    with make(2) as pool:
        found = list(ordered_map(same, (value for value in values), backend=pool, chunksize=chunksize))
        assert [(type(value), value) for value in found] == [(type(value), value) for value in values]
        given = ordered_imap(Items(len(values), values.__getitem__), backend=pool, chunksize=chunksize)
        assert [(type(value), value) for value in given] == [(type(value), value) for value in values]


@BOTH
def test_methods_stay_what_they_are(make):
    child = Child()
    methods = [child.name, child.name_of_parent(), child.secret(), types.MethodType(free, child), Child.kind, "x".upper]
    given = iter([[method] for method in methods])
    found = list(ordered_map(lambda one: one[0](), given, backend=make(1), chunksize=6))
    assert found == ["child", "parent", "secret", "Child", "Child", "X"]


@BOTH
def test_a_text_of_somebody_s_class_keeps_what_else_it_has(make):
    found = list(ordered_map(same, [marked("a", 1), marked("b", [2])], backend=make(1), chunksize=2))
    assert [(type(text), text, text.mark) for text in found] == [(Text, "a", 1), (Text, "b", [2])]


@BOTH
@pytest.mark.parametrize("chunksize", [1, 10, None])
def test_none_shares_anything_with_another(make, chunksize):
    shared = {"seen": []}

    def note(record):
        record["seen"].append(1)
        return record

    with make(1) as pool:
        found = list(ordered_map(note, (shared for _ in range(40)), backend=pool, chunksize=chunksize))
        assert found == [{"seen": [1]}] * 40
        assert len(set(map(id, found))) == len({id(record["seen"]) for record in found}) == 40
        twice = list(ordered_map(lambda n: [shared, shared, n], range(20), backend=pool, chunksize=chunksize))
        assert all(one is other for one, other, _ in twice)  # within one result it is the same
        assert twice[0][0] is not twice[1][0]


@BOTH
def test_a_result_that_is_filled_anew_each_time_arrives_as_it_was(make):
    def item(n, row=[0]):  # noqa: B006
        row[0] = n
        return row

    found = list(ordered_imap(Items(500, item), backend=make(2), chunksize=50))
    assert found == [[n] for n in range(500)]


class Spoilt:
    """Pickled well, and not to be unpickled."""

    def __reduce__(self):
        return int, ("spoilt",)


@BOTH
def test_a_bad_one_among_them_costs_itself(make):
    def item(n):
        return {3: Spoilt(), 5: gc.get_objects, 6: threading.Lock()}.get(n, {"n": n})

    found = outcomes(ordered_imap(Items(10, item), backend=make(1), chunksize=10))
    assert [n for n, one in enumerate(found) if isinstance(one, Exception)] == [3, 6]
    assert "invalid literal for int() with base 10: 'spoilt'" in str(found[3])
    assert "can't be pickled" in str(found[6])
    assert [one for n, one in enumerate(found) if n not in {3, 5, 6}] == [{"n": n} for n in (0, 1, 2, 4, 7, 8, 9)]

    inputs = [{"n": 0}, {"n": Spoilt()}, {"n": 2}, {"n": threading.Lock()}, {"n": 4}]
    found = outcomes(ordered_map(same, iter(inputs), backend=make(1), chunksize=5))
    assert [n for n, one in enumerate(found) if isinstance(one, Exception)] == [1, 3]
    assert found[0::2] == [{"n": 0}, {"n": 2}, {"n": 4}]


def test_a_worker_keeps_no_result_of_those_it_has_sent():
    class Kept:
        alive: weakref.WeakSet = weakref.WeakSet()

        def __init__(self):
            self.alive.add(self)

        def __reduce__(self):
            return int, ()

    def item(n):
        return len(Kept.alive) if n % 2 else (n, Kept(), [Kept()])

    found = list(ordered_imap(Items(40, item), backend=Processes(1), chunksize=8))
    assert found[1::2] == [0] * 20


def test_one_that_can_not_be_pickled_leaves_the_next_as_it_is():
    arena, lent = Arena(Board(1), 0, 4, 1 << 20), []

    def sent(value):
        return codec.encode([value], arena, lent)[0]

    class Half:
        def __reduce__(self):
            raise RuntimeError("half-way")

    shared = ["shared"]
    for _ in range(3):
        assert pickle.loads(sent((1, shared, shared))) == (1, shared, shared)
        assert "half-way" in sent([shared, Half()]).traceback
        assert pickle.loads(sent((shared, 2))) == (shared, 2)
    assert not lent


def test_one_is_pickled_in_the_midst_of_another():
    arena = Arena(Board(1), 0, 4, 1 << 20)

    class Nested:
        def __reduce__(self):
            return pickle.loads, (codec.encode([["inner", 1]], arena, [])[0],)

    for _ in range(3):
        assert pickle.loads(codec.encode([["outer", Nested(), 2]], arena, [])[0]) == ["outer", ["inner", 1], 2]


# How inputs are pickled


def test_what_is_registered_to_go_by_value_does():
    import cloudpickle

    by_name = len(InputPickler().dumps(Record(1)))
    assert by_name < 100
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        assert len(InputPickler().dumps(Record(1))) > 5 * by_name
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def test_what_main_defines_goes_by_value_and_the_rest_by_name(tmp_path):
    script = tmp_path / "main.py"
    script.write_text(
        "import pickletools\n"
        "from typing import TypeVar\n"
        "from ordmap import Spawn, ordered_map\n"
        "from ordmap.backends.inputs import InputPickler\n"
        "class Own:\n    def __init__(self, n): self.n = n\n"
        "class Kind(type): pass\n"
        "class Odd(metaclass=Kind): pass\n"
        "def own(): return 5\n"
        "T = TypeVar('T')\n"
        "def numbers(value):\n"
        "    return value['x'].n if isinstance(value, dict) else value() if callable(value) else value\n"
        "pickler = InputPickler()\n"
        "for value in ([1, 'a'], {'x': Own(3)}, [1, 'a'], Own, own, Odd, Odd(), [own], T, {'a': 1}):\n"
        "    data = pickler.dumps(value)\n"
        "    names = {argument for _, argument, _ in pickletools.genops(data)}\n"
        "    plain = not any(isinstance(name, str) and 'cloudpickle' in name for name in names)\n"
        "    assert plain == (value in ([1, 'a'], {'a': 1})), value\n"
        "mixed = [1, {'x': Own(3)}, own, 'a', {'x': Own(4)}]\n"
        "assert list(ordered_map(numbers, iter(mixed), backend=Spawn(2), chunksize=5)) == [1, 3, 5, 'a', 4]\n"
        "[[name]] = ordered_map(lambda one: [one[0].__name__], [[T]], backend=Spawn(1))\n"
        "assert name == 'T'\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_buffers_of_an_input_that_fails_half_way_are_none_of_the_next():
    np = pytest.importorskip("numpy")
    array = np.arange(10_000)

    class Half:
        def __reduce__(self):
            raise RuntimeError("half-way")

    pickler = InputPickler(1000)
    first = pickler.dumps([array])
    with pytest.raises(RuntimeError, match="half-way"):
        pickler.dumps([array, Half()])
    third = pickler.dumps([array, "third"])
    assert (pickle.loads(first, buffers=pickler.left_out[:1])[0] == array).all()
    assert pickle.loads(third, buffers=pickler.left_out[1:])[1] == "third"
    assert [type(one).__name__ for one in pickled([{}, Half(), [array]])] == ["Pickled", "_Unsendable", "Pickled"]


# Where they travel


@pytest.mark.parametrize(
    ("size", "window", "chunksize"), [(10, 5000, 1), (300, 600, 1), (2000, 256, 4), (5000, 64, 1), (30_000, 40, 3)]
)
@pytest.mark.parametrize("narrow", [False, True])
def test_the_whole_window_of_inputs_is_computed_while_the_consumer_is_busy(
    size, window, chunksize, narrow, tally, monkeypatch
):
    if narrow:  # a system that grants no more room than it must
        monkeypatch.setattr(channel, "pair", lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))

    def item(text):
        tally.add()
        return len(text)

    source = [f"{n:05}" + "x" * (size - 5) for n in range(3 * window)]
    with ordered_map(item, source, workers=2, prefetch=window, chunksize=chunksize) as results:
        assert next(results) == size
        wait_until(lambda: int(tally) > window - (chunksize or 1), "the window is computed")
        assert list(results) == [size] * (3 * window - 1)


def test_a_few_inputs_of_some_kilobytes_need_no_file(monkeypatch):
    class Run:
        number = 1

    files = []
    write = channel.written_file

    def written_file(parts):
        files.append(sum(map(len, parts)))
        return write(parts)

    monkeypatch.setattr(channel, "written_file", written_file)
    offers, taking = channel.pair()
    with offers, taking:
        ledger = Ledger(Board(1), offers, taking)
        inputs = [bytes([n]) * size for n, size in enumerate([20_000, 20_000, 20_000, 20_000, 900, 40_000])]
        for n, keys in enumerate(inputs):
            ledger.put(Task(Run(), n, keys, 1, Label()))
        assert not ledger.waits
        assert files == [20_000, 40_000]  # by then others are on their way
        received = []
        for _ in inputs:
            message, file = channel.receive(taking, wait=False)
            received += unpacked_orders(message, None if file is None else channel.read_file(file))
        assert [order.keys for order in received] == inputs


def test_short_inputs_go_without_a_file_where_there_is_none(monkeypatch):
    class Run:
        number = 1

    def no_file(parts):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(channel, "written_file", no_file)
    offers, taking = channel.pair()
    with offers, taking:
        ledger = Ledger(Board(1), offers, taking)
        tasks = [Task(Run(), n, b"x" * size, 1, Label()) for n, size in enumerate([30_000, 30_000, 30_000, 33_000])]
        for task in tasks:
            ledger.put(task)
        assert ledger.take_unsendable()[0] is tasks[3]
        assert ledger.take_unsendable() is None
        sent = [unpacked_orders(channel.receive(taking, wait=False)[0]) for _ in range(3)]
        assert [len(order.keys) for orders in sent for order in orders] == [30_000] * 3


def test_numbers_that_there_is_no_file_to_receive_are_a_failure():
    outcomes, plain, packed, primer = _outcomes(None, PLAIN, b"", -1)
    assert (type(outcomes[0]), len(outcomes), plain, packed, primer) == (Raised, 1, False, False, None)


def test_pickled_inputs_are_cut_like_others():
    class Run:
        number = 1

    class Chunk:
        label = Label()

        def __init__(self, keys):
            self.keys = keys

        def __len__(self):
            return len(self.keys)

    task = Task.of(Run(), 0, Chunk([Pickled(pickle.dumps([n])) for n in range(5)]))
    task.cut(2)
    left = pickle.loads(task.keys)
    assert [pickle.loads(data) for data in left] == [[0], [1]]
    assert type(left).__name__ == "Pickles"


@BOTH
@pytest.mark.parametrize("place", [0, 3, 9])
def test_those_before_an_item_that_ends_its_worker_are_computed_again(make, place):
    def item(record):
        if record["n"] == place:
            os._exit(3)
        return record

    found = outcomes(ordered_map(item, ({"n": n} for n in range(10)), backend=make(1), chunksize=10))
    assert [n for n, one in enumerate(found) if isinstance(one, Exception)] == [place]
    assert [one for n, one in enumerate(found) if n != place] == [{"n": n} for n in range(10) if n != place]
