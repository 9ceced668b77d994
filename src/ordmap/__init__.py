"""`map`, in parallel, in order: ``ordered_imap(dataset, workers, prefetch)`` yields ``dataset[0], dataset[1], …``."""

from __future__ import annotations

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

if TYPE_CHECKING:
    from ordmap.backends.executor import FromExecutor
    from ordmap.backends.processes import Processes, Spawn
    from ordmap.backends.serial import Serial
    from ordmap.backends.threads import Threads

__all__ = [
    "Backend",
    "BackendUnavailableError",
    "CheckpointError",
    "Dataset",
    "Failure",
    "FromExecutor",
    "ItemTimeoutError",
    "OrderedIterator",
    "OrdmapError",
    "Processes",
    "RemoteError",
    "Serial",
    "Spawn",
    "Stats",
    "Threads",
    "WorkerDiedError",
    "WorkerInfo",
    "empty",
    "empty_like",
    "item_rng",
    "ordered_imap",
    "ordered_map",
    "worker_info",
]

__version__ = "0.1.0"

_CONFIGURED = {attribute: module for module, attribute in BACKENDS.values()}
_CONFIGURED["FromExecutor"] = "ordmap.backends.executor"


def __getattr__(name: str) -> Any:
    """Import a configured backend when it is first asked for: each brings its own part of the standard library."""
    if name not in _CONFIGURED:
        raise AttributeError(f"module 'ordmap' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_CONFIGURED[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
