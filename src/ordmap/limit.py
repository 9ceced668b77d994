"""An item's limit of time: what is too long.

An item that took longer is a time-out even if it has ended by the time that anybody looks: what it gives does not
depend on how often that is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ordmap import real_time as time
from ordmap.errors import ItemTimeoutError

__all__ = ["FRAME", "timed", "too_long"]


def too_long(limit: float, elapsed: float, what: str, stack: str = "") -> ItemTimeoutError:
    """Return the error of an item that ran too long; ``what`` became of it."""
    message = f"the item ran for {elapsed:.6g} s with item_timeout={limit:g}, and {what}"
    return ItemTimeoutError(message, limit=limit, elapsed=elapsed, stack=stack)


def timed(compute: Callable[[Any], Any], limit: float) -> Callable[[Any], Any]:
    """Return a function that computes an item, and raises if that took too long."""
    clock = time.perf_counter

    def compute_in_time(key: Any) -> Any:
        began = clock()
        try:
            return compute(key)
        finally:
            elapsed = clock() - began
            if elapsed > limit:
                raise too_long(limit, elapsed, "came to its end too late")

    return compute_in_time


#: The file of the one frame of ours that stands between an item's own and what called it.
FRAME = timed.__code__.co_filename
