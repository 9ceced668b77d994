"""Shared memory without a name: a memory file and its mapping, in one object.

Not just ``mmap.mmap``: that one hides its descriptor, which is needed to send the file, and to turn the mapping into a
private one around a fork.

It ends wherever the last view of it does, and what Python calls there may not raise: a signal's handler that ran in
``__del__`` would raise in vain, and Ctrl-C be lost. So all that happens at its end happens in C.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import mmap
import os
import select
import weakref
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from ordmap.engine import kernel
from ordmap.shielded import noted

__all__ = [
    "Memory",
    "Span",
    "Weak",
    "address_of",
    "close_all",
    "close_lost",
    "keep_freed_memory",
    "new_file",
    "no_stream",
    "streams_taken",
]

T = TypeVar("T")

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

_STDERR = 2
_READ_WRITE = mmap.PROT_READ | mmap.PROT_WRITE
_FIXED = 0x10


def _map(address: int, size: int, flags: int, file: int) -> None:
    """Map a file in the place of what is mapped there."""
    if _libc.mmap(address, size, _READ_WRITE, flags | _FIXED, file, 0) != address:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def new_file() -> int:
    """Return the descriptor of a new memory file, which says whose it was first."""
    made: list[int] = []
    try:
        noted(made, kernel.memfd_create, _name(os.getpid()), kernel.MFD_CLOEXEC)
        return no_stream(made[0])
    except BaseException:
        with contextlib.suppress(OSError):  # closed already, where another took its place
            close_all(made)
        raise


def close_all(files: Iterable[int]) -> None:
    """Close descriptors."""
    for file in files:
        os.close(file)


def no_stream(file: int) -> int:
    """Return a descriptor that is none of the standard streams', in place of one that is.

    Where one of these was closed, the next file gets its number, and what is printed would be written there.
    """
    if file > _STDERR:
        return file
    try:
        return fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, _STDERR + 1)
    finally:
        os.close(file)


def _name(pid: int) -> str:
    return f"ordmap-{pid}"


def close_lost(pid: int) -> None:
    """Close the descriptors of a dead worker's memory files that no `Memory` owns.

    They got lost when a signal's handler raised right after a message was received.
    """
    owned = {memory.file for memory in _mapped}
    try:
        entries = os.listdir("/proc/self/fd")  # noqa: PTH208  pathlib takes longer to import than the engine
    except OSError:
        return  # this system doesn't say
    for entry in entries:
        try:
            target = os.readlink(f"/proc/self/fd/{entry}")  # noqa: PTH115
        except OSError:
            continue  # that of this very listing, or closed by another thread
        if target == f"/memfd:{_name(pid)} (deleted)" and int(entry) not in owned:
            os.close(int(entry))


@contextlib.contextmanager
def streams_taken() -> Iterator[None]:
    """Have no descriptor made in the meantime be one of the standard streams', also where a daemon has closed these."""
    taken: list[int] = []
    try:
        for file in range(_STDERR + 1):
            if not _is_open(file):
                noted(taken, os.open, os.devnull, os.O_RDWR)  # the lowest that is free
                os.set_inheritable(taken[-1], True)  # for workers, as streams of theirs
        yield
    finally:
        close_all(taken)


def _is_open(file: int) -> bool:
    try:
        os.fstat(file)
    except OSError:
        return False
    return True


class Weak(Generic[T]):
    """Those of some objects that still exist: a ``WeakSet`` that takes the dead ones out in C."""

    def __init__(self) -> None:
        self._references: set[weakref.ref[T]] = set()

    def __len__(self) -> int:
        return len(self._references)

    def __iter__(self) -> Iterator[T]:
        """Iterate over those there are now."""
        for reference in list(self._references):
            one = reference()
            if one is not None:
                yield one

    def add(self, one: T) -> None:
        self._references.add(weakref.ref(one, self._references.discard))

    def discard(self, one: T) -> None:
        self._references.discard(weakref.ref(one))

    def clear(self) -> None:
        self._references.clear()


class Memory:
    """The content of a memory file, in this process's address space; it owns the descriptor ``file``.

    The file is closed also where the memory can't be made. After a fork it is the child's own: what is written there is
    not seen on the other side any more.
    """

    __slots__ = ("__weakref__", "_owner", "_place", "_span", "address", "file", "size")

    def __init__(self, file: int, size: int) -> None:
        self._span: weakref.ref[Span] | None = None
        self._owner = select.epoll.fromfd(file)  # closes it; no other object in C does so without a warning
        try:
            self._place = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # unmaps whatever is there then
            self.address = ctypes.addressof(ctypes.c_char.from_buffer(self._place))
            _map(self.address, size, mmap.MAP_SHARED | mmap.MAP_POPULATE, file)
            self.size = size
            self.file = file
            _mapped.add(self)
        except BaseException:
            self.file = -1
            self._owner.close()  # at once: a traceback may hold this object for long
            raise

    @classmethod
    def new(cls, size: int) -> Memory:
        """Return fresh memory, which the system has promised: writing to it can't fail any more."""
        file = new_file()
        try:
            os.posix_fallocate(file, 0, size)
        except BaseException:
            os.close(file)
            raise
        return cls(file, size)

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
            _map(self.address, self.size, mmap.MAP_PRIVATE, self.file)
            self._owner.close()
            self.file = -1
        _mapped.discard(self)


_mapped: Weak[Memory] = Weak()


def _make_all_private() -> None:
    for memory in _mapped:
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


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


def keep_freed_memory() -> None:
    """Have this process keep about 64 MB of what it frees, for what it does next.

    By itself glibc gives large buffers back to the system as soon as they are freed, and a worker gets them anew, page
    by page, for each item: a third of its time where JPEGs are decoded. Settings of the user's own are left alone.
    """
    own = ("GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")
    if not hasattr(_libc, "mallopt") or any(name in os.environ for name in own):
        return
    # On 32 bits the first is refused; the second alone would have glibc adapt neither any more.
    if _libc.mallopt(_M_MMAP_THRESHOLD, 32 << 20):
        _libc.mallopt(_M_TRIM_THRESHOLD, 64 << 20)
