"""A worker's time-out clock: the kernel ends the process in which an item takes too long.

It is a timer of the kernel's, and a signal (SIGALRM) whose handler is C: it needs no thread and no Python code, so it
ends an item in the midst of C, too, with the GIL held. Before the process dies `faulthandler` writes where it was into
a file that the caller reads. To set the timer costs about a microsecond.

Not ``faulthandler.dump_traceback_later``, which is made for this: a fork inherits one that the caller has set, without
its thread, and setting another then waits for that thread for ever.
"""

from __future__ import annotations

import faulthandler
import signal
import time
from collections.abc import Callable
from typing import Any

from ordmap.limit import timed

__all__ = ["TIMED_OUT", "Clock"]

#: The exit code of a process that its clock has ended.
TIMED_OUT = -signal.SIGALRM

#: Seconds for which the timer isn't set anew for each of many short items; it ends them as much later.
_SLACK = 0.005


class Clock:
    """The clock of this worker; ``file`` is where it writes what it has ended."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._ready = False
        self._runs = False

    def timed(self, compute: Callable[[Any], Any], limit: float) -> Callable[[Any], Any]:
        """Return a function that computes an item; an item that takes too long raises, or ends this process.

        The clock may run on after it, until `stop`.
        """
        if not self._ready:
            self._ready = True
            self._make_ready()
        compute = timed(compute, limit)
        clock = time.perf_counter
        slack = min(_SLACK, limit / 4)
        set_anew = 0.0

        def compute_and_be_timed(key: Any) -> Any:
            nonlocal set_anew
            began = clock()
            if began >= set_anew:
                self._runs = True
                signal.setitimer(signal.ITIMER_REAL, limit + slack)
                set_anew = began + slack
            try:
                return compute(key)
            finally:
                if clock() - began > slack:  # what comes now may take its time: it is no item
                    self.stop()
                    set_anew = 0.0

        return compute_and_be_timed

    def stop(self) -> None:
        """Stop the clock; nothing is too long until another item begins."""
        if self._runs:
            self._runs = False
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _make_ready(self) -> None:
        faulthandler.unregister(signal.SIGALRM)  # a worker of this worker's inherits it, with the file
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        faulthandler.register(signal.SIGALRM, file=self._file, all_threads=True, chain=True)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])
