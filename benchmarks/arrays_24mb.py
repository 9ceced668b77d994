"""24 MB float32 arrays, a batch: a window of 4, 2 workers; also made in place, in what `ordmap.empty` gives."""

from __future__ import annotations

from arrays import workload
from workload import Target

SIZE = 6_000_000
TARGETS = (
    Target("processes", "gigabytes", over=("torch", "torch:*"), at_least=4),
    Target("processes", "gigabytes", over=("seqtools",), at_least=1.1),
    Target("processes", "gigabytes", over=("memcpy",), at_least=0.75),
    Target("processes:in-place", "gigabytes", over=("memcpy",), at_least=2),
)
WORKLOADS = [
    workload("arrays_24mb", SIZE, 4, TARGETS, in_place=True),
    workload("arrays_24mb_made", SIZE, 4, TARGETS, made=True, in_place=True),
]
