"""Which of the caller's streams a forked worker's items may use: only those stay open in it.

A stream is a pipe or a stream socket: what has an end that another process may wait for.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from typing import Any

from ordmap.backends.reach import file_of, reached
from ordmap.backends.sharing import reconnects

__all__ = ["used_streams"]

#: Objects that are looked at in search of a stream, and elements of each container.
_LOOKS = 5000
_BREADTH = 64


def used_streams(
    roots: Iterable[object], streams: AbstractSet[int], local: Callable[[], Iterable[int]]
) -> Iterator[int | None]:
    """Yield the descriptors that the roots reach, and multiprocessing's own; among others, and ``None``.

    ``streams`` are those that are open; a bare number counts where no program's pipe has it. ``local`` gives all pipes
    and Unix sockets.
    """
    if gc.get_freeze_count() and "multiprocessing.connection" in sys.modules:
        yield from local()  # which of them are in frozen connections can't be told
    for connection in _instances("multiprocessing.connection", "Connection"):
        yield file_of(connection)
    for module, owner, name in _OF_MULTIPROCESSING:
        yield getattr(getattr(sys.modules.get(module), owner, None), name, None)
    numbers: AbstractSet[int] | None = None
    for one in reached([*roots, *_belongings_of_the_process()], _LOOKS, _BREADTH):
        if type(one.thing) is int:
            if one.thing in streams:
                if numbers is None:
                    numbers = streams - set(_programs_pipes())
                yield from numbers & {one.thing}
        elif reconnects(type(one.thing)):
            one.ends = True
        else:
            yield file_of(one.thing)


#: Where the standard library, and what copies it, keep the pipes by which helpers know that a process needs them.
_OF_MULTIPROCESSING = (
    ("multiprocessing.resource_tracker", "_resource_tracker", "_fd"),
    ("loky.backend.resource_tracker", "_resource_tracker", "_fd"),
    ("joblib.externals.loky.backend.resource_tracker", "_resource_tracker", "_fd"),
    ("multiprocessing.forkserver", "_forkserver", "_forkserver_alive_fd"),
)


def _programs_pipes() -> Iterator[int | None]:
    for program in _instances("subprocess", "Popen"):
        yield from map(file_of, (program.stdin, program.stdout, program.stderr))


def _instances(module: str, name: str) -> Iterator[Any]:
    """Yield the instances of a class, if its module is imported, at 13 nanoseconds for each object that there is."""
    kind = getattr(sys.modules.get(module), name, None)
    if kind is not None:
        yield from (one for one in gc.get_referrers(kind) if issubclass(type(one), kind))


def _belongings_of_the_process() -> Iterator[object]:
    """Yield what every item uses, by way of the standard library: the streams, logging's handlers, the event loop."""
    yield from (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
    logging = sys.modules.get("logging")
    if logging is not None:
        yield from filter(None, [reference() for reference in list(logging._handlerList)])
    policy = getattr(sys.modules.get("asyncio.events"), "_event_loop_policy", None)
    yield getattr(getattr(policy, "_local", None), "_loop", None)
