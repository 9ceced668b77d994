"""Pulling from an iterable of the caller's: no further than asked, from any position on, and with its end in mind."""

from __future__ import annotations

import io
from collections.abc import Generator, Iterable, Iterator, Sized
from itertools import chain, islice
from typing import Any, Generic, TypeVar

from ordmap import real_time as time
from ordmap.dataset import number_of
from ordmap.errors import CheckpointError
from ordmap.frames import asks_others
from ordmap.interrupts import pass_on

__all__ = ["Load", "Puller", "Stream", "close_source", "is_swift", "kept", "length_of", "past"]

#: Once the pulls for a chunk have taken this long (seconds) the source is slow: what there is goes to the workers.
_SLOW = 0.001

_OURS = __name__.partition(".")[0]

#: Items that are pulled between two looks at the clock, once a source has been quick for many, and rows of a chunk, at
#: the least: a row costs as much as several quick pulls. When the source turns slow, one is waited for.
_ROW, _ROWS = 16, 8

#: The iterators of Python's own collections, which never wait, and change nothing that they gave before.
_COLLECTIONS: tuple[Iterable[Any], ...] = ([], (), range(0), range(1 << 64), "", b"", {}, {}.values(), set())
_SWIFT = frozenset(type(iter(some)) for some in _COLLECTIONS)


def is_swift(iterator: Iterator[Any]) -> bool:
    """Whether an iterator is one of Python's own collections'."""
    return type(iterator) in _SWIFT


class Stream:
    """The ``items`` of a source; ``swift``: to pull one takes no time, and changes nothing that was given before."""

    def __init__(self, items: Iterable[Any], *, swift: bool) -> None:
        self._source = self.items = chain(items)  # whose own iter() does nothing, which not all can say
        self._back: Iterator[Any] = iter(())
        self.swift = swift

    def put_back(self, items: Iterator[Any]) -> None:
        """Have these come next."""
        self._back = iter([*items, *self._back])
        self.items = chain(self._back, self._source)


class Load:
    """The inputs of one chunk, put there while they are pulled; at most ``most``. These stay as they are.

    ``nbytes`` are those of large inputs; ``packing`` the seconds that it took to put them there, beside the pulls.
    ``full``: no more is pulled into it; ``spare`` is another, with an input that this one had no place for.
    """

    __slots__ = ("__weakref__", "full", "keys", "most", "nbytes", "packing", "spare")

    def __init__(self, most: int) -> None:
        self.most = most
        self.keys: list[Any] = []
        self.nbytes = 0
        self.packing = 0.0
        self.full = False
        self.spare: Load | None = None

    def add(self, stream: Stream, count: int) -> None:
        """Pull so many items; fewer at the end of the stream, or where the load is full."""
        self.keys += islice(stream.items, count)  # what it raises leaves those before it

    def seal(self) -> None:
        """Hold nothing of the stream any more: the load may exist for longer."""


L = TypeVar("L", bound=Load)


class Puller(Generic[L]):
    """Pulls from an iterable, no further than asked; what it raises comes after what it gave before.

    ``owned``: an iterator that stands behind it, and is closed with it; see `close_source`. ``swift``: see `Stream`.
    """

    def __init__(self, items: Iterable[Any], owned: object = None, *, swift: bool | None = None) -> None:
        iterator = iter(items)
        self._stream = Stream(iterator, swift=is_swift(iterator) if swift is None else swift)
        self._owned = owned
        self._error: Exception | None = None
        self._spare: L | None = None
        self.ended = False  # its source has given its last item, or raised

    @asks_others
    def fill(self, load: L) -> L:
        """Return a load with the next items, none at the end; or raise what the source raised.

        It is the one that is given, or one that the last load couldn't hold all of.
        """
        spare, self._spare = self._spare, None
        if spare is not None:
            return spare
        stream, keys, most, add = self._stream, load.keys, load.most, load.add
        row = (most if stream.swift else min(_ROW, most // _ROWS)) or 1
        clock = time.perf_counter
        slow = clock() + _SLOW
        try:
            for wanted in chain(range(row, most, row), (most,)):
                add(stream, wanted - len(keys))
                if load.full:
                    self._spare, load.spare = load.spare, None  # type: ignore[assignment]  # of the same kind
                    break
                if len(keys) < wanted:
                    self.ended = True
                    break
                if clock() > slow + load.packing:
                    break
            load.seal()
        except Exception as error:
            pass_on(error)
            load.seal()
            self._fail(error)
        if not keys and self._error is not None:
            raise self._taken_error()
        return load

    @asks_others
    def one_by_one(self) -> Iterator[Any]:
        """Give what the source gives, each item when it is asked for; what it raises the next `fill` raises."""
        try:
            yield from self._stream.items
        except Exception as error:
            pass_on(error)
            self._fail(error)
        self.ended = True

    def _fail(self, error: Exception) -> None:
        """Note what the source has raised, which comes after what it gave."""
        self.ended = True
        self._error = kept(error)
        self._stream = Stream((), swift=True)

    def _taken_error(self) -> Exception:
        """Return what the source raised, and hold it no longer: it will hold the frames that it passes."""
        error, self._error = self._error, None
        assert error is not None  # noqa: S101  there is one
        return error

    def close(self) -> None:
        """Pull no more, and close what is owned."""
        self._error = self._spare = None
        self._stream = Stream((), swift=True)
        close_source(self._owned, ended=self.ended)


def kept(error: Exception) -> Exception:
    """Return an error that is to be raised later, without the frames of ours that it has passed: they hold its keeper.

    The two would be a cycle, and with it what the frames of its source hold.
    """
    place = error.__traceback__
    while place is not None and place.tb_frame.f_globals.get("__name__", "").partition(".")[0] == _OURS:
        place = place.tb_next
    return error.with_traceback(place)


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
