"""Worker processes on the standard library's ``ProcessPoolExecutor``: the portable path.

It adds what that executor lacks for our purpose: workers that never run the user's ``__main__``, that end with the
process that started them, that leave Ctrl-C to it, and that are ended at once when nobody wants their answers.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import itertools
import multiprocessing
import multiprocessing.connection
import multiprocessing.util
import os
import pickle
import signal
import sys
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import spawn
from multiprocessing.context import BaseContext, SpawnContext, SpawnProcess
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from ordmap import marks, namespace
from ordmap import real_time as time
from ordmap.backends import Job, cores, logs, remote, streams
from ordmap.backends.executor import NO_DEATHS, NO_TIMEOUTS, ExecutorRun, Shipment
from ordmap.backends.forking import objection_to_fork, refuse_green_threads
from ordmap.backends.pool import Life, ProcessPool, refuse_breakpoints
from ordmap.backends.promises import SENT_CONTEXT, row, weaker
from ordmap.errors import BackendUnavailableError
from ordmap.generators import differ_where_inherited
from ordmap.imports import begins, refuse_workers_in_imports
from ordmap.interrupts import pass_on
from ordmap.signalled import take_own
from ordmap.surroundings import Surroundings
from ordmap.unwarned import unwarned
from ordmap.vocabulary import Vocabulary

__all__ = ["Processes", "Spawn"]

#: Seconds that a busy worker has to follow SIGTERM before it is killed.
_GRACE = 0.5

#: Seconds that idle workers have to end, with the finalizer and the threads that items have started.
_LEAVE = 5.0

_LAUNCHED = "what an item has launched and left goes on"
_RANDOM_NUMBERS = weaker("an item that took too long, and goes on, may take some of the global generators' numbers")
_WORKER_DEATH = weaker("`WorkerDiedError` ends the run; which item did it is not known")


class _Crew:
    """One generation of worker processes, and the runs that use it."""

    def __init__(self, executor: ProcessPoolExecutor, vocabulary: Vocabulary | None) -> None:
        self.executor = executor
        self.vocabulary = vocabulary
        self.process = os.getpid()
        self.runs: set[ExecutorRun] = set()
        self._abandoned: list[ExecutorRun] = []
        _crews.add(self)

    def is_fit(self) -> bool:
        """Whether the workers can be given more: none has died, and none is held by an item that nobody wants.

        Such an item has a moment to end. It may also end its worker, and so all that is given to the others.
        """
        left = [task for run in self._abandoned for task in run.under_way]
        if concurrent.futures.wait(left, _GRACE).not_done:
            return False
        not_all_started = bool(self.executor._processes) and self._manager is None
        return not (self.executor._broken or not_all_started)

    @property
    def _manager(self) -> threading.Thread | None:
        """The executor's own thread, unless it couldn't be started, or hasn't been."""
        manager: threading.Thread | None = self.executor._executor_manager_thread  # type: ignore[assignment]
        return manager if manager is not None and manager.ident is not None else None

    def leave(self, run: ExecutorRun) -> None:
        """Note that a run is over, though its last items may still be in the hands of workers, or on the way there."""
        self.runs.discard(run)
        self._abandoned = [run, *(old for old in self._abandoned if old.under_way)]

    def end(self) -> None:
        """End the workers and wait for them; those in the middle of an item that nobody wants are not waited for."""
        _crews.discard(self)
        manager = self._manager  # of the executor's own state: what shutdown() forgets when it doesn't wait
        workers = list((self.executor._processes or {}).values())
        results: Any = self.executor._result_queue
        self.executor.shutdown(wait=False, cancel_futures=True)
        if manager is None:
            self._kill(workers)  # not all of them could be started
            for worker in workers:
                worker.join()
            return
        here = manager is threading.current_thread()  # the garbage collector may run anywhere
        busy = any(run.under_way for run in (*self.runs, *self._abandoned))
        if not busy and not here:
            manager.join(_LEAVE)
        if busy or (not here and manager.is_alive()):
            # Not while one writes a result, if possible: the manager would wait for the rest. (Windows' pipes, which
            # have no lock, take each as a whole.)
            whole = results._wlock is None or results._wlock.acquire(timeout=_GRACE)
            self._kill(workers)
            if not whole and not here:
                _complete(results._writer, manager)
        if not here:
            manager.join()
            # A broken pool and its exception hold each other. Its semaphores are to end here, and not with a collection
            # of garbage in the midst of the standard library's own bookkeeping of them, which warns of that.
            vars(manager).update(call_queue=None, result_queue=None)

    def _kill(self, workers: list[Any]) -> None:
        for worker in workers:
            worker.terminate()
        alive = {worker.sentinel: worker for worker in workers}
        while alive and (ended := multiprocessing.connection.wait(list(alive), _GRACE)):
            for sentinel in ended:
                del alive[sentinel]
        for worker in alive.values():
            worker.kill()


def _complete(results: Any, manager: threading.Thread) -> None:
    """Write to a pipe of results, whatever that gives, until the manager has the whole of what a killed worker began.

    To close it would not do: what else was forked meanwhile has it open, too. The manager can't read what comes so, and
    takes the pool for broken, which it is.
    """
    os.set_blocking(results.fileno(), False)
    while manager.is_alive():
        try:
            os.write(results.fileno(), bytes(1 << 16))
        except BlockingIOError:
            time.sleep(0.001)


#: The crews that have not ended, for the interpreter's exit.
_crews: weakref.WeakSet[_Crew] = weakref.WeakSet()


def _end_crews() -> None:
    for crew in list(_crews):
        if crew.process == os.getpid():  # a forked worker ends, too, and must leave its caller's pools alone
            for run in list(crew.runs):
                run.program_ends = True
            crew.end()


# An atexit function would come too late: the executors' own hook, which waits for every pending task, runs before, in
# the same list as this one, last registered first.
threading._register_atexit(_end_crews)  # type: ignore[attr-defined]


class Processes(ProcessPool):
    """Compute in ``workers`` processes (``None``: as many as there are usable cores), forked where that is safe.

    A forked worker inherits the dataset: nothing is pickled, whatever it holds. Where the platform doesn't fork, and
    where JAX, TensorFlow or CUDA is in use (which don't survive a fork), fresh interpreters are started as by `Spawn`.

    ``initializer(*initargs)`` runs first in each worker, and ``finalizer()`` last, but not where the pool is left with
    items under way. What stands on BLAS or OpenMP uses ``threads_per_worker`` threads in each worker (``None``: as many
    as it likes). ``with Processes(4) as pool:`` keeps the workers for several loops; ``static_dataset=True``
    promises that a dataset does not change between them, and is then sent once. Workers can't be recycled here.
    """

    name = "processes"
    promises = row(
        clean=weaker(_LAUNCHED),
        worker_death=_WORKER_DEATH,
        timeouts=NO_TIMEOUTS,
        retries=NO_DEATHS,
        random_numbers=_RANDOM_NUMBERS,
        context=SENT_CONTEXT,
    )

    def _prepare(self) -> None:
        if self._life.recycles:
            raise BackendUnavailableError(
                "max_items_per_worker and max_memory_per_worker need the process engine, which is for Linux: "
                "leave them out"
            )
        if self._idle_timeout is not None:
            raise BackendUnavailableError("idle_timeout needs the process engine, which is for Linux: leave it out")
        self._kept: Shipment | None = None

    def begin_anew(self) -> None:
        super().begin_anew()
        self._callers.append(self._kept)
        self._kept = None

    def _forks(self) -> bool:
        if sys.platform != "linux":
            return False
        objection = objection_to_fork()
        if objection is not None:
            objection.tell()
        return objection is None

    def _begin(self, job: Job) -> ExecutorRun:
        refuse_green_threads(self.name)
        if self._crew is not None and not self._crew.is_fit():
            self._retire()
        shipment = self._kept
        if shipment is None or not shipment.is_for(job) or self._crew is None:
            shipment = self._ship(job)
        crew = self._crew
        if crew is None:
            try:
                crew = self._crew = self._recruit()
                shipment.vocabulary = crew.vocabulary
            except BaseException:
                shipment.discard(None)
                raise
        run = ExecutorRun(
            crew.executor,
            job,
            shipment,
            lambda run: self._over(run, crew, shipment),
            workers=self.workers,
            processes=self.workers,
        )
        shipment.keep(run)
        crew.runs.add(run)
        return run

    def _start(self) -> None:
        if self._crew is None or not self._crew.is_fit():
            self._retire()
            self._crew = self._recruit()
            for _ in range(self.workers):
                self._crew.executor.submit(int)  # a worker is started when there is something for it to do

    def _ship(self, job: Job) -> Shipment:
        """Make a job ready for the workers there are, or for new ones where these can't get it."""
        fork = self._forks()
        vocabulary = None if self._crew is None else self._crew.vocabulary
        shipment = Shipment(job, self.name, inherited=fork and self._crew is None, vocabulary=vocabulary)
        if shipment.fault is not None and not fork:
            shipment.discard(None)
            shipment.payload()  # says what is wrong
        if shipment.fault is not None:
            self._retire()  # the next crew inherits it
        if self._static:
            if self._kept is not None:
                self._kept.discard(self)
            self._kept = shipment
            shipment.keep(self)
        return shipment

    def _recruit(self) -> _Crew:
        refuse_workers_in_imports()
        vocabulary = None
        if self._forks():
            marks.begin_fork()
            marks.note_classes()
            vocabulary = Vocabulary.inherited()
            context: BaseContext = _fork_context()
            initargs: tuple[Any, ...] = (None, self._life)
        else:
            from ordmap.by_value import dumps

            context = _SpawnContext()
            try:
                pickled = dumps((Surroundings.here(), self._life, logs.note()))
                initargs = (pickled, Life(threads=self._life.threads))
            except BaseException as error:
                pass_on(error)
                raise BackendUnavailableError(
                    f"the initializer, its initargs or the finalizer can't be pickled for fresh interpreters: {error}"
                ) from error
        try:
            return _Crew(
                ProcessPoolExecutor(self.workers, mp_context=context, initializer=_begin_worker, initargs=initargs),
                vocabulary,
            )
        except (OSError, ImportError, NotImplementedError) as error:  # of semaphores, above all
            raise BackendUnavailableError(
                f"this system gives no processes: {type(error).__name__}: {error}; use backend='threads'"
            ) from error

    def _over(self, run: ExecutorRun, crew: _Crew, shipment: Shipment) -> None:
        with self._lock:
            shipment.discard(run)
            crew.leave(run)
            if crew is not self._crew and not crew.runs:
                crew.end()
            self._closed(run)

    def _retire(self) -> None:
        """Leave the present crew to the runs that use it."""
        crew, self._crew = self._crew, None
        if crew is not None and not crew.runs:
            crew.end()

    def _end(self) -> None:
        if self._kept is not None:
            self._kept.discard(self)
            self._kept = None
        self._retire()


class Spawn(Processes):
    """Compute in ``workers`` fresh interpreters (``None``: as many as there are usable cores).

    They inherit nothing: the dataset travels pickled, once for each worker, by ``cloudpickle``, so that what a script,
    a notebook or a REPL defines works. The user's ``__main__`` is never run in them, so a script needs no
    ``if __name__ == "__main__":``.

    Attention: the standard library keeps one small process, its resource tracker, from the first use of spawned
    workers to the end of the program.
    """

    name = "spawn"
    promises = row(
        clean=weaker(
            f"the standard library's resource tracker, one process, stays until the program ends; {_LAUNCHED}"
        ),
        worker_death=_WORKER_DEATH,
        timeouts=NO_TIMEOUTS,
        retries=NO_DEATHS,
        random_numbers=_RANDOM_NUMBERS,
        context=SENT_CONTEXT,
    )

    def _forks(self) -> bool:
        return False


# Starting a worker


@contextlib.contextmanager
def _sigint_blocked() -> Iterator[None]:
    """Have a Ctrl-C wait while a worker starts, and reach it only once it knows what to do with it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _fork_context() -> BaseContext:
    from multiprocessing import popen_fork  # not on Windows
    from multiprocessing.context import ForkContext, ForkProcess

    class Popen(popen_fork.Popen):
        _launch = unwarned(popen_fork.Popen._launch)  # type: ignore[attr-defined]  # of other threads, such as the executor's own of another pool

    class Worker(ForkProcess):
        @staticmethod
        def _Popen(process_obj: Any) -> Any:  # noqa: N802  multiprocessing's name
            with _sigint_blocked():
                return Popen(process_obj)

    class Context(ForkContext):
        def Process(self, *args: Any, **kwargs: Any) -> Worker:  # type: ignore[override]  # noqa: N802
            return _numbered(Worker(*args, **kwargs), numbers)

    numbers = itertools.count()
    return Context()


_starting = threading.local()


class _SpawnedWorker(SpawnProcess):
    """A fresh interpreter that does not import the user's ``__main__``."""

    @staticmethod
    def _Popen(process_obj: Any) -> Any:  # noqa: N802  multiprocessing's name
        _starting.without_main = True
        try:
            with _sigint_blocked():
                return SpawnProcess._Popen(process_obj)
        finally:
            _starting.without_main = False


class _SpawnContext(SpawnContext):
    def __init__(self) -> None:
        super().__init__()
        self._numbers = itertools.count()

    def Process(self, *args: Any, **kwargs: Any) -> _SpawnedWorker:  # type: ignore[override]  # noqa: N802
        """Make a worker, which has the next number."""
        return _numbered(_SpawnedWorker(*args, **kwargs), self._numbers)


_Numbered = TypeVar("_Numbered", bound=BaseProcess)


def _numbered(process: _Numbered, numbers: Iterator[int]) -> _Numbered:
    """Give a process the next number, by which it knows itself."""
    process.ordmap_number = next(numbers)  # type: ignore[attr-defined]
    return process


_preparation_data = spawn.get_preparation_data


def _preparation_data_without_main(name: str) -> dict[str, Any]:
    """Give multiprocessing's own answer, without the user's script where the process started is a worker of ours."""
    data: dict[str, Any] = _preparation_data(name)
    if getattr(_starting, "without_main", False):
        data.pop("init_main_from_name", None)
        data.pop("init_main_from_path", None)
    return data


# All start methods on all platforms ask here, and there is no other way to say it; other processes see no difference.
spawn.get_preparation_data = _preparation_data_without_main


# In the worker


@begins
def _begin_worker(pickled: bytes | None, life: Life = Life()) -> None:  # noqa: B008  it can't be changed
    """Make a new process a worker."""
    take_own()
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    _end_with_parent()
    streams.begin(inherited=pickled is None)
    namespace.keep()
    marks.begin_in_fork()
    cores.limit(life.threads)  # first: what is unpickled now may load them
    refuse_breakpoints()
    remote.be_worker(multiprocessing.current_process().ordmap_number)  # type: ignore[attr-defined]
    differ_where_inherited()
    if pickled is not None:
        surroundings, life, configured = pickle.loads(pickled)
        surroundings.take_on()
        logs.take_over(configured)
    if life.initializer is not None:
        try:
            remote.own.run(life.initializer, *life.initargs)
        except BaseException as error:
            remote.disable(error)
            return
    if life.finalizer is not None:
        multiprocessing.util.Finalize(None, remote.own.run, args=(life.finalizer,), exitpriority=0)


def _end_with_parent() -> None:
    """Have this process killed when its parent is gone, however that ended, and whatever runs here at that time."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    gone = parent.sentinel  # a pipe that only the parent could write to: it hangs up
    if sys.platform == "linux" and _signalled_by(gone):
        if multiprocessing.connection.wait([gone], 0):
            os._exit(1)  # it was gone before this was set up
    else:
        threading.Thread(target=_exit_after, args=(gone,), name="ordmap-parent-watch", daemon=True).start()


def _signalled_by(gone: int) -> bool:
    """Have the kernel kill this process when that breaks; ``False``: it refuses to."""
    import fcntl

    try:
        fcntl.fcntl(gone, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(gone, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(gone, fcntl.F_SETFL, fcntl.fcntl(gone, fcntl.F_GETFL) | os.O_ASYNC)
    except OSError:
        return False
    return True


def _exit_after(gone: int) -> None:
    multiprocessing.connection.wait([gone])
    os._exit(1)
