"""A dataset that holds 400 MB, 4 workers: the time to the first item, and the memory of the whole tree of processes.

The memory is what the kernel counts (PSS: what several processes share is counted once) while the loop is on, after
every worker has read the whole of the dataset about once.
"""

from __future__ import annotations

import os
import time

import memory
import numpy as np
import peers
from workload import Metric, Target, Task, Workload, WrongResultError

WORKERS = 4
WINDOW = 8
ROWS, ROW = 400, 250_000


class Table:
    """400 rows of 1 MB; row ``n`` holds the number ``n``."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.rows = np.empty((ROWS, ROW), np.float32)
        self.rows[:] = np.arange(ROWS, dtype=np.float32)[:, None]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> int:
        if not 0 <= index < self.length:
            raise IndexError(index)
        return index * ROWS + int(self.rows[index % ROWS].max())


def measure(task: Task) -> dict[str, float]:
    contender = peers.resolve(task.contender)
    dataset = Table(task.count)
    began = time.perf_counter()
    stream = contender(dataset, WORKERS, WINDOW)
    items = iter(stream)
    held = 0
    for number in range(task.count):
        item = next(items)
        if not number:
            first = time.perf_counter() - began
        if item != number * ROWS + number % ROWS:
            raise WrongResultError(f"item {number} is {item!r}")
        if number in {task.count // 2, task.count * 3 // 4, task.count - 2 * WINDOW}:
            held = max(held, memory.pss(os.getpid()))
    del items
    stream.close()
    return {"first": 1e3 * first, "tree": held / 1e6}


WORKLOADS = [
    Workload(
        name="big_dataset",
        title=f"a dataset holding {4 * ROWS * ROW / 1e6:g} MB, {WORKERS} workers, window {WINDOW}",
        contenders=(
            "processes",
            "spawn",
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
        metrics=(Metric("first", "ms to the first item", True), Metric("tree", "MB in all", True)),
        targets=(
            Target("processes", "first", at_most=50),
            Target("spawn", "tree", at_most=2 * 400 + 45 * WORKERS),
            Target("spawn", "first", over=("*:spawn", "joblib:1", "grain"), at_most=1),
        ),
        measure=measure,
        counted=False,
        count=4 * ROWS,
    )
]
