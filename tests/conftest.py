"""Fixtures for every test: nothing may be left behind."""

from __future__ import annotations

import ctypes  # noqa: F401  a system's libffi keeps its own file open from the first closure on: no test is to be the first
import gc
import multiprocessing
import os
import signal
import tempfile
import threading
import time
from pathlib import Path

import psutil
import pytest
from hypothesis import settings

from ordmap.dropping import _collector

pytest.register_assert_rewrite("ordmap.testing")

# A shell's background job ignores Ctrl-C, and whatever it runs inherits that; the tests send it to programs of theirs.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Unbuffered, no text could be lost that a worker has written and not flushed: the scripts of these tests do as users' do.
os.environ.pop("PYTHONUNBUFFERED", None)

settings.register_profile("ordmap", deadline=None, print_blob=True)
settings.load_profile("ordmap")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--stress-seconds", type=float, default=5.0, help="seconds that a stress test takes at the least")
    parser.addoption("--stress-kills", type=int, default=20, help="workers that it kills at the least")


#: Part of the name of every semaphore that these tests make; other programs of the machine make theirs.
_SHARED = f"ordmap-test-{os.getpid()}"
multiprocessing.current_process()._config["semprefix"] = f"/{_SHARED}"


def _is_the_standard_library_s(process: psutil.Process) -> bool:
    """Whether this is multiprocessing's resource tracker, which lives as long as the program (see the table)."""
    try:
        return "resource_tracker" in " ".join(process.cmdline())
    except psutil.Error:
        return False


def _held() -> dict[str, set[object]]:
    descriptors: set[object] = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            descriptors.add((name, os.readlink(f"/proc/self/fd/{name}")))
        except OSError:
            continue
    return {
        "processes": {p for p in psutil.Process().children(recursive=True) if not _is_the_standard_library_s(p)},
        "threads": set(threading.enumerate()),
        "descriptors": descriptors,
        "shared memory": {name for name in os.listdir("/dev/shm") if _SHARED in name},
        "temporary files": set(os.listdir(tempfile.gettempdir())),
    }


@pytest.fixture(scope="session", autouse=True)
def temporary_folder_of_its_own(tmp_path_factory):
    """Have this run's temporary files where nobody else makes any."""
    folder = str(tmp_path_factory.mktemp("temporary"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", folder)
        patch.setattr(tempfile, "tempdir", folder)
        yield


@pytest.fixture(autouse=True)
def no_callbacks_of_others(request: pytest.FixtureRequest):
    """Have no library but ours be told of the collections of garbage.

    Dask's and Hypothesis' are told in Python functions, and what a signal's handler raises in there is lost.
    """
    if request.node.get_closest_marker("others_workers"):
        yield
        return
    others = [one for one in gc.callbacks if one != _collector.move_to_end]
    gc.callbacks[:] = [_collector.move_to_end]
    yield
    gc.callbacks += others


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest):
    """Fail a test that leaves a process, thread, descriptor, shared memory or temporary file of ours."""
    if request.node.get_closest_marker("others_workers"):
        yield  # a borrowed executor of another maker opens and closes things of its own as it likes
        return
    # What lives now is no garbage of this test's: each collection passes over it, instead of over all that pytest,
    # Hypothesis and Dask keep, which took two thirds of the suite's time.
    gc.freeze()
    before = _held()
    yield
    give_up = time.monotonic() + 10
    while True:
        gc.collect()
        left = {kind: things - before[kind] for kind, things in _held().items()}
        left["descriptors"] = {d for d in left["descriptors"] if not _is_the_tracker_s(d)}
        if not any(left.values()):
            return
        if time.monotonic() > give_up:
            pytest.fail(f"left behind: { {kind: things for kind, things in left.items() if things} }")
        time.sleep(0.01)


def _is_the_tracker_s(descriptor: object) -> bool:
    from multiprocessing import resource_tracker

    return descriptor[0] == str(resource_tracker._resource_tracker._fd)


@pytest.fixture
def script(tmp_path: Path):
    """Write a script of a user's, who has ordmap installed and nothing else of ours."""

    def write(text: str, name: str = "script.py") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


class Tally:
    """A count that all processes see: a file that grows by a byte for each."""

    def __init__(self, path):
        self.path = path
        path.touch()

    def add(self, byte=b"."):
        with self.path.open("ab") as file:
            file.write(byte)

    def __int__(self):
        return self.path.stat().st_size


@pytest.fixture
def tally(tmp_path: Path) -> Tally:
    return Tally(tmp_path / "tally")
