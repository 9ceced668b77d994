"""A word to the user where workers are threads, and the source changes what it gave before.

Threads get the very objects that the source gives: one that it fills anew has other content by the time that an item
looks at it. To give the same object again is no fault: a model, or a table of options, may be a part of each input. So
what is given again while it is held is looked at right before a pull, and right after it.
"""

from __future__ import annotations

import contextlib
import sys
import weakref
import zlib
from collections.abc import Iterator
from itertools import islice
from typing import Any

from ordmap.apart import Apart
from ordmap.outcome import are_atoms
from ordmap.pulling import Load, Stream
from ordmap.telling import warn

__all__ = ["CURE", "Repeats"]

#: Inputs of a run that are looked at: a source does as it does from its beginning.
_MOST_INPUTS = 2000

#: Parts of an input, and of what it is made of, that are looked at.
_MOST_PARTS = 16

#: Objects that are given again, and pulls that each is watched for.
_MOST_SUSPECTS, _MOST_PULLS = 8, 4

#: Bytes of a large buffer that are read, in so many pieces.
_MOST_BYTES, _PIECES = 1 << 16, 16

CURE = "copy it in the source, as in (frame.copy() for frame in frames), or use backend='processes'"


class Repeats:
    """What a run was given, as far as it is held; has inputs pulled into its `load`."""

    def __init__(self) -> None:
        self._left = _MOST_INPUTS
        self._holders: dict[int, weakref.ref[_Watched]] = {}  # by the object's id, which is its own while it is held
        self._suspects: dict[int, _Suspect] = {}

    def load(self, most: int) -> Load:
        """Return what the inputs of a chunk are pulled into."""
        return _Watched(self, most) if self._left > 0 else Load(most)

    def note(self, one: Any, load: _Watched) -> None:
        """Look at an input that was pulled just now."""
        if self._left <= 0:
            return
        self._left -= 1
        if any(suspect.has_changed() for suspect in self._suspects.values()):
            self._left = 0
            self._suspects.clear()
            warn(f"the source fills an object anew that it gave before, and items in threads may read it later: {CURE}")
            return
        for part in _parts(one):
            number = id(part)
            holder = self._holders.get(number)
            if holder is not None and holder() is not None and len(self._suspects) < _MOST_SUSPECTS:
                self._suspects.setdefault(number, _Suspect(part))
            self._holders[number] = weakref.ref(load)
            load.held.append(part)
        self.look()

    def look(self) -> None:
        """See what there is, right before a pull."""
        for suspect in self._suspects.values():
            suspect.look()


class _Suspect:
    """An object that was given again, and what was in it before the last pull."""

    def __init__(self, one: Any) -> None:
        self._one = one
        self._pulls = _MOST_PULLS
        self._content: object = None

    def look(self) -> None:
        if self._pulls:
            self._content = _content(self._one)

    def has_changed(self) -> bool:
        if not self._pulls:
            return False
        self._pulls -= 1
        changed = self._content != _content(self._one)
        if not self._pulls:
            self._one = self._content = None
        return changed


class _Watched(Apart):
    """Inputs as they are, each looked at; ``held``: what others may be the same as."""

    __slots__ = ("_repeats", "held")

    def __init__(self, repeats: Repeats, most: int) -> None:
        super().__init__(most)
        self._repeats = repeats
        self.held: list[Any] = []

    def add(self, stream: Stream, count: int) -> None:
        if stream.swift:
            self.keys += islice(stream.items, count)
            return
        self._repeats.look()
        super().add(stream, count)

    def put(self, one: Any) -> None:
        self.keys.append(one)
        self._repeats.note(one, self)


def _parts(one: Any) -> Iterator[Any]:
    """Yield an input, and what it is made of, as far as that could change, and what has the memory that these view."""
    for part in (one, *_inside(one)):
        if not are_atoms((part,)):
            yield part
            owner = _owner(part)
            if owner is not None:
                yield owner


def _owner(one: Any) -> Any:
    """Return what has the memory that a view is of, which a source may give a new view of each time."""
    if type(one) is memoryview:
        return one.obj
    if type(one) is getattr(sys.modules.get("numpy"), "ndarray", None):
        return one.base.obj if type(one.base) is memoryview else one.base
    return None


def _inside(one: Any) -> list[Any]:
    """Return some of what a container has in it, or an object in its attributes."""
    if issubclass(type(one), tuple):
        return list(islice(tuple.__iter__(one), _MOST_PARTS))
    if type(one) in {list, set}:
        return list(islice(one, _MOST_PARTS))
    with contextlib.suppress(AttributeError, RuntimeError):  # it has none; a thread is changing it
        named = one if type(one) is dict else object.__getattribute__(one, "__dict__")
        return list(islice(dict.values(named), _MOST_PARTS)) if type(named) is dict else []
    return []


def _content(one: Any, depth: int = 2) -> object:
    """Return what is equal as long as an object has the same in it, as far as that can be seen at little cost."""
    try:
        view = memoryview(one)
    except TypeError:
        inside = _inside(one) if depth else []
        return [part if are_atoms((part,)) else (id(part), _content(part, depth - 1)) for part in inside]
    if view.nbytes <= _MOST_BYTES:
        return zlib.crc32(view.tobytes())
    if not view.c_contiguous:
        return None
    whole, step = view.cast("B"), view.nbytes // _PIECES
    return [zlib.crc32(whole[start : start + _MOST_BYTES // _PIECES]) for start in range(0, whole.nbytes, step)]
