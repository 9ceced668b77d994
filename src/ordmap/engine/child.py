"""A worker as the standard library sees it: one of its child processes, from the start to the end.

`multiprocessing` is told what it tells the children that it starts itself: who they are, and whose. That is done when
it is imported, if ever. At the end all runs that the worker and its items have registered.
"""

from __future__ import annotations

import atexit
import itertools
import os
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, NamedTuple

from ordmap.when_imported import when_imported

__all__ = ["Introduction", "Parent", "become_child", "run_exit_functions"]


class Parent(NamedTuple):
    """The process that a worker is a child of, as `multiprocessing` knows it.

    ``authkey`` and ``start_method``: its own, where that is imported there and they are set.
    """

    pid: int
    name: str
    identity: tuple[int, ...]
    authkey: bytes | None
    start_method: str | None

    @classmethod
    def here(cls) -> Parent:
        """Describe this process."""
        process = sys.modules.get("multiprocessing.process")
        package = sys.modules.get("multiprocessing")
        if not hasattr(process, "_dangling") or not hasattr(package, "get_start_method"):  # not imported to its end
            return cls(os.getpid(), _name or "MainProcess", _identity, None, None)
        me: Any = package.current_process()  # type: ignore[union-attr]
        method = package.get_start_method(allow_none=True)  # type: ignore[union-attr]
        return cls(os.getpid(), me.name, me._identity, bytes(me.authkey), method)


#: This process's own, if it is a worker: `multiprocessing` may not be there to ask.
_name = ""
_identity: tuple[int, ...] = ()


def become_child(number: int, parent: Parent, sentinel: int) -> None:
    """Be the child of this number; ``sentinel``: a descriptor that becomes readable with the parent's death."""
    global _name, _identity
    is_first = not _name
    _identity = (*parent.identity, number)
    _name = "ordmap-" + ":".join(map(str, _identity))
    threading.main_thread()._set_native_id()  # type: ignore[attr-defined]  # a fork has its parent's
    when_imported("multiprocessing.process", partial(_enter, parent=parent, sentinel=sentinel))
    if parent.start_method is not None:
        when_imported("multiprocessing.context", lambda context: context._force_start_method(parent.start_method))
    if is_first:  # else this was done in the worker that this one is forked from
        when_imported("logging", _name_records)


def _enter(process: Any, *, parent: Parent, sentinel: int) -> None:
    """Have `multiprocessing` know this process as a child of its parent, with no children of its own."""
    me = process.BaseProcess(name=_name)  # with what children inherit of the present one
    me._identity = _identity
    me._parent_pid = parent.pid
    me._parent_name = parent.name
    me._config["daemon"] = False  # items may have children, whatever the caller may
    if parent.authkey is not None:
        me.authkey = parent.authkey
    process._current_process = me
    process._parent_process = process._ParentProcess(parent.name, parent.pid, sentinel)
    process._children = set()
    process._process_counter = itertools.count(1)


class Introduction:
    """Tells a worker, before it unpickles what comes behind this, what `multiprocessing` knows of its caller by now."""

    expected: ClassVar[tuple[int, int] | None] = None  # until a worker meets its caller: its number and leash

    def __init__(self) -> None:
        self._parent = Parent.here()

    def __reduce__(self) -> tuple[Any, ...]:
        return Introduction.meet, (self._parent,)

    @classmethod
    def meet(cls, parent: Parent) -> None:
        """Be its child, or have its key, which it may have got since this one was forked: managers ask for that."""
        if cls.expected is not None:
            number, leash = cls.expected
            cls.expected = None
            become_child(number, parent, leash)
        elif parent.authkey is not None:
            when_imported("multiprocessing.process", partial(_share_key, key=parent.authkey))


def _share_key(process: Any, key: bytes) -> None:
    process.current_process().authkey = key


def _name_records(logging: Any) -> None:
    """Have log records name this process: by itself `logging` asks `multiprocessing` where that is imported alone."""
    make = logging.getLogRecordFactory()

    def make_record(*args: Any, **kwargs: Any) -> Any:
        record = make(*args, **kwargs)
        if getattr(record, "processName", None) == "MainProcess":
            record.processName = _name
        return record

    logging.setLogRecordFactory(make_record)


def run_exit_functions() -> None:
    """Do what an interpreter does at its end: join threads, then call what is registered; an error stops nothing."""
    for step in _STEPS:
        try:
            step()
        except BaseException:
            sys.excepthook(*sys.exc_info())


_STEPS: tuple[Callable[[], object], ...] = (threading._shutdown, atexit._run_exitfuncs)  # type: ignore[attr-defined]
