"""Where other threads leave what the caller is to collect; it may be told of that on an event loop."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

__all__ = ["Inbox"]

T = TypeVar("T")


class Inbox(Generic[T]):
    """A queue. Whoever watches it is told of each thing that is put in, from whatever thread."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[T] = SimpleQueue()
        self._watchers: list[tuple[Any, Callable[[], None]]] = []
        self.get = self._queue.get
        self.empty = self._queue.empty

    def put(self, one: T) -> None:
        """Put something in."""
        self._queue.put(one)
        if self._watchers:
            for loop, callback in list(self._watchers):
                with contextlib.suppress(RuntimeError):  # that loop has ended
                    loop.call_soon_threadsafe(callback)

    def watch(self, loop: Any, callback: Callable[[], None]) -> Callable[[], None]:
        """Have a callback called on an event loop when there may be something; return what ends that."""
        watcher = (loop, callback)
        self._watchers.append(watcher)
        if not self.empty():
            loop.call_soon(callback)

        def end() -> None:
            with contextlib.suppress(ValueError):
                self._watchers.remove(watcher)

        return end
