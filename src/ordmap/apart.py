"""Inputs that are dealt with one by one: each before the next is pulled, for that may change it.

A source may fill one buffer again and again, and what it gives is that buffer, or holds it. Numbers, texts and the
like, and tuples of these, can't change: they are pulled many at a time, in C.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, filterfalse, islice
from typing import Any

from ordmap import real_time as time
from ordmap.outcome import are_atomic, are_atoms, is_atomic
from ordmap.pulling import Load, Stream

__all__ = ["Apart"]


#: Seconds that an input may take to be dealt with, up to which the others that come with it are taken to be alike.
_QUICK = 0.00001


class Apart(Load):
    """A load whose child says what is to be done with an input that could change, by `put`."""

    __slots__ = ("_dealing", "_steady", "_tuples")

    def __init__(self, most: int) -> None:
        super().__init__(most)
        self._steady: Iterator[bool] | None = None  # pulls and adds an input, and says whether it is an atom
        self._tuples = False  # there was one, so that others may come
        self._dealing = False  # with one after the other, since there was an input that could change

    def put(self, one: Any) -> None:
        """Add an input to the keys, or to a ``spare`` load where this is ``full``."""
        raise NotImplementedError

    def add(self, stream: Stream, count: int) -> None:
        if stream.swift:
            self._add_swift(stream, list(islice(stream.items, count)))
            return
        if not self._dealing:
            wanted = len(self.keys) + count
            if self._add_unchanging(stream.items, count):
                return
            self._dealing = True
            count = wanted - len(self.keys)
            self._deal(self._taken_out())
        if not self.full:
            self._deal(islice(stream.items, count))

    def seal(self) -> None:
        self._steady = None

    def _add_unchanging(self, items: Iterator[Any], count: int) -> bool:
        """Add inputs that can't change, as they are pulled; ``False``: the last one could."""
        keys, before = self.keys, len(self.keys)
        try:
            if not self._tuples:
                if self._steady is None:
                    self._steady = map(is_atomic, map(type, filterfalse(keys.append, items)))
                if all(islice(self._steady, count)):
                    return True
                if not _is_steady(keys[-1]):
                    return False
                self._tuples = True
                count -= len(keys) - before
            have_atoms, add = are_atomic, keys.append
            for one in islice(items, count):
                add(one)
                if not (have_atoms(map(type, one)) if type(one) is tuple else is_atomic(type(one))):
                    return False
        except TypeError:  # a class that has no hash; else it is the source's
            if len(keys) == before or _is_steady(keys[-1]):
                raise
            return False
        return True

    def _add_swift(self, stream: Stream, pulled: list[Any]) -> None:
        """Add what was pulled at once, for to pull changes nothing there."""
        if not self._dealing and _can_not_change(pulled):
            self.keys += pulled
            return
        rest = iter(pulled)
        self._dealing = True
        self._deal(chain(self._taken_out(), rest))
        if self.full:
            stream.put_back(rest)

    def _taken_out(self) -> Iterator[Any]:
        """Take out the keys, which are to be dealt with now that there was an input that could change."""
        earlier, self.keys[:] = self.keys[:], []
        return iter(earlier)

    def _deal(self, inputs: Iterator[Any]) -> None:
        clock, put = time.perf_counter, self.put
        each, packing = _QUICK, 0.0
        for one in inputs:
            if each < _QUICK:  # to look at the clock takes a tenth of what a small input does
                put(one)
            else:
                began = clock()
                put(one)
                each = clock() - began
            packing += each
            if self.full:
                break
        self.packing += packing


def _is_steady(one: Any) -> bool:
    """Whether an input is an atom, or a tuple of atoms."""
    return are_atoms(one if type(one) is tuple else (one,))


def _can_not_change(inputs: list[Any]) -> bool:
    """Whether all these are atoms, or all are tuples of atoms."""
    if are_atoms(inputs):
        return True
    return all(type(one) is tuple for one in inputs) and are_atoms(chain.from_iterable(inputs))
