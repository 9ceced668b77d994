"""Results of other libraries: pandas and pyarrow objects come back equal, writable where they were, and not copied twice."""

from __future__ import annotations

import mmap
import re
from pathlib import Path

import pytest

np = pytest.importorskip("numpy")

from ordmap import ordered_imap
from ordmap.engine import available
from test_engine import Items

pytestmark = pytest.mark.skipif(not available(), reason="the engine is for Linux")


def lies_in_a_block(address: int) -> bool:
    """Whether an address of this process is in memory that a worker handed over."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, end = (int(part, 16) for part in re.match(r"(\w+)-(\w+)", line).groups())
        if start <= address < end:
            return "memfd:ordmap" in line
    return False


@pytest.mark.parametrize("backend", ["processes", "spawn"])
def test_pandas(backend):
    pd = pytest.importorskip("pandas")

    def item(i):
        frame = pd.DataFrame({"n": np.arange(20_000) + i, "x": np.linspace(0, i, 20_000)})
        frame["name"] = [f"row {n}" for n in range(20_000)]
        frame["when"] = pd.date_range("2020-01-01", periods=20_000, freq="h", tz="UTC")
        frame["kind"] = pd.Categorical(["a", "b"] * 10_000)
        return frame.set_index("when")

    for i, got in enumerate(ordered_imap(Items(4, item), 2, 3, backend=backend)):
        pd.testing.assert_frame_equal(got, item(i))
        got.loc[got.index[3], "n"] = -1
        got["x"] *= 2
        assert got["n"].iloc[3] == -1
        assert lies_in_a_block(got["x"].to_numpy().ctypes.data) or got["x"].iloc[-1] == 2 * i


@pytest.mark.parametrize("backend", ["processes", "spawn"])
def test_pyarrow(backend):
    pa = pytest.importorskip("pyarrow")

    def item(i):
        return pa.table({"n": np.arange(50_000) + i, "s": [f"{n} of {i}" for n in range(50_000)]})

    for i, got in enumerate(ordered_imap(Items(4, item), 2, 3, backend=backend)):
        assert got == item(i)
        assert lies_in_a_block(got["n"].chunks[0].buffers()[1].address)


def test_buffers_of_odd_exporters():
    made = {
        "memory map": lambda: bytes(mmap.mmap(-1, 8192)),
        "view of bytearray": lambda: memoryview(bytearray(b"x" * 50_000))[100:],
        "strided view": lambda: memoryview(b"0123456789" * 5_000)[::2],
        "two views of one array": lambda: (lambda a: (a[:4_000], a[1_000:]))(np.arange(9_000)),
        "array of arrays": lambda: np.array([np.arange(3_000), np.ones(9_000)], dtype=object),
        "masked": lambda: np.ma.masked_less(np.arange(9_000), 50),
        "record": lambda: np.rec.fromarrays([np.arange(9_000), np.ones(9_000)], names="a,b"),
        "big-endian": lambda: np.arange(9_000, dtype=">i4"),
        "half": lambda: np.ones((3, 0, 5), np.float16),
        "broadcast": lambda: np.broadcast_to(np.arange(5_000), (3, 5_000)),
        "reversed": lambda: np.arange(9_000)[::-1],
    }
    names = list(made)
    for name, got in zip(names, ordered_imap(Items(len(names), lambda i: made[names[i]]()), 2, 4)):
        expected = made[name]()
        assert type(got) is type(expected), name
        if name == "array of arrays":
            assert all(map(np.array_equal, got, expected))
        elif isinstance(expected, tuple):
            assert all(map(np.array_equal, got, expected))
        elif isinstance(expected, np.ndarray):
            assert got.dtype == expected.dtype
            assert np.array_equal(got, expected)
        else:
            assert got == expected
            assert isinstance(got, bytes) or got.readonly == expected.readonly
