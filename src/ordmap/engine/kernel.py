"""What the engine asks of the system beyond what every Linux grants: by which calls, and whether they are granted.

A Python that was built on an old system lacks their names, as conda's and uv's may; the calls are then made by their
numbers. A container's filter, or a kernel of another make such as gVisor's, may refuse what Python has a name for. So
each is tried once, by calling it.
"""

from __future__ import annotations

import array
import contextlib
import errno
import mmap
import os
import select
import signal
import socket
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

if sys.platform == "linux":
    import fcntl

__all__ = ["MFD_CLOEXEC", "P_PIDFD", "lack", "memfd_create", "pidfd_open", "pidfd_send_signal"]

MFD_CLOEXEC: int = getattr(os, "MFD_CLOEXEC", 1)
P_PIDFD: int = getattr(os, "P_PIDFD", 3)

#: The call that has no common number, by machine, and for 32 bits by what such a process calls the machine's family.
_MEMFD_CREATE = {
    "x86_64": 319,
    "i386": 356,
    "aarch64": 279,
    "riscv64": 279,
    "loongarch64": 279,
    "arm": 385,
    "ppc64le": 360,
    "s390x": 350,
}
_PIDFD_OPEN, _PIDFD_SEND_SIGNAL = 434, 424

#: What a call meets where there is no room left, which says nothing about whether it is granted.
_NO_ROOM = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EAGAIN, errno.EFBIG, errno.ENOSPC, errno.EDQUOT}
)


def _numbered(number: int | None) -> Callable[..., int]:
    """Return a function that makes the system call of this number; ``None``: it fails as an unknown one."""

    def call(*args: Any) -> int:
        if number is None:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        libc.syscall.restype = ctypes.c_long
        given = [ctypes.c_char_p(os.fsencode(one)) if isinstance(one, str) else ctypes.c_long(one or 0) for one in args]
        result: int = libc.syscall(ctypes.c_long(number), *given, *[ctypes.c_long(0)] * (6 - len(given)))
        if result < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        return result

    return call


def _machine() -> str:
    name = os.uname().machine if hasattr(os, "uname") else ""
    if sys.maxsize > 1 << 32:
        return name
    return "arm" if name.startswith(("arm", "aarch64")) else "i386" if name.endswith("86") or name == "x86_64" else ""


memfd_create: Callable[..., int] = getattr(os, "memfd_create", None) or _numbered(_MEMFD_CREATE.get(_machine()))
pidfd_open: Callable[..., int] = getattr(os, "pidfd_open", None) or _numbered(_PIDFD_OPEN)
pidfd_send_signal: Callable[..., Any] = getattr(signal, "pidfd_send_signal", None) or _numbered(_PIDFD_SEND_SIGNAL)


@cache
def lack() -> str | None:
    """Return what the engine can't have here, in words, if there is anything."""
    if sys.platform != "linux":
        return "this system is not Linux"
    for module, name in ((socket, "SOCK_SEQPACKET"), (os, "eventfd"), (os, "fork"), (signal, "pthread_sigmask")):
        if not hasattr(module, name):
            return f"this Python was built without {module.__name__}.{name}"
    step = [""]
    try:
        with contextlib.ExitStack() as cleanup:
            _try_all(step, cleanup)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            return f"this system refuses {step[0]} ({error.strerror})"
    return None


def _try_all(step: list[str], cleanup: contextlib.ExitStack) -> None:
    """Ask for each thing once; ``step`` has its name while it is asked for."""

    def opened(file: int) -> int:
        cleanup.callback(os.close, file)
        return file

    step[0] = "memfd_create"
    block = opened(memfd_create("ordmap-probe", MFD_CLOEXEC))
    step[0] = "memory files that can be mapped"
    os.ftruncate(block, mmap.PAGESIZE)
    with mmap.mmap(block, mmap.PAGESIZE) as mapped:
        mapped[:1] = b"!"
    step[0] = "pidfd_open"
    this = opened(pidfd_open(os.getpid(), 0))
    step[0] = "pidfd_send_signal"
    pidfd_send_signal(this, 0, None, 0)
    step[0] = "eventfd"
    opened(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
    step[0] = "epoll"
    if hasattr(select, "epoll"):  # gevent and eventlet take it away, of which the backend has a word of its own to say
        cleanup.enter_context(select.epoll())
    step[0] = "sockets that keep message boundaries"
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    cleanup.enter_context(one)
    cleanup.enter_context(other)
    step[0] = "descriptors in messages"
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [block]))]
    one.sendmsg([b"!"], rights, socket.MSG_DONTWAIT)
    _, came, flags, _ = other.recvmsg(1, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT)
    files = array.array("i")
    for _, _, data in came:
        files.frombytes(data[: len(data) - len(data) % files.itemsize])
    for file in files:
        opened(file)
    if not files:
        code = errno.EMFILE if flags & socket.MSG_CTRUNC else errno.EOPNOTSUPP
        raise OSError(code, os.strerror(code))
    for name, value in (("F_SETOWN", os.getpid()), ("F_SETSIG", signal.SIGKILL)):
        step[0] = name
        fcntl.fcntl(other, getattr(fcntl, name), value)
    # Not armed with SIGKILL of this process: any byte would end it.
    fcntl.fcntl(other, fcntl.F_SETOWN, 0)
    step[0] = "O_ASYNC"
    fcntl.fcntl(other, fcntl.F_SETFL, fcntl.fcntl(other, fcntl.F_GETFL) | os.O_ASYNC)
    fcntl.fcntl(other, fcntl.F_SETFL, fcntl.fcntl(other, fcntl.F_GETFL) & ~os.O_ASYNC)
