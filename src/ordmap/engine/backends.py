"""The backends on the engine: when a crew begins, gets a new job, or is replaced."""

from __future__ import annotations

import os
import threading
import weakref

from ordmap.backends import Job
from ordmap.backends.forking import fork_is_unsafe
from ordmap.backends.pool import ProcessPool
from ordmap.backends.promises import SENT_CONTEXT, row, weaker
from ordmap.engine.fork import Fork
from ordmap.engine.parcel import Parcel
from ordmap.engine.pool import Crew
from ordmap.engine.run import EngineRun
from ordmap.engine.wear import own_memory
from ordmap.engine.worker import Sent
from ordmap.errors import BackendUnavailableError
from ordmap.interrupts import came_by_a_signal, uninterrupted

__all__ = ["Processes", "Spawn"]


class Processes(ProcessPool):
    """Compute in ``workers`` processes (``None``: as many as there are usable cores), forked where that is safe.

    A forked worker inherits the dataset: nothing is pickled, whatever it holds. Where JAX, TensorFlow or CUDA is in use
    (which don't survive a fork), fresh interpreters are started as by `Spawn`.

    ``initializer(*initargs)`` runs first in each worker, and ``finalizer()`` last: it has five seconds, or half a
    second where the worker is ended in the midst of an item, which has to let go of it. A worker that is killed has no
    time for it.

    A worker that has computed ``max_items_per_worker`` items, or has more than ``max_memory_per_worker`` of memory of
    its own (``"2GB"``, or a number of bytes) after one, leaves, and another takes its place with the next ``next()``:
    for items that leak. What it shares with the caller, such as an inherited dataset, does not count.

    ``with Processes(4) as pool:`` keeps the workers for several loops; ``static_dataset=True`` promises that a dataset
    does not change between them, and is then sent once (and again where a loop has another ``item_timeout``).
    """

    name = "processes"
    promises = row(
        lazy=weaker(
            "where a worker has died, or was recycled, the one in its place inherits the dataset as it is then, not as "
            "it was at the start"
        ),
        context=weaker(
            "workers that run already, of a pool that is held open, see what travels: variables that a module's global "
            "leads to, or that were set when they began, with values that can be pickled; others have their defaults"
        ),
    )

    def _prepare(self) -> None:
        if self._life.most_bytes is not None:
            try:
                own_memory()
            except OSError as error:
                raise BackendUnavailableError(f"max_memory_per_worker can't be watched here: {error}") from error
        self._crew: Crew | None = None
        _pools.add(self)

    def begin_anew(self) -> None:
        """After a fork, in the child: the workers are the caller's, and a thread that isn't here may hold the lock."""
        self._lock = threading.RLock()
        self._runs.clear()
        self._crew = None

    def _forks(self) -> bool:
        return not fork_is_unsafe()

    def _begin(self, job: Job) -> EngineRun:
        crew = self._crew
        run = None
        if crew is not None and crew.usable:
            run = self._joined(crew, job)
        if run is None:
            self._retire()
            run = self._recruited(job)
        run.when_closed = self._over
        return run

    def _recruited(self, job: Job) -> EngineRun:
        """Begin a run on new workers."""
        if self._forks():
            with uninterrupted():
                crew = self._crew = Crew(self.workers, Fork(self._life), self._lock)
                run = crew.join(job, keep=self._static)
                crew.start()
            return run
        from ordmap.engine.spawn import Interpreter  # not needed by forked workers

        with uninterrupted():
            crew = self._crew = Crew(self.workers, Interpreter(self._life), self._lock)
            crew.start()  # while they begin, the job is pickled
        try:
            return crew.join(job, _parcel(job, crew), keep=self._static)
        except BaseException:
            self._retire()
            raise

    def _joined(self, crew: Crew, job: Job) -> EngineRun | None:
        """Begin a run on workers that there are; ``None``: the job can't reach them, and others must inherit it."""
        if self._static:
            run = crew.join_kept(job)
            if run is not None:
                return run
        try:
            parcel = _parcel(job, crew)
        except BackendUnavailableError:
            if self._forks():
                return None
            raise
        return crew.join(job, parcel, keep=self._static)

    def _over(self, run: EngineRun) -> None:
        with self._lock:
            crew = run.crew
            try:
                if crew is not self._crew and not crew.runs:
                    crew.end()
            finally:
                self._closed(run)

    def _retire(self) -> None:
        """Leave the present crew to the runs that use it."""
        crew, self._crew = self._crew, None
        if crew is not None and not crew.runs:
            crew.end()

    def _end(self) -> None:
        self._retire()


class Spawn(Processes):
    """Compute in ``workers`` fresh interpreters (``None``: as many as there are usable cores).

    They inherit nothing: the dataset is pickled once, by ``cloudpickle``, so that what a script, a notebook or a REPL
    defines works; its large buffers are mapped by all workers, copy-on-write. The user's ``__main__`` is never run in
    them, so a script needs no ``if __name__ == "__main__":``.
    """

    name = "spawn"
    promises = row(context=SENT_CONTEXT)

    def _forks(self) -> bool:
        return False


_pools: weakref.WeakSet[Processes] = weakref.WeakSet()


def _begin_all_anew() -> None:
    for pool in list(_pools):
        pool.begin_anew()


os.register_at_fork(after_in_child=_begin_all_anew)


def _parcel(job: Job, crew: Crew) -> Parcel:
    try:
        return Parcel(Sent.of(job, crew.variables))
    except BaseException as error:
        if came_by_a_signal(error):
            raise
        if isinstance(error, OSError):
            raise BackendUnavailableError(f"the dataset can't be sent to workers that run already: {error}") from error
        raise BackendUnavailableError(
            f"the {type(job.subject).__qualname__} can't be pickled, so it can't reach workers that run already: "
            f"{type(error).__name__}: {error}; use backend='processes' or backend='threads'"
        ) from error
