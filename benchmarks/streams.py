"""Streams: each does the same job as ``ordered_map`` over a generator, as `peers` does that of ``ordered_imap``.

``stream(fn, source, length, workers, prefetch) -> iterator``; what it gives is as in `peers`, and so are the names. The
inputs travel, the function is small. ``Executor.map`` and ``Pool.imap`` pull the generator ahead, whatever is taken;
the others keep to about ``prefetch`` items, joblib for what it sends and not for what has come.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import peers
from peers import Stream


def ordmap(fn, source, length, workers, prefetch, *, backend, chunksize=None):
    """Ours."""
    from ordmap import ordered_map

    return ordered_map(fn, source, workers=workers, prefetch=prefetch, backend=backend, chunksize=chunksize)


def serial(fn, source, length, workers, prefetch):
    """The plain loop."""
    return Stream(map(fn, source), lambda: None)


def executor(fn, source, length, workers, prefetch, *, chunksize=None):
    """A window over a ``ProcessPoolExecutor``; with a chunk size, its ``map`` (which is not bounded)."""
    from concurrent.futures import ProcessPoolExecutor

    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("fork"))
    if chunksize:
        results = pool.map(fn, source, chunksize=chunksize)
    else:
        results = peers._Window(lambda _: pool.submit(fn, next(source)), length, prefetch)
    return Stream(results, partial(pool.shutdown, cancel_futures=True))


def pool_imap(fn, source, length, workers, prefetch, *, chunksize=1):
    """``multiprocessing.Pool.imap``."""
    pool = multiprocessing.get_context("fork").Pool(workers)

    def close():
        pool.terminate()
        pool.join()

    return Stream(pool.imap(fn, source, chunksize), close)


def mpire(fn, source, length, workers, prefetch, *, chunksize=1):
    """MPIRE's ``imap``."""
    from mpire import WorkerPool

    pool = WorkerPool(workers, start_method="fork")
    most = max(prefetch, 2 * chunksize * workers)
    return Stream(pool.imap(fn, source, length, max_tasks_active=most, chunk_size=chunksize), pool.terminate)


def joblib(fn, source, length, workers, prefetch, *, chunksize="auto"):
    """joblib's generator. Its workers (loky's) outlive ``close()``, to be used again."""
    from joblib import Parallel, delayed

    most = prefetch if chunksize == "auto" else max(prefetch, 2 * chunksize * workers)
    parallel = Parallel(workers, return_as="generator", pre_dispatch=most, batch_size=chunksize, backend="loky")
    results = parallel(delayed(fn)(one) for one in source)
    return Stream(results, results.close)


STREAMS: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(peers.OURS, ordmap),
    "serial": serial,
    "executor": executor,
    "pool.imap": pool_imap,
    "mpire": mpire,
    "joblib": joblib,
}


def resolve(name: str) -> Callable[..., Any]:
    """Import what a contender needs, and return its function."""
    return partial(STREAMS[name.split(":")[0]], **peers.resolve(name).keywords)


def timed(
    contender: Callable[..., Any],
    fn: Callable[[Any], Any],
    source: Iterator[Any],
    length: int,
    workers: int,
    prefetch: int | None,
    check: Callable[[Iterator[Any], int], None],
) -> float:
    """Return the seconds of a whole call, as `workload.timed` does."""
    began = time.perf_counter()
    stream = contender(fn, source, length, workers, prefetch)
    check(iter(stream), length)
    stream.close()
    return time.perf_counter() - began


class Peak:
    """What this process, without its children, holds at the most from here on, over what it holds now."""

    def __init__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # the peak is from now on
        self._before = _status("VmRSS")

    def growth(self) -> int:
        """Return it, in bytes."""
        return _status("VmHWM") - self._before


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    raise LookupError(name)
