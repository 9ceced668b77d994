"""Sources that use their memory again: what is given is what it was when it was pulled, as with `map`."""

from __future__ import annotations

import asyncio
import itertools
import types
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ordmap import Processes, Spawn, ordered_imap, ordered_map
from ordmap.backends import portable

N = 120
SIZES = st.sampled_from([1, 40, 3000])  # the last lies in a crate


def told(one):
    """Return all that an input holds, as plain values."""
    if isinstance(one, np.ndarray | memoryview | bytearray):
        return [type(one).__name__ == "ndarray", float(np.asarray(one).ravel()[0]), float(np.asarray(one).ravel()[-1])]
    if isinstance(one, dict):
        return {name: told(value) for name, value in one.items()}
    if isinstance(one, list | tuple | set):
        return [told(value) for value in one]
    if isinstance(one, types.SimpleNamespace):
        return told(vars(one))
    return one


def filled(buffers, count=N):
    """Yield some buffers in turn, each filled anew."""
    for number, buffer in zip(range(count), itertools.cycle(buffers), strict=False):
        buffer[:] = number % 251
        yield buffer


def rows(count=N):
    row = [None, None]
    for number in range(count):
        row[:] = [number, str(number)]
        yield row


def header_first(count=N):
    yield "header"
    yield None
    yield (1, "two")
    yield from filled([np.zeros(3)], count)


def attributes(count=N):
    record = types.SimpleNamespace(frame=np.zeros(3000), at=0)
    for number in range(count):
        record.frame[:] = record.at = number
        yield record


def views(count=N):
    whole = bytearray(64)
    for number in range(count):
        whole[:] = bytes([number % 251]) * 64
        yield bytearray(whole) if number % 3 else np.frombuffer(whole, np.uint8)[3:9]


def fresh_views(count=N):
    """Yield new views, each time, of an array and a buffer that are filled anew."""
    whole, buffer = np.zeros(64, np.uint8), bytearray(64)
    for number in range(count):
        whole[:] = number % 251
        buffer[:] = bytes([number % 251]) * 64
        yield whole[1:][::2] if number % 2 else np.frombuffer(buffer, np.uint8)


def grown(count=N):
    """Yield a dict that gets one more entry each time, and a list within it."""
    seen = {"all": []}
    for number in range(count):
        seen["all"].append(number)
        seen[number % 5] = number
        yield seen


SHAPES = {
    "fresh views": fresh_views,
    "one": lambda: filled([np.zeros(1000)]),
    "large": lambda: filled([np.zeros(9000)]),
    "enumerate": lambda: enumerate(filled([np.zeros(1000)])),
    "ring": lambda: filled([np.zeros(9000), np.zeros(10), np.zeros(9000)]),
    "dict": lambda: ({"n": n, "frame": frame} for n, frame in enumerate(filled([np.zeros(2500)]))),
    "rows": rows,
    "header": header_first,
    "attributes": attributes,
    "views": views,
    "bytearray": lambda: filled([bytearray(1)], 1) and (b for b in map(bytearray, views())),
    "grown": grown,
    "sizes": lambda: filled([np.zeros(9000), np.zeros(3), np.zeros(70_000)]),
}


@pytest.fixture(scope="module", params=["processes", "spawn", "portable", "borrowed"])
def pool(request):
    if request.param == "borrowed":
        with ProcessPoolExecutor(2, mp_context=get_context("fork")) as executor:
            yield executor
        return
    make = {"processes": Processes, "spawn": Spawn, "portable": portable.Processes}[request.param]
    with make(2) as pool:
        yield pool


@pytest.mark.others_workers
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("options", [{}, {"chunksize": 7, "prefetch": 40}], ids=["adaptive", "sevens"])
def test_the_answer_is_that_of_map(pool, shape, options):
    assert list(ordered_map(told, SHAPES[shape](), backend=pool, **options)) == list(map(told, SHAPES[shape]()))


@pytest.mark.others_workers
def test_several_iterables_in_step(pool):
    def sources():
        return range(N), filled([np.zeros(10)]), rows()

    found = list(ordered_map(lambda *all: told(all), *sources(), backend=pool))
    assert found == [told(each) for each in zip(*sources(), strict=True)]


def test_an_index_that_is_filled_anew():
    def order():
        index = np.zeros((), int)
        for number in range(N):
            index[...] = number * 7 % N
            yield index

    for workers in (0, 2):
        assert list(ordered_imap(range(N), workers, indices=order())) == [n * 7 % N for n in range(N)]


@pytest.mark.parametrize("size", [10, 9000])
def test_an_attempt_that_follows_a_death_has_the_same_bytes(size, tmp_path):
    def item(array):
        number = int(array[0])
        if number % 10 == 4 and not (tmp_path / str(number)).exists():
            (tmp_path / str(number)).touch()
            array[:] = -1
            if number % 20 == 4:
                raise LookupError
            __import__("os")._exit(3)
        return number, float(array.min()), float(array.max())

    found = list(ordered_map(item, filled([np.zeros(size)], 60), workers=2, retries=1))
    assert found == [(n, n, n) for n in range(60)]


def test_an_asynchronous_source():
    async def frames():
        frame = np.zeros(9000)
        for number in range(40):
            await asyncio.sleep(0)
            frame[:] = number
            yield frame

    async def main():
        return [n async for n in ordered_map(lambda frame: float(frame[-1]), frames(), workers=2)]

    assert asyncio.run(main()) == list(range(40))


@pytest.mark.others_workers
@given(
    size=SIZES,
    ring=st.integers(1, 3),
    nesting=st.lists(st.sampled_from(["tuple", "list", "dict", "object"]), max_size=3),
    between=st.sampled_from([None, 5, "text", (1, None)]),
    chunksize=st.sampled_from([None, 1, 6]),
)
@settings(max_examples=25)
def test_any_nesting(warm, size, ring, nesting, between, chunksize):
    def source():
        for number, frame in enumerate(filled([np.zeros(size) for _ in range(ring)], 40)):
            one = frame
            for kind in nesting:
                one = {
                    "tuple": lambda: (number, one),  # noqa: B023  called at once
                    "list": lambda: [one],  # noqa: B023
                    "dict": lambda: {"one": one},  # noqa: B023
                    "object": lambda: types.SimpleNamespace(one=one),  # noqa: B023
                }[kind]()
            yield one
            if number % 3 == 0:
                yield between

    options = {} if chunksize is None else {"chunksize": chunksize, "prefetch": 12}
    assert list(ordered_map(told, source(), backend=warm, **options)) == list(map(told, source()))


CHANGING = {
    name: SHAPES[name]
    for name in ("one", "large", "enumerate", "ring", "dict", "rows", "attributes", "grown", "fresh views")
}


@pytest.mark.parametrize("shape", CHANGING)
@pytest.mark.parametrize("options", [{}, {"prefetch": 40}, {"prefetch": 60, "chunksize": 30}])
def test_threads_can_not_copy_and_say_so_once(shape, options):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert len(list(ordered_map(id, CHANGING[shape](), workers=2, backend="threads", **options))) == N
    (warning,) = said
    assert warning.filename == __file__
    assert "copy" in str(warning.message)


def test_coroutines_neither():
    async def first(frame):
        return frame[0]

    with pytest.warns(RuntimeWarning, match="fills an object anew"):
        list(ordered_map(first, filled([np.zeros(3)]), backend="asyncio"))


STEADY = {
    "options": lambda: ((n, OPTIONS) for n in range(N)),
    "one table": lambda: itertools.repeat(TABLE, N),
    "rows of a table": lambda: iter(TABLE),
    "fresh arrays": lambda: (np.full(3, n) for n in range(N)),
    "fresh dicts": lambda: ({"n": n, "table": TABLE} for n in range(N)),
    "parts of one buffer": lambda: (memoryview(WHOLE)[n : n + 1] for n in range(N)),
    "an object": lambda: itertools.repeat(types.SimpleNamespace(a=1, b=[TABLE, float("nan")]), N),
}
OPTIONS = {"a": 1, "b": [1, float("nan")], "lock": object()}
TABLE = np.zeros((N, 30_000))
WHOLE = bytearray(N)


@pytest.mark.parametrize("shape", STEADY)
def test_to_give_an_object_again_is_no_fault(shape):
    assert len(list(ordered_map(type, STEADY[shape](), workers=2, backend="threads"))) == N


def test_nor_is_it_where_items_write_to_what_they_share():
    def write(pair):
        number, out, seen = pair
        out[number] = number
        seen.append(number)
        return number

    out, seen = np.zeros(N), []
    pairs = ((n, out, seen) for n in range(N))
    assert list(ordered_map(write, pairs, workers=2, backend="threads", prefetch=2)) == [*range(N)]


@pytest.mark.parametrize("shape", CHANGING)
def test_without_workers_it_is_right_without_a_word(shape):
    assert list(ordered_map(told, CHANGING[shape](), workers=0)) == list(map(told, CHANGING[shape]()))


@pytest.fixture(scope="module")
def warm():
    with Processes(2) as pool:
        yield pool
