"""A source is let go at once, with no collection of garbage; and no way out leaves any garbage."""

from __future__ import annotations

import asyncio
import copyreg
import functools
import gc
import itertools
from types import TracebackType

import pytest
import tblib.pickling_support

from ordmap import ParallelDataset, mapped, ordered_imap, ordered_map
from ordmap.testing import wait_until

BACKENDS = pytest.mark.parametrize(
    "options",
    [
        pytest.param({"workers": 0}, id="serial"),
        pytest.param({"workers": 2, "backend": "processes"}, id="processes"),
        pytest.param({"workers": 2, "backend": "threads"}, id="threads"),
        pytest.param({"workers": 2, "backend": "spawn"}, id="spawn", marks=pytest.mark.long),  # a second each
    ],
)


def item(number):
    if number == 3:
        raise ValueError(number)
    return number


class Source:
    """An iterator with a `close`, which is called where it is dropped, too."""

    def __init__(self, closed):
        self._closed = closed
        self._numbers = itertools.count()

    def __iter__(self):
        return self

    def __next__(self):
        return next(self._numbers)

    def close(self):
        self._closed[:] = ["closed"]

    __del__ = close


def generator(closed):
    try:
        yield from range(1000)
    finally:
        closed.append("closed")


def failing(closed):
    try:
        yield 1
        raise LookupError
    finally:
        closed.append("closed")


def leave_by_break(results):
    for _ in results:
        break


def leave_by_del(results):
    next(results)
    del results


def leave_by_error(results):
    with pytest.raises(KeyError):
        _raise_in_body(results)


def _raise_in_body(results):
    for _ in results:
        raise KeyError


def leave_by_error_of_item(results):
    with pytest.raises(ValueError, match="3"):
        list(results)


def leave_by_close(results):
    next(results)
    results.close()


WAYS = pytest.mark.parametrize(
    "leave", [leave_by_break, leave_by_del, leave_by_error, leave_by_error_of_item, leave_by_close]
)

SOURCES = {
    "generator": generator,
    "islice": lambda closed: itertools.islice(generator(closed), 500),
    "enumerate": lambda closed: (n for n, _ in enumerate(generator(closed))),
    "close": Source,
}


@pytest.fixture
def no_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@BACKENDS
@WAYS
@pytest.mark.parametrize("source", SOURCES)
def test_a_source_is_closed_at_once(options, leave, source, no_collector):
    closed = []
    leave(ordered_map(item, SOURCES[source](closed), **options))
    assert closed == ["closed"]


@BACKENDS
@WAYS
def test_so_is_an_order(options, leave, no_collector):
    closed = []
    leave(ordered_imap(mapped(item, range(1000)), indices=generator(closed), **options))
    assert closed == ["closed"]


@BACKENDS
@WAYS
@pytest.mark.parametrize("order", [False, True], ids=["source", "indices"])
def test_there_is_no_garbage(options, leave, order):
    def run():
        if order:
            leave(ordered_imap(mapped(item, range(1000)), indices=generator([]), **options))
        else:
            leave(ordered_map(item, generator([]), **options))

    assert garbage_of(run) == []


@BACKENDS
def test_nor_where_tracebacks_travel(options, monkeypatch):
    """As tblib has it, for all exceptions once Dask is imported: their frames lead back to those that unpickle them."""
    for kind in (ValueError, TracebackType):
        monkeypatch.setitem(copyreg.dispatch_table, kind, None)
    tblib.pickling_support.install(ValueError)
    assert garbage_of(lambda: leave_by_error_of_item(ordered_map(item, generator([]), **options))) == []
    assert garbage_of(lambda: leave_by_close(ordered_map(RuntimeError, generator([]), **options))) == []


@BACKENDS
@pytest.mark.parametrize("source", [failing, lambda _: iter(range(50)), lambda _: (n for n in range(2))])
def test_nor_at_the_end_or_after_an_error_of_the_source(options, source):
    def run():
        try:
            list(ordered_map(abs, source([]), **options))
        except LookupError:
            return

    assert garbage_of(run) == []


@BACKENDS
@pytest.mark.parametrize("bad", ["x", 1000, -1])
def test_nor_after_an_index_that_is_none(options, bad):
    def run():
        for _ in ordered_imap(range(10), indices=iter([1, bad, 2]), on_error="return", **options):
            pass
        try:
            list(ordered_imap(range(10), indices=iter([1, bad, 2]), **options))
        except (TypeError, IndexError):
            return

    assert garbage_of(run) == []


class Raising:
    """An iterator whose frames are those of a function, as a generator's are from Python 3.12 on."""

    def __init__(self, raised):
        self._raised = raised
        self._numbers = iter(range(3))

    def __iter__(self):
        return self

    def __next__(self):
        for number in self._numbers:
            return number
        self._raised.touch()
        raise LookupError


def raising(raised):
    yield from range(3)
    raised.touch()
    raise LookupError


@pytest.mark.parametrize("backend", ["processes", "threads"])
@pytest.mark.parametrize("source", [Raising, raising])
@pytest.mark.parametrize("order", [False, True], ids=["source", "indices"])
def test_nor_where_the_loop_is_closed_before_the_turn_of_an_error(backend, source, order, tmp_path):
    raised = tmp_path / "raised"

    def wait(number):
        wait_until(raised.exists, "the source raises")
        return number

    def run():
        raised.unlink(missing_ok=True)
        items, more = (mapped(wait, range(9)), {"indices": source(raised)}) if order else (source(raised), {})
        make = ordered_imap if order else functools.partial(ordered_map, wait)
        with make(items, workers=2, backend=backend, prefetch=8, chunksize=1, **more) as results:
            assert next(results) == 0
        assert raised.exists()

    assert garbage_of(run) == []


def test_async_for_and_parallel_datasets():
    closed = []

    async def main():
        async for _ in ordered_map(abs, generator(closed), workers=2):
            break

    gc.collect()
    gc.disable()
    try:
        asyncio.run(main())
        assert closed == ["closed"]
        with ParallelDataset(range(100), workers=2) as parallel:
            leave_by_break(iter(parallel))
    finally:
        gc.enable()


def garbage_of(run):
    """Return what of ours a run leaves to the collector, once all is imported that it needs."""
    run()
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        run()
        gc.collect()
        return [repr(one)[:200] for one in gc.garbage if type(one).__module__.partition(".")[0] == "ordmap"]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
