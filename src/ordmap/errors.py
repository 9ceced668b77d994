"""The exceptions that are ordmap's own; a user's exception is never wrapped in one of them without need."""

from __future__ import annotations

__all__ = [
    "BackendUnavailableError",
    "CheckpointError",
    "ItemTimeoutError",
    "OrdmapError",
    "RemoteError",
    "WorkerDiedError",
]


class OrdmapError(Exception):
    """The root of every exception that ordmap itself defines.

    ``index`` is the index of the item concerned, or ``None`` where no item is; ``attempts`` is how often that was
    tried.
    """

    def __init__(self, message: str, *, index: int | None = None, attempts: int = 1) -> None:
        super().__init__(message)
        self.index = index
        self.attempts = attempts


class RemoteError(OrdmapError):
    """An item's failure that can't be raised as itself.

    Two kinds of exception arrive so: those that can't be pickled on the way from a worker, and those that would
    silently end the caller's loop (``StopIteration``, ``GeneratorExit``, ``SystemExit``, ``KeyboardInterrupt``, a
    cancellation …). A result that can't be pickled is a ``RemoteError`` of its item too.

    ``type_name`` is the qualified name of the original's class, ``remote_message`` its text, and
    ``remote_traceback`` the formatted traceback where there is one.
    """

    def __init__(
        self,
        message: str,
        *,
        index: int | None = None,
        type_name: str = "",
        remote_message: str = "",
        remote_traceback: str = "",
    ) -> None:
        super().__init__(message, index=index)
        self.type_name = type_name
        self.remote_message = remote_message
        self.remote_traceback = remote_traceback


class WorkerDiedError(OrdmapError):
    """A worker process ended while it had work: a segmentation fault, ``os._exit``, the out-of-memory killer.

    ``pid`` is the number of the process, ``exit_code`` what ``subprocess`` would give (a signal's number, negated,
    where one killed it), and ``signal`` that signal's name, such as ``"SIGSEGV"``; ``None`` what isn't known. ``stack``
    says where each of its threads was, as text, where the signal was one of those that `faulthandler` tells of.

    Where the backend can't tell which item did it (see the table of promises), ``index`` is the first item that was
    not delivered, and the run ends.
    """

    def __init__(
        self,
        message: str,
        *,
        index: int | None = None,
        attempts: int = 1,
        pid: int | None = None,
        exit_code: int | None = None,
        signal: str | None = None,
        stack: str = "",
    ) -> None:
        super().__init__(message, index=index, attempts=attempts)
        self.pid = pid
        self.exit_code = exit_code
        self.signal = signal
        self.stack = stack


class ItemTimeoutError(OrdmapError, TimeoutError):
    """An item ran for longer than the call's ``item_timeout``.

    ``limit`` is that time, and ``elapsed`` how long the item ran until it came to its end or was given up, both in
    seconds; where its worker was ended that is the limit. ``stack`` says where it was when it was given up, as text;
    it is empty where the item came to its end, too late, and where it had closed all files.
    """

    def __init__(
        self, message: str, *, index: int | None = None, limit: float = 0.0, elapsed: float = 0.0, stack: str = ""
    ) -> None:
        super().__init__(message, index=index)
        self.limit = limit
        self.elapsed = elapsed
        self.stack = stack


class BackendUnavailableError(OrdmapError):
    """The backend can't be used here; the message says what to install or to write instead."""


class CheckpointError(OrdmapError):
    """A state that is not of such an iterator, or that comes too late for it."""
