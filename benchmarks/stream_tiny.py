"""Streams of 10⁶ numbers, from a generator or a range, and of 200,000 lines of text; the peers at several chunk sizes.

``growth``: what the parent held at the most, over what it held before. It grows with the stream where that is pulled
ahead without bound, or where results that have come aren't counted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import count
from operator import eq
from typing import Any

import peers
from streams import Peak, resolve, timed
from tiny_one_by_one import check
from workload import Metric, Target, Task, Workload, WrongResultError

WORKERS = 2
PEERS_WINDOW = 1024  # as wide as ours may become
WIDE = 20_000
MOST_GROWTH = 16  # MB


def triple(number: int) -> int:
    return 3 * number


def line(number: int) -> str:
    return f"line {number} of a log with some words"


def parse(text: str) -> tuple[int, str, dict[str, int]]:
    words = text.split()
    return int(words[1]), words[-1], {"words": len(words), "characters": len(text)}


def check_lines(items: Iterator[object], length: int) -> None:
    expected = (parse(line(number)) for number in count())
    if not all(map(eq, items, expected)) or next(expected)[0] != length:
        deque(items, maxlen=0)
        raise WrongResultError("an item is wrong, missing or out of order")


def measure(
    task: Task, window: int | None = None, source: Iterable[Any] | None = None, *, lines: bool = False
) -> dict[str, float]:
    contender = resolve(task.contender)
    window = window if task.contender.split(":")[0] in peers.OURS else PEERS_WINDOW
    fn, checked = (parse, check_lines) if lines else (triple, check)
    if source is None:
        source = (line(n) for n in range(task.count)) if lines else (n for n in range(task.count))
    peak = Peak()
    elapsed = timed(contender, fn, source, task.count, WORKERS, window, checked)
    return {"rate": task.count / elapsed, "growth": peak.growth() / 1e6, "elapsed": elapsed}


def measure_wide(task: Task) -> dict[str, float]:
    return measure(task, WIDE)


def measure_range(task: Task) -> dict[str, float]:
    return measure(task, WIDE, range(task.count))


def measure_lines(task: Task) -> dict[str, float]:
    return measure(task, lines=True)


PEERS = (
    "pool.imap:100",
    "pool.imap:1000",
    "pool.imap:10000",
    "executor:1000",
    "executor:10000",
    "mpire:1000",
    "mpire:10000",
    "joblib:1000",
    "joblib:10000",
    "serial",
)
METRICS = (Metric("rate", "items/s"), Metric("growth", "MB more", less_is_better=True))
TARGETS = (
    Target("processes", "rate", over=("pool.imap:*",), at_least=1.5),
    Target("processes", "growth", at_most=MOST_GROWTH),
    Target("spawn", "growth", at_most=MOST_GROWTH),
)

WORKLOADS = [
    Workload(
        name="stream_tiny",
        title=f"a stream of 1,000,000 numbers, defaults, {WORKERS} workers; the peers at several chunk sizes",
        contenders=("processes", "spawn", "threads", *PEERS),
        metrics=METRICS,
        targets=TARGETS,
        measure=measure,
        counted=False,
        count=1_000_000,
    ),
    Workload(
        name="stream_tiny_wide",
        title=f"a stream of 1,000,000 numbers, a window of {WIDE:,}, {WORKERS} workers; the peers as before",
        contenders=("processes", "spawn", *PEERS),
        metrics=METRICS,
        targets=TARGETS,
        measure=measure_wide,
        counted=False,
        count=1_000_000,
    ),
    Workload(
        name="stream_range",
        title=f"a range of 1,000,000 numbers, a window of {WIDE:,}, {WORKERS} workers; the peers as before",
        contenders=("processes", "spawn", *PEERS),
        metrics=METRICS,
        targets=TARGETS,
        measure=measure_range,
        counted=False,
        count=1_000_000,
    ),
    Workload(
        name="stream_lines",
        title=f"a stream of 200,000 lines to records, defaults, {WORKERS} workers; the peers at several chunk sizes",
        contenders=("processes", "spawn", *PEERS),
        metrics=METRICS,
        targets=TARGETS[1:],
        measure=measure_lines,
        counted=False,
        count=200_000,
    ),
]
