"""What a script defines is one namespace in its workers, and goes by reference."""

from __future__ import annotations

import enum
import os
import subprocess
import sys
import types

import pytest

from ordmap.digest import digest_of
from ordmap.engine import available

pytestmark = pytest.mark.skipif(not available(), reason="the engine is for Linux")

OURS = ["processes", "spawn", "portable processes", "portable spawn"]

#: What an initializer and items set stays; what the caller changes arrives.
WARM = r"""
import functools, os, sys, types
from dataclasses import dataclass
from ordmap import Processes, Spawn, ordered_imap, ordered_map
from ordmap.backends import portable

CONNECTION = None
STATE = {}
SPACE = types.SimpleNamespace(there=None)
GAIN = 1
SETTINGS = {"gain": [1]}
CONFIG = types.SimpleNamespace(gain=1)
CALLS = []
COUNT = 0

class Model:
    loaded = None
    cache = {}
    gain = 1

    @classmethod
    def load(cls):
        if cls.loaded is None:
            cls.loaded = os.getpid()
            return "loaded"
        return "there"

@functools.lru_cache
def slow(i):
    CALLS.append(i)
    return i

def begin(value):
    global CONNECTION
    CONNECTION = value
    STATE["there"] = value
    SPACE.there = value
    Model.cache["there"] = value
    query.there = value

def seen():
    return [CONNECTION, STATE.get("there"), SPACE.there, Model.cache.get("there"), getattr(query, "there", None)]

def query(i):
    return [CONNECTION, STATE.get("there"), SPACE.there, Model.cache.get("there"), getattr(query, "there", None)]

class Data:
    def __len__(self): return 3
    def __getitem__(self, i): return seen()

@dataclass
class Input:
    i: int
    def look(self): return seen()

def look(x): return x.look()

class Lazy:
    def __reduce__(self): return Lazy.here, ()
    @staticmethod
    def here():
        it = Lazy(); it.seen = seen(); return it

def unpickled(it): return it.seen

def count(i):
    global COUNT
    COUNT += 1
    return COUNT

def gains(i): return GAIN, SETTINGS["gain"][0], CONFIG.gain, Model.gain
def cached(i): slow(i); return len(CALLS)
def load(i): return Model.load()

def check(name, got, wanted):
    assert got == wanted, (loop, name, got)

makes = {"processes": Processes, "spawn": Spawn, "portable processes": portable.Processes, "portable spawn": portable.Spawn}
for where in sys.argv[1:]:
    GAIN = 1; SETTINGS["gain"] = [1]; CONFIG.gain = 1; Model.gain = 1
    make = makes[where]
    with make(1, initializer=begin, initargs=(42,)) as pool:
        for loop in range(3):
            all42 = [[42] * 5] * 3
            check("function", list(ordered_map(query, range(3), backend=pool)), all42)
            check("lambda", list(ordered_map(lambda i: seen(), range(3), backend=pool)), all42)
            check("dataset", list(ordered_imap(Data(), backend=pool)), all42)
            check("input", list(ordered_map(look, [Input(i) for i in range(3)], backend=pool)), all42)
            check("input that is unpickled", list(ordered_map(unpickled, [Lazy() for i in range(3)], backend=pool)), all42)
            check("count", list(ordered_map(count, range(3), backend=pool)), [3 * loop + 1, 3 * loop + 2, 3 * loop + 3])
            check("lru_cache", list(ordered_map(cached, range(3), backend=pool))[-1], 3)
            check("class-level", list(ordered_map(load, range(3), backend=pool)).count("loaded"), loop == 0)
        check("gains", list(ordered_map(gains, range(1), backend=pool)), [(1, 1, 1, 1)])
        GAIN = 2; SETTINGS["gain"] = [2]; CONFIG.gain = 2
        check("changed", list(ordered_map(gains, range(1), backend=pool))[0][:3], (2, 2, 2))
        SETTINGS["gain"][0] = 3
        check("changed within", list(ordered_map(gains, range(1), backend=pool))[0][:3], (2, 3, 2))
        GAIN = 1; SETTINGS["gain"][0] = 1; CONFIG.gain = 1
        check("changed back", list(ordered_map(gains, range(1), backend=pool))[0][:3], (1, 1, 1))
        check("still there", list(ordered_map(query, range(3), backend=pool)), all42)
        first = query
        def query(i): return "new"
        check("redefined", list(ordered_map(query, range(1), backend=pool)), ["new"])
        query = first
        check("back", list(ordered_map(query, range(3), backend=pool)), [[42, 42, 42, 42, None]] * 3)
        old = Input
        @dataclass
        class Input:
            i: int
            new: bool = True
            def look(self): return self.new, type(self) is Input
        check("redefined class", list(ordered_map(look, [Input(1)], backend=pool)), [(True, True)])
        check("result of it", [type(x) is Input for x in ordered_map(Input, [1], backend=pool)], [True])
        check("both", list(ordered_map(look, [Input(1), old(1)], backend=pool)), [(True, True), [42, 42, 42, 42, None]])
        Input = old
    check("caller", seen(), [None] * 5)
print("all is well")
"""

#: All kinds of classes and functions, as inputs and as results.
KINDS = r"""
import abc, contextlib, collections, dataclasses, enum, functools, sys, typing, weakref
from ordmap import ordered_map, Processes, Spawn
from ordmap.backends import portable
T = typing.TypeVar("T")
P = typing.ParamSpec("P")
Id = typing.NewType("Id", int)
class Slots:
    __slots__ = ("a", "__hidden", "__weakref__")
    def __init__(self, a): self.a = a; self.__hidden = a
    def __eq__(self, o): return type(o) is type(self) and self.a == o.a and self.__hidden == o.__hidden
    __hash__ = None
class SubSlots(Slots):
    __slots__ = "b"
    def __init__(self, a): super().__init__(a); self.b = a
class SubDict(Slots): pass
class DictSlot:
    __slots__ = {"a": "documented", "__dict__": ""}
    def __init__(self, a): self.a = a; self.other = a
    def __eq__(self, o): return type(o) is DictSlot and (self.a, self.other) == (o.a, o.other)
    __hash__ = None
@dataclasses.dataclass(slots=True)
class D1: a: int
@dataclasses.dataclass(slots=True, frozen=True, order=True)
class D2: a: int
@dataclasses.dataclass(slots=True, weakref_slot=True, kw_only=True)
class D3: a: int
@dataclasses.dataclass(slots=True)
class D4(D1): b: int = 2
@dataclasses.dataclass
class D5(typing.Generic[T]): a: T
class N(typing.NamedTuple):
    a: int
    b: str = "x"
M = collections.namedtuple("M", "a b")
class TD(typing.TypedDict): a: int
class C(enum.Enum): RED = 1; BLUE = 2
class I(enum.IntEnum): ONE = 1
class F(enum.Flag): A = 1; B = 2
class S(enum.StrEnum): X = "x"
class CN(enum.Enum):
    A = (1, 2)
    def __init__(self, a, b): self.a = a; self.b = b
    @property
    def both(self): return self.a + self.b
class Meta(type):
    def __call__(cls, *a): it = super().__call__(*a); it.by = cls.__name__; return it
class WithMeta(metaclass=Meta):
    def __eq__(self, o): return type(o) is WithMeta and self.by == o.by
    __hash__ = None
class Abstract(abc.ABC):
    @abc.abstractmethod
    def f(self): ...
class Concrete(Abstract):
    def f(self): return 1
    def __eq__(self, o): return type(o) is Concrete
    __hash__ = None
class Registry:
    known = {}
    def __init_subclass__(cls, key, **kw): super().__init_subclass__(**kw); Registry.known[key] = cls
class One(Registry, key="one"):
    def __eq__(self, o): return type(o) is One
    __hash__ = None
class Bad(Exception):
    def __init__(self, a, *, b): super().__init__(a); self.b = b
    def __eq__(self, o): return type(o) is Bad and self.args == o.args and self.b == o.b
    __hash__ = None
class L(list): pass
class Dd(dict):
    def __missing__(self, k): return k
class Outer:
    class Inner:
        def __eq__(self, o): return type(o) is Outer.Inner
        __hash__ = None
    @dataclasses.dataclass
    class Point: x: int
@functools.total_ordering
class Ordered:
    def __init__(self, a): self.a = a
    def __eq__(self, o): return type(o) is Ordered and self.a == o.a
    def __lt__(self, o): return self.a < o.a
    __hash__ = None
@functools.lru_cache(maxsize=3, typed=True)
def cached(i): return i * 2
@functools.cache
def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)
@functools.singledispatch
def single(x): return "object"
@single.register
def _(x: int): return "int"
@single.register
def _(x: Slots): return "slots"
class WithMethods:
    def __init__(self): self.n = 2
    @functools.cached_property
    def twice(self): return self.n * 2
    @functools.singledispatchmethod
    def kind(self, x): return "object"
    @kind.register
    def _(self, x: int): return "int"
    @functools.lru_cache
    def load(self): return self.n
    @staticmethod
    @functools.lru_cache
    def stat(i): return i
    @property
    def prop(self): return self.n
    def __eq__(self, o): return type(o) is WithMethods and (self.twice, self.stat(3), self.prop) == (o.twice, o.stat(3), o.prop)
    def __hash__(self): return id(self)
def deco(f):
    @functools.wraps(f)
    def wrapper(*a): return f(*a)
    return wrapper
@deco
def decorated(i): return fib(i)
class Missing:
    def __reduce__(self): return "MISSING"
MISSING = Missing()
values = [Slots(1), SubSlots(2), SubDict(3), DictSlot(4), D1(1), D2(1), D3(a=1), D4(1), D5(D1(2)), N(1), M(1, 2), TD(a=1),
  C.RED, I.ONE, F.A | F.B, S.X, CN.A, WithMeta(), Concrete(), One(), L([1]), Dd(a=1), Outer.Inner(), Outer.Point(1), Ordered(1),
  C, Slots, D5, [C.RED] * 2, {C.RED: D1(1)}, WithMethods(), MISSING, cached, fib, single, decorated, D5[int], Id, typing.Callable[P, T], typing.List[T]]
singles = (C, I, F, S, CN, type, Missing)
def same(v): return v
def look(v): return isinstance(v, (C, Slots, D1, D5, WithMethods, Bad, Outer.Inner, Abstract, Registry)), v is C.RED, v is MISSING, type(v).__name__
def call(v):
    if v is cached or v is fib or v is decorated: return v(10)
    if v is single: return v(1), v(""), v(Slots(1))
    if type(v) is WithMethods: return v.twice, v.kind(1), v.kind(""), v.load()
    if type(v) is CN: return v.both
def go(name, backend):
    bad = []
    for fn in (same, look, call):
        got = list(ordered_map(fn, values, backend=backend, on_error="return"))
        for v, g in zip(values, got):
            if hasattr(g, "error"): bad.append((fn.__name__, repr(v)[:40], repr(g.error)[:200])); continue
            w = fn(v)
            if fn is same:
                ok = (g == v and type(g) is type(v)) and (not isinstance(v, singles) or g is v)
            else: ok = g == w
            if not ok: bad.append((fn.__name__, repr(v)[:40], g, w))
    assert not bad, (name, bad)
def main(which):
    import multiprocessing as mp
    from concurrent.futures import ProcessPoolExecutor
    for name in which:
        if name == "loky":
            import loky
            ex = loky.get_reusable_executor(2); go(name, ex); go(name + " again", ex); ex.shutdown()
        elif name == "ppe fork":
            with ProcessPoolExecutor(2, mp_context=mp.get_context("fork")) as ex: go(name, ex); go(name + " again", ex)
        elif name == "ppe spawn":
            with ProcessPoolExecutor(2, mp_context=mp.get_context("spawn")) as ex: go(name, ex); go(name + " again", ex)
        else:
            make = {"processes": Processes, "spawn": Spawn, "portable processes": portable.Processes, "portable spawn": portable.Spawn}[name]
            with make(2) as pool: go(name, pool); go(name + " again", pool)
if __name__ == "__main__":
    main(sys.argv[1:])
    print("all is well")
"""


def run(*arguments, **options):
    """Run Python as a user does, to its end."""
    env = {**os.environ, "PYTHONWARNINGS": "ignore"}  # of forks beside threads
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True, text=True, timeout=100, check=False, env=env, **options,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("backend", OURS)
def test_what_is_set_stays_and_what_changes_arrives(script, backend):
    assert "all is well" in run(script(WARM), backend)


#: How a script is run whose module is not ``__main__``, and can't be imported.
AS_A_MODULE = {
    "runpy": "import runpy, sys; runpy.run_path(sys.argv.pop(1))",
    "a file that is loaded": """
import sys, importlib.util
spec = importlib.util.spec_from_file_location("loaded", sys.argv.pop(1))
sys.modules["loaded"] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
""",
    "a module made by hand": """
import pathlib, sys, types
sys.modules["made"] = module = types.ModuleType("made")
exec(pathlib.Path(sys.argv.pop(1)).read_text(), vars(module))
""",
}


@pytest.mark.parametrize("way", AS_A_MODULE)
@pytest.mark.parametrize("backend", ["processes", "spawn"])
def test_it_does_as_a_module_that_can_not_be_imported(script, way, backend):
    assert "all is well" in run("-c", AS_A_MODULE[way], script(WARM), backend)
    assert "all is well" in run(
        "-c", AS_A_MODULE[way], script(KINDS.replace('__name__ == "__main__"', "True")), backend
    )


@pytest.mark.parametrize("way", ["python -c", "standard input", "a child of multiprocessing's"])
def test_it_does_however_the_script_is_run(script, way):
    if way == "python -c":
        said = run("-c", WARM, "processes", "spawn")
    elif way == "standard input":
        said = run("-", "processes", "spawn", input=WARM)
    else:
        child = "import multiprocessing\nif __name__ == '__main__':\n    child = multiprocessing.get_context('spawn').Process(target=main)\n    child.start(); child.join()\n"
        said = run(script(SMALL + child))
    assert "all is well" in said


#: For a child of multiprocessing's, in which the module ``__mp_main__`` is a copy of what its functions see.
SMALL = """
from dataclasses import dataclass
from ordmap import Processes, Spawn, ordered_map
HERE = None
GAIN = 1

@dataclass
class Point:
    x: int
    def look(self): return HERE, GAIN, self.x

def begin():
    global HERE
    HERE = 42

def look(point): return point.look()

def main():
    global GAIN
    for make in Processes, Spawn:
        with make(2, initializer=begin) as pool:
            for GAIN in 1, 1, 2:
                assert list(ordered_map(look, map(Point, range(4)), backend=pool)) == [(42, GAIN, x) for x in range(4)]
                seen = list(ordered_map(lambda x: (HERE, GAIN, Point(x)), range(4), backend=pool))
                assert seen == [(42, GAIN, Point(x)) for x in range(4)], seen
    print("all is well")
"""


@pytest.mark.parametrize("backend", [*OURS, "ppe fork", "ppe spawn"])
def test_kinds_of_classes_and_functions(script, backend):
    assert "all is well" in run(script(KINDS), backend)


#: What ``type`` statements make: of itself, with parameters, within what dataclasses and functions say of themselves.
ALIASES = r"""
import sys
from dataclasses import dataclass, fields
from ordmap import Processes, Spawn, ordered_map
from ordmap.backends import portable

type Json = dict[str, Json] | list[Json] | str
type Pair[T] = tuple[T, T]
type Bag[*Ts, **P] = dict[tuple[*Ts], P]
type Point = tuple[float, float]

@dataclass
class Shape:
    where: Point
    more: Pair[int]
    raw: Json

def local():
    type Inner = list[Point]
    return Inner

def make(i: Json) -> Pair[int]:
    meant = Json.__value__.__args__[0].__args__[1], Pair.__value__.__args__ == Pair.__type_params__ * 2
    return Shape((i, i), (1, 2), {}), [f.type for f in fields(Shape)], [Json, Pair, Bag, Point, Pair[int]], meant

def same(alias): return alias, alias.__name__, alias.__module__
def inner(_): return local()
def odd(_):
    type meant = int
    return meant
type Unused = float

if __name__ == "__main__":
    backends = {"processes": Processes, "spawn": Spawn, "portable processes": portable.Processes, "portable spawn": portable.Spawn}
    with backends[sys.argv[1]](2) as pool:
        for _ in range(2):
            for got in ordered_map(make, range(6), backend=pool):
                assert got == (Shape((got[0].where[0],) * 2, (1, 2), {}), [Point, Pair[int], Json], [Json, Pair, Bag, Point, Pair[int]], (Json, True)), got
            aliases = [Json, Pair, Bag, Point] * 3
            assert list(ordered_map(same, aliases, backend=pool)) == [(one, one.__name__, "__main__") for one in aliases]
            assert [one.__value__ for one in ordered_map(inner, range(2), backend=pool)] == [list[Point]] * 2
            assert list(ordered_map(str, [Unused] * 3, backend=pool)) == ["Unused"] * 3
            assert [one.__value__ for one in ordered_map(odd, range(2), backend=pool)] == [int] * 2
    print("all is well")
"""


@pytest.mark.skipif(sys.version_info < (3, 12), reason="that statement is new in Python 3.12")
@pytest.mark.parametrize("backend", OURS)
def test_what_type_statements_make_goes_as_classes_do(script, backend):
    assert "all is well" in run(script(ALIASES), backend)


#: Enums whose constructors don't take what their members have, and typed dictionaries.
MEMBERS = r"""
import abc, dataclasses, datetime, decimal, enum, functools, sys, typing
from ordmap import ordered_map, Processes, Spawn
from ordmap.backends import portable
@dataclasses.dataclass(frozen=True)
class Data:
    size: str
    legs: int
class Creature(Data, enum.Enum):
    BEETLE = "small", 6
    DOG = "medium", 4
class Slotted:
    __slots__ = ("a", "__hidden")
    def __init__(self, a): self.a = self.__hidden = a
    def hidden(self): return self.__hidden
class InSlots(Slotted, enum.Enum):
    def __new__(cls, a): it = object.__new__(cls); it._value_ = a; return it
    ONE = 1
class Pair(typing.NamedTuple):
    x: int
    y: int
class Pairs(Pair, enum.Enum):
    A = 1, 2
class Coord(bytes, enum.Enum):
    def __new__(cls, value, label):
        it = bytes.__new__(cls, [value]); it._value_ = value; it.label = label; return it
    PX = 0, "P.X"
    PY = 1, "P.Y"
    ALSO = 1, "P.Y"
class Period(datetime.timedelta, enum.Enum):
    DAY = 1
    WEEK = 7
class Day(datetime.date, enum.Enum):
    FIRST = 2020, 1, 1
class At(datetime.datetime, enum.Enum):
    FIRST = 2020, 1, 1
class Price(decimal.Decimal, enum.Enum):
    A = "1.5"
    def __str__(self): return "price"
class Text(str, enum.Enum):
    A = "a"
    def __str__(self): return "text " + self.value
class Op(enum.Enum):
    def add(a, b): return a + b
    ADD = enum.member(add)
    MUL = enum.member(lambda a, b: a * b)
    PART = functools.partial(add, 1)
    def __call__(self, *a): return self.value(*a)
class Unique(enum.Enum):
    A = object()
    B = object()
    NAN = float("nan")
class Unhashable(enum.Enum):
    A = [1]
    B = {"x": [2]}
    ALIAS = [1]
class Lists(list, enum.Enum):
    A = [1, 2]
class Perm(enum.Flag):
    R = 4; W = 2; X = 1
    RW = 6
    def both(self): return self | OTHERS
OTHERS = Perm.R | Perm.X
class Kept(enum.IntFlag, boundary=enum.KEEP):
    A = 1; B = 2
class Base(enum.Enum):
    @property
    def upper(self): return self.name.upper()
    @classmethod
    def default(cls): return cls(cls._default)
    @property
    def red(self): return "of the base"
class Sub(Base):
    _ignore_ = ["z"]
    red = 1
    blue = 2
    cyan = blue
    @classmethod
    def _missing_(cls, value): return cls.red
    def other(self): return Sub.blue if self is Sub.red else Sub.red
    by = functools.cached_property(lambda self: self.name)
class Meta(abc.ABCMeta, enum.EnumMeta): pass
class Meta2(enum.EnumMeta, abc.ABCMeta):
    def __new__(mcls, *a, extra=None, **kw):
        it = super().__new__(mcls, *a, **kw); it.extra = extra or getattr(it, "extra", None); return it
class Abs(abc.ABC):
    @abc.abstractmethod
    def f(self): ...
class AbsE(Abs, enum.Enum, metaclass=Meta):
    A = 1
    def f(self): return 1
class AbsE2(Abs, enum.Enum, metaclass=Meta2, extra="x"):
    A = 1
    def f(self): return type(self).extra
class Auto(enum.StrEnum):
    @staticmethod
    def _generate_next_value_(name, *a): return name.lower() + "!"
    ONE = enum.auto()
    TWO = enum.auto()
Fun = enum.Enum("Fun", "A B C")
class Refer(enum.Enum):
    EARTH = Data("x", 3)
    def __init__(self, data): self.data = data; self.me = self
    labels = enum.nonmember({})
Refer.labels[Refer.EARTH] = "earth"
Unique.first = Unique.A
class Outer:
    class Inner(enum.Enum):
        A = (1, 2)
        def __init__(self, a, b): self.sum = a + b
def local():
    class Local(Data, enum.Enum):
        A = "x", 1
    return Local
Local = local()
enums = [Creature, InSlots, Pairs, Coord, Period, Day, At, Price, Text, Op, Unique, Unhashable, Lists, Perm, Kept, Sub, AbsE, AbsE2, Auto, Fun, Refer, Outer.Inner, Local]
members = [one for kind in enums for one in kind.__members__.values() if kind is not Unique and one is not Op.PART] + [Perm.R | Perm.W | Perm.X, Perm.R | Perm.X, Kept(8), ~Perm.R]
def same(one): return one
def there(i): return members[i]
def about(one):
    kind = type(one)
    has = {k: v for k, v in vars(one).items() if k not in ("_value_", "_inverted_", "by")}
    return (has, list(kind.__members__), [m.name for m in kind], isinstance(one, kind), kind.__name__, type(one) is Coord or repr(one).partition(" at ")[0],
      str(one).partition(" at ")[0], kind.__qualname__, kind.__module__, one.name not in kind.__members__ or kind[one.name] is one, one.value != one.value or not isinstance(one.value, (int, str, bytes)) or kind(one.value) is one)
def more(_):
    return (Op.ADD(1, 2), Op.MUL(2, 3), Op.PART(2), Sub.red.other() is Sub.blue, Sub(77) is Sub.red, Sub["cyan"] is Sub.blue, Sub.blue.upper, Sub.blue.by,
     Perm.W.both(), Perm(7) is Perm.R | Perm.W | Perm.X, ~Perm.R, AbsE2.A.f(), AbsE.A.f(), isinstance(AbsE.A, Abs), issubclass(AbsE, Abs), Refer.labels[Refer.EARTH], Refer.EARTH.me is Refer.EARTH,
     Price.A + 1, Period.DAY + Period.WEEK, Coord(1) is Coord.ALSO, InSlots.ONE.a, InSlots.ONE.hidden(), Creature.DOG.legs, Pairs.A.y, Unhashable([1]) is Unhashable.ALIAS, Lists.A[1], Unique.first is Unique.A, Outer.Inner.A.sum, Fun(3), Kept(9), list(Perm), Text.A + "b", At.FIRST.year, Day.FIRST.isoformat())
class TD(typing.TypedDict, total=False):
    'A doc.'
    x: int
class TD2(TD):
    y: "str"
    z: typing.NotRequired[list[int]]
T = typing.TypeVar("T")
class TDG(typing.TypedDict, typing.Generic[T]):
    a: T
class TDS(TDG[int]):
    b: TD
    me: "TDS"
TDF = typing.TypedDict("TDF", {"in": int, "x-y": typing.Required[str]}, total=False)
def typed(_):
    return ([(k.__required_keys__, k.__optional_keys__, k.__total__, typing.get_type_hints(k), k.__doc__, k.__module__, k.__qualname__, typing.is_typeddict(k), k.__name__) for k in (TD, TD2, TDG, TDS, TDF)], TD(x=1), TD2(x=1, y=""), TDG[int](a=1), TDS.__orig_bases__, TDG.__parameters__)
def main(which):
    for name in which:
        make = {"processes": Processes, "spawn": Spawn, "portable processes": portable.Processes, "portable spawn": portable.Spawn}[name]
        bad = []
        with make(2) as pool:
            for loop in range(2):
                for what, got, wanted in [("inputs", ordered_map(same, members, backend=pool, on_error="return"), members), ("globals", ordered_map(there, range(len(members)), backend=pool, on_error="return"), members)]:
                    for g, w in zip(got, wanted):
                        if g is not w: bad.append((what, w, g, getattr(g, "error", None)))
                for g, w in zip(ordered_map(about, members, backend=pool, on_error="return"), members):
                    if g != about(w): bad.append(("about", w, g, about(w)))
                got = list(ordered_map(more, [0], backend=pool))[0]
                for a, b in zip(got, more(0), strict=True):
                    if a != b: bad.append(("more", a, b))
                got = list(ordered_map(typed, [0], backend=pool))[0]
                for a, b in zip(got, typed(0), strict=True):
                    if a != b: bad.append(("typed", a, b))
        assert not bad, (name, bad)
if __name__ == "__main__":
    main(sys.argv[1:])
    print("all is well")
"""


@pytest.mark.parametrize("backend", OURS)
def test_members_of_enums_and_typed_dictionaries(script, backend):
    assert "all is well" in run(script(MEMBERS), backend)


#: A worker may have met the first of two classes of one name alone.
OLD = """
import sys
from ordmap import Processes, Spawn, ordered_map
from ordmap.backends import portable

def both(make, known):
    exec("class A: gain = 1", globals())
    old = A
    with make(1) as pool:
        if known:
            assert [type(it) for it in ordered_map(lambda i: make_one(), range(2), backend=pool)] == [old] * 2
        else:
            list(ordered_map(abs, [1], backend=pool))
        exec("class A: gain = 2", globals())
        for _ in range(2):
            for it, gain in ordered_map(lambda it: (it, it.gain), [old(), old()], backend=pool):
                assert type(it) is old and gain == 1, (type(it) is A, gain)
        assert [(type(it) is A, it.gain) for it in ordered_map(lambda i: make_one(), range(2), backend=pool)] == [(True, 2)] * 2
        assert [type(it) for it in ordered_map(lambda it: it, [old(), A()], backend=pool)] == [old, A]

def make_one(): return A()
makes = {"processes": Processes, "spawn": Spawn, "portable processes": portable.Processes, "portable spawn": portable.Spawn}
for known in True, False:
    both(makes[sys.argv[1]], known)
print("all is well")
"""


@pytest.mark.parametrize("backend", OURS)
def test_what_is_of_a_class_whose_name_has_another_by_now_stays_so(script, backend):
    assert "all is well" in run(script(OLD), backend)


BY_REFERENCE = """
import sys, threading
from ordmap import Processes, Spawn, ordered_map
from ordmap.backends import portable

class Table:
    pickled = 0
    def __reduce__(self):
        Table.pickled += 1
        return Table, ()

TABLE = Table()

class Job:
    table = TABLE
    def run(self): return TABLE is Job.table

class Locked:
    lock = threading.Lock()
    def run(self):
        with self.lock: return True

def work(job): return job.run()

for name, make in {"processes": Processes, "portable": portable.Processes, "spawn": Spawn}.items():
    for kind in (Job, Locked) if name != "spawn" else (Job,):
        with make(2) as pool:
            before = Table.pickled
            for chunksize in 1, 7:
                assert all(ordered_map(work, [kind() for _ in range(40)], backend=pool, chunksize=chunksize))
            assert Table.pickled - before <= 3 * (name == "spawn"), (name, Table.pickled - before)
print("all is well")
"""


def test_inputs_name_what_workers_know(script):
    """Neither goes what the methods of an input's class need, nor need it be picklable where workers are forked."""
    assert "all is well" in run(script(BY_REFERENCE))


LESSONS = """
import os
from ordmap import Processes, Spawn, ordered_map
N = 12
for n in range(N): exec(f"class C{n}:\\n    def look(self): return {n}")

def work(it, n):
    if n in deadly: os._exit(1)
    return it.look(), type(it).__name__, it

def inputs():
    for n in range(N):
        yield globals()[f"C{n}"]()
        if n == 6: exec("class C1:\\n    def look(self): return 'new'", globals())  # as a cell that is run again

for make in Processes, Spawn:
    for options in {}, {"max_items_per_worker": 3}:
        for deadly in (), (3, 8):
            with make(2, **options) as pool:
                got = list(ordered_map(work, inputs(), range(N), backend=pool, chunksize=1, on_error="return"))
                assert [n for n in range(N) if hasattr(got[n], "error")] == [*deadly], got
                assert all(n in (1, *deadly) or got[n][:2] == (n, f"C{n}") for n in range(N)), got
                got = list(ordered_map(lambda it: it.look(), [C1(), C2()], backend=pool))
                assert got == ["new", 2], got
            exec("class C1:\\n    def look(self): return 1", globals())
print("all is well")
"""


def test_workers_that_come_late_know_what_the_others_know(script):
    assert "all is well" in run(script(LESSONS))


BACK = """
from ordmap import Processes, Spawn, ordered_map
HERE = "caller"

class Kept:
    state = "caller"
    seen = []

def begin():
    global HERE
    HERE = Kept.state = "worker"
    Kept.seen.append("worker")

def make(i):
    class Local(Kept):
        n = i
    return Local(), Kept, lambda: (HERE, Kept.state, i)

for backend in Processes(2, initializer=begin), Spawn(2, initializer=begin):
    for i, (local, kept, function) in enumerate(ordered_map(make, range(4), backend=backend)):
        assert isinstance(local, Kept) and local.n == i and kept is Kept
        assert function() == ("caller", "caller", i), function()
    assert (HERE, Kept.state, Kept.seen) == ("caller", "caller", [])
print("all is well")
"""


def test_what_comes_back_changes_nothing_at_the_caller(script):
    assert "all is well" in run(script(BACK))


# Digests


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Plain:
    def __init__(self, **has):
        vars(self).update(has)


class Own(Plain):
    def __reduce__(self):
        raise AssertionError


@pytest.mark.parametrize(
    ("make", "other"),
    [
        (lambda: None, lambda: 0),
        (lambda: 1, lambda: True),
        (lambda: {"a": [1]}, lambda: {"a": [2]}),
        (lambda: Plain(a=[1]), lambda: Plain(a=[2])),
        (lambda: types.SimpleNamespace(a=1), lambda: types.SimpleNamespace(a=2)),
        (lambda: Colour.RED, lambda: Colour.BLUE),
        (lambda: [Plain, len], lambda: [Own, len]),
    ],
)
def test_a_digest_tells_values_apart(make, other):
    assert digest_of(make()) == digest_of(make()) is not None
    assert digest_of(make()) != digest_of(other()) is not None


def test_a_function_that_is_defined_again_is_another():
    def define():
        def f():
            return 1

        return f

    one, other = define(), define()
    assert digest_of(one) == digest_of(one) != digest_of(other)
    one.seen = []
    assert (before := digest_of(one)) is not None
    one.seen.append(1)
    assert digest_of(one) != before


def test_what_is_large_or_has_a_way_of_its_own_has_no_digest():
    import numpy as np

    held = Plain()
    held.itself = held
    assert digest_of(held) is not None
    for value in (Own(a=1), list(range(10**6)), "x" * 10**6, np.zeros(10**6), sys.stdout):
        assert digest_of(value) is None
