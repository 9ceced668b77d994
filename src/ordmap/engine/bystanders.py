"""The caller's other threads, which a fork lacks: what they have in hand when it is made.

A lock that one of them holds is held for ever in the fork, and a module that one imports is never finished there. So,
where there are such threads, the caller waits a moment before it forks: for imports to end, and for the locks that
items can reach. What is in hand nevertheless is made new in the fork. (To hold the locks over the fork, as POSIX has C
programs do, would hang where a library's own hook at the fork takes one of them.)
"""

from __future__ import annotations

import functools
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import _bootstrap
from itertools import islice
from pathlib import Path
from types import CodeType, FunctionType, MemberDescriptorType, MethodType, ModuleType
from typing import Any

__all__ = ["Bystanders"]

#: Seconds that a fork waits for other threads to finish what they import.
_IMPORTING = 5.0

#: Seconds that it waits for locks.
_LOCKED = 0.25

#: Threads that are named in a message.
_NAMES = 3

#: Objects that are looked at on the way to locks, and of one container.
_MOST, _MOST_INSIDE = 3000, 100

_imports: Any = _bootstrap

_LOCKS = {
    id(type(threading.Lock())),
    id(type(threading.RLock())),
}  # by address: a metaclass may forbid to hash or compare

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
            if lock.acquire(timeout=max(0.0, self._patience)):
                lock.release()
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
        return len(list(Path("/proc/self/task").iterdir()))
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


def _locks_within(roots: Sequence[object]) -> Iterator[Any]:
    """Yield the locks that can be reached in few steps: the nearest first, and not those behind very many objects."""
    seen: dict[int, object] = {}
    pending = deque(roots)
    while pending and len(seen) < _MOST:
        one = pending.popleft()
        if id(one) in seen:
            continue
        seen[id(one)] = one
        if id(type(one)) in _LOCKS:
            yield one
        else:
            pending.extend(islice(_parts(one), _MOST_INSIDE))


def _parts(one: Any) -> Iterable[object]:
    """Return what an object holds, and the functions that its class gives it; no code of the user's runs."""
    kind = type(one)  # not isinstance(), which asks the object, too
    parts = _PARTS.get(id(kind))
    if parts is not None:
        return parts(one)
    if issubclass(kind, threading.Condition):
        return (vars(one).get("_lock"),)  # the others are held by those that wait: that is how it works
    if issubclass(kind, type):
        return [part for part in tuple(vars(one).values()) if id(type(part)) in _OF_CLASSES]
    return () if issubclass(kind, threading.Thread) else _parts_of_instance(one)


def _parts_of_function(function: FunctionType) -> Iterator[object]:
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # it is empty as yet
            continue
    yield from (function.__defaults__ or (), function.__kwdefaults__ or {}, vars(function))
    names = set(_names(function.__code__))
    for name in names:
        part = function.__globals__.get(name)
        if isinstance(part, ModuleType):
            yield from (value for name, value in tuple(vars(part).items()) if name in names)
        elif part is not None:
            yield part


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _parts_of_instance(one: Any) -> Iterator[object]:
    try:
        attributes = object.__getattribute__(one, "__dict__")
    except AttributeError:
        attributes = {}
    if type(attributes) is dict:
        yield from tuple(attributes.values())
    for kind in type(one).__mro__:
        if kind.__module__ != "builtins":
            yield kind
            for slot in tuple(vars(kind).values()):
                if type(slot) is MemberDescriptorType:
                    try:
                        yield slot.__get__(one)
                    except AttributeError:  # it is empty as yet
                        continue


def _nothing(_: object) -> Iterable[object]:
    return ()


#: What holds what, by the address of its type, and the types of what a class gives its instances.
_PARTS: dict[int, Callable[[Any], Iterable[object]]] = {
    **{id(kind): tuple for kind in (list, tuple, set, frozenset, deque)},
    **{id(kind): _nothing for kind in (ModuleType, CodeType, str, bytes, int, float, bool, complex, range, type(None))},
    id(dict): lambda one: tuple(one.values()),
    id(FunctionType): _parts_of_function,
    id(MethodType): lambda one: (one.__self__, one.__func__),
    id(functools.partial): lambda one: (one.func, one.args, one.keywords),
    id(property): lambda one: (one.fget,),
    id(staticmethod): lambda one: (one.__func__,),
    id(classmethod): lambda one: (one.__func__,),
}
_OF_CLASSES = {id(kind) for kind in (FunctionType, property, staticmethod, classmethod)}
