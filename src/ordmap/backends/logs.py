"""The caller's configuration of ``logging``, on its way to fresh interpreters: what items log comes out as in a fork.

A handler travels without what only its process has: it gets a lock of its own, connects anew where it has a socket,
writes to the standard stream of the same name, and appends to the same file. One that can't travel is left out, and
that is said.
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import socket
import sys
import threading
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from ordmap.interrupts import pass_on
from ordmap.telling import warn

if TYPE_CHECKING:
    import logging

__all__ = ["Logs", "note", "take_over"]

_STREAMS = ("stdout", "stderr", "__stdout__", "__stderr__")
_NUMBERS = (1, 2)

#: The place of what doesn't travel: a handler that does nothing, so that records don't go where there is none.
_NONE = -1

_LOCKS = (type(threading.Lock()), type(threading.RLock()))


class _Logger(NamedTuple):
    """What a program has made of a logger; ``handlers`` and ``filters`` are places in `Logs.parts`."""

    name: str
    level: int
    propagate: bool
    disabled: bool
    handlers: list[int]
    filters: list[int]


class Logs(NamedTuple):
    """A configuration; ``parts`` are handlers, filters and what makes loggers and records, each pickled for itself.

    What may be one of them or none is a list of places.
    """

    loggers: list[_Logger]
    parts: list[bytes]
    levels: dict[int, str]
    logger_class: list[int]
    record_factory: list[int]
    disable: int
    captures_warnings: bool


def note() -> Logs | None:
    """Return how ``logging`` is configured; ``None``: the program has not configured it."""
    logging = sys.modules.get("logging")
    if logging is None or not hasattr(logging, "root"):  # another thread is importing it
        return None
    root = logging.root
    known = list(root.manager.loggerDict.values())
    parts = _Parts()
    loggers = [
        _Logger(
            one.name,
            one.level,
            one.propagate,
            one.disabled,
            parts.places(one.handlers),
            parts.places(one.filters),
        )
        for one in (root, *(one for one in known if isinstance(one, logging.Logger)))
    ]
    found = [one for one in loggers if one[1:] != (logging.NOTSET, True, False, [], [])]
    makers = (logging.getLoggerClass(), logging.getLogRecordFactory())
    logger_class, record_factory = (
        parts.places([one] if one is not own else [])
        for one, own in zip(makers, (logging.Logger, logging.LogRecord), strict=True)
    )
    captures = logging._warnings_showwarning is not None
    is_new = found == [("root", logging.WARNING, True, False, [], [])] and not parts.pickled
    if is_new and not root.manager.disable and not captures:
        return None
    levels = dict(logging._levelToName)
    return Logs(found, parts.pickled, levels, logger_class, record_factory, root.manager.disable, captures)


class _Parts:
    """What travels, each once."""

    def __init__(self) -> None:
        self.pickled: list[bytes] = []
        self._places: dict[int, int] = {}

    def places(self, parts: list[Any]) -> list[int]:
        """Return where these are; those that can't be pickled are said to be left out."""
        for part in parts:
            if id(part) not in self._places:
                self._places[id(part)] = self._place_of_new(part)
        return [self._places[id(part)] for part in parts]

    def _place_of_new(self, part: Any) -> int:
        if isinstance(getattr(part, "stream", None), io.StringIO):
            return _NONE  # its own process alone could read it
        try:
            self.pickled.append(_pickled(part))
        except Exception as error:
            pass_on(error)
            warn(
                f"{part!r} of your logging can't travel to fresh interpreters, where items log without it "
                f"({type(error).__name__}: {error}): add it there by initializer="
            )
            return _NONE
        return len(self.pickled) - 1


def _pickled(part: Any) -> bytes:
    from cloudpickle import CloudPickler  # the caller of fresh interpreters has it anyway

    class Pickler(CloudPickler):  # type: ignore[misc]
        def reducer_override(self, thing: Any) -> Any:
            reduced = _reduced(thing)
            return super().reducer_override(thing) if reduced is NotImplemented else reduced

    file = io.BytesIO()
    Pickler(file, pickle.HIGHEST_PROTOCOL).dump(part)
    return file.getvalue()


def _reduced(thing: Any) -> Any:
    """Return how something travels that is a process's own."""
    if isinstance(thing, _LOCKS):
        return threading.RLock, ()
    for name in _STREAMS:
        if thing is getattr(sys, name, None):
            return getattr, (sys, name)
    if isinstance(thing, io.TextIOWrapper):
        return _file(thing)
    # The standard library's handlers connect when they have no socket; the records that one holds are the caller's.
    if isinstance(thing, socket.socket | sys.modules["logging"].LogRecord):
        return type(None), ()
    if isinstance(thing, threading.local):
        return _local, (type(thing), vars(thing))
    queue = sys.modules.get("queue")  # without it there is none
    if queue is not None and isinstance(thing, queue.Queue):
        _refuse("its queue is emptied by a thread of the caller's")
    return NotImplemented


def _file(stream: io.TextIOWrapper) -> Any:
    number, path = stream.fileno(), stream.name
    if number in _NUMBERS:  # another stream on the same descriptor
        return open, (number, "w", 1, stream.encoding, stream.errors, None, False)
    if not (isinstance(path, str) and os.path.exists(path) and os.path.samestat(os.stat(path), os.fstat(number))):  # noqa: PTH110, PTH116
        _refuse(f"{stream!r} can't be opened once more")
    with contextlib.suppress(ImportError):  # Windows
        import fcntl

        # Else what the caller writes next would go where it was, over what the workers have written since.
        flags = fcntl.fcntl(number, fcntl.F_GETFL)
        fcntl.fcntl(number, fcntl.F_SETFL, flags | os.O_APPEND)
    return open, (os.path.abspath(path), "a", 1, stream.encoding, stream.errors)  # noqa: PTH100


def _refuse(reason: str) -> NoReturn:
    raise pickle.PicklingError(reason)


def _local(kind: type[threading.local], state: dict[str, Any]) -> threading.local:
    made = kind.__new__(kind, **state) if kind is not threading.local else kind()
    vars(made).update(state)
    return made


# In the worker


def take_over(logs: Logs | None) -> None:
    """Configure ``logging`` as the caller has."""
    if logs is None:
        return
    import logging

    parts = [*map(_unpickled, logs.parts), None]
    for number, name in logs.levels.items():
        logging.addLevelName(number, name)
    for place in logs.logger_class:
        logging.setLoggerClass(parts[place] or logging.Logger)
    for place in logs.record_factory:
        logging.setLogRecordFactory(parts[place] or logging.LogRecord)
    for noted in logs.loggers:
        one = logging.root if noted.name == "root" else logging.getLogger(noted.name)
        one.setLevel(noted.level)
        one.propagate = noted.propagate
        one.disabled = noted.disabled
        one.filters[:] = [parts[place] for place in noted.filters if parts[place] is not None]
        for handler in (parts[place] or logging.NullHandler() for place in noted.handlers):
            handler.addFilter(_Unless(one, handler))
            one.addHandler(handler)
    logging.disable(logs.disable)
    logging.captureWarnings(logs.captures_warnings)


def _unpickled(pickled: bytes) -> Any:
    """Return a part as it is here, or ``None`` where it can't be had."""
    import logging

    try:
        part = pickle.loads(pickled)
    except Exception as error:
        warn(f"a part of the caller's logging can't be had here: {error!r}")
        return None
    if type(getattr(part, "buffer", None)) is list:
        part.buffer.clear()
    if isinstance(part, logging.Handler):  # what its constructor does, beside setting attributes
        part.createLock()
        logging._addHandlerRef(part)  # type: ignore[attr-defined]
    return part


class _Unless:
    """Keeps a handler from doing again what one does that a module has given the same logger when it was imported."""

    def __init__(self, logger: logging.Logger, handler: logging.Handler) -> None:
        self._logger = logger
        self._handler = handler

    def filter(self, record: logging.LogRecord) -> bool:
        del record
        mine = _target(self._handler)
        return not any(other is not self._handler and _target(other) == mine for other in self._logger.handlers)


def _target(handler: logging.Handler) -> tuple[object, ...]:
    return type(handler), getattr(handler, "baseFilename", None) or id(getattr(handler, "stream", None))
