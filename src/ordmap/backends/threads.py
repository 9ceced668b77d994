"""Threads of this process: for items that wait, or that release the GIL. Nothing is copied or pickled."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from itertools import takewhile
from queue import SimpleQueue
from typing import Any

from ordmap.backends import Job
from ordmap.backends.pool import POOL_CLOSED, Pool, initializer_failed
from ordmap.backends.promises import refused, row, weaker
from ordmap.errors import OrdmapError
from ordmap.indices import Chunk
from ordmap.outcome import Answer, approximate_nbytes, run_chunk

__all__ = ["Threads"]

#: Seconds that closing waits for threads that have no item in hand; they only have to see that they are to leave.
_LEAVE = 5.0


class Threads(Pool):
    """Compute in ``workers`` threads of this process (``None``: as many as there are usable cores).

    ``initializer(*initargs)`` runs first in each thread. The threads are daemons: an item that hangs does not hold up
    the end of the program.

    Attention: a thread can't be ended from outside; one that is inside an item when the iterator is closed ends when
    that item does.
    """

    name = "threads"
    promises = row(
        clean=weaker("a thread that is inside an item when the iterator is closed ends when the item does"),
        worker_death=refused("a thread can't die by itself: what kills an item kills the program"),
        parent_death=weaker("the threads are in the calling process"),
    )

    def __init__(
        self,
        workers: int | None = None,
        *,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
    ) -> None:
        super().__init__(workers)
        self._initializer = initializer
        self._initargs = initargs
        self._crew: _Crew | None = None

    def _begin(self, job: Job) -> _ThreadsRun:
        if self._crew is not None and self._crew.has(threading.current_thread()):
            raise OrdmapError("an item can't use the pool that it runs in, which may wait for itself: make another")
        if self._crew is None:
            self._crew = _Crew(self.workers, self._initializer, self._initargs)
        return _ThreadsRun(job, self._crew.tasks, self._closed)

    def _end(self) -> None:
        crew, self._crew = self._crew, None
        if crew is not None:
            crew.leave()


class _Crew:
    """Some threads and the queue that they all take their tasks from."""

    def __init__(self, size: int, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]) -> None:
        self.tasks: SimpleQueue[tuple[_ThreadsRun, int, Chunk] | None] = SimpleQueue()
        self._busy: set[threading.Thread] = set()
        self._threads = [
            threading.Thread(
                target=_work, args=(self.tasks, self._busy, initializer, initargs), name=f"ordmap-{i}", daemon=True
            )
            for i in range(size)
        ]
        for thread in self._threads:
            thread.start()

    def has(self, thread: threading.Thread) -> bool:
        return thread in self._threads

    def leave(self) -> None:
        for _ in self._threads:
            self.tasks.put(None)
        patient_until = time.monotonic() + _LEAVE
        for thread in self._threads:
            while thread.is_alive() and thread not in self._busy and time.monotonic() < patient_until:
                if thread.ident == threading.get_ident():
                    break
                thread.join(0.005)


def _work(
    tasks: SimpleQueue[tuple[_ThreadsRun, int, Chunk] | None],
    busy: set[threading.Thread],
    initializer: Callable[..., object] | None,
    initargs: tuple[Any, ...],
) -> None:
    this = threading.current_thread()
    fault: BaseException | None = None
    if initializer is not None:
        try:
            initializer(*initargs)
        except BaseException as error:
            fault = error
    while (task := tasks.get()) is not None:
        run, ticket, chunk = task
        busy.add(this)
        try:
            run.work(ticket, chunk, fault, this.name)
        except BaseException as error:  # whatever it is, somebody waits for an answer
            run.give_up(error)
        busy.discard(this)
        del task, run, chunk  # an idle thread keeps no dataset or result alive


class _ThreadsRun:
    def __init__(
        self,
        job: Job,
        tasks: SimpleQueue[tuple[_ThreadsRun, int, Chunk] | None],
        closed: Callable[[_ThreadsRun], None],
    ) -> None:
        self._job = job
        self._tasks = tasks
        self._answers: SimpleQueue[tuple[int, Answer] | BaseException | None] = SimpleQueue()
        self._tell_closed = closed
        self._open = True

    def give_up(self, error: BaseException) -> None:
        """Have the caller hear of a fault in a worker's thread."""
        failure = OrdmapError(f"a worker failed outside of any item: {type(error).__name__}: {error}")
        failure.__cause__ = error
        self._answers.put(failure)

    def submit(self, ticket: int, chunk: Chunk) -> None:
        if not self._open:
            raise OrdmapError(POOL_CLOSED)
        self._tasks.put((self, ticket, chunk))

    def work(self, ticket: int, chunk: Chunk, fault: BaseException | None, worker: str) -> None:
        """Run a chunk, in a worker's thread."""
        if not self._open:
            return
        if fault is not None:
            self._answers.put(initializer_failed(fault, worker))
            return
        keys = chunk.keys if self._job.patience is not None else takewhile(lambda _: self._open, chunk.keys)
        outcomes, elapsed = run_chunk(self._job.compute, keys, self._job.patience)
        self._answers.put((ticket, Answer(outcomes, elapsed, approximate_nbytes(outcomes), worker)))

    def collect(self, *, wait: bool) -> Sequence[tuple[int, Answer]]:
        answers: list[tuple[int, Answer]] = []
        if not self._open and self._answers.empty():
            raise OrdmapError(POOL_CLOSED)
        while (wait and not answers) or not self._answers.empty():
            answer = self._answers.get()
            if answer is None:
                break
            if isinstance(answer, BaseException):
                raise answer
            answers.append(answer)
        return answers

    def wake(self) -> None:
        self._answers.put(None)

    def close(self) -> None:
        self._open = False
        self._answers.put(OrdmapError(POOL_CLOSED))
        self._tell_closed(self)
