"""The workers of a crew, as the caller knows them: by number, and by the descriptors that tell of each."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
from collections.abc import Iterator

from ordmap.engine import channel
from ordmap.engine.board import Board
from ordmap.engine.last_words import LastWords
from ordmap.engine.memory import close_all
from ordmap.engine.shelf import Shelf
from ordmap.engine.trackers import PATIENCE, held

__all__ = ["Staff", "Started", "Worker"]


class Worker:
    """A worker that was started. ``pidfd`` becomes readable with its death, whoever holds its channel open.

    ``recorded``: what it says on its standard error before it begins is among its last words.
    """

    def __init__(  # noqa: PLR0917  what a launch has opened
        self,
        number: int,
        pid: int,
        pidfd: int,
        results: socket.socket,
        leash: socket.socket,
        last_words: LastWords,
        board: Board,
        *,
        recorded: bool = False,
    ) -> None:
        self.number = number
        self.pid = pid
        self.pidfd = pidfd
        self.results = results
        self.leash = leash
        self.last_words = last_words
        self.recorded = recorded
        self.shelf = Shelf(board, number)
        self.notices = channel.Outbox(results)
        self.name = f"{os.uname().nodename}:{pid}"
        self.reaped = False
        self.code: int | None = None  # with which it has ended, once it is reaped here
        self.condemned = False  # ended by the caller: no item's fault
        self.proven = False  # it has computed something
        self.overdue: tuple[int, int] | None = None  # the chunk and the item that the caller found to take too long

    def was_overdue(self, row: memoryview) -> bool:
        """Whether the caller has ended it for the item that it was in, as its row of the board says."""
        return self.condemned and self.overdue == (row[0], row[1])

    def close(self, *, leash: bool = True) -> None:
        """Close this process's descriptors of it, with that of its leash or without."""
        self.notices.drop()
        self.results.close()
        if leash:
            self.leash.close()
        self.shelf.close()
        if self.pidfd >= 0:
            file, self.pidfd = self.pidfd, -1
            os.close(file)
            os.close(self.last_words.file)


class Started:
    """What a start has made that is no worker of the staff yet: processes by number, and descriptors."""

    def __init__(self) -> None:
        self.pids: list[int] = []
        self.opened: list[int] = []

    def undo(self) -> None:
        """Have nothing left of it."""
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):  # the caller has reaped it already
                os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)  # it is ours, and so is its number
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        close_all(self.opened)


class Staff:
    """All of a crew's workers. What they send, and their deaths, are events of ``events``."""

    def __init__(self, events: select.epoll) -> None:
        self._events = events
        self._by_number: dict[int, Worker] = {}
        self._by_file: dict[int, Worker] = {}
        self._trackers: list[socket.socket] = []  # leashes of workers that are gone, which their trackers hold

    def __iter__(self) -> Iterator[Worker]:
        """Iterate over those there are now: others may come and go meanwhile, by a signal's handler."""
        return iter(list(self._by_number.values()))

    def __contains__(self, worker: Worker) -> bool:
        return self._by_number.get(worker.number) is worker

    @property
    def is_empty(self) -> bool:
        return not self._by_number

    def add(self, worker: Worker) -> None:
        self._by_number[worker.number] = worker
        for file in (worker.results.fileno(), worker.pidfd):
            self._by_file[file] = worker
            self._events.register(file, select.EPOLLIN)

    def told_by(self, file: int) -> Worker | None:
        """Return the worker that an event of this descriptor is about."""
        return self._by_file.get(file)

    def ignore(self, file: int) -> None:
        """Have no more events of a descriptor."""
        # Closing alone would not do it: while any other process holds the file too, its events would go on.
        if self._by_file.pop(file, None) is not None:
            self._events.unregister(file)

    def remove(self, worker: Worker) -> None:
        """Let go of a worker that is dead."""
        self.ignore(worker.results.fileno())
        self.ignore(worker.pidfd)
        del self._by_number[worker.number]
        worker.close(leash=False)
        self._trackers = held([*self._trackers, worker.leash])

    def wait_for_trackers(self) -> None:
        """Wait for the trackers of all workers that have ended, some seconds at most."""
        self._trackers = held([*self._trackers, *(worker.leash for worker in self if worker.reaped)], PATIENCE)

    def close(self) -> None:
        """Let go of all, whose events are not waited for any more."""
        for worker in self:
            worker.close()
        for leash in self._trackers:
            leash.close()
        self._trackers.clear()
        self._by_number.clear()
        self._by_file.clear()
