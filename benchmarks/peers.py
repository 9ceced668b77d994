"""The others: each does the same job as ``ordered_imap`` the way its own documentation says, in one small function.

``peer(dataset, workers, prefetch) -> iterator``: what it gives has ``__iter__``, which starts the work, and
``close()``, which ends it. What a peer needs is imported by `resolve`, before any clock runs. A name may carry options:
``pool.imap:64`` is ``Pool.imap`` with chunks of 64, ``torch:spawn`` is the DataLoader with fresh interpreters,
``torch:numpy`` the one that leaves arrays what they are.

The dataset is handed to a peer's workers once, by its initializer where it has one. A peer forks unless told ``spawn``;
joblib and grain always start fresh interpreters. "Not bounded" in `PEERS` means that results that nobody has taken yet
may be more than the window: the peer has none.

``timeout``, where a peer has it: the seconds that an item may take, or that the caller waits for one. What a peer gives
goes on after an error where the peer can.
"""

from __future__ import annotations

import importlib
import importlib.util
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import Any

_dataset: Any = None


def _keep(dataset):
    """The workers' initializer."""
    global _dataset
    _dataset = dataset


def _item(index):
    return _dataset[index]


def _item_of(dataset, index):
    return dataset[index]


class Stream:
    """A peer's own iterator, as it is, and what ends its workers."""

    def __init__(self, iterator, close):
        self._iterator = iterator
        self._close = close

    def __iter__(self):
        return self._iterator

    def close(self):
        self._iterator = None  # some end their workers when it is collected
        close, self._close = self._close, lambda: None
        close()


class _Window:
    """The deque of futures that everyone writes."""

    def __init__(self, submit, count, prefetch, timeout=None):
        self._submit = submit
        self._indices = iter(range(count))
        self._prefetch = prefetch
        self._timeout = timeout
        self._futures = None

    def __iter__(self):
        return self

    def __next__(self):
        if self._futures is None:
            self._futures = deque(map(self._future, islice(self._indices, self._prefetch)))
        if not self._futures:
            raise StopIteration
        try:
            return self._futures.popleft().result(self._timeout)
        finally:
            self._futures.extend(map(self._future, islice(self._indices, 1)))

    def _future(self, index):
        try:
            return self._submit(index)
        except Exception as error:  # the pool is broken; what has come can still be had
            from concurrent.futures import Future

            future = Future()
            future.set_exception(error)
            return future


def executor(dataset, workers, prefetch, *, start="fork", chunksize=None, timeout=None):
    """A window over a ``ProcessPoolExecutor``; with a chunk size, its ``map`` (which is not bounded)."""
    from concurrent.futures import ProcessPoolExecutor

    pool = ProcessPoolExecutor(workers, multiprocessing.get_context(start), _keep, (dataset,))
    if chunksize:
        results = pool.map(_item, range(len(dataset)), chunksize=chunksize)
    else:
        results = _Window(partial(pool.submit, _item), len(dataset), prefetch, timeout)
    return Stream(results, partial(pool.shutdown, cancel_futures=True))


def pool_imap(dataset, workers, prefetch, *, start="fork", chunksize=1, timeout=None):
    """``multiprocessing.Pool.imap``."""
    pool = multiprocessing.get_context(start).Pool(workers, _keep, (dataset,))

    def close():
        pool.terminate()
        pool.join()

    results = pool.imap(_item, range(len(dataset)), chunksize)
    if timeout is not None:
        results = iter(partial(results.next, timeout), object())
    return Stream(results, close)


def torch(dataset, workers, prefetch, *, start="fork", chunksize=None, numpy=False, timeout=None):
    """PyTorch's DataLoader without batches; with a chunk size, lists of that many items."""
    from torch.utils.data import DataLoader

    loader = DataLoader(
        dataset,
        batch_size=chunksize,
        collate_fn=list if chunksize else _same if numpy else None,
        num_workers=workers,
        prefetch_factor=max(1, prefetch // ((chunksize or 1) * workers)),
        multiprocessing_context=start,
        timeout=timeout or 0,
    )
    items = iter(loader)
    return Stream(chain.from_iterable(items) if chunksize else items, lambda: None)


def _same(item):
    return item


def grain(dataset, workers, prefetch):
    """Grain's DataLoader; no threads in the workers, as it advises for data in memory."""
    import grain

    loader = grain.DataLoader(
        data_source=dataset,
        sampler=grain.samplers.SequentialSampler(len(dataset), grain.sharding.NoSharding()),
        worker_count=workers,
        worker_buffer_size=max(1, prefetch // workers),
        read_options=grain.ReadOptions(num_threads=0, prefetch_buffer_size=0),
    )
    return Stream(iter(loader), lambda: None)


def mpire(dataset, workers, prefetch, *, start="fork", chunksize=1, timeout=None):
    """MPIRE's ``imap``, the dataset as its shared object."""
    from mpire import WorkerPool

    pool = WorkerPool(workers, shared_objects=dataset, start_method=start)
    results = pool.imap(
        _item_of, range(len(dataset)), len(dataset), max_tasks_active=max(prefetch, 2 * chunksize * workers),
        chunk_size=chunksize, task_timeout=timeout,
    )  # fmt: skip
    return Stream(results, pool.terminate)


def joblib(dataset, workers, prefetch, *, chunksize="auto", timeout=None):
    """joblib's generator. Its workers (loky's) outlive ``close()``, to be used again."""
    from joblib import Parallel, delayed

    parallel = Parallel(
        workers, return_as="generator", pre_dispatch=prefetch, batch_size=chunksize,
        backend="loky", initializer=_keep, initargs=(dataset,), timeout=timeout,
    )  # fmt: skip
    results = parallel(delayed(_item)(index) for index in range(len(dataset)))
    return Stream(results, results.close)


def pebble(dataset, workers, prefetch, *, start="fork", chunksize=None, timeout=None):
    """A window over a pebble pool; with a chunk size, its ``map`` (which is not bounded)."""
    from pebble import ProcessPool

    pool = ProcessPool(workers, initializer=_keep, initargs=(dataset,), context=multiprocessing.get_context(start))
    if chunksize:
        results = pool.map(_item, range(len(dataset)), chunksize=chunksize).result()
    else:
        results = _Window(lambda index: pool.schedule(_item, (index,), timeout=timeout), len(dataset), prefetch)

    def close():
        pool.stop()
        pool.join()

    return Stream(results, close)


def seqtools(dataset, workers, prefetch):
    """SeqTools' ``prefetch``, with shared memory for datasets of arrays (which say their ``nbytes``).

    It keeps two of its buffers free, so that ``prefetch + 2`` is what it needs to compute ``prefetch`` items ahead.
    """
    import seqtools

    buffers = max(4, prefetch + 2)
    sequence = seqtools.prefetch(
        dataset, workers, "process", max_buffered=buffers, shm_size=buffers * getattr(dataset, "nbytes", 0)
    )
    # Item by item, since its own iterator ends with the first error.
    return Stream(map(sequence.__getitem__, range(len(dataset))), lambda: None)


def keras(dataset, workers, prefetch):
    """Keras' OrderedEnqueuer with processes, as ``fit`` uses it for a ``PyDataset``; not public in Keras 3."""
    from keras.src.trainers.data_adapters.py_dataset_adapter import OrderedEnqueuer
    from keras.utils import PyDataset

    class Batches(PyDataset):
        def __len__(self):
            return len(dataset)

        def __getitem__(self, index):
            return dataset[index]

    enqueuer = OrderedEnqueuer(Batches(), workers, use_multiprocessing=True, max_queue_size=prefetch)
    enqueuer.start()
    return Stream(islice(enqueuer.get(), len(dataset)), enqueuer.stop)


def serial(dataset, workers, prefetch):
    """The plain loop."""
    return Stream((dataset[index] for index in range(len(dataset))), lambda: None)


def ordmap(dataset, workers, prefetch, *, backend, chunksize=None, timeout=None):
    """Ours."""
    from ordmap import ordered_imap

    options = {} if timeout is None else {"item_timeout": timeout}
    return ordered_imap(dataset, workers, prefetch, backend=backend, chunksize=chunksize, **options)


@dataclass(frozen=True)
class Peer:
    open: Callable[..., Any]
    imports: tuple[str, ...] = ()
    bounded: bool = True
    distribution: str = ""  # whose version is reported
    environment: tuple[tuple[str, str], ...] = ()


#: Ours first. The rest of a name, after a colon, are options: see `resolve`.
PEERS: dict[str, Peer] = {
    "processes": Peer(partial(ordmap, backend="processes"), ("ordmap",)),
    "spawn": Peer(partial(ordmap, backend="spawn"), ("ordmap",)),
    "threads": Peer(partial(ordmap, backend="threads"), ("ordmap",)),
    "no-workers": Peer(partial(ordmap, backend="serial"), ("ordmap",)),
    "asyncio": Peer(partial(ordmap, backend="asyncio"), ("ordmap",)),
    "serial": Peer(serial),
    "tasks": Peer(serial),  # a plain window of them: see `awaits`
    "executor": Peer(executor, ("concurrent.futures.process",)),
    "pool.imap": Peer(pool_imap, ("multiprocessing.pool",), bounded=False),
    "torch": Peer(torch, ("torch.utils.data",), distribution="torch"),
    "grain": Peer(grain, ("grain",), distribution="grain"),
    "mpire": Peer(mpire, ("mpire",), distribution="mpire"),
    "joblib": Peer(joblib, ("joblib",), bounded=False, distribution="joblib"),
    "pebble": Peer(pebble, ("pebble",), distribution="pebble"),
    "seqtools": Peer(seqtools, ("seqtools",), distribution="seqtools"),
    "keras": Peer(
        keras,
        ("keras.src.trainers.data_adapters.py_dataset_adapter",),
        distribution="keras",
        environment=(("KERAS_BACKEND", "torch"), ("TF_CPP_MIN_LOG_LEVEL", "3")),
    ),
}
OURS = ("processes", "spawn", "threads", "no-workers", "asyncio")


def peer_of(name: str) -> Peer:
    return PEERS[name.split(":")[0]]


def is_installed(name: str) -> bool:
    """Whether what a contender needs can be imported; nothing is imported."""
    return all(importlib.util.find_spec(module.split(".")[0]) is not None for module in peer_of(name).imports)


def resolve(name: str) -> Callable[[Any, int, int | None], Iterator[Any]]:
    """Import what a contender needs, and return its function."""
    base, *options = name.split(":")
    peer = PEERS[base]
    os.environ.update(peer.environment)
    for module in peer.imports:
        importlib.import_module(module)
    keywords: dict[str, Any] = {}
    for option in options:
        if option.isdigit():
            keywords["chunksize"] = int(option)
        elif option in {"spawn", "forkserver"}:
            keywords["start"] = option
        else:
            keywords[option] = True
    return partial(peer.open, **keywords)
