"""What ``async for`` needs: to wait on an event loop without holding it up, and inputs that come asynchronously.

::

    async for ──> take what has come ──> else await: an answer, or the next input where there is room for one
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from ordmap.arguments import Arguments
from ordmap.chunk import Chunk
from ordmap.item import Label
from ordmap.pulling import Load, Stream, close_source
from ordmap.solo import Solo
from ordmap.window import Window

__all__ = ["Incoming", "more"]

#: Seconds after which to look again, whatever has been told: workers may have to be ended or replaced.
_HEARTBEAT = 0.1

#: Seconds between two looks at what another thread is doing.
_GLANCE = 0.005

_END = object()


async def more(window: Window | Solo | None, source: object, closing: list[Callable[[], object]]) -> None:
    """Wait until there may be something more to take from a window, or somebody closes the iterator.

    ``None``: another thread is opening it.
    """
    if window is None:
        await asyncio.sleep(_GLANCE)
        return
    loop = asyncio.get_running_loop()
    told = loop.create_future()

    def tell() -> None:
        if not told.done():
            told.set_result(None)

    def tell_from_anywhere() -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(tell)

    def tell_of_pull(_: object) -> None:
        tell()

    pull = source.pulling() if isinstance(source, Incoming) and window.wants else None
    if pull is not None:
        pull.add_done_callback(tell_of_pull)
    end = window.watch(loop, tell)
    closing.append(tell_from_anywhere)
    beat = loop.call_later(_HEARTBEAT, tell)
    try:
        await told  # a future of its own, not `asyncio.wait`, which takes three times as long
    finally:
        closing.remove(tell_from_anywhere)
        end()
        beat.cancel()
        told.cancel()
        if pull is not None:
            pull.remove_done_callback(tell_of_pull)


class Incoming(Arguments):
    """The argument tuples of a function, of iterables some of which are asynchronous; one is pulled at a time."""

    def __init__(
        self, iterables: Sequence[Iterable[Any] | AsyncIterator[Any]], *, strict: bool, seed: int | None = None
    ) -> None:
        super().__init__((), strict=strict, seed=seed)
        self._sources = iterables
        self._begun: list[Iterator[Any] | AsyncIterator[Any]] = []
        self._passed = 0  # of those before the first that is wanted
        self._come: deque[tuple[Any, ...]] = deque()
        self._error: Exception | None = None
        self._ended = False
        self._is_over = False  # it had come to its end by itself
        self._closed = False
        self._pull: asyncio.Task[None] | None = None

    @property
    def ready(self) -> bool:
        return bool(self._come) or self._ended

    def pulling(self) -> asyncio.Task[None]:
        """Return the task that pulls the next inputs."""
        if self._pull is None or self._pull.done():
            self._pull = _held(asyncio.get_running_loop().create_task(self._pull_next()))
        return self._pull

    async def _pull_next(self) -> None:
        try:
            if not self._begun:
                self._begun = [_begun(source) for source in self._sources]
            while True:
                key = await self._key()
                if key is None:
                    self._ended = True
                    return
                self._passed += 1
                if self._passed > self._taken:
                    break
            self._come.append(key)
        except asyncio.CancelledError as error:
            if self._closed:
                raise
            self._error = RuntimeError("the source of ordered_map was cancelled")
            self._error.__cause__ = error
            self._ended = True
        except Exception as error:  # it comes after the results of what was pulled before
            self._error = error
            self._ended = True

    async def _key(self) -> tuple[Any, ...] | None:
        """Return the next inputs; ``None``: one of the sources is at its end, and those behind it are not pulled."""
        key: list[Any] = []
        for place, source in enumerate(self._begun):
            one = await _next(source)
            if one is _END and self._strict:
                others = [await _next(other) for other in self._begun[place + 1 :]]
                if place or any(other is not _END for other in others):
                    raise ValueError("the iterables of ordered_map(…, strict=True) have different lengths")
            if one is _END:
                return None
            key.append(one)
        return tuple(key)

    def take(self, most: int, load: Callable[[int], Load] = Load) -> Chunk | None:
        del most
        if self._come:
            start, self._taken = self._taken, self._taken + 1
            one = load(1)
            one.add(Stream((self._come.popleft(),), swift=True), 1)
            return Chunk.of(one, Label(first=start), start)
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        return None

    def feed(self) -> Iterator[Any]:
        return iter(())

    def remaining(self) -> int | None:
        return 0 if self._ended and not self._come else None

    def resume(self, state: Mapping[str, Any]) -> None:
        super().resume(state)
        self._passed = 0

    def _identity(self) -> dict[str, Any]:
        return {"lengths": [None] * len(self._sources), "seed": self._seed}

    def _length(self) -> int | None:
        return None

    def close(self) -> None:
        """Pull no more. What is asynchronous is closed by its loop, as soon as that can."""
        self._come.clear()
        if not self._closed:
            self._is_over = self._ended
        self._ended = self._closed = True
        pull = self._pull
        if pull is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                pull.get_loop().call_soon_threadsafe(self._close_sources, pull)

    def _close_sources(self, pull: asyncio.Task[None]) -> None:
        if not pull.done():
            pull.cancel()
            pull.add_done_callback(self._close_sources)
            return
        begun, self._begun = self._begun, []
        ended = self._is_over and len(begun) == 1
        for source in begun:
            if hasattr(source, "aclose"):
                _held(pull.get_loop().create_task(_closed(source)))
            else:
                close_source(source, ended=ended)


#: A loop holds its tasks but weakly.
_tasks: set[asyncio.Task[None]] = set()


def _held(task: asyncio.Task[None]) -> asyncio.Task[None]:
    """Have a task exist until it is done."""
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)
    return task


async def _closed(source: Any) -> None:
    await source.aclose()


def _begun(source: Any) -> Iterator[Any] | AsyncIterator[Any]:
    return source.__aiter__() if hasattr(source, "__aiter__") else iter(source)  # type: ignore[no-any-return]


async def _next(source: Iterator[Any] | AsyncIterator[Any]) -> Any:
    if isinstance(source, AsyncIterator):
        return await anext(source, _END)
    return next(source, _END)
