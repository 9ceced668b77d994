"""What a forked worker leaves alone: all that its caller has registered to be done at some end, or by some thread.

A fork copies the registries, too: of finalizers, exit functions, threads, log handlers. Each is emptied here, so that
what the worker and its items register is all that there is; what was in them is kept, since its end might be an action
in itself.
"""

from __future__ import annotations

import atexit
import gc
import os
import queue
import sys
import threading
import weakref
from typing import Any

__all__ = ["disown"]

#: The caller's own, which is not to end in this process.
_kept: list[object] = []


def disown() -> None:
    """Leave alone what is registered in this process, which was just forked."""
    gc.freeze()  # the caller collects its garbage itself: what that does at its end would be done twice
    atexit._clear()
    _disown_finalizers()
    _disown_logs()
    _disown_executors()
    _disown_loop()
    util = sys.modules.get("multiprocessing.util")
    if hasattr(util, "_exit_function"):
        atexit.register(util._exit_function)  # type: ignore[union-attr]


def _emptied(registry: dict[Any, Any]) -> dict[Any, Any]:
    """Empty a registry, whose content is kept; return that."""
    content = dict(registry)
    _kept.append(content)
    registry.clear()
    return content


def _disown_finalizers() -> None:
    finalize: Any = weakref.finalize
    _emptied(finalize._registry)
    finalize._registered_with_atexit = finalize._shutdown = False
    util: Any = sys.modules.get("multiprocessing.util")
    if hasattr(util, "_exit_function"):
        _emptied(util._finalizer_registry)
        util._exiting = False


def _disown_logs() -> None:
    """Have the caller's handlers flushed at the end, but for what they hold now, and not closed."""
    logging: Any = sys.modules.get("logging")
    if not hasattr(logging, "shutdown"):
        return
    inherited = list(logging._handlerList)
    handlers: Any = sys.modules.get("logging.handlers")
    for reference in inherited:
        handler = reference()
        if hasattr(handlers, "BufferingHandler") and isinstance(handler, handlers.BufferingHandler):
            _kept.append(handler.buffer)
            handler.buffer = []
    atexit.register(_end_logs, logging, inherited)


def _end_logs(logging: Any, inherited: list[Any]) -> None:
    logging.shutdown([reference for reference in logging._handlerList if reference not in inherited])
    for reference in reversed(inherited):
        handler = reference()
        if handler is None:
            continue
        try:
            handler.acquire()
            try:
                handler.flush()
            finally:
                handler.release()
        except (OSError, ValueError):
            continue  # its stream is closed, as `logging` itself has it
        except Exception:
            sys.excepthook(*sys.exc_info())


def _disown_executors() -> None:
    """Have the caller's executors of threads start threads here, and its executors of processes refuse.

    They would wait for threads that a fork lacks.
    """
    threads: Any = sys.modules.get("concurrent.futures.thread")
    if hasattr(threads, "ThreadPoolExecutor"):
        for thread in _emptied(threads._threads_queues):
            executor = _executor_of(thread)
            if executor is not None:
                _kept.append(executor._work_queue)
                executor._work_queue = queue.SimpleQueue()
                executor._threads = set()
                executor._idle_semaphore = threading.Semaphore(0)
                executor._shutdown_lock = threading.Lock()
    processes: Any = sys.modules.get("concurrent.futures.process")
    if hasattr(processes, "ProcessPoolExecutor"):
        for thread in _emptied(processes._threads_wakeups):
            executor = thread.executor_reference()
            if executor is not None:
                executor._broken = (
                    f"this pool is that of process {os.getppid()}, and its workers can't be reached from a fork: "
                    "make one in the item or in the initializer"
                )
    own: Any = threading
    _kept.append(list(own._threading_atexits))
    own._threading_atexits.clear()
    own._SHUTTING_DOWN = False  # the caller may be: a loop in one of its exit functions
    for module in (threads, processes):
        if hasattr(module, "_python_exit"):
            own._register_atexit(module._python_exit)


def _executor_of(thread: Any) -> Any:
    """Return the executor that a thread works for, if both are there still."""
    arguments = getattr(thread, "_args", ())
    return arguments[0]() if arguments and isinstance(arguments[0], weakref.ref) else None


def _disown_loop() -> None:
    """Have this process without an event loop: the caller's shares its descriptors. From 3.12 on Python does so."""
    events: Any = sys.modules.get("asyncio.events")
    if sys.version_info >= (3, 12) or not hasattr(events, "BaseDefaultEventLoopPolicy"):
        return
    events._set_running_loop(None)
    policy = events._event_loop_policy
    if isinstance(policy, events.BaseDefaultEventLoopPolicy):
        _kept.append(policy._local)
        policy._local = type(policy)._Local()
