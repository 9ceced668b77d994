"""How a result is taken apart in the worker: its pickle, and its large buffers, which go to a block.

Pickle's protocol 5 gives the buffers of arrays out of band. They are copied once, into a block; those that lie in a
block already, since `ordmap.empty` made them, are not copied at all.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from typing import Any

from ordmap.engine.blocks import Arena, Block
from ordmap.engine.memory import address_of
from ordmap.outcome import PackedError, Raised, pack, pack_unpicklable
from ordmap.reducers import SMALL, OutOfBand, array_key, dispatch

__all__ = ["encode"]

_ALIGNMENT = 64

#: The pickles of arrays, by all that they depend on, and how many are kept: an item of 600 KB costs a sixth less.
_arrays: dict[tuple[str, tuple[int, ...], bool], bytes] = {}
_MOST_ARRAYS = 64

#: A result in blocks: its pickle, or where that lies, and where its buffers lie. It is sent as a list, which no plain
#: result is.
Placed = tuple[bytes | tuple[int, int, int], list[tuple[int, int, int]]]


def encode(box: list[Any], arena: Arena, lent: list[Block]) -> tuple[Any, int]:
    """Return the result in the box, emptying it, ready to travel, and its size. Blocks that it uses join ``lent``.

    What needs no block is its pickle. Nothing is raised: what can't be pickled is its item's failure.
    """
    if type(box[0]) is Raised:
        packed, size = pack(box)
        box.clear()
        return packed[0], size
    buffers: list[pickle.PickleBuffer] = []
    try:
        data = _pickled(box[0], buffers)
    except BaseException as error:  # a user's __reduce__ may raise anything
        failure: PackedError = pack_unpicklable(box.pop(), error)
        return failure, 0
    if not buffers and len(data) <= 2 * SMALL:
        box.clear()
        return data, len(data)
    views = [buffer.raw() for buffer in buffers]
    size = len(data) + sum(view.nbytes for view in views)
    before = len(lent)
    placed = _place(data, views, arena, lent)
    if placed is None:  # no block to be had: by way of a message, copied
        try:
            data = _pickled(box[0], None)
        except BaseException as error:
            return pack_unpicklable(box.pop(), error), 0
        box.clear()
        return data, size
    sent, own = placed
    # Nobody here may be able to write to what the caller gets. (An item's frame is gone; its dataset may hold it.)
    for block in own:
        block.handing_over = True
    box.clear()
    for view in views:
        view.release()
    for buffer in buffers:
        buffer.release()
    del views, buffers
    return (_separated(sent, own, arena, lent, before) if own else list(sent)), size


def _place(data: bytes, views: list[memoryview], arena: Arena, lent: list[Block]) -> tuple[Placed, list[Block]] | None:
    """Copy into one block what isn't in a block yet. Also return the blocks that an item had for its own."""
    own: list[Block] = []
    if len(views) == 1 and len(data) <= SMALL and not arena.gives:  # by far the most
        nbytes = views[0].nbytes
        block = arena.take(nbytes)
        if block is None:
            return None
        block.view[:nbytes] = views[0]
        lent.append(block)
        return (data, [(block.number, 0, nbytes)]), own
    parts = [_part_in_own(view, arena, own) for view in views]
    needed = len(data) if len(data) > SMALL else 0
    for part, view in zip(parts, views, strict=True):
        if part is None:
            needed = _aligned(needed) + view.nbytes
    if not needed and own:
        return (data, [part for part in parts if part is not None]), own
    block = arena.take(needed)
    if block is None:
        return None
    place = len(data) if len(data) > SMALL else 0
    if place:
        block.view[:place] = data
    whole: list[tuple[int, int, int]] = []
    for part, view in zip(parts, views, strict=True):
        if part is not None:
            whole.append(part)
            continue
        place = _aligned(place)
        block.view[place : place + view.nbytes] = view
        whole.append((block.number, place, view.nbytes))
        place += view.nbytes
    lent.append(block)
    return ((block.number, 0, len(data)) if len(data) > SMALL else data, whole), own


def _part_in_own(view: memoryview, arena: Arena, own: list[Block]) -> tuple[int, int, int] | None:
    """Return where in an item's own block a buffer lies, if it does; the block joins ``own``."""
    if not arena.gives or (address := address_of(view)) is None:
        return None
    block = arena.given_at(address)
    if block is None:
        return None
    if block not in own:
        own.append(block)
    return block.number, address - block.memory.address, view.nbytes


def _separated(sent: Placed, own: list[Block], arena: Arena, lent: list[Block], before: int) -> Any:
    """Hand over the blocks that items made their results in, and copies of those that are still held here.

    Where there is no memory for a copy, all blocks of this result are taken back: those but the first ``before``.
    """
    data, parts = sent
    held = [block for block in own if arena.is_held(block)]
    lent += [block for block in own if block not in held]
    for block in held:
        block.handing_over = False
    for block in held:
        copy = arena.take(block.size)
        if copy is None:
            for taken in lent[before:]:
                arena.put_back(taken)
            del lent[before:]
            return pack([Raised(MemoryError("there is no memory for a copy of this result"))])[0][0]
        copy.view[: block.size] = block.view  # it may be a little larger
        lent.append(copy)
        parts = [(copy.number, *part[1:]) if part[0] == block.number else part for part in parts]
    return [data, parts]


def _aligned(place: int) -> int:
    return -(-place // _ALIGNMENT) * _ALIGNMENT


# Pickling


def _pickled(result: Any, buffers: list[pickle.PickleBuffer] | None) -> bytes:
    """Pickle by ``pickle``, and by ``cloudpickle`` what that refuses; large buffers join ``buffers``."""
    if buffers is None or (key := array_key(result)) is None:
        return _dumped(result, buffers)
    data = _arrays.get(key)
    if data is not None:
        buffers.append(pickle.PickleBuffer(result))
        return data
    data = _dumped(result, buffers)
    if len(buffers) == 1:
        if len(_arrays) >= _MOST_ARRAYS:
            _arrays.clear()
        _arrays[key] = data
    return data


#: A pickler to be used again, since to make one takes longer than to pickle what is small: where it writes, itself, and
#: the large buffers that it has found.
_Kit = tuple[io.BytesIO, pickle.Pickler, list[pickle.PickleBuffer]]

#: The one that was used last.
_spare: _Kit | None = None


def _dumped(result: Any, buffers: list[pickle.PickleBuffer] | None) -> bytes:
    global _spare
    if buffers is None:
        kit = _kit(out_of_band=False)
    else:
        kit, _spare = _spare or _kit(), None  # an object of somebody's may have others pickled meanwhile
        if type(result) in (bytes, bytearray) and len(result) > SMALL:
            result = OutOfBand(result)
    file, pickler, found = kit
    file.seek(0)
    file.truncate()
    pickler.dispatch_table = dispatch()
    try:
        pickler.dump(result)
        pickler.clear_memo()  # it would keep the result
    except Exception:
        from ordmap.by_value import dumps  # heavy, and seldom needed in a worker

        return dumps(result, None if buffers is None else _collector(buffers), back=True)
    data = file.getvalue()
    if buffers is not None:
        if found:
            buffers += found
            found.clear()
        if len(data) <= 2 * SMALL:  # else it has taken much memory
            _spare = kit
    return data


def _kit(*, out_of_band: bool = True) -> _Kit:
    """Return a new pickler."""
    file = io.BytesIO()
    found: list[pickle.PickleBuffer] = []
    callback = _collector(found) if out_of_band else None
    return file, pickle.Pickler(file, pickle.HIGHEST_PROTOCOL, buffer_callback=callback), found


def _collector(buffers: list[pickle.PickleBuffer]) -> Callable[[pickle.PickleBuffer], bool]:
    def collect(buffer: pickle.PickleBuffer) -> bool:
        try:
            small = buffer.raw().nbytes <= SMALL
        except BufferError:  # not contiguous
            return True
        if not small:
            buffers.append(buffer)
        return small

    return collect
