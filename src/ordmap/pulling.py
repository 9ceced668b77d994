"""Pulling from somebody's iterable: no further than asked, from any position on, and with its end in mind."""

from __future__ import annotations

import io
from collections.abc import Generator, Iterable, Iterator, Sequence, Sized
from itertools import chain, islice
from typing import Any

from ordmap import real_time as time
from ordmap.dataset import number_of
from ordmap.errors import CheckpointError
from ordmap.frames import asks_others
from ordmap.interrupts import came_by_a_signal

__all__ = ["Puller", "close_source", "length_of", "past"]

#: Once the pulls for a chunk have taken this long (seconds) the source is slow: what there is goes to the workers.
_SLOW = 0.001

#: Items that are pulled between two looks at the clock, once a source has been quick for many: a look costs as much as
#: a quick pull. When it turns slow, so many pulls are waited for.
_ROW = 8

#: The iterators of Python's own collections, which never wait.
_COLLECTIONS: tuple[Iterable[Any], ...] = ([], (), range(0), range(1 << 64), "", b"", {}, {}.values(), set())
_SWIFT = frozenset(type(iter(some)) for some in _COLLECTIONS)


class Puller:
    """Pulls from an iterable, no further than asked; what it raises comes after what it gave before.

    ``owned``: an iterator that stands behind it, and is closed with it; see `close_source`.
    """

    def __init__(self, items: Iterable[Any], owned: object = None) -> None:
        from more_itertools import peekable  # a range of indices does without

        iterator = iter(items)
        self._source: Iterator[Any] = chain(iterator)  # whose own iter() does nothing, which not all can say
        self._is_swift = type(iterator) in _SWIFT
        self._owned = owned
        self._error: Exception | None = None
        self._items = peekable(self)
        self.held = 0  # items that were put back, and are not pulled again yet
        self.ended = False  # its source has given its last item, or raised

    def __iter__(self) -> Iterator[Any]:
        return self

    @asks_others
    def __next__(self) -> Any:
        """Return the source's next item, for the pulls; what it raises ends it, but not what comes from elsewhere."""
        try:
            return next(self._source)
        except StopIteration:
            self.ended = True
            raise
        except Exception as error:
            if came_by_a_signal(error):
                raise
            self._fail(error)
            raise StopIteration from None

    def _fail(self, error: Exception) -> None:
        """Note what the source has raised, which comes after what it gave."""
        self.ended = True
        self._error = error
        self._source = iter(())

    @asks_others
    def pull(self, most: int) -> list[Any]:
        """Return the next 1 to ``most`` items, none at the end, or raise what the source raised."""
        pulled: list[Any] = []
        source = self._items if self.held else self._source  # the latter takes a third of the time
        row = (most if self._is_swift else min(_ROW, most // _ROW)) or 1
        clock = time.perf_counter
        slow = clock() + _SLOW
        try:
            for wanted in chain(range(row, most, row), (most,)):
                pulled += islice(source, wanted - len(pulled))  # what it raises leaves those before it
                if len(pulled) < wanted:
                    self.ended = True
                    break
                if clock() > slow:
                    break
        except Exception as error:
            if came_by_a_signal(error):
                raise
            self._fail(error)
        self.held = max(0, self.held - len(pulled))
        if not pulled and self._error is not None:
            raised, self._error = self._error, None
            raise raised
        return pulled

    @asks_others
    def one_by_one(self) -> Iterator[Any]:
        """Give what the source gives, each item when it is asked for; what it raises the next `pull` raises."""
        try:
            yield from self._source
        except Exception as error:
            if came_by_a_signal(error):
                raise
            self._fail(error)
        self.ended = True

    def put_back(self, items: Sequence[Any]) -> None:
        """Have these come next, once more."""
        self._items.prepend(*items)
        self.held += len(items)

    def close(self) -> None:
        """Pull no more, and close what is owned."""
        self._error = None
        self._items = self._items.__class__(())
        close_source(self._owned, ended=self.ended)


def length_of(items: object) -> int | None:
    """Return how many items there are; ``None``: that can't be known, or changes as they are taken."""
    if not isinstance(items, Sized) or isinstance(items, Iterator):
        return None
    try:
        return number_of(items)
    except (TypeError, NotImplementedError):
        return None


def past(items: Iterable[Any], start: int) -> Iterator[Any]:
    """Return an iterator over some items from a position on: those before it are not looked at, where that can be."""
    iterator: Any = iter(items)
    if type(items) in {list, tuple, range, str, bytes}:
        iterator.__setstate__(start)
        return iterator  # type: ignore[no-any-return]
    passed = sum(1 for _ in islice(iterator, start))
    if passed < start:
        raise CheckpointError(f"the state is of position {start}, and there are {passed} items")
    return iterator  # type: ignore[no-any-return]


def close_source(source: object, *, ended: bool) -> None:
    """Close an iterator that is gone through no further, where that can be.

    Its owner may want to use it again, which is no generator and has ``ended`` by itself; and may read on in a file.
    """
    close = getattr(source, "close", None)
    if not callable(close) or not isinstance(source, Iterator) or isinstance(source, io.IOBase):
        return
    if isinstance(source, Generator) or not ended:
        close()
