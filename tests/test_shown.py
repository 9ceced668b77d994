"""What a user sees of an iterator: its `repr`, and tracebacks without frames of ours."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import traceback

import pytest

import ordmap
from ordmap import OrdmapError, ordered_imap, ordered_map
from ordmap.engine import available
from ordmap.window import Window

OURS = os.path.dirname(ordmap.__file__)  # noqa: PTH120
BACKENDS = ["serial", "threads", pytest.param("processes", marks=pytest.mark.skipif(not available(), reason="engine"))]


def odd(number):
    if number == 1:
        raise ValueError("bad")
    return number


async def awaited(number):
    return odd(number)


def source():
    yield 0
    raise KeyError("of the source")


def interrupted():
    yield 0
    signal.raise_signal(signal.SIGINT)
    yield 1


def ours(error):
    return [entry for entry in traceback.extract_tb(error.__traceback__) if entry.filename.startswith(OURS)]


def loop(results):
    for _ in results:
        pass


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("fn", "items", "options", "kind", "last", "most"),
    [
        (odd, lambda: range(3), {}, ValueError, None, 0),
        (odd, lambda: range(3), {"on_error": lambda _: [][0]}, IndexError, "<lambda>", 0),
        (odd, lambda: range(3), {"on_error": int}, TypeError, "stand_in", 1),
        (str, source, {}, KeyError, "source", 0),
        (str, lambda: map(int, ["0", "x"]), {}, ValueError, None, 1),
        (str, interrupted, {}, KeyboardInterrupt, "interrupted", 0),
    ],
    ids=["item", "on_error", "on_error in C", "source", "source in C", "Ctrl-C"],
)  # fmt: skip
def test_a_traceback_shows_the_user_s_frames(backend, fn, items, options, kind, last, most):
    with pytest.raises(kind) as caught:
        loop(ordered_map(fn, items(), workers=0 if backend == "serial" else 2, backend=backend, **options))
    names = [entry.name for entry in traceback.extract_tb(caught.value.__traceback__)]
    assert names[1] == "loop"
    assert last is None or names[-1] == last
    assert len(ours(caught.value)) <= most


def test_so_it_does_with_async_for_and_start():
    async def main(items):
        async for _ in ordered_map(awaited, items, workers=2, backend="asyncio"):
            pass

    for items, kind in ((range(3), ValueError), (source(), KeyError)):
        with pytest.raises(kind) as caught:
            asyncio.run(main(items))
        assert not ours(caught.value)
    with pytest.raises(OrdmapError) as caught:
        ordered_map(str, range(3), backend=_Broken()).start()
    assert not ours(caught.value)


class _Broken:
    name, workers, promises = "broken", 2, {}

    def open(self, job):
        raise OrdmapError("it can't begin")

    def close(self):
        """Do nothing."""


def test_a_fault_of_ours_keeps_all_frames(monkeypatch):
    monkeypatch.setattr(Window, "_drop_given_out", lambda self: self.no_such_name)
    monkeypatch.setattr(Window._drop_given_out, "__code__", _in_the_package(Window._drop_given_out.__code__))
    with pytest.raises(AttributeError) as caught:
        list(ordered_map(str, range(3), workers=2, backend="threads"))
    assert [entry.name for entry in ours(caught.value)][:2] == ["take", "_advance"]
    assert len(ours(caught.value)) > 4


def _in_the_package(code):
    return code.replace(co_filename=os.path.join(OURS, "window.py"))  # noqa: PTH118


def test_an_error_whose_class_refuses_attributes_arrives():
    class Strict(Exception):
        def __setattr__(self, name, value):
            raise TypeError("it can't be changed")

    def fail(_):
        raise Strict

    with pytest.raises(Strict) as caught:
        list(ordered_map(fail, [1], workers=1, backend="threads"))
    assert not ours(caught.value)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_repr_says_where_it_is(backend):
    workers = 0 if backend == "serial" else 2
    where = "serial" if backend == "serial" else f"{backend} × 2"
    results = ordered_imap(range(100), workers, backend=backend)
    assert repr(results) == f"<OrderedIterator 0 of 100, {where}>"
    assert results.stats.in_flight == 0
    for _ in range(3):
        next(results)
    assert repr(results) == str(results) == f"<OrderedIterator 3 of 100, {where}>"
    results.close()
    assert repr(results) == f"<OrderedIterator ended after 3, {where}>"


def test_the_repr_where_no_length_is_known():
    endless = ordered_map(str, itertools.count(), workers=2, backend="threads")
    assert repr(endless) == "<OrderedIterator 0 so far, threads × 2>"
    next(endless)
    assert repr(endless) == "<OrderedIterator 1 so far, threads × 2>"
    endless.close()
    assert repr(ordered_imap("abc", 0, epochs=None)) == "<OrderedIterator 0 so far, serial>"
    assert repr(ordered_imap("abc", 0, epochs=2)) == "<OrderedIterator 0 of 6, serial>"
    all_of_them = ordered_map(str, "abc", workers=0)
    list(all_of_them)
    assert repr(all_of_them) == "<OrderedIterator ended after 3, serial>"


def test_the_repr_where_the_length_can_t_be_had():
    class Moody(list):
        def __len__(self):
            raise RuntimeError("not now")

    results = ordered_map(str, Moody("abc"), workers=0)
    assert repr(results) == "<OrderedIterator 0 so far, serial>"
