"""Inputs that are dealt with one by one: each before the next is pulled, for that may change it.

A source may fill one buffer again and again, and what it gives is that buffer, or holds it. Numbers, texts and the
like, and tuples of these, can't change: they are pulled many at a time, in C.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import chain, filterfalse, islice
from typing import Any

from ordmap.outcome import are_atoms, is_atomic
from ordmap.pulling import Load, Stream

__all__ = ["Apart"]


class Apart(Load):
    """A load whose child says what is to be done with an input that could change, by `put`."""

    __slots__ = ("_dealing",)

    def __init__(self, most: int) -> None:
        super().__init__(most)
        self._dealing = False  # with one after the other, since there was an input that could change

    def put(self, one: Any) -> None:
        """Add an input to the keys, or to a ``spare`` load where this is ``full``."""
        raise NotImplementedError

    def add(self, stream: Stream, count: int) -> None:
        if stream.swift:
            self._add_swift(stream, list(islice(stream.items, count)))
            return
        wanted = len(self.keys) + count
        while len(self.keys) < wanted and not self.full:
            self._add_row(stream.kind, islice(stream.row, wanted - len(self.keys)))
            if len(self.keys) < wanted and not self.full and not stream.turn():
                return

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

    def _add_row(self, kind: type, row: Iterator[Any]) -> None:
        """Add inputs that are of one type, as they are pulled."""
        if not self._dealing:
            if _is_atomic(kind):
                self.keys += row
                return
            if kind is tuple and self._add_tuples(row):
                return
            self._dealing = True
            self._deal(self._taken_out())
        if not self.full:
            self._deal(row)

    def _add_tuples(self, row: Iterator[Any]) -> bool:
        """Add tuples as they are pulled, up to the first that has something else in it than atoms: then ``False``."""
        keys, before = self.keys, len(self.keys)
        try:
            return all(map(is_atomic, map(type, chain.from_iterable(filterfalse(keys.append, row)))))
        except TypeError:  # a class that has no hash; else it is the source's
            if len(keys) == before or are_atoms(keys[-1]):
                raise
            return False

    def _deal(self, inputs: Iterator[Any]) -> None:
        clock = time.perf_counter
        for one in inputs:
            began = clock()
            self.put(one)
            self.packing += clock() - began
            if self.full:
                break


def _is_atomic(kind: type) -> bool:
    try:
        return is_atomic(kind)
    except TypeError:  # a class that has no hash
        return False


def _can_not_change(inputs: list[Any]) -> bool:
    """Whether all these are atoms, or all are tuples of atoms."""
    if are_atoms(inputs):
        return True
    return all(type(one) is tuple for one in inputs) and are_atoms(chain.from_iterable(inputs))
