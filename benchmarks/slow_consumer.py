"""A slow consumer of 1 MB arrays: what is held while it works. 2 workers, a window of 8.

``growth`` is what the whole tree of processes holds (PSS) while the consumer sleeps and the window is full, over what
it holds with the same contender, the same dataset, and items of no size. PSS leaves out what no process has mapped,
such as a result on its way in a memory file; ``shared`` is the growth with all shared memory of the system in place of
what is mapped, and needs a machine on which nobody else uses any.

Then the consumer takes the rest, 100,000 in all, as far as it gets in ten times the seconds asked for (a peer: once),
the last of them slowly again, and ``drift``, ``files`` and ``maps`` say what has come on top. (While nobody naps each
worker may have all that is in use.) Peers whose results pile up without bound get 400 items.
"""

from __future__ import annotations

import os
import time

import memory
import peers
from arrays import Ready
from workload import Metric, Target, Task, Workload, WrongResultError

WORKERS = 2
WINDOW = 8
SIZE = 250_000
NAP = 0.005
LONG, SHORT = 100_000, 400
TOO_MUCH = 6e9


class Weightless(Ready):
    """The same dataset, read as a whole by every worker; its items are numbers."""

    def __init__(self, length: int, size: int) -> None:
        super().__init__(length, size)
        self.nbytes = 0  # nobody needs room for arrays

    def __getitem__(self, index: int) -> int:
        self.buffer.max()
        return index


def _held() -> tuple[int, int]:
    """Return the memory that the tree holds, without and with the shared memory that nobody has mapped."""
    me = os.getpid()
    mapped = memory.pss(me)
    return mapped, mapped - memory.pss(me, "Pss_Shmem") + memory.shared()


def _most(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    return max(one[0], other[0]), max(one[1], other[1])


def _empty_handed(contender) -> tuple[int, int]:
    """Return what the tree holds while items of no size are on their way."""
    stream = contender(Weightless(64, SIZE), WORKERS, WINDOW)
    items = iter(stream)
    held = 0, 0
    for number, _ in enumerate(items):
        time.sleep(NAP)
        if number in {16, 32, 48}:
            held = _most(held, _held())
    del items
    stream.close()
    return held


def measure(task: Task) -> dict[str, float]:
    contender = peers.resolve(task.contender)
    bounded = peers.peer_of(task.contender).bounded
    length = LONG if bounded else SHORT
    base = _empty_handed(contender)
    dataset = Ready(length, SIZE)
    now = time.perf_counter()
    slow_end, end = now + task.seconds, now + task.seconds * (10 if task.contender in peers.OURS else 1)
    stream = contender(dataset, WORKERS, WINDOW)
    items = iter(stream)
    held, number = (0, 0), 0
    early: tuple[int, int, int] | None = None
    last = length - 2 * WINDOW
    slow_again = last - int(task.seconds / NAP)
    for item in items:
        first, final = dataset.ends(number)
        if item.shape != (SIZE,) or float(item[0]) != first or float(item[-1]) != final:
            raise WrongResultError(f"item {number} is {item!r}")
        del item
        number += 1
        if early is None:
            time.sleep(NAP)
            if number % 20 == 0:
                held = _most(held, _held())
                if held[0] > TOO_MUCH:
                    raise MemoryError(f"{held[0] / 1e9:.1f} GB are held after {number} items")
                if time.perf_counter() >= slow_end:
                    early = _sample()
        elif number > slow_again:
            time.sleep(NAP)
        elif time.perf_counter() >= end:
            last = number + last - slow_again
            slow_again = number
        if number == last:
            break
    found = {"growth": (held[0] - base[0]) / 1e6, "shared": (held[1] - base[1]) / 1e6, "items": number}
    if early is not None and bounded:
        late = _sample()
        found |= {
            "drift": (late[0] - early[0]) / 1e6,
            "files": late[1] - early[1],
            "maps": late[2] - early[2],
        }
    del items
    stream.close()
    return found


def _sample() -> tuple[int, int, int]:
    time.sleep(0.2)  # the window fills up
    return memory.pss(os.getpid()), memory.descriptors(), memory.mappings()


WORKLOADS = [
    Workload(
        name="slow_consumer",
        title=f"a slow consumer of 1 MB arrays, {WORKERS} workers, window {WINDOW}",
        contenders=(
            "processes",
            "spawn",
            "executor",
            "torch",
            "torch:numpy",
            "seqtools",
            "grain",
            "pebble",
            "keras",
            "pool.imap:1",
            "mpire:1",
            "joblib:1",
        ),
        metrics=(
            Metric("growth", "MB held", True),
            Metric("shared", "MB with unmapped", True),
            Metric("drift", "MB more later", True),
            Metric("files", "files more", True),
            Metric("maps", "mappings more", True),
            Metric("items", "items"),
        ),
        targets=tuple(
            target
            for ours in ("processes", "spawn")
            for target in (
                Target(ours, "growth", at_most=WINDOW + WORKERS),
                Target(ours, "drift", at_most=1),
                Target(ours, "files", at_most=WORKERS),
                Target(ours, "maps", at_most=WORKERS),
                Target(ours, "items", at_least=LONG - 2 * WINDOW),
            )
        ),
        measure=measure,
        counted=False,
    )
]
