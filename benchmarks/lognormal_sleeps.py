"""Items whose times differ wildly: log-normal sleeps, mean 10 ms, sigma 1.5; 4 workers, a window of 64.

The yardstick is a window without any cost, simulated on the same times: each item is begun, in order, as soon as a
worker is free and there is room in the window.
"""

from __future__ import annotations

import heapq
import math
import random
import time
from itertools import count as numbers
from operator import eq

import peers
from workload import Metric, Target, Task, Workload, WrongResultError, timed

WORKERS = 4
WINDOW = 64
MEAN, SIGMA = 0.010, 1.5


def drawn(repeat: int, seconds: float) -> list[float]:
    """Return sleeping times that keep a window without cost busy for ``seconds``; the same for every contender."""
    generator = random.Random(f"sleeps, repeat {repeat}")
    location = math.log(MEAN) - SIGMA**2 / 2
    times: list[float] = []
    while simulated(times) < seconds:
        times += (generator.lognormvariate(location, SIGMA) for _ in range(16))
    return times


def simulated(times: list[float], workers: int = WORKERS, window: int = WINDOW) -> float:
    """Return how long a window without any cost takes, with a consumer that takes no time."""
    free = [0.0] * workers
    given = [0.0]  # given[i]: when the item before the i-th was given out
    for index, duration in enumerate(times):
        room = given[max(0, index - window + 1)]
        begins = max(heapq.heappop(free), room)
        heapq.heappush(free, begins + duration)
        given.append(max(given[-1], begins + duration))
    return given[-1]


class Sleeps:
    def __init__(self, times: list[float]) -> None:
        self.times = times

    def __len__(self) -> int:
        return len(self.times)

    def __getitem__(self, index: int) -> int:
        time.sleep(self.times[index])
        return index


def _check(items, length: int) -> None:
    expected = numbers()
    if not all(map(eq, items, expected)) or next(expected) != length:
        raise WrongResultError("an item is wrong, missing or out of order")


def measure(task: Task) -> dict[str, float]:
    times = drawn(task.repeat, task.seconds)
    elapsed = timed(peers.resolve(task.contender), Sleeps(times), WORKERS, WINDOW, _check)
    return {"share": simulated(times) / elapsed, "elapsed": elapsed}


WORKLOADS = [
    Workload(
        name="lognormal_sleeps",
        title=f"log-normal sleeps, mean {1e3 * MEAN:g} ms, sigma {SIGMA}, {WORKERS} workers, window {WINDOW}",
        contenders=(
            "processes",
            "spawn",
            "threads",
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
        metrics=(Metric("share", "of a window without cost"), Metric("elapsed", "s", True)),
        targets=(Target("processes", "share", at_least=0.97), Target("threads", "share", at_least=0.97)),
        measure=measure,
        counted=False,
    )
]
