"""Arrays that already lie where a worker's result has to go."""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, DTypeLike, NDArray

__all__ = ["empty", "empty_like"]

#: Bytes below which a result travels in a message anyway.
_SMALL = 4096


def empty(shape: int | tuple[int, ...], dtype: DTypeLike = float) -> NDArray[Any]:
    """Return a new array with arbitrary content, as ``numpy.empty`` does.

    Inside a worker process it lies in memory that is shared with the caller: an item that computes its result in place
    there, and returns it (or a contiguous view of it), has it travel without any copy. Anywhere else it is a plain
    ``numpy.empty``.

    Attention: an array that the dataset keeps beyond its item, and one made read-only, is copied like any other.
    """
    import numpy as np  # only for who uses it

    kind = np.dtype(dtype)
    lengths = tuple(shape) if isinstance(shape, Iterable) else (operator.index(shape),)
    if kind.subdtype is not None:
        kind, inner = kind.subdtype
        lengths += inner
    nbytes = math.prod(lengths) * kind.itemsize
    blocks = sys.modules.get("ordmap.engine.blocks")
    arena = None if blocks is None else blocks.current
    if arena is not None and nbytes >= _SMALL and not kind.hasobject:
        span = arena.give(nbytes)
        if span is not None:
            return np.frombuffer(span, dtype=kind, count=math.prod(lengths)).reshape(lengths)
    return np.empty(lengths, kind)


def empty_like(prototype: ArrayLike, dtype: DTypeLike | None = None) -> NDArray[Any]:
    """Return ``empty(…)`` of the shape, the type and the order of another array."""
    import numpy as np

    array: np.ndarray[Any, Any] = np.asarray(prototype)
    kind = array.dtype if dtype is None else dtype
    if array.flags.f_contiguous and not array.flags.c_contiguous:
        return empty(array.shape[::-1], kind).T
    return empty(array.shape, kind)
