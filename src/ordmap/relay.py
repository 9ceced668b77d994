"""An iterator that waits and raises in Python, and gives what it has at hand without.

Its ``next()`` is that of `itertools.chain`, to which it leaves its results, or turns for more of them::

    next() ──> chain ──> [results that were left] ──> _Turn ──> [results that …] ──> _Turn ──> …

`_Turn` gives a result by itself, raises what there is to raise, or raises `StopIteration`: then the chain goes on with
what has been left to it. Whatever a link raises, the chain can be asked again. Not so if that is raised where it gets
its links from, by Ctrl-C for instance: so there is no Python code there. Of several threads any may get any link; no
result is lost by that if they are left to the chain again for as long as there are any.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Self, TypeVar

from ordmap.frames import show_the_users

__all__ = ["Relay"]

T_co = TypeVar("T_co", covariant=True)

if TYPE_CHECKING:

    class _Chain(Iterator[T_co]):
        """What a chain is to its caller."""

        def __next__(self) -> T_co: ...

        @classmethod
        def from_iterable(cls, links: Iterable[Iterable[Any]]) -> Self: ...

else:
    _Chain = chain


class _Turn:
    """What the chain calls when nothing is left to it."""

    def __init__(self) -> None:
        self.relay: Callable[[], Relay[Any] | None]  # a weak reference, for that holds this
        self.ready: list[Any] = []

    def take(self, _: None) -> Any:
        try:
            return self.ready.pop()  # atomic, so it needs no lock
        except IndexError:
            pass
        except BaseException:  # Ctrl-C
            if (relay := self.relay()) is not None:
                relay.close()
            raise
        relay = self.relay()
        if relay is None:
            raise ReferenceError("this iterator is garbage that is being collected: it has ended")
        try:
            return relay._advance()
        except StopIteration:
            raise
        except BaseException as error:
            show_the_users(error)
            raise


class Relay(_Chain[T_co], Generic[T_co]):
    """An iterator whose child says how to `_advance`."""

    _left: dict[None, Iterable[Any] | None]
    _turn: _Turn
    _turns: Iterator[Any]

    def __new__(cls, *args: object, **kwargs: object) -> Self:
        """Make the chain: its next link is what is left to it, or else the turn; ``None`` is its end."""
        del args, kwargs
        left: dict[None, Iterable[Any] | None] = {}
        turn = _Turn()
        turns = map(turn.take, repeat(None))
        relay = cls.from_iterable(iter(partial(left.pop, None, turns), None))
        # The chain lets go of its links when it ends, while other threads may be inside the turn.
        relay._left, relay._turn, relay._turns, turn.relay = left, turn, turns, weakref.ref(relay)
        _relays.add(relay)
        return relay

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{type(self).__name__} can't be copied or pickled")

    @property
    def _ready(self) -> list[T_co]:
        """The next results, last one first: what was popped from here is held by the caller alone."""
        return self._turn.ready

    @_ready.setter
    def _ready(self, results: list[T_co]) -> None:
        self._turn.ready = results

    def disown(self) -> None:
        """In a fork of the process that made it: have nothing at hand, for that is the other's to give."""
        self._ready = []
        self._left.clear()

    def _advance(self) -> T_co:
        """Return the next result, or `_leave` some, or say that this is `_over`; called when none is ready."""
        raise NotImplementedError

    def _leave(self, results: Iterator[T_co]) -> NoReturn:
        """Have what is left of these given, of C's own iterators, before it is asked again how to advance."""
        self._left[None] = results
        raise StopIteration

    def _over(self) -> NoReturn:
        """Give nothing ever after."""
        self._left[None] = None
        raise StopIteration

    def close(self) -> None:
        """End it; called when something else than an error ends ``next()``."""
        raise NotImplementedError


_relays: weakref.WeakSet[Relay[Any]] = weakref.WeakSet()


def _disown_all() -> None:
    for relay in list(_relays):
        relay.disown()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disown_all)
