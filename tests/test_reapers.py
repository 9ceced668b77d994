"""Programs that wait for any child, as supervisors do, and those to which orphans come: nothing of an item's is left."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ordmap.engine import available

pytestmark = pytest.mark.skipif(not available(), reason="the engine is for Linux")

PROGRAM = """
import ctypes, os, signal, subprocess, sys, threading, time
from ordmap import Processes, Spawn, ordered_map
from ordmap.engine import groups

kind, caller, old = sys.argv[1:]
if old == "old kernel":
    groups._PROCESS_GROUP = 1 << 30  # unknown to any

def reap(*_):
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass

def reap_always():
    while True:
        reap()
        time.sleep(0.001)

if caller == "handler":
    signal.signal(signal.SIGCHLD, reap)
elif caller == "ignores":
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
elif caller == "thread":
    threading.Thread(target=reap_always, daemon=True).start()
elif caller == "subreaper":
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)

def item(number):
    if number % 5 == 2:  # dies, and leaves a child and a grandchild
        subprocess.Popen(["sh", "-c", "sleep 86411 & sleep 86411"])
        os._exit(3)
    if number % 5 == 3:  # leaves an orphan that lives, and one that ends soon
        subprocess.Popen(["sh", "-c", "sleep 0.001 & sleep 86411 &"]).wait()
    time.sleep(0.02)
    return number

def mine():
    return [pid for pid in os.listdir("/proc") if pid.isdigit() and is_mine(pid)]

def is_mine(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as command, open(f"/proc/{pid}/stat") as stat:
            parent = stat.read().rpartition(")")[2].split()[1]
            return b"86411" in command.read() or parent == str(os.getpid())
    except OSError:
        return False

own = None
if caller in ("plain", "subreaper"):
    own = subprocess.Popen(["true"])  # the caller's own, to be waited for by itself
pool = {"processes": Processes, "spawn": Spawn}[kind](2)
with pool:
    for _ in range(2):
        results = list(ordered_map(item, range(10), backend=pool, on_error="skip", chunksize=1))
        assert results == [0, 1, 3, 4, 5, 6, 8, 9], results
if own is not None:
    assert own.wait() == 0
give_up = time.monotonic() + 10
while (left := mine()) and time.monotonic() < give_up:
    time.sleep(0.01)
assert not left, [open(f"/proc/{pid}/stat").read() for pid in left]
print("nothing")
"""


@pytest.mark.parametrize(
    ("kind", "caller", "old"),
    [
        pytest.param(
            kind,
            caller,
            old,
            marks=pytest.mark.long if (kind, old) == ("spawn", "old kernel") and caller != "plain" else (),
        )
        for kind in ("processes", "spawn")
        for caller in ("plain", "handler", "thread", "ignores", "subreaper")
        for old in ("this kernel", "old kernel")
    ],
)
def test_what_dead_workers_items_have_launched_goes_along(kind, caller, old, script):
    program = script(PROGRAM.replace("86411", str(86_400 + abs(hash((kind, caller, old))) % 10_000_000)))
    done = subprocess.run(
        [sys.executable, program, kind, caller, old], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout == "nothing\n", done.stderr


def test_the_first_process_of_a_container_has_no_zombies(script):
    command = ["unshare", "-pf", "--mount-proc", sys.executable, script(PROGRAM), "processes", "plain", "this kernel"]
    probe = subprocess.run(["unshare", "-pf", "--mount-proc", "true"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip("this user may make no namespace of processes")
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "nothing\n", done.stderr
