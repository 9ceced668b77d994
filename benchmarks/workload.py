"""What a workload is: a measure that runs in a process of its own, what it gives, and the figures to reach."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: The files of the workloads, in the order in which they run.
MODULES = (
    "tiny_one_by_one",
    "tiny_defaults",
    "stream_tiny",
    "arrays_600kb",
    "arrays_24mb",
    "arrays_4kb",
    "stream_arrays",
    "big_dataset",
    "lognormal_sleeps",
    "jpeg",
    "startup",
    "slow_consumer",
    "serial",
    "awaits",
)


#: Contenders that are what the machine itself can do.
YARDSTICKS = {"memcpy", "fill"}


@dataclass(frozen=True)
class Task:
    """One run of one contender."""

    contender: str
    count: int  # of items
    seconds: float
    repeat: int
    folder: Path  # what `Workload.prepare` left there


@dataclass(frozen=True)
class Metric:
    """A number that each run gives. The first one of a workload is what its ratios compare."""

    name: str
    unit: str
    less_is_better: bool = False


@dataclass(frozen=True)
class Target:
    """A figure to reach: of ``metric`` itself, or of its ratio to the best of the contenders that match ``over``."""

    ours: str
    metric: str
    over: tuple[str, ...] = ()
    at_least: float | None = None
    at_most: float | None = None


@dataclass(frozen=True)
class Workload:
    name: str
    title: str
    contenders: tuple[str, ...]
    metrics: tuple[Metric, ...]
    targets: tuple[Target, ...]
    measure: Callable[[Task], dict[str, float]]
    counted: bool = True  # the number of items is chosen so that a run takes as long as asked for
    count: int = 64  # of items to begin with, or always
    prepare: Callable[[Path], None] | None = None
    extra: bool = False  # runs only when it is named


def load(module: str) -> list[Workload]:
    return importlib.import_module(module).WORKLOADS


class WrongResultError(Exception):
    """A contender gave something else than the serial loop does."""


def timed(contender: Callable[..., Any], dataset: Any, workers: int, prefetch: int | None, check: Any) -> float:
    """Return the seconds of a whole call: start-up, every item, and the end of the workers.

    ``check(iterator, count)`` takes all items, and raises `WrongResultError`.
    """
    began = time.perf_counter()
    stream = contender(dataset, workers, prefetch)
    check(iter(stream), len(dataset))
    stream.close()
    return time.perf_counter() - began
