"""How objects are pickled where the way of their own copies a large buffer, takes long, or carries more than they are.

A reducer is an entry of a pickler's ``dispatch_table``. No library is imported here: what isn't there can't be in what
travels. Each library's reducers are in a module of their own, which makes them once the library is imported.

What travels has one of three purposes, since they last differently. A *job*, the dataset or function of a run, stays at
a worker for the whole run. An *input* is as it was when it was pulled, and a *result* as it was when its item ended,
whatever their buffers and files are used for after that.
"""

from __future__ import annotations

import copyreg
import pickle
import sys
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

from ordmap.reducers import arrays, labels, mappings, tables, tensors
from ordmap.reducers.arrays import SMALL, OutOfBand, array_in_pickle, array_key, pickled_array, restored
from ordmap.reducers.dispatching import Dispatch
from ordmap.reducers.instances import has_own_way
from ordmap.reducers.purpose import INPUT, JOB, PURPOSES, RESULT, Purpose

__all__ = [
    "INPUT",
    "JOB",
    "RESULT",
    "SMALL",
    "Dispatch",
    "OutOfBand",
    "Purpose",
    "array_in_pickle",
    "array_key",
    "dispatch",
    "has_own_way",
    "in_band",
    "pickled_array",
    "reducers",
    "restored",
]

Reducer = Callable[[Any], Any]

#: What a library has once it is imported far enough, and what makes the reducers of its classes for a purpose.
_LIBRARIES: dict[str, tuple[tuple[str, ...], Callable[[Any, Purpose], dict[type, Reducer]]]] = {
    "numpy": (("ndarray", "frombuffer", "memmap"), arrays.reducers_of_numpy),
    "torch": (("Tensor", "from_numpy", "nn"), tensors.reducers_of_torch),
    "pandas": (("Index", "StringDtype", "DataFrame"), labels.reducers_of_pandas),
    "pyarrow": (("Array", "concat_arrays", "Table"), tables.reducers_of_pyarrow),
    "multidict": (("MultiDictProxy", "CIMultiDictProxy"), mappings.reducers_of_multidict),
}


def reducers(purpose: Purpose = RESULT) -> dict[type, Reducer]:
    """Return the reducers of this process: those here, and those that the user's libraries have registered.

    The caller must not change it.
    """
    if len(sys.modules) != _looked_at or copyreg.dispatch_table != _theirs:
        _look_again()
    return _all[purpose]


def dispatch() -> Dispatch:
    """Return the dispatch table of picklers of results."""
    global _dispatch
    known = reducers()
    if _dispatch.known is not known:
        _dispatch = Dispatch(known, pickle.HIGHEST_PROTOCOL)
    return _dispatch


def in_band(purpose: Purpose = RESULT) -> dict[type, Reducer]:
    """Return the reducers for what is small, whose buffers stay in the pickle; the caller must not change it.

    What has a buffer of its own, or a large one, can't be pickled so.
    """
    reducers()
    return _in_band[purpose]


def _look_again() -> None:
    """Take in what libraries have come, and what they have registered."""
    global _looked_at, _theirs
    _looked_at = len(sys.modules)
    for name, (needed, make) in _LIBRARIES.items():
        if name not in sys.modules:
            continue
        library: Any = sys.modules[name]
        if all(hasattr(library, attribute) for attribute in needed):
            for purpose, own in _own.items():
                own.update(make(library, purpose))  # also a known library's: there may be more classes of its by now
        else:
            _looked_at = 0  # it is being imported: look again next time
    _theirs = dict(copyreg.dispatch_table)
    for purpose, own in _own.items():
        _all[purpose] = own | _theirs
        _in_band[purpose] = _all[purpose] | arrays.in_band(_theirs)
        del _in_band[purpose][memoryview]


_own: dict[Purpose, dict[type, Reducer]] = {
    purpose: {memoryview: arrays.reduced_view, MappingProxyType: mappings.reduced_proxy} for purpose in PURPOSES
}

#: All reducers, and what they were made of: those of the user's libraries, when there were so many modules.
_all: dict[Purpose, dict[type, Reducer]] = {}
_in_band: dict[Purpose, dict[type, Reducer]] = {}
_theirs: dict[type, Reducer] = {}
_looked_at = 0
_dispatch = Dispatch({}, pickle.HIGHEST_PROTOCOL)
