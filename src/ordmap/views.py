"""Lazy views of datasets: of each item something else, items in batches, some of the items. They compose.

A view is computed where its item is, so that what it does is done by the workers; it travels as its dataset does.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar, overload

from ordmap.dataset import Dataset, check_dataset, number_of
from ordmap.listed import at, check_indices, digest, is_listed, listed
from ordmap.placing import empty
from ordmap.states import views_of

__all__ = ["batches", "fetched", "mapped", "subset"]

T = TypeVar("T")
R = TypeVar("R")
T_co = TypeVar("T_co", covariant=True)

#: What a dataset may have that a view of it has, too.
_PASSED_ON = frozenset({"on_epoch_begin", "on_epoch_end", "state_dict", "load_state_dict"})


class View(Sequence[T_co], Generic[T_co]):
    """A sequence whose items are made of those of a dataset, when they are asked for."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return number_of(self.dataset)

    def __iter__(self) -> Iterator[T_co]:
        # A sequence's own would end where an item raises IndexError.
        return map(self.__getitem__, range(number_of(self)))

    @overload
    def __getitem__(self, index: int) -> T_co: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T_co]: ...
    def __getitem__(self, index: int | slice) -> T_co | Sequence[T_co]:
        if isinstance(index, slice):
            return subset(self, range(number_of(self))[index])
        return self.__getitems__([range(number_of(self))[operator.index(index)]])[0]

    def __getitems__(self, indices: Sequence[int]) -> Sequence[T_co]:
        """Return several items at once, as PyTorch asks for them."""
        raise NotImplementedError

    def __getattr__(self, name: str) -> Any:
        if name not in _PASSED_ON:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self.dataset, name)


def fetched(dataset: Dataset[T], indices: Sequence[int]) -> Sequence[T]:
    """Return some items, by the dataset's own way to give several at once if it has one, ``__getitems__``."""
    fetch = getattr(dataset, "__getitems__", None)
    if fetch is None:
        return [dataset[index] for index in indices]
    items: Sequence[T] = fetch(list(indices))
    if len(items) != len(indices):
        raise ValueError(
            f"{type(dataset).__qualname__}.__getitems__ gave {len(items)} items for {len(indices)} indices"
        )
    return items


class _Mapped(View[R]):
    def __init__(self, fn: Callable[[Any], R], dataset: Dataset[Any]) -> None:
        super().__init__(dataset)
        self.fn = fn

    def __getitems__(self, indices: Sequence[int]) -> Sequence[R]:
        return [self.fn(item) for item in fetched(self.dataset, indices)]

    def __repr__(self) -> str:
        return f"mapped({self.fn!r}, {self.dataset!r})"


class _Subset(View[T]):
    def __init__(self, dataset: Dataset[T], indices: Sequence[int]) -> None:
        super().__init__(dataset)
        self.indices = indices

    def __len__(self) -> int:
        return number_of(self.indices)

    def __getitems__(self, indices: Sequence[int]) -> Sequence[T]:
        return fetched(self.dataset, at(self.indices, indices))

    def __repr__(self) -> str:
        return f"subset({self.dataset!r}, {self.indices!r})"


class _Batches(View[Any]):
    def __init__(self, dataset: Dataset[Any], size: int, drop_last: bool, collate: Callable[[Any], Any]) -> None:  # noqa: FBT001
        super().__init__(dataset)
        self.size = size
        self.drop_last = drop_last
        self.collate = collate

    def __len__(self) -> int:
        items = number_of(self.dataset)
        return items // self.size if self.drop_last else -(-items // self.size)

    def __getitems__(self, indices: Sequence[int]) -> Sequence[Any]:
        whole = range(number_of(self.dataset))
        parts = (whole[index * self.size : (index + 1) * self.size] for index in indices)
        return [self.collate(fetched(self.dataset, part)) for part in parts]

    def __repr__(self) -> str:
        return f"batches({self.dataset!r}, {self.size})"


@views_of.register
def _(view: View) -> list[str]:  # type: ignore[type-arg]
    return views_of(view.dataset)


@views_of.register
def _(view: _Subset) -> list[str]:  # type: ignore[type-arg]
    return [f"subset {digest(view.indices)}", *views_of(view.dataset)]


@views_of.register
def _(view: _Batches) -> list[str]:
    return [f"batches of {view.size}{', whole ones' * view.drop_last}", *views_of(view.dataset)]


def mapped(fn: Callable[[T], R], dataset: Dataset[T]) -> Sequence[R]:
    """Return a lazy view of a dataset: its item ``i`` is ``fn(dataset[i])``.

    Example:
        >>> mapped(str.upper, "abc")[1]
        'B'
    """
    if not callable(fn):
        raise TypeError(f"mapped calls its first argument, and {fn!r} can't be called: write mapped(fn, dataset)")
    check_dataset(dataset)
    return _Mapped(fn, dataset)


def subset(dataset: Dataset[T], indices: Iterable[int]) -> Sequence[T]:
    """Return a lazy view of some items of a dataset, in the order of their indices.

    Args:
        dataset: Anything with ``__getitem__`` and ``__len__``.
        indices: From 0 to ``len(dataset) - 1``, any of them any number of times. A list, a range and an array of numpy
            are kept as they are; anything else (a tensor, a table's column, a generator) is read once, by position,
            whatever its labels. A set has no order, and a mask no indices: both are refused.

    Example:
        >>> list(subset("abcdef", [5, 0, 0]))
        ['f', 'a', 'a']
    """
    check_dataset(dataset)
    order = listed(indices)
    if not is_listed(order):
        order = list(order)
    check_indices(order, number_of(dataset))
    return _Subset(dataset, order)


def batches(
    dataset: Dataset[Any], size: int, *, drop_last: bool = False, collate: Callable[[Any], Any] | None = None
) -> Sequence[Any]:
    """Return a lazy view of a dataset in batches: its item ``i`` is made of ``size`` items, from ``size * i`` on.

    A worker makes a whole batch, so that it travels at once, and what a stack of arrays is made in is the memory in
    which it travels. A dataset that has ``__getitems__(indices)``, a way to give several items at once, is asked so.

    Args:
        dataset: Anything with ``__getitem__`` and ``__len__``.
        size: The number of items in a batch; the last one may have fewer.
        drop_last: Whether it is left out then.
        collate: What makes a batch of a list of items. ``None``: arrays of numpy, tensors of PyTorch, and numbers
            (where numpy is installed) are stacked; of tuples and dicts each field is, by itself; of anything else there
            is a list.

    Attention: ``shuffle=True`` puts whole batches in another order, as it does with any items. For other batches, make
    them of a subset in another order: ``batches(subset(dataset, order), size)``.

    Example:
        >>> list(batches("abcde", 2))
        [['a', 'b'], ['c', 'd'], ['e']]
    """
    check_dataset(dataset)
    if isinstance(size, bool) or not hasattr(size, "__index__"):
        raise TypeError(f"the size of a batch must be a whole number, not {size!r}")
    if operator.index(size) < 1:
        raise ValueError(f"size={size}: a batch has at least 1 item")
    if collate is not None and not callable(collate):
        raise TypeError(f"collate must be a function of a list of items, or None, not {collate!r}")
    return _Batches(dataset, operator.index(size), bool(drop_last), collate or collated)


def collated(items: Sequence[Any]) -> Any:
    """Return a batch of some items: see `batches`."""
    first = items[0]
    if all(isinstance(item, Mapping) for item in items):
        if any(item.keys() != first.keys() for item in items):
            raise ValueError("the dicts of a batch have different keys: give collate=list")
        return {key: collated([item[key] for item in items]) for key in first}
    if isinstance(first, tuple) and all(type(item) is type(first) for item in items):
        if any(len(item) != len(first) for item in items):
            raise ValueError("the tuples of a batch have different lengths: give collate=list")
        fields = [collated(field) for field in zip(*items, strict=True)]
        kind = type(first)
        return kind(*fields) if hasattr(kind, "_make") else tuple(fields)
    torch = sys.modules.get("torch")
    if torch is not None and all(isinstance(item, torch.Tensor) for item in items):
        return torch.stack(list(items))
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        if all(isinstance(item, numpy.ndarray) for item in items):
            masked = any(isinstance(item, numpy.ma.MaskedArray) for item in items)
            return numpy.ma.stack(items) if masked else _stacked(items)
        if all(isinstance(item, numpy.generic) for item in items) and len(set(map(type, items))) == 1:
            return _stacked(items)
    return _numbers(items) if all(map(_is_number, items)) else list(items)


_NUMBERS = frozenset({bool, int, float, complex})


def _is_number(item: object) -> bool:
    """Whether this is a number of Python or of numpy."""
    if type(item) in _NUMBERS:
        return True
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(item, numpy.number | numpy.bool_)


def _numbers(items: Sequence[Any]) -> Any:
    """Return an array of numbers, Python's and numpy's; a list where there is no numpy, or none that holds them."""
    try:
        import numpy as np  # only for who has it
    except ImportError:
        return list(items)
    kinds = {np.dtype(np.int64) if type(item) is int else np.result_type(item) for item in items}
    kind = np.result_type(*kinds)
    if kind.kind == "f" and all(one.kind in "iu" for one in kinds):
        return list(items)  # of 64 bits with a sign, and without
    try:
        return np.array(items, kind)
    except OverflowError:
        return list(items)


def _stacked(arrays: Sequence[Any]) -> Any:
    """Stack arrays where a worker's result has to go."""
    import numpy as np

    shapes = {array.shape for array in arrays}
    if len(shapes) > 1:
        found = ", ".join(map(str, sorted(shapes)))
        raise ValueError(f"the arrays of a batch have different shapes, {found}: give collate=list, or make them alike")
    kind = np.result_type(*{array.dtype for array in arrays})
    return np.stack(arrays, out=empty((len(arrays), *arrays[0].shape), kind))
