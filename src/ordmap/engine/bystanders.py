"""The caller's other threads, which a fork lacks: what they have in hand when it is made.

A lock that one of them holds is held for ever in the fork, and a module that one imports is never finished there. So,
where there are such threads, the caller waits a moment before it forks: for imports to end, and for the locks that
items can reach. What is in hand nevertheless is made new in the fork. (To hold the locks over the fork, as POSIX has C
programs do, would hang where a library's own hook at the fork takes one of them.)
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence
from importlib import _bootstrap
from typing import Any

from ordmap import real_time as time
from ordmap.backends.reach import reached
from ordmap.shielded import passes

__all__ = ["Bystanders"]

#: Seconds that a fork waits for other threads to finish what they import.
_IMPORTING = 5.0

#: Seconds that it waits for locks.
_LOCKED = 0.25

#: Threads that are named in a message.
_NAMES = 3

#: Objects that are looked at on the way to locks, and elements of each container.
_LOOKS, _BREADTH = 3000, 100

_imports: Any = _bootstrap

#: By address: a metaclass may forbid to hash or compare.
_LOCKS = frozenset(map(id, (type(threading.Lock()), type(threading.RLock()))))

#: The locks of imports that no fork waits for once more.
_endless: weakref.WeakSet[Any] = weakref.WeakSet()


class Bystanders:
    """The threads beside this one, which forks workers."""

    def __init__(self) -> None:
        self._roots: Sequence[object] = ()
        self._locks: list[Any] = []
        self._patience = _LOCKED

    def __str__(self) -> str:
        """Return them in words; nothing, where there are none."""
        names = [thread.name for thread in threading.enumerate() if thread is not threading.current_thread()]
        words = [f"the threads {', '.join(names[:_NAMES])}{' …' if len(names) > _NAMES else ''}"] if names else []
        of_libraries = _count_threads() - 1 - len(names)
        if of_libraries > 0:
            words.append(f"{of_libraries} of libraries" if words else f"{of_libraries} threads of libraries")
        return " and ".join(words)

    def settle(self, roots: Sequence[object]) -> None:
        """Wait until nothing of theirs is in the way of a fork, but not for long; items begin with the ``roots``."""
        if threading.active_count() == 1:
            return
        _wait_for_imports()
        if list(map(id, roots)) != list(map(id, self._roots)):
            self._roots = roots
            self._locks = list(_locks_within(roots))
        for lock in self._locks:
            began = time.monotonic()
            passes(lock, True, max(0.0, self._patience))
            self._patience -= time.monotonic() - began

    def begin_in_fork(self) -> None:
        """In the fork: have the others' locks free, and their imports begin anew."""
        for lock in self._locks:
            if lock.acquire(blocking=False):
                lock.release()
            else:
                lock._at_fork_reinit()
        for name, _ in _imports_of_others():
            _imports._module_locks.pop(name, None)
            spec = getattr(sys.modules.get(name), "__spec__", None)
            if getattr(spec, "_initializing", False):
                del sys.modules[name]


def _count_threads() -> int:
    try:
        return len(os.listdir("/proc/self/task"))  # noqa: PTH208  pathlib takes longer to import than all this
    except OSError:  # there is no descriptor left, so that there will be no fork either
        return 0


def _imports_of_others() -> list[tuple[str, Any]]:
    """Return the modules that other threads import now, and the locks that say so."""
    me = threading.get_ident()
    locks = [(name, reference()) for name, reference in list(_imports._module_locks.items())]
    return [(name, lock) for name, lock in locks if lock is not None and lock.owner not in {None, me}]


def _wait_for_imports() -> None:
    until = time.monotonic() + _IMPORTING
    while waited_for := [lock for _, lock in _imports_of_others() if lock not in _endless]:
        if time.monotonic() > until or _blocks_others():
            _endless.update(waited_for)
            return
        time.sleep(0.002)


def _blocks_others() -> bool:
    """Whether this thread is amid an import that another one waits for, and so would be waited for by it."""
    me = threading.get_ident()
    for thread in threading.enumerate():
        blocking = _imports._blocking_on.get(thread.ident) or ()  # a lock; since Python 3.13 a list of locks
        if any(lock.owner == me for lock in (blocking if isinstance(blocking, list | tuple) else [blocking])):
            return True
    return False


def _locks_within(roots: Iterable[object]) -> Iterator[Any]:
    """Yield the locks that can be reached in few steps: the nearest first, and not those behind very many objects."""
    for one in reached(roots, _LOOKS, _BREADTH):
        kind = type(one.thing)  # not isinstance(), which asks the object, too
        if id(kind) in _LOCKS:
            yield one.thing
        elif issubclass(kind, threading.Condition):
            one.ends = True  # its other locks are held by those that wait: that is how it works
            yield from _locks_within([vars(one.thing).get("_lock")])
        elif issubclass(kind, threading.Thread):
            one.ends = True
