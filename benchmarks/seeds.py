"""What random numbers cost: an item without and with a seed, and a generator of its own; beside plain calls.

``python benchmarks/seeds.py`` prints a table, of microseconds an item. A generator is set only where its module is
imported: so each line but the first few has one more of them.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import random
import statistics
import time
from collections.abc import Callable

from ordmap import Processes, Serial, item_rng, ordered_map, worker_info


def nothing(_: int) -> None:
    pass


def own(_: int) -> None:
    item_rng()


def own_of_numpy(_: int) -> None:
    item_rng("numpy")


def info(_: int) -> None:
    worker_info()


def measure(item: Callable[[int], None], backend: Processes | Serial, seed: int | None, items: int) -> float:
    """Return the microseconds that an item takes, in chunks of 100 where they go to a worker."""
    how = {} if backend.workers == 0 else {"prefetch": 400, "chunksize": 100}
    began = time.perf_counter()
    for _ in ordered_map(item, range(items), backend=backend, seed=seed, **how):
        pass
    return (time.perf_counter() - began) / items * 1e6


def line(label: str, repeats: int, *ways: Callable[[], float]) -> None:
    medians = (statistics.median(way() for _ in range(repeats)) for way in ways)
    print(f"{label:44}" + "".join(f"{median:12.2f}" for median in medians), flush=True)


def plain(call: Callable[[], object], items: int) -> float:
    began = time.perf_counter()
    for _ in range(items):
        call()
    return (time.perf_counter() - began) / items * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    items, repeats = arguments.items, arguments.repeats

    def both(label: str, item: Callable[[int], None], seed: int | None) -> None:
        with Processes(1) as pool:  # it inherits what is imported by now
            measure(nothing, pool, None, 100)
            line(
                label,
                repeats,
                lambda: measure(item, pool, seed, items),
                lambda: measure(item, Serial(), seed, items),
            )

    print(f"{'microseconds an item':44}{'a worker':>12}{'workers=0':>12}")
    both("no seed", nothing, None)
    both("… worker_info()", info, None)
    both("… item_rng()", own, None)
    both("seed=1, random", nothing, 1)
    both("… item_rng()", own, 1)
    import numpy as np

    np.random.seed(1)
    both("seed=1, random and numpy", nothing, 1)
    both('… item_rng("numpy")', own_of_numpy, 1)
    if importlib.util.find_spec("torch") is not None:
        torch = importlib.import_module("torch")
        both("seed=1, random, numpy and PyTorch", nothing, 1)
        line("torch.manual_seed(1)", repeats, lambda: plain(lambda: torch.manual_seed(1), items // 20))
    line("random.seed(1)", repeats, lambda: plain(lambda: random.seed(1), items))
    line("numpy.random.seed(1)", repeats, lambda: plain(lambda: np.random.seed(1), items))
    words = np.arange(4, dtype=np.uint32)
    line("numpy.random.seed(four words)", repeats, lambda: plain(lambda: np.random.seed(words), items))
    line("numpy.random.get_state()", repeats, lambda: plain(np.random.get_state, items))


if __name__ == "__main__":
    main()
