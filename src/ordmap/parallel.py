"""A dataset that is computed ahead wherever it is iterated over: wrap it once, and use it as any sequence."""

from __future__ import annotations

import operator
import os
import weakref
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

from ordmap.backends import BACKENDS, Backend, resolve
from ordmap.backends.pool import Pool
from ordmap.backends.serial import Serial
from ordmap.dataset import Dataset
from ordmap.dropping import close_dropped
from ordmap.imap import ordered_imap
from ordmap.item import in_hand
from ordmap.iterator import OrderedIterator
from ordmap.views import fetched, subset

if TYPE_CHECKING:
    from concurrent.futures import Executor

__all__ = ["ParallelDataset"]

T_co = TypeVar("T_co", covariant=True)

#: Options of `ordered_imap` with which a list of what it gives would be another than that of its items.
_OTHER_ORDERS = {
    "epochs": "go through it several times",
    "shuffle": "write ordered_imap(dataset, shuffle=True, …)",
    "shard": "write ordered_imap(dataset, shard=…)",
    "indices": "write ordmap.subset(dataset, indices)",
}


class ParallelDataset(Sequence[T_co]):
    """The items of a dataset, as a sequence that workers compute ahead whenever it is iterated over.

    ``list(ParallelDataset(dataset, …)) == [dataset[i] for i in range(len(dataset))]``. Each ``iter()`` begins anew, and
    is an `OrderedIterator`; the workers begin with the first, and are kept for those that follow, until ``close()``,
    the end of a ``with`` block, or garbage collection. An index asks the dataset itself, here and now; a slice is a
    lazy view, with the same workers.

    It can be pickled, and used by an item of another iterator, where it does without workers; so is a copy in another
    process. What an item raises, ``item_timeout``, ``retries`` and the rest are as for `ordered_imap`; there is no
    ``"skip"``, and no other order.

    Args:
        dataset: Anything with ``__getitem__`` and ``__len__``.
        workers, prefetch, options: As for `ordered_imap`.

    Example:
        >>> squares = ParallelDataset([n * n for n in range(5)], workers=2, backend="threads")
        >>> list(squares), squares[2], list(squares[::-2])
        ([0, 1, 4, 9, 16], 4, [16, 4, 0])
        >>> squares.close()
    """

    def __init__(
        self, dataset: Dataset[T_co], workers: int | None = None, prefetch: int | str | None = None, **options: Any
    ) -> None:
        for name, instead in _OTHER_ORDERS.items():
            if name in options:
                raise TypeError(f"a ParallelDataset has the order of its dataset, and no {name}: {instead}")
        if options.get("on_error") == "skip":
            raise ValueError("on_error='skip' would leave fewer items than len() says: write on_error='return'")
        self._dataset = dataset
        self._prefetch = prefetch
        self._asked = workers, options.get("backend", "processes")
        self._options = {name: value for name, value in options.items() if name != "backend"}
        self._pool: _Pool | None = None
        ordered_imap(dataset, workers, prefetch, **options).close()  # refuses what can't be

    def __len__(self) -> int:
        return len(self._dataset)

    @overload
    def __getitem__(self, index: int) -> T_co: ...
    @overload
    def __getitem__(self, index: slice) -> ParallelDataset[T_co]: ...
    def __getitem__(self, index: int | slice) -> T_co | ParallelDataset[T_co]:
        if isinstance(index, slice):
            return self._view(subset(self._dataset, range(len(self))[index]))
        return self._dataset[range(len(self))[operator.index(index)]]

    def __getitems__(self, indices: Sequence[int]) -> Sequence[T_co]:
        """Return several items at once, as PyTorch asks for them."""
        return fetched(self._dataset, indices)

    def __iter__(self) -> OrderedIterator[T_co]:
        backend = Serial() if in_hand() is not None else self._shared().backend
        return ordered_imap(self._dataset, None, self._prefetch, backend=backend, **self._options)

    def __aiter__(self) -> OrderedIterator[T_co]:
        return iter(self)

    def _shared(self) -> _Pool:
        """Return the workers of this process."""
        if self._pool is None or self._pool.process != os.getpid():
            self._pool = _Pool(*self._asked)
        return self._pool

    def _view(self, dataset: Dataset[T_co]) -> ParallelDataset[T_co]:
        view: ParallelDataset[T_co] = object.__new__(ParallelDataset)
        view.__dict__.update(self.__dict__, _dataset=dataset, _pool=self._shared())
        return view

    def close(self) -> None:
        """End the workers, also those of its slices; iterating again starts new ones."""
        if self._pool is not None:
            self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        workers, backend = self._asked
        if not isinstance(backend, str):  # a pool is of this process
            backend = backend.name if getattr(backend, "name", None) in BACKENDS else "processes"
        options = {**self._options, "backend": backend}
        return partial(ParallelDataset, self._dataset, workers, self._prefetch, **options), ()

    def __repr__(self) -> str:
        return f"ParallelDataset({self._dataset!r}, workers={self._asked[0]})"


class _Pool:
    """A backend whose workers stay until nobody needs them any more; one of the user's own is theirs to close."""

    def __init__(self, workers: int | None, backend: str | Backend | Executor) -> None:
        self.process = os.getpid()
        self.backend = resolve(backend, workers)
        self._owned = self.backend if isinstance(backend, str) and isinstance(self.backend, Pool) else None
        if self._owned is not None:
            self._owned.hold()
            dropped = weakref.finalize(self, close_dropped, _Hold(self._owned), self.process)
            dropped.atexit = False  # pools end by themselves then, and in time

    def close(self) -> None:
        if self._owned is not None:
            self._owned.close()


class _Hold:
    """What keeps the workers of a pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def close(self) -> None:
        """Let them end with the last run."""
        self._pool.release()
