"""What a dataset is: anything with ``__getitem__`` and ``__len__``."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Protocol, TypeVar, runtime_checkable

__all__ = ["Dataset", "check_dataset", "number_of"]

T_co = TypeVar("T_co", covariant=True)


@runtime_checkable
class Dataset(Protocol[T_co]):
    """Items that are had by index: a list, an array, a Keras ``Sequence``, a map-style PyTorch ``Dataset``, yours."""

    def __getitem__(self, index: int, /) -> T_co:
        """Return the item; called in a worker, with ``0 <= index < len(dataset)``."""

    def __len__(self) -> int:
        """Return the number of items."""


def check_dataset(dataset: object) -> None:
    """Refuse what is no dataset, with a word on what to write instead."""
    if isinstance(dataset, type):
        raise TypeError(f"dataset is the class {dataset.__name__}: write an instance, {dataset.__name__}(…)")
    missing = [name for name in ("__getitem__", "__len__") if not hasattr(dataset, name)]
    if missing:
        kind = type(dataset).__name__
        hint = "for an iterable write ordered_map(fn, iterable)" if hasattr(dataset, "__iter__") else "give it that"
        raise TypeError(f"a dataset has __getitem__ and __len__, and {kind} has no {' and no '.join(missing)}: {hint}")
    if hasattr(dataset, "iloc"):
        raise TypeError("a pandas object is had by label: write ordered_map(df.iloc.__getitem__, range(len(df)))")
    if hasattr(dataset, "get_group"):
        raise TypeError("a pandas groupby is had by column: write ordered_map(fn, groups)")
    if hasattr(dataset, "__dataframe__") and hasattr(dataset, "num_columns"):
        kind = type(dataset).__name__
        raise TypeError(
            f"a {kind} gives columns, not rows, by number: write mapped(lambda i: table.slice(i, 1), "
            "range(len(table))), or ordered_map(fn, table.to_batches())"
        )
    if isinstance(dataset, Mapping | AbstractSet):
        raise TypeError(f"a {type(dataset).__name__} is not had by index 0, 1, …: write list(…) around it")


def number_of(items: Any) -> int:
    """Return ``len(items)``, also where there are more of them than ``len()`` can say."""
    try:
        return len(items)
    except OverflowError:
        if isinstance(items, range):
            return (items[-1] - items[0]) // items.step + 1
        return int(type(items).__len__(items))
