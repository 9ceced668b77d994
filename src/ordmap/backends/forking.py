"""Whether this process may be forked, and may wait: what the program asks for, and what in it does not survive it."""

from __future__ import annotations

import os
import sys
import threading
from types import ModuleType
from typing import NamedTuple

from ordmap.errors import BackendUnavailableError
from ordmap.real_time import green_threads
from ordmap.resources import read_text
from ordmap.telling import warn

__all__ = ["Objection", "objection_to_fork", "refuse_green_threads", "without_pickling"]

#: What the threads of runtimes call themselves that a fork lacks and waits for, by how their names begin. Most are
#: parts of many libraries, so that the name says more than any list of modules.
_RUNTIMES = {
    "polars-": "polars",
    "rayon": "rayon (a Rust library's pool of threads)",
    "tokio-r": "Tokio (a Rust library's pool of threads)",
    "async-executor": "a Rust library's pool of threads",
    "grpc_global_tim": "gRPC",
    "event_engine": "gRPC",
    "tf_": "XLA",
    "cuda-": "CUDA",
    "Aws": "AWS's runtime",
    "rdk:": "librdkafka",
    "GC Thread": "a Java machine",
    "VM Thread": "a Java machine",
}

#: What to do where the program has asked for fresh interpreters, and they can't have what they need.
_CURE = (
    "multiprocessing.set_start_method() asks for fresh interpreters: have each worker make for itself what can't be "
    "pickled (by initializer=, or on first use), use backend='threads', or ask for 'fork'"
)

#: Modules whose native threads, which a fork lacks and waits for, have no names of their own, and since which version.
_UNNAMED = {"zarrs": ("zarrs", 0), "av": ("PyAV", 19)}

_told: set[str] = set()


class Objection(NamedTuple):
    """Why no worker is to be forked.

    ``cure``: what to do where something can't be pickled for fresh interpreters, which the program has asked for.
    Without one, it has not, and workers are forked then.
    """

    reason: str
    cure: str | None = None

    def tell(self) -> None:
        """Say once that fresh interpreters are started, unless that was asked for."""
        if self.cure is None:
            self._tell("backend='processes' starts fresh interpreters, as backend='spawn' does")

    def overrule(self, why: str) -> None:
        """Say once that workers are forked nevertheless, since fresh interpreters can't have what they need."""
        self._tell(
            f"backend='processes' forks nevertheless, since {why}. An item that uses it may wait for ever: "
            "item_timeout= ends such an item, and backend='threads' needs no fork"
        )

    def _tell(self, what: str) -> None:
        if what + self.reason not in _told:
            _told.add(what + self.reason)
            warn(f"{self.reason}: {what}")


def objection_to_fork() -> Objection | None:
    """Return why no worker is to be forked now, if there is a reason."""
    multiprocessing = sys.modules.get("multiprocessing")
    if multiprocessing is not None:
        # Without such a call it is None, or the first, once the program has made a pool or a process.
        method = multiprocessing.get_start_method(allow_none=True)
        if method in {"spawn", "forkserver"} and method != multiprocessing.get_all_start_methods()[0]:
            return Objection(f"multiprocessing.set_start_method({method!r}) was called", _CURE)
    torch = sys.modules.get("torch")
    culprit: str | None = next((name for name in ("jax", "tensorflow") if name in sys.modules), None)
    where = ""
    if culprit is not None:
        pass
    elif torch is not None and hasattr(torch, "cuda") and torch.cuda.is_initialized():
        culprit = "CUDA"
    elif "av" in sys.modules and threading.current_thread() is not threading.main_thread():
        # In a fork Python drops what was the other threads' own, and FFmpeg then waits for threads that aren't there.
        culprit, where = "PyAV", " in another thread than the main one"
    elif "numba.np.ufunc.omppool" in sys.modules:
        culprit = "numba's layer of OpenMP threads"  # it ends a forked process by itself
    else:
        culprit = _running()
    return None if culprit is None else Objection(f"{culprit} is in use and does not survive a fork{where}")


def without_pickling(backend: str) -> str:
    """Return what to write in place of a backend whose workers need something pickled that can't be."""
    inherits = backend != "processes" and sys.platform == "linux" and objection_to_fork() is None
    return "use backend='processes' or backend='threads'" if inherits else "use backend='threads'"


def _running() -> str | None:
    """Return the runtime of which there are threads here."""
    tasks = "/proc/self/task"
    try:
        threads = {int(task): f"{tasks}/{task}/comm" for task in os.listdir(tasks)}  # noqa: PTH208  pathlib is heavy
    except OSError:
        return None  # not on this system
    for python in threading.enumerate():
        threads.pop(python.native_id or 0, None)
    for module, (whose, since) in _UNNAMED.items():
        if threads and module in sys.modules and _version(sys.modules[module]) >= since:
            return whose
    for task in threads.values():
        try:
            name = read_text(task)
        except OSError:  # it has just ended
            continue
        for beginning, whose in _RUNTIMES.items():
            if name.startswith(beginning):
                return whose
    return None


def _version(module: ModuleType) -> int:
    """Return the first number of a module's version; of one that has none, 0."""
    first = str(getattr(module, "__version__", "")).partition(".")[0]
    return int(first) if first.isdecimal() else 0


def refuse_green_threads(backend: str) -> None:
    """Refuse a backend that waits where gevent or eventlet has made all threads of this program take turns in one.

    Such a wait holds up all of them, and an event loop can't tell them apart.
    """
    if patcher := green_threads():
        raise BackendUnavailableError(
            f"backend={backend!r} can't be had where {patcher} has patched threads: all of them would wait for it; use "
            "backend='threads', whose items take turns as the program's own do"
        )
