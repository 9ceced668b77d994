"""What travels comes whole, and carries no more than it is: arrays in files, slices, exceptions with what can't travel."""

from __future__ import annotations

import copyreg
import dataclasses
import io
import logging
import mmap
import os
import pickle
import random
import re
import subprocess
import sys
import threading
import types
import urllib.error
from concurrent.futures import Future, ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

import numpy as np
import pytest

from ordmap import FromExecutor, Processes, RemoteError, ordered_imap, ordered_map
from ordmap import by_value
from ordmap.backends.inputs import InputPickler
from ordmap.backends.portable import Spawn as PortableSpawn
from ordmap.engine import available
from ordmap.engine.parcel import Parcel, unpacked_parcel
from ordmap.outcome import serialise
from ordmap.reducers import INPUT, JOB, RESULT, pickled_array, reducers
from ordmap.reducers.purpose import PURPOSES
from ordmap.sparing import dumped_in_part
from ordmap.testing import outcomes
from test_engine import Items

pytestmark = pytest.mark.skipif(not available(), reason="the engine is for Linux")

ENGINE = ["processes", "spawn"]


def pickled(value, purpose=RESULT):
    file = io.BytesIO()
    pickler = pickle.Pickler(file, pickle.HIGHEST_PROTOCOL)
    pickler.dispatch_table = reducers(purpose)
    pickler.dump(value)
    return file.getvalue()


def parted(value):
    """Return a value that has travelled as a job does, with its buffers beside its pickle."""
    parcel = Parcel(value)
    file = os.dup(parcel.file)
    parcel.close()
    return unpacked_parcel(file)


#: How a value comes out of each pickler, for each purpose that it is used for.
WAYS = {
    **{f"plain, {purpose}": partial(lambda purpose, one: pickle.loads(pickled(one, purpose)), purpose)
       for purpose in PURPOSES},
    **{f"by value, {purpose}": partial(lambda purpose, one: pickle.loads(by_value.dumps(one, None, purpose)), purpose)
       for purpose in PURPOSES},
    "input": lambda one: pickle.loads(InputPickler().dumps(one)),
    "input for another machine": lambda one: pickle.loads(InputPickler(purpose=RESULT).dumps(one)),
    "result": lambda one: pickle.loads(serialise(one)),
    "in part": lambda one: pickle.loads(dumped_in_part(one, lambda error: error.__reduce__())),
    "job": parted,
}  # fmt: skip


# Arrays in files


@pytest.fixture
def numbers(tmp_path):
    """A file of 200 rows of 1,000 numbers each."""
    path = tmp_path / "numbers.dat"
    np.arange(200_000, dtype=np.int32).tofile(path)
    return path


def mapped(path, mode="r", **how):
    return np.memmap(path, np.int32, mode, shape=(200, 1_000), **how)


VIEWS = {
    "whole": lambda m: m,
    "rows": lambda m: m[3:90],
    "every second, from the end": lambda m: m[::-2, ::3],
    "transposed": lambda m: m.T,
    "as an array": lambda m: np.asarray(m)[5:, 7],
    "other numbers": lambda m: m.view(np.int16)[::-1],
    "broadcast": lambda m: np.broadcast_to(m[0], (5, 1_000)),
    "of no dimension": lambda m: m[3, 3:4].reshape(()),
    "empty": lambda m: m[5:5],
}


@pytest.mark.parametrize("mode", ["r", "r+"])
@pytest.mark.parametrize("view", VIEWS)
def test_a_view_of_a_file_goes_to_a_job_by_name_and_is_the_same_view(numbers, view, mode):
    sent = VIEWS[view](mapped(numbers, mode))
    data = pickled(sent, JOB)
    assert len(data) < 500
    for _ in range(2):
        got = pickle.loads(data)
        assert (type(got), got.dtype, got.shape, got.strides) == (type(sent), sent.dtype, sent.shape, sent.strides)
        assert (got == sent).all()
        assert got.flags.writeable == sent.flags.writeable
        if isinstance(sent, np.memmap):
            assert (got.filename, got.mode, got.offset) == (sent.filename, sent.mode, sent.offset)
        assert len(pickled(got, JOB)) < 500
        data = pickled(got, JOB)


def test_a_file_is_mapped_once_for_all_rows(numbers):
    whole = mapped(numbers, offset=0)
    rows = pickle.loads(pickled(list(whole), JOB))
    assert len({id(row._mmap) for row in rows}) == 1
    assert all((row == expected).all() for row, expected in zip(rows, whole, strict=True))


def gone(path):
    path.unlink()


def replaced(path):
    other = path.with_name("other")
    np.zeros(200_000, np.int32).tofile(other)
    other.rename(path)


def truncated_and_gone(path):
    path.rename(path.with_name("elsewhere"))


@pytest.mark.parametrize("what", [gone, replaced, truncated_and_gone])
@pytest.mark.parametrize("sent_before", [False, True])
def test_a_file_that_its_name_leads_to_no_more_goes_by_value(numbers, what, sent_before):
    sent = mapped(numbers)
    if sent_before:
        pickled(sent, JOB)
    what(numbers)
    data = pickled(sent, JOB)
    assert len(data) > 800_000
    assert (pickle.loads(data) == np.arange(200_000).reshape(200, 1_000)).all()


@pytest.mark.parametrize("what", [gone, replaced])
def test_a_file_that_is_gone_when_it_is_opened_is_an_error_and_no_other_file_s_numbers(numbers, what):
    data = pickled(mapped(numbers), JOB)
    what(numbers)
    with pytest.raises(OSError, match=r"numbers\.dat"):
        pickle.loads(data)


def test_what_is_in_no_file_goes_by_value(numbers):
    private = mapped(numbers, "c")
    private[0] = 7
    computed = mapped(numbers) + 1
    anonymous = np.frombuffer(mmap.mmap(-1, 8_000), np.int64)
    for sent in (private, computed, anonymous, mapped(numbers).copy()):
        got = pickle.loads(pickled(sent, JOB))
        assert type(got) is type(sent)
        assert (got == sent).all()
        assert got.flags.writeable


def test_results_and_inputs_that_may_be_written_to_go_by_value(numbers):
    """Their source, or item, may use the file for the next."""
    assert len(pickled(mapped(numbers), RESULT)) > 800_000
    assert len(pickled(mapped(numbers, "r+"), INPUT)) > 800_000
    assert len(pickled(mapped(numbers), INPUT)) < 500


class Rows:
    def __init__(self, rows):
        self.held = {"rows": [rows]}

    def __len__(self):
        return 20

    def __getitem__(self, index):
        rows = self.held["rows"][0]
        if rows.flags.writeable:
            rows[index, 0] = -index
        return int(rows[index, 5]), type(rows).__name__, getattr(rows, "mode", None), rows.base is not None


@pytest.mark.others_workers
@pytest.mark.parametrize("backend", ["spawn", "warm", "portable", "executor", "loky"])
def test_workers_map_the_dataset_s_file_and_write_to_it(numbers, backend):
    rows = mapped(numbers, "r+")
    opened = {
        "spawn": lambda: "spawn",
        "warm": lambda: Processes(2).start(),
        "portable": lambda: PortableSpawn(2),
        "executor": lambda: ProcessPoolExecutor(2, mp_context=get_context("spawn")),
        "loky": lambda: pytest.importorskip("loky").ProcessPoolExecutor(2),
    }[backend]()
    try:
        given = FromExecutor(opened) if backend in {"executor", "loky"} else opened
        found = list(ordered_imap(Rows(rows), None if given is not opened or backend != "spawn" else 2, backend=given))
    finally:
        if backend in {"executor", "loky"}:
            opened.shutdown()
        elif backend != "spawn":
            opened.close()
    assert found == [(1_000 * n + 5, "memmap", "r+", True) for n in range(20)]
    assert list(rows[:20, 0]) == [-n for n in range(20)]  # as with a plain loop


@pytest.mark.parametrize("backend", ENGINE)
def test_a_source_that_fills_one_file_again_has_each_input_as_it_was(numbers, backend):
    def source():
        rows = mapped(numbers, "r+")
        for n in range(60):
            rows[:] = n
            yield n, rows[:50]

    found = list(
        ordered_map(lambda pair: (pair[0], int(pair[1].max())), source(), workers=2, backend=backend, chunksize=1)
    )
    assert found == [(n, n) for n in range(60)]


@pytest.mark.parametrize("backend", ENGINE)
def test_an_item_s_own_file_may_be_gone_when_its_result_is_there(tmp_path, backend):
    def item(index):
        path = tmp_path / f"{os.getpid()}.dat"
        made = np.memmap(path, np.float64, "w+", shape=(5_000,))
        made[:] = index
        path.unlink()
        return made

    for index, got in enumerate(ordered_imap(Items(12, item), 2, 6, backend=backend)):
        assert type(got) is np.memmap
        assert (got == index).all()
        got += 1


# Slices of arrow's, and views of mappings


def arrow_kinds(pa):
    n = 20_000
    texts = [f"a text of some length {i}" for i in range(n)]
    tables = pa.table({"n": range(n), "s": texts, "l": [[i, i] for i in range(n)]})
    half = n // 2
    members = [pa.array(range(half)), pa.array(texts[:half])]
    return {
        "table": tables,
        "record batch": tables.to_batches()[0],
        "chunked": pa.chunked_array([tables["s"].chunk(0)[:half], tables["s"].chunk(0)[half:]]),
        "numbers with nulls": pa.array([i if i % 3 else None for i in range(n)]),
        "booleans": pa.array([i % 2 == 0 for i in range(n)]),
        "long texts": tables["s"].chunk(0).cast(pa.large_string()),
        "views": tables["s"].chunk(0).cast(pa.string_view()),
        "views of bytes": tables["s"].chunk(0).cast(pa.binary()).cast(pa.binary_view()),
        "dictionary": pa.array([str(i % 9) for i in range(n)]).dictionary_encode(),
        "lists": tables["l"].chunk(0),
        "views of lists": pa.array([[i, i] for i in range(n)], pa.list_view(pa.int64())),
        "lists of fixed size": pa.FixedSizeListArray.from_arrays(pa.array(range(2 * n)), 2),
        "maps": pa.array([[("k", i)] for i in range(n)], pa.map_(pa.string(), pa.int64())),
        "structs": pa.array([{"a": i, "b": texts[i]} for i in range(n)]),
        "runs": pa.RunEndEncodedArray.from_arrays(pa.array(range(1, n + 1), pa.int64()), pa.array(range(n))),
        "sparse union": pa.UnionArray.from_sparse(
            pa.array([0, 1] * half, pa.int8()), [pa.array(range(n)), pa.array(texts)]
        ),
        "dense union": pa.UnionArray.from_dense(
            pa.array([0, 1] * half, pa.int8()), pa.array([i // 2 for i in range(n)], pa.int32()), members
        ),
        "extension": pa.array([bytes(16)] * n, pa.uuid()),
        "nothing": pa.nulls(n),
    }


@pytest.fixture(scope="module")
def arrow():
    pa = pytest.importorskip("pyarrow")
    return arrow_kinds(pa)


@pytest.mark.parametrize("purpose", [RESULT, INPUT, JOB])
def test_slices_of_arrow_s_carry_their_rows(arrow, purpose):
    for kind, whole in arrow.items():
        for sent in (whole, whole.slice(7, 40), whole.slice(0, 40), whole.slice(19_990), whole.slice(5, 0)):
            got = pickle.loads(pickled(sent, purpose))
            assert type(got) is type(sent), kind
            assert got.equals(sent), kind
            if len(sent) <= 40:
                assert len(pickled(sent, purpose)) < 12_000, kind
        nested = pickle.loads(pickled({"a": [whole.slice(7, 40)]}, purpose))
        assert nested["a"][0].equals(whole.slice(7, 40)), kind


@pytest.mark.parametrize("way", WAYS)
def test_what_has_a_reducer_of_ours_comes_out_of_every_pickler(arrow, numbers, way):
    travel = WAYS[way]
    for kind, whole in arrow.items():
        for sent in (whole, whole.slice(7, 40)):
            got = travel({"one": [sent], "same": sent})
            assert got["one"][0] is got["same"], kind
            assert type(got["same"]) is type(sent), kind
            assert got["same"].equals(sent), kind
    rows = np.arange(6_000.0).reshape(60, 100)
    arrays = [rows, rows[:3, :2], rows[::2], rows.astype(">i4"), np.asfortranarray(rows), np.ma.masked_less(rows, 9),
              np.array(["a", None]), mapped(numbers), mapped(numbers)[5:9], np.float32(3)]  # fmt: skip
    for sent in arrays:
        got = travel([sent])[0]
        assert type(got) is type(sent)
        assert got.dtype == sent.dtype
        assert np.array_equal(got, sent)
    proxies = [types.MappingProxyType({"a": [1]}), memoryview(b"text"), memoryview(bytearray(50_000))]
    assert travel(proxies) == proxies


@pytest.mark.parametrize(
    "library",
    [
        "numpy",
        "msgpack",
        *(pytest.param(name, marks=pytest.mark.long) for name in ("pyarrow", "pandas", "scipy.spatial", "lxml.etree")),
    ],
)
def test_a_script_s_globals_may_be_of_libraries_that_cython_has_compiled(tmp_path, library):
    pytest.importorskip(library)
    script = tmp_path / "script.py"
    script.write_text(CYTHON[library] + MAPPED)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, check=False)
    assert (done.stdout, done.stderr) == ("as a plain loop\n", "")


MAPPED = """
from ordmap import ordered_map

def item(i):
    return use(one, i)

class Rows:
    def __init__(self):
        self.one = one

    def __len__(self):
        return 4

    def __getitem__(self, i):
        return use(self.one, i)

if __name__ == "__main__":
    plain = [use(one, i) for i in range(4)]
    how = {"workers": 2, "backend": "spawn"}
    assert list(ordered_map(item, range(4), **how)) == plain
    assert list(ordered_map(Rows().__getitem__, range(4), **how)) == plain
    assert list(ordered_map(lambda pair: use(*pair), [(one, i) for i in range(4)], **how)) == plain
    assert [use(got, 1) for got in ordered_map(lambda i: one, range(2), **how)] == [use(one, 1)] * 2
    print("as a plain loop")
"""

#: By library: something of it, and what an item makes of that and a number.
CYTHON = {
    "numpy": """
from copy import deepcopy
import numpy as np
one = {"draws": np.random.default_rng(3), "old": np.random.RandomState(4), "call": np.random.default_rng(0).random}

def use(one, i):
    one = deepcopy(one)
    return one["draws"].random(i).tolist(), one["old"].rand(), one["call"]()
""",
    "pyarrow": """
import pyarrow as pa
one = {"table": pa.table({"a": list(range(100))}), "type": pa.int64(), "call": pa.concat_arrays, "number": pa.scalar(3)}

def use(one, i):
    rows = one["table"].slice(i, 3)
    return rows.num_rows, one["call"](rows["a"].chunks).to_pylist(), str(one["type"]), one["number"].as_py()
""",
    "pandas": """
import pandas as pd
one = {"frame": pd.DataFrame({"a": range(9), "s": list("abcdefghi")}), "day": pd.Timestamp("2020-01-01", tz="UTC"),
       "days": pd.period_range("2020-01", periods=9, freq="M"), "call": pd.isna}

def use(one, i):
    row = one["frame"].iloc[i]
    return int(row["a"]), row["s"], str(one["day"]), str(one["days"][i]), bool(one["call"](None))
""",
    "scipy.spatial": """
from scipy.spatial import cKDTree
from scipy.special import cython_special
one = [cKDTree([[0.0], [1.0], [2.0], [3.0]]), cython_special.gamma]

def use(one, i):
    return int(one[0].query([i])[1])
""",
    "msgpack": """
import msgpack
from msgpack import unpackb
one = [unpackb, msgpack.packb]

def use(one, i):
    return one[0](one[1]([i])), unpackb(b"\\x01")
""",
    "lxml.etree": """
from lxml.etree import fromstring, tostring
one = [fromstring, tostring]

def use(one, i):
    return one[1](one[0](f"<a>{i}</a>"))
""",
}


def test_what_is_no_slice_of_arrow_s_is_not_copied_on_its_way():
    pa = pytest.importorskip("pyarrow")
    numbers = pa.array(np.arange(100_000))
    buffers = []
    file = io.BytesIO()
    pickler = pickle.Pickler(file, pickle.HIGHEST_PROTOCOL, buffer_callback=buffers.append)
    pickler.dispatch_table = reducers()
    pickler.dump([numbers, numbers.slice(5_000)])
    assert [np.frombuffer(buffer, np.uint8).ctypes.data for buffer in buffers] == [numbers.buffers()[1].address] * 2


def test_slices_of_pandas_backed_by_arrow_carry_their_rows():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"s": [f"row {n}" for n in range(50_000)], "n": range(50_000)})
    frame = frame.convert_dtypes(dtype_backend="pyarrow")
    assert len(pickled(frame)) > 500_000
    for sent in (frame.iloc[100:120], frame[frame["n"] < 9], frame["s"].iloc[::5_000]):
        assert len(pickled(sent)) < 6_000
        assert pickle.loads(pickled(sent)).equals(sent)


@pytest.mark.parametrize("backend", ENGINE)
def test_kept_slices_of_arrow_s_weigh_what_their_rows_do(arrow, backend):
    table = arrow["table"]
    found = list(ordered_map(lambda rows: (rows, rows.slice(0, 5)), [table.slice(i, 50) for i in range(20)], workers=2,
                             backend=backend))  # fmt: skip
    for i, (rows, few) in enumerate(found):
        assert rows.equals(table.slice(i, 50))
        assert few.equals(table.slice(i, 5))
        assert rows.get_total_buffer_size() < 10_000


@pytest.mark.parametrize("backend", ENGINE)
def test_views_of_mappings_come_as_they_are(backend):
    views = [types.MappingProxyType({"a": [n]}) for n in range(6)]
    found = list(ordered_map(lambda view: view, views, workers=2, backend=backend))
    assert found == views
    assert all(type(view) is types.MappingProxyType for view in found)


# Exceptions


class Handle:
    """Ends something when it ends, and can't do so by half."""

    def __init__(self):
        self.file = (line for line in ())
        self.name = "null"

    def __del__(self):
        self.file.close()


class HeldError(Exception):
    """Has what can't travel, among what can."""

    def __init__(self, index, *, handle):
        super().__init__(f"item {index}", handle)
        self.handle, self.index, self.lines = handle, index, ["one", "two"]
        self.function = lambda x: x + index

    def __str__(self):
        return f"{self.args[0]} of {self.lines}"


class ForgetfulError(Exception):
    """Says how it is pickled, and says it wrong."""

    def __init__(self, message, detail):
        super().__init__(f"{message}: {detail}")
        self.detail = detail

    def __reduce__(self):
        return type(self), ("nothing", None)


class RefusingError(ForgetfulError):
    def __reduce__(self):
        raise TypeError("never")


class HalfForgetfulError(ForgetfulError):
    def __init__(self, message):
        super().__init__(message, "d")

    def __reduce__(self):
        return type(self), (str(self).partition(":")[0],)


class WaitingError(Exception):
    """Has locks within, as a future has."""

    def __init__(self, future):
        super().__init__("waited")
        self.future = future


def raised(kind):
    if kind == "held":
        raise HeldError(3, handle=Handle())
    if kind == "within":
        raise ValueError("within", HeldError(4, handle=Handle()))
    if kind == "forgetful":
        raise ForgetfulError("really", {"a": 1})
    if kind == "refusing":
        raise RefusingError("really", 2)
    if kind == "half":
        error = HalfForgetfulError("m")
        error.extra = [5]
        raise error
    if kind == "waiting":
        future = Future()
        future.set_exception(KeyError("inner"))
        raise WaitingError(future)
    if kind == "http":
        raise urllib.error.HTTPError("http://a", 404, "Not Found", {"a": "b"}, (line for line in ()))
    if kind == "name":
        undefined  # noqa: B018, F821
    if kind == "syntax":
        error = SyntaxError("odd")
        error.lineno, error.filename = 7, "a.py"
        raise error
    if kind == "thread":
        error = OSError(2, "no such", "a", None, "b")
        error.thread, error.number = threading.current_thread(), 9
        raise error
    if kind == "local":

        class LocalError(Exception):
            pass

        raise LocalError("mine")
    return kind


KINDS = ["held", "within", "forgetful", "refusing", "half", "waiting", "http", "name", "syntax", "thread", "local"]


@pytest.mark.parametrize("backend", ENGINE)
def test_an_exception_loses_what_can_t_travel_and_no_more(backend):
    serial = dict(zip(KINDS, outcomes(ordered_map(raised, KINDS, workers=0)), strict=True))
    found = dict(zip(KINDS, outcomes(ordered_map(raised, KINDS, workers=1, backend=backend)), strict=True))
    for kind in KINDS:
        one, other = serial[kind], found[kind]
        assert type(other).__qualname__ == type(one).__qualname__, kind
        if kind != "within":  # whose text has what is left out
            assert str(other) == str(one), kind
        assert vars(other).keys() == vars(one).keys(), kind
        assert len(other.args) == len(one.args), kind
    notes = {kind: [note for note in error.__notes__ if "left out" in note] for kind, error in found.items()}
    assert {kind for kind, note in notes.items() if note} == {"held", "within", "waiting", "http", "thread"}

    held = found["held"]
    assert (held.index, held.lines, held.function(2)) == (3, ["one", "two"], 5)
    assert notes["held"] == [
        "ordmap: what can't be pickled is left out, or came without a part of it: args[1] (Handle), handle (Handle)"
    ]
    assert type(held.handle).__name__ == "Handle"
    with pytest.raises(AttributeError, match="Handle, left out on the way: .*has no attribute 'name'"):
        held.handle.name  # noqa: B018
    assert repr(pickle.loads(pickle.dumps(held.handle))) == repr(held.handle)

    assert "ordmap: its text was: ('within', HeldError('item 4', " in "".join(notes["within"])
    assert (type(found["within"].args[1]), found["within"].args[1].index) == (HeldError, 4)
    assert found["forgetful"].detail == {"a": 1}
    assert found["half"].extra == [5]
    assert type(found["waiting"].future.exception()) is KeyError  # a lock comes as a new one
    assert (found["http"].code, found["http"].reason, found["http"].headers) == (404, "Not Found", {"a": "b"})
    assert found["name"].name == "undefined"
    assert (found["syntax"].lineno, found["syntax"].filename) == (7, "a.py")
    thread = found["thread"]
    assert (thread.errno, thread.filename, thread.filename2, thread.number) == (2, "a", "b", 9)


def test_a_class_that_the_caller_can_t_have_is_named():
    def fail(_):
        import sys

        module = types.ModuleType("only_there")
        exec("class ThereError(Exception): pass", module.__dict__)  # noqa: S102
        sys.modules["only_there"] = module
        module.__spec__ = types.SimpleNamespace(name="only_there", origin="built-in", has_location=False)
        raise module.ThereError("text")

    (error,) = outcomes(ordered_map(fail, [0], workers=1))
    assert type(error) is RemoteError
    assert (error.type_name, error.remote_message) == ("only_there.ThereError", "text")


# Small arrays that are inputs


def small_arrays():
    """Return arrays, and whether each is copied into its pickle at once."""
    matrix = np.arange(12.0).reshape(3, 4)
    frozen = np.arange(5)
    frozen.flags.writeable = False
    letters = "?bhilqBHILQefdgFDG"
    numbers = [(np.arange(7).astype(letter), True) for letter in letters]
    return [
        *numbers,
        (np.array(3.5), True),
        (matrix, True),
        (matrix[1], True),
        (np.zeros((2, 1, 3, 1)), True),
        (np.zeros(16_383, "u1"), True),
        (np.zeros(16_384, "u1"), False),
        (matrix[:, 1], False),
        (matrix.T, False),
        (matrix.reshape(-1)[3:][1:], True),
        (frozen, True),
        (frozen[1:], True),
        (np.broadcast_arrays(np.arange(3), np.zeros((2, 3)))[0], False),
        (np.zeros((0, 3)), False),
        (np.arange(3, dtype=">i4"), False),
        (np.array(["a", None]), False),
        (np.zeros(3, [("a", "i4"), ("b", "f8")]), False),
        (np.array(["2020-01-01"], "M8[D]"), False),
        (np.frombuffer(bytearray(16)), True),
        (np.frombuffer(bytes(16)), True),
        (np.ma.masked_array([1, 2], [True, False]), False),
    ]


def test_a_small_array_is_copied_into_its_pickle_and_comes_as_it_was():
    pickler = InputPickler(2048)
    for _ in range(2):  # the second time what stands around the numbers is there
        for array, at_once in small_arrays():
            assert (pickled_array(array) is not None) == at_once, array
            got = pickle.loads(pickler.dumps(array), buffers=[bytearray(view) for view in pickler.left_out])
            pickler.left_out.clear()
            assert type(got) is type(array)
            assert (got.dtype, got.shape) == (array.dtype, array.shape)
            # One of broadcast_arrays() calls itself writeable, and warns.
            assert got.flags.writeable == (array.flags.num & (0x400 | 1 << 31) == 0x400)
            assert got.tolist() == array.tolist()
            assert not np.shares_memory(got, array)


def test_of_many_shapes_few_are_remembered():
    for length in range(1, 300):
        assert (pickle.loads(pickled_array(np.full(length, length))) == np.full(length, length)).all()


def test_a_class_of_arrays_that_the_program_has_registered_is_left_to_it(monkeypatch):
    monkeypatch.setitem(copyreg.dispatch_table, np.ndarray, lambda array: (str, ("theirs",)))
    assert pickled_array(np.zeros(3)) is None
    assert pickle.loads(InputPickler().dumps(np.zeros(3))) == "theirs"


# What only its identity tells, and what a class says for itself


SCRIPT_OF_SENTINELS = """
import dataclasses, inspect, smtplib, sys
from ordmap import ordered_map

@dataclasses.dataclass
class Point:
    x: int
    tags: list = dataclasses.field(default_factory=list)

class Base:
    version, limit = 1, None

class Child(Base):
    version = 1

def about(point):
    @dataclasses.dataclass
    class Derived(Point):
        z: int = 3
    required = [field.name for field in dataclasses.fields(point)
                if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING]
    Base.version, Base.limit = 2, 3
    own = Child.version, Child.limit
    Base.version, Base.limit = 1, None
    return required, [field.default is dataclasses.MISSING for field in dataclasses.fields(Derived)], own

class ParserError(SyntaxError):
    def __init__(self, text):
        self.read = text

def fail(number):
    if number == 2:
        raise ParserError("a b")
    if number:
        raise smtplib.SMTPSenderRefused(550, b"no", "a@b")
    raise smtplib.SMTPAuthenticationError(535, b"bad")

if __name__ == "__main__":
    for backend in ("spawn", "processes"):
        assert list(ordered_map(about, [Point(1)] * 3, workers=1, backend=backend)) == [(["x"], [True, True, False], (1, 3))] * 3
        for number, args in enumerate([(535, b"bad"), (550, b"no", "a@b")]):
            try:
                next(ordered_map(fail, [number], workers=1, backend=backend))
            except smtplib.SMTPException as error:
                assert (error.args, str(error), error.errno, error.filename) == (args, str(args), None, None), error
                assert (error.smtp_code, error.smtp_error) == args[:2]
        try:
            next(ordered_map(fail, [2], workers=1, backend=backend))
        except ParserError as error:
            assert (error.args, str(error), error.read) == (("a b",), str(ParserError("a b")), "a b"), error
    print("as it was")
"""


def test_sentinels_are_the_very_same_and_classes_keep_what_is_their_own(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT_OF_SENTINELS)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("as it was\n", "")


def test_only_what_has_no_state_goes_by_its_name_in_its_class_s_module():
    by_name = [dataclasses.MISSING, dataclasses.KW_ONLY, np._NoValue]
    by_value_or_not = [
        random._inst,
        np.random.mtrand._rand,
        logging.root,
        dataclasses._FIELD,
        object(),
        re.compile("a"),
    ]
    assert [by_value._at_its_name(one, type(one))[1][0].__name__ for one in by_name] == [
        "dataclasses",
        "dataclasses",
        "numpy._globals",
    ]
    assert {by_value._at_its_name(one, type(one)) for one in by_value_or_not} == {NotImplemented}
