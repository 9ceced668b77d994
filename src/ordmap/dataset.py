"""What a dataset is: anything with ``__getitem__`` and ``__len__``."""

from __future__ import annotations

from typing import Protocol, TypeVar, runtime_checkable

__all__ = ["Dataset"]

T_co = TypeVar("T_co", covariant=True)


@runtime_checkable
class Dataset(Protocol[T_co]):
    """Items that are had by index: a list, an array, a Keras ``Sequence``, a map-style PyTorch ``Dataset``, yours."""

    def __getitem__(self, index: int, /) -> T_co:
        """Return the item; called in a worker, with ``0 <= index < len(dataset)``."""

    def __len__(self) -> int:
        """Return the number of items."""
