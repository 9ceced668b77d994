"""Indices that are held somewhere: read by position, once, whatever holds them, and checked all at once.

A table's column, a tensor or a file's array is a container of indices like a list, but what ``container[0]`` gives may
be the item of a *label*, or a read from a disk. So such a container is made an array or a list before anything asks it
for one. What draws its indices when it is gone through, a sampler, is none of these.
"""

from __future__ import annotations

import operator
import sys
from array import array
from collections import deque
from collections.abc import KeysView, Sequence, ValuesView
from collections.abc import Set as AbstractSet
from typing import Any

from ordmap.dataset import number_of

__all__ = ["Listed", "at", "check_indices", "digest", "is_listed", "listed", "sound"]

#: What a container may have to be read by, where numpy can't read it, or isn't there.
_READERS = ("tolist", "to_pylist", "to_list")

#: Python's own containers that have an order, but don't say what stands at a position, or not quickly.
_HELD = (array, deque, memoryview, dict, KeysView, ValuesView)


def listed(indices: Any) -> Any:
    """Return indices as a list, tuple, range or array of numpy; what isn't a container is returned as it is.

    These four are kept; whatever else holds indices is read once.
    """
    if type(indices) in {list, tuple, range}:
        return indices
    if isinstance(indices, str | bytes):
        raise TypeError(f"indices must be integers, not {indices!r}")
    if isinstance(indices, AbstractSet) and not isinstance(indices, KeysView | Sequence):
        raise TypeError(f"a {type(indices).__name__} has no order that indices could give: write sorted(…) around it")
    kind = type(indices)
    numpy = sys.modules.get("numpy")
    if numpy is not None and hasattr(kind, "__array__") and not isinstance(indices, numpy.ma.MaskedArray):
        return _one_dimension(_array(indices, numpy))
    if isinstance(indices, _HELD):
        return list(indices)
    reader = next((name for name in _READERS if callable(getattr(kind, name, None))), None)
    return indices if reader is None else _one_dimension(getattr(indices, reader)())


def _array(indices: Any, numpy: Any) -> Any:
    """Return what is in a container as an array, which shares its memory where it can."""
    if isinstance(indices, numpy.ndarray):
        return indices.view(numpy.ndarray)  # a matrix's rows are matrices
    try:
        return numpy.asarray(indices)
    except (TypeError, RuntimeError):  # it lies on another device
        return indices.tolist()


def _one_dimension(indices: Any) -> Any:
    """Refuse a table of indices, but for one of a single column."""
    if isinstance(indices, list):
        return indices
    shape = getattr(indices, "shape", ())
    if not shape:
        raise TypeError(f"indices must be an iterable of integers, not {indices!r}")
    if len(shape) > 1:
        if indices.size != len(indices):
            raise TypeError(f"indices have one dimension, and these have the shape {shape}: give one column of them")
        indices = indices.reshape(-1)
    if indices.dtype.kind == "f":  # integers beside a value that is missing are read as such
        (missing,) = (indices != indices).nonzero()  # noqa: PLR0124  that alone is unequal to itself
        if len(missing):
            raise TypeError(f"an index must be an integer, and that at position {missing[0]} is missing")
    return indices if indices.dtype.kind in "iu" else indices.tolist()


def is_listed(indices: object) -> bool:
    """Whether indices are such as `listed` makes."""
    return type(indices) in {list, tuple, range} or type(indices).__name__ == "ndarray"


class Listed:
    """An order of which any part is had at once; its indices are looked at when they are taken."""

    def __init__(self, indices: Any) -> None:
        self._indices = indices

    def __len__(self) -> int:
        return len(self._indices)

    def at(self, positions: range) -> Sequence[int]:
        """Return what stands at these positions."""
        return at(self._indices, positions)


def at(indices: Any, positions: Sequence[int]) -> Sequence[int]:
    """Return what stands at these positions of indices that are listed."""
    if isinstance(positions, range) and positions.step > 0:
        part = indices[positions.start : positions.stop : positions.step]
        return part if type(part) in {list, range} else list(part) if type(part) is tuple else part.tolist()
    return [operator.index(indices[position]) for position in positions]


def check_indices(indices: Any, items: int) -> None:
    """Refuse an index that is not in ``range(items)``: `IndexError`; or no integer at all: `TypeError`."""
    if isinstance(indices, range):
        indices = [*indices[:1], *indices[-1:]]
    elif type(indices).__name__ == "ndarray":
        if indices.dtype.kind in "iu" and (not indices.size or (indices.min() >= 0 and indices.max() < items)):
            return
        indices = indices.tolist()
    if not _are_sound(indices, items):
        for index in indices:
            checked(index, items)


def _are_sound(keys: Sequence[Any], items: int) -> bool:
    """Whether these are surely indices of so many items; at the speed of C."""
    if len(keys) == 1:
        return type(keys[0]) is int and 0 <= keys[0] < items
    return set(map(type, keys)) == {int} and min(keys) >= 0 and max(keys) < items


def sound(keys: Sequence[Any], items: int) -> tuple[Sequence[Any], Exception | None]:
    """Return the indices before the first bad one; where that is the first of all, it, and what is wrong with it."""
    if _are_sound(keys, items):
        return keys, None
    found: list[int] = []
    for key in keys:
        try:
            found.append(checked(key, items))
        except (IndexError, TypeError) as error:
            return (found, None) if found else (keys[:1], error.with_traceback(None))  # whose frames hold it
    return found, None


def checked(index: object, items: int) -> int:
    """Return an index as an ``int``, or refuse it."""
    if isinstance(index, bool) or type(index).__name__ in {"bool_", "bool"}:
        raise TypeError(f"an index must be an integer, not {index!r}: of a mask, give the positions")
    try:
        number = operator.index(index)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None:  # raised out here, for an error's context holds frames, too
        raise TypeError(f"an index must be an integer, not {index!r}")
    if number < 0:
        raise IndexError(
            f"index {number} is negative: count from the front, {number} + len(dataset) = {number + items}"
        )
    if number >= items:
        raise IndexError(f"index {number} is out of range: the dataset has {items} items, 0 to {items - 1}")
    return number


def digest(indices: Any) -> str:
    """Return what tells these indices from others: the same for equal ones, on every machine, in every container."""
    import hashlib  # it brings OpenSSL, and few programs have such a list

    if isinstance(indices, range):
        items = number_of(indices)
        return f"range of {items} from {indices.start} by {indices.step}" if items else "range of 0"
    if type(indices).__name__ == "ndarray" and indices.dtype.kind in "iu":
        data: Any = indices.astype("<i8").data
    else:
        try:
            data = array("q", indices)
            if sys.byteorder == "big":
                data.byteswap()
        except (OverflowError, TypeError):  # beyond 64 bits; or none at all, which their items say
            data = repr(indices).encode()
    return hashlib.blake2b(data, digest_size=8).hexdigest()
