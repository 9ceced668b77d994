"""An application that PyInstaller makes: it is its own interpreter, and begins anew as each worker."""

from __future__ import annotations

import os
import subprocess
import sys

import PyInstaller.__main__  # noqa: F401  what this is about
import pytest

APP = """
import os, sys, time
kind = os.environ["KIND"]
started = "--multiprocessing-fork" in sys.argv or "-c" in sys.argv  # a worker, or the helper
with open("begun" if started else "first", "a") as file:
    file.write(".")
if kind == "late":
    if started:
        time.sleep(600)  # one with windows, which imports ordmap when a button is pressed
    from ordmap.engine import executable
    executable._PATIENCE = 5.0
if kind == "before":
    import multiprocessing
    multiprocessing.freeze_support()

from dataclasses import dataclass
import core
from ordmap import BackendUnavailableError, Spawn, ordered_imap, ordered_map

@dataclass
class Point:
    x: int

class Data:
    def __len__(self): return 4
    def __getitem__(self, i): return Point(core.Square()(i))

def share(i):
    from multiprocessing.shared_memory import SharedMemory  # which starts a helper, and again from this application
    memory = SharedMemory(create=True, size=10)
    memory.close()
    memory.unlink()
    return i

def main():
    for backend in ("processes", "spawn"):
        try:
            got = list(ordered_imap(Data(), workers=2, backend=backend))
        except BackendUnavailableError as error:
            print(error)
            continue
        assert got == [Point(0), Point(1), Point(4), Point(9)] and all(type(p) is Point for p in got), got
        print(backend, list(ordered_map(core.square, range(3), workers=1, backend=backend)))
    if kind != "late":
        print(*ordered_map(share, range(2), workers=1, backend="spawn"))

if kind == "usual":
    import multiprocessing
    multiprocessing.freeze_support()
main()
"""

#: A module that imports ordmap before it has defined what workers need of it.
CORE = """
from ordmap import ordered_imap

class Square:
    def __call__(self, x): return square(x)

def square(x): return x * x
"""

#: Whatever else is installed beside the tests: ordmap imports it where the program has.
OTHERS = ["numpy", "torch", "pandas", "pyarrow", "distributed", "dask", "threadpoolctl", "scipy", "IPython", "pytest"]


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    """Build the application."""
    folder = tmp_path_factory.mktemp("frozen")
    (folder / "app.py").write_text(APP)
    (folder / "core.py").write_text(CORE)
    excluded = [one for name in OTHERS for one in ("--exclude-module", name)]
    subprocess.run(
        [sys.executable, "-m", "PyInstaller", "--noconfirm", "--log-level=ERROR", "--onedir", *excluded, "app.py"],
        cwd=folder, check=True, timeout=600,
    )  # fmt: skip
    return folder / "dist/app/app"


def run(app, folder, kind):
    env = {**os.environ, "KIND": kind}
    env.pop("PYTHONPATH", None)
    return subprocess.run([app], cwd=folder, env=env, capture_output=True, text=True, timeout=100, check=False)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["without freeze_support", "before", "usual"])
def test_a_frozen_application_has_workers(app, tmp_path, kind):
    done = run(app, tmp_path, kind)
    assert (done.stdout, done.stderr) == ("processes [0, 1, 4]\nspawn [0, 1, 4]\n0 1\n", "")
    assert (tmp_path / "first").read_text() == "."
    # It is tried once, then there are 2 workers, 1, and 1 with a helper, which may be ended before it begins.
    assert len((tmp_path / "begun").read_text()) in {1 + 2 + 1 + 1, 1 + 2 + 1 + 2}


@pytest.mark.timeout(900)
def test_a_frozen_application_that_can_not_be_a_worker_is_told_so_and_starts_no_others(app, tmp_path):
    done = run(app, tmp_path, "late")
    assert "processes [0, 1, 4]" in done.stdout
    assert (
        "does not become a worker when it is started as one: have the program call multiprocessing.freeze_su"
        in done.stdout
    )
    assert done.stderr == ""
    assert (tmp_path / "begun").read_text() == "."
