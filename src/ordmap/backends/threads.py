"""Threads of this process: for items that wait, or that release the GIL. Nothing is copied or pickled."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from contextvars import Context
from functools import partial
from itertools import takewhile
from queue import Empty, SimpleQueue
from typing import Any

from ordmap import real_time as time
from ordmap.backends import Job
from ordmap.backends.inbox import Inbox
from ordmap.backends.pool import POOL_CLOSED, Life, LocalPool, initializer_failed
from ordmap.backends.promises import NOT_COPIED, refused, row, weaker
from ordmap.backends.watch import Watch
from ordmap.chunk import Chunk
from ordmap.context import separate
from ordmap.errors import OrdmapError
from ordmap.item import InHand
from ordmap.outcome import Answer, approximate_nbytes, run_chunk
from ordmap.repeats import Repeats
from ordmap.shielded import shielded

__all__ = ["Threads"]

#: Seconds that closing waits for threads that have no item in hand; they only have to see that they are to leave.
_LEAVE = 5.0


class Threads(LocalPool):
    """Compute in ``workers`` threads of this process (``None``: as many as there are usable cores).

    ``initializer(*initargs)`` runs first in each thread, and ``finalizer()`` last. The threads are daemons: an item
    that hangs does not hold up the end of the program.

    Attention: a thread can't be ended from outside; one that is inside an item when the iterator is closed ends when
    that item does.
    """

    name = "threads"
    promises = row(
        order=NOT_COPIED,
        clean=weaker("a thread that is inside an item when the iterator is closed ends when the item does"),
        worker_death=refused("a thread can't die by itself: what kills an item kills the program"),
        parent_death=weaker("the threads are in the calling process"),
        timeouts=weaker("a thread can't be ended: it is left alone with the item, and another takes its place"),
        random_numbers=weaker("`item_rng()` does; the global generators are those of all threads, and are left alone"),
    )

    _crew: _Crew | None

    def _begin(self, job: Job) -> _ThreadsRun:
        if self._crew is not None and self._crew.has(threading.current_thread()):
            raise OrdmapError("an item can't use the pool that it runs in, which may wait for itself: make another")
        if self._crew is None:
            self._crew = shielded(lambda: _Crew(self.workers, self._life), _Crew.leave)
        return _ThreadsRun(job, self._crew, self._closed)


class _Crew:
    """Some threads and the queue that they all take their tasks from.

    ``limited`` are the open runs whose items have a limit of time.
    """

    def __init__(self, size: int, life: Life) -> None:
        self.tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self.limited: set[_ThreadsRun] = set()
        self._lock = threading.RLock()  # for who comes and goes
        self._left = False
        self._life = life
        self._busy: set[threading.Thread] = set()
        self._watched: dict[threading.Thread, tuple[_ThreadsRun, int, Watch]] = {}
        self._threads: list[threading.Thread] = []
        self._names = (f"ordmap-{number}" for number in itertools.count())
        self.size = size
        for number in range(size):
            self._threads.append(self._hired(partial(self._work, number)))

    def _hired(self, work: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=work, name=next(self._names), daemon=True)
        thread.start()
        return thread

    def has(self, thread: threading.Thread) -> bool:
        return thread in self._threads

    def leave(self) -> None:
        with self._lock:
            self._left = True
        for _ in self._threads:
            self.tasks.put(None)
        patient_until = time.monotonic() + _LEAVE
        for thread in self._threads:
            while thread.is_alive() and thread not in self._busy and time.monotonic() < patient_until:
                if thread.ident == threading.get_ident():
                    break
                thread.join(0.005)

    def watch(self, run: _ThreadsRun, ticket: int, watch: Watch) -> None:
        """Have the present thread's chunk watched by whoever waits for answers."""
        self._watched[threading.current_thread()] = run, ticket, watch

    def wait(self) -> float | None:
        """Return the seconds after which `relieve` may have something to do; ``None``: it won't."""
        if not self.limited and not self._watched:
            return None
        waits = [watch.wait() for _, _, watch in list(self._watched.values())]
        return min((*waits, *(run.limit for run in list(self.limited) if run.limit is not None)), default=None)

    def relieve(self) -> None:
        """Leave threads alone whose items take too long: others take their places."""
        for thread, (_, _, watch) in list(self._watched.items()):
            if watch.is_overdue:
                try:
                    self._hired(partial(self._take_over, thread))
                except RuntimeError as error:
                    raise OrdmapError(
                        f"an item takes too long, and no thread can be started to go on with the others: {error}"
                    ) from error

    def _take_over(self, other: threading.Thread) -> None:
        """Take the place of a thread, and answer for what it has in hand, unless it is done with that by now.

        This is the new thread's to do: what a signal's handler raises can't come in between here.
        """
        with self._lock:
            run, ticket, watch = self._watched.get(other, (None, 0, None))
            if run is None or watch is None or self._left or (given := watch.give_up()) is None:
                return
            del self._watched[other]
            self._threads.remove(other)
            self._threads.append(threading.current_thread())
        run.answer(ticket, *given, other.name)
        self._work(watch.worker)

    def _work(self, number: int | None) -> None:
        life, fault = self._life, None
        own = Context()  # with what the initializer sets
        if life.initializer is not None:
            try:
                own.run(life.initializer, *life.initargs)
            except BaseException as error:
                fault = error
        self._serve(number, fault, own)
        if life.finalizer is not None and fault is None:
            own.run(life.finalizer)

    def _serve(self, number: int | None, fault: BaseException | None, own: Context) -> None:
        this = threading.current_thread()
        while (task := self.tasks.get()) is not None:
            run, ticket, chunk = task
            self._busy.add(this)
            wanted = True
            try:
                context = run.contexts.get(this)
                if context is None:
                    context = run.contexts[this] = separate(run.context, own)
                wanted = context.run(run.work, ticket, chunk, fault, this.name, number)
            except BaseException as error:  # whatever it is, somebody waits for an answer
                run.give_up(error)
            self._busy.discard(this)
            self._watched.pop(this, None)
            if not wanted:
                break
            del task, run, chunk, context  # an idle thread keeps no dataset or result alive


class _ThreadsRun:
    def __init__(self, job: Job, crew: _Crew, closed: Callable[[_ThreadsRun], None]) -> None:
        self.load = Repeats().load
        self.limit = job.limit
        self.context = job.context
        self.contexts: dict[threading.Thread, Context] = {}  # what an item sets its thread's next ones see, as with map
        self._job = job
        self._crew = crew
        self._answers: Inbox[tuple[int, Answer] | BaseException | None] = Inbox()
        self.watch = self._answers.watch
        self._tell_closed = closed
        self._open = True
        if job.limit is not None:
            crew.limited.add(self)

    def give_up(self, error: BaseException) -> None:
        """Have the caller hear of a fault in a worker's thread."""
        failure = OrdmapError(f"a worker failed outside of any item: {type(error).__name__}: {error}")
        failure.__cause__ = error
        self._answers.put(failure)

    def submit(self, ticket: int, chunk: Chunk) -> None:
        if not self._open:
            raise OrdmapError(POOL_CLOSED)
        self._crew.tasks.put((self, ticket, chunk))

    def work(self, ticket: int, chunk: Chunk, fault: BaseException | None, worker: str, number: int | None) -> bool:
        """Run a chunk, in a worker's thread; ``False``: it was given up, and this thread with it."""
        if not self._open:
            return True
        if fault is not None:
            self._answers.put(initializer_failed(fault, worker))
            return True
        job, hand = self._job, InHand(number, self._crew.size)
        hand.take(chunk.keys, chunk.label, job.seed)
        keys = None if job.patience is not None else takewhile(lambda _: self._open, chunk.keys)
        if job.limit is None:
            ran = run_chunk(job.compute, hand, job.patience, keys)
        else:
            watch = Watch(job.compute, hand, job.limit, keys)
            self._crew.watch(self, ticket, watch)
            given = watch.run(job.patience)
            if given is None:
                return False
            ran = given
        self.answer(ticket, *ran, worker)
        return True

    def answer(self, ticket: int, outcomes: list[Any], elapsed: float, worker: str) -> None:
        """Put in the answer for a chunk."""
        self._answers.put((ticket, Answer(outcomes, elapsed, approximate_nbytes(outcomes), worker)))

    def collect(self, *, wait: bool) -> Sequence[tuple[int, Answer]]:
        answers: list[tuple[int, Answer]] = []
        if not self._open and self._answers.empty():
            raise OrdmapError(POOL_CLOSED)
        if not wait:
            self._crew.relieve()
        while (wait and not answers) or not self._answers.empty():
            try:
                answer = self._answers.get(timeout=self._crew.wait())
            except Empty:
                self._crew.relieve()
                continue
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
        self._crew.limited.discard(self)
        self._answers.put(OrdmapError(POOL_CLOSED))
        self._tell_closed(self)


_Task = tuple[_ThreadsRun, int, Chunk]
