"""When a pool's workers begin and end: with the first run, and with the last or with the ``with`` block.

A pool that isn't held open by ``with`` ends its workers as soon as no run uses them, so that nothing stays behind.
"""

from __future__ import annotations

import operator
import os
import threading
from abc import ABC, abstractmethod
from typing import Self

from ordmap.backends import Job, Run
from ordmap.cores import usable_cores
from ordmap.errors import OrdmapError, WorkerDiedError

__all__ = ["POOL_CLOSED", "Pool", "initializer_failed", "worker_count"]


def worker_count(workers: int | None) -> int:
    """Return the number of workers asked for; ``None``: the cores that this process may use."""
    if workers is None:
        return usable_cores()
    if isinstance(workers, bool) or not hasattr(workers, "__index__"):
        raise TypeError(f"workers must be a whole number or None, not {workers!r}")
    workers = operator.index(workers)
    if workers < 1:
        raise ValueError(f"workers={workers}: a pool has at least 1 (workers=0 in the call computes without a pool)")
    return workers


def initializer_failed(error: BaseException, worker: str) -> WorkerDiedError:
    """Return the error of a run whose workers can't begin, since ``initializer`` raised in one of them."""
    failure = WorkerDiedError(f"the initializer failed in worker {worker}: {type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure


#: What a run says whose pool was closed under it.
POOL_CLOSED = "the pool was closed while this iterator was using it"


class Pool(ABC):
    """The life of a backend's own workers, shared by all runs on it; each backend says how to start and end them."""

    def __init__(self, workers: int | None) -> None:
        self.workers = worker_count(workers)
        self._lock = threading.RLock()
        self._process = os.getpid()
        self._held = 0
        self._runs: set[Run] = set()

    def __enter__(self) -> Self:
        with self._lock:
            self._held += 1
        return self

    def __exit__(self, *exc_info: object) -> None:
        with self._lock:
            self._held -= 1
            done = not self._held
        if done:
            self.close()

    def open(self, job: Job) -> Run:
        """Begin a run, starting the workers if there are none."""
        if os.getpid() != self._process:
            raise OrdmapError(
                f"this pool belongs to process {self._process}, and this is a fork of it: make a new one here"
            )
        with self._lock:
            self._held += 1  # a run that ends meanwhile must not take the workers along
            try:
                run = self._begin(job)
                self._runs.add(run)
            finally:
                self._held -= 1
                if not self._runs and not self._held:
                    self._end()
            return run

    def close(self) -> None:
        """End all runs and workers. A later run starts new ones."""
        with self._lock:
            runs = list(self._runs)
        for run in runs:
            run.close()
        with self._lock:
            self._end()

    def _closed(self, run: Run) -> None:
        """Note that a run is over; every run calls it, once at the least."""
        with self._lock:
            self._runs.discard(run)
            if not self._runs and not self._held:
                self._end()

    @abstractmethod
    def _begin(self, job: Job) -> Run:
        """Begin a run; called with the lock held."""

    @abstractmethod
    def _end(self) -> None:
        """End the workers if there are any; called with the lock held."""
