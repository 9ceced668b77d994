"""What a state of an iterator has to be, to go on from it."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from functools import singledispatch
from typing import Any

from ordmap.chunk import Given, Mark
from ordmap.errors import CheckpointError

__all__ = ["check_identity", "given_of", "keeps_state", "mark_of", "place_of", "plain", "views_of"]

#: What states of before don't have; they are taken without it.
_SINCE = frozenset({"digest of indices", "views"})


@singledispatch
def views_of(dataset: object) -> list[str]:
    """Return what the views that a dataset is made of do to its order, from the outermost on."""
    del dataset
    return []


def keeps_state(thing: object) -> bool:
    """Whether something can tell its own state, and go on from one."""
    return callable(getattr(thing, "state_dict", None)) and callable(getattr(thing, "load_state_dict", None))


def check_identity(state: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """Refuse a state that is not of a source like ours."""
    for name, value in ours.items():
        theirs = state.get(name, value if name in _SINCE else "missing")
        if theirs != value:
            raise CheckpointError(f"the state has the {name} {theirs!r}, and here it is {value!r}")


def mark_of(state: Mapping[str, Any]) -> Mark | None:
    """Return where a sampler was that has told its own state."""
    told = state.get("sampler")
    if told is None:
        return None
    if not isinstance(told, list | tuple) or [type(one) for one in told[1:]] != [int, int]:
        raise CheckpointError(f"the state has the sampler {told!r}")
    return Mark(*told)


def place_of(state: Mapping[str, Any]) -> tuple[int, int]:
    """Return the epoch and the position that a state is of."""
    epoch, position = state.get("epoch"), state.get("position")
    if type(epoch) is not int or type(position) is not int or min(epoch, position) < 0:
        raise CheckpointError(f"the state has the epoch {epoch!r} and the position {position!r}")
    return epoch, position


def plain(indices: Iterable[object]) -> list[int | None]:
    """Return indices as JSON can hold them; ``None``: it is none."""
    found: list[int | None] = []
    for index in indices:
        try:
            found.append(operator.index(index))  # type: ignore[arg-type]
        except TypeError:
            found.append(None)
    return found


def given_of(state: Mapping[str, Any]) -> Given | None:
    """Return what a sampler had given last before the state was taken."""
    told = state.get("given")
    if told is None:
        return None
    if not isinstance(told, list | tuple) or [type(one) for one in told[:2]] != [int, int] or len(told) != 3:  # noqa: PLR2004
        raise CheckpointError(f"the state has given {told!r}")
    epoch, position, indices = told
    if not isinstance(indices, list | tuple):
        raise CheckpointError(f"the state has given {told!r}")
    return Given(epoch, position, list(indices))
