"""Inputs on their way to other processes: each by itself, so that one that can't travel costs only itself."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from typing import Any

from ordmap.errors import RemoteError
from ordmap.interrupts import came_by_a_signal
from ordmap.outcome import Pickled, are_atoms, one_line

__all__ = ["TRAVELLING", "portable", "unpacking"]


class _Unsendable:
    """What stands for an input that can't be pickled."""

    __slots__ = ("why",)

    def __init__(self, why: str) -> None:
        self.why = why

    def __reduce__(self) -> tuple[Any, ...]:
        return _Unsendable, (self.why,)


#: What `portable` makes of an input that is not plain.
TRAVELLING = (Pickled, _Unsendable)


def portable(keys: Sequence[Any]) -> Sequence[Any]:
    """Return keys that survive any executor's own pickle: as they are where they are plain, else pickled one by one.

    Keys that are made ready are left as they are. An input that can't be pickled becomes its item's error, in the
    worker.
    """
    if isinstance(keys, range) or are_atoms(keys) or type(keys[0]) in TRAVELLING:
        return keys
    if all(type(key) is tuple and are_atoms(key) for key in keys):
        return keys
    import cloudpickle  # what __main__ defines must go by value, which pickle doesn't do

    sent: list[Pickled | _Unsendable] = []
    for key in keys:
        try:
            sent.append(Pickled(cloudpickle.dumps(key, pickle.HIGHEST_PROTOCOL)))
        except BaseException as error:
            if came_by_a_signal(error):
                raise
            sent.append(_Unsendable(one_line(error)))
    return sent


def unpacking(compute: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a function of an input that `portable` has made ready; it raises what keeps that from being had."""

    def unpack_and_compute(key: Any) -> Any:
        if type(key) is _Unsendable:
            raise RemoteError(f"the input can't be pickled: {key.why}; use backend='threads'")
        return compute(pickle.loads(key.data))

    return unpack_and_compute
