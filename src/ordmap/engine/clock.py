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
from collections.abc import Callable
from typing import Any

from ordmap import real_time as time
from ordmap.engine.last_words import LastWords
from ordmap.limit import timed

__all__ = ["TIMED_OUT", "Clock"]

#: The exit code of a process that its clock has ended.
TIMED_OUT = -signal.SIGALRM

#: Seconds for which one setting of the timer serves all items that begin; it ends an item up to so much later.
_SLACK = 0.005

#: Seconds that are as good as for ever, and fit into a word of the board.
_NEVER = 1e12


class Clock:
    """The clock of this worker, whose last words say what it has ended.

    The worker's ``row`` of the board says when it is to do so: the caller sees whether it has.
    """

    def __init__(self, last_words: LastWords, row: memoryview) -> None:
        self._file = last_words.file
        self._row = row
        self._set_until = 0.0  # when it is to be set anew; 0: it stands still

    def timed(self, compute: Callable[[Any], Any], limit: float) -> Callable[[Any], Any]:
        """Return a function that computes an item of a chunk; one that takes too long raises, or ends this process.

        The clock runs on after it, for the next one, until `stop`.
        """
        self._make_ready()
        compute = timed(compute, limit)
        clock = time.perf_counter
        slack = min(_SLACK, limit / 4)
        row = self._row
        until = min(limit + slack, _NEVER)

        def set_and_compute(key: Any) -> Any:
            now = clock()
            if now >= self._set_until:
                self._set_until = now + slack
                signal.setitimer(signal.ITIMER_REAL, limit + slack)
                row[5] = int((now + until) * 1e6)
            return compute(key)

        return set_and_compute

    def stop(self) -> None:
        """Stop the clock: what comes now may take its time, until another item begins."""
        if self._set_until:
            self._set_until = 0.0
            self._row[5] = 0
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _make_ready(self) -> None:
        """Have the signal end this process, whatever other items have made of it."""
        faulthandler.unregister(signal.SIGALRM)  # a worker of this worker's inherits it, with the file
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        faulthandler.register(signal.SIGALRM, file=self._file, all_threads=True, chain=True)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])
