"""What becomes of an item that failed as often as it may: it is raised, left out, or something takes its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NoReturn

from ordmap.frames import asks_others

__all__ = ["Failure", "OnError", "checked", "stand_in"]


class Failure:  # no dataclass, whose module takes longer to import than the rest of ordmap; no tuple, as results are
    """An item that failed: what ``on_error="return"`` gives in the place of its result.

    ``error`` is the exception that ``next()`` would have raised, with its notes; ``attempts`` is how often the item
    was tried.
    """

    __slots__ = ("attempts", "error", "index")
    index: int
    error: BaseException
    attempts: int

    def __init__(self, index: int, error: BaseException, attempts: int) -> None:
        for name, value in (("index", index), ("error", error), ("attempts", attempts)):
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a Failure can't be changed: {name}")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a Failure can't be changed: {name}")

    def __reduce__(self) -> tuple[Any, ...]:
        return Failure, (self.index, self.error, self.attempts)

    def __repr__(self) -> str:
        return f"Failure(index={self.index}, error={self.error!r}, attempts={self.attempts})"


#: What a call may ask for.
OnError = Literal["raise", "skip", "return"] | Callable[[Failure], Any]

_WORDS = ("raise", "skip", "return")


def checked(on_error: object) -> Any:
    """Return the value of an ``on_error`` argument, or refuse it."""
    instead = "write " + ", ".join(map(repr, _WORDS)) + " or a function from a Failure to what takes the result's place"
    if isinstance(on_error, type) and issubclass(on_error, BaseException):
        raise TypeError(f"on_error is not the class of what may fail, {on_error.__name__}; {instead}")
    if callable(on_error):
        return on_error
    if not isinstance(on_error, str):
        raise TypeError(f"on_error={on_error!r}; {instead}")
    if on_error not in _WORDS:
        raise ValueError(f"on_error={on_error!r}; {instead}")
    return on_error


@asks_others
def stand_in(on_error: OnError, failure: Failure) -> Any:
    """Return what takes the place of a failed item's result."""
    if not callable(on_error):
        return failure
    try:
        return on_error(failure)
    except StopIteration as error:  # it would silently end the loop
        raise RuntimeError("on_error raised StopIteration") from error
