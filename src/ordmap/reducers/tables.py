"""pyarrow's arrays as they travel: a slice carries its rows, where its own way carries all that it is a slice of.

Tables, batches of records and chunked arrays travel as the arrays that they are made of.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from ordmap.reducers.purpose import Purpose

__all__ = ["reducers_of_pyarrow"]

#: An array goes as it is where its rows are such a part of its buffers, or its buffers have but so many bytes more: to
#: copy the rows takes as long as to send them.
_PART, _SMALL = 0.8, 2048

#: Bytes of an element of an array of views, beside what it leads to.
_VIEW = 16

#: Bytes of an element, of arrays that have one buffer beside that of what is null. These need not be asked how large
#: their rows are, which takes longer than all the rest.
_WIDTHS = {
    **dict.fromkeys(("Int8Array", "UInt8Array"), 1),
    **dict.fromkeys(("Int16Array", "UInt16Array", "HalfFloatArray"), 2),
    **dict.fromkeys(("Int32Array", "UInt32Array", "FloatArray", "Date32Array", "Time32Array"), 4),
    **dict.fromkeys(("Int64Array", "UInt64Array", "DoubleArray", "Date64Array", "Time64Array"), 8),
    **dict.fromkeys(("TimestampArray", "DurationArray"), 8),
}


def reducers_of_pyarrow(pyarrow: Any, purpose: Purpose) -> dict[type, Any]:
    """Have arrays of every class carry their rows."""
    del purpose
    views = {
        kind: longer
        for view, longer in (("StringViewArray", "large_string"), ("BinaryViewArray", "large_binary"))
        if (kind := getattr(pyarrow, view, None)) is not None
    }

    def reduced(array: Any) -> Any:
        with contextlib.suppress(NotImplementedError):  # this version can't cut such a one: it goes as a whole
            if type(array) in views:
                array = _compact_views(array, getattr(pyarrow, views[type(array)])())
            elif _is_loose(array):
                array = _compact(array, pyarrow)
        return array.__reduce__()

    def reduced_numbers(array: Any) -> Any:
        total = array.get_total_buffer_size()
        if total > _SMALL and total * _PART > widths[type(array)] * len(array) + _SMALL:
            array = pyarrow.concat_arrays([array])
        return array.__reduce__()

    widths = {kind: width for name, width in _WIDTHS.items() if (kind := getattr(pyarrow, name, None)) is not None}
    return dict.fromkeys(_subclasses(pyarrow.Array), reduced) | dict.fromkeys(widths, reduced_numbers)


def _subclasses(kind: Any) -> Iterator[type]:
    for one in kind.__subclasses__():
        yield one
        yield from _subclasses(one)


def _is_loose(array: Any) -> bool:
    """Whether an array has buffers that are much larger than its rows."""
    total: int = array.get_total_buffer_size()
    return total > _SMALL and total * _PART > array.nbytes + _SMALL


def _compact_views(array: Any, longer: Any) -> Any:
    """Return an array of views, if it is a slice, in buffers of its own, by way of a type that has none."""
    views = array.buffers()[1]
    if views is None or views.size * _PART <= len(array) * _VIEW + _SMALL:
        return array
    return array.cast(longer).cast(array.type)


def _compact(array: Any, pyarrow: Any) -> Any:
    """Return an array of the same rows, in buffers of its own."""
    compact = pyarrow.concat_arrays([array])
    if _is_loose(compact):  # the members of a union are kept whole
        compact = compact.take(pyarrow.array(range(len(compact)), pyarrow.int64()))
    return compact
