"""What a caller and its forked workers can't both use: found before the fork, among what the items reach.

A connection that two processes write to mixes up their questions and answers, and some libraries refuse a fork
altogether. Read-only files are no concern here: a worker opens them anew by itself (`ordmap.engine.inherited`).
"""

from __future__ import annotations

import copy
import fcntl
import os
import socket
import stat
import sys
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from ordmap.backends.reach import Reached, file_of, reached
from ordmap.interrupts import pass_on
from ordmap.telling import warn

__all__ = ["Shared", "reconnects"]

#: Objects that are looked at before a fork, and elements of each container.
_LOOKS = 300
_BREADTH = 8

#: What one process alone may use, by module and class.
_UNSHARABLE = {
    ("_duckdb", "DuckDBPyConnection"): "a database connection",
    ("aiohttp.client", "ClientSession"): "an HTTP session",
    ("builtins", "Environment"): "an LMDB environment",
    ("duckdb.duckdb", "DuckDBPyConnection"): "a database connection",
    ("ftplib", "FTP"): "an FTP connection",
    ("grpc._channel", "Channel"): "a gRPC channel",
    ("h5py._hl.files", "File"): "an HDF5 file open for writing",
    ("imaplib", "IMAP4"): "a mail connection",
    ("mysql.connector.abstracts", "MySQLConnectionAbstract"): "a database connection",
    ("MySQLdb.connections", "Connection"): "a database connection",
    ("oracledb.connection", "BaseConnection"): "a database connection",
    ("paramiko.client", "SSHClient"): "an SSH connection",
    ("paramiko.transport", "Transport"): "an SSH connection",
    ("psycopg", "Connection"): "a database connection",
    ("psycopg2.extensions", "connection"): "a database connection",
    ("pymysql.connections", "Connection"): "a database connection",
    ("pyodbc", "Connection"): "a database connection",
    ("smtplib", "SMTP"): "a mail connection",
    ("sqlalchemy.engine.base", "Connection"): "a database connection",
    ("sqlalchemy.orm.session", "Session"): "a database session",
    ("sqlite3", "Connection"): "a database connection",
    ("sqlite3", "Cursor"): "a database connection's cursor",
    ("subprocess", "Popen"): "a program with a pipe",
    ("zipfile", "ZipFile"): "an archive open for writing",
}

#: Clients that open a connection when they have none: a worker lets go of the caller's, and they do.
_RECONNECTING = {
    ("requests.sessions", "Session"),
    ("urllib3.connectionpool", "ConnectionPool"),
    ("urllib3.poolmanager", "PoolManager"),
    ("httpx", "Client"),
}

#: Verdicts on a class, beside what is said of one that can't be shared, and "" for one of no concern.
_PASSED, _RECONNECTS, _CLOSED, _REMADE, _HAS_FILE = "passed", "reconnects", "closed", "remade", "has a file"

_VERDICTS = (
    _UNSHARABLE
    | dict.fromkeys(_RECONNECTING, _RECONNECTS)
    | {("http.client", "HTTPConnection"): _CLOSED, ("fsspec.asyn", "AsyncFileSystem"): _REMADE}
    | {("logging", "Filterer"): _PASSED, ("threading", "Thread"): _PASSED}
)

_CONNECTED = {(family, socket.SOCK_STREAM) for family in (socket.AF_INET, socket.AF_INET6)}

_STANDARD = (0, 1, 2)

_WRITABLE = os.O_WRONLY | os.O_RDWR


class Shared:
    """What items reach of a caller's that a fork would share.

    ``renewals`` are to be called in a worker, before any item, and have it use something of its own.
    """

    def __init__(self, roots: Iterable[object]) -> None:
        self.renewals: list[Callable[[], object]] = []
        self._found: list[tuple[Reached, str]] = []
        known: dict[int, str] = {}  # by address, since a class may have no hash
        for one in reached(roots, _LOOKS, _BREADTH):
            kind = type(one.thing)
            verdict = known.get(id(kind))
            if verdict is None:
                verdict = known[id(kind)] = _verdict_on(kind)
            if verdict:
                self._judge(one, verdict)

    def _judge(self, one: Reached, verdict: str) -> None:
        what: str | None = None
        if verdict == _HAS_FILE:
            what = _state_of(one.thing) if one.used else None
        else:
            one.ends = True
            if verdict == _CLOSED:
                self.renewals.append(one.thing.close)  # type: ignore[attr-defined]  # says nothing to the server
            elif verdict == _REMADE:
                self.renewals.append(partial(_remake, one.thing))
            elif verdict not in {_PASSED, _RECONNECTS} and one.used and _is_in_use(one.thing):
                what = verdict
        if what is not None:
            one.ends = True
            self._found.append((one, what))

    def warn(self) -> None:
        """Say once what can't be shared, and what to write instead."""
        if not self._found:
            return
        found = ", ".join(f"{one} ({what})" for one, what in self._found[:3])
        more = f" and {len(self._found) - 3} more" if len(self._found) > 3 else ""  # noqa: PLR2004  as above
        warn(
            f"forked workers would share with this process what one alone may use: {found}{more}. Open it in each "
            "worker: in a function that the backend gets as initializer=, or on first use in the item"
        )


def _verdict_on(kind: type) -> str:
    for base in kind.__mro__[:-1]:
        verdict = _VERDICTS.get((base.__module__, base.__qualname__))
        if verdict is not None:
            return verdict
    return _HAS_FILE if getattr(kind, "fileno", None) is not None else ""


def reconnects(kind: type) -> bool:
    """Whether these are clients that open a connection anew where the one they have is at its end."""
    return _verdict_on(kind) in {_RECONNECTS, _CLOSED}


def _is_in_use(thing: Any) -> bool:
    """Whether something of such a kind is open, and written to where only that does harm."""
    if isinstance(thing, sys.modules["subprocess"].Popen if "subprocess" in sys.modules else ()):
        return thing.stdin is not None or thing.stdout is not None
    try:
        mode = getattr(thing, "mode", None)
        return mode not in {"r", "rb"} and (mode is None or getattr(thing, "fp", thing) is not None)
    except Exception as error:  # of the library's: it is closed
        pass_on(error)
        return False


def _state_of(thing: Any) -> str | None:
    """Return what is wrong with sharing an open file or a socket, if anything is."""
    file = file_of(thing)
    try:
        if file is None or file in _STANDARD or thing is sys.stdout or thing is sys.stderr:
            return None  # items may print, wherever that goes
        if stat.S_ISREG(os.fstat(file).st_mode):
            flags = fcntl.fcntl(file, fcntl.F_GETFL)
            return "a file open for writing" if flags & _WRITABLE and not flags & os.O_APPEND else None
        if issubclass(type(thing), socket.socket) and (thing.family, thing.type) in _CONNECTED:
            thing.getpeername()
            return "a connection"
    except OSError:  # closed meanwhile, or not connected
        return None
    return None


def _remake(thing: object) -> None:
    """Have a copy's state in the place of what says that it belongs to another process."""
    fresh = copy.copy(thing)  # by its own way to be pickled, which makes it anew
    thing.__dict__ = fresh.__dict__
    _remade.append(fresh)  # whose end would close what both use


_remade: list[object] = []
