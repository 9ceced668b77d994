"""The standard streams of a worker process.

A forked worker has the caller's own objects, under whatever names the program has for them: what an item writes comes
out, be it by ``print`` or by a ``csv.writer(sys.stdout)`` that was made before. Their buffers may hold text of the
caller's, which is the caller's to print, and their locks may be held by a thread that the fork lacks. So both are made
anew, in place.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable
from typing import Any

from ordmap.interrupts import pass_on

__all__ = ["begin", "flush", "let_go_of_stdin", "settle"]

#: The caller's standard input, kept: were it collected, it would close the descriptor.
_inherited: list[object] = []

#: How to flush those streams of this worker that are Python's own, which takes a tenth of a microsecond.
_flushes: list[Callable[[], object]] = []


def flush() -> None:
    """Print all text that has been written so far to the standard streams, as far as these let it be."""
    for stream in _standard():
        try:
            stream.flush()
        except Exception as error:  # a closed or odd stream has nothing that could be printed
            pass_on(error)


def settle() -> None:
    """Print what an item has written, to its last byte, since its worker may be ended before the line is."""
    try:  # once a chunk: a context manager would take longer than the rest
        for flush_one in _flushes:
            flush_one()
    except Exception:
        _flushes.clear()  # the item has closed one, or no process reads any more


def begin(*, inherited: bool) -> None:
    """Have the streams be this process's own, and print line by line: a worker that is ended has no time to flush.

    ``inherited``: what is in them now is the caller's.
    """
    if inherited:
        with io.FileIO(os.devnull, "r+") as null:
            for stream in (*_standard(), *_of_logs()):
                with contextlib.suppress(Exception):  # it is closed, or detached, or stands on something odd
                    _empty(stream, null)
    _flushes.clear()
    for stream in _standard():
        if isinstance(stream, io.TextIOWrapper):
            with contextlib.suppress(Exception):  # ditto, or its reader is gone: the items will hear of it
                stream.reconfigure(line_buffering=True, write_through=False)
                _flushes.append(stream.flush)


def let_go_of_stdin() -> None:
    """Have nothing read that is meant for the caller, or typed at its terminal."""
    _inherited.append(sys.stdin)
    sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115, PTH123  for the life of this process
    if os.isatty(0):  # a program that an item runs would be stopped when it reads, being in the background
        os.dup2(sys.stdin.fileno(), 0)


def _standard() -> list[Any]:
    """Return the standard streams, each once: a program may have put anything in their places."""
    streams = (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
    return list({id(stream): stream for stream in streams if stream is not None}.values())


def _of_logs() -> list[Any]:
    """Return the streams that the handlers of `logging` write to, by which any item may write."""
    handlers = getattr(sys.modules.get("logging"), "_handlerList", ())
    return [getattr(reference(), "stream", None) for reference in list(handlers)]


def _empty(stream: Any, null: io.FileIO) -> None:
    """Drop what a stream has buffered, and have it make its lock anew, by writing to ``null`` for a moment."""
    if not isinstance(stream, io.TextIOWrapper):
        return
    buffer: Any = stream.buffer
    if type(buffer) is not io.BufferedWriter or buffer.closed:
        return
    raw = buffer.raw
    io.BufferedWriter.__init__(buffer, null)  # empty, and with a lock of this process's
    try:
        io.TextIOWrapper.flush(stream)
    finally:
        io.BufferedWriter.__init__(buffer, raw)
