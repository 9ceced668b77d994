"""Tiny items without workers, beside the plain loop and PyTorch's loader without workers: what an item costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from peers import Stream
from tiny_one_by_one import Triples, check
from workload import Metric, Target, Task, Workload, timed


def imap(dataset, workers, prefetch):
    """Ours, over a dataset."""
    from ordmap import ordered_imap

    return ordered_imap(dataset, workers)


def indices(dataset, workers, prefetch):
    """Ours, over indices that are pulled from a generator."""
    from ordmap import ordered_imap

    return ordered_imap(dataset, workers, indices=(index for index in range(len(dataset))))


def stream(dataset, workers, prefetch):
    """Ours, over a generator."""
    from ordmap import ordered_map

    return ordered_map(dataset.__getitem__, (index for index in range(len(dataset))), workers=workers)


def loop(dataset, workers, prefetch):
    return Stream((dataset[index] for index in range(len(dataset))), lambda: None)


def torch(dataset, workers, prefetch):
    from torch.utils.data import DataLoader

    return Stream(_same(DataLoader(dataset, batch_size=None, collate_fn=_itself)), lambda: None)


def _itself(item: int) -> int:
    return item


def _same(items) -> Iterator[int]:
    yield from items


CONTENDERS: dict[str, Callable] = {
    "no-workers": imap,
    "no-workers:indices": indices,
    "no-workers:generator": stream,
    "serial": loop,
    "torch": torch,
}


def measure(task: Task) -> dict[str, float]:
    contender = CONTENDERS[task.contender]
    contender(Triples(1), 0, None)  # what it imports comes before the clock
    elapsed = timed(contender, Triples(task.count), 0, None, check)
    return {"cost": 1e6 * elapsed / task.count, "elapsed": elapsed}


WORKLOADS = [
    Workload(
        name="serial",
        title="tiny items without workers",
        contenders=tuple(CONTENDERS),
        metrics=(Metric("cost", "µs an item", less_is_better=True),),
        targets=(
            Target("no-workers", "cost", at_most=2),
            Target("no-workers:indices", "cost", at_most=2),
            Target("no-workers:generator", "cost", at_most=2),
            Target("no-workers", "cost", over=("torch",), at_most=0.5),
        ),
        measure=measure,
        count=4096,
    )
]
