"""What a forked worker keeps open of its caller's: what items may use, and nothing else.

A fork shares each open file with the caller, its position and its end. So a file that two workers read moves under
both, and a stream whose writer the caller closes never ends, since the worker has it open, too. Therefore a worker has

- its own description of each file that is open for reading alone, and of each that the caller has locked;
- none of the caller's streams (pipes, connections, listening sockets), but for the standard ones, those of
  multiprocessing and of logging's handlers, and those that the job leads to;
- its own epoll in place of each of the caller's.

Each number stays taken, by something that is at its end, since objects that own it may close it later.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
import stat
import threading
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet

from ordmap.engine import channel
from ordmap.engine.used_streams import used_streams

__all__ = ["Estate"]

_FILES = "/proc/self/fd"

_STANDARD = (0, 1, 2)

#: Status flags of an open file that do not say how to open it again.
_NOT_FOR_OPENING = os.O_PATH | (os.O_TMPFILE & ~os.O_DIRECTORY)

_FAMILIES = frozenset(map(int, (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_VSOCK)))


class Estate:
    """What a caller has open, made right before a fork; the child then calls `settle`.

    ``roots`` is what items may begin from. The places in files are noted here, since the caller may read on as soon as
    it has forked.
    """

    def __init__(self, roots: Iterable[object]) -> None:
        self._places: dict[int, int] = {}
        self._kept: AbstractSet[int | None] = frozenset()
        self._standard = {_identity(file) for file in _STANDARD}
        streams: set[int] = set()
        own = channel.numbers()  # a dup() of one is looked at, and no stream
        for file in _open_files():
            if file in own:
                continue
            try:
                self._places[file] = os.lseek(file, 0, os.SEEK_CUR)
            except OSError:
                if file not in _STANDARD and _is_stream(file):
                    streams.add(file)
        if streams:
            self._kept = frozenset(used_streams(roots, streams, self._local))
        # Where no other thread opens or closes files meanwhile, this process looks, once for all its workers.
        self._found = self._sorted() if threading.active_count() == 1 else None

    @staticmethod
    def _local() -> Iterator[int]:
        """Yield what may be the ends of a pipe or of a pair of sockets."""
        return filter(_is_local, _open_files())

    def settle(self, keep: int | None = None) -> None:
        """In the child: let go of what is the caller's alone, but for a descriptor that is to be kept."""
        # All, before any is opened: the numbers of those are not the caller's.
        files, streams, epolls = self._sorted() if self._found is None else _still_open(*self._found)
        locked = _locked_inodes() if files else None
        for file, inode in files.items():
            self._reopen(file, may_be_locked=locked is None or inode in locked)
        if keep is not None:
            streams.pop(keep, None)
        with contextlib.ExitStack() as ends:
            dead = _Dead(ends)
            for file, kind in streams.items():
                dead.replace(file, kind)
        for file in epolls:
            _renew_epoll(file, streams.keys())

    def _sorted(self) -> tuple[dict[int, int], dict[int, int], list[int]]:
        """Return the descriptors of files, with the inode; of the caller's streams, with the kind; and of epolls."""
        files = {}
        streams = {}
        epolls = []
        own = channel.numbers()
        for file in _open_files():
            if file in _STANDARD or file in own:
                continue
            try:
                status = os.fstat(file)
            except OSError:
                continue  # that of the listing
            kind = stat.S_IFMT(status.st_mode)
            if kind in {stat.S_IFREG, stat.S_IFDIR}:
                files[file] = status.st_ino
            elif not kind:
                epolls.append(file)
            elif file not in self._kept and (status.st_dev, status.st_ino) not in self._standard and _is_stream(file):
                streams[file] = kind
        return files, streams, epolls

    def _reopen(self, file: int, *, may_be_locked: bool) -> None:
        """Have an open description of this process's own, where nothing is written by way of the caller's."""
        flags = fcntl.fcntl(file, fcntl.F_GETFL)
        if flags & os.O_PATH or (flags & os.O_ACCMODE and not (may_be_locked and _is_locked(file))):
            return
        try:
            other = os.open(f"{_FILES}/{file}", flags & ~_NOT_FOR_OPENING | os.O_CLOEXEC)
        except OSError:
            return  # it may not be opened any more
        try:
            if place := self._places.get(file, 0):
                os.lseek(other, place, os.SEEK_SET)
            os.dup2(other, file, inheritable=os.get_inheritable(file))
        except OSError:
            return
        finally:
            os.close(other)


def _still_open(
    files: dict[int, int], streams: dict[int, int], epolls: list[int]
) -> tuple[dict[int, int], dict[int, int], list[int]]:
    """Return those that no hook at the fork has closed, as ours do with other pools' files."""
    return (
        {file: inode for file, inode in files.items() if _identity(file) is not None},
        {file: kind for file, kind in streams.items() if _identity(file) is not None},
        [file for file in epolls if _identity(file) is not None],
    )


def _open_files() -> list[int]:
    try:
        return [int(name) for name in os.listdir(_FILES)]  # noqa: PTH208  pathlib takes longer to import
    except OSError:
        return []  # this system doesn't say: all stays shared


def _identity(file: int) -> tuple[int, int] | None:
    try:
        status = os.fstat(file)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _is_stream(file: int, families: AbstractSet[int] = _FAMILIES) -> bool:
    """Whether this is a pipe, or a stream socket: what has an end that another process waits for."""
    try:
        mode = os.fstat(file).st_mode
        if stat.S_ISFIFO(mode):
            return True
        if not stat.S_ISSOCK(mode):
            return False
        end = socket.SocketType(fileno=file)
    except OSError:
        return False
    try:
        return end.type == socket.SOCK_STREAM and end.family in families
    finally:
        end.detach()


def _is_local(file: int) -> bool:
    return _is_stream(file, {int(socket.AF_UNIX)})


def _locked_inodes() -> AbstractSet[int] | None:
    """Return which files are locked by a process that has them open (``flock``); ``None``: this system doesn't say."""
    try:
        lines = _content("/proc/locks").splitlines()
    except OSError:
        return None
    fields = [line.replace(b"->", b"").split() for line in lines]
    return {int(field[5].rpartition(b":")[2]) for field in fields if field[1] in {b"FLOCK", b"OFDLCK"}}


def _is_locked(file: int) -> bool:
    """Whether the caller holds a lock by this very open file, which lasts for as long as any process has it open."""
    try:
        return b"\nlock:" in _content(f"/proc/self/fdinfo/{file}")
    except OSError:
        return False


def _content(path: str) -> bytes:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return b"".join(iter(lambda: os.read(file, 1 << 16), b""))
    finally:
        os.close(file)


class _Dead:
    """Streams at their end, made when they are needed, in place of those of the caller's."""

    def __init__(self, ends: contextlib.ExitStack) -> None:
        self._ends = ends
        self._made: dict[object, int] = {}

    def replace(self, file: int, kind: int) -> None:
        """Have a number that was a stream's be one at its end: nothing comes from it, and it takes nothing."""
        writes = kind == stat.S_IFIFO and fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY
        end = self._made.get((kind, writes))
        if end is None:
            end = self._made[kind, writes] = self._new(kind, writes=writes)
            self._ends.callback(os.close, end)
        os.dup2(end, file, inheritable=os.get_inheritable(file))

    @staticmethod
    def _new(kind: int, *, writes: bool) -> int:
        if kind == stat.S_IFIFO:
            ends = os.pipe()
            os.close(ends[not writes])
            return ends[writes]
        one, other = socket.socketpair()
        other.close()
        return one.detach()


def _renew_epoll(file: int, gone: AbstractSet[int]) -> None:
    """Have an epoll of this process's own, with the same registrations, if Python has made it.

    The caller's would go on to tell of what is registered there, and what this process registers would be told there.
    """
    try:
        if os.readlink(f"{_FILES}/{file}") != "anon_inode:[eventpoll]":  # noqa: PTH115
            return
        lines = _content(f"/proc/self/fdinfo/{file}").splitlines()
    except OSError:
        return
    words = [line.split() for line in lines if line.startswith(b"tfd:")]
    registered = [(int(word[1]), int(word[3], 16), int(word[5], 16)) for word in words]
    if any(one != data for one, _, data in registered):
        return  # C code's, which knows what it has registered by other means
    with select.epoll() as other:
        for one, events, _ in registered:
            if one not in gone:
                with contextlib.suppress(OSError):  # it is closed here
                    other.register(one, events)
        os.dup2(other.fileno(), file, inheritable=os.get_inheritable(file))
