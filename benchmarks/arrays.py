"""Arrays on their way back from the workers: what the three workloads of arrays have in common.

``Ready``: the item exists already, and nothing but its way is measured. All items are views of one buffer, each 16
numbers further on, so that every item's content is its own (within 256) and the order can be checked.
``Made``: each item is a new array that the worker fills. ``MadeInPlace``: likewise, in what `ordmap.empty` gives.
"""

from __future__ import annotations

import os
import time

import numpy as np
import peers
from workload import Metric, Target, Task, Workload, WrongResultError, timed

WORKERS = 2
_STEP, _STEPS = 16, 256


class Ready:
    def __init__(self, length: int, size: int) -> None:
        self.length = length
        self.size = size
        self.nbytes = 4 * size
        self.buffer = np.arange(size + _STEP * _STEPS, dtype=np.float32)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int):
        if not 0 <= index < self.length:
            raise IndexError(index)
        first = _STEP * (index % _STEPS)
        return self.buffer[first : first + self.size]

    def ends(self, index: int):
        """The first and the last number of an item."""
        first = _STEP * (index % _STEPS)
        return first, first + self.size - 1


class Made:
    def __init__(self, length: int, size: int) -> None:
        self.length = length
        self.size = size
        self.nbytes = 4 * size

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int):
        if not 0 <= index < self.length:
            raise IndexError(index)
        array = np.empty(self.size, np.float32)
        array.fill(index)
        return array

    def ends(self, index: int):
        return index, index


class MadeInPlace(Made):
    def __getitem__(self, index: int):
        import ordmap

        array = ordmap.empty(self.size, np.float32)
        array.fill(index)
        return array


def _taken(dataset, items, length: int) -> None:
    """Take all items, each dropped when the next one comes, and check the shape and both ends of each."""
    size, ends, number = dataset.size, dataset.ends, 0
    for item in items:
        if type(item) is not np.ndarray:
            item = np.asarray(item)  # a tensor: no copy
        first, last = ends(number)
        if item.shape != (size,) or item[0] != first or item[-1] != last:
            raise WrongResultError(f"item {number} is {item!r}")
        number += 1
    if number != length:
        raise WrongResultError(f"{number} items in place of {length}")


def memcpy(count: int) -> dict[str, float]:
    """The machine's yardstick: ``np.copyto`` of 24 MB, again and again."""
    source = np.ones(6_000_000, np.float32)
    target = np.zeros_like(source)
    began = time.perf_counter()
    for _ in range(count):
        np.copyto(target, source)
    elapsed = time.perf_counter() - began
    return {"gigabytes": count * source.nbytes / elapsed / 1e9, "elapsed": elapsed}


def fill(count: int, size: int) -> dict[str, float]:
    """The other yardstick: two processes that fill arrays of their own, three by turns, and give nothing to anybody."""
    arrays = [np.zeros(size, np.float32) for _ in range(3)]
    began = time.perf_counter()
    child = os.fork()
    for number in range(count // 2):
        arrays[number % 3].fill(number)
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    elapsed = time.perf_counter() - began
    return {"gigabytes": count // 2 * 2 * arrays[0].nbytes / elapsed / 1e9, "elapsed": elapsed}


def workload(
    name: str,
    size: int,
    prefetch: int,
    targets: tuple[Target, ...],
    *,
    made: bool = False,
    in_place: bool = False,
) -> Workload:
    """Describe a workload of float32 arrays of ``size`` numbers."""

    def measure(task: Task) -> dict[str, float]:
        if task.contender == "memcpy":
            return memcpy(task.count)
        if task.contender == "fill":
            return fill(task.count, size)
        base, _, option = task.contender.partition(":")
        kind = MadeInPlace if option == "in-place" else Made if made else Ready
        contender = peers.resolve(base if option == "in-place" else task.contender)
        dataset = kind(task.count, size)
        elapsed = timed(contender, dataset, WORKERS, prefetch, lambda items, length: _taken(dataset, items, length))
        return {"gigabytes": task.count * dataset.nbytes / elapsed / 1e9, "elapsed": elapsed}

    nbytes = f"{4 * size / 1e6:g} MB" if size >= 250_000 else f"{4 * size / 1e3:g} KB"
    what = "filled by the worker" if made else "ready in the dataset"
    return Workload(
        name=name,
        title=f"{nbytes} float32 arrays, {what}, {WORKERS} workers, window {prefetch}",
        contenders=(
            "processes",
            *(("processes:in-place",) if in_place else ()),
            "spawn",
            *(("threads",) if made else ()),  # views of what is there already would cost it nothing
            "torch",
            "torch:numpy",
            "seqtools",
            "grain",
            "executor",
            "pool.imap:1",
            "mpire:1",
            "joblib:1",
            "pebble",
            "keras",
            "memcpy",
            *(("fill",) if in_place else ()),
        ),
        metrics=(Metric("gigabytes", "GB/s"),),
        targets=targets,
        measure=measure,
        count=16,
        extra=made,
    )
