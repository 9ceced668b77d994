"""A shuffled order of any length, without a list of it.

Up to 4,096 items are shuffled as ever (Fisher and Yates). More of them are never held: a *keyed bijection* gives the
item of each position. It is a Feistel network over the next power of two, whose rounds mix one half of the bits into
the other, so that each can be undone, whatever the mixing. A value beyond the length is sent through it again until it
isn't ("cycle walking", Black and Rogaway, 2002), which comes to two times on average at the most.

All of it is arithmetic of whole numbers, and a hash of the key, so it is the same on every machine and in every version
of Python, with numpy or without. It is fast since 256 positions go through it at once, side by side in one number::

    bits         16,320 … 16,383      …      64 … 127      0 … 63
    position             p + 255      …         p + 1           p
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from itertools import cycle

from ordmap.dataset import number_of

__all__ = ["Permutation"]

#: Up to this length the permutation is a list.
_LISTED = 4096

#: Positions that are computed at once, and the bits of each: as many as a product of two halves needs.
_LANES = 256
_WIDTH = 64

#: Rounds of the network, each with a key of its own. Four make a good one of good rounds; these are simple.
_ROUNDS = 8

#: Odd numbers with random bits, below 2^30: what Python multiplies large numbers by at once.
_MIX, _MIX_AGAIN = 0x2C1B3C6D, 0x297A2D39

_EACH = sum(1 << _WIDTH * lane for lane in range(_LANES))  # 1 for each
_STEPS = sum(lane << _WIDTH * lane for lane in range(_LANES))  # 0, 1, 2, …
_HALVES = 0xFFFFFFFF * _EACH
_QUARTERS = 0xFFFF * _EACH


class Permutation:
    """A permutation of ``range(length)`` that depends on the length and the key alone."""

    def __init__(self, length: int, *key: int) -> None:
        self._length = length
        hashed = hashlib.shake_256(" ".join(map(str, ("ordmap 1", length, *key))).encode())
        self._listed: Sequence[int] = ()
        if length <= _LISTED:
            self._listed = _shuffled(_words(hashed.digest(8 * length)))
            return
        bits = (length - 1).bit_length()
        self._low = bits // 2
        self._high = bits - self._low
        self._low_mask = ((1 << self._low) - 1) * _EACH
        self._high_mask = ((1 << self._high) - 1) * _EACH
        self._keys = [(word & 0xFFFFFFFF) * _EACH for word in _words(hashed.digest(8 * _ROUNDS))]
        self._ahead: list[int] = []  # items that were computed, and not asked for yet
        self._ahead_of = range(0)  # the positions of these

    def __len__(self) -> int:
        return self._length

    def at(self, positions: range) -> Sequence[int]:
        """Return the items of these positions, quickest where they follow those that were asked for last."""
        if self._length <= _LISTED:
            return self._listed[positions.start : positions.stop : positions.step]
        if positions.start != self._ahead_of.start or positions.step != self._ahead_of.step:
            self._ahead = []
        ahead, step = self._ahead, positions.step
        while len(ahead) < len(positions):
            ahead += self._computed(positions.start + step * len(ahead), step)
        self._ahead = ahead[len(positions) :]
        self._ahead_of = range(positions.start + step * len(positions), self._length, step)
        return ahead[: len(positions)]

    def _computed(self, begin: int, step: int) -> list[int]:
        """Return the items of the positions from this one, as many as are computed at once, or until the last."""
        count = min(_LANES, number_of(range(begin, self._length, step)))
        values = self._mixed(begin * _EACH + step * _STEPS, count)
        beyond = [lane for lane, value in enumerate(values) if value >= self._length]
        while beyond:
            again = self._mixed(_packed([values[lane] for lane in beyond]), len(beyond))
            for lane, value in zip(beyond, again, strict=True):
                values[lane] = value
            beyond = [lane for lane in beyond if values[lane] >= self._length]
        return values

    def _mixed(self, values: int, count: int) -> list[int]:
        """Send the first of these numbers, side by side, through the network."""
        here = (1 << _WIDTH * count) - 1
        low, low_mask, high_mask = self._low, self._low_mask & here, self._high_mask & here
        halves, quarters = _HALVES & here, _QUARTERS & here
        shifts = cycle(((32 - self._high, high_mask), (32 - low, low_mask)))
        left, right = values >> low & high_mask, values & low_mask
        for key, (shift, mask) in zip(self._keys, shifts, strict=False):
            # Numbers whose upper bits depend on all bits of the right half, and on the key.
            hashed = (right ^ key & here) * _MIX & halves
            hashed = (hashed ^ hashed >> 16 & quarters) * _MIX_AGAIN & halves
            left, right = right, left ^ hashed >> shift & mask
        return list(_words((left << low | right).to_bytes(_WIDTH // 8 * count, "little")))


def _shuffled(words: Sequence[int]) -> list[int]:
    """Shuffle the numbers from 0, by a random word for each."""
    listed = list(range(len(words)))
    for last in range(len(words) - 1, 0, -1):
        other = words[last] * (last + 1) >> 64
        listed[last], listed[other] = listed[other], listed[last]
    return listed


def _words(data: bytes) -> Sequence[int]:
    return struct.unpack(f"<{len(data) // 8}Q", data)


def _packed(values: Sequence[int]) -> int:
    return int.from_bytes(struct.pack(f"<{len(values)}Q", *values), "little")
