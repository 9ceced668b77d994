"""What a type checker infers: checked by mypy, never run."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import assert_type

from ordmap import (
    Dataset,
    FromExecutor,
    OrderedIterator,
    ParallelDataset,
    Processes,
    Serial,
    Spawn,
    Threads,
    WorkerInfo,
    item_rng,
    mapped,
    ordered_imap,
    ordered_map,
    subset,
    worker_info,
)
from ordmap.backends import Backend


class Lines:
    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> bytes:
        return b""


assert_type(ordered_imap(Lines()), OrderedIterator[bytes])
assert_type(ordered_imap([1, 2], 4, 16, backend="threads", epochs=None), OrderedIterator[int])
assert_type(ordered_imap("text", backend=Processes(2)), OrderedIterator[str])
assert_type(ordered_imap("text", backend=ThreadPoolExecutor()), OrderedIterator[str])
assert_type(next(ordered_imap(Lines())), bytes)
assert_type(list(ordered_imap(Lines(), indices=[1], chunksize=2)), list[bytes])
assert_type(ordered_map(len, ["a"]), OrderedIterator[int])
assert_type(ordered_imap(Lines()).start(), OrderedIterator[bytes])

with ordered_imap(Lines()) as iterator, Threads(2) as threads, Processes(2) as processes:
    assert_type(iterator, OrderedIterator[bytes])
    assert_type(threads, Threads)
    assert_type(processes, Processes)

dataset: Dataset[bytes] = Lines()
backends: list[Backend] = [Serial(), Threads(), Processes(), Spawn(), FromExecutor(ThreadPoolExecutor())]

ordered_imap(3)  # type: ignore[call-overload]
ordered_imap(Lines(), workers="2")  # type: ignore[call-overload]
ordered_imap({1, 2})  # type: ignore[call-overload]

assert_type(mapped(len, ["a"]), Sequence[int])
assert_type(subset(Lines(), [1]), Sequence[bytes])
assert_type(list(ordered_imap(mapped(len, ["a"]))), list[int])
assert_type(ParallelDataset(Lines(), 2)[0], bytes)
assert_type(ParallelDataset(Lines(), 2, backend="threads")[1:], ParallelDataset[bytes])
assert_type(list(ParallelDataset(Lines())), list[bytes])
assert_type(item_rng(), Random)
assert_type(worker_info(), WorkerInfo | None)
ordered_imap(Lines(), seed=3, shuffle=True, shard=(0, 2, "drop"))
ordered_map(len, ["a"], seed=3)
