"""The backends on the engine: when a crew begins, gets a new job, or is replaced."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any, overload

from ordmap.backends import Job
from ordmap.backends.forking import Objection, objection_to_fork, refuse_green_threads, without_pickling
from ordmap.backends.pool import ProcessPool
from ordmap.backends.promises import SENT_CONTEXT, row, weaker
from ordmap.backends.unsendable import said_of
from ordmap.engine.fork import Fork
from ordmap.engine.jobs import parcel_of
from ordmap.engine.parcel import Parcel
from ordmap.engine.pool import Crew
from ordmap.engine.run import EngineRun
from ordmap.engine.wear import own_memory
from ordmap.errors import BackendUnavailableError
from ordmap.interrupts import pass_on, uninterrupted
from ordmap.vocabulary import Vocabulary

__all__ = ["Processes", "Spawn"]

#: Seconds that a worker waits for a task before it leaves: one of a loop's own, and one of a pool that is held open.
_IDLE, _IDLE_HELD = 300.0, 3600.0


class Processes(ProcessPool):
    """Compute in ``workers`` processes (``None``: as many as there are usable cores), forked where that is safe.

    A forked worker inherits the dataset: nothing is pickled, whatever it holds. Where the program has called
    ``multiprocessing.set_start_method("spawn")`` (or ``"forkserver"``), fresh interpreters are started as by `Spawn`;
    and where something is in use that doesn't survive a fork (JAX, TensorFlow, CUDA, or the threads of polars, gRPC and
    others), if the dataset can be pickled.

    ``initializer(*initargs)`` runs first in each worker, and ``finalizer()`` last: it has five seconds, or half a
    second where the worker is ended in the midst of an item, which has to let go of it. A worker that is killed has no
    time for it.

    A worker that has computed ``max_items_per_worker`` items, or has more than ``max_memory_per_worker`` of memory of
    its own (``"2GB"``, or a number of bytes) after one, leaves, and another takes its place with the next ``next()``:
    for items that leak. What it shares with the caller, such as an inherited dataset, does not count.

    What stands on BLAS or OpenMP uses ``threads_per_worker`` threads in each worker; ``None``: as many as it likes.
    A worker that has had nothing to do for ``idle_timeout`` seconds leaves, and another takes its place when there is
    something: what a loop holds that is never finished, such as one in a notebook's last traceback, costs no memory for
    ever. By default that is five minutes, and an hour in a ``with`` block; ``float("inf")``: never. What the operating
    system keeps of a process that has ended, its number, stays until the program uses the pool again, or ends.

    ``with Processes(4) as pool:`` keeps the workers for several loops; ``static_dataset=True`` promises that a dataset
    does not change between them, and is then sent once (and again where a loop has another ``item_timeout``).
    """

    _crew: Crew | None

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

    def _objection(self) -> Objection | None:
        """Return why workers are not to be forked now, if there is a reason."""
        return objection_to_fork()

    def _patience(self) -> float:
        """Return the seconds that a worker waits for a task before it leaves; called within `open`."""
        if self._idle_timeout is not None:
            return self._idle_timeout
        return _IDLE_HELD if self._held > 1 or self._ahead else _IDLE

    def _begin(self, job: Job) -> EngineRun:
        refuse_green_threads(self.name)
        crew = self._crew
        run = None
        if crew is not None and crew.usable:
            run = self._joined(crew, job)
        if run is None:
            self._retire()
            run = self._recruited(job)
        run.when_closed = self._over
        return run

    def _start(self) -> None:
        if self._crew is None or not self._crew.usable:
            self._retire()
            self._recruited(None)

    @overload
    def _recruited(self, job: Job) -> EngineRun: ...
    @overload
    def _recruited(self, job: None) -> None: ...
    def _recruited(self, job: Job | None) -> EngineRun | None:
        """Begin a run on new workers; without a job, start them alone."""
        refuse_green_threads(self.name)
        objection = self._objection()
        if objection is None:
            return self._forked(job)
        from ordmap.engine.spawn import Interpreter  # not needed by forked workers

        parcel = None
        try:
            launch = Interpreter(self._life, without_pickling(self.name))
            if objection.cure is None and job is not None:
                parcel = _parcel(job)
        except BackendUnavailableError as error:
            if objection.cure is not None:
                raise
            objection.overrule(str(error))
            return self._forked(job)
        objection.tell()
        try:
            with uninterrupted():
                crew = self._crew = Crew(self.workers, launch, self._lock, self._patience())
                crew.start()  # while they begin, the job is pickled
            if job is None:
                return None
            return crew.join(job, parcel or _parcel(job, cure=objection.cure), keep=self._static)
        except BaseException:
            self._give_up()
            raise

    def _forked(self, job: Job | None) -> EngineRun | None:
        launch = Fork(self._life)
        try:
            with uninterrupted(), launch.settled([job] if job is not None else []):
                crew = self._crew = Crew(self.workers, launch, self._lock, self._patience())
                run = crew.join(job, keep=self._static) if job is not None else None
                crew.start()
        except BaseException:
            self._give_up()
            raise
        return run

    def _give_up(self) -> None:
        """End a crew whose run could not begin."""
        unused, self._crew = self._crew, None
        if unused is not None:
            unused.end()

    def _joined(self, crew: Crew, job: Job) -> EngineRun | None:
        """Begin a run on workers that there are; ``None``: the job can't reach them, and others must inherit it."""
        if self._static:
            run = crew.join_kept(job)
            if run is not None:
                return run
        try:
            parcel = _parcel(job, crew.variables, vocabulary=crew.vocabulary)
        except BackendUnavailableError as error:
            objection = self._objection()
            if objection is None or objection.cure is None:
                return None
            raise BackendUnavailableError(f"{error}; {objection.cure}") from error.__cause__
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

    def _objection(self) -> Objection | None:
        return Objection("backend='spawn' is asked for", without_pickling(self.name))


def _parcel(
    job: Job,
    inherited: Sequence[ContextVar[Any]] = (),
    cure: str | None = None,
    vocabulary: Vocabulary | None = None,
) -> Parcel:
    try:
        return parcel_of(job, inherited, vocabulary=vocabulary)
    except BaseException as error:
        pass_on(error)
        if isinstance(error, OSError):
            raise BackendUnavailableError(f"the dataset can't be sent to workers that run already: {error}") from error
        raise BackendUnavailableError(
            f"the {type(job.subject).__qualname__} can't be pickled, so it can't reach workers that run already: "
            f"{said_of(error, [job.compute])}{'' if cure is None else f'; {cure}'}"
        ) from error
