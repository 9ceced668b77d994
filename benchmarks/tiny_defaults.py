"""Tiny items with our defaults, which adapt window and chunks, against each peer at its best chunk size. 2 workers.

seqtools, grain and Keras are not here: they have no chunks, and are measured item by item in ``tiny_one_by_one``.
"""

from __future__ import annotations

import peers
from tiny_one_by_one import Triples, check
from workload import Metric, Target, Task, Workload, timed

WORKERS = 2
PEERS_WINDOW = 1024  # as wide as ours may become


def measure(task: Task) -> dict[str, float]:
    ours = task.contender.split(":")[0] in peers.OURS
    elapsed = timed(peers.resolve(task.contender), Triples(task.count), WORKERS, None if ours else PEERS_WINDOW, check)
    return {"rate": task.count / elapsed, "elapsed": elapsed}


WORKLOADS = [
    Workload(
        name="tiny_defaults",
        title=f"tiny items, defaults, {WORKERS} workers; the peers at several chunk sizes",
        contenders=(
            "processes",
            "spawn",
            "threads",
            "pool.imap:64",
            "pool.imap:256",
            "pool.imap:1024",
            "executor:256",
            "executor:1024",
            "mpire:64",
            "mpire:256",
            "joblib",
            "joblib:256",
            "pebble:256",
            "torch:64",
            "torch:256",
            "serial",
        ),
        metrics=(Metric("rate", "items/s"),),
        targets=(
            Target("processes", "rate", over=("pool.imap:64",), at_least=1.5),
            Target(
                "processes",
                "rate",
                over=("pool.imap:*", "executor:*", "mpire:*", "joblib*", "pebble:*", "torch:*"),
                at_least=1.5,
            ),
        ),
        measure=measure,
        count=4096,
    )
]
