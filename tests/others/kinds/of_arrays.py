"""Kinds of arrays, tables, images and models. Each library is imported where its kinds are made."""

from __future__ import annotations

import functools
import os
import tempfile


def numpy():
    import numpy as np

    class Labelled(np.ndarray):
        pass

    frozen = np.arange(5_000)
    frozen.flags.writeable = False
    return {
        "array": lambda: np.linspace(0, 1, 5_000).reshape(50, 100),
        "small array": lambda: np.arange(3, dtype=np.int16),
        "array of no dimension": lambda: np.array(1.5),
        "empty array": lambda: np.zeros((3, 0)),
        "array in Fortran's order": lambda: np.asfortranarray(np.arange(6_000.0).reshape(60, 100)),
        "every second of an array": lambda: np.arange(9_000)[::2],
        "reversed array": lambda: np.arange(9_000)[::-1],
        "slice of a large array": lambda: np.arange(1_000_000)[500:600],
        "broadcast array": lambda: np.broadcast_to(np.arange(5_000), (3, 5_000)),
        "read-only array": lambda: frozen,
        "array of objects": lambda: np.array([{"a": 1}, None, "b"], dtype=object),
        "array of texts": lambda: np.array(["a", "bcd"] * 2_000),
        "array of StringDType": lambda: np.array(["a", "b" * 99], dtype=np.dtypes.StringDType()),
        "array of dates": lambda: np.arange("2020-01-01", "2020-06-01", dtype="datetime64[D]"),
        "big-endian array": lambda: np.arange(9_000, dtype=">i4"),
        "structured array": lambda: np.array([(1, 2.5)] * 900, dtype=[("a", "i4"), ("b", "f8")]),
        "record array": lambda: np.rec.fromarrays([np.arange(900), np.ones(900)], names="a,b"),
        "masked array": lambda: np.ma.masked_less(np.arange(9_000), 50),
        "matrix of a subclass": lambda: np.arange(9_000).view(np.matrix),
        "float64": lambda: np.float64(0.1),
        "datetime64": lambda: np.datetime64("2020-01-02T03"),
        "dtype": lambda: np.dtype([("a", "i4")]),
        "Generator": lambda: np.random.default_rng(3),
    }


def memmap():
    import numpy as np

    folder = os.environ.get("ORDMAP_KINDS", tempfile.gettempdir())
    path = os.path.join(folder, "kinds.dat")
    if not os.path.exists(path):
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
            np.arange(100_000, dtype=np.int32).tofile(file)
        os.replace(file.name, path)
    return {
        "memmap": lambda: np.memmap(path, np.int32, "r"),
        "memmap that is written to": lambda: np.memmap(path, np.int32, "r+", shape=(100, 1_000)),
        "memmap, copied on write": lambda: np.memmap(path, np.int32, "c"),
        "slice of a memmap": lambda: np.memmap(path, np.int32, "r", shape=(100, 1_000))[10:60, ::3],
        "array that lies in a memmap": lambda: np.asarray(np.memmap(path, np.int32, "r"))[::-1],
    }


def pandas():
    import numpy as np
    import pandas as pd

    def frame():
        made = pd.DataFrame({"n": np.arange(9_000), "x": np.linspace(0, 1, 9_000)})
        made["name"] = [f"row {n}" for n in range(9_000)]
        made["kind"] = pd.Categorical(["a", "b"] * 4_500)
        return made.set_index(pd.date_range("2020-01-01", periods=9_000, freq="h", tz="UTC"))

    def with_attributes():
        made = frame()
        made.attrs["unit"] = "m"
        return made

    return {
        "DataFrame": frame,
        "slice of a DataFrame": lambda: frame().iloc[100:120],
        "every second row of a DataFrame": lambda: frame()[::2],
        "DataFrame with attrs": with_attributes,
        "group of a DataFrame": lambda: dict(list(frame().groupby("kind", observed=True)))["a"],
        "DataFrame of columns of many levels": lambda: pd.concat({"a": frame()[["x"]], "b": frame()[["x"]]}, axis=1),
        "DataFrame backed by arrow": lambda: frame().convert_dtypes(dtype_backend="pyarrow").iloc[100:200],
        "Series": lambda: frame()["x"],
        "Series of texts": lambda: pd.Series(["a", None, "b"], dtype="string"),
        "Series of nullable ints": lambda: pd.Series([1, None], dtype="Int64"),
        "sparse Series": lambda: pd.Series(pd.arrays.SparseArray([0, 0, 1])),
        "MultiIndex": lambda: pd.MultiIndex.from_product([["a", "b"], range(3)]),
        "DatetimeIndex": lambda: pd.date_range("2020-01-01", periods=9, freq="MS"),
        "Categorical": lambda: pd.Categorical(["a", "b", "a"], ordered=True),
        "Timestamp": lambda: pd.Timestamp("2020-01-02", tz="Europe/Paris"),
        "Timedelta": lambda: pd.Timedelta("1D"),
        "Period": lambda: pd.Period("2020-02"),
        "Interval": lambda: pd.Interval(0, 1),
        "NA": lambda: pd.NA,
        "NaT": lambda: pd.NaT,
    }


def pyarrow():
    import pyarrow as pa

    numbers = range(20_000)
    table = pa.table({"n": numbers, "s": [str(n) for n in numbers], "l": [[n, n] for n in numbers]})
    return {
        "Table": lambda: table,
        "slice of a Table": lambda: table.slice(50, 100),
        "slice of a RecordBatch": lambda: table.to_batches()[0].slice(50, 100),
        "slice of a ChunkedArray": lambda: table["s"].slice(50, 100),
        "slice of an Array of lists": lambda: table["l"].chunk(0)[50:60],
        "slice of an Array of structs": lambda: pa.array([{"a": n, "b": str(n)} for n in numbers])[50:60],
        "slice of a DictionaryArray": lambda: pa.array([str(n % 7) for n in numbers]).dictionary_encode()[50:60],
        "slice of an Array of views": lambda: table["s"].chunk(0).cast(pa.string_view())[50:60],
        "slice of an Array with nulls": lambda: pa.array([n if n % 3 else None for n in numbers])[50:60],
        "slice of a NullArray": lambda: pa.nulls(20_000)[50:60],
        "Array of an extension type": lambda: pa.array([bytes(16)] * 20_000, pa.uuid())[50:60],
        "Schema": lambda: table.schema,
        "Scalar": lambda: pa.scalar(3),
        "Buffer": lambda: pa.py_buffer(b"x" * 5_000),
    }


def polars():
    import polars as pl

    frame = pl.DataFrame({"n": range(20_000), "s": [str(n) for n in range(20_000)]})
    return {
        "DataFrame": lambda: frame,
        "slice of a DataFrame": lambda: frame[50:60],
        "Series": lambda: frame["s"],
        "Series of categories": lambda: pl.Series(["a", "b", "a"], dtype=pl.Categorical),
        "Series of structs": lambda: pl.Series([{"a": 1}, {"a": None}]),
        "LazyFrame": lambda: frame.lazy().select("n").head(3),
        "expression": lambda: pl.col("n") + 1,
    }


def scipy():
    import numpy as np
    from scipy import sparse, spatial

    matrix = sparse.random_array((300, 200), density=0.1, rng=3)
    return {
        "csr_array": lambda: matrix.tocsr(),
        "rows of a csr_matrix": lambda: sparse.csr_matrix(matrix.tocsr())[3:9],
        "coo_array": lambda: matrix,
        "Rotation": lambda: spatial.transform.Rotation.from_euler("z", 90, degrees=True).as_matrix(),
        "KDTree": lambda: spatial.KDTree(np.arange(30.0).reshape(10, 3)).data,
    }


def xarray():
    import numpy as np
    import xarray as xr

    return {
        "DataArray": lambda: xr.DataArray(np.arange(6_000).reshape(60, 100), dims=("x", "y"), attrs={"unit": "m"}),
        "part of a Dataset": lambda: xr.Dataset({"a": ("x", np.arange(9_000))}).isel(x=slice(5, 9)),
    }


def pillow():
    import numpy as np
    from PIL import Image

    return {
        "Image": lambda: Image.fromarray(np.arange(7_500, dtype=np.uint8).reshape(50, 50, 3)),
        "Image with a palette": lambda: Image.new("P", (50, 50), 3),
    }


def torch():
    import torch

    def labelled():
        made = torch.arange(9_000.0)[:100].as_subclass(_class_of_torch())
        made.label = "mine"
        return made

    return {
        "tensor": lambda: torch.arange(9_000.0).reshape(90, 100),
        "small tensor": lambda: torch.tensor([1, 2]),
        "tensor of no dimension": lambda: torch.tensor(1.5),
        "slice of a large tensor": lambda: torch.arange(1_000_000)[500:600],
        "transposed tensor": lambda: torch.arange(9_000.0).reshape(90, 100).T,
        "tensor, channels last": lambda: torch.ones(2, 3, 40, 50).to(memory_format=torch.channels_last),
        "tensor of bfloat16": lambda: torch.ones(5_000, dtype=torch.bfloat16),
        "complex tensor": lambda: torch.ones(5_000) + 1j,
        "conjugate view": lambda: (torch.ones(5_000) + 1j).conj(),
        "sparse tensor": lambda: torch.eye(50).to_sparse(),
        "tensor in CSR": lambda: torch.eye(50).to_sparse_csr(),
        "leaf that requires a gradient": lambda: torch.ones(5_000, requires_grad=True),
        "Parameter": lambda: torch.nn.Parameter(torch.ones(5_000)),
        "tensor of a subclass, with an attribute": labelled,
        "size": lambda: torch.Size([1, 2]),
        "dtype": lambda: torch.float16,
    }


def h5py():
    import h5py

    return {"Empty": lambda: h5py.Empty("f8")}


def attrs():
    return {"frozen class": lambda: _class_of_attrs()(1, [2])}


def pydantic():
    import pydantic

    return {"BaseModel": lambda: _class_of_pydantic()(x="1", y=[2]), "SecretStr": lambda: pydantic.SecretStr("s")}


def multidict():
    import multidict

    return {
        "CIMultiDict": lambda: multidict.CIMultiDict(a="1"),
        "CIMultiDictProxy": lambda: multidict.CIMultiDictProxy(multidict.CIMultiDict(a="1")),
    }


def yarl():
    import yarl

    return {"URL": lambda: yarl.URL("http://a/b?c=d")}


def requests():
    import requests

    return {"Response": lambda: requests.get(os.environ["ORDMAP_URL"], timeout=30).headers}


def networkx():
    import networkx as nx

    return {"Graph": lambda: nx.path_graph(5).adj[1]._atlas}


def sympy():
    import sympy

    return {"expression": lambda: sympy.sympify("x**2 + 1")}


# Classes that derive from a library's, made when they are first asked for, also by pickle


@functools.cache
def _class_of_torch():
    import torch

    class Image(torch.Tensor):
        __qualname__ = "ImageOfTorch"

    return Image


@functools.cache
def _class_of_attrs():
    import attrs

    @attrs.frozen
    class Point:
        x: int
        y: list

    Point.__qualname__ = "PointOfAttrs"
    return Point


@functools.cache
def _class_of_pydantic():
    import pydantic

    class Point(pydantic.BaseModel):
        x: int
        y: list[int] = []
        _hidden: int = 3

    Point.__qualname__ = "PointOfPydantic"
    return Point


def __getattr__(name):
    made = {"ImageOfTorch": _class_of_torch, "PointOfAttrs": _class_of_attrs, "PointOfPydantic": _class_of_pydantic}
    if name in made:
        return made[name]()
    raise AttributeError(name)
