"""How objects that hold a large buffer are pickled, where pickle's own way copies it or takes long.

An array's own way pickles its type anew each time, which costs as much as all the rest of it. A tensor's own way copies
it thrice. Neither library is imported here: what isn't there can't be in a result.
"""

from __future__ import annotations

import copyreg
import pickle
import sys
from collections.abc import Callable
from typing import Any

__all__ = ["SMALL", "OutOfBand", "array_key", "in_band", "reducers"]

Reducer = Callable[[Any], Any]

#: Bytes up to which a buffer stays in the pickle, and an array goes its library's own way.
SMALL = 2048


class OutOfBand:
    """Bytes that go out of band, and are copied once at the other side."""

    def __init__(self, content: bytes | bytearray) -> None:
        self._content = content

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self._content), (pickle.PickleBuffer(self._content),)


def reducers() -> dict[type, Reducer]:
    """Return the reducers of this process: those here, and those that the user's libraries have registered.

    A plain dict, since pickle looks into any other mapping by a call for each object; the caller must not change it.
    """
    if len(sys.modules) != _looked_at or copyreg.dispatch_table != _theirs:
        _look_again()
    return _all


def in_band() -> dict[type, Reducer]:
    """Return the reducers for small objects, whose buffers stay in the pickle: those that need no buffer of their own.

    The caller must not change it.
    """
    reducers()
    return _in_band


def _look_again() -> None:
    """Take in what libraries have come, and what they have registered."""
    global _all, _in_band, _looked_at, _theirs
    _looked_at = len(sys.modules)
    for name, (needed, register) in _LIBRARIES.items():
        if name in sys.modules and name not in _registered:
            library: Any = sys.modules[name]
            if all(hasattr(library, attribute) for attribute in needed):
                register(library)
                _registered.add(name)
            else:
                _looked_at = 0  # it is being imported: look again next time
    _theirs = dict(copyreg.dispatch_table)
    _all = _own | _theirs
    _in_band = {kind: reduce for kind, reduce in _own.items() if kind is not memoryview} | _own_in_band | _theirs


def _reduced_view(view: memoryview) -> tuple[Any, ...]:
    if not view.c_contiguous:
        copy: bytes | bytearray = view.tobytes() if view.readonly else bytearray(view.tobytes())
        view = memoryview(copy).cast(view.format, view.shape)  # type: ignore[call-overload]
    return _view, (pickle.PickleBuffer(view), view.format, view.shape)


def _view(buffer: Any, form: str, shape: tuple[int, ...]) -> memoryview:
    flat = memoryview(buffer).cast("B")
    return flat.cast(form, shape) if flat.nbytes else flat  # type: ignore[call-overload]


_own: dict[type, Reducer] = {memoryview: _reduced_view}

#: … where buffers stay in the pickle.
_own_in_band: dict[type, Reducer] = {}

#: All reducers, and what they were made of: those of the user's libraries, when there were so many modules.
_all: dict[type, Reducer] = {}
_in_band: dict[type, Reducer] = {}
_theirs: dict[type, Reducer] = {}
_looked_at = 0

#: The libraries whose reducers are among these.
_registered: set[str] = set()


#: numpy's bits for an array that may be written to, and for one of which its flags say so, with a warning, wrongly.
_WRITEABLE = 0x400
_WRITE_BITS = _WRITEABLE | 1 << 31

#: numpy's class of arrays, once that is imported.
_ndarray: Any = None


def _register_numpy(numpy: Any) -> None:
    """Have plain arrays of numbers travel as buffer, one letter and shape."""

    def reduced(value: Any) -> Any:
        if _is_plain(value):
            return _array, (pickle.PickleBuffer(value), value.dtype.char, value.shape)
        return value.__reduce_ex__(pickle.HIGHEST_PROTOCOL)

    global _ndarray
    _own[numpy.ndarray] = reduced
    _own_in_band[numpy.ndarray] = _reduced_in_band
    _ndarray = numpy.ndarray


def _reduced_in_band(array: Any) -> Any:
    writeable = array.flags.num & _WRITE_BITS == _WRITEABLE
    if writeable and array.dtype.isnative:
        return array.__reduce__()
    # Its own way would give it back in this machine's order of bytes, and writeable.
    return _as_it_was, (array.view(array.dtype.newbyteorder("=")).copy("K"), array.dtype, writeable)


def _as_it_was(array: Any, dtype: Any, writeable: bool) -> Any:  # noqa: FBT001
    array = array.view(dtype)
    array.flags.writeable = writeable
    return array


def _is_plain(array: Any) -> bool:
    kind = array.dtype
    plain = kind.isbuiltin == 1 and kind.kind in "biufc" and kind.metadata is None
    return bool(plain and array.nbytes > SMALL and array.flags.c_contiguous)


def array_key(value: Any) -> tuple[str, tuple[int, ...], bool] | None:
    """Return all that the pickle of a plain array depends on, since the buffer is no part of it; else ``None``."""
    if type(value) is _ndarray and _ndarray not in copyreg.dispatch_table and _is_plain(value):
        # Not what its flags say: an array of numpy.broadcast_arrays calls itself writeable, and is pickled read-only.
        return value.dtype.char, value.shape, memoryview(value).readonly
    return None


def _array(buffer: Any, char: str, shape: tuple[int, ...]) -> Any:
    try:
        array = sys.modules["numpy"].frombuffer(buffer, char)  # an import statement would take as long as the rest
    except (KeyError, AttributeError):  # this process has not imported it yet, or is about to
        from numpy import frombuffer

        array = frombuffer(buffer, char)
    return array if len(shape) == 1 else array.reshape(shape)


def _register_torch(torch: Any) -> None:
    """Have CPU tensors travel as the arrays that they are."""

    def reduced(value: Any) -> Any:
        strided = value.device.type == "cpu" and value.layout is torch.strided
        if strided and not value.requires_grad and not value.is_quantized and not vars(value):
            try:
                return _reduced_tensor(torch, value)
            except (TypeError, RuntimeError):  # a lazy tensor
                pass
        return value.__reduce_ex__(pickle.HIGHEST_PROTOCOL)

    _own[torch.Tensor] = reduced


def _reduced_tensor(torch: Any, tensor: Any) -> tuple[Any, ...]:
    if not tensor.is_contiguous():
        order = sorted(range(tensor.dim()), key=tensor.stride, reverse=True)
        dense = tensor.permute(order)
        if dense.is_contiguous():  # channels last, or transposed: it comes back so
            return _permuted, (dense, sorted(range(len(order)), key=order.__getitem__))
        tensor = tensor.contiguous()
    try:
        return torch.from_numpy, (tensor.numpy(),)
    except TypeError:  # a type that numpy lacks, such as bfloat16
        return _tensor, (tensor.reshape(-1).view(torch.uint8).numpy(), tensor.dtype, tensor.shape)


def _permuted(tensor: Any, order: list[int]) -> Any:
    return tensor.permute(order)


def _tensor(data: Any, dtype: Any, shape: Any) -> Any:
    import torch  # who gets a tensor has it anyway

    return torch.from_numpy(data).view(dtype).reshape(shape)


#: What a library has once it is imported far enough, and how to have its objects travel.
_LIBRARIES: dict[str, tuple[tuple[str, ...], Callable[[Any], None]]] = {
    "numpy": (("ndarray", "frombuffer"), _register_numpy),
    "torch": (("Tensor", "from_numpy"), _register_torch),
}
