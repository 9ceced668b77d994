"""The caller's blocks: results of a worker that lie in memory shared with it.

A result is opened in place: its arrays are views of the block. When the last of them is gone the block goes back to
the worker, with the crew's next call. That holds for as long as worker and caller live; a result that is kept longer
simply keeps its memory.

Views end anywhere, and what Python calls then may not raise: a signal's handler that ran in there would raise in vain,
and Ctrl-C be lost. So the end of a view is noted by a method in C, and the rest waits for the next call.

A fork makes a second owner of every view. So, before it, the blocks in use become private memory, as all other memory
of a process is: neither side sees what the other writes. They go back to their workers only to be thrown away.

A block costs this process a descriptor and a mapping, of which it has only so many. When the blocks of all its pools,
and the results that it keeps, have used up most of them, results are copied out, and their blocks go back at once.
"""

from __future__ import annotations

import errno
import os
import pickle
import resource
import weakref
from collections import deque
from collections.abc import Sequence
from typing import Any

from ordmap.engine.board import Board
from ordmap.engine.memory import Memory, Span, Weak
from ordmap.outcome import Sealed

__all__ = ["Lent", "Shelf", "room"]

#: Mappings that Linux grants a process, unless it is told otherwise (65,530), less a half for all else.
_MOST_MAPPINGS = 32_000

#: Where a buffer of a result lies: block, first byte, number of bytes.
Part = tuple[int, int, int]


class _Watch(weakref.ref[Span]):
    """Says which block it was that an exporter made accessible, once the exporter is gone."""

    __slots__ = ("number",)
    number: int


class Shelf:
    """The blocks of one worker, by number, as far as the caller knows them."""

    def __init__(self, board: Board, worker: int) -> None:
        self._returns = board.returns(worker)
        self._size = len(self._returns)
        self._returned = 0
        self._blocks: dict[int, Memory] = {}
        self._live: dict[int, _Watch] = {}
        self._unused: deque[_Watch] = deque()
        self._retired: set[int] = set()
        self._faults: dict[int, tuple[int, str]] = {}
        self.crowded = 3 * _most() // 4  # blocks of this process, beyond which results are copied out
        _shelves.add(self)

    def put(self, number: int, size: int, file: int) -> None:
        """Take in a new block; its descriptor is the shelf's from here on."""
        # Where that fails, a result in the block says so.
        if file < 0:
            self._faults[number] = errno.EMFILE, "no more files can be opened, to receive this result"
            return
        try:
            memory = self._blocks[number] = Memory(file, size)
        except OSError as error:
            self._faults[number] = error.errno or 0, f"no memory can be mapped for this result: {error.strerror}"
        else:
            self._faults.pop(number, None)
            _received.add(memory)

    def drop(self, number: int) -> None:
        """Let go of a block that the worker has given up."""
        self._blocks.pop(number, None)
        self._faults.pop(number, None)

    def close(self) -> None:
        """Give nothing back any more. What is in use stays valid."""
        self.abandon()
        self._returns.release()

    def span(self, number: int) -> Span:
        """Return an exporter of a block. Once it and all views of it are gone the block can go back.

        It outlives the shelf, where it must.
        """
        if number in self._faults:
            raise OSError(*self._faults[number])
        span = self._blocks[number].span()
        watch = self._live[number] = _Watch(span, self._unused.append)
        watch.number = number
        return span

    def give_back(self) -> None:
        """Have the worker use again what is not in use here any more; one thread at a time."""
        while self._unused:
            try:
                number = self._unused.popleft().number
            except IndexError:  # a signal handler, in here, has closed the shelf
                return
            self._live.pop(number, None)
            word = number
            if number in self._retired:
                self._retired.discard(number)
                self._blocks.pop(number, None)
                word |= 0x10000
            try:
                self._returns[self._returned % self._size] = (self._returned + 1 & 0xFFFFFFFF) << 32 | word
            except ValueError:  # likewise
                return
            # A handler that raises right here costs a block. The other way round it would leave a hole, at which the
            # worker would read for ever.
            self._returned += 1

    def retire_live(self) -> None:
        """Have what is in use now be used by nobody else, ever: a fork shares it."""
        # Besides those that are watched, one whose exporter another thread is making at this moment.
        self._retired.update(self._live, (number for number, memory in list(self._blocks.items()) if memory.in_use))

    def abandon(self) -> None:
        """After a fork, in the child."""
        self._blocks.clear()
        self._live.clear()
        self._unused.clear()


class Lent(Sealed):
    """A result in blocks, not opened yet; what is never opened gives its blocks back all the same."""

    __slots__ = ("_data", "_parts", "_shelf", "_spans")

    def __init__(self, shelf: Shelf, data: bytes | Part, parts: Sequence[Part]) -> None:
        self._shelf = shelf
        self._data = data
        self._parts = parts if isinstance(data, bytes) else (*parts, data)
        self._spans: dict[int, Span] = {}
        for number, _, _ in self._parts:
            if number not in self._spans:
                self._spans[number] = shelf.span(number)

    def open(self) -> Any:
        spans, self._spans = self._spans, {}
        buffers: list[Any] = [
            memoryview(spans[number]).cast("B")[start : start + size] for number, start, size in self._parts
        ]
        if len(_received) > self._shelf.crowded:
            buffers = [bytearray(buffer) for buffer in buffers]
        del spans
        data = self._data if isinstance(self._data, bytes) else buffers.pop()
        return pickle.loads(data, buffers=buffers)


_shelves: Weak[Shelf] = Weak()

#: What results lie in or lay in; also after the shelf is gone, where a result is kept.
_received: Weak[Memory] = Weak()


def room() -> int:
    """Return how many more blocks this process may have."""
    return _most() - len(_received)


def _most() -> int:
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST_MAPPINGS if files == resource.RLIM_INFINITY else min(files // 2, _MOST_MAPPINGS)


def _before_fork() -> None:
    for shelf in _shelves:
        shelf.retire_live()
    for memory in _received:
        if memory.in_use:
            memory.make_private()


def _after_fork_in_child() -> None:
    for shelf in _shelves:
        shelf.abandon()
    _shelves.clear()


os.register_at_fork(before=_before_fork, after_in_child=_after_fork_in_child)
