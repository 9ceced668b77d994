"""Programs that gevent or eventlet has patched: a backend works, or is refused with one clear error."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys
if sys.argv[1] == "gevent":
    import gevent, gevent.monkey
    gevent.monkey.patch_all()
    def in_two(function):
        jobs = [gevent.spawn(function) for _ in range(2)]
        return [job.get() for job in jobs]
else:
    import eventlet
    eventlet.monkey_patch()
    def in_two(function):
        jobs = [eventlet.spawn(function) for _ in range(2)]
        return [job.wait() for job in jobs]
import time
from ordmap import ordered_map
from ordmap.errors import BackendUnavailableError

backend = sys.argv[2]
async def awaited(x):
    return x
def slow(x):
    time.sleep(0.01)
    return x
function = awaited if backend == "asyncio" else slow

def loop():
    try:
        return list(ordered_map(function, range(8), workers=3, backend=backend))
    except BackendUnavailableError as error:
        assert "has patched threads" in str(error) and "use backend='threads'" in str(error)
        return "refused"

results = [loop(), *in_two(loop)]
assert all(one == results[0] for one in results), results
print(results[0])
"""

WORKS = {"threads", "serial"}


@pytest.mark.parametrize("backend", ["processes", "spawn", "threads", "asyncio", "serial"])
@pytest.mark.parametrize("patcher", ["gevent", "eventlet"])
def test_it_works_or_is_refused(patcher, backend, script):
    command = [sys.executable, "-W", "ignore", script(PROGRAM), patcher, backend]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    expected = f"{list(range(8))}\n" if backend in WORKS else "refused\n"
    assert done.stdout == expected, done.stderr
