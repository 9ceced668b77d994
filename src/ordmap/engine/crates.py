"""Large inputs on their way to workers: memory that is filled once, and mapped by whichever worker takes the chunk.

A *crate* holds the inputs of one chunk, and goes with its message as a descriptor::

    caller   an array ──copied once──> crate ──> task channel
    worker   the crate, mapped copy-on-write ──> an array that lies in it

A worker that writes to its input writes to a copy of its own, so the same crate serves another attempt. It is filled
again once nobody needs what is in it: neither the window, which may have an item tried again, nor a worker. One that
keeps an input beyond its chunk says so, and then nothing is ever written there again.

What has no large buffer travels in the message instead, and so does all for which there is no crate to be had; see
`ordmap.engine.loads`.
"""

from __future__ import annotations

import mmap
import os
import pickle
import resource
import threading
import weakref
from collections import deque
from collections.abc import Sequence
from typing import Any

from ordmap.backends.inputs import Travelling
from ordmap.backends.pool import POOL_CLOSED
from ordmap.engine.blocks import rounded
from ordmap.engine.memory import Memory
from ordmap.errors import OrdmapError
from ordmap.shielded import noted
from ordmap.vocabulary import Vocabulary

__all__ = ["Boxed", "Crate", "Crates", "Opened", "crate_of"]

#: Crates that may be under way at a time: each is a message of its own, and a channel has room for some hundreds.
_MOST = 128

#: Bytes that a crate may have beyond what it is to hold, as a part of that.
_SLACK = 1.0

#: Where something lies in a crate: its first byte, and the number of bytes.
Span = tuple[int, int]


class Crate:
    """Memory with inputs in it. ``retired``: nothing else may be put there, ever."""

    __slots__ = ("__weakref__", "watch")

    def __init__(self, memory: Memory, gone: deque[_Watch]) -> None:
        self.watch = _Watch(self, gone.append)
        self.watch.memory = memory
        self.watch.retired = False

    @property
    def memory(self) -> Memory:
        """The memory, which its crew has until it ends."""
        if self.watch.memory is None:
            raise OrdmapError(POOL_CLOSED)
        return self.watch.memory

    @property
    def file(self) -> int:
        """The descriptor of the memory."""
        return self.memory.file

    def retire(self) -> None:
        """Have nothing else be put there: somebody may keep what is in it."""
        self.watch.retired = True


class _Watch(weakref.ref[Crate]):
    """What is left of a crate that nobody needs any more; also its memory, unless the crew has ended."""

    __slots__ = ("memory", "retired")
    memory: Memory | None
    retired: bool


class Boxed(Travelling):
    """An input in a crate: where its pickle lies, and the buffers that belong to it."""

    __slots__ = ("_buffers", "_data", "crate")

    def __init__(self, data: Span, buffers: Sequence[Span], crate: Crate | None = None) -> None:
        self._data = data
        self._buffers = buffers
        self.crate = crate

    @property
    def nbytes(self) -> int:
        """The bytes of the buffers."""
        return sum(size for _, size in self._buffers)

    def __reduce__(self) -> tuple[Any, ...]:
        return Boxed, (self._data, self._buffers)

    def unpacked(self, source: Any) -> Any:
        """Return the input, which lies in the crate that came with it."""
        if isinstance(source, OSError):
            raise source
        return pickle.loads(source.part(self._data), buffers=[source.part(span) for span in self._buffers])


def crate_of(keys: Sequence[Any]) -> Crate | None:
    """Return the crate that the inputs of a chunk lie in, if any does."""
    return next((key.crate for key in keys if type(key) is Boxed), None)


class Opened:
    """A crate in a worker, mapped for as long as anything that lies in it is in use."""

    __slots__ = ("_memory", "_shared", "_view")

    def __init__(self, file: int) -> None:
        """Map a file, and close its descriptor."""
        try:
            memory = mmap.mmap(file, 0, access=mmap.ACCESS_COPY)
        finally:
            os.close(file)
        self._memory = weakref.ref(memory)
        self._view = memoryview(memory)
        self._shared = False
        opened.append(self)

    def part(self, span: Span) -> memoryview:
        """Return some of the bytes."""
        return self._view[span[0] : span[0] + span[1]]

    def close(self) -> bool:
        """Let go of it; ``False``: somebody here has not, or a process that an item has forked meanwhile."""
        opened.remove(self)
        self._view.release()
        return self._memory() is None and not self._shared

    def share(self) -> None:
        """Note that a fork has it, too."""
        self._shared = True


#: That of this worker, while it computes.
opened: list[Opened] = []


def _before_fork() -> None:
    for crate in opened:
        crate.share()


os.register_at_fork(before=_before_fork)


class Crates:
    """The crates of a crew, and memory for others: so many bytes, and descriptors, at most."""

    def __init__(self, budget: int, vocabulary: Vocabulary | None = None) -> None:
        self._budget = budget
        self.vocabulary = vocabulary
        self._most = _most()
        self._bytes = 0
        self._under_way: dict[int, _Watch] = {}
        self._closed = False
        self._gone: deque[_Watch] = deque()
        self._idle: list[Memory] = []  # what was used last, at the end: it is still in the cache
        self._lock = threading.RLock()

    def take(self, size: int) -> Crate | None:
        """Return a crate of at least this size; ``None``: there is none to be had, or enough is under way."""
        size = rounded(size)
        memory = None
        with self._lock:
            self._collect()
            if len(self._under_way) >= self._most or self._closed:
                return None
            for place in reversed(range(len(self._idle))):
                if size <= self._idle[place].size <= size * (1 + _SLACK):
                    memory = self._idle.pop(place)
                    break
            else:
                while self._idle and self._is_full(size):
                    self._bytes -= self._idle.pop(0).size
                if self._is_full(size):
                    return None
        if memory is None:
            # Without the lock, for it takes long: a thread may fork meanwhile, whose child has the lock as it is.
            try:
                memory = Memory.new(size)
            except OSError:  # no memory, or no descriptor
                return None
            self._bytes += memory.size
        with self._lock:
            crate = Crate(memory, self._gone)
            self._under_way[id(crate.watch)] = crate.watch
            return crate

    def _is_full(self, size: int) -> bool:
        return self._bytes + size > self._budget or len(self._under_way) + len(self._idle) >= self._most

    def _collect(self) -> None:
        """Take in what nobody needs any more; of what is idle, no more is kept than is under way."""
        while self._gone:
            try:
                watch = self._gone.popleft()
            except IndexError:  # a signal handler was here
                return
            self._under_way.pop(id(watch), None)
            if watch.memory is None:
                continue
            if watch.retired:
                self._bytes -= watch.memory.size
            else:
                self._idle.append(watch.memory)
        while len(self._idle) > max(2, len(self._under_way)):
            self._bytes -= self._idle.pop(0).size

    def trim(self) -> None:
        """Let go of all that is not under way, unless another thread is at it."""
        taken: list[bool] = []
        try:
            noted(taken, self._lock.acquire, False)
            if taken == [True]:
                self._collect()
                self._bytes -= sum(memory.size for memory in self._idle)
                self._idle.clear()
        finally:
            if taken == [True]:
                self._lock.release()

    def close(self) -> None:
        """Let go of all memory: nobody will be sent any of it. No lock is taken: in a fork its owner may not exist."""
        self._closed = True
        self._idle = []
        self._gone.clear()
        for watch in list(self._under_way.values()):
            watch.memory = None
        self._under_way = {}


def _most() -> int:
    """Return how many crates there may be: a part of the files that this process may have open."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST if files == resource.RLIM_INFINITY else min(_MOST, files // 8)
