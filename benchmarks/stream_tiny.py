"""A stream of 10⁶ small inputs from a generator with our defaults, the peers at several chunk sizes. 2 workers.

``growth``: what the parent held at the most, over what it held before. It grows with the stream where that is pulled
ahead without bound, or where results that have come aren't counted.
"""

from __future__ import annotations

import peers
from streams import Peak, resolve, timed
from tiny_one_by_one import check
from workload import Metric, Target, Task, Workload

WORKERS = 2
PEERS_WINDOW = 1024  # as wide as ours may become
LENGTH = 1_000_000
MOST_GROWTH = 16  # MB


def triple(number: int) -> int:
    return 3 * number


def measure(task: Task) -> dict[str, float]:
    contender = resolve(task.contender)
    window = None if task.contender.split(":")[0] in peers.OURS else PEERS_WINDOW
    peak = Peak()
    elapsed = timed(contender, triple, (n for n in range(task.count)), task.count, WORKERS, window, check)
    return {"rate": task.count / elapsed, "growth": peak.growth() / 1e6, "elapsed": elapsed}


WORKLOADS = [
    Workload(
        name="stream_tiny",
        title=f"a stream of {LENGTH:,} small inputs, defaults, {WORKERS} workers; the peers at several chunk sizes",
        contenders=(
            "processes",
            "spawn",
            "threads",
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
        ),
        metrics=(Metric("rate", "items/s"), Metric("growth", "MB more", less_is_better=True)),
        targets=(
            Target("processes", "rate", over=("pool.imap:*",), at_least=1.5),
            Target("processes", "growth", at_most=MOST_GROWTH),
            Target("spawn", "growth", at_most=MOST_GROWTH),
        ),
        measure=measure,
        counted=False,
        count=LENGTH,
    )
]
