"""Shared memory without a name: a memory file and its mapping, in one object.

Not ``mmap.mmap``: that one hides its descriptor, which is needed to send the file, and to turn the mapping into a
private one around a fork.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref

from ordmap.cores import read_text

__all__ = ["Memory", "Span", "address_of", "free_memory"]

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]

_READ_WRITE = mmap.PROT_READ | mmap.PROT_WRITE
_FIXED = 0x10
_FAILED = ctypes.c_void_p(-1).value


def _map(address: int | None, size: int, flags: int, file: int) -> int:
    found = _libc.mmap(address, size, _READ_WRITE, flags, file, 0)
    if found is None or found == _FAILED:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(found)


class Memory:
    """The content of a memory file, in this process's address space; it owns the descriptor ``file``.

    After a fork it is the child's own: what is written there is not seen on the other side any more.
    """

    __slots__ = ("__weakref__", "_span", "address", "file", "size")

    def __init__(self, file: int, size: int) -> None:
        self.size = 0
        self._span: weakref.ref[Span] | None = None
        self.file = file
        self.address = _map(None, size, mmap.MAP_SHARED | mmap.MAP_POPULATE, file)
        self.size = size
        _mapped.add(self)

    @classmethod
    def new(cls, size: int) -> Memory:
        """Return fresh memory, which the system has promised: writing to it can't fail any more."""
        file = os.memfd_create("ordmap", os.MFD_CLOEXEC)
        try:
            os.posix_fallocate(file, 0, size)
            return cls(file, size)
        except BaseException:
            os.close(file)
            raise

    def span(self) -> Span:
        """Return an exporter of the whole memory, which it keeps mapped; views of it keep it, in turn."""
        kind = _span_types.get(self.size)
        if kind is None:
            kind = _span_types[self.size] = type("Span", (Span,), {"_type_": ctypes.c_ubyte, "_length_": self.size})
        span = kind.from_address(self.address)
        span.memory = self
        self._span = weakref.ref(span)
        return span

    @property
    def in_use(self) -> bool:
        """Whether there are views of it."""
        return self._span is not None and self._span() is not None

    def make_private(self) -> None:
        """Have what is written here from now on be seen in this process alone, and in those forked from it later.

        What another process writes is still seen here, where this one has not written: nobody may do that any more.
        """
        if self.file >= 0:
            _map(self.address, self.size, mmap.MAP_PRIVATE | _FIXED, self.file)
            os.close(self.file)
            self.file = -1
        _mapped.discard(self)

    def __del__(self) -> None:
        if self.size:
            _libc.munmap(self.address, self.size)
            if self.file >= 0:
                os.close(self.file)


_mapped: weakref.WeakSet[Memory] = weakref.WeakSet()


def _make_all_private() -> None:
    for memory in list(_mapped):
        memory.make_private()


os.register_at_fork(after_in_child=_make_all_private)


class Span(ctypes.Array):  # type: ignore[type-arg]
    """What exports a memory to views."""

    _type_ = ctypes.c_ubyte
    _length_ = 0
    memory: Memory


_span_types: dict[int, type[Span]] = {}


def address_of(view: memoryview) -> int | None:
    """Return where a writable, contiguous view begins; ``None`` for any other."""
    if view.readonly or not view.nbytes:
        return None
    return ctypes.addressof(ctypes.c_char.from_buffer(view))


def free_memory() -> int:
    """Return about how many bytes can still be had: the machine's free memory, cut by the control group's limit."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        lines = read_text("/proc/meminfo").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        pass
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        try:
            free = min(free, int(read_text(limit)) - int(read_text(used)))
        except (OSError, ValueError):  # there is none
            continue
    return max(free, 0)
