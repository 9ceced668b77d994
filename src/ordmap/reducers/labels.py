"""pandas' labels as they travel: the few that a frame's columns have are made once in each process.

Groups and parts of a frame have the same columns. To unpickle these takes half as long as all else of a small frame,
and the first look for one of them takes as long again. pandas shares labels between frames, since no label can change;
each frame has an `Index` of its own, whose name can.
"""

from __future__ import annotations

import pickle
from typing import Any

from ordmap.reducers.purpose import JOB, Purpose

__all__ = ["labels", "reducers_of_pandas"]

#: Labels of an index, and bytes of their pickle, up to which they are kept; and so many are.
_FEW, _SHORT, _MOST = 64, 2048, 64

#: The labels that were made here, by their pickle.
_known: dict[bytes, Any] = {}


def reducers_of_pandas(pandas: Any, purpose: Purpose) -> dict[type, Any]:
    """Have labels that are texts or numbers travel as what is looked up."""
    if purpose == JOB:
        return {}

    def reduced(index: Any) -> Any:
        if len(index) <= _FEW and _is_plain(index, pandas):
            data = pickle.dumps(index, pickle.HIGHEST_PROTOCOL)
            if len(data) <= _SHORT:
                return labels, (data,)
        return index.__reduce__()

    return {pandas.Index: reduced}


def _is_plain(index: Any, pandas: Any) -> bool:
    """Whether labels are texts or numbers, and their name is, so that any process can unpickle them."""
    name, dtype = index.name, index.dtype
    if name is not None and type(name) is not str:
        return False
    if isinstance(dtype, pandas.StringDtype):
        return True
    if dtype.kind == "O":
        return all(type(label) is str for label in index)
    return type(dtype).__module__ == "numpy.dtypes" and dtype.kind in "iuf"


def labels(data: bytes) -> Any:
    """Return an index of labels from their pickle."""
    known = _known.get(data)
    if known is None:
        if len(_known) >= _MOST:
            _known.clear()
        known = _known[data] = pickle.loads(data)
    return known.view()
