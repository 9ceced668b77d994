"""The ways between the caller and its workers: sockets that keep message boundaries, and never make a sender wait.

A message is taken whole or not at all, also by several processes that receive from one socket: there is no lock that a
killed process could leave held. What is long lies in a memory file that goes along as a descriptor.
"""

from __future__ import annotations

import _socket
import array
import contextlib
import errno
import fcntl
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import starmap

from ordmap.engine.memory import Weak, new_file, no_stream
from ordmap.shielded import noted

__all__ = [
    "LONG",
    "Outbox",
    "copied",
    "limit_waits",
    "numbers",
    "pair",
    "read_file",
    "receive",
    "send",
    "to_worker",
    "written_file",
]

#: Bytes that a message has at most; anything longer goes into a file. (A default socket refuses more than 208 KB.)
LONG = 32 * 1024

_ANCILLARY = socket.CMSG_SPACE(4 * 4)
_ROOM = LONG + 4096
# Made once: the socket module's flags are an enum, whose ``|`` is slow.
_CUT = int(socket.MSG_TRUNC | socket.MSG_CTRUNC)
_WAIT = int(socket.MSG_CMSG_CLOEXEC)
_AT_ONCE = int(socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT)
_QUIET = int(socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

#: What a sender meets when the other side takes no message now: its queue, or the user's descriptors under way, are
#: full.
_FULL = frozenset({errno.EAGAIN, errno.ENOBUFS, errno.ETOOMANYREFS, errno.ENOMEM})
#: … and when nobody will ever take it. (Not EBADF: an item may have closed what is its worker's, and is to be blamed.)
_GONE = frozenset({errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN})

#: Seconds from which on a limit is none.
_FOREVER = float(1 << 31)

#: The caller's ends of its workers' channels: a process that is forked from it must hold none of them open.
_callers: Weak[socket.socket] = Weak()

#: Both ends of every channel that this process has made.
_all: Weak[socket.socket] = Weak()


def pair() -> tuple[socket.socket, socket.socket]:
    """Return both ends of a new channel, with as much room as the system grants without asking."""
    one, other = _socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ends = _owned(one.detach), _owned(other.detach)
    for end in ends:
        with contextlib.suppress(OSError):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        _all.add(end)
    return ends


def copied(end: socket.socket) -> socket.socket:
    """Return another descriptor of an end of a channel."""
    return _owned(os.dup, end.fileno())


def _owned(take: Callable[..., int], *args: object) -> socket.socket:
    """Return a socket of the descriptor that a function returns.

    The `socket` module has it in no hands for a moment: then another thread's exception would leave it open.
    """
    files: list[int] = []
    end = socket.socket.__new__(socket.socket)
    try:
        noted(files, take, *args)
        end.__init__(fileno=files[0])  # type: ignore[misc]  # so that it has it, or not, whatever comes
    except BaseException:
        if files and end.fileno() < 0:
            os.close(files[0])
        raise
    return end


def numbers() -> set[int]:
    """Return the descriptors of all channels that this process has made and has open."""
    return {end.fileno() for end in _all}


def limit_waits(end: socket.socket, seconds: float) -> None:
    """Have each wait of a receiver end after so long, with nothing, in whatever process; ``inf``: never."""
    whole, micro = divmod(max(1, int(seconds * 1_000_000)), 1_000_000) if seconds < _FOREVER else (0, 0)
    limit = struct.pack("ll", whole, micro)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)


Ends = tuple[socket.socket, socket.socket]


@contextlib.contextmanager
def to_worker(opened: list[int]) -> Iterator[tuple[Ends, Ends, int]]:
    """Open the channels of a worker that is started in here, its results' and its leash: our ends, and its own.

    Its own are closed here at the end, and so are ours if it can't be started. A memory file that both have is among
    what was ``opened``, which is the opener's to close.
    """
    with contextlib.ExitStack() as both, contextlib.ExitStack() as ours:
        noted(opened, new_file)
        file = opened[-1]
        ends = []
        for _ in range(2):
            one, other = pair()
            _callers.add(ours.enter_context(one))
            ends.append((one, both.enter_context(other)))
        (results, own_results), (leash, own_leash) = ends
        yield (results, leash), (own_results, own_leash), file
        ours.pop_all()


def send(end: socket.socket, message: bytes, file: int | None = None) -> bool:
    """Send a message now; ``False``: there is no room. What nobody will take any more counts as sent."""
    try:
        if file is None:
            end.send(message, _QUIET)
        else:
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file]))]
            end.sendmsg([message], ancillary, _QUIET)
    except OSError as error:
        if error.errno in _FULL:
            return False
        if error.errno not in _GONE:
            raise
    return True


def receive(end: socket.socket, *, wait: bool) -> tuple[bytes, int | None] | None:
    """Receive a message, and the descriptor that came with it; ``None``: there is none now. An empty one is the end.

    A descriptor that got lost on the way, since this process may have no more of them, is ``-1``.
    """
    flags = _WAIT if wait else _AT_ONCE
    try:
        message, ancillary, told, _ = end.recvmsg(_ROOM, _ANCILLARY, flags)
    except BlockingIOError:
        return None
    except ConnectionResetError:
        # Told once, when the other side left messages of ours unread; what it sent before is still there.
        return receive(end, wait=wait)
    if not ancillary and not told & _CUT:
        return message, None
    files = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            files.frombytes(data[: len(data) - len(data) % files.itemsize])
    if told & int(socket.MSG_TRUNC):
        for file in files:
            os.close(file)
        raise OSError(errno.EMSGSIZE, "a message of the engine was cut off")
    try:
        return message, no_stream(files[0]) if files else -1
    except OSError:
        return message, -1


def written_file(parts: Sequence[bytes | memoryview]) -> int:
    """Return the descriptor of a new memory file with this content; it has no name, so nothing can stay behind."""
    file = new_file()
    try:
        for part in parts:
            rest = memoryview(part)
            while rest:
                rest = rest[os.write(file, rest) :]
    except BaseException:
        os.close(file)
        raise
    return file


def read_file(file: int) -> bytes:
    """Return the content of a memory file, and close it."""
    try:
        size = os.fstat(file).st_size
        parts = []
        place = 0
        while place < size:
            part = os.pread(file, size - place, place)
            if not part:
                raise OSError(errno.EIO, "a message of the engine is shorter than it says")
            parts.append(part)
            place += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)
    finally:
        os.close(file)


def _let_go_in_child() -> None:
    for end in _callers:
        end.close()


os.register_at_fork(after_in_child=_let_go_in_child)


class Outbox:
    """Messages that wait, in order, for room on the way. A descriptor that is ``owned`` is closed once it is sent."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._waiting: deque[tuple[bytes, int | None, bool]] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def put(self, message: bytes, file: int | None = None, *, owned: bool = True) -> None:
        """Send a message as soon as those before it are sent."""
        if self._waiting or not send(self._end, message, file):
            self._waiting.append((message, file, owned))
        elif file is not None and owned:
            os.close(file)

    def put_copy(self, message: bytes, file: int) -> None:
        """Do the same with a descriptor that its giver may close at once."""
        if self._waiting or not send(self._end, message, file):
            copies = starmap(fcntl.fcntl, ((file, fcntl.F_DUPFD_CLOEXEC, 3),))  # no standard stream's number
            self._waiting.extend(zip((message,), copies, (True,), strict=True))  # one call of C's, see `noted`

    def flush(self) -> bool:
        """Send what there is room for; ``True``: nothing waits any more."""
        while self._waiting:
            message, file, owned = self._waiting.popleft()
            sent = False
            try:
                sent = send(self._end, message, file)
            finally:
                if not sent:
                    self._waiting.appendleft((message, file, owned))
            if not sent:
                return False
            if file is not None and owned:
                os.close(file)
        return True

    def drop(self) -> None:
        """Forget what was not sent."""
        while self._waiting:
            _, file, owned = self._waiting.popleft()
            if file is not None and owned:
                os.close(file)
