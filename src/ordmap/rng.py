"""Random numbers that a seed, an epoch and an index give, whoever computes the item, and when."""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, overload

from ordmap.item import InHand, in_hand

if TYPE_CHECKING:
    import random

    import numpy as np

__all__ = ["item_rng", "key_of", "word_of"]

_WORD = 0xFFFFFFFF

#: An odd number with random bits.
_MIX = 0x2C1B3C6D


# What a seed gives


def key_of(hand: InHand, purpose: str) -> int:
    """Return 128 bits for the present item, that nothing else has."""
    from hashlib import blake2b  # most do without

    text = f"ordmap 1 {purpose} {hand.seed} {hand.label.epoch} {hand.index}"
    return int.from_bytes(blake2b(text.encode(), digest_size=16).digest())


def word_of(hand: InHand, purpose: str) -> int:
    """Return 32 bits for the present item, that no other of its epoch has (of the first four thousand million)."""
    index = hand.index
    word = (index ^ (index >> 32) * _MIX) & _WORD
    for key in _word_keys(purpose, hand.seed, hand.label.epoch):  # each step can be undone
        word = (word ^ key) * _MIX & _WORD
        word ^= word >> 16
    return word


@lru_cache(maxsize=8)
def _word_keys(purpose: str, seed: int | None, epoch: int) -> tuple[int, ...]:
    """Return what makes of an index the words of an epoch."""
    from hashlib import blake2b

    return struct.unpack("<3I", blake2b(f"ordmap 1 {purpose} {seed} {epoch}".encode(), digest_size=12).digest())


@overload
def item_rng(kind: Literal["random"] = ...) -> random.Random: ...
@overload
def item_rng(kind: Literal["numpy"]) -> np.random.Generator: ...
def item_rng(kind: Literal["random", "numpy"] = "random") -> random.Random | np.random.Generator:
    """Return the random generator of the item that is being computed: a ``random.Random``.

    What it gives depends on the ``seed`` of the call, the epoch and the index alone: on every backend, whatever was
    computed before, and when an item is tried again. Without a ``seed`` it is seeded by chance. An item that asks again
    gets the same generator, which goes on. Outside of any item, it is a new one, seeded by chance. It costs 8 µs.

    Args:
        kind: ``"numpy"``: a ``numpy.random.Generator`` instead, with numbers of its own (12 µs).

    Attention: a thread that an item starts is not inside it. Have the generator before, and give it to the thread.

    Example:
        >>> from ordmap import ordered_map
        >>> def noisy(value):
        ...     return value + item_rng().random()
        >>> one = list(ordered_map(noisy, [1, 2, 3], workers=2, seed=7))
        >>> one == list(ordered_map(noisy, [1, 2, 3], workers=0, seed=7))
        True
    """
    if kind not in {"random", "numpy"}:
        raise ValueError(f"item_rng() has generators of 'random' and of 'numpy', not of {kind!r}")
    hand = in_hand()
    if hand is None:
        return _generator(kind, None)
    place = hand.place
    if hand.generators is None or hand.generators[0] != place:
        hand.generators = place, {}
    made = hand.generators[1]
    if kind not in made:
        made[kind] = _generator(kind, None if hand.seed is None else key_of(hand, f"item {kind}"))
    found: random.Random | np.random.Generator = made[kind]
    return found


def _generator(kind: str, key: int | None) -> random.Random | np.random.Generator:
    if kind == "numpy":
        import numpy as np  # only for who uses it

        return np.random.Generator(np.random.PCG64(key))
    import random  # most do without

    return random.Random(key)  # noqa: S311  not for secrets
