"""Kinds of objects that Python brings along."""

from __future__ import annotations

import array
import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import ipaddress
import operator
import pathlib
import re
import string
import types
import typing
import uuid
import zoneinfo


class Colour(enum.Enum):
    RED = "red"


class Rights(enum.Flag):
    READ = enum.auto()
    WRITE = enum.auto()


class Point(typing.NamedTuple):
    x: int
    y: list


@dataclasses.dataclass
class Record:
    name: str
    parts: list


@dataclasses.dataclass(frozen=True, slots=True)
class Slotted:
    name: str
    when: datetime.date


class Words(dict):
    """A dict with an attribute."""


class Texts(list):
    pass


class Tree:
    def __init__(self):
        self.children = [self]

    def __eq__(self, other):
        return type(other) is Tree and other.children[0] is other

    __hash__ = None


def _words():
    made = Words(a=1)
    made.label = "mine"
    return made


def python():
    utc = datetime.timezone.utc
    return {
        "None": lambda: None,
        "int beyond 64 bits": lambda: 1 << 100,
        "float nan": lambda: float("nan"),
        "complex": lambda: 1 + 2j,
        "str with a surrogate": lambda: "a\udcff",
        "bytes of 1 MB": lambda: b"x" * 1_000_000,
        "bytearray of 1 MB": lambda: bytearray(1_000_000),
        "memoryview of a bytearray": lambda: memoryview(bytearray(b"x" * 50_000))[5:],
        "memoryview of shorts": lambda: memoryview(bytes(50_000)).cast("H", (100, 250)),
        "array of doubles": lambda: array.array("d", range(5_000)),
        "list that holds itself": Tree,
        "tuple of lists": lambda: ([1], [2]),
        "dict": lambda: {"b": 1, 2: None},
        "set": lambda: {1, "a"},
        "frozenset": lambda: frozenset({1, "a"}),
        "range": lambda: range(3, 1 << 70, 5),
        "slice": lambda: slice(1, None, 2),
        "Ellipsis": lambda: ...,
        "NotImplemented": lambda: NotImplemented,
        "a class": lambda: collections.OrderedDict,
        "a function": lambda: operator.add,
        "a lambda": lambda: lambda x: x + 1,
        "deque with a bound": lambda: collections.deque([1, 2], maxlen=5),
        "Counter": lambda: collections.Counter("abca"),
        "OrderedDict": lambda: collections.OrderedDict(b=1, a=2),
        "defaultdict of a type": lambda: collections.defaultdict(list, a=[1]),
        "defaultdict of a lambda": lambda: collections.defaultdict(lambda: 7, a=1),
        "ChainMap": lambda: collections.ChainMap({"a": 1}, {"b": 2}),
        "UserDict": lambda: collections.UserDict(a=1),
        "keys of a dict": lambda: {"a": 1, "b": 2}.keys(),
        "mappingproxy": lambda: types.MappingProxyType({"a": [1]}),
        "SimpleNamespace": lambda: types.SimpleNamespace(a=1),
        "NamedTuple": lambda: Point(1, [2]),
        "Enum": lambda: Colour.RED,
        "Flag": lambda: Rights.READ | Rights.WRITE,
        "dataclass": lambda: Record("a", [1]),
        "frozen dataclass with slots": lambda: Slotted("a", datetime.date(2020, 1, 2)),
        "subclass of dict with an attribute": _words,
        "subclass of list": lambda: Texts("ab"),
        "datetime with a time zone": lambda: datetime.datetime(2020, 1, 2, tzinfo=utc, fold=1),
        "datetime with ZoneInfo": lambda: datetime.datetime(2020, 7, 2, tzinfo=zoneinfo.ZoneInfo("Europe/Paris")),
        "date": lambda: datetime.date(2020, 1, 2),
        "time": lambda: datetime.time(1, 2, 3, 4),
        "timedelta": lambda: datetime.timedelta(days=-1, microseconds=3),
        "ZoneInfo": lambda: zoneinfo.ZoneInfo("Asia/Tokyo"),
        "Decimal": lambda: decimal.Decimal("1.20"),
        "Fraction": lambda: fractions.Fraction(1, 3),
        "UUID": lambda: uuid.UUID(int=7),
        "Path": lambda: pathlib.Path("/a/b.txt"),
        "PureWindowsPath": lambda: pathlib.PureWindowsPath("C:/a"),
        "IPv4Network": lambda: ipaddress.ip_network("10.0.0.0/8"),
        "re.Pattern": lambda: re.compile(r"a(b+)", re.IGNORECASE),
        "string.Template": lambda: string.Template("$a"),
        "partial": lambda: functools.partial(int, base=2),
        "itemgetter": lambda: operator.itemgetter(1, 2),
        "generic alias": lambda: dict[str, list[int]],
        "union of types": lambda: int | None,
    }
