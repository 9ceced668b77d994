"""`map`, in parallel, in order: ``ordered_imap(dataset, workers, prefetch)`` yields ``dataset[0], dataset[1], …``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from ordmap.backends import BACKENDS, Backend
from ordmap.dataset import Dataset
from ordmap.errors import (
    BackendUnavailableError,
    CheckpointError,
    ItemTimeoutError,
    OrdmapError,
    RemoteError,
    WorkerDiedError,
)
from ordmap.imap import ordered_imap, ordered_map
from ordmap.item import WorkerInfo, worker_info
from ordmap.iterator import OrderedIterator, Stats
from ordmap.placing import empty, empty_like
from ordmap.policy import Failure
from ordmap.rng import item_rng
from ordmap.views import batches, mapped, subset

if TYPE_CHECKING:
    from ordmap.backends.asyncio import Asyncio
    from ordmap.backends.executor import FromExecutor
    from ordmap.backends.processes import Processes, Spawn
    from ordmap.backends.serial import Serial
    from ordmap.backends.threads import Threads
    from ordmap.parallel import ParallelDataset

__all__ = [
    "Asyncio",
    "Backend",
    "BackendUnavailableError",
    "CheckpointError",
    "Dataset",
    "Failure",
    "FromExecutor",
    "ItemTimeoutError",
    "OrderedIterator",
    "OrdmapError",
    "ParallelDataset",
    "Processes",
    "RemoteError",
    "Serial",
    "Spawn",
    "Stats",
    "Threads",
    "WorkerDiedError",
    "WorkerInfo",
    "batches",
    "empty",
    "empty_like",
    "item_rng",
    "mapped",
    "ordered_imap",
    "ordered_map",
    "subset",
    "worker_info",
]

__version__ = "0.1.0"

_LATE = {attribute: module for module, attribute in BACKENDS.values()}
_LATE["FromExecutor"] = "ordmap.backends.executor"
_LATE["ParallelDataset"] = "ordmap.parallel"


def __getattr__(name: str) -> Any:
    """Import what is first asked for now: a configured backend brings its own part of the standard library."""
    if name not in _LATE:
        raise AttributeError(f"module 'ordmap' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_LATE[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if getattr(sys, "frozen", False) and not {"--multiprocessing-fork", "-c"}.isdisjoint(sys.argv):
    from ordmap.frozen import become_child

    become_child()
