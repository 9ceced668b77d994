"""Where other threads leave what the caller is to collect; it may be told of that on an event loop."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

__all__ = ["Inbox", "present_loop"]

#: Seconds that a wait takes at most before it is begun again.
_HEARTBEAT = 0.25

T = TypeVar("T")


def present_loop() -> Any:
    """Return the event loop of asyncio's that the present code runs on; ``None``: on none."""
    get = getattr(sys.modules.get("asyncio"), "get_running_loop", None)  # who runs on one has imported it
    try:
        return None if get is None else get()
    except RuntimeError:
        return None


class Inbox(Generic[T]):
    """A queue. Whoever watches it is told of each thing that is put in, from whatever thread."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[T] = SimpleQueue()
        self._watchers: list[tuple[Any, Callable[[], None]]] = []
        self.empty = self._queue.empty

    def get(self, timeout: float | None = None) -> T:
        """Take something out, once there is something; ``Empty``: there was nothing for so many seconds.

        A signal that arrives right before this thread begins to wait does not wake it, and its handler, which may be
        Ctrl-C's, would run after all that comes. So no wait takes long.
        """
        while timeout is None or timeout > _HEARTBEAT:
            try:
                return self._queue.get(timeout=_HEARTBEAT)
            except Empty:
                timeout = None if timeout is None else timeout - _HEARTBEAT
        return self._queue.get(timeout=max(0.0, timeout))

    def put(self, one: T) -> None:
        """Put something in."""
        self._queue.put(one)
        if self._watchers:
            here = present_loop()
            for loop, callback in list(self._watchers):
                with contextlib.suppress(RuntimeError):  # that loop has ended
                    (loop.call_soon if loop is here else loop.call_soon_threadsafe)(callback)

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
