"""What a state of an iterator has to be, to go on from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ordmap.chunk import Mark
from ordmap.errors import CheckpointError

__all__ = ["check_identity", "keeps_state", "mark_of", "place_of"]


def keeps_state(thing: object) -> bool:
    """Whether something can tell its own state, and go on from one."""
    return callable(getattr(thing, "state_dict", None)) and callable(getattr(thing, "load_state_dict", None))


def check_identity(state: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """Refuse a state that is not of a source like ours."""
    for name, value in ours.items():
        theirs = state.get(name, "missing")
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
