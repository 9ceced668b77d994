"""Tiny items, each on its own way: what one trip to a worker and back costs. 2 workers, a window of 128."""

from __future__ import annotations

from collections import deque
from itertools import count
from operator import eq

import peers
from workload import Metric, Target, Task, Workload, WrongResultError, timed

WORKERS = 2
WINDOW = 128


class Triples:
    """0, 3, 6, …"""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> int:
        if not 0 <= index < self.length:
            raise IndexError(index)
        return 3 * index


def check(items, length: int) -> None:
    """Take all items; the comparison costs about 30 ns an item."""
    expected = count(0, 3)
    if not all(map(eq, items, expected)) or next(expected) != 3 * length:
        deque(items, maxlen=0)
        raise WrongResultError("an item is wrong, missing or out of order")


def measure(task: Task, prefetch: int | None = WINDOW) -> dict[str, float]:
    elapsed = timed(peers.resolve(task.contender), Triples(task.count), WORKERS, prefetch, check)
    return {"rate": task.count / elapsed, "elapsed": elapsed}


WORKLOADS = [
    Workload(
        name="tiny_one_by_one",
        title=f"tiny items, one by one, {WORKERS} workers, window {WINDOW}",
        contenders=(
            "processes:1",
            "spawn:1",
            "executor",
            "torch",
            "pool.imap:1",
            "mpire:1",
            "joblib:1",
            "pebble",
            "seqtools",
            "grain",
            "keras",
        ),
        metrics=(Metric("rate", "items/s"),),
        targets=(
            Target("processes:1", "rate", over=("executor",), at_least=4),
            Target("processes:1", "rate", over=("torch",), at_least=3),
            Target("processes:1", "rate", over=("pool.imap:1",), at_least=1),
        ),
        measure=measure,
        count=256,
    )
]
