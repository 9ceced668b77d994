"""When a pool's workers begin and end: with the first run, and with the last or with the ``with`` block.

A pool that isn't held open by ``with`` ends its workers as soon as no run uses them, so that nothing stays behind.
"""

from __future__ import annotations

import operator
import os
import sys
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn, Protocol, Self

from ordmap.backends import Job, Run
from ordmap.errors import WorkerDiedError
from ordmap.resources import usable_cores
from ordmap.shielded import noted
from ordmap.sizes import nbytes_of

__all__ = [
    "POOL_CLOSED",
    "Life",
    "LocalPool",
    "Pool",
    "ProcessPool",
    "initializer_failed",
    "refuse_breakpoints",
    "worker_count",
]


def worker_count(workers: int | None) -> int:
    """Return the number of workers asked for; ``None``: the cores that this process may use."""
    if workers is None:
        return usable_cores()
    return _at_least_one("workers", workers, "a pool has at least 1 (workers=0 in the call computes without a pool)")


def _at_least_one(name: str, value: object, least: str = "it must be at least 1") -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be a whole number or None, not {value!r}")
    number = operator.index(value)
    if number < 1:
        raise ValueError(f"{name}={number}: {least}")
    return number


def _seconds(name: str, value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number of seconds or None, not {value!r}")
    if not value > 0:
        raise ValueError(f"{name}={value}: it must be more than 0 seconds")
    return float(value)


class Life(NamedTuple):
    """What a pool wants done at the beginning and the end of each worker's life, and when that is to be over.

    ``most_items``: the items that a worker computes at most; ``most_bytes``: the memory of its own with which it
    begins no other; ``threads``: how many the numerical libraries of a worker may use, ``None``: as many as they like.
    """

    initializer: Callable[..., object] | None = None
    initargs: tuple[Any, ...] = ()
    finalizer: Callable[[], object] | None = None
    most_items: int | None = None
    most_bytes: int | None = None
    threads: int | None = None

    @property
    def recycles(self) -> bool:
        """Whether workers are to leave before the pool ends."""
        return self.most_items is not None or self.most_bytes is not None

    @classmethod
    def asked_for(  # noqa: PLR0917  as its owner says them
        cls,
        initializer: object,
        initargs: object,
        finalizer: object,
        max_items_per_worker: object = None,
        max_memory_per_worker: object = None,
        threads_per_worker: object = None,
    ) -> Life:
        """Check the arguments of a pool."""
        for name, function in (("initializer", initializer), ("finalizer", finalizer)):
            if function is not None and not callable(function):
                raise TypeError(f"{name} must be a function or None, not {function!r}")
        if not isinstance(initargs, tuple | list):
            raise TypeError(f"initargs must be a tuple, not {initargs!r}: write initargs=({initargs!r},)")
        if initializer is None and initargs:
            raise ValueError("initargs are for an initializer: give one, or leave them out")
        most_items = most_bytes = None
        if max_items_per_worker is not None:
            most_items = _at_least_one("max_items_per_worker", max_items_per_worker)
        if isinstance(max_memory_per_worker, str):
            most_bytes = nbytes_of("max_memory_per_worker", max_memory_per_worker)
        elif max_memory_per_worker is not None:
            most_bytes = _at_least_one("max_memory_per_worker", max_memory_per_worker)
        threads = None if threads_per_worker is None else _at_least_one("threads_per_worker", threads_per_worker)
        return cls(initializer, tuple(initargs), finalizer, most_items, most_bytes, threads)  # type: ignore[arg-type]


def initializer_failed(error: BaseException, worker: str, pid: int | None = None) -> WorkerDiedError:
    """Return the error of a run whose workers can't begin, since ``initializer`` raised in one of them."""
    failure = WorkerDiedError(f"the initializer failed in worker {worker}: {type(error).__name__}: {error}", pid=pid)
    failure.__cause__ = error
    return failure


#: What a run says whose pool was closed under it.
POOL_CLOSED = "the pool was closed while this iterator was using it"


class Pool(ABC):
    """The life of a backend's own workers, shared by all runs on it; each backend says how to start and end them."""

    def __init__(self, workers: int | None) -> None:
        self.workers = worker_count(workers)
        self._lock = threading.RLock()
        self._held = 0
        self._ahead = False  # the workers were started ahead, and stay until `close`
        self._runs: set[Run] = set()
        self._crew: Any = None  # the workers, while there are any
        self._callers: list[object] = []
        _pools.add(self)

    def __enter__(self) -> Self:
        self.hold()
        return self

    def __exit__(self, *exc_info: object) -> None:
        with self._lock:
            self._held -= 1
            done = not self._held
        if done:
            self.close()

    def hold(self) -> None:
        """Have the workers stay when no run uses them, until `release`."""
        with self._lock:
            self._held += 1

    def release(self) -> None:
        """Undo a `hold`: the workers end with the last run that uses them."""
        with self._lock:
            self._held -= 1
            if self._is_unused():
                self._end()

    def open(self, job: Job) -> Run:
        """Begin a run, starting the workers if there are none."""
        begun: list[Run] = []
        try:
            with self._lock:
                self._held += 1  # a run that ends meanwhile must not take the workers along
                try:
                    noted(begun, self._begin, job)
                    self._runs.update(begun)
                finally:
                    self._held -= 1
                    if self._is_unused():
                        self._end()
            return begun[0]
        except BaseException:
            for run in begun:
                run.close()
            raise

    def close(self) -> None:
        """End all runs and workers. A later run starts new ones."""
        with self._lock:
            self._ahead = False
            runs = list(self._runs)
        for run in runs:
            run.close()
        with self._lock:
            self._end()

    def _closed(self, run: Run) -> None:
        """Note that a run is over; every run calls it, once at the least."""
        with self._lock:
            self._runs.discard(run)
            if self._is_unused():
                self._end()

    def _is_unused(self) -> bool:
        return not (self._runs or self._held or self._ahead)

    def begin_anew(self) -> None:
        """In a fork, of its caller's or of one of its workers: have workers of its own here, once there is a run.

        The caller's are none of this process's business, and a thread that isn't here may hold the lock.
        """
        self._lock = threading.RLock()
        self._runs = set()
        self._callers.append(self._crew)  # kept: its end would be a Python object's, with files that both have
        self._crew = None

    @abstractmethod
    def _begin(self, job: Job) -> Run:
        """Begin a run; called with the lock held."""

    @abstractmethod
    def _end(self) -> None:
        """End the workers if there are any; called with the lock held."""


_pools: weakref.WeakSet[Pool] = weakref.WeakSet()


def _begin_all_anew() -> None:
    for pool in list(_pools):
        pool.begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_all_anew)


class LocalCrew(Protocol):
    """Workers in this process."""

    def leave(self) -> None:
        """End them."""


class LocalPool(Pool):
    """A pool of workers in this process: one crew, from the first run to the last."""

    _crew: LocalCrew | None

    def __init__(
        self,
        workers: int | None = None,
        *,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        finalizer: Callable[[], object] | None = None,
    ) -> None:
        super().__init__(workers)
        self._life = Life.asked_for(initializer, initargs, finalizer)

    def _end(self) -> None:
        if self._crew is not None:
            self._crew.leave()  # first: what an exception cuts short is done when the run is closed again
            self._crew = None


class ProcessPool(Pool):
    """A pool of processes: what its owner may ask for, on the engine or on the portable path."""

    def __init__(
        self,
        workers: int | None = None,
        *,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        finalizer: Callable[[], object] | None = None,
        max_items_per_worker: int | None = None,
        max_memory_per_worker: int | str | None = None,
        threads_per_worker: int | None = 1,
        static_dataset: bool = False,
        idle_timeout: float | None = None,
    ) -> None:
        super().__init__(workers)
        self._idle_timeout = _seconds("idle_timeout", idle_timeout)
        self._life = Life.asked_for(
            initializer, initargs, finalizer, max_items_per_worker, max_memory_per_worker, threads_per_worker
        )
        self._static = static_dataset
        self._prepare()

    def start(self) -> Self:
        """Start the workers now, before this process opens what they should not have; return the pool itself.

        They stay until ``close()``, or the end of a ``with`` block. What they compute is pickled for them; where it
        can't be, others are forked that inherit it.

        Example:
            >>> with Processes(2).start() as pool:
            ...     list(ordered_map(abs, [-1, 2], backend=pool))
            [1, 2]
        """
        with self._lock:
            self._ahead = True
            try:
                self._start()
            except BaseException:
                self._ahead = False
                raise
        return self

    @abstractmethod
    def _start(self) -> None:
        """Start the workers if there are none; called with the lock held."""

    @abstractmethod
    def _prepare(self) -> None:
        """Make what the pool itself needs, and refuse what can't be had here."""


def refuse_breakpoints() -> None:
    """Have ``breakpoint()`` say, in this worker process, where it works, unless the user has made something of it."""
    if sys.breakpointhook is sys.__breakpointhook__ and not os.environ.get("PYTHONBREAKPOINT"):
        sys.breakpointhook = _refuse_breakpoint


def _refuse_breakpoint(*_: object, **__: object) -> NoReturn:
    raise RuntimeError("breakpoint() can't reach the terminal from a worker process: use backend='serial'")
