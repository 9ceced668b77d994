"""What runs at the workers of an executor, and how they come by the dataset.

A task carries the *key* of its run, never the dataset. A worker finds what belongs to the key in `_held`:

- in the calling process itself (an executor of threads), since the run put it there; nothing is pickled then;
- in a process forked after the run began, since memory is inherited; the results are pickled;
- else it isn't there. The worker answers that it *lacks* the job, and gets it with a task that carries it pickled.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import Any, NamedTuple

from ordmap.backends.inputs import TRAVELLING, unpacking
from ordmap.backends.pool import initializer_failed
from ordmap.backends.variables import Packed, unpacked
from ordmap.context import separate
from ordmap.errors import RemoteError
from ordmap.generators import borrowed, differ_where_inherited, note_inherited, seeding
from ordmap.imports import works
from ordmap.item import InHand, Label
from ordmap.outcome import approximate_nbytes, one_line, pack, run_chunk
from ordmap.surroundings import settle_warnings
from ordmap.tracebacks import traceback_of

__all__ = ["Key", "Payload", "Reply", "Rules", "be_worker", "compute_chunk", "disable", "hold", "let_go"]

#: The process that a run belongs to, and the run's number there.
Key = tuple[str, int]


class Payload(NamedTuple):
    """A pickled job, and the runs of its process that are not over: what else a worker holds of them it may forget."""

    data: bytes
    live: frozenset[Key]


class Rules(NamedTuple):
    """What a run has all its chunks computed by.

    ``patience``, ``limit`` and ``seed``: see `ordmap.backends.Job`. ``workers``: how many compute at the same time;
    ``alone``: whether each of them has a process of its own, and its global generators. ``context``: the variables that
    items see.
    """

    patience: float | None
    limit: float | None
    seed: int | None
    workers: int
    alone: bool
    context: Context | Packed


class Reply(NamedTuple):
    """What a task gives: outcomes (``None``: the worker lacks the job), their cost, and who did it."""

    outcomes: list[Any] | None
    elapsed: float
    nbytes: int
    worker: str


class _Entry(NamedTuple):
    compute: Callable[[Any], Any]
    owner: int | None  # the process id where the results need no pickling


_held: dict[Key, _Entry] = {}

#: What the initializer of this worker raised.
_fault: BaseException | None = None

#: The number of this worker, where its pool is our own.
_number: int | None = None

#: Where the initializer of this worker has run, if its pool is our own: what it has set its items see.
own = Context()


def _begin_anew() -> None:
    """After a fork, in the child."""
    global _number, own
    _number = None
    own = Context()
    note_inherited()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)


def be_worker(number: int) -> None:
    """Have this process be the worker of a pool that has this number."""
    global _number
    _number = number


def disable(fault: BaseException) -> None:
    """Have this worker answer every task with what its initializer raised."""
    global _fault
    _fault = fault


def hold(key: Key, compute: Callable[[Any], Any]) -> None:
    """Have a job ready for this process, and for those forked from it from now on."""
    _held[key] = _Entry(compute, os.getpid())


def let_go(key: Key) -> None:
    """Forget a job."""
    _held.pop(key, None)


def _rebuilt(data: bytes, worker: str) -> Callable[[Any], Any]:
    try:
        compute: Callable[[Any], Any] = pickle.loads(data)
        settle_warnings()
    except BaseException as error:
        raise RemoteError(
            f"the dataset can't be rebuilt in worker {worker}: {one_line(error)}", remote_traceback=traceback_of(error)
        ) from None
    return compute


@works
def compute_chunk(  # noqa: PLR0917  an executor's tasks
    key: Key, task: int, payload: Payload | None, keys: Sequence[Any], label: Label, rules: Rules
) -> Reply:
    """Run the items of a chunk, in a worker.

    ``task`` is another number for each call: Dask takes calls with equal arguments for one call.
    """
    del task
    import platform  # the process engine does without

    worker = f"{platform.node()}:{os.getpid()}"
    if _fault is not None:
        raise initializer_failed(_fault, worker)
    entry = _held.get(key)
    here = entry is not None and entry.owner == os.getpid()
    if not here:
        differ_where_inherited()
    if entry is None:
        if payload is None:
            return Reply(None, 0.0, 0, worker)
        for other in [other for other in _held if other[0] == key[0] and other not in payload.live]:
            let_go(other)
        entry = _held[key] = _Entry(_rebuilt(payload.data, worker), None)
    compute = entry.compute
    if isinstance(keys[0], TRAVELLING):
        compute = unpacking(compute)
    hand = InHand(_number, rules.workers)
    hand.take(keys, label, rules.seed)
    # The context that this is called in may be another's: of who has forked this worker, or has used its thread before.
    sent = rules.context
    context = separate(sent) if isinstance(sent, Context) else separate(unpacked(sent), own)
    if rules.seed is not None and rules.alone and not here:
        with borrowed(hand):
            outcomes, elapsed = context.run(_run, seeding(compute, hand), hand, rules)
    else:
        outcomes, elapsed = context.run(_run, compute, hand, rules)
    if here:
        return Reply(outcomes, elapsed, approximate_nbytes(outcomes), worker)
    packed, nbytes = pack(outcomes)
    return Reply(packed, elapsed, nbytes, worker)


def _run(compute: Callable[[Any], Any], hand: InHand, rules: Rules) -> tuple[list[Any], float]:
    if rules.limit is None:
        return run_chunk(compute, hand, rules.patience)
    from ordmap.backends.watch import run_in_time  # the process engine does without

    return run_in_time(compute, hand, rules.patience, rules.limit)
