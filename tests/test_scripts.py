"""As a user would: scripts without a main guard, a REPL, ``python -c``, standard input, a notebook's kernel."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from ordmap.backends import BACKENDS

LOCAL = list(BACKENDS)

DATASET = """
from dataclasses import dataclass
from ordmap import ordered_imap, ordered_map

@dataclass
class Point:
    x: int

class MyError(Exception):
    def __init__(self, index, *, why):
        super().__init__(f"{index}: {why}")
        self.index = index

class Squares:
    def __len__(self):
        return 20
    def __getitem__(self, index):
        if index == 13:
            raise MyError(index, why="unlucky")
        return Point(index * index)
"""

LOOP = """
for x in ordered_imap(Squares(), workers=4, prefetch=16, backend=BACKEND, indices=range(13)): print(x.x, end=" ")

print(all(type(x) is Point for x in ordered_map(lambda p: Point(p.x + 1), [Point(1), Point(2)], backend=BACKEND)))
"""

EXPECTED = " ".join(str(n * n) for n in range(13)) + " True"


def run(*arguments, stdin=None, cwd=None):
    done = subprocess.run(
        [sys.executable, "-W", "error", *map(str, arguments)],
        input=stdin, capture_output=True, text=True, timeout=100, cwd=cwd, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize("backend", LOCAL)
def test_a_script_without_a_main_guard(script, backend):
    path = script(f"print('once')\nBACKEND = {backend!r}\n{DATASET}\n{LOOP}")
    assert run(path).stdout.split() == ["once", *EXPECTED.split()]


@pytest.mark.parametrize("backend", LOCAL)
def test_python_c(backend):
    assert run("-c", f"BACKEND = {backend!r}\n{DATASET}\n{LOOP}").stdout.strip() == EXPECTED


@pytest.mark.parametrize("backend", LOCAL)
def test_typed_into_a_repl(backend):
    typed = DATASET.replace("\n\n", "\n\n\n").replace("20\n    def", "20\n    def") + "\n\n" + LOOP
    assert EXPECTED in run("-i", stdin=f"BACKEND = {backend!r}\n{typed}").stdout.replace(">>> ", "").replace("... ", "")


@pytest.mark.parametrize("backend", LOCAL)
def test_read_from_standard_input(backend):
    assert run("-", stdin=f"BACKEND = {backend!r}\n{DATASET}\n{LOOP}").stdout.strip() == EXPECTED


@pytest.mark.parametrize("backend", LOCAL)
def test_a_module_run_by_name(script, backend, tmp_path):
    script(f"BACKEND = {backend!r}\n{DATASET}\n{LOOP}", "by_name.py")
    assert run("-m", "by_name", cwd=tmp_path).stdout.strip() == EXPECTED


@pytest.mark.parametrize("backend", LOCAL)
def test_an_exception_class_of_the_script(script, backend):
    path = script(
        f"""{DATASET}
iterator = ordered_imap(Squares(), workers=2, backend={backend!r})
found = []
while True:
    try:
        found.append(next(iterator).x)
    except StopIteration:
        break
    except MyError as error:
        found.append((str(error), error.index))
assert found[13] == ("13: unlucky", 13), found[13]
assert found[:13] + found[14:] == [n * n for n in range(20) if n != 13], found
"""
    )
    run(path)


@pytest.mark.parametrize("backend", LOCAL)
def test_an_infinite_loop_left_by_break_leaves_nothing_100_times(script, backend):
    path = script(
        f"""
import gc, os, threading, psutil
from ordmap import ordered_imap

def counts():
    gc.collect()
    me = psutil.Process()
    children = [p for p in me.children(recursive=True) if "resource_tracker" not in " ".join(p.cmdline())]
    return me.num_fds(), threading.active_count(), len(children)

def loop():
    for n, x in enumerate(ordered_imap("abc", workers=2, prefetch=8, epochs=None, backend={backend!r})):
        assert x == "abc"[n % 3]
        if n == 50:
            break

loop()
before = counts()
for _ in range(100):
    loop()
assert counts() == before, (before, counts())
"""
    )
    run(path)


def children_of(pid):
    return [process for process in psutil.Process(pid).children(recursive=True)]


@pytest.mark.parametrize(
    ("backend", "item"),
    [(name, "time.sleep(60)") for name in LOCAL]
    + [(name, "hang_in_c()") for name in LOCAL if name not in {"serial", "threads"}],  # these would hang themselves
)
def test_no_worker_outlives_a_killed_parent(script, backend, item):
    path = script(
        f"""
import re, time
from ordmap import ordered_map

def hang_in_c():
    re.match(r"(a+)+$", "a" * 64 + "b")  # holds the GIL for ever

def work(n):
    if n == 0:
        return n
    {item}

iterator = ordered_map(work, range(9), workers=3, prefetch=4, backend={backend!r})
next(iterator)
print("running", flush=True)
next(iterator)
"""
    )
    parent = subprocess.Popen([sys.executable, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout.readline() == "running\n"
        time.sleep(0.1)
        workers = children_of(parent.pid)
        parent.send_signal(signal.SIGKILL)
        parent.wait(30)
        _, alive = psutil.wait_procs(workers, timeout=10)
        assert alive == []
    finally:
        parent.kill()
        parent.stdout.close()
        parent.wait()


@pytest.mark.parametrize("how", ["pass", "sys.exit(0)", "raise ZeroDivisionError", "os._exit(0)"])
@pytest.mark.parametrize("backend", LOCAL)
def test_a_program_that_ends_in_mid_run_ends_quietly_and_whole(script, backend, how):
    path = script(
        f"""
import os, sys, time
from ordmap import ordered_map

def work(n):
    time.sleep(0.01 if n < 3 or {backend!r} == "serial" else 30)
    return n

iterator = ordered_map(work, range(100), workers=2, prefetch=6, backend={backend!r})
next(iterator)
next(iterator)
{how}
"""
    )
    process = subprocess.Popen([sys.executable, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    stdout, stderr = process.communicate(timeout=20)  # far less than an item's 30 s
    assert stdout == ""
    assert stderr == "" or "ZeroDivisionError" in stderr.splitlines()[-1], stderr


@pytest.mark.parametrize("backend", LOCAL)
def test_ctrl_c_is_one_keyboard_interrupt(script, backend):
    path = script(
        f"""
import time
from ordmap import ordered_map

def work(n):
    time.sleep(0 if n < 3 else 30)
    return n

iterator = ordered_map(work, range(100), workers=2, prefetch=6, backend={backend!r})
try:
    for n in iterator:
        if n == 2:
            print("running", flush=True)
except KeyboardInterrupt:
    print("interrupted", list(iterator), flush=True)
"""
    )
    process = subprocess.Popen(
        [sys.executable, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout.readline() == "running\n"
    time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    stdout, stderr = process.communicate(timeout=20)
    assert (stdout, stderr, process.returncode) == ("interrupted []\n", "", 0)


@pytest.mark.parametrize("backend", [name for name in LOCAL if name != "serial"])
def test_a_forked_child_owns_nothing_of_an_iterator(script, backend):
    path = script(
        f"""
import gc, os
from ordmap import OrdmapError, ordered_imap

iterator = ordered_imap(range(100), workers=2, prefetch=10, backend={backend!r})
found = [next(iterator)]
child = os.fork()
if child == 0:
    try:
        next(iterator)
    except OrdmapError as error:
        assert "make a new one here" in str(error)
    else:
        os._exit(3)
    assert list(ordered_imap(range(5), workers=2, backend={backend!r})) == list(range(5))
    iterator.close()
    del iterator
    gc.collect()
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
found += iterator
assert found == list(range(100))
"""
    )
    # Python 3.12 and later warn of the user's own fork, beside threads.
    command = [sys.executable, "-W", "ignore::DeprecationWarning", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_importing_ordmap_is_light():
    done = run(
        "-c",
        "import sys; bare = set(sys.modules); import ordmap\n"
        "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - bare}))",
    )
    heavy = {"numpy", "multiprocessing", "concurrent", "asyncio", "cloudpickle", "logging", "inspect", "pathlib"}
    assert not heavy & set(done.stdout.split())


def test_it_runs_where_the_package_was_installed():
    import ordmap

    assert (Path(ordmap.__file__).parent / "py.typed").exists()
