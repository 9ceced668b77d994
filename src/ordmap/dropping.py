"""How something ends that nobody holds any more, such as a run without its iterator, wherever that comes about.

The end of an object runs code in the midst of other code: in the garbage collector, in any thread, with any lock held.
And what is raised there Python ignores, be it Ctrl-C.
"""

from __future__ import annotations

import _thread
import contextlib
import gc
import os
import signal
import threading
import weakref
from collections import OrderedDict
from types import FrameType
from typing import Protocol

from ordmap.interrupts import postponed, send_later

__all__ = ["Closable", "close_dropped", "close_run"]


class Closable(Protocol):
    """What can be closed, from any thread."""

    def close(self) -> None:
        """End it."""


def close_run(dropped: Closable, process: int) -> None:
    """Close it, unless this is a fork of the process that began it; at once, or in a thread if that isn't safe."""
    if os.getpid() != process:
        return
    if list(_collector)[-1] == "start":  # in one step: another thread may collect right now
        # The garbage collector runs in any thread and in the middle of anything, so also while a thread holds a
        # lock of an executor's, or of the threading module's: they are not to be called from there.
        with contextlib.suppress(RuntimeError):  # the program ends, and its pools with it
            _thread.start_new_thread(_close_in_thread, (dropped,))
    else:
        dropped.close()


def close_dropped(dropped: Closable, process: int) -> None:
    """Close what nobody holds any more. Signals that come meanwhile are handled afterwards."""
    try:
        with postponed(_is_dropping, dropped):
            close_run(dropped, process)
    except BaseException as error:  # of a handler that was called at the very edge of this, or of another thread
        with contextlib.suppress(RuntimeError):  # the program ends
            _thread.start_new_thread(_close_in_thread, (dropped,))
            if isinstance(error, KeyboardInterrupt):
                _thread.start_new_thread(send_later, ([signal.SIGINT], _is_dropping, dropped))
                return
        raise


def _is_dropping(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code in {close_dropped.__code__, weakref.finalize.__call__.__code__}:
            return True
        frame = frame.f_back
    return False


def _close_in_thread(dropped: Closable) -> None:
    threading.Thread(target=dropped.close, name="ordmap-close", daemon=True).start()


#: What the garbage collector did last, at its end: ``"start"`` while it runs. No Python function may be told of that: a
#: signal's handler could run in it, and what that raises, Ctrl-C above all, would be ignored.
_collector = OrderedDict.fromkeys(("start", "stop"))
gc.callbacks.append(_collector.move_to_end)  # type: ignore[arg-type]  # its second argument is true: to the end
