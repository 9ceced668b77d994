"""What running an item gave, and how it travels.

Inside a worker every item ends in its result or in `Raised`. In the same process that is all. Between processes a
chunk's outcomes are packed by `pack` and opened one by one, where they are delivered, by `opened`::

    worker   run_chunk ──> [result | Raised] ──pack──> [result | Pickled | PackedError]   ──> channel
    caller   channel ──> opened(outcome) ──> result, or Raised ──report──> the exception to raise

Nothing here raises for what an item did: a result that can't be pickled, or whose unpickling fails, is that item's
failure.
"""

from __future__ import annotations

import io
import os
import pickle
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, NoReturn

from ordmap import real_time as time
from ordmap.errors import OrdmapError, RemoteError
from ordmap.exceptions import PackedError, one_line, open_error, pack_error, set_relatives, text_of, type_name
from ordmap.imports import works
from ordmap.interrupts import pass_on
from ordmap.item import InHand, current
from ordmap.reducers import dispatch
from ordmap.rows import opened_alone
from ordmap.tracebacks import traceback_of

__all__ = [
    "Answer",
    "PackedError",
    "Pickled",
    "Raised",
    "Sealed",
    "are_atomic",
    "are_atoms",
    "are_numbers",
    "are_plain",
    "end_child",
    "failed_places",
    "is_atomic",
    "one_line",
    "opened",
    "pack",
    "pack_unpicklable",
    "report",
    "run_chunk",
    "serialise",
    "set_relatives",
    "unpickled",
]

#: Raised by an item, each of these would end the caller's loop (or program) as if nothing had happened.
_SILENT = (StopIteration, StopAsyncIteration, GeneratorExit, SystemExit, KeyboardInterrupt)
_CANCELLED = {("asyncio.exceptions", "CancelledError"), ("concurrent.futures._base", "CancelledError")}

#: Exact types that pickle to a few bytes and whose unpickling runs nobody's code: a whole chunk of them is left to
#: the channel's own pickle.
_ATOMS = frozenset({bool, int, float, complex, str, bytes, type(None)})

#: Whether a type is that of an atom, or all are; in C. A class that has no hash is a ``TypeError``.
is_atomic, are_atomic = _ATOMS.__contains__, _ATOMS.issuperset

_NUMBERS = frozenset({bool, int, float, complex, type(None)})


class Raised:
    """An item's failure, in the place of its result.

    ``traceback`` is the worker's, as text; empty where the exception carries its own. ``worker`` is given where it is
    not the one that answers.
    """

    __slots__ = ("attempt", "epoch", "error", "index", "traceback", "worker")

    def __init__(self, error: BaseException, traceback: str = "", worker: str = "") -> None:
        self.error = error
        self.traceback = traceback
        self.worker = worker

    def locate(self, index: int, epoch: int, worker: str, attempt: int) -> None:
        """Say which item failed, where it ran unless that is known, and how often by now."""
        self.index = index
        self.epoch = epoch
        self.worker = self.worker or worker
        self.attempt = attempt

    def hand_over(self) -> BaseException:
        """Return the exception, and hold it no longer: its frames may hold this object, and so each other, for good."""
        error, self.error = self.error, RemoteError("this failure was raised already")
        return error


class Answer(NamedTuple):
    """What one chunk gave: an outcome for each item that was run, and what they cost.

    Fewer outcomes than items: the worker hands the rest back. ``elapsed`` is in seconds, in the worker; ``nbytes`` is
    the (approximate) size of the results; ``worker`` names who did it. ``plain`` outcomes are known to be results as
    they are, with nothing to open or raise among them; of ``pickled`` ones those that are bytes are pickles, which
    follow a ``primer`` if there is one.
    """

    outcomes: list[Any]
    elapsed: float
    nbytes: float
    worker: str
    plain: bool = False
    pickled: bool = False
    primer: bytes | None = None


@works
def run_chunk(
    compute: Callable[[Any], Any],
    hand: InHand,
    patience: float | None,
    keys: Iterable[Any] | None = None,
    *,
    in_worker: bool = True,
) -> tuple[list[Any], float]:
    """Run the items of the chunk in hand, in order: their outcomes, and the seconds that they took.

    Once the chunk has taken ``patience`` seconds the rest is left undone (``None``: never). ``keys``: where they are
    taken from, if not from there. ``in_worker``: an item that forks does so for itself, and its child, when it comes
    back here, ends: it would be one more worker, whom nobody tells to end.
    """
    here = os.getpid() if in_worker else None
    outcomes = hand.outcomes
    clock = time.perf_counter
    began = clock()
    give_up = began + patience if patience is not None else float("inf")
    before = current.set(hand)
    try:
        for key in hand.keys if keys is None else keys:
            try:
                outcomes.append(compute(key))
            except BaseException as error:
                # The frame of this loop is of no interest to the user.
                error = error.with_traceback(error.__traceback__.tb_next if error.__traceback__ else None)
                outcomes.append(Raised(error))
            if here is not None and os.getpid() != here:
                end_child(outcomes[-1])
            if clock() >= give_up:
                break
    finally:
        current.reset(before)
    return outcomes, clock() - began


def end_child(outcome: Any) -> NoReturn:
    """End this process, which an item has forked and which came back from it, as a program with that outcome ends.

    What the item had written before it forked, and not flushed, is its worker's to print.
    """
    code: object = None
    if type(outcome) is Raised:
        if isinstance(outcome.error, SystemExit):
            code = outcome.error.code
        else:
            code = 1
            sys.excepthook(type(outcome.error), outcome.error, outcome.error.__traceback__)
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)  # noqa: T201  as Python does
        code = 1
    os._exit((code or 0) & 0xFF)


def approximate_nbytes(outcomes: Sequence[Any]) -> int:
    """Return about the number of bytes that these results hold in memory, judged by the last of them."""
    if not outcomes:
        return 0
    last = outcomes[-1]
    try:
        size = getattr(last, "nbytes", None)
        return len(outcomes) * (size if isinstance(size, int) else sys.getsizeof(last, 64))
    except Exception as error:  # the user's property
        pass_on(error)
        return len(outcomes) * 64


# Between processes


def serialise(value: object, *, back: bool = True) -> bytes:
    """Pickle by ``pickle``, and by ``cloudpickle`` what that refuses (lambdas, closures, what ``__main__`` defines).

    ``back``: it goes to the caller.
    """
    file = io.BytesIO()
    pickler = pickle.Pickler(file, pickle.HIGHEST_PROTOCOL)
    pickler.dispatch_table = dispatch()
    try:
        pickler.dump(value)
        return file.getvalue()
    except Exception as error:
        pass_on(error)
        from ordmap.by_value import dumps  # heavy, and seldom needed in a worker

        return dumps(value, back=back)


class Pickled:
    """A result on its way between processes."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __reduce__(self) -> tuple[Any, ...]:
        return Pickled, (self.data,)


class Sealed:
    """A result that came in another way than as a pickle, and knows how to open itself; it is opened once."""

    __slots__ = ()

    def __init_subclass__(cls) -> None:
        _WRAPPED.add(cls)

    def open(self) -> Any:
        """Return the result, or raise what keeps it from being had."""
        raise NotImplementedError


def are_atoms(values: Iterable[object]) -> bool:
    """Whether all these are plain numbers, strings and the like, which any channel can carry."""
    try:
        return _ATOMS.issuperset(map(type, values))
    except TypeError:  # a class that has no hash
        return False


def are_numbers(values: Sequence[object]) -> bool:
    """Whether all these are plain numbers, or ``None``."""
    try:
        return type(values[0]) in _NUMBERS and _NUMBERS.issuperset(map(type, values))
    except TypeError:  # a class that has no hash
        return False


def pack(outcomes: list[Any]) -> tuple[list[Any], int]:
    """Make outcomes ready for another process: each ends as plain bytes and atoms. Return them and their size."""
    if are_atoms(outcomes):
        return outcomes, 32 * len(outcomes) + sum(len(x) for x in outcomes if type(x) in (str, bytes))
    packed: list[Any] = []
    size = 0
    for outcome in outcomes:
        sent: Pickled | PackedError
        if type(outcome) is Raised:
            sent = pack_error(outcome.error, outcome.traceback, serialise)
        else:
            try:
                sent = Pickled(serialise(outcome))
                size += len(sent.data)
            except BaseException as error:  # a user's __reduce__ may raise anything
                sent = pack_unpicklable(outcome, error)
        packed.append(sent)
    return packed, size


def pack_unpicklable(result: object, error: BaseException) -> PackedError:
    """Return the failure of an item whose result can't be pickled, for the reason given."""
    return pack_error(_unpicklable_result(result, error), "", serialise)


def are_plain(outcomes: Iterable[object]) -> bool:
    """Whether all these are results as they are, with nothing to open or raise among them."""
    try:
        return _WRAPPED.isdisjoint(map(type, outcomes))
    except TypeError:  # a class that has no hash
        return False


def failed_places(outcomes: Iterable[object]) -> list[int]:
    """Return the places of items that failed, as far as that is known before the results are opened."""
    return [place for place, outcome in enumerate(outcomes) if type(outcome) in _FAILED]


def opened(outcome: Any) -> Any:
    """Open one packed outcome: its result, or `Raised`. Anything else is given back as it is."""
    kind = type(outcome)
    if kind is Pickled:
        return unpickled(outcome.data)
    if kind is PackedError:
        return Raised(open_error(outcome), outcome.traceback)
    if issubclass(kind, Sealed):
        try:
            return outcome.open()
        except BaseException as error:
            return _unopened(error)
    return outcome


def unpickled(data: bytes, primer: bytes | None = None) -> Any:
    """Return the result that these bytes are the pickle of, or `Raised`."""
    try:
        return pickle.loads(data) if primer is None else opened_alone(primer, data)
    except BaseException as error:
        return _unopened(error)


def _unopened(error: BaseException) -> Raised:
    """Return the failure of an item whose result can't be had, or raise what is none of its faults."""
    pass_on(error)
    failure = RemoteError(
        f"the result can't be unpickled: {one_line(error)}",
        type_name=type_name(error),
        remote_message=text_of(error),
    )
    failure.__cause__ = error
    return Raised(failure)


_FAILED: frozenset[type] = frozenset({Raised, PackedError})
_WRAPPED: set[type] = {*_FAILED, Pickled}


def _unpicklable_result(result: object, error: BaseException) -> RemoteError:
    kind = type(result)
    failure = RemoteError(
        f"the result, a {kind.__module__}.{kind.__qualname__}, can't be pickled: {one_line(error)}; "
        "return something that can, or use backend='threads'",
        type_name=type_name(error),
        remote_message=text_of(error),
    )
    failure.__cause__ = error
    return failure


# Where it is delivered


class _Note(str):
    """A note of ours. ``source`` is who added it: one exception may be raised by many items of one iterator."""

    __slots__ = ("source",)
    source: int

    def __reduce__(self) -> tuple[Any, ...]:
        return str, (str(self),)


def report(raised: Raised, source: object, *, backend: str) -> BaseException:
    """Return the exception to raise for a failed item, once: the user's own with notes, or a `RemoteError`."""
    error, index = raised.hand_over(), raised.index
    if _would_end_the_loop(error):
        text = raised.traceback or traceback_of(error)
        stand_in = RemoteError(
            f"item {index} raised {one_line(error)}, which would have ended the loop",
            type_name=type_name(error),
            remote_message=text_of(error),
            remote_traceback=text,
        )
        stand_in.__cause__ = error
        error = stand_in
    if isinstance(error, OrdmapError) and error.index is None:
        error.index = index
        error.attempts = raised.attempt
    where = f"epoch {raised.epoch}, backend {backend!r}, worker {raised.worker}, attempt {raised.attempt}"
    texts = [f"ordmap: item {index}, {where}"]
    if raised.traceback:
        texts.append("ordmap: the traceback in the worker:\n" + raised.traceback.rstrip())
    _add_notes(error, texts, id(source))
    return error


def _would_end_the_loop(error: BaseException) -> bool:
    kinds = {(kind.__module__, kind.__name__) for kind in type(error).__mro__}
    return isinstance(error, _SILENT) or not kinds.isdisjoint(_CANCELLED)


def _add_notes(error: BaseException, texts: Sequence[str], source: int) -> None:
    """Add notes in place of those that the same source added before, without asking the exception's class."""
    present = vars(error).get("__notes__", ())
    notes = list(present) if isinstance(present, list | tuple) else [present]
    notes = [note for note in notes if not (isinstance(note, _Note) and note.source == source)]
    for text in texts:
        note = _Note(text)
        note.source = source
        notes.append(note)
    vars(error)["__notes__"] = notes
