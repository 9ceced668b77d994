"""The founding experiment: 100 items that wait a second each, 5 workers, a window of 10.

The blog post of 2017 keeps a deque of futures, twice as long as there are workers, on a ``ProcessPoolExecutor``: each
task is the bound method ``dataset.__getitem__`` with the next index, cycling; the oldest future is waited for, and the
next one submitted. Ideal are 20 s; the post measured 20.05 s. Here both run, start-up included::

    python benchmarks/blog_post.py [--backend processes|threads|spawn]

For ours the end is included, too, and that every item came in order and was computed exactly once is checked: each
appends its own byte to a file. (The post's loop never ends, and has up to 10 more items in hand when it is left.)
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter, deque
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import cycle, islice
from pathlib import Path

from ordmap import ordered_imap
from ordmap.backends import BACKENDS

ITEMS = 100
SECONDS = 1.0
WORKERS = 5
WINDOW = 2 * WORKERS
IDEAL = ITEMS * SECONDS / WORKERS
AT_MOST = IDEAL + 0.1


class Sleepers:
    """Items that take a second each, and leave a mark: each appends its byte to a file."""

    def __init__(self, marks: Path) -> None:
        self.marks = marks

    def __len__(self) -> int:
        return ITEMS

    def __getitem__(self, index: int) -> int:
        time.sleep(SECONDS)
        descriptor = os.open(self.marks, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, bytes([index]))
        os.close(descriptor)
        return index


def ours(dataset: Sleepers, backend: str) -> tuple[float, list[int]]:
    """Return the seconds that the loop took, and what it gave."""
    began = time.perf_counter()
    given = list(ordered_imap(dataset, WORKERS, WINDOW, backend=backend))
    return time.perf_counter() - began, given


def the_posts(dataset: Sleepers) -> tuple[float, list[int]]:
    """Return the seconds until the post's loop gave its hundredth item, and what it gave."""
    began = time.perf_counter()
    executor = ProcessPoolExecutor(WORKERS)
    indices = cycle(range(len(dataset)))
    queue: deque[Future[int]] = deque(executor.submit(dataset.__getitem__, i) for i in islice(indices, 2 * WORKERS))
    given = []
    for _ in range(len(dataset)):
        given.append(queue.popleft().result())
        queue.append(executor.submit(dataset.__getitem__, next(indices)))
    elapsed = time.perf_counter() - began
    executor.shutdown(cancel_futures=True)
    return elapsed, given


def main() -> int:
    """Run both, print the figures, and return 1 if ours lost the order or an item, or computed one twice."""
    parser = argparse.ArgumentParser(description="100 items of a second each, 5 workers, a window of 10.")
    parser.add_argument("--backend", default="processes", choices=[name for name in BACKENDS if name != "serial"])
    backend = parser.parse_args().backend
    print(f"{ITEMS} items of {SECONDS:g} s, {WORKERS} workers, a window of {WINDOW}; start-up included", flush=True)

    with tempfile.TemporaryDirectory(prefix="ordmap-blog-post-") as folder:
        marks = Path(folder, "ours")
        elapsed, given = ours(Sleepers(marks), backend)
        computed = Counter(marks.read_bytes())
        print(f"{'ideal':<38}{IDEAL:8.3f} s", flush=True)
        print(f"{f'ordered_imap, {backend}':<38}{elapsed:8.3f} s   {elapsed / IDEAL:.4f} x ideal", flush=True)
        theirs, theirs_given = the_posts(Sleepers(Path(folder, "theirs")))
        print(f"{'ProcessPoolExecutor + deque (the post)':<38}{theirs:8.3f} s   {theirs / IDEAL:.4f} x ideal")
    print(
        f"ours / the post's: {elapsed / theirs:.4f}; ours at most {AT_MOST:g} s: {'yes' if elapsed <= AT_MOST else 'NO'}"
    )

    in_order = given == list(range(ITEMS))
    once = computed == Counter(range(ITEMS))
    print(f"ours: in order: {'yes' if in_order else 'NO'}; each item exactly once: {'yes' if once else 'NO'}")
    if theirs_given != list(range(ITEMS)):
        print("the post's loop was not in order")
    return 0 if in_order and once else 1


if __name__ == "__main__":
    sys.exit(main())
