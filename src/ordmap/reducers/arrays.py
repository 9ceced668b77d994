"""numpy's arrays, and views of bytes, as they travel: the buffer, and as little beside it as can be.

An array's own way pickles its type anew each time, which costs as much as all the rest of it. That of a subclass copies
the buffer into the pickle.
"""

from __future__ import annotations

import copyreg
import pickle
import sys
from collections.abc import Container
from typing import Any

from ordmap.reducers.files import named
from ordmap.reducers.purpose import RESULT, Purpose

__all__ = [
    "SMALL",
    "OutOfBand",
    "array_in_pickle",
    "array_key",
    "in_band",
    "pickled_array",
    "reduced_view",
    "reducers_of_numpy",
    "restored",
]

#: Bytes up to which a buffer stays in the pickle, and an array goes its library's own way.
SMALL = 2048

#: … and below which it may, where that spares it a way of its own. Such an array never travels by its file's name.
MOST_IN_BAND = 16 * 1024


class OutOfBand:
    """Bytes that go out of band, and are copied once at the other side."""

    def __init__(self, content: bytes | bytearray) -> None:
        self._content = content

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self._content), (pickle.PickleBuffer(self._content),)


def reduced_view(view: memoryview) -> tuple[Any, ...]:
    """Reduce a view of bytes, whatever they are those of."""
    if not view.c_contiguous:
        copy: bytes | bytearray = view.tobytes() if view.readonly else bytearray(view.tobytes())
        view = memoryview(copy).cast(view.format, view.shape)  # type: ignore[call-overload]
    return _view, (pickle.PickleBuffer(view), view.format, view.shape)


def _view(buffer: Any, form: str, shape: tuple[int, ...]) -> memoryview:
    flat = memoryview(buffer).cast("B")
    return flat.cast(form, shape) if flat.nbytes else flat  # type: ignore[call-overload]


#: numpy's class of arrays, once that is imported.
_ndarray: Any = None


def reducers_of_numpy(numpy: Any, purpose: Purpose) -> dict[type, Any]:
    """Have plain arrays of numbers travel as buffer, one letter and shape, and those in files by name."""

    def reduced(value: Any) -> Any:
        if _has_a_buffer(value):
            return restored, (pickle.PickleBuffer(value), value.dtype.char, value.shape)
        writeable = value.flags.num & _WRITE_BITS == _WRITEABLE
        return value.__reduce_ex__(pickle.HIGHEST_PROTOCOL) if writeable else _reduced_as_it_is(value, writeable)

    def reduced_map(value: Any) -> Any:
        return _as_map, (value.view(numpy.ndarray),)

    def by_name(value: Any) -> Any:
        return None if value.base is None else named(value, numpy, purpose)

    global _ndarray
    _ndarray = numpy.ndarray
    if purpose == RESULT:
        return {numpy.ndarray: reduced, numpy.memmap: reduced_map}
    return {
        numpy.ndarray: lambda value: by_name(value) or reduced(value),
        numpy.memmap: lambda value: by_name(value) or reduced_map(value),
    }


#: numpy's bits for an array that may be written to, and for one of which its flags say so, with a warning, wrongly.
_WRITEABLE = 0x400
_WRITE_BITS = _WRITEABLE | 1 << 31
_CLEAR = frozenset({0, _WRITEABLE})  # else pickle knows


def in_band(theirs: Container[type]) -> dict[type, Any]:
    """Return the reducers of arrays whose buffers stay in the pickle, but for those that others have registered."""
    return {} if _ndarray is None or _ndarray in theirs else {_ndarray: _reduced_in_band}


def _reduced_in_band(array: Any) -> Any:
    if array.nbytes >= MOST_IN_BAND:
        raise pickle.PicklingError("it is large")
    writeable = array.flags.num & _WRITE_BITS == _WRITEABLE
    if writeable and array.dtype.isnative:
        return array.__reduce__()
    # Its own way would give it back in this machine's order of bytes, and writeable.
    return _reduced_as_it_is(array, writeable)


def _reduced_as_it_is(array: Any, writeable: bool) -> Any:  # noqa: FBT001
    return _as_it_was, (array.view(array.dtype.newbyteorder("=")).copy("K"), array.dtype, writeable)


def _as_it_was(array: Any, dtype: Any, writeable: bool) -> Any:  # noqa: FBT001
    array = array.view(dtype)
    array.flags.writeable = writeable
    return array


def _is_plain(array: Any) -> bool:
    """Whether it is nothing but numbers in a row, of which one letter says what they are."""
    kind = array.dtype
    return bool(kind.isbuiltin == 1 and kind.kind in "biufc" and kind.metadata is None and array.flags.c_contiguous)


def _has_a_buffer(array: Any) -> bool:
    return array.nbytes > SMALL and _is_plain(array)


def array_key(value: Any) -> tuple[str, tuple[int, ...], bool] | None:
    """Return all that the pickle of a plain array depends on, since the buffer is no part of it; else ``None``."""
    if type(value) is _ndarray and _ndarray not in copyreg.dispatch_table and _has_a_buffer(value):
        # Not what its flags say: an array of numpy.broadcast_arrays calls itself writeable, and is pickled read-only.
        return value.dtype.char, value.shape, memoryview(value).readonly
    return None


#: What stands before and after the numbers in the pickles of arrays, by letter, shape, whether they may be written to,
#: and what says `restored`.
_around: dict[tuple[str, tuple[int, ...], bool, bytes], tuple[bytes, bytes]] = {}
_MOST_AROUND = 64

_RESTORED = f"c{__name__}\nrestored\n".encode()


def pickled_array(value: Any) -> bytes | None:
    """Return the pickle of a plain array, in a fifth of pickle's time.

    ``None``: one that is large, or is reduced by another, is left to pickle.
    """
    data = array_in_pickle(value, _RESTORED)
    return None if data is None else b"".join((b"\x80\x05", data, pickle.STOP))


def array_in_pickle(value: Any, function: bytes) -> bytes | None:
    """Return what stands in a pickle for an array; see `pickled_array`. ``function`` stands for `restored` there."""
    if type(value) is not _ndarray or not 0 < value.nbytes < MOST_IN_BAND:
        return None
    writes = value.flags.num & _WRITE_BITS
    if writes not in _CLEAR or _ndarray in copyreg.dispatch_table or not _is_plain(value):
        return None
    key = value.dtype.char, value.shape, writes == _WRITEABLE, function
    around = _around.get(key)
    if around is None:
        if len(_around) >= _MOST_AROUND:
            _around.clear()
        around = _around[key] = _split(value, function)
    return b"".join((around[0], value, around[1]))


def _split(value: Any, function: bytes) -> tuple[bytes, bytes]:
    """Return what stands before and after the numbers of an array like this."""
    char = value.dtype.char.encode()
    letter = pickle.BINUNICODE + len(char).to_bytes(4, "little") + char
    shape = b"".join(pickle.BININT + size.to_bytes(4, "little") for size in value.shape)
    numbers = pickle.BYTEARRAY8 if value.flags.writeable else pickle.BINBYTES8
    head = function + numbers + value.nbytes.to_bytes(8, "little")
    return head, b"".join((letter, pickle.MARK, shape, pickle.TUPLE, pickle.TUPLE3, pickle.REDUCE))


def restored(buffer: Any, char: str, shape: tuple[int, ...]) -> Any:
    """Return an array from its numbers, one letter and shape."""
    try:
        array = sys.modules["numpy"].frombuffer(buffer, char)  # an import statement would take as long as the rest
    except (KeyError, AttributeError):  # this process has not imported it yet, or is about to
        from numpy import frombuffer

        array = frombuffer(buffer, char)
    return array if len(shape) == 1 else array.reshape(shape)


def _as_map(array: Any) -> Any:
    """Return an array as one of the class of those in files, as numpy's own way does."""
    from numpy import memmap  # who gets one has it anyway

    return array.view(memmap)
