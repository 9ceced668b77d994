"""A stream of 600 KB float32 arrays from a generator, on their way to the workers: a window of 16, 2 workers.

The arrays are views of one buffer that exists already, as in `arrays`, and the function reads both ends: nothing but
their way is measured.
"""

from __future__ import annotations

from arrays import Ready, memcpy
from streams import resolve, timed
from workload import Metric, Target, Task, Workload, WrongResultError

WORKERS = 2
WINDOW = 16
SIZE = 150_000


def ends(array) -> float:
    """Return what only this array (within 256) gives, and only a whole one."""
    return float(array[0]) + float(array[-1]) + array.size


def measure(task: Task) -> dict[str, float]:
    if task.contender == "memcpy":
        return memcpy(task.count)
    contender = resolve(task.contender)
    dataset = Ready(task.count, SIZE)

    def check(results, length: int) -> None:
        number = 0
        for result in results:
            if result != sum(dataset.ends(number)) + SIZE:
                raise WrongResultError(f"item {number} gave {result!r}")
            number += 1
        if number != length:
            raise WrongResultError(f"{number} items in place of {length}")

    source = (dataset[number] for number in range(task.count))
    elapsed = timed(contender, ends, source, task.count, WORKERS, WINDOW, check)
    return {"gigabytes": task.count * dataset.nbytes / elapsed / 1e9, "elapsed": elapsed}


WORKLOADS = [
    Workload(
        name="stream_arrays",
        title=f"a stream of {4 * SIZE / 1e3:g} KB float32 arrays as inputs, {WORKERS} workers, window {WINDOW}",
        contenders=("processes", "spawn", "executor", "pool.imap:1", "mpire:1", "joblib:1", "memcpy"),
        metrics=(Metric("gigabytes", "GB/s"),),
        targets=tuple(
            Target("processes", "gigabytes", over=(peer,), at_least=4) for peer in ("joblib:1", "mpire:1", "executor")
        ),
        measure=measure,
        count=16,
    )
]
