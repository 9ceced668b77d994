"""The status board: shared memory where each worker says what it is about to do, before it does it.

It costs no system call, and it outlives the worker: whatever ended it, the caller reads there which item it was in::

    word 0       bulletin: changes when the caller has sent all workers a notice, or wants them to leave
    word 1       1: leave
    word 2       1: a worker has left since it had waited long, or is about to
    words 8 …    a row a worker: the serial number of the chunk in its hands (0: none), how far it is with it,
                 whether it is ready for chunks at all, whether it has left with nothing in hand, the serial number
                 of the last chunk whose items were all computed, and when its clock is to end it (0: never), in
                 microseconds of `time.perf_counter`, which is one for all processes
    then         returns, 4096 words a worker: the blocks that it gets back; the n-th is said in word (n - 1) mod 4096,
                 as n << 32 | what
    then         owners: for serial number n, word n mod 8192 is n << 16 | 1 + the worker that took it
"""

from __future__ import annotations

import contextlib
import mmap

__all__ = ["ITEM", "LOADING", "TAKEN", "Board"]

#: How far a worker is with its chunk: its inputs are unpickled; its job is; or ``ITEM + n``: item ``n`` is computed.
TAKEN, LOADING, ITEM = 0, 1, 2

_ROWS = 8
_ROW = 8
_OWNERS = 8192


class Board:
    """One view of the shared memory, which forked processes inherit, and others map by a descriptor, ``file``."""

    #: The blocks that a worker can have, and the words of its ring.
    most_returns = 4096

    def __init__(self, workers: int, file: int = -1) -> None:
        self._first_return = _ROWS + _ROW * workers
        self._first_owner = self._first_return + self.most_returns * workers
        self._memory = mmap.mmap(file, self.size(workers))
        self.words = memoryview(self._memory).cast("Q")

    def close(self) -> None:
        """Let go of it, in this process."""
        with contextlib.suppress(BufferError):  # a traceback holds a row: then it goes with that
            self.words.release()
            self._memory.close()

    @staticmethod
    def size(workers: int) -> int:
        """Return the bytes that the board of so many workers needs."""
        return 8 * (_ROWS + (_ROW + Board.most_returns) * workers + _OWNERS)

    def row(self, worker: int) -> memoryview:
        """Return a worker's row."""
        start = _ROWS + _ROW * worker
        return self.words[start : start + _ROW]

    def returns(self, worker: int) -> memoryview:
        """Return the ring in which a worker is told of the blocks that come back; it has room for all there can be."""
        start = self._first_return + self.most_returns * worker
        return self.words[start : start + self.most_returns]

    def take(self, serial: int, worker: int) -> None:
        """Note that a worker has a chunk."""
        self.words[self._first_owner + serial % _OWNERS] = serial << 16 | worker + 1

    def give_up(self, serial: int) -> None:
        """Note that the worker which had a chunk is about to offer it to all."""
        self.words[self._first_owner + serial % _OWNERS] = 0

    def owner(self, serial: int) -> int | None:
        """Return the worker that took a chunk; ``None``: none did, or so many came after that it isn't known."""
        word = self.words[self._first_owner + serial % _OWNERS]
        return (word & 0xFFFF) - 1 if word >> 16 == serial else None

    def is_forgotten(self, serial: int) -> bool:
        """Whether so many chunks were taken after this one that it isn't known any more who took it."""
        return self.words[self._first_owner + serial % _OWNERS] >> 16 > serial

    def clear(self, worker: int) -> None:
        """Make what is a worker's ready for another."""
        row = self.row(worker)
        row[0] = row[1] = row[2] = row[3] = row[4] = row[5] = 0
        self.returns(worker)[:] = memoryview(bytes(8 * self.most_returns)).cast("Q")

    def begin(self, worker: int) -> None:
        """Note that a worker is ready for its first chunk."""
        self.row(worker)[2] = 1

    def has_begun(self, worker: int) -> bool:
        return bool(self.row(worker)[2])

    def take_leave(self, worker: int) -> None:
        """Note that a worker has nothing in hand, and takes no more."""
        self.row(worker)[3] = 1

    def come_back(self, worker: int) -> None:
        """Note that a worker has not left after all."""
        self.row(worker)[3] = 0

    def has_left(self, worker: int) -> bool:
        return bool(self.row(worker)[3])

    def is_busy(self, worker: int) -> bool:
        """Whether a worker is in the midst of something, and won't see soon that it is to leave."""
        row = self.row(worker)
        return (row[0] != 0 and row[0] != row[4]) or not row[2]

    def post_bulletin(self) -> None:
        self.words[0] += 1

    def ask_to_leave(self) -> None:
        self.words[1] = 1
        self.post_bulletin()

    @property
    def some_away(self) -> bool:
        """Whether a worker has left that had waited long."""
        return bool(self.words[2])

    @some_away.setter
    def some_away(self, some: bool) -> None:
        self.words[2] = some

    @property
    def leaving(self) -> bool:
        return bool(self.words[1])
