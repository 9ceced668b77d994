"""4 KB float32 arrays, a short row: a window of 64, 2 workers."""

from __future__ import annotations

from arrays import workload
from workload import Target

WORKLOADS = [
    workload("arrays_4kb", 1_000, 64, (Target("processes", "gigabytes", over=("torch", "torch:*"), at_least=4),))
]
