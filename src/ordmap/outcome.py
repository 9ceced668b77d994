"""What running an item gave, and how it travels.

Inside a worker every item ends in its result or in `Raised`. In the same process that is all. Between processes a
chunk's outcomes are packed by `pack` and opened one by one, where they are delivered, by `opened`::

    worker   run_chunk ──> [result | Raised] ──pack──> [result | Pickled | PackedError]   ──> channel
    caller   channel ──> opened(outcome) ──> result, or Raised ──report──> the exception to raise

Nothing here raises for what an item did: a result that can't be pickled, or whose unpickling fails, is that item's
failure.
"""

from __future__ import annotations

import copyreg
import os
import pickle
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from types import EllipsisType, FunctionType
from typing import Any, NamedTuple, NoReturn

from ordmap.errors import OrdmapError, RemoteError
from ordmap.imports import works
from ordmap.interrupts import came_by_a_signal
from ordmap.item import InHand, current
from ordmap.rows import opened_alone

__all__ = [
    "Answer",
    "PackedError",
    "Pickled",
    "Raised",
    "Sealed",
    "are_atoms",
    "are_numbers",
    "are_plain",
    "end_child",
    "failed_places",
    "opened",
    "pack",
    "pack_unpicklable",
    "report",
    "run_chunk",
    "serialise",
    "unpickled",
]

#: Raised by an item, each of these would end the caller's loop (or program) as if nothing had happened.
_SILENT = (StopIteration, StopAsyncIteration, GeneratorExit, SystemExit, KeyboardInterrupt)
_CANCELLED = {("asyncio.exceptions", "CancelledError"), ("concurrent.futures._base", "CancelledError")}

#: Exact types that pickle to a few bytes and whose unpickling runs nobody's code: a whole chunk of them is left to
#: the channel's own pickle.
_ATOMS = frozenset({bool, int, float, complex, str, bytes, type(None)})
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
    except Exception:  # the user's property
        return len(outcomes) * 64


# Between processes


def serialise(value: object) -> bytes:
    """Pickle by ``pickle``, and by ``cloudpickle`` what that refuses (lambdas, closures, what ``__main__`` defines)."""
    try:
        return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    except Exception:
        from ordmap.by_value import dumps  # heavy, and seldom needed in a worker

        return dumps(value)


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


class _Link(NamedTuple):
    """One exception of a chain: itself, as far as it can travel, and where in the chain its relatives are."""

    data: bytes | None
    type_name: str
    message: str
    cause: int | None
    context: int | None
    members: tuple[int, ...]  # of an exception group
    suppress_context: bool


class PackedError(NamedTuple):
    """An item's exception on its way between processes, with its whole chain of causes and contexts."""

    chain: tuple[_Link, ...]
    traceback: str


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
            sent = _pack_error(outcome.error, outcome.traceback)
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
    return _pack_error(_unpicklable_result(result, error))


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
        return _open_error(outcome)
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
    if came_by_a_signal(error):
        raise error
    failure = RemoteError(
        f"the result can't be unpickled: {one_line(error)}",
        type_name=_type_name(error),
        remote_message=_text(error),
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
        type_name=_type_name(error),
        remote_message=_text(error),
    )
    failure.__cause__ = error
    return failure


def _pack_error(error: BaseException, text: str = "") -> PackedError:
    chain: list[BaseException] = []
    numbers: dict[int, int] = {}

    def enlist(link: BaseException | None) -> None:
        pending = [link]
        while pending:  # a loop, not a recursion: a chain may have thousands of links, and circles
            one = pending.pop()
            if one is not None and id(one) not in numbers:
                numbers[id(one)] = len(chain)
                chain.append(one)
                pending += (one.__context__, one.__cause__, *_members(one))

    def number(link: BaseException | None) -> int | None:
        return None if link is None else numbers[id(link)]

    enlist(error)
    links = tuple(
        _Link(
            data=_pickled_exception(one),
            type_name=_type_name(one),
            message=_text(one),
            cause=number(one.__cause__),
            context=number(one.__context__),
            members=tuple(numbers[id(member)] for member in _members(one)),
            suppress_context=one.__suppress_context__,
        )
        for one in chain
    )
    try:
        text = text or "".join(traceback.format_exception(error))
    except BaseException as fault:  # the user's __str__ or __repr__
        text = f"{_type_name(error)} (its traceback can't be formatted: {one_line(fault)})"
    return PackedError(links, text)


def _open_error(packed: PackedError) -> Raised:
    chain = [_unpickled_exception(link, packed.traceback if not i else "") for i, link in enumerate(packed.chain)]
    pending = list(zip(chain, packed.chain, strict=True))
    while pending:
        one, link = pending.pop()
        set_relatives(
            one,
            cause=None if link.cause is None else chain[link.cause],
            context=None if link.context is None else chain[link.context],
        )
        _suppress_context.__set__(one, link.suppress_context)
        # A group came with copies of its members, without their relatives.
        pending += [(member, packed.chain[n]) for member, n in zip(_members(one), link.members, strict=False)]
    return Raised(chain[0], packed.traceback)


# The setters of BaseException itself: a class may let nobody set anything, as a frozen dataclass does.
_cause = vars(BaseException)["__cause__"]
_context = vars(BaseException)["__context__"]
_suppress_context = vars(BaseException)["__suppress_context__"]


def set_relatives(
    error: BaseException, *, context: BaseException | None, cause: BaseException | EllipsisType | None = ...
) -> None:
    """Set the context of an exception, and its cause unless that is left out, whatever its class makes of it."""
    if cause is not ...:
        _cause.__set__(error, cause)
    _context.__set__(error, context)


def _members(error: BaseException) -> tuple[BaseException, ...]:
    return error.exceptions if isinstance(error, BaseExceptionGroup) else ()


def _pickled_exception(error: BaseException) -> bytes | None:
    """Pickle one exception without its chain; ``None`` where it can't be.

    An exception's own way to pickle calls its class with ``args``, and fails, or doubles its message, when the class
    has a constructor of its own. We leave that constructor out: it ran once already.
    """
    kind = type(error)
    ways = [_whole]
    if not _reduces_itself(kind):
        # What else comes with it, such as the traceback that Dask has every exception bring, may keep it from it.
        ways = [_parts] if isinstance(kind.__init__, FunctionType) else [_whole, _parts]
    for way in ways:
        try:
            return serialise(way(error))
        except BaseException:  # noqa: S112  a user's __reduce__ may raise anything
            continue
    return None


def _whole(error: BaseException) -> tuple[Any, ...]:
    return _itself, (error,)


def _parts(error: BaseException) -> tuple[Any, ...]:
    kind = type(error)
    args, state = (*error.__reduce_ex__(pickle.HIGHEST_PROTOCOL), None)[1:3]
    slots = {name: getattr(error, name) for name in copyreg._slotnames(kind) if hasattr(error, name)}  # type: ignore[attr-defined]
    return _rebuilt, (kind, args, {**slots, **(state or {})})


def _reduces_itself(kind: type[BaseException]) -> bool:
    """Whether a class of somebody's own says how it is pickled."""
    own = (base for base in kind.__mro__ if base.__module__ != "builtins")
    says = {"__reduce__", "__reduce_ex__", "__getstate__", "__setstate__"}
    registered = copyreg.dispatch_table.get(kind)
    if registered is not None and not registered.__module__.startswith("tblib"):  # which Dask brings, for every class
        return True
    return any(not says.isdisjoint(vars(base)) for base in own)


def _unpickled_exception(link: _Link, text: str) -> BaseException:
    if link.data is not None:
        try:
            build, args = pickle.loads(link.data)
            error = build(*args)
            if isinstance(error, BaseException):
                return error
        except BaseException as error:
            if came_by_a_signal(error):
                raise
            # The stand-in below says all that is known of it.
    return RemoteError(
        f"{link.type_name}: {link.message} (the exception itself can't be pickled)",
        type_name=link.type_name,
        remote_message=link.message,
        remote_traceback=text,
    )


def _itself(error: BaseException) -> BaseException:
    return error


def _rebuilt(kind: type[BaseException], args: tuple[Any, ...], state: dict[str, Any]) -> BaseException:
    """Build an exception without its class's own constructor: only that of the builtin exception under it."""
    builtin: type[BaseException] = kind
    while builtin.__module__ != "builtins":
        builtin = builtin.__base__  # type: ignore[assignment]  # the one whose layout it has
    error: BaseException = builtin.__new__(kind, *args)
    vars(builtin).get("__init__", BaseException.__init__)(error, *args)
    for name, value in state.items():
        try:
            BaseException.__setattr__(error, name, value)  # also where the class lets nobody set anything
        except AttributeError:
            vars(error)[name] = value
    return error


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
        text = raised.traceback or "".join(traceback.format_exception(error))
        stand_in = RemoteError(
            f"item {index} raised {one_line(error)}, which would have ended the loop",
            type_name=_type_name(error),
            remote_message=_text(error),
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


def _type_name(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException as fault:  # the user's __str__
        return f"(its message can't be had: {type(fault).__name__})"


def one_line(error: BaseException) -> str:
    """Return the class and text of an exception, as the last line of a traceback has them."""
    text = _text(error)
    return f"{_type_name(error)}: {text}" if text else _type_name(error)
