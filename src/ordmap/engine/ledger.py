"""What the workers owe: every chunk that was given out and is not answered, and the channel on which it was.

A chunk goes by a serial number, and gets a new one each time it is given out again; whatever answers it first, under
any of them, answers it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import socket
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING

from ordmap.backends.inputs import TRAVELLING, Pickles
from ordmap.chunk import Chunk
from ordmap.engine import channel
from ordmap.engine.board import Board
from ordmap.engine.crates import Crate, crate_of
from ordmap.engine.message import MOST_INSIDE, MOST_ORDERS, SHORT, Order, send_orders, together, unpacked_orders
from ordmap.engine.primed import Primed, row_of
from ordmap.interrupts import uninterrupted
from ordmap.item import Label
from ordmap.outcome import Pickled, Raised

if TYPE_CHECKING:
    from ordmap.engine.run import EngineRun

__all__ = ["Ledger", "Task"]

#: Messages that all waiting tasks are packed into when the task channel is full.
_MESSAGES = 32

#: Bytes of all inputs in the task channel, below which they need no file: to make, send and read one costs 0.1 ms.
_IN_CHANNEL = 64 * 1024

#: The end of a range in a message has 64 bits, one of them for the sign.
_HUGE = 1 << 63

#: What keeps a file for large inputs from being had: descriptors, memory, or a limit to the size of files.
_NO_FILE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EFBIG})


class Task:
    """A chunk that was submitted and is not answered: under its newest serial number, and older ones that may yet come.

    Inputs are pickled when they are submitted, for their source may use their memory again. ``dead`` is set once the
    item behind ``keys`` killed its worker: it ends the answer.
    """

    __slots__ = ("crate", "dead", "deaths", "keys", "label", "patient", "run", "serials", "size", "ticket")

    def __init__(self, run: EngineRun, ticket: int, keys: range | bytes, size: int, label: Label) -> None:
        self.run = run
        self.label = label
        self.crate: Crate | None = None  # what the inputs lie in
        self.ticket = ticket
        self.keys = keys
        self.size = size
        self.patient = False
        self.serials: list[int] = []
        self.dead: Raised | None = None
        self.deaths = 0

    @classmethod
    def of(cls, run: EngineRun, ticket: int, chunk: Chunk) -> Task:
        """Return the task for a chunk of a run, whose keys are made ready to travel."""
        keys, size = chunk.keys, len(chunk)
        if isinstance(keys, range):
            if max(abs(keys.start), abs(keys.stop)) < _HUGE:
                return cls(run, ticket, keys, size, chunk.label)
            keys = list(keys)
        if type(keys[0]) is Pickled and all(type(key) is Pickled for key in keys):
            keys = Pickles(key.data for key in keys)
        elif type(keys[0]) is Primed:
            keys = row_of(keys) or keys
        task = cls(run, ticket, pickle.dumps(keys, pickle.HIGHEST_PROTOCOL), size, chunk.label)
        if isinstance(keys[0], TRAVELLING):
            task.crate = crate_of(keys)
        return task

    def cut(self, size: int) -> None:
        """Leave but the first items."""
        self.size = size
        if isinstance(self.keys, range):
            self.keys = self.keys[:size]
        else:
            keys = pickle.loads(self.keys)
            del keys[size:]
            self.keys = pickle.dumps(keys, pickle.HIGHEST_PROTOCOL)

    def order(self) -> Order:
        """Return how a worker is told of it."""
        crate = None if self.crate is None else self.crate.file
        return Order(self.run.number, self.serials[-1], self.patient, self.keys, self.label, crate)


class Ledger:
    """The tasks of a crew, and the task channel: ``offers`` is the caller's end, ``taking`` that of the workers."""

    def __init__(self, board: Board, offers: socket.socket, taking: socket.socket) -> None:
        self._board = board
        self._offers = offers
        self._taking = taking
        self._tasks: dict[int, Task] = {}
        self._waiting: deque[Task] = deque()
        self._serial = 0
        self._unsendable: deque[tuple[Task, OSError]] = deque()

    @property
    def waits(self) -> bool:
        """Whether there is a task that the channel had no room for."""
        return bool(self._waiting)

    @property
    def has_untaken(self) -> bool:
        """Whether there is a task that no worker has taken, as far as is known."""
        owner = self._board.owner
        return self.waits or any(owner(task.serials[-1]) is None for task in list(self._tasks.values()))

    def find(self, serial: int) -> Task | None:
        """Return the task that goes by this number, if it is not answered."""
        return self._tasks.get(serial)

    def strike(self, task: Task) -> None:
        """Take out a task: it is answered."""
        for serial in task.serials:
            self._tasks.pop(serial, None)

    def strike_run(self, run: EngineRun) -> None:
        """Take out all tasks of a run, from the channel too."""
        for serial in [serial for serial, task in self._tasks.items() if task.run is run]:
            task = self._tasks.pop(serial, None)
            if task is not None and task.crate is not None:
                task.crate.retire()  # a worker may still be at it
        self.repack()

    def clear(self) -> None:
        """Take out everything."""
        self._tasks.clear()
        self._waiting.clear()
        self._unsendable.clear()

    def take_unsendable(self) -> tuple[Task, OSError] | None:
        """Take out a task whose inputs are so large that they need a file of their own, which can't be had."""
        return self._unsendable.popleft() if self._unsendable else None

    def put(self, task: Task) -> None:
        """Give a task a new serial number, and send it."""
        self._number(task)
        if not self._waiting and self._needs_no_file(task) and send_orders(self._offers, [task.order()], MOST_INSIDE):
            return
        self._waiting.append(task)
        if not self.flush() and len(self._waiting) == 1:
            self.repack()

    def _needs_no_file(self, task: Task) -> bool:
        """Whether the inputs are so short that the channel has room for all like them."""
        keys = task.keys
        return isinstance(keys, range) or (task.crate is None and len(keys) <= self._inside())

    def _inside(self) -> int:
        return max(SHORT, min(MOST_INSIDE, _IN_CHANNEL // (len(self._tasks) or 1)))

    def _number(self, task: Task) -> None:
        serial = self._serial = self._serial + 1
        if task.serials and task.crate is not None:
            task.crate.retire()  # two workers may have it, and the slower one for longer
        task.serials.append(serial)
        self._tasks[serial] = task

    def flush(self) -> bool:
        """Send waiting tasks one by one while there is room; ``True``: none waits."""
        return self._send_waiting(1)

    def repack(self) -> None:
        """Pack all tasks that no worker has taken into few messages, so that the channel holds them all."""
        with uninterrupted():  # what was taken back is nowhere else
            self._take_back()
            self._send_packed()

    def _send_packed(self) -> bool:
        """Send all waiting tasks in few messages; ``True``: none waits."""
        return self._send_waiting(max(1, min(MOST_ORDERS, -(-len(self._waiting) // _MESSAGES))))

    def _send_waiting(self, most: int) -> bool:
        """Send waiting tasks, so many in a message. They wait until they are sent, whatever interrupts this."""
        waiting = self._waiting
        inside = self._inside()
        while waiting:
            tasks: list[Task] = []
            sent = False
            try:
                _move(waiting, tasks, together([task.crate for task in islice(waiting, most)]))
                tasks = [task for task in tasks if task.serials[-1] in self._tasks]  # the others are answered
                sent = not tasks or send_orders(self._offers, [task.order() for task in tasks], inside)
                full = not sent
            except OSError as error:
                if error.errno not in _NO_FILE:
                    raise
                full = False
                if most == 1:
                    self._unsendable.append((tasks[0], error))
                    sent = True
                else:
                    most = 1  # those whose inputs are short need no file
            finally:
                if not sent:
                    waiting.extendleft(reversed(tasks))
            if full:
                return False
        return True

    def _take_back(self) -> None:
        """Take from the task channel what no worker has taken."""
        while (received := channel.receive(self._taking, wait=False)) is not None and received[0]:
            message, file = received
            for order in unpacked_orders(message):
                task = self._tasks.get(order.serial)
                if task is not None:
                    self._waiting.append(task)
            if file is not None and file >= 0:
                os.close(file)
        by_age: list[Task] = []
        try:
            _move(self._waiting, by_age, len(self._waiting))
            by_age.sort(key=lambda task: task.serials[-1])
        finally:
            self._waiting.extendleft(reversed(by_age))

    def give_out_lost(self, worker: int, *, in_peace: bool) -> None:
        """Send again, ahead of all others, the tasks that a dead worker may have had.

        ``in_peace``: it has noted what it had, and nothing else is lost with it.
        """
        if not in_peace:
            self._take_back()
        untaken = set(map(id, self._waiting))
        lost = []
        for number, task in list(self._tasks.items()):
            if id(task) in untaken or number != task.serials[-1]:
                continue
            # One that nobody owns is in the channel, or was taken and not noted yet: by a worker that lives, or by this
            # one. So, where it isn't known, is any.
            owner = self._board.owner(number)
            if owner == worker or (owner is None and (not in_peace or self._board.is_forgotten(number))):
                lost.append(task)
        for task in lost:
            self._number(task)
        self._waiting.extendleft(reversed(lost))
        few = len(self._waiting) <= _MESSAGES
        if not (self.flush() if few else self._send_packed()):
            self.repack()


def _move(source: deque[Task], to: list[Task], most: int) -> None:
    """Take tasks out of a queue, which a signal's handler may empty at any moment."""
    with contextlib.suppress(IndexError):
        while len(to) < most:
            to.append(source.popleft())
