"""A worker's blocks: the memory in which it hands over large results.

A block holds one result, or one array that `ordmap.empty` gave. It is lent to the caller with the result, and comes
back once the caller's last view of it is gone, over a ring in the shared board. What came back last is used first: it
is still in the cache.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator

from ordmap import real_time as time
from ordmap.engine.board import Board
from ordmap.engine.memory import Memory, Span

__all__ = ["Arena", "Block", "rounded"]

#: Takes, and seconds, after which blocks that were needed by none of them are given up. To make and map one again costs
#: as much as thirty copies into it.
_PERIOD = 8
_SECONDS = 0.25

#: A wait for a chunk, in times of what it takes to make a block, from which on there is time to make them anew.
_SPARE = 20

#: Bytes of a block that a result may leave unused where there is none of its own size, as a part of what it needs.
_SLACK = 0.25


#: The blocks of this process, where it is a worker.
current: Arena | None = None


class Block:
    """Memory that is used again and again. ``sent``: the caller has it mapped."""

    __slots__ = ("handing_over", "memory", "number", "sent", "view")

    def __init__(self, number: int, memory: Memory) -> None:
        self.number = number
        self.memory = memory
        self.view = memoryview(memory.span()).cast("B")
        self.sent = False
        self.handing_over = False

    @property
    def size(self) -> int:
        return self.memory.size


class Arena:
    """All blocks of this worker: idle, lent, or in the hands of an item; so many at most, and so many bytes."""

    def __init__(self, board: Board, worker: int, most: int, budget: int) -> None:
        self._returns = board.returns(worker)
        self._lock = threading.RLock()
        self._read = 0
        self._budget = budget
        self._bytes = 0
        self._idle: dict[int, list[Block]] = {}
        self._idle_count = 0
        self._least_idle = 0
        self._takes = 0
        self._trimmed = time.monotonic()
        self._making = 0.0  # seconds a byte that it took to make the last one
        self._lent: dict[int, Block] = {}
        self._numbers = list(
            range(min(most, board.most_returns))
        )  # a number is free again only when its block is gone on both sides
        self._given: dict[int, tuple[Block, weakref.ref[Span]]] = {}
        self._dropped_given: list[Block] = []  # by any thread, in the midst of anything: the next take sees to them
        self.dropped: list[int] = []

    def take(self, nbytes: int) -> Block | None:
        """Return a block of at least this size; ``None``: no more memory may be had."""
        size = rounded(nbytes)
        with self._lock:  # an item may have threads that call `ordmap.empty`
            return self._take(size)

    def _take(self, size: int) -> Block | None:
        self._receive_returns()
        while self._dropped_given:
            self.put_back(self._dropped_given.pop())
        stack = self._idle.get(size) or self._nearly(size)
        if stack:
            block = stack.pop()
            self._idle_count -= 1
        else:
            made = self._new(size)
            if made is None:
                return None
            block = made
        self._trim()
        return block

    def _nearly(self, size: int) -> list[Block] | None:
        """Return the idle blocks that are larger by as little as possible."""
        most = size * (1 + _SLACK)
        fitting = [other for other, stack in self._idle.items() if size < other <= most and stack]
        return self._idle[min(fitting)] if fitting else None

    def lend(self, block: Block) -> None:
        """Note that the caller has the block now."""
        self._lent[block.number] = block

    def put_back(self, block: Block) -> None:
        """Take back a block that was not lent."""
        with self._lock:
            self._idle.setdefault(block.size, []).append(block)
            self._idle_count += 1

    # For arrays that are made in place

    def give(self, nbytes: int) -> Span | None:
        """Return an exporter of a block of its own, for an item to write its result to."""
        block = self.take(nbytes)
        if block is None:
            return None
        block.handing_over = False
        span = block.memory.span()
        start = block.memory.address
        self._given[start] = block, weakref.ref(span, lambda _: self._given_back(start))
        return span

    def given_at(self, address: int) -> Block | None:
        """Return the block of an item's own that this address is in."""
        for start, (block, _) in list(self._given.items()):
            if start <= address < start + block.size:
                return block
        return None

    @property
    def gives(self) -> bool:
        """Whether any item has a block of its own."""
        return bool(self._given)

    def is_held(self, block: Block) -> bool:
        """Whether there is still somebody in this process who can write to a block that was given."""
        given = self._given.get(block.memory.address)
        return given is not None and given[1]() is not None

    def _given_back(self, start: int) -> None:
        block, _ = self._given.pop(start, (None, None))
        if block is not None and not block.handing_over:
            self._dropped_given.append(block)

    def keep_given(self) -> None:
        """Have blocks of an item's own be plain memory of this process, which is about to fork: a fork shares them."""
        with self._lock:
            for block, _ in list(self._given.values()):
                block.memory.make_private()
                self._forget(block)
            self._given.clear()

    # The life of blocks

    def _new(self, size: int) -> Block | None:
        if self._bytes + size > self._budget or not self._numbers:
            self._drop(self._idle_count)  # of other sizes
            if self._bytes + size > self._budget or not self._numbers:
                return None
        began = time.perf_counter()
        try:
            block = Block(self._numbers[-1], Memory.new(size))
        except OSError:
            return None  # no memory, or no descriptor
        self._making = (time.perf_counter() - began) / size
        self._numbers.pop()
        self._bytes += size
        return block

    def _receive_returns(self) -> None:
        for word in self._returned():
            block = self._lent.pop(word & 0xFFFF, None)
            if block is None:
                continue
            if word & 0x10000:  # a fork has it, too: nobody may write to it any more
                self._gone(block)
            else:
                self.put_back(block)

    def _returned(self) -> Iterator[int]:
        ring = self._returns
        size = len(ring)
        while True:
            word = ring[self._read % size]
            if word >> 32 != (self._read + 1) & 0xFFFFFFFF:
                return
            self._read += 1
            yield word & 0xFFFFFFFF

    def _trim(self) -> None:
        """Give up half of the blocks that were idle all through a period, one at the least."""
        self._least_idle = min(self._least_idle, self._idle_count)
        self._takes += 1
        if self._takes >= _PERIOD:
            self._takes = 0
            now = time.monotonic()
            if now >= self._trimmed + _SECONDS:
                self._drop(-(-self._least_idle // 2))
                self._trimmed = now
                self._least_idle = self._idle_count

    def spare(self, waited: float) -> None:
        """Give up all idle blocks if this worker had to wait so long for its last chunk that it can well make new ones.

        Then the caller is the slow one, and what its window holds may be any worker's: without this, each would keep
        as many blocks as the whole window has results.
        """
        if not self._bytes:
            return
        with self._lock:
            self._receive_returns()
            largest = max((size for size, stack in self._idle.items() if stack), default=0)
            if waited > _SPARE * self._making * largest:
                self._drop(self._idle_count)

    def _drop(self, count: int) -> None:
        for stack in self._idle.values():
            part = stack[:count]
            del stack[:count]
            count -= len(part)
            self._idle_count -= len(part)
            for block in part:
                self._forget(block)
        self._idle = {size: stack for size, stack in self._idle.items() if stack}

    def _forget(self, block: Block) -> None:
        if block.sent:
            self.dropped.append(block.number)
        self._gone(block)

    def _gone(self, block: Block) -> None:
        self._bytes -= block.size
        self._numbers.insert(0, block.number)


def _before_fork() -> None:
    if current is not None:
        current.keep_given()


os.register_at_fork(before=_before_fork)


def rounded(nbytes: int) -> int:
    """Return the size of the block for a result: so few sizes that one serves results of nearly the same size."""
    step = max(4096, 1 << max(0, nbytes - 1).bit_length() >> 8)
    return max(1, -(-nbytes // step)) * step
