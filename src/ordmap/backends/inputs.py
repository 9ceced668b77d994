"""Inputs on their way to other processes: each by itself, so that one that can't travel costs only itself."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any

from ordmap.errors import RemoteError
from ordmap.interrupts import came_by_a_signal
from ordmap.outcome import Pickled, are_atoms, one_line

__all__ = ["TRAVELLING", "Travelling", "pickled", "portable", "ready", "unpacking", "unsendable"]


#: Characters of a reason.
_MOST_SAID = 1000


class Travelling:
    """What stands for an input on its way."""

    __slots__ = ()

    def unpacked(self, source: Any) -> Any:
        """Return the input, in a worker; ``source`` is what came with its chunk."""
        raise NotImplementedError


#: What `portable` makes of an input that is not plain, for ``isinstance``: the class of an input may have no hash.
TRAVELLING = (Pickled, Travelling)


class _Unsendable(Travelling):
    """What stands for an input that can't be pickled."""

    __slots__ = ("why",)

    def __init__(self, why: str) -> None:
        self.why = why

    def __reduce__(self) -> tuple[Any, ...]:
        return _Unsendable, (self.why,)

    def unpacked(self, source: Any) -> Any:
        del source
        raise RemoteError(f"the input can't be pickled: {self.why}; use backend='threads'")


def unsendable(error: BaseException) -> Travelling:
    """Return what stands for an input that can't be pickled, or raise what is none of its faults."""
    if came_by_a_signal(error):
        raise error
    return _Unsendable(one_line(error)[:_MOST_SAID])


def ready(keys: Sequence[Any]) -> bool:
    """Whether keys survive any executor's own pickle as they are."""
    if isinstance(keys, range) or are_atoms(keys) or isinstance(keys[0], TRAVELLING):
        return True
    return all(type(key) is tuple for key in keys) and are_atoms(chain.from_iterable(keys))


def portable(keys: Sequence[Any]) -> Sequence[Any]:
    """Return keys that survive any executor's own pickle: as they are where they are plain, else pickled one by one.

    Keys that are made ready are left as they are. An input that can't be pickled becomes its item's error, in the
    worker.
    """
    return keys if ready(keys) else pickled(keys)


def pickled(keys: Iterable[Any]) -> list[Pickled | Travelling]:
    """Return keys pickled one by one."""
    import cloudpickle  # what __main__ defines must go by value, which pickle doesn't do

    sent: list[Pickled | Travelling] = []
    for key in keys:
        try:
            sent.append(Pickled(cloudpickle.dumps(key, pickle.HIGHEST_PROTOCOL)))
        except BaseException as error:
            sent.append(unsendable(error))
    return sent


def unpacking(compute: Callable[[Any], Any], source: Any = None) -> Callable[[Any], Any]:
    """Return a function of an input that `portable` has made ready; it raises what keeps that from being had."""

    def unpack_and_compute(key: Any) -> Any:
        return compute(pickle.loads(key.data) if type(key) is Pickled else key.unpacked(source))

    return unpack_and_compute
