"""Resource trackers of the items: the helpers that remove what an item leaves in shared memory or temporary folders.

The standard library starts one with the first `SharedMemory` or named semaphore of a program, joblib another. It does
its work when all that use it have ended, and then ends itself. So it must outlive a worker that is killed with its
process group, by its caller or by the kernel: it gets a group of its own. It also holds the worker's end of the leash,
so that the caller sees when it ends, and waits for it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import select
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from ordmap import real_time as time
from ordmap.engine.memory import close_all
from ordmap.shielded import noted
from ordmap.when_imported import when_imported

__all__ = ["PATIENCE", "callers_tracker", "held", "outlive_workers", "tracker_kept"]

#: Seconds that the caller waits for trackers at the end of their workers.
PATIENCE = 5.0

#: What the command line of every tracker has, that of joblib's, too.
_COMMAND = "resource_tracker import main"


# In the caller


def callers_tracker() -> int | None:
    """Return the descriptor of this process's own tracker, if there is one."""
    module: Any = sys.modules.get("multiprocessing.resource_tracker")
    file: int | None = getattr(getattr(module, "_resource_tracker", None), "_fd", None)
    return file


@contextlib.contextmanager
def tracker_kept() -> Iterator[int | None]:
    """Give what a fork in here needs to use the caller's tracker: Python may take that from it, as it forks."""
    file = callers_tracker()
    if file is None:
        yield None
        return
    kept: list[int] = []
    try:
        noted(kept, os.dup, file)
        yield kept[0]
    finally:
        close_all(kept)


def held(leashes: Sequence[socket.socket], seconds: float = 0.0) -> list[socket.socket]:
    """Return those leashes of dead workers that a tracker still holds after some seconds; the others are closed."""
    left = {leash.fileno(): leash for leash in leashes}
    poll = select.poll()
    for file in left:
        poll.register(file, 0)  # its end alone
    give_up = time.monotonic() + seconds
    while left and (ended := poll.poll(max(0.0, give_up - time.monotonic()) * 1000)):
        for file, _ in ended:
            poll.unregister(file)
            left.pop(file).close()
    return list(left.values())


# In a worker


#: The worker's end of its leash.
_leash = -1


def outlive_workers(leash: int, tracker: int | None) -> None:
    """Have this worker's trackers live until they have done their work.

    ``tracker``: a descriptor of the caller's, which is used here, too. It knows of all segments.
    """
    global _leash
    is_first, _leash = _leash < 0, leash
    if tracker is not None:
        when_imported("multiprocessing.resource_tracker", functools.partial(_share, tracker=tracker))
    if is_first:  # else this was done in the worker that this one is forked from
        when_imported("multiprocessing.util", _start_in_a_group)
        if tracker is None:
            when_imported("multiprocessing.shared_memory", _leave_to_its_maker)


def _share(module: Any, tracker: int) -> None:
    own = module._resource_tracker
    if own._fd is None:
        own._fd = tracker
    else:
        os.close(tracker)
    own._pid = None  # it is no child of this process


def _start_in_a_group(util: Any) -> None:
    """Have trackers started in a process group of their own."""
    start = util.spawnv_passfds

    def spawnv_passfds(path: Any, args: Sequence[Any], passfds: Sequence[int]) -> int:
        if _COMMAND not in os.fsdecode(args[-1]):
            return int(start(path, args, passfds))
        import subprocess  # most workers have no tracker

        process = subprocess.Popen(  # noqa: S603  what the standard library would run
            args,
            executable=path,
            pass_fds=(*passfds, _leash),
            restore_signals=False,
            process_group=0,
        )
        process.returncode = 0  # its number is all that anybody needs
        return process.pid

    util.spawnv_passfds = spawnv_passfds


def _leave_to_its_maker(module: Any) -> None:
    """Have a tracker of this worker's own told of the segments alone that are made here.

    One that the caller has made would be removed with this worker's end, for `SharedMemory` tells the tracker of those,
    too, that it opens. And the tracker runs before there is anything to track, lest the worker be killed in between.
    """
    tracking = module.resource_tracker = _Tracking(module.resource_tracker)
    kind = module.SharedMemory
    begin = kind.__init__

    @functools.wraps(begin)
    def __init__(self: Any, name: str | None = None, create: bool = False, *args: Any, **kwargs: Any) -> None:  # noqa: N807, FBT001, FBT002
        with tracking.of(made=create):
            begin(self, name, create, *args, **kwargs)

    kind.__init__ = __init__


class _Tracking(threading.local):
    """Stands between shared memory and the module of the tracker."""

    def __init__(self, module: Any) -> None:
        self._module = module
        self._is_made = True

    @contextlib.contextmanager
    def of(self, *, made: bool) -> Iterator[None]:
        """Track what is made, and not what is opened, in here."""
        if made:
            self._module.ensure_running()
        self._is_made = made
        try:
            yield
        finally:
            self._is_made = True

    def register(self, name: str, kind: str) -> None:
        if self._is_made:
            _made.add(name)
            self._module.register(name, kind)

    def unregister(self, name: str, kind: str) -> None:
        if name in _made:
            _made.discard(name)
            self._module.unregister(name, kind)


#: The names of the segments that were made here.
_made: set[str] = set()
