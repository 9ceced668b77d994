"""Libraries whose threads don't survive a fork: their items come, whatever the caller has done with them before."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import pytest

HEAD = """
import os, sys, warnings
import numpy as np
from ordmap import ordered_imap, ordered_map

numbers = np.random.default_rng(0).random((20_000, 10))
"""

#: Each defines ``work``, which the caller uses first.
USES = {
    "polars": """
import polars

frame = polars.DataFrame({"a": range(200_000), "b": [i % 7 for i in range(200_000)]})

def work(i):
    return frame.lazy().filter(polars.col("b") == i).group_by("b").agg(polars.col("a").sum()).collect().item(0, 1)
""",
    "lightgbm": """
import lightgbm

model = lightgbm.train({"verbose": -1, "num_threads": 2}, lightgbm.Dataset(numbers, numbers.sum(1)), 5)
sys.modules.pop("threadpoolctl", None)

def work(i):
    return float(model.predict(numbers[i * 1000 : i * 1000 + 1000]).sum())
""",
    "xgboost": """
import xgboost

model = xgboost.train({"nthread": 2}, xgboost.DMatrix(numbers, numbers.sum(1)), 3)
sys.modules.pop("threadpoolctl", None)

def work(i):
    return float(model.predict(xgboost.DMatrix(numbers[i * 1000 : i * 1000 + 1000])).sum())
""",
    "scikit-learn": """
from sklearn.ensemble import HistGradientBoostingRegressor

model = HistGradientBoostingRegressor(max_iter=3).fit(numbers, numbers.sum(1))
sys.modules.pop("threadpoolctl", None)

def work(i):
    return float(model.predict(numbers[i * 1000 : i * 1000 + 1000]).sum())
""",
    "numba": """
import numba

numba.config.THREADING_LAYER = CHOSEN

@numba.njit(parallel=True)
def total(row):
    found = 0.0
    for i in numba.prange(row.shape[0]):
        found += row[i]
    return found

def work(i):
    return round(total(numbers[i]), 9)
""",
    "grpcio": """
import grpc
from concurrent.futures import ThreadPoolExecutor

class Echo(grpc.GenericRpcHandler):
    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(lambda request, context: request)

server = grpc.server(ThreadPoolExecutor(2), handlers=(Echo(),))
port = server.add_insecure_port("127.0.0.1:0")
server.start()
channel = grpc.insecure_channel(f"127.0.0.1:{port}")
channel.unary_unary("/echo/echo")(b"as the caller", timeout=20)

def work(i):
    with grpc.insecure_channel(f"127.0.0.1:{port}") as own:
        return own.unary_unary("/echo/echo")(b"%d" % i, timeout=20)
""",
    "zarr": """
import zarr

array = zarr.create_array(store=os.path.join(os.path.dirname(__file__), "store"), shape=(1000, 100), chunks=(10, 100), dtype="f4")
array[:] = np.arange(1000)[:, None]

def work(i):
    return float(array[i * 100 : i * 100 + 100].sum())
""",
    "pyarrow": """
import pyarrow

table = pyarrow.table({"a": np.arange(200_000), "b": np.arange(200_000) % 7})

def work(i):
    return table.group_by("b").aggregate([("a", "sum")]).num_rows + i
""",
}


def run(script, text, *flags):
    path = script(HEAD + text)
    return subprocess.run([sys.executable, *flags, str(path)], capture_output=True, text=True, timeout=100, check=False)


def uses(name, layer=None):
    return USES[name].replace("CHOSEN", repr(layer))


#: Where fresh interpreters are started in place of forks, and whose threads are the reason.
FRESH = {"polars": "polars", "grpcio": "gRPC", "numba-omp": "numba's layer of OpenMP threads", "zarr": "zarrs"}


@pytest.mark.parametrize("name", [*(name for name in USES if name != "numba"), "numba-omp", "numba-workqueue"])
def test_items_use_what_the_caller_has_used(script, name):
    library, _, layer = name.partition("-") if name.startswith("numba") else (name, "", "")
    done = run(script, uses(library, layer) + """
want = [work(i) for i in range(6)]
assert list(ordered_map(work, range(6), workers=2)) == want
assert [work(i) for i in range(6)] == want, "it is of no use to the caller any more"
assert list(ordered_map(work, range(6), workers=2)) == want
print("well", flush=True)
os._exit(0)  # gRPC's server, and zarr's threads
""")  # fmt: skip
    assert done.stdout == "well\n", (version(library), done.stdout, done.stderr[-2000:])
    told = [line for line in done.stderr.splitlines() if "does not survive a fork" in line]
    assert len(told) == (name in FRESH), done.stderr
    assert not told or FRESH[name] in told[0]


@pytest.mark.parametrize("name", ["lightgbm", "xgboost", "scikit-learn"])
def test_the_caller_s_first_use_of_openmp_in_another_thread_is_no_matter(script, name):
    done = run(script, uses(name) + """
import threading

threads = [threading.Thread(target=work, args=(0,)) for _ in range(3)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
want = [work(i) for i in range(6)]
got = []
loop = threading.Thread(target=lambda: got.extend(ordered_map(work, range(6), workers=2)))
loop.start()
loop.join()
assert got == want
assert list(ordered_map(work, range(6), workers=2)) == want
print("well")
""")  # fmt: skip
    assert done.stdout == "well\n", done.stderr[-2000:]


def test_items_that_ask_for_openmp_threads_get_them_after_a_fork(script):
    done = run(script, uses("lightgbm") + """
def count(i):
    lightgbm.train({"verbose": -1, "num_threads": 3}, lightgbm.Dataset(numbers, numbers[:, i]), 2)
    return len(os.listdir("/proc/self/task"))

assert min(ordered_map(count, range(4), workers=2)) >= 3
print("well")
""")  # fmt: skip
    assert done.stdout == "well\n", done.stderr[-2000:]


@pytest.mark.parametrize("held", ["threading.Lock()", "(i for i in range(3))", "open(os.devnull, 'rb').raw"])
def test_where_the_dataset_can_t_travel_workers_are_forked_and_a_word_is_said(script, held):
    done = run(script, uses("polars") + f"""
import threading

class Records:
    def __init__(self):
        self.held = {held}
    def __len__(self):
        return 6
    def __getitem__(self, i):
        return i, os.getppid()

work(0)
assert list(ordered_imap(Records(), 2)) == [(i, os.getpid()) for i in range(6)]
assert list(ordered_imap(Records(), 2)) == [(i, os.getpid()) for i in range(6)]
print("well")
""")  # fmt: skip
    assert done.stdout == "well\n", done.stderr[-2000:]
    assert done.stderr.count("RuntimeWarning") == 1
    assert "polars is in use and does not survive a fork" in done.stderr
    assert "forks nevertheless, since the Records can't be pickled" in done.stderr


def test_an_item_that_waits_for_threads_that_are_not_there_is_told_of_and_ended(script):
    done = run(script, uses("polars") + """
import threading
import ordmap.engine.vigil

ordmap.engine.vigil.IDLE = 1.0

class Records:
    lock = None
    def __init__(self):
        self.lock = threading.Lock()
    def __len__(self):
        return 2
    def __getitem__(self, i):
        return work(i)

work(0)
print(list(ordered_imap(Records(), 2, item_timeout=4, on_error=lambda failure: type(failure.error).__name__)))
""")  # fmt: skip
    assert done.stdout == "['ItemTimeoutError', 'ItemTimeoutError']\n", done.stderr[-2000:]
    assert done.stderr.count("has used no processor time for 1 s, in its first item") == 1
    assert "threads of libraries" in done.stderr


def test_rich_s_bar_and_items_that_print_go_together(script):
    done = run(script, """
import rich.progress

def work(i):
    print("item", i)
    return i

for _ in range(20):
    assert list(rich.progress.track(ordered_map(work, range(8), workers=2), refresh_per_second=200)) == [*range(8)]
print("well", file=sys.stderr)
""")  # fmt: skip
    assert done.stderr == "well\n"


@pytest.mark.parametrize("kind", ["numpy", "executor", "pandas", "harmless"])
def test_threads_that_a_fork_can_do_without_change_nothing(script, kind):
    done = run(script, {
        "numpy": "numbers.T @ numbers",
        "pandas": "import pandas; pandas.DataFrame(numbers).groupby(0).sum()",
        "executor": """
from concurrent.futures import ThreadPoolExecutor

executor = ThreadPoolExecutor(2)
list(executor.map(abs, range(10)))
""",
        "harmless": """
import threading

thread = threading.Thread(target=threading.Event().wait, name="polars-0", daemon=True)  # of Python's
thread.start()
""",
    }[kind] + """
assert set(ordered_map(lambda i: os.getppid(), range(4), workers=2)) == {os.getpid()}
""", "-W", "error::RuntimeWarning")  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
