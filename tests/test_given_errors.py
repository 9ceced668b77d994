"""Exceptions that are inputs and results, and not raised: their constructors are their own."""

from __future__ import annotations

import copyreg
import pickle
import smtplib
import subprocess
import urllib.error

import pytest

from ordmap import ordered_map
from ordmap.outcome import serialise
from ordmap.reducers.errors import reducer_of_errors


class Keyword(Exception):
    def __init__(self, *, status, body=None):
        super().__init__(f"status {status}")
        self.status, self.body = status, body


class Another(Exception):
    def __init__(self, name, number):
        super().__init__(f"{name} has {number}")
        self.name = name


class Silent(ValueError):
    def __init__(self, a, b):
        self.pair = a, b


class Coded(OSError):
    def __init__(self, code):
        super().__init__(code, "coded", f"file {code}")
        self.code = code


class Uncalled(OSError):
    def __init__(self, what):
        self.what = what


class Key(KeyError):
    def __init__(self, key, *, known):
        super().__init__(key)
        self.known = known

    def __str__(self):
        return f"no {self.args[0]} in {self.known}"


class Syntax(SyntaxError):
    def __init__(self, line):
        super().__init__("wrong", ("file", line, 3, "text"))


class Imported(ImportError):
    def __init__(self, name):
        super().__init__("no", name=name, path="/there")


class Frozen(Exception):
    def __init__(self, one, two):
        super().__init__(one)
        vars(self)["two"] = two

    def __setattr__(self, name, value):
        raise TypeError("frozen")


class Decoded(UnicodeDecodeError):
    def __init__(self, data):
        super().__init__("utf-8", data, 0, 1, "odd")


class Counted(Exception):
    made = 0

    def __init__(self, one):
        super().__init__(one, one)
        type(self).made += 1


class WithSetter(Exception):
    def __init__(self, value):
        super().__init__("text")
        vars(self)["doubled"], vars(self)["kept"] = value, value

    @property
    def doubled(self):
        return self.kept

    @doubled.setter
    def doubled(self, value):
        vars(self)["kept"] = 2 * value


MADE = {
    "setter": lambda: WithSetter(3),
    "keyword": lambda: Keyword(status=404, body=b"none"),
    "another": lambda: Another("x", 3),
    "silent": lambda: Silent(1, 2),
    "coded": lambda: Coded(3),
    "uncalled": lambda: Uncalled("that"),
    "key": lambda: Key("k", known=["a"]),
    "syntax": lambda: Syntax(12),
    "import": lambda: Imported("some"),
    "frozen": lambda: Frozen(1, 2),
    "decoded": lambda: Decoded(b"\xff"),
    "builtin": lambda: FileNotFoundError(2, "gone", "here"),
    "process": lambda: subprocess.CalledProcessError(3, ["x"], b"out", b"err"),
    "timeout": lambda: subprocess.TimeoutExpired("x", 3.5),
    "smtp": lambda: smtplib.SMTPResponseException(550, b"no"),
    "url": lambda: urllib.error.URLError("no"),
    "noted": lambda: noted(Another("y", 1)),
    "looped": lambda: looped(Another("y", 1)),
    "within": lambda: Keyword(status=1, body=Another("z", 2)),
}


def noted(error):
    error.add_note("a note")
    return error


def looped(error):
    error.itself = [error]
    return error


def shown(error):
    state = {name: one for name, one in vars(error).items() if name not in {"itself", "body"}}
    fields = [getattr(error, name, None) for name in ("errno", "filename", "lineno", "offset", "name", "path", "start")]
    return type(error), error.args, str(error), state, fields


def itself(error):
    return error


@pytest.fixture(autouse=True)
def of_nobody_else(monkeypatch):
    """Have no exception go another library's way, such as that of Dask's, which another test has imported."""
    for kind in list(copyreg.dispatch_table):
        if isinstance(kind, type) and issubclass(kind, BaseException):
            monkeypatch.delitem(copyreg.dispatch_table, kind)


@pytest.mark.parametrize("backend", ["processes", "spawn", "threads"])
def test_they_come_and_go_as_they_were(backend):
    given = [make() for make in MADE.values()]
    for copies in (1, 12):
        got = list(ordered_map(itself, given * copies, workers=2, backend=backend))
        assert [shown(one) for one in got] == [shown(one) for one in given * copies]
    returned = list(ordered_map(lambda name: MADE[name](), list(MADE), workers=1, backend=backend))
    assert [shown(one) for one in returned] == [shown(one) for one in given]
    assert all(one.itself[0] is one for one in returned if hasattr(one, "itself"))
    assert shown(returned[-1].body) == shown(Another("z", 2))


def test_no_constructor_runs_again():
    error, made = Counted(1), Counted.made
    assert pickle.loads(serialise([error, {"e": error}]))[0].args == (1, 1)
    assert Counted.made == made


class OwnWay(Exception):
    def __init__(self, one):
        self.one = one

    def __reduce__(self):
        return OwnWay, (self.one + 1,)


class OwnNew(Exception):
    def __new__(cls, one):
        return super().__new__(cls)

    def __init__(self, one):
        self.one = one


class Slotted(Exception):
    __slots__ = ("one",)

    def __init__(self, one):
        self.one = one


class Group(ExceptionGroup):
    def __new__(cls, *members):
        return super().__new__(cls, "group", members)

    def __init__(self, *members):
        pass


@pytest.mark.parametrize("kind", [OwnWay, OwnNew, Slotted, Group, ValueError, OSError, ExceptionGroup, int])
def test_a_class_that_says_more_is_left_to_python(kind):
    assert reducer_of_errors(kind) is None


def test_a_way_of_its_own_is_heeded():
    assert [one.one for one in ordered_map(itself, [OwnWay(1)] * 3, workers=1)] == [3, 3, 3]
