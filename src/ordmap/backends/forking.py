"""Whether this process may be forked."""

from __future__ import annotations

import sys
import threading
import warnings

__all__ = ["fork_is_unsafe"]

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
