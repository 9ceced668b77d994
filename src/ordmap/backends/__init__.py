"""The seam between the window and whatever computes: one small Protocol, and a dict of names.

A *backend* is a place where items can be computed; it may be a pool that several iterators use at once. `Backend.open`
begins a *run*: one dataset (or function) on that backend. The window hands a run numbered chunks and asks for answers::

    window ── submit(ticket, chunk) ──> run ──> workers
    window <── collect(wait) ─────────── run <── workers        [(ticket, Answer), …] in any order

The order, the bound, the chunk size and what a failure means are the window's; a backend knows none of them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context
from typing import Any, Protocol, cast, runtime_checkable

from ordmap.backends.promises import Grade
from ordmap.chunk import Chunk
from ordmap.context import captured
from ordmap.item import OneInHand, in_hand
from ordmap.outcome import Answer

__all__ = ["BACKENDS", "Backend", "Immediate", "Job", "Run", "resolve"]

#: Every backend that can be asked for by name, and where it lives; imported when it is used.
BACKENDS: dict[str, tuple[str, str]] = {
    "serial": ("ordmap.backends.serial", "Serial"),
    "threads": ("ordmap.backends.threads", "Threads"),
    "processes": ("ordmap.backends.processes", "Processes"),
    "spawn": ("ordmap.backends.processes", "Spawn"),
    "asyncio": ("ordmap.backends.asyncio", "Asyncio"),
}


class Job:
    """What a run computes: ``compute(key)`` for each key of a chunk.

    ``subject`` is the dataset or function that the user gave. ``patience`` is the time in seconds after which a worker
    hands back the rest of a chunk (``None``: never), and ``limit`` the time after which an item is given up (``None``:
    never). ``seed`` gives the items' random numbers (``None``: chance). ``changed``: the subject is not what it was
    when it was last computed with, whatever the user has promised. ``context``: the variables that items see
    (``None``: those of the present context), and ``loop``: the caller's event loop, for who awaits items on it.
    """

    __slots__ = ("changed", "compute", "context", "limit", "loop", "patience", "seed", "subject")

    def __init__(
        self,
        compute: Callable[[Any], Any],
        subject: object,
        patience: float | None = None,
        limit: float | None = None,
        seed: int | None = None,
        *,
        changed: bool = False,
        context: Context | None = None,
        loop: Any = None,
    ) -> None:
        self.changed = changed
        self.compute = compute
        self.context = captured() if context is None else context
        self.loop = loop
        self.subject = subject
        self.patience = patience
        self.limit = limit
        self.seed = seed


class Run(Protocol):
    """One dataset on a backend, from the first ``next()`` to the end of the iterator.

    One that also has ``watch(loop, callback)`` has a callback called on an event loop when there may be something to
    collect, and returns what ends that; where there is none, ``async for`` looks again and again. One that also has
    ``load(most)`` has inputs pulled into what that returns (see `ordmap.pulling.Load`): as a rule each is to be on its
    way before the next is pulled, for its source may use its memory again.
    """

    def submit(self, ticket: int, chunk: Chunk) -> None:
        """Have the chunk computed some time; never waits. A ticket may be used again once it is answered."""

    def collect(self, *, wait: bool) -> Sequence[tuple[int, Answer]]:
        """Return the answers that have come; with ``wait``, wait for at least one, or for `wake`.

        Raises `WorkerDiedError` where the run can't go on.
        """

    def wake(self) -> None:
        """Let a waiting `collect` return empty-handed; from any thread."""

    def close(self) -> None:
        """Give up what isn't done and hold nothing any more; from any thread, any number of times."""


class Immediate:
    """What a run without workers may be, beside a `Run`: ``compute(key)`` computes the item that ``hand`` has.

    It is known by its class, for a run that stands around another may want to see what is submitted.
    """

    hand: OneInHand
    compute: Callable[[Any], Any]


@runtime_checkable
class Backend(Protocol):
    """Where items are computed; may be shared by several runs.

    ``workers`` is the number of items computed at the same time; 0: each is computed inside ``next()``. ``promises``
    is the backend's row of the table of promises.
    """

    name: str
    workers: int

    @property
    def promises(self) -> Mapping[str, Grade]:
        """What it keeps, keeps in a weaker form, or refuses of `PROMISES`."""

    def open(self, job: Job) -> Run:
        """Begin a run. Workers may be started here, and not before."""

    def close(self) -> None:
        """End the workers; any number of times."""


def resolve(backend: object, workers: int | None) -> Backend:
    """Return the backend that these arguments of a call ask for, or refuse them with a message saying what to write."""
    if isinstance(backend, str):
        return _by_name(backend, workers)
    if isinstance(backend, type):
        raise TypeError(f"backend is the class {backend.__name__}: write an instance, backend={backend.__name__}()")
    found = backend if isinstance(backend, Backend) else _borrowed(backend, workers)
    if workers is not None and workers != found.workers:
        raise ValueError(
            f"workers={workers}, but the backend given has {found.workers}: "
            "leave workers out, or say it where the backend is made"
        )
    return found


def _by_name(name: str, workers: int | None) -> Backend:
    if name not in BACKENDS:
        known = ", ".join(repr(known) for known in BACKENDS)
        raise ValueError(
            f"there is no backend {name!r}: use one of {known}, or give a concurrent.futures.Executor "
            "or a configured backend such as Processes(4)"
        )
    if workers is None and name == "processes" and in_hand() is not None:
        name = "serial"  # an item has one worker, which is computing it
    if workers == 0:
        # "processes" is the default, so that it need not have been asked for.
        if name not in {"serial", "processes"}:
            raise ValueError(f"workers=0 computes in this process, and backend={name!r} can't: leave one of them out")
        name = "serial"
    module, attribute = BACKENDS[name]
    make = getattr(importlib.import_module(module), attribute)
    return cast("Backend", make() if name == "serial" else make(workers))


def _borrowed(executor: object, workers: int | None) -> Backend:
    from concurrent.futures import Executor  # not needed by who names a backend

    if not isinstance(executor, Executor):
        raise TypeError(
            f"backend must be a name, a concurrent.futures.Executor or a configured backend, not {executor!r}"
        )
    from ordmap.backends.executor import FromExecutor

    return FromExecutor(executor, workers)
