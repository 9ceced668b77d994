"""How many threads the numerical libraries of a worker use, whenever they are loaded."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import threadpoolctl

from ordmap import Processes, Spawn, ordered_map
from ordmap.backends import portable
from ordmap.backends.cores import _VARIABLES, environment
from ordmap.engine import available
from test_scripts import finished

pytestmark = pytest.mark.skipif(not available(), reason="these are the ways of Linux")

WORKERS = {
    "processes": Processes, "spawn": Spawn, "portable": portable.Processes, "portable-spawn": portable.Spawn,
}  # fmt: skip
everywhere = pytest.mark.parametrize("make", WORKERS.values(), ids=WORKERS)


@pytest.fixture(autouse=True)
def no_numbers_of_others(monkeypatch):
    """Have none in the environment: Dask sets some in that of a test's process."""
    for variable in _VARIABLES:
        monkeypatch.delenv(variable, raising=False)


def threads_of_libraries(_):
    """Return the numbers that the runtimes say."""
    if "sklearn" not in sys.modules:
        (libgomp,) = (Path(importlib.util.find_spec("sklearn").origin).parents[1] / "scikit_learn.libs").glob(
            "libgomp*"
        )
        ctypes.CDLL(str(libgomp))  # scikit-learn's own, without the seconds that its modules take

    square = np.ones((400, 400))
    square @ square
    info = threadpoolctl.threadpool_info()
    assert {one["user_api"] for one in info} == {"blas", "openmp"}
    return frozenset(one["num_threads"] for one in info)


@pytest.fixture
def caller_has_three():
    """Have this process's libraries use three threads, and see that they do so afterwards."""
    import sklearn.utils._openmp_helpers as loaded  # with libgomp

    assert loaded

    with threadpoolctl.threadpool_limits(3):
        np.ones((400, 400)) @ np.ones((400, 400))
        before = threadpoolctl.threadpool_info()
        yield
        assert threadpoolctl.threadpool_info() == before


@everywhere
@pytest.mark.parametrize("threads", [1, 2])
def test_what_the_caller_has_loaded_is_limited_and_the_caller_is_not(make, threads, caller_has_three):
    pool = make(2) if threads == 1 else make(2, threads_per_worker=threads)
    variables = dict(os.environ)
    assert set(ordered_map(threads_of_libraries, range(4), backend=pool)) == {frozenset({threads})}
    assert dict(os.environ) == variables


@everywhere
def test_more_threads_than_a_library_has_are_made(make, tmp_path):
    """OpenBLAS would spin for ever, waiting for those that it lacks."""
    program = tmp_path / "program.py"
    program.write_text(MORE.format(module=make.__module__, name=make.__name__), encoding="utf-8")
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, program], capture_output=True, text=True, timeout=60, check=False, env=environment
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "[{2}, {2}, {2}]\n"


MORE = """
import numpy, threadpoolctl
from {module} import {name}
from ordmap import ordered_map
from ordmap.backends.cores import limit

def work(_):
    limit(2)  # as a worker does where the library is loaded by then
    a = numpy.ones((400, 400))
    assert (a @ a)[0, 0] == 400
    return {{one["num_threads"] for one in threadpoolctl.threadpool_info() if one["user_api"] == "blas"}}

if __name__ == "__main__":
    numpy.ones((400, 400)) @ numpy.ones((400, 400))
    print(list(ordered_map(work, range(3), backend={name}(2, threads_per_worker=2))))
"""


def test_none_leaves_them_as_they_are(caller_has_three):
    pool = Processes(2, threads_per_worker=None)
    assert set(ordered_map(threads_of_libraries, range(4), backend=pool)) == {frozenset({3})}
    unlimited = Spawn(2, threads_per_worker=None)
    assert set(ordered_map(lambda _: os.environ.get("OMP_NUM_THREADS"), range(4), backend=unlimited)) == {None}


LATE = """
import os, sys
from ordmap import Processes, Spawn, ordered_map
from ordmap.backends import portable

def work(_):
    import numpy, threadpoolctl
    numpy.ones((400, 400)) @ numpy.ones((400, 400))
    return {one["num_threads"] for one in threadpoolctl.threadpool_info()}, len(os.listdir("/proc/self/task"))

for make in (Processes, Spawn, portable.Processes, portable.Spawn):
    assert "numpy" not in sys.modules
    for threads in (1, 2):
        for numbers, native in ordered_map(work, range(4), backend=make(1, threads_per_worker=threads)):
            assert numbers == {threads}, (make, numbers)
            assert native <= threads or make.__module__ == portable.__name__, (make, native)
"""


def test_what_an_item_is_the_first_to_load_is_limited(script):
    code, _, stderr = finished(script(LATE))
    assert (code, stderr) == (0, "")


@pytest.mark.parametrize("make", [Processes, Spawn])
def test_programs_that_an_item_runs_share_the_cores_too_unless_the_user_has_given_a_number(make, monkeypatch):
    monkeypatch.setenv("MKL_NUM_THREADS", "5")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    def work(_):
        import subprocess

        said = subprocess.run(
            ["/bin/sh", "-c", "echo $OMP_NUM_THREADS $MKL_NUM_THREADS"], capture_output=True, check=True
        )
        return said.stdout

    assert set(ordered_map(work, range(2), backend=make(2))) == {b"1 5\n"}
    assert "OMP_NUM_THREADS" not in os.environ


def test_the_environment_of_the_caller_is_not_touched():
    before = dict(os.environ)
    assert set(environment(2).items()) >= set(before.items())
    assert environment(None) == before == dict(os.environ)


@everywhere
@pytest.mark.parametrize(
    ("wrong", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError), ("2", TypeError)]
)
def test_a_number_of_threads_that_can_not_be_is_refused_at_once(make, wrong, error):
    with pytest.raises(error, match="threads_per_worker"):
        make(2, threads_per_worker=wrong)
