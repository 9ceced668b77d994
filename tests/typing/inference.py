"""What a type checker infers: checked by mypy, never run."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import assert_type

from ordmap import Dataset, FromExecutor, OrderedIterator, Processes, Serial, Spawn, Threads, ordered_imap, ordered_map
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
