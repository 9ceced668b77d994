"""What the workers owe: every chunk that was given out and is not answered, and the channel on which it was.

A chunk goes by a serial number, and gets a new one each time it is given out again; whatever answers it first, under
any of them, answers it.
"""

from __future__ import annotations

import os
import pickle
import socket
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ordmap.backends.remote import portable
from ordmap.engine import channel
from ordmap.engine.board import Board
from ordmap.engine.message import Order, packed_orders, unpacked_orders
from ordmap.outcome import Raised

if TYPE_CHECKING:
    from ordmap.engine.run import EngineRun

__all__ = ["Ledger", "Task"]

#: Messages that all waiting tasks are packed into when the task channel is full.
_MESSAGES = 32


@dataclass(eq=False, slots=True)
class Task:
    """A chunk that was submitted and is not answered: under its newest serial number, and older ones that may yet come.

    ``dead`` is set once the item behind ``keys`` killed its worker: it ends the answer.
    """

    run: EngineRun
    ticket: int
    keys: Sequence[Any]
    patient: bool
    serials: list[int]
    dead: Raised | None = None
    deaths: int = 0


class Ledger:
    """The tasks of a crew, and the task channel: ``offers`` is the caller's end, ``taking`` that of the workers."""

    def __init__(self, board: Board, offers: socket.socket, taking: socket.socket) -> None:
        self._board = board
        self._offers = offers
        self._taking = taking
        self._tasks: dict[int, Task] = {}
        self._waiting: deque[Task] = deque()
        self._serial = 0

    @property
    def waits(self) -> bool:
        """Whether there is a task that the channel had no room for."""
        return bool(self._waiting)

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
            self._tasks.pop(serial, None)
        self._waiting = deque(task for task in self._waiting if task.run is not run)
        self.repack()

    def clear(self) -> None:
        """Take out everything."""
        self._tasks.clear()
        self._waiting.clear()

    def put(self, task: Task) -> None:
        """Give a task a new serial number, and send it."""
        self._serial += 1
        task.serials.append(self._serial)
        self._tasks[self._serial] = task
        self._waiting.append(task)
        if not self.flush() and len(self._waiting) == 1:
            self.repack()

    def flush(self) -> bool:
        """Send waiting tasks one by one while there is room; ``True``: none waits."""
        while self._waiting:
            task = self._waiting[0]
            if task.serials and task.serials[-1] in self._tasks and not self._send([_order(task)]):
                return False
            self._waiting.popleft()
        return True

    def _send(self, orders: list[Order]) -> bool:
        """Send orders in one message, in a file where it is long; several orders are never long."""
        message = packed_orders(orders)
        if len(message) <= channel.LONG:
            return channel.send(self._offers, message)
        (order,) = orders
        assert isinstance(order.keys, bytes)  # noqa: S101  for the type checker
        file = channel.written_file([order.keys])
        try:
            return channel.send(self._offers, packed_orders([order._replace(keys=b"")]), file)
        finally:
            os.close(file)

    def _taken_back(self) -> list[Task]:
        """Take from the task channel what no worker has taken, in its order."""
        tasks = []
        while (received := channel.receive(self._taking, wait=False)) is not None and received[0]:
            message, file = received
            if file is not None and file >= 0:
                os.close(file)
            for order in unpacked_orders(message):
                task = self._tasks.get(order.serial)
                if task is not None:
                    tasks.append(task)
        return tasks

    def repack(self) -> None:
        """Pack all tasks that no worker has taken into few messages, so that the channel holds them all."""
        tasks = [*self._taken_back(), *self._waiting]
        self._waiting.clear()
        size = -(-len(tasks) // _MESSAGES)
        orders: list[Order] = []
        for place, task in enumerate(tasks):
            order = _order(task)
            if orders and (len(orders) == size or len(packed_orders([*orders, order])) > channel.LONG):
                if not self._send(orders):
                    self._waiting.extend(tasks[place - len(orders) :])
                    return
                orders = []
            orders.append(order)
        if orders and not self._send(orders):
            self._waiting.extend(tasks[len(tasks) - len(orders) :])

    def take_lost(self, worker: int) -> list[Task]:
        """Return the tasks that a dead worker may have had, and those nobody has taken, which leave the channel."""
        untaken = [*self._taken_back(), *self._waiting]
        self._waiting.clear()
        held = set(map(id, untaken))
        lost = []
        for number, task in list(self._tasks.items()):
            if id(task) in held or number != task.serials[-1]:
                continue
            owner = self._board.owner(number)
            # One that nobody owns was taken, and not noted yet: by a worker that lives, or by this one.
            if owner is None or owner == worker:
                lost.append(task)
        return lost + untaken

    def put_again(self, tasks: Sequence[Task]) -> None:
        """Give out those of these tasks again that are not answered."""
        for task in tasks:
            if task.serials[-1] in self._tasks:
                self.put(task)


def _order(task: Task) -> Order:
    keys = task.keys
    if not isinstance(keys, range):
        keys = pickle.dumps(portable(keys), pickle.HIGHEST_PROTOCOL)
    return Order(task.run.number, task.serials[-1], task.patient, keys)
