"""What we have to say to the user: a warning, shown at the line of the user's that brought it about."""

from __future__ import annotations

import sys
import warnings

__all__ = ["warn"]


def warn(message: str) -> None:
    """Warn of something, as from the first frame outside of this package."""
    passed = {__name__.partition(".")[0], "contextlib", "cloudpickle", "torch"}  # and what pickles for it
    level = 1
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in passed:
        frame = frame.f_back
        level += 1
    warnings.warn(message, RuntimeWarning, stacklevel=level + 1)
