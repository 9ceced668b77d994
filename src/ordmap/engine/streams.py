"""Which of the caller's streams a forked worker's items may use: only those stay open in it.

A stream is a pipe or a stream socket: what has an end that another process may wait for.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ordmap.backends.reach import reached
from ordmap.backends.sharing import reconnects

__all__ = ["used_streams"]

#: Objects that are looked at in search of a stream, and elements of each container.
_LOOKS = 5000
_BREADTH = 64


def used_streams(roots: Iterable[object], local: Callable[[], Iterable[int]]) -> Iterator[int]:
    """Yield the descriptors that the roots reach, beside multiprocessing's own and others that are no streams.

    A bare number counts where no program's pipe has it. ``local`` gives all pipes and Unix sockets.
    """
    if gc.get_freeze_count() and "multiprocessing.connection" in sys.modules:
        yield from local()  # which of them are in frozen connections can't be told
    for connection in _instances("multiprocessing.connection", "Connection"):
        yield from _files_of(connection)
    for module, owner, name in _OF_MULTIPROCESSING:
        file = getattr(getattr(sys.modules.get(module), owner, None), name, None)
        if file is not None:
            yield file
    programs_pipes = {
        file
        for program in _instances("subprocess", "Popen")
        for stream in (program.stdin, program.stdout, program.stderr)
        for file in _files_of(stream)
    }
    for one in reached([*roots, *_belongings_of_the_process()], _LOOKS, _BREADTH):
        if type(one.thing) is int:
            if one.thing not in programs_pipes:
                yield one.thing
        elif reconnects(type(one.thing)):
            one.ends = True
        else:
            yield from _files_of(one.thing)


#: Where the standard library keeps the pipes by which its helpers know that somebody needs them.
_OF_MULTIPROCESSING = (
    ("multiprocessing.resource_tracker", "_resource_tracker", "_fd"),
    ("multiprocessing.forkserver", "_forkserver", "_forkserver_alive_fd"),
)


def _instances(module: str, name: str) -> Iterator[Any]:
    """Yield the instances of a class, if its module is imported, at 13 nanoseconds for each object that there is."""
    kind = getattr(sys.modules.get(module), name, None)
    if kind is not None:
        yield from (one for one in gc.get_referrers(kind) if isinstance(one, kind))


def _belongings_of_the_process() -> Iterator[object]:
    """Yield what every item uses, by way of the standard library: the streams, logging's handlers, the event loop."""
    yield from (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
    logging = sys.modules.get("logging")
    if logging is not None:
        yield from filter(None, [reference() for reference in list(logging._handlerList)])
    policy = getattr(sys.modules.get("asyncio.events"), "_event_loop_policy", None)
    yield getattr(getattr(policy, "_local", None), "_loop", None)


def _files_of(thing: object) -> Iterator[int]:
    if getattr(type(thing), "fileno", None) is not None:
        try:
            file = thing.fileno()  # type: ignore[attr-defined]
        except Exception:  # it is closed, or has none
            return
        if isinstance(file, int):
            yield file
