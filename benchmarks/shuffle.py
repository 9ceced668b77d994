"""A shuffled epoch: how long until its first index, how long each takes, and what it holds; beside lists of all indices.

``python benchmarks/shuffle.py`` prints a table. Ours is measured as a loop has it: in chunks of 100, through `Indices`.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np

from ordmap.indices import Indices

CHUNK = 100

#: Indices that are taken, where an epoch has more.
MOST = 1_000_000


def ours(length: int, seed: int | None = None) -> Iterator[Sequence[int]]:
    indices = Indices(range(length), 1, None, seed, shuffle=seed is not None)
    while (chunk := indices.take(CHUNK)) is not None:
        yield chunk.indices


def sample(length: int) -> Iterator[Sequence[int]]:
    order = random.Random(42).sample(range(length), length)
    for start in range(0, length, CHUNK):
        yield order[start : start + CHUNK]


def permutation(length: int) -> Iterator[Sequence[int]]:
    order = np.random.default_rng(42).permutation(length)
    for start in range(0, length, CHUNK):
        yield order[start : start + CHUNK].tolist()


#: By name, with the bytes that they need for each index, all of which they hold.
WAYS: dict[str, tuple[Callable[[int], Iterator[Sequence[int]]], int]] = {
    "ordmap, shuffled": (partial(ours, seed=42), 0),
    "ordmap, in order": (ours, 0),
    "random.sample": (sample, 40),
    "numpy's permutation": (permutation, 8),
}


def measure(way: Callable[[int], Iterator[Sequence[int]]], length: int) -> tuple[float, float]:
    """Return the seconds to the first index, and those for each, the first included."""
    began = time.perf_counter()
    chunks = way(length)
    taken = len(next(chunks))
    first = time.perf_counter() - began
    for chunk in chunks:
        taken += len(chunk)
        if taken >= MOST:
            break
    return first, (time.perf_counter() - began) / taken


def held(way: Callable[[int], Iterator[Sequence[int]]], length: int) -> int:
    """Return the most bytes that are held meanwhile."""
    tracemalloc.start()
    try:
        for number, _ in enumerate(way(length)):
            if number > 1000:
                break
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lengths", nargs="*", type=int, default=[10_000, 1_000_000, 600_000_000, 1_000_000_000])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--most-bytes", type=int, default=1 << 30, help="of a list that is still made")
    arguments = parser.parse_args()
    print(f"{'items':>13}  {'':20} {'ms to the first':>15} {'us each':>9} {'MB held':>9}")
    for length in arguments.lengths:
        for name, (way, each) in WAYS.items():
            if length * each > arguments.most_bytes:
                print(f"{length:13,}  {name:20} {'would hold':>25} {length * each / 1e6:9,.0f}")
                continue
            measured = [measure(way, length) for _ in range(arguments.repeats)]
            first, per_item = (statistics.median(column) for column in zip(*measured, strict=True))
            print(f"{length:13,}  {name:20} {first * 1e3:15.3f} {per_item * 1e6:9.3f} {held(way, length) / 1e6:9.2f}")


if __name__ == "__main__":
    main()
