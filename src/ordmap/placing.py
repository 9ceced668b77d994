"""Arrays that already lie where a worker's result has to go."""

from __future__ import annotations

import math
import sys
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

    Attention: an array that the dataset keeps beyond its item is copied like any other.
    """
    import numpy as np  # only for who uses it

    kind = np.dtype(dtype)
    lengths = (shape,) if isinstance(shape, int) else tuple(shape)
    nbytes = math.prod(lengths) * kind.itemsize
    blocks = sys.modules.get("ordmap.engine.blocks")
    arena = None if blocks is None else blocks.current
    if arena is not None and nbytes >= _SMALL and not kind.hasobject:
        span = arena.give(nbytes)
        if span is not None:
            return np.frombuffer(span, dtype=kind, count=math.prod(lengths)).reshape(lengths)
    return np.empty(lengths, kind)


def empty_like(prototype: ArrayLike, dtype: DTypeLike | None = None) -> NDArray[Any]:
    """Return ``empty(…)`` of the shape and the type of another array."""
    import numpy as np

    array: np.ndarray[Any, Any] = np.asarray(prototype)
    return empty(array.shape, array.dtype if dtype is None else dtype)
