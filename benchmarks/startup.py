"""Beginning and ending: the time from the call to the first trivial item, and that of ``close()``. 2 workers.

``first``: the first call in a process; ``again``: the median of up to five further ones. ``close``: with idle workers.
``busy``: ``close()`` while each worker is in the middle of an item that sleeps a second. ``bare`` is given for spawn
alone: ``first`` over the time of a bare interpreter that imports the modules that a worker has.

Attention: where bytecode isn't kept (``PYTHONDONTWRITEBYTECODE``) each process compiles our sources anew, which the
installed packages of the peers are spared. Measure what is installed.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

import peers
from workload import Metric, Target, Task, Workload, WrongResultError

WORKERS = 2
WINDOW = 4


class Trivial:
    def __len__(self) -> int:
        return 1000

    def __getitem__(self, index: int) -> int:
        return 3 * index


class Busy(Trivial):
    """All but the first item take a second."""

    def __getitem__(self, index: int) -> int:
        if index:
            time.sleep(1)
        return 3 * index


class Modules(Trivial):
    """The names of the modules that are in a worker."""

    def __getitem__(self, index: int):
        return [name for name in sys.modules if name not in {"__main__", "__mp_main__"}]


def _once(contender, dataset, pause: float = 0.0) -> tuple[float, float]:
    """Return the seconds to the first item, and those of ``close()``, ``pause`` seconds later."""
    began = time.perf_counter()
    stream = contender(dataset, WORKERS, WINDOW)
    items = iter(stream)
    item = next(items)
    first = time.perf_counter() - began
    if item != 0:
        raise WrongResultError(f"item 0 is {item!r}")
    time.sleep(pause)
    began = time.perf_counter()
    del items
    stream.close()
    del stream
    return first, time.perf_counter() - began


def _bare(modules: list[str]) -> float:
    """Return the seconds that an interpreter takes that imports these modules and does nothing else."""
    program = (
        "import contextlib\n"
        f"for name in {modules!r}:\n"
        "    with contextlib.suppress(ImportError):\n"
        "        __import__(name)\n"
    )
    taken = []
    for _ in range(5):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", program], check=True)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def measure(task: Task) -> dict[str, float]:
    contender = peers.resolve(task.contender)
    first, close = _once(contender, Trivial(), 0.2)
    enough = time.perf_counter() + max(task.seconds, 1)
    again = [_once(contender, Trivial(), 0.2)[0]]
    while len(again) < 5 and time.perf_counter() < enough:
        again.append(_once(contender, Trivial(), 0.2)[0])
    _, busy = _once(contender, Busy(), 0.2)
    found = {
        "first": 1e3 * first,
        "again": 1e3 * statistics.median(again),
        "close": 1e3 * close,
        "busy": 1e3 * busy,
    }
    if task.contender == "spawn":
        stream = contender(Modules(), WORKERS, WINDOW)
        modules = next(iter(stream))
        stream.close()
        found["bare"] = first / _bare(modules)
    return found


WORKLOADS = [
    Workload(
        name="startup",
        title=f"start-up and break, {WORKERS} workers, window {WINDOW}",
        contenders=(
            "processes",
            "spawn",
            "threads",
            "executor",
            "torch",
            "pool.imap:1",
            "mpire:1",
            "pebble",
            "seqtools",
            "keras",
            "executor:spawn",
            "torch:spawn",
            "pool.imap:1:spawn",
            "mpire:1:spawn",
            "pebble:spawn",
            "joblib:1",
            "grain",
        ),
        metrics=(
            Metric("first", "ms to the first item", True),
            Metric("again", "ms, later calls", True),
            Metric("close", "ms close()", True),
            Metric("busy", "ms close(), busy", True),
            Metric("bare", "x bare interpreter", True),
        ),
        targets=(
            Target("processes", "first", at_most=15),
            Target("spawn", "bare", at_most=2),
            Target("processes", "close", at_most=20),
            Target("processes", "busy", at_most=20),
            Target("spawn", "close", at_most=20),
            Target("spawn", "busy", at_most=20),
        ),
        measure=measure,
        counted=False,
    )
]
