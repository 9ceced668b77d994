"""Arrays that lie in a file, as they travel by its name, so that a worker maps the file and nothing is read.

What is mapped may be a file that is not there any more, or has given way to another of its name. So the name is sent
only if it leads to the file that is mapped; who opens it makes sure of that, too. A process maps a file once for all
arrays that come to lie in it: each mapping has a descriptor.

For whom the name will do, is a matter of time. For a job it does, and then what a worker writes is in the file, as it
is with a plain loop. An input is as it was when it was pulled, so one that its source could write to goes by value. A
result goes by value: an item may use its file again, and it is the worker that is to read. Pages that are private to
this process (mode ``"c"``) are in no file.
"""

from __future__ import annotations

import mmap
import os
import sys
import weakref
from typing import Any

from ordmap.reducers.purpose import INPUT, JOB, RESULT, Purpose

__all__ = ["named"]

#: The modes of mappings that are sent by name, and the one in which a worker opens the file: it makes none anew.
_MODES = {
    JOB: {"r": "r", "r+": "r+", "w+": "r+"},
    INPUT: {"r": "r"},
    RESULT: {},
}

#: Bytes of an input up to which it is quicker copied.
_LEAST = 16 * 1024

#: A file: its device, and its number there.
_Identity = tuple[int, int]

#: What is mapped: the file's name, which file it is, the mode, and the first byte and their number.
_Whole = tuple[str, _Identity, str, int, int]

#: The files of mappings that were found to be those of their names.
_known: weakref.WeakKeyDictionary[mmap.mmap, _Identity] = weakref.WeakKeyDictionary()

#: What this process has mapped by name.
_mapped: weakref.WeakValueDictionary[_Whole, Any] = weakref.WeakValueDictionary()


def named(array: Any, numpy: Any, purpose: Purpose) -> tuple[Any, ...] | None:
    """Reduce an array that lies in a file to the file's name and the place there; ``None``: it is to go by value."""
    source = array
    while isinstance(source, numpy.ndarray) and getattr(source, "_mmap", None) is None:
        source = source.base
    if not isinstance(source, numpy.memmap) or (purpose == INPUT and array.nbytes < _LEAST):
        return None
    mapping, mode = source._mmap, _MODES[purpose].get(source.mode)
    if mode is None or source.filename is None or type(mapping) is not mmap.mmap:
        return None
    name = os.fspath(source.filename)
    start = numpy.frombuffer(mapping, numpy.uint8).__array_interface__["data"][0]
    place = array.__array_interface__["data"][0] - start
    identity = _identity_of(mapping, start, name)
    if identity is None or not 0 <= place <= len(mapping):
        return None
    whole = name, identity, mode, source.offset, len(mapping) - source.offset % mmap.ALLOCATIONGRANULARITY
    return _opened, (
        whole,
        source.filename,
        type(array),
        (array.dtype, array.shape, array.strides, place),
        array.flags.writeable,
    )


def _identity_of(mapping: mmap.mmap, start: int, name: str) -> _Identity | None:
    """Return which file is mapped, if it is the one that has this name now."""
    try:
        found = os.stat(name)  # noqa: PTH116  pathlib is heavy
        if mapping not in _known and not (
            _is_mapped_from(start, name) if sys.platform == "linux" else mapping.size() == found.st_size
        ):
            return None
    except OSError:
        return None
    identity = found.st_dev, found.st_ino
    return identity if _known.setdefault(mapping, identity) == identity else None


def _is_mapped_from(start: int, name: str) -> bool:
    """Whether the kernel has this name for what is mapped from here on; if the file is gone, it has a word more."""
    path = os.fsencode(os.path.realpath(name)).replace(b"\n", rb"\012")
    with open("/proc/self/maps", "rb") as maps:  # noqa: PTH123  pathlib is heavy
        for line in maps:
            first, _, rest = line.partition(b"-")
            if int(first, 16) == start:
                return rest.rstrip(b"\n").endswith(b" " + path)
    return False


def _opened(whole: _Whole, said: Any, kind: type, at: tuple[Any, ...], writeable: bool) -> Any:  # noqa: FBT001
    """Return the array at a place of a file, which is mapped here unless it is already; ``said``: its name there."""
    import numpy as np  # who gets an array has it anyway

    name, identity, mode, offset, nbytes = whole
    root = _mapped.get(whole)
    if root is None:
        with open(name, "rb" if mode == "r" else "r+b") as file:  # noqa: PTH123  pathlib is heavy
            found = os.fstat(file.fileno())
            if (found.st_dev, found.st_ino) != identity or found.st_size < offset + nbytes:
                raise OSError(f"{name} is not the file any more that an array lies in")
            root = np.memmap(file, np.uint8, mode, offset, (nbytes,))  # type: ignore[call-overload]
        root.filename = said
        _mapped[whole] = root
    dtype, shape, strides, place = at
    begin = place - offset % mmap.ALLOCATIONGRANULARITY
    array: Any = np.ndarray.__new__(kind, shape, dtype, root, begin, strides)
    if kind is not np.ndarray:
        for attribute in ("_mmap", "filename", "offset", "mode"):
            setattr(array, attribute, getattr(root, attribute))
    if not writeable:  # as one of broadcast_to() is, whatever it is a view of
        array.flags.writeable = False
    return array
