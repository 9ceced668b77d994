"""joblib within items: it keeps large arrays in /dev/shm, and has a process that removes them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

TEXT = """
import os, signal, sys, time
import numpy as np
from joblib import Parallel, delayed
from ordmap import ordered_map

def part(a, i):
    return float(a[i])

def work(i):
    a = np.ones(3_000_000) * i  # 24 MB
    total = sum(Parallel(n_jobs=2)(delayed(part)(a, j) for j in range(4)))
    if i and sys.argv[1] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if i and sys.argv[1] == "orphan":
        os.kill(CALLER, signal.SIGKILL)
        time.sleep(60)
    return total

def mine():
    return {name for name in os.listdir(os.environ["JOBLIB_TEMP_FOLDER"])}

CALLER = os.getpid()

if __name__ == "__main__":
    if sys.argv[3] == "used":
        assert work(0) == 0
    before = mine()
    items = ordered_map(work, range(5), workers=2, backend=sys.argv[2], on_error="skip")
    if sys.argv[1] == "break":
        next(items)
        time.sleep(0.5)
    elif sys.argv[1] == "end":
        assert list(items) == [4.0 * i for i in range(5)]
    else:
        list(items)
    items.close()
    print(mine() - before)
"""


@pytest.mark.parametrize("backend", ["processes", "spawn"])
@pytest.mark.parametrize(
    ("how", "caller"),
    # Where the caller has a tracker, a forked worker uses that one: what it leaves amid an item stays until the end.
    [("end", "fresh"), ("end", "used"), ("break", "fresh"), ("kill", "fresh"), ("orphan", "fresh")],
)
def test_nothing_of_joblib_s_stays(tmp_path, how, backend, caller):
    script, folder = tmp_path / "script.py", tmp_path / "folder"
    script.write_text(TEXT)
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, script, how, backend, caller],
        check=False,
        capture_output=True,
        text=True,
        timeout=90,
        env={**os.environ, "JOBLIB_TEMP_FOLDER": str(folder)},
    )
    if how != "orphan":
        assert done.stdout == "set()\n", done.stderr
        return
    assert done.returncode == -signal.SIGKILL
    give_up = time.monotonic() + 20  # nobody waits for the trackers then
    while list(folder.iterdir()):
        assert time.monotonic() < give_up
        time.sleep(0.01)
