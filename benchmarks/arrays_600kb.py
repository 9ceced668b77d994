"""600 KB float32 arrays, a picture of 224 x 224 pixels: a window of 16, 2 workers."""

from __future__ import annotations

from arrays import workload
from workload import Target

SIZE = 150_000
TARGETS = (
    Target("processes", "gigabytes", over=("torch", "torch:*"), at_least=12),
    Target("processes", "gigabytes", over=("seqtools",), at_least=1.8),
    Target("processes", "gigabytes", over=("memcpy",), at_least=0.8),
)
WORKLOADS = [
    workload("arrays_600kb", SIZE, 16, TARGETS),
    workload("arrays_600kb_made", SIZE, 16, TARGETS, made=True, in_place=True),
]
