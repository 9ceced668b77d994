"""What a forked worker leaves alone: all that its caller has registered to be done at some end, or by some thread.

A fork copies the registries, too: of finalizers, exit functions, threads, log handlers. Each is emptied here, so that
what the worker and its items register is all that there is; what was in them is kept, since its end might be an action
in itself.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
import threading
import weakref
from collections.abc import Iterable
from typing import Any

__all__ = ["disown"]

#: The caller's own, which is not to end in this process.
_kept: list[object] = []


#: The packages that make joblib's pools.
_LOKY = ("joblib.externals.loky", "loky")


def disown() -> None:
    """Leave alone what is registered in this process, which was just forked."""
    gc.freeze()  # the caller collects its garbage itself: what that does at its end would be done twice
    atexit._clear()
    _disown_finalizers()
    _disown_logs()
    _disown_executors()
    _disown_server()
    _disown_loop()
    util = sys.modules.get("multiprocessing.util")
    if hasattr(util, "_exit_function"):
        atexit.register(util._exit_function)  # type: ignore[union-attr]


def _disown_server() -> None:
    """Have items that start processes by a fork server start one of their own."""
    module: Any = sys.modules.get("multiprocessing.forkserver")
    server = getattr(module, "_forkserver", None)
    if server is not None and server._forkserver_alive_fd is not None:
        os.close(server._forkserver_alive_fd)
        server._forkserver_address = server._forkserver_alive_fd = server._forkserver_pid = None


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
    """Have the caller's executors not wait for threads that a fork lacks: they start others, or refuse."""
    ends: Any = threading
    _kept.append(list(ends._threading_atexits))
    ends._threading_atexits.clear()
    ends._SHUTTING_DOWN = False  # the caller may be: a loop in one of its exit functions
    threads: Any = sys.modules.get("concurrent.futures.thread")
    if hasattr(threads, "ThreadPoolExecutor"):
        ends._register_atexit(threads._python_exit)
        _renew_threads(_emptied(threads._threads_queues))
    processes: Any = sys.modules.get("concurrent.futures.process")
    if hasattr(processes, "ProcessPoolExecutor"):
        ends._register_atexit(processes._python_exit)
        _break_pools(_emptied(processes._threads_wakeups))
    for name in _LOKY:
        loky: Any = sys.modules.get(f"{name}.reusable_executor")
        if hasattr(loky, "get_reusable_executor"):  # which gives all of a program one and the same
            holder = getattr(loky, "_executor_storage", loky)  # since loky 3.7; joblib's is older
            attribute = "_executor" if holder is loky else "executor"
            _kept.append(getattr(holder, attribute, None))
            setattr(holder, attribute, None)
            sys.modules[f"{name}.process_executor"].process_pool_executor_at_exit = None  # type: ignore[attr-defined]


def _renew_threads(threads: Iterable[Any]) -> None:
    """Have the executors of these threads without any, and with nothing to do."""
    import queue  # as the executors did; a caller without any does not need it

    for thread in threads:
        executor = _executor_of(thread)
        if executor is not None:
            _kept.append(executor._work_queue)
            executor._work_queue = queue.SimpleQueue()
            executor._threads = set()
            executor._idle_semaphore = threading.Semaphore(0)
            executor._shutdown_lock = threading.Lock()


def _break_pools(managers: Iterable[Any]) -> None:
    """Have the executors that these threads manage refuse what they are given."""
    for manager in managers:
        executor = manager.executor_reference()
        if executor is not None:
            executor._broken = (
                f"this pool is that of process {os.getppid()}, and its workers can't be reached from a fork: "
                "make one in the item or in the initializer"
            )


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
