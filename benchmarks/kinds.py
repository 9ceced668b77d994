"""Kinds of inputs and results beside `Pool.imap` at its best chunk size, `ProcessPoolExecutor` and joblib, in one run.

All pools are warm and have two workers. Of each loop the best of three counts. ``python benchmarks/kinds.py [kind …]``
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import importlib.util
import json
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor

import numpy as np

from ordmap import Processes, ordered_map

WORKERS = 2
CHUNKS = (1, 16, 256)
ROUNDS = 3


@dataclasses.dataclass
class Record:
    number: int
    text: str
    half: float


def record(i):
    return Record(i, str(i), i / 2)


def entry(i):
    return {"id": i, "name": f"n{i}", "tags": ["a", "b"], "values": [1.5] * 5}


def moments(i):
    return [(datetime.datetime(2020, 1, 1), decimal.Decimal(i))] * 20


def sixteen(i):
    return np.zeros(16, "f4")


def six_kilobytes(i):
    return np.zeros(1500, "f4")


def total(array):
    return float(array.sum())


def half(one):
    return one.half


def frame(i):
    import pandas as pd

    return pd.DataFrame({"a": [1, 2, 3]})


def of_group(group):
    return float(group.v.sum())


def groups():
    import pandas as pd

    table = pd.DataFrame({"k": np.arange(80_000) // 40, "v": np.random.default_rng(0).random(80_000)})
    return [group for _, group in table.groupby("k")]


def tables():
    import pyarrow as pa

    return [pa.table({"a": np.zeros(100_000)}) for _ in range(100)]


def frames():
    import pandas as pd

    return [pd.DataFrame(np.zeros((20_000, 5))) for _ in range(100)]


def tensors():
    import torch

    return [torch.zeros(400_000) for _ in range(100)]


#: What is called, with what, and what has to be installed.
KINDS = {
    "int -> dataclass": (record, lambda: range(40_000), None),
    "int -> dict": (entry, lambda: range(40_000), None),
    "int -> 20 datetimes": (moments, lambda: range(10_000), None),
    "int -> 16 floats": (sixteen, lambda: range(40_000), None),
    "int -> 6 KB": (six_kilobytes, lambda: range(10_000), None),
    "int -> small frame": (frame, lambda: range(2_000), "pandas"),
    "text -> dict": (json.loads, lambda: [json.dumps(entry(i)) for i in range(40_000)], None),
    "dataclass ->": (half, lambda: [record(i) for i in range(40_000)], None),
    "40 floats ->": (total, lambda: [np.zeros(40) for _ in range(5_000)], None),
    "6 KB ->": (total, lambda: [np.zeros(1500, "f4") for _ in range(5_000)], None),
    "1.6 MB ->": (len, lambda: [np.zeros(200_000) for _ in range(100)], None),
    "small frame ->": (of_group, groups, "pandas"),
    "800 KB frame ->": (len, frames, "pandas"),
    "800 KB table ->": (len, tables, "pyarrow"),
    "1.6 MB tensor ->": (len, tensors, "torch"),
}


def best(make, length: int) -> float:
    """Return the seconds of the quickest of some loops."""
    took = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        if sum(1 for _ in make()) != length:
            raise SystemExit("results are missing")
        took.append(time.perf_counter() - began)
    return min(took)


def main(names: list[str]) -> None:
    joblib = None
    if importlib.util.find_spec("joblib"):
        import joblib
    context = multiprocessing.get_context("fork")
    with (
        context.Pool(WORKERS) as pool,
        ProcessPoolExecutor(WORKERS, mp_context=context) as executor,
        Processes(WORKERS) as ours,
    ):
        for name, (function, make, needed) in KINDS.items():
            if (names and name not in names) or (needed and not importlib.util.find_spec(needed)):
                continue
            source = make()
            length = len(source)
            chunks = [n for n in CHUNKS if 2 * n <= length and not (n == 1 and length > 5_000)]
            mine = best(lambda: ordered_map(function, source, backend=ours), length)
            times = {
                "Pool.imap": min(best(lambda: pool.imap(function, source, n), length) for n in chunks),
                "executor": min(best(lambda: executor.map(function, source, chunksize=n), length) for n in chunks),
            }
            if joblib is not None:
                parallel = joblib.Parallel(WORKERS, return_as="generator")
                times["joblib"] = best(lambda: parallel(joblib.delayed(function)(one) for one in source), length)
            beside = "  ".join(
                f"{peer} {1e6 * took / length:8.2f} (x{took / mine:.2f})" for peer, took in times.items()
            )
            print(f"{name:20} ordmap {1e6 * mine / length:8.2f} µs  {beside}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
