"""Any ``concurrent.futures.Executor``: the standard library's, loky's, Dask's … and the portable process pools.

An executor has tasks and futures, and no way to address one worker. So the dataset is not sent with the tasks, nor by
an initializer (a borrowed executor has none to give): a worker that lacks it says so, and only then is it sent::

    submit ──> executor.submit(compute_chunk, key, None, …) ──> worker holds the job: Reply(outcomes)
                                                           └──> worker lacks it:      Reply(None)
               executor.submit(compute_chunk, key, payload, …) <── the same chunk again, with the job

No more payloads are under way than there are workers known to lack the job; other refused chunks wait until one of
these has been answered.
"""

from __future__ import annotations

import itertools
import pickle
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, NamedTuple

from ordmap.backends import Job
from ordmap.backends.pool import worker_count
from ordmap.backends.promises import row, weaker
from ordmap.backends.remote import Key, Payload, Reply, compute_chunk, hold, let_go, portable
from ordmap.errors import BackendUnavailableError, OrdmapError, WorkerDiedError
from ordmap.indices import Chunk
from ordmap.outcome import Answer

__all__ = ["ExecutorRun", "FromExecutor", "Shipment"]

_THIS_PROCESS = uuid.uuid4().hex
_numbers = itertools.count()
_live: set[Key] = set()


class Shipment:
    """A job on its way to workers: ready for those that share or inherit this memory, pickled for the others.

    It is pickled when it is made, for a run sees its dataset as it was then. ``shared``: all workers are threads of
    this process, ``inherited``: all are still to be forked from it; neither needs it pickled.
    """

    def __init__(self, job: Job, *, shared: bool = False, inherited: bool = False) -> None:
        self.key: Key = (_THIS_PROCESS, next(_numbers))
        self.subject = job.subject
        self.shared = shared
        self.fault: Exception | None = None
        self._data: bytes | None = None
        if not shared and not inherited:
            import cloudpickle  # heavy; threads and forked workers do without

            try:
                self._data = cloudpickle.dumps(job.compute, pickle.HIGHEST_PROTOCOL)
            except Exception as error:
                self.fault = error
        hold(self.key, job.compute)
        _live.add(self.key)

    def payload(self) -> Payload:
        """Return what a worker that lacks the job is sent."""
        if self._data is None:
            raise BackendUnavailableError(
                f"the {type(self.subject).__qualname__} can't be pickled, so it can't reach workers that run already: "
                f"{type(self.fault).__name__}: {self.fault}; use backend='processes' or backend='threads'"
            ) from self.fault
        return Payload(self._data, frozenset(_live))

    def discard(self) -> None:
        """Hold the job no longer."""
        _live.discard(self.key)
        let_go(self.key)


class _Sent(NamedTuple):
    future: Future[Reply]
    chunk: Chunk
    with_payload: bool


class ExecutorRun:
    """One run on an executor."""

    def __init__(
        self,
        executor: Executor,
        job: Job,
        shipment: Shipment,
        closed: Callable[[ExecutorRun], None] | None = None,
    ) -> None:
        self._executor = executor
        self._patience = job.patience
        self._shipment = shipment
        self._tell_closed = closed
        self._open = True
        self._sent: dict[int, _Sent] = {}
        self._done: SimpleQueue[int | None] = SimpleQueue()
        self._lacking: set[str] = set()
        self._payloads_out = 0
        self._refused: deque[tuple[int, Chunk]] = deque()

    @property
    def busy(self) -> bool:
        """Whether a task of this run may still be in a worker's hands."""
        return any(not sent.future.done() for sent in list(self._sent.values()))

    def submit(self, ticket: int, chunk: Chunk) -> None:
        self._send(ticket, chunk, with_payload=False)

    def collect(self, *, wait: bool) -> Sequence[tuple[int, Answer]]:
        answers: list[tuple[int, Answer]] = []
        while (wait and not answers) or not self._done.empty():
            ticket = self._done.get()
            if ticket is None:
                break
            answer = self._received(ticket)
            if answer is not None:
                answers.append((ticket, answer))
        return answers

    def wake(self) -> None:
        self._done.put(None)

    def close(self) -> None:
        if self._open:
            self._open = False
            for sent in list(self._sent.values()):
                sent.future.cancel()
            self._refused.clear()
            if self._tell_closed is not None:
                self._tell_closed(self)

    def _send(self, ticket: int, chunk: Chunk, *, with_payload: bool) -> None:
        payload = self._shipment.payload() if with_payload else None
        keys = chunk.keys if self._shipment.shared else portable(chunk.keys)
        try:
            future = self._executor.submit(compute_chunk, self._shipment.key, payload, keys, self._patience)
        except BrokenExecutor as error:
            raise _died(error) from error
        except RuntimeError as error:
            raise BackendUnavailableError(f"the executor takes no more work: {error}") from error
        self._payloads_out += with_payload
        self._sent[ticket] = _Sent(future, chunk, with_payload)
        done = self._done  # the future must not keep the run alive
        future.add_done_callback(lambda _: done.put(ticket))

    def _received(self, ticket: int) -> Answer | None:
        future, chunk, with_payload = self._sent.pop(ticket)
        self._payloads_out -= with_payload
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
        if outcomes is None:
            self._lacking.add(worker)
            self._refused.append((ticket, chunk))
        else:
            self._lacking.discard(worker)
        self._send_refused()
        return None if outcomes is None else Answer(outcomes, elapsed, nbytes, worker)

    def _send_refused(self) -> None:
        """Send refused chunks again as far as a payload can go along, or no payload is awaited."""
        while self._refused:
            needed = self._payloads_out < len(self._lacking)
            if not needed and self._payloads_out:
                break
            ticket, chunk = self._refused.popleft()
            self._send(ticket, chunk, with_payload=needed)


def _died(error: BaseException) -> WorkerDiedError:
    return WorkerDiedError(
        f"a worker died, and with it the executor: which item did it is not known ({type(error).__name__}: {error})"
    )


class FromExecutor:
    """Compute on any ``concurrent.futures.Executor``. It is borrowed: never shut down, nor its workers ended.

    ``workers`` is the number of items it computes at the same time (``None``: asked from the executor, else the usable
    cores). ``static_dataset=True`` promises that a dataset never changes: it is then sent to a worker once for all
    runs, not once a run, and stays there.

    Attention: what has begun in a borrowed executor goes on there after ``close()``, until it is done.
    """

    name = "executor"
    promises = row(
        clean=weaker("the workers are the executor's owner's; an item that has begun goes on to its end"),
        worker_death=weaker("`WorkerDiedError` ends the run; which item did it is not known"),
        parent_death=weaker("as the executor does it"),
    )

    def __init__(self, executor: Executor, workers: int | None = None, *, static_dataset: bool = False) -> None:
        if not isinstance(executor, Executor):
            raise TypeError(f"FromExecutor needs a concurrent.futures.Executor, not {executor!r}")
        own = getattr(executor, "_max_workers", None)
        self.workers = worker_count(own if workers is None and isinstance(own, int) else workers)
        self._executor = executor
        self._static = static_dataset
        self._kept: Shipment | None = None

    def open(self, job: Job) -> ExecutorRun:
        """Begin a run."""
        shared = isinstance(self._executor, ThreadPoolExecutor)
        kept = self._kept
        if not self._static:
            shipment = Shipment(job, shared=shared)
            return ExecutorRun(self._executor, job, shipment, lambda _: shipment.discard())
        if kept is None or kept.subject is not job.subject:
            if kept is not None:
                kept.discard()
            kept = self._kept = Shipment(job, shared=shared)
        return ExecutorRun(self._executor, job, kept)

    def close(self) -> None:
        """Forget a static dataset; the executor itself stays open."""
        if self._kept is not None:
            self._kept.discard()
            self._kept = None

    def __enter__(self) -> FromExecutor:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
