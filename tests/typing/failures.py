"""What a type checker infers of ``on_error``: checked by mypy, never run."""

from __future__ import annotations

from typing import assert_type

from ordmap import Failure, OrderedIterator, Processes, ordered_imap, ordered_map


def index_of(failure: Failure) -> bytes:
    return bytes(failure.index)


assert_type(ordered_imap([1], retries=2), OrderedIterator[int])
assert_type(ordered_imap([1], 2, 8, on_error="skip", item_timeout=3, epochs=None), OrderedIterator[int])
assert_type(ordered_imap([1], on_error="return", backend="threads"), OrderedIterator[int | Failure])
assert_type(ordered_imap([1], on_error=index_of, chunksize=3), OrderedIterator[int | bytes])
assert_type(ordered_map(len, ["a"], on_error="raise", strict=True), OrderedIterator[int])
assert_type(ordered_map(len, ["a"], ["b"], on_error="return", workers=2), OrderedIterator[int | Failure])
assert_type(ordered_map(len, ["a"], on_error=index_of, retries=1), OrderedIterator[int | bytes])

Processes(2, finalizer=print, max_items_per_worker=10, max_memory_per_worker="2GB")

ordered_imap([1], on_error="ignore")  # type: ignore[call-overload]
ordered_imap([1], retries="2")  # type: ignore[call-overload]
ordered_imap([1], nonsense=3)  # type: ignore[call-overload]
