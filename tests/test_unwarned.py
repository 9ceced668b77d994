"""Forks leave the caller's warnings alone: its filters, what they have shown, and what they record."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import os, sys, threading, time, warnings
if sys.argv[2] == "portable":
    os.environ["ORDMAP_PORTABLE"] = "1"
from ordmap import ordered_map

def tell():
    warnings.warn("once in this place", UserWarning)

threading.Thread(target=time.sleep, args=(60,), daemon=True).start()  # Python >= 3.12 warns of a fork beside it
shown = []
warnings.showwarning = lambda message, *_: shown.append(str(message))
if sys.argv[1] == "default":
    warnings.simplefilter("default")
elif sys.argv[1] == "error":
    warnings.simplefilter("error", DeprecationWarning)
elif sys.argv[1] == "always":
    warnings.simplefilter("always", DeprecationWarning)
before = list(warnings.filters)
list(ordered_map(abs, range(3), workers=1))  # what this imports may have filters of its own
loaded = list(warnings.filters)
for _ in range(3):
    tell()
    assert list(ordered_map(abs, range(3), workers=2)) == [0, 1, 2]
assert shown == ["once in this place"], shown

def loop():
    for _ in range(5):
        list(ordered_map(abs, range(3), workers=1))

threads = [threading.Thread(target=loop) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
tell()
assert shown == ["once in this place"], shown
assert warnings.filters == loaded, warnings.filters
with warnings.catch_warnings(record=True) as log:
    warnings.simplefilter("always")
    list(ordered_map(abs, range(3), workers=1))
assert not log, [str(one.message) for one in log]
print("quiet")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="there are no forks of ours elsewhere")
@pytest.mark.parametrize("engine", ["engine", "portable"])
@pytest.mark.parametrize("filters", ["default", "error", "always"])
def test_a_warning_is_shown_once_a_place_whatever_forks_there_are(filters, engine, script):
    done = subprocess.run(
        [sys.executable, script(PROGRAM), filters, engine], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout == "quiet\n", done.stderr
    assert "multi-threaded" not in done.stderr
