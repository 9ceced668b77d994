"""A job on its way to workers that inherit nothing: pickled once, in one memory file that all of them map.

Its large buffers are not copied in the workers: each maps them copy-on-write, so that a dataset of 400 MB costs 400 MB,
and a worker that writes to its dataset writes to its own copy.
"""

from __future__ import annotations

import mmap
import os
import pickle
from struct import Struct
from typing import Any

from ordmap.engine import channel
from ordmap.reducers import JOB
from ordmap.vocabulary import Vocabulary

__all__ = ["Parcel", "unpacked_parcel"]

_HEAD = Struct("<QQ")  # bytes of the index, bytes of the pickle; the index says where each buffer lies

_ALIGNMENT = 64

#: Bytes up to which a buffer stays in the pickle.
_SMALL = 16 * 1024


class Parcel:
    """An object as it travels. It is read when this is made; ``file`` is open until `close`."""

    def __init__(self, content: object, vocabulary: Vocabulary | None = None) -> None:
        """``vocabulary``: what its readers have inherited."""
        from ordmap.by_value import dumps  # heavy; forked workers do without

        buffers: list[memoryview] = []

        def collect(buffer: pickle.PickleBuffer) -> bool:
            try:
                view = buffer.raw()
            except BufferError:  # not contiguous
                return True
            if view.nbytes > _SMALL:
                buffers.append(view)
            return view.nbytes <= _SMALL

        data = dumps(content, collect, JOB, vocabulary=vocabulary)
        # The index is of fixed size, so that the places in it can count from the start of the file.
        index_size = 16 * len(buffers)
        place = _HEAD.size + index_size + len(data)
        index: list[bytes] = []
        parts: list[bytes | memoryview] = []
        for view in buffers:
            gap = -place % _ALIGNMENT
            parts += [bytes(gap), view]
            index.append(_HEAD.pack(place + gap, view.nbytes))
            place += gap + view.nbytes
        self.file = channel.written_file([_HEAD.pack(index_size, len(data)), *index, data, *parts])

    def append(self, data: bytes) -> int:
        """Put something of one's own behind the content, and return where it begins."""
        place = os.fstat(self.file).st_size
        os.pwrite(self.file, data, place)
        return place

    def close(self) -> None:
        """Let go of it; who has it mapped keeps it."""
        if self.file >= 0:
            file, self.file = self.file, -1
            os.close(file)

    def __del__(self) -> None:
        if hasattr(self, "file"):
            self.close()


def unpacked_parcel(file: int) -> Any:
    """Return the content of a parcel, and close the descriptor."""
    try:
        memory = mmap.mmap(file, 0, access=mmap.ACCESS_COPY)
    finally:
        os.close(file)
    view = memoryview(memory)
    index_size, size = _HEAD.unpack_from(view)
    start = _HEAD.size + index_size
    places = _HEAD.iter_unpack(view[_HEAD.size : start])
    return pickle.loads(view[start : start + size], buffers=[view[place : place + n] for place, n in places])
