"""Whether this process may be forked, and may wait for others."""

from __future__ import annotations

import _thread
import sys
import threading
import warnings

from ordmap.errors import BackendUnavailableError

__all__ = ["fork_is_unsafe", "refuse_green_threads"]

_told = False


def fork_is_unsafe() -> bool:
    """Whether a library is in use that doesn't survive a fork; said once."""
    global _told
    culprit: str | None = next((name for name in ("jax", "tensorflow") if name in sys.modules), None)
    torch = sys.modules.get("torch")
    if culprit is None and torch is not None and hasattr(torch, "cuda") and torch.cuda.is_initialized():
        culprit = "CUDA"
    where = ""
    if culprit is None and "av" in sys.modules and threading.current_thread() is not threading.main_thread():
        # In a fork Python drops what was the other threads' own, and FFmpeg then waits for threads that aren't there.
        culprit, where = "PyAV", " in another thread than the main one"
    if culprit is not None and not _told:
        _told = True
        warnings.warn(
            f"{culprit} is in use and does not survive a fork{where}: backend='processes' starts fresh interpreters, "
            "as backend='spawn' does",
            RuntimeWarning,
            stacklevel=2,
        )
    return culprit is not None


def refuse_green_threads(backend: str) -> None:
    """Refuse a backend that waits where gevent or eventlet has made all threads of this program take turns in one.

    Such a wait holds up all of them, and an event loop can't tell them apart.
    """
    patcher = getattr(_thread.start_new_thread, "__module__", "_thread").partition(".")[0]
    if patcher not in {"_thread", "thread"}:
        raise BackendUnavailableError(
            f"backend={backend!r} can't be had where {patcher} has patched threads: all of them would wait for it; use "
            "backend='threads', whose items take turns as the program's own do"
        )
