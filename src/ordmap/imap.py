"""The two calls that everything begins with: their arguments are checked here, before anything starts."""

from __future__ import annotations

import math
import operator
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar, Unpack, get_args, overload

from ordmap.arguments import Arguments
from ordmap.backends import Backend, resolve
from ordmap.dataset import Dataset, check_dataset, number_of
from ordmap.hooks import check_hooks
from ordmap.indices import Indices, Shard, Source
from ordmap.iterator import OrderedIterator, Settings
from ordmap.listed import check_indices, is_listed, listed
from ordmap.pace import Budget
from ordmap.policy import Failure, OnError, checked

if TYPE_CHECKING:
    from concurrent.futures import Executor

__all__ = ["ordered_imap", "ordered_map"]

T = TypeVar("T")
R = TypeVar("R")
F = TypeVar("F")

#: Of a function's code.
_COROUTINE = 0x80

#: How long the seed may be.
_SEED_BITS = 1024

#: What becomes of the items of an epoch that are too few for one more in each shard.
Rest = Literal["drop", "pad", "keep"]


class _Options(TypedDict, total=False):
    """What both calls take by name, beside ``on_error``, which their types depend on."""

    backend: str | Backend | Executor
    seed: int | None
    chunksize: int | None
    item_timeout: float | None
    retries: int


class _ImapOptions(_Options, total=False):
    epochs: int | None
    shuffle: bool
    shard: tuple[int, int] | tuple[int, int, Rest] | None
    indices: Iterable[int] | Callable[[int], Iterable[int]] | None


class _MapOptions(_Options, total=False):
    workers: int | None
    prefetch: int | str | None
    strict: bool


@overload
def ordered_imap(
    dataset: Dataset[T],
    workers: int | None = ...,
    prefetch: int | str | None = ...,
    *,
    on_error: Literal["raise", "skip"] = ...,
    **options: Unpack[_ImapOptions],
) -> OrderedIterator[T]: ...
@overload
def ordered_imap(
    dataset: Dataset[T],
    workers: int | None = ...,
    prefetch: int | str | None = ...,
    *,
    on_error: Literal["return"],
    **options: Unpack[_ImapOptions],
) -> OrderedIterator[T | Failure]: ...
@overload
def ordered_imap(
    dataset: Dataset[T],
    workers: int | None = ...,
    prefetch: int | str | None = ...,
    *,
    on_error: Callable[[Failure], F],
    **options: Unpack[_ImapOptions],
) -> OrderedIterator[T | F]: ...
def ordered_imap(
    dataset: Dataset[T],
    workers: int | None = None,
    prefetch: int | str | None = None,
    *,
    backend: str | Backend | Executor = "processes",
    epochs: int | None = 1,
    shuffle: bool = False,
    seed: int | None = None,
    shard: tuple[int, int] | tuple[int, int, Rest] | None = None,
    indices: Iterable[int] | Callable[[int], Iterable[int]] | None = None,
    chunksize: int | None = None,
    item_timeout: float | None = None,
    retries: int = 0,
    on_error: OnError = "raise",
) -> OrderedIterator[Any]:
    """Yield ``dataset[0], dataset[1], …`` in index order, while workers compute ahead.

    ``list(ordered_imap(dataset, …)) == [dataset[i] for i in range(len(dataset))]`` for every backend, number of
    workers, window and chunk size.

    An item that raises costs one item: ``next()`` raises the user's own exception with notes saying which item it was
    and where it ran, and goes on with the following item when it is called again. So does an item that kills its worker
    (a `WorkerDiedError`), and one that takes too long; ``retries`` and ``on_error`` are for all three alike.

    Nothing starts before the first ``next()``. Tiny items travel in chunks, so that they share the cost of the way.

    Args:
        dataset: Anything with ``__getitem__`` and ``__len__``. It reaches each worker once: inherited by a forked
            worker, pickled for any other. Where it has a method ``on_epoch_begin``, that is called before each epoch,
            in this process, by the ``next()`` that needs the epoch's first item; a method ``on_epoch_end`` after each,
            by the ``next()`` that comes after the epoch's last item. What they change reaches the workers before the
            next epoch begins.
        workers: How many items are computed at the same time; ``None``: the cores that this process may use (its
            affinity and its container's quota), or, within an item of another iterator, 0. 0: compute in this process,
            inside ``next()``.
        prefetch: How many items at most are submitted and not yet yielded, the one that ``next()`` waits for included:
            1 computes nothing ahead. ``None``: twice the workers, more for tiny items (up to 1,024, and 64 MB of
            results). ``"512MB"`` (or ``"512MiB"``) bounds the bytes of finished results instead: the bound is then
            that, and one largest item a worker.
        backend: ``"processes"``, ``"threads"``, ``"spawn"``, ``"serial"``, ``"asyncio"`` (for coroutine functions, and
            datasets whose ``__getitem__`` is one), a configured backend such as ``Processes(4)``, or any
            ``concurrent.futures.Executor``, which is borrowed and never shut down.
        epochs: How many times the dataset is gone through; ``None``: again and again, for ever.
        shuffle: Whether each epoch has an order of its own, drawn at random from all there are. It takes no memory to
            speak of, and no time to begin, however long the dataset is.
        seed: A whole number that gives these orders, with the epoch and the length of the dataset, and the random
            numbers of each item, with the epoch and its index: the same on every machine, in every backend. `item_rng`
            gives these; where items are computed in processes, one at a time, or with ``workers=0``, so do the global
            generators of ``random``, numpy and PyTorch (about 15 µs an item in a process; 0.2 ms with ``workers=0``,
            where your own numbers go on after each item). ``None``: other orders and numbers each time.
        shard: ``(rank, world)``: only every ``world``-th item of each epoch, from the ``rank``-th on (0, 1, …), after
            the shuffle: together the ``world`` shards are the epoch. Where that is uneven some shards have one item
            more; with ``(rank, world, "drop")`` the last few of the epoch are left out, with ``(rank, world, "pad")``
            its first few come again.
        indices: Which items in which order, in place of ``range(len(dataset))``: an iterable, possibly infinite, or a
            function from the epoch (0, 1, …) to one. A list, a range and an array of numpy are kept; any other
            container of indices (a tensor, a table's column, an array in a file) is read once, by position, whatever
            its labels. Anything else is a sampler: it is gone through once an epoch, and one that has a method
            ``set_epoch`` is told of each epoch but the first.
        chunksize: How many items travel together; ``None``: adapted to their duration and size.
        item_timeout: Seconds that an item may run in its worker, not counting the time that it waits for one; ``None``:
            as long as it takes. One that takes longer costs itself: ``next()`` raises an `ItemTimeoutError`, also where
            it came to its end too late, and goes on with the following item. On Linux its worker process is ended in
            the midst of it, even in C code, and replaced; elsewhere, and in threads, it is left alone and another
            thread goes on; ``"serial"`` does not enforce it. The time to pickle its result does not count. In worker
            processes the items can't use SIGALRM then.
        retries: How often an item that failed is tried again, at once and by whichever worker is free; the others go on
            meanwhile, and its place in the order waits for it.
        on_error: What becomes of an item that failed for the last time. ``"raise"``: see above. ``"skip"``: it is left
            out. ``"return"``: a `Failure` takes its place. A function from a `Failure` to a value: that does; it is
            called inside ``next()``, which raises what it raises.

    Returns:
        An `OrderedIterator`.

    Raises:
        TypeError, ValueError, IndexError: Bad arguments, before anything has started.

    Example:
        >>> squares = [n * n for n in range(5)]
        >>> list(ordered_imap(squares, workers=2, backend="threads"))
        [0, 1, 4, 9, 16]

    Attention:
        What an item changes in the dataset changes in that worker's copy alone, save in threads and serial.
    """
    check_dataset(dataset)
    check_hooks(dataset)
    if epochs is not None:
        epochs = _whole("epochs", epochs, least=0, instead="epochs=None cycles for ever")
    part = _shard(shard)
    seed = _seed(seed)
    _check_shuffle(shuffle, seed, indices, part, dataset)
    if indices is not None:
        indices = _checked_order(indices, dataset, epochs)
        part.check(indices if not callable(indices) else ())
    elif epochs is None and not number_of(dataset):
        raise ValueError("the dataset is empty, and with epochs=None that would go on for ever without an item")
    source = Indices(dataset, epochs, indices, seed, part, shuffle=shuffle)
    if epochs is None and source.length_of_epoch() == 0:
        raise ValueError(f"shard={shard} of so few items is empty, and with epochs=None that would go on for ever")
    return _iterator(
        partial(operator.getitem, dataset),
        dataset,
        source,
        workers,
        prefetch,
        backend,
        chunksize,
        item_timeout,
        retries,
        on_error,
        seed,
    )


@overload
def ordered_map(
    fn: Callable[..., R],
    *iterables: Iterable[Any],
    on_error: Literal["raise", "skip"] = ...,
    **options: Unpack[_MapOptions],
) -> OrderedIterator[R]: ...
@overload
def ordered_map(
    fn: Callable[..., R],
    *iterables: Iterable[Any],
    on_error: Literal["return"],
    **options: Unpack[_MapOptions],
) -> OrderedIterator[R | Failure]: ...
@overload
def ordered_map(
    fn: Callable[..., R],
    *iterables: Iterable[Any],
    on_error: Callable[[Failure], F],
    **options: Unpack[_MapOptions],
) -> OrderedIterator[R | F]: ...
def ordered_map(
    fn: Callable[..., R],
    *iterables: Iterable[Any],
    workers: int | None = None,
    prefetch: int | str | None = None,
    backend: str | Backend | Executor = "processes",
    strict: bool = False,
    seed: int | None = None,
    chunksize: int | None = None,
    item_timeout: float | None = None,
    retries: int = 0,
    on_error: OnError = "raise",
) -> OrderedIterator[Any]:
    """Yield what ``map(fn, *iterables)`` yields, in that order, while workers compute ahead.

    The iterables may be infinite; they are pulled in the caller's thread, inside ``next()``, and never further than
    the window. What one of them raises comes after the results of what it gave before, and ends the iterator. Where one
    is asynchronous, so must be the loop: ``async for``.

    All else is as for `ordered_imap`, failures too; the index of an item is its position. With ``strict``, iterables of
    different lengths are a ``ValueError`` at the end, as for ``zip``.

    Example:
        >>> list(ordered_map(pow, [2, 3, 4], [5, 2, 3], workers=2, backend="threads"))
        [32, 9, 64]
    """
    if not callable(fn):
        raise TypeError(
            f"ordered_map calls its first argument, and {fn!r} can't be called: write ordered_map(fn, iterable)"
        )
    if not iterables:
        raise TypeError("ordered_map needs something to map over: write ordered_map(fn, iterable)")
    for iterable in iterables:
        if not any(hasattr(iterable, name) for name in ("__iter__", "__getitem__", "__aiter__")):
            hint = f": write workers={iterable}" if isinstance(iterable, int) else ""
            raise TypeError(f"ordered_map can't iterate over {iterable!r}{hint}")
    seed = _seed(seed)
    source: Source = Arguments(iterables, strict=strict, seed=seed)
    compute = fn if len(iterables) == 1 else _Starred(fn)
    if any(hasattr(iterable, "__aiter__") and not hasattr(iterable, "__iter__") for iterable in iterables):
        from ordmap.awaiting import Incoming  # asyncio is large

        source, compute = Incoming(iterables, strict=strict, seed=seed), _Starred(fn)
    return _iterator(compute, fn, source, workers, prefetch, backend, chunksize, item_timeout, retries, on_error, seed)


class _Starred:
    """A function that takes its arguments as one tuple."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self._fn = fn

    def __call__(self, arguments: tuple[Any, ...]) -> Any:
        return self._fn(*arguments)


def _iterator(  # noqa: PLR0917  one caller each
    compute: Callable[[Any], Any],
    subject: object,
    source: Source,
    workers: int | None,
    prefetch: int | str | None,
    backend: object,
    chunksize: int | None,
    item_timeout: float | None,
    retries: int,
    on_error: OnError,
    seed: int | None,
) -> OrderedIterator[Any]:
    """Check what both calls have in common, and make the iterator."""
    if workers is not None:
        workers = _whole("workers", workers, least=0, instead="workers=None uses every core that it may")
    if isinstance(prefetch, str):
        prefetch = Budget.parsed(prefetch)
    elif prefetch is not None:
        prefetch = _whole("prefetch", prefetch, least=1, instead="prefetch=1 computes one item at a time")
    if chunksize is not None:
        chunksize = _whole("chunksize", chunksize, least=1, instead="chunksize=None adapts it")
        if prefetch is not None and not isinstance(prefetch, Budget) and chunksize > prefetch:
            raise ValueError(
                f"chunksize={chunksize} does not fit into prefetch={prefetch}: write prefetch={2 * chunksize}"
            )
    if item_timeout is not None:
        item_timeout = _seconds("item_timeout", item_timeout)
    retries = _whole("retries", retries, least=0, instead="retries=0 tries each item once", optional=False)
    on_error = checked(on_error)
    found = resolve(backend, workers)
    if _is_coroutine_function(subject) and not getattr(found, "awaits", False):
        what = "this dataset's __getitem__" if hasattr(subject, "__getitem__") else f"{subject!r}"
        raise TypeError(f"{what} is a coroutine function, which backend={found.name!r} doesn't await: write 'asyncio'")
    if not found.workers:
        prefetch = chunksize = 1  # nothing is computed ahead
    return OrderedIterator(
        Settings(found, compute, subject, source, prefetch, chunksize, item_timeout, retries, on_error, seed)
    )


def _is_coroutine_function(subject: object) -> bool:
    """Whether a function, or the ``__getitem__`` of a dataset, is to be awaited."""
    while isinstance(subject, partial):
        subject = subject.func
    kind = type(subject)
    called = getattr(kind, "__getitem__", None) or (subject if hasattr(subject, "__code__") else kind.__call__)
    code = getattr(getattr(called, "__func__", called), "__code__", None)
    return code is not None and bool(code.co_flags & _COROUTINE)


def _checked_order(indices: Any, dataset: Dataset[Any], epochs: int | None) -> Any:
    """Return the indices that an argument asks for, read where something holds them, or refuse them."""
    if callable(indices):
        return indices
    if not hasattr(indices, "__iter__") and not hasattr(indices, "__getitem__"):
        raise TypeError(
            f"indices must be an iterable of integers, or a function from the epoch to one, not {indices!r}"
        )
    if isinstance(indices, Mapping):
        raise TypeError(f"a {type(indices).__name__} is no order: write list(…) around what holds the indices")
    indices = listed(indices)
    if is_listed(indices) or isinstance(indices, Sequence):
        check_indices(indices, number_of(dataset))
        if epochs is None and not number_of(indices):
            raise ValueError("there are no indices, and with epochs=None that would go on for ever without an item")
    elif epochs not in {0, 1} and hasattr(indices, "__next__"):
        raise ValueError(
            "an iterator of indices can be gone through once only: for several epochs "
            "write a function, indices=lambda epoch: …, or leave epochs=1"
        )
    return indices


def _shard(shard: object) -> Shard:
    """Return the shard that an argument asks for, or refuse it."""
    if shard is None:
        return Shard()
    instead = "write shard=(rank, world), such as shard=(0, 4) for the first of four"
    if not isinstance(shard, tuple | list) or len(shard) not in {2, 3}:
        raise TypeError(f"shard must be a pair of whole numbers or None, not {shard!r}; {instead}")
    rank = _whole("the rank of shard", shard[0], least=0, instead=instead, optional=False)
    world = _whole("the world of shard", shard[1], least=1, instead=instead, optional=False)
    if rank >= world:
        raise ValueError(f"shard={shard!r}: the ranks of {world} shards are 0 to {world - 1}")
    rest = shard[2] if len(shard) == 3 else "keep"  # noqa: PLR2004
    if not isinstance(rest, str) or rest not in get_args(Rest):
        raise ValueError(f"shard={shard!r}: what becomes of the rest is 'drop', 'pad' or 'keep', not {rest!r}")
    return Shard(rank, world, rest)


def _check_shuffle(shuffle: object, seed: int | None, indices: object, shard: Shard, dataset: object) -> None:
    """Refuse what doesn't fit together with a shuffle."""
    if not isinstance(shuffle, bool):
        raise TypeError(f"shuffle must be True or False, not {shuffle!r}; the seed of the shuffle is seed=")
    if shuffle and indices is not None:
        raise ValueError("indices are an order already: shuffle them yourself, or leave out one of the two")
    if shuffle and seed is None and shard.world > 1:
        raise ValueError("the shards of a shuffle need one seed, the same for all ranks: write seed=…")
    if shuffle and number_of(dataset) > 1 << 64:
        raise ValueError("a shuffle is of 2**64 items at most: shuffle a part of them, or give indices")


def _seed(seed: object) -> int | None:
    if seed is None:
        return None
    try:
        number = operator.index(seed)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None or isinstance(seed, bool):
        raise TypeError(f"seed must be a whole number or None, not {seed!r}")
    if number.bit_length() > _SEED_BITS:
        raise ValueError(f"seed has {number.bit_length():,} bits: it may have {_SEED_BITS:,}")
    return number


def _whole(name: str, value: object, *, least: int, instead: str, optional: bool = True) -> int:
    """Return the value of an argument as an ``int``, or refuse it."""
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        or_none = " or None" if optional else ""
        raise TypeError(f"{name} must be a whole number{or_none}, not {value!r}; {instead}")
    if number < least:
        raise ValueError(f"{name}={number}: it must be at least {least}; {instead}")
    return number


def _seconds(name: str, value: object) -> float:
    """Return the value of an argument in seconds as a ``float``, or refuse it."""
    instead = f"write the seconds, such as {name}=30, or {name}=None for no limit"
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number of seconds or None, not {value!r}; {instead}")
    number: Any = value
    if not 0 < number < math.inf:
        raise ValueError(f"{name}={value!r}: it must be more than 0, and not infinite; {instead}")
    return float(min(number, threading.TIMEOUT_MAX))
