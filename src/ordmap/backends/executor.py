"""Any ``concurrent.futures.Executor``: the standard library's, loky's, Dask's … and the portable process pools.

An executor has tasks and futures, and no way to address one worker. So the dataset is not sent with the tasks, nor by
an initializer (a borrowed executor has none to give): a worker that lacks it says so, and only then is it sent::

    submit ──> executor.submit(compute_chunk, key, None, …) ──> worker holds the job: Reply(outcomes)
                                                           └──> worker lacks it:      Reply(None)
               executor.submit(compute_chunk, key, payload, …) <── the same chunk again, with the job

A worker may refuse many chunks before it gets to the one that carries the job. So tasks are numbered in the order of
their sending, which is that of the queue: what a worker refuses goes with the job only if it was sent after the last
one that went so on that worker's account, for then another worker has taken that; else it goes without, behind it.

What is sent again goes behind all that is in the queue. So, until every worker process is known to hold the job, there
is no more in the queue than the workers can take at once; else the oldest item, refused by a worker that began late,
could wait for the whole window.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import sys
import threading
import uuid
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, InvalidStateError, ThreadPoolExecutor
from functools import partial
from typing import Self

from ordmap.backends import Job
from ordmap.backends.forking import without_pickling
from ordmap.backends.inbox import Inbox
from ordmap.backends.loads import PickledLoad
from ordmap.backends.pool import POOL_CLOSED, worker_count
from ordmap.backends.promises import row, weaker
from ordmap.backends.remote import Key, Payload, Reply, Rules, compute_chunk, hold, let_go
from ordmap.backends.unsendable import said_of
from ordmap.backends.variables import packed
from ordmap.chunk import Chunk
from ordmap.errors import BackendUnavailableError, OrdmapError, WorkerDiedError
from ordmap.imports import refuse_workers_in_imports
from ordmap.interrupts import pass_on
from ordmap.outcome import Answer
from ordmap.pulling import Load
from ordmap.reducers import INPUT, JOB, RESULT
from ordmap.repeats import Repeats
from ordmap.vocabulary import Vocabulary

__all__ = ["NO_DEATHS", "NO_TIMEOUTS", "ExecutorRun", "FromExecutor", "Shipment"]

#: How far an executor, which can't end what it runs, keeps the promise of time-outs.
NO_TIMEOUTS = weaker(
    "nothing is ended: each chunk runs in a new thread, which is left alone with an item that takes too long, and has "
    "nothing of what an initializer has set for its own thread"
)

#: How far it keeps the promise of retries.
NO_DEATHS = weaker("the death of a worker ends the run all the same")

#: Chunks of a run that an executor holds at a time. Each makes the standard library's pool write to a pipe that its own
#: thread empties, which sends chunks, too, and would wait for itself where the pipe is full (tens of thousands).
_MOST_OUT = 512

_THIS_PROCESS = uuid.uuid4().hex
_numbers = itertools.count()
_live: set[Key] = set()


class Shipment:
    """A job on its way to workers: ready for those that share or inherit this memory, pickled for the others.

    It is pickled when it is made, for a run sees its dataset as it was then. ``shared``: all workers are threads of
    this process, ``inherited``: all are still to be forked from it; neither needs it pickled, unless a worker turns up
    that lacks it all the same. ``near``: the workers have the files of this machine; ``vocabulary``: what they know by
    its name. It is held until all who keep it have discarded it.
    """

    def __init__(
        self,
        job: Job,
        backend: str,
        *,
        shared: bool = False,
        inherited: bool = False,
        near: bool = True,
        vocabulary: Vocabulary | None = None,
    ) -> None:
        self.near = near
        self.vocabulary = vocabulary
        self.key: Key = (_THIS_PROCESS, next(_numbers))
        self.subject = job.subject
        self._backend = backend
        self.shared = shared
        self.is_everywhere = shared or inherited
        self.fault: BaseException | None = None
        self._compute = job.compute
        self._data: bytes | None = None
        self._lock = threading.Lock()
        self._keepers: set[object] = set()
        if not shared and not inherited:
            self._pickle()
        hold(self.key, job.compute)
        _live.add(self.key)

    def is_for(self, job: Job) -> bool:
        """Whether this is that job, for a dataset that never changes."""
        return not job.changed and self.subject is job.subject and type(self._compute) is type(job.compute)

    def payload(self) -> Payload:
        """Return what a worker that lacks the job is sent."""
        with self._lock:
            if self._data is None and self.fault is None:
                self._pickle()
            if self._data is not None:
                return Payload(self._data, frozenset(_live.copy()))
        raise BackendUnavailableError(
            f"the {type(self.subject).__qualname__} can't be pickled, so it can't reach workers that run already: "
            f"{said_of(self.fault, [self._compute])}; {without_pickling(self._backend)}"
        ) from self.fault

    def keep(self, keeper: object) -> None:
        """Hold the job for somebody."""
        self._keepers.add(keeper)

    def discard(self, keeper: object) -> None:
        """Hold the job no longer for somebody, who may say so again."""
        self._keepers.discard(keeper)
        if not self._keepers:
            _live.discard(self.key)
            let_go(self.key)

    def _pickle(self) -> None:
        from ordmap.by_value import dumps  # heavy; threads and forked workers do without

        try:
            self._data = dumps(self._compute, purpose=JOB if self.near else RESULT, vocabulary=self.vocabulary)
        except BaseException as error:
            pass_on(error)
            self.fault = error


#: The pool of processes of older Pythons, when it breaks, fails all its futures, the cancelled, too. The
#: InvalidStateError of the first of these would end its thread, and who waits for the others would wait for ever.
_FAILS_WHAT_IS_CANCELLED = sys.version_info < (3, 12, 1)


class _Cancellable(Future[Reply]):
    """A future that may be cancelled before it fails.

    Which it is from right after it was sent. A pool that was about to fail it then, in the old way, was marked as
    broken before, and nothing of a broken pool is cancelled.
    """

    def set_exception(self, exception: BaseException | None) -> None:
        with contextlib.suppress(InvalidStateError):
            super().set_exception(exception)


class ExecutorRun:
    """One run on an executor of so many workers, in so many processes.

    A refused chunk is sent again by the thread that brings the refusal, for the caller may be busy elsewhere. No lock
    is held while the executor is called: it may hold its own while it calls us.
    """

    def __init__(
        self,
        executor: Executor,
        job: Job,
        shipment: Shipment,
        closed: Callable[[ExecutorRun], None],
        *,
        workers: int,
        processes: int,
    ) -> None:
        self._executor = executor
        self._workers = workers
        self._processes = processes
        alone = not shipment.shared and processes == workers and max(_dask_threads(executor), default=1) == 1
        context = job.context if shipment.shared else packed(job.context)
        self._rules = Rules(job.patience, job.limit, job.seed, workers, alone, context)
        self._shipment = shipment
        self.load: Callable[[int], Load] = Repeats().load
        if not shipment.shared:
            purpose = INPUT if shipment.near else RESULT
            self.load = partial(PickledLoad, purpose=purpose, vocabulary=shipment.vocabulary)
        self._tell_closed = closed
        self._open = True
        self.program_ends = False
        self._sent: dict[int, Future[Reply]] = {}
        self._done: Inbox[tuple[int, Future[Reply]] | OrdmapError | None] = Inbox()
        self.watch = self._done.watch
        self._lock = threading.Lock()  # for what follows
        self._payload_for: dict[str, int] = {}  # worker -> the task that was to bring it the job
        self._holders: set[str] = set()  # workers that are known to hold the job
        self._all_hold = shipment.is_everywhere
        self._waiting: list[tuple[int, Chunk]] = []  # a heap: the oldest goes first
        self._out = 0  # chunks sent and not answered

    @property
    def under_way(self) -> list[Future[Reply]]:
        """The tasks of this run that may still be in a worker's hands."""
        return [future for future in list(self._sent.values()) if not future.done()]

    def submit(self, ticket: int, chunk: Chunk) -> None:
        self._rest_at_the_end()
        with self._lock:
            heapq.heappush(self._waiting, (ticket, chunk))
        self._send_waiting()

    def collect(self, *, wait: bool) -> Sequence[tuple[int, Answer]]:
        answers: list[tuple[int, Answer]] = []
        if not self._open and self._done.empty():
            raise OrdmapError(POOL_CLOSED)
        while (wait and not answers) or not self._done.empty():
            done = self._done.get()
            self._rest_at_the_end()
            if done is None:
                break
            if isinstance(done, OrdmapError):
                raise done
            ticket, future = done
            del self._sent[ticket]
            answers.append((ticket, _answer(future)))
        return answers

    def wake(self) -> None:
        self._done.put(None)

    def close(self) -> None:
        self._open = False
        self._cancel(self._sent.values())
        self._done.put(OrdmapError(POOL_CLOSED))
        self._tell_closed(self)

    def _send_waiting(self) -> None:
        """Send what may go by now."""
        while True:
            with self._lock:
                most = max(_MOST_OUT, 4 * self._workers) if self._all_hold else self._workers
                if not self._waiting or self._out >= most:
                    return
                ticket, chunk = heapq.heappop(self._waiting)
                self._out += 1
            self._send(ticket, chunk)

    def _cancel(self, futures: Iterable[Future[Reply]]) -> None:
        if type(self._executor).__module__.partition(".")[0] == "distributed":
            return  # whose futures, when cancelled, make its event loop log an exception each
        if getattr(self._executor, "_broken", False):
            return  # it fails them itself: see _Cancellable
        for future in list(futures):
            future.cancel()

    def _send(self, ticket: int, chunk: Chunk, payload_for: str | None = None) -> None:
        """Have the executor compute a chunk, and bring its job to a worker that lacks it."""
        if not self._open:
            raise OrdmapError(POOL_CLOSED)
        payload = self._shipment.payload() if payload_for is not None else None
        task = next(_numbers)
        if payload_for is not None:
            with self._lock:
                self._payload_for[payload_for] = task
        try:
            future = self._executor.submit(
                compute_chunk, self._shipment.key, task, payload, chunk.keys, chunk.label, self._rules
            )
        except BrokenExecutor as error:
            raise _died(error) from error
        except Exception as error:
            raise BackendUnavailableError(
                f"the executor takes no more work: {type(error).__name__}: {error}"
            ) from error
        if _FAILS_WHAT_IS_CANCELLED and type(future) is Future:
            future.__class__ = _Cancellable
        self._sent[ticket] = future
        if not self._open:
            self._cancel([future])
        # The run is held by its futures, and may not hold the iterator.
        future.add_done_callback(lambda future: self._settled(ticket, chunk, task, future))

    def _rest_at_the_end(self) -> None:
        """Have the consumer's thread, if a daemon, stay here once the program ends: what it raised would be printed."""
        if self.program_ends and threading.current_thread().daemon:
            threading.Event().wait()

    def _settled(self, ticket: int, chunk: Chunk, task: int, future: Future[Reply]) -> None:
        """Take note of a task that is over; called by whichever thread of the executor's ended it."""
        if not self._open:
            return
        if future.cancelled() or future.exception() is not None:
            # It ends the run. And nothing may be sent from here: a broken executor says so with its own lock held.
            self._done.put((ticket, future))
            return
        reply = future.result()
        refused = reply.outcomes is None
        with self._lock:
            in_vain = refused and self._payload_for.get(reply.worker, -1) < task
            if not refused:
                self._out -= 1
                self._payload_for.pop(reply.worker, None)
                self._holders.add(reply.worker)
                self._all_hold = self._all_hold or len(self._holders) >= self._processes
        if not refused:
            self._done.put((ticket, future))
        try:
            if refused:
                self._send(ticket, chunk, reply.worker if in_vain else None)
            self._send_waiting()
        except OrdmapError as error:  # the caller is to have it, not this thread
            self._done.put(error)


def _answer(future: Future[Reply]) -> Answer:
    try:
        outcomes, elapsed, nbytes, worker = future.result()
    except CancelledError:
        raise OrdmapError("the executor cancelled the work of this run: was it shut down?") from None
    except OrdmapError:
        raise
    except BrokenExecutor as error:
        raise _died(error) from error
    except Exception as error:
        if type(error).__name__ == "KilledWorker":  # Dask's word for a worker that died again and again
            raise _died(error) from error
        raise BackendUnavailableError(
            f"the executor can't run ordmap's tasks: {type(error).__name__}: {error}; "
            "is ordmap installed where its workers are?"
        ) from error
    assert outcomes is not None  # noqa: S101  a refusal is no answer
    return Answer(outcomes, elapsed, nbytes, worker)


def _died(error: BaseException) -> WorkerDiedError:
    return WorkerDiedError(
        f"a worker died, and with it the executor: which item did it is not known ({type(error).__name__}: {error})"
    )


class FromExecutor:
    """Compute on any ``concurrent.futures.Executor``. It is borrowed: never shut down, nor its workers ended.

    ``workers`` is the number of items it computes at the same time (``None``: asked from the executor, else the usable
    cores). ``static_dataset=True`` promises that a dataset never changes: it is then sent to a worker once for all
    runs, not once a run, and stays there.

    Attention: what has begun in a borrowed executor goes on there after ``close()``, until it is done; the last dataset
    stays with its workers until they get another. An item must not use the executor that it runs in: all its workers
    may be waiting for each other then. With an ``item_timeout`` each chunk runs in a thread of its own, so items have
    nothing of what belongs to the executor's threads, such as the ``threading.local`` data of its initializer.
    """

    name = "executor"
    promises = row(
        order=weaker(
            "processes get copies; to threads nothing is copied: what a source fills anew, an item may see as it is "
            "later (said once, by a warning)"
        ),
        clean=weaker("the workers are the executor's owner's; an item that has begun goes on to its end"),
        worker_death=weaker("`WorkerDiedError` ends the run; which item did it is not known"),
        parent_death=weaker("as the executor does it"),
        timeouts=NO_TIMEOUTS,
        retries=NO_DEATHS,
        random_numbers=weaker(
            "`item_rng()` does; the global generators do where each worker is a process with one item at a time"
        ),
        context=weaker(
            "threads see all; to processes a variable travels that a module's global leads to, with a value that can "
            "be pickled; what the executor's own initializer has set is not seen"
        ),
        no_guard=weaker("lambdas and classes from `__main__` travel; whether its workers run `__main__` is up to it"),
    )

    def __init__(self, executor: Executor, workers: int | None = None, *, static_dataset: bool = False) -> None:
        if not isinstance(executor, Executor):
            raise TypeError(f"FromExecutor needs a concurrent.futures.Executor, not {executor!r}")
        self.workers = worker_count(_size(executor) if workers is None else workers)
        self._executor = executor
        self._static = static_dataset
        self._kept: Shipment | None = None

    def open(self, job: Job) -> ExecutorRun:
        """Begin a run."""
        # Python 3.14's executor of interpreters derives from that of threads, and shares nothing.
        shared = isinstance(self._executor, ThreadPoolExecutor) and "Interpreter" not in type(self._executor).__name__
        if not shared:
            refuse_workers_in_imports()
        shipment = self._kept
        if shipment is None or not shipment.is_for(job):
            shipment = Shipment(job, self.name, shared=shared, near=_is_near(self._executor))
            if self._static:
                self.close()
                self._kept = shipment
                shipment.keep(self)
        run = ExecutorRun(
            self._executor,
            job,
            shipment,
            shipment.discard,
            workers=self.workers,
            processes=len(_dask_threads(self._executor)) or self.workers,
        )
        shipment.keep(run)
        return run

    def close(self) -> None:
        """Forget a static dataset; the executor itself stays open."""
        if self._kept is not None:
            self._kept.discard(self)
            self._kept = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _size(executor: Executor) -> int | None:
    """Return how many items an executor computes at the same time, if it says so."""
    size = getattr(executor, "_max_workers", None)
    if size is None:
        size = sum(_dask_threads(executor))
    return size if isinstance(size, int) and size > 0 else None


def _is_near(executor: Executor) -> bool:
    """Whether an executor is known to have its workers on this machine."""
    return any((base.__module__, base.__name__) in _NEAR for base in type(executor).__mro__)


_NEAR = {
    (module, "ProcessPoolExecutor")
    for module in ("concurrent.futures.process", "loky.process_executor", "joblib.externals.loky.process_executor")
}


def _dask_threads(executor: Executor) -> Sequence[int]:
    """Return the number of threads of each worker process of a Dask cluster; of any other executor: nothing."""
    client = getattr(executor, "_client", None)
    return () if client is None or not hasattr(client, "nthreads") else tuple(client.nthreads().values())
