"""Indices that libraries hold under labels, in chunks or in files: read by position, with a state that fits any of them."""

from __future__ import annotations

import subprocess
import sys

TEXT = """
import json, random, sys, warnings
from itertools import islice
import dask.array, h5py, numpy, pandas, polars, pyarrow, xarray, zarr
from ordmap import CheckpointError, batches, ordered_imap, subset

items = [f"item {n}" for n in range(40)]
file = h5py.File(sys.argv[1], "w")

def in_file(order):
    file["order"] = order
    held = file["order"]
    del file["order"]
    return held

def labels(order):
    return [(7 * place + 3) % 40 for place in range(len(order))]

containers = {
    "polars.Series": polars.Series,
    "polars column": lambda order: polars.DataFrame({"row": order}, schema={"row": polars.Int32})["row"],
    "polars.DataFrame": lambda order: polars.DataFrame({"row": order}, schema={"row": polars.UInt8}),
    "polars, chunked": lambda order: polars.concat([polars.Series(order[:2]), polars.Series(order[2:])]),
    "xarray.DataArray": lambda order: xarray.DataArray(order, dims="n", coords={"n": labels(order)}),
    "xarray column": lambda order: xarray.Dataset({"row": ("n", order)}, {"n": labels(order)})["row"],
    "xarray of pandas": lambda order: pandas.Series(order, index=labels(order)).to_xarray(),
    "h5py.Dataset": in_file,
    "zarr.Array": lambda order: zarr.array(numpy.array(order)),
    "dask.array": lambda order: dask.array.from_array(numpy.array(order), chunks=3),
    "pyarrow": pyarrow.array,
}

def made(kind, order, view, **how):
    held = containers[kind](order)
    if view == "indices":
        return ordered_imap(items, 0, indices=held, epochs=2, **how)
    if view == "a function":
        return ordered_imap(items, 0, indices=lambda _: held, epochs=2, **how)
    made = subset(items, held)
    return ordered_imap(made if view == "subset" else batches(made, 3), 0, epochs=2, **how)

chance = random.Random(int(sys.argv[2]))
for kind in containers:
    for view in ("indices", "a function", "subset", "batches"):
        order = [chance.randrange(40) for _ in range(chance.randrange(4, 12))]
        whole = [items[n] for n in order]
        if view == "batches":
            whole = [whole[n : n + 3] for n in range(0, len(whole), 3)]
        whole *= 2
        for cut in range(len(whole) + 1):
            one = made(kind, order, view)
            assert list(islice(one, cut)) == whole[:cut], (kind, view)
            state = json.loads(json.dumps(one.state_dict()))
            other = made(chance.choice([*containers]), order, view)
            other.load_state_dict(state) if view != "a function" else None
            if view == "a function":
                other = made(kind, order, view)
                other.load_state_dict(state)
            assert list(other) == whole[cut:], (kind, view, cut)
        if view != "a function":
            try:
                made(kind, order[1:] + [(order[0] + 1) % 40], view).load_state_dict(state)
            except CheckpointError:
                pass
            else:
                raise AssertionError((kind, view))

def refused(call, text):
    try:
        call()
    except TypeError as error:
        assert text in str(error), error
    else:
        raise AssertionError(text)

for mask in (polars.Series([True, False]), xarray.DataArray([True]), zarr.array(numpy.array([True]))):
    refused(lambda: subset(items, mask), "of a mask, give the positions")
    refused(lambda: ordered_imap(items, indices=mask), "of a mask, give the positions")
for table in (polars.DataFrame({"a": [1, 2], "b": [1, 2]}), xarray.DataArray([[1, 2], [3, 4]])):
    refused(lambda: subset(items, table), "one dimension")
refused(lambda: ordered_imap(items, indices=polars.Series([1, None])), "must be an integer")
refused(lambda: ordered_imap(xarray.Dataset({"a": ("n", [1])}), 0), "not had by index")
refused(lambda: ordered_imap(file, 0), "not had by index")
rows = polars.DataFrame({"a": [1, 2], "b": [3, 4]})
assert [row.rows() for row in ordered_imap(rows, 0)] == [[(1, 3)], [(2, 4)]]
cells = xarray.DataArray([5, 6, 7], dims="n", coords={"n": [2, 1, 0]})
assert [int(cell) for cell in ordered_imap(cells, 0)] == [5, 6, 7]
print("fine")
"""


def test_the_order_is_that_of_the_positions(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(TEXT)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", script, tmp_path / "orders.h5", "7"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("fine\n", "")
