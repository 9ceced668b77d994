"""Chaos: workers are killed, stopped and starved of memory at random moments, and every item comes all the same.

``python tests/stress/chaos.py --seconds 600 --kills 10000`` goes on until both are reached, and prints what happened.
The suite has a short form (``pytest -m stress --stress-seconds … --stress-kills …`` makes it longer).
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ordmap import Processes, Spawn, ordered_imap
from ordmap.engine.board import ITEM

#: Seconds between two deaths of workers that have not computed anything yet. Many in a row can't be told from workers
#: that can't begin, and that is an error.
_BETWEEN = 4.0


class Items:
    """Items of all sizes, known by their index alone; some of them fork, use memory, or take a moment."""

    def __init__(self, seed: int, length: int) -> None:
        self.seed = seed
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> object:
        what = random.Random(self.seed * 1_000_003 + index)
        self.burden(what.random(), what)
        return self.result(index)

    def burden(self, kind: float, what: random.Random) -> None:
        if kind < 0.01:
            child = os.fork()
            if not child:
                os._exit(0)
            os.waitpid(child, 0)
        elif kind < 0.015:
            thread = threading.Thread(target=time.sleep, args=(0.001,))
            thread.start()
            thread.join()
        elif kind < 0.02:
            bytearray(os.urandom(1 << 10) * (64 << 10))  # 64 MB, each page of it
        elif kind < 0.2:
            time.sleep(what.random() * 0.004)

    def result(self, index: int) -> object:
        what = random.Random(~(self.seed * 1_000_003 + index))
        kind = what.random()
        if kind < 0.5:
            return index * self.seed
        if kind < 0.6:
            return {"text": "x" * what.randrange(9000), "pair": (index, None)}
        if kind < 0.8:
            return np.full(what.randrange(2000), index)
        if kind < 0.97:
            return np.arange(index, index + what.randrange(2000, 150_000))
        return [np.full((what.randrange(1, 600), 1000), index, "f4"), b"y" * what.randrange(300_000)]


def equal(one: object, other: object) -> bool:
    if isinstance(other, np.ndarray):
        return type(one) is np.ndarray and one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(other, list):
        return type(one) is list and len(one) == len(other) and all(map(equal, one, other))
    return type(one) is type(other) and one == other


def children() -> set[int]:
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            found |= {int(pid) for pid in (task / "children").read_text().split()}
    return found


def descriptors() -> Counter[str]:
    found: Counter[str] = Counter()
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found[os.readlink(entry).split(":")[0]] += 1
    return found


@dataclass
class Report:
    """What has happened."""

    seconds: float = 0.0
    items: int = 0
    rounds: int = 0
    kills: int = 0
    stops: int = 0
    views_kept: int = 0
    backends: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    left: dict[str, object] = field(default_factory=dict)


class Killer(threading.Thread):
    """Kills and stops this process's children at random, but for those that are spared, until it is told to end."""

    def __init__(self, report: Report, chance: random.Random, spared: set[int]) -> None:
        super().__init__(name="killer", daemon=True)
        self.report = report
        self.chance = chance
        self.spared = spared
        self.over = threading.Event()
        self.pool = Processes(1)  # that is in use now
        self.pause = 0.06  # seconds between two blows, at the most

    def run(self) -> None:
        young_again = 0.0
        while not self.over.wait(self.chance.random() * self.pause):
            now = time.monotonic()
            present = [*(children() - self.spared)]
            if not present:
                continue
            pid = self.chance.choice(present)
            if self.is_young(pid):
                if now < young_again:
                    continue
                young_again = now + _BETWEEN
            # A child that was reaped meanwhile leaves its number to nobody so soon.
            with contextlib.suppress(ProcessLookupError):
                if self.chance.random() < 0.85:
                    os.kill(pid, signal.SIGKILL)
                    self.report.kills += 1
                else:
                    os.kill(pid, signal.SIGSTOP)
                    self.report.stops += 1
                    time.sleep(self.chance.random() * 0.02)
                    os.kill(pid, signal.SIGCONT)

    def is_young(self, pid: int) -> bool:
        """Whether a worker may not have computed anything yet."""
        crew = self.pool._crew
        with contextlib.suppress(ValueError):  # the crew ends
            for worker in crew._staff if crew is not None else ():
                if worker.pid == pid:
                    serial, state, *_ = crew.board.row(worker.number)
                    return not (worker.proven or (serial and state >= ITEM))
        return True


def one_round(report: Report, killer: Killer, chance: random.Random, until: float) -> None:
    """Go through some items with settings drawn at random, and compare each with the serial answer."""
    seed = chance.randrange(1 << 30)
    items = Items(seed, chance.choice([300, 1000, 3000]))
    workers = chance.choice([1, 2, 3, 4])
    make = Spawn if chance.random() < 0.1 else Processes
    pool = make(workers, max_items_per_worker=chance.choice([None, None, 100]))
    killer.pool = pool
    killer.pause = 0.3 if make is Spawn else 0.06  # a fresh interpreter needs time to get anywhere
    report.backends[pool.name] += 1
    iterator = ordered_imap(
        items,
        prefetch=chance.choice([None, 2, 16, 100, "5MB"]),
        backend=pool,
        chunksize=chance.choice([None, None, 1, 2]),
        retries=10_000,
    )
    if chance.random() < 0.3:  # the thread that starts the workers ends before they do
        starter = threading.Thread(target=iterator.start)
        starter.start()
        starter.join()
    kept: list[tuple[int, np.ndarray]] = []
    index = -1
    with iterator:
        for index, result in enumerate(iterator):
            if not equal(result, items.result(index)):
                report.faults.append(f"seed {seed}: item {index} is not what it is in serial")
            report.items += 1
            if isinstance(result, np.ndarray) and len(result) > 20 and chance.random() < 0.02:
                kept.append((index, result[10:20]))
            if time.monotonic() > until:
                break
        else:
            if index + 1 != len(items):
                report.faults.append(f"seed {seed}: {index + 1} items came, not {len(items)}")
    report.views_kept += len(kept)
    for index, view in kept:  # beyond the workers, and the pool
        if not np.array_equal(view, items.result(index)[10:20]):
            report.faults.append(f"seed {seed}: a view of item {index} has changed")


def run(seconds: float, kills: int, seed: int, *, quiet: bool = True) -> Report:
    """Let chaos reign for so long at the least, and until so many workers have been killed."""
    gc.collect()
    before = children(), descriptors(), set(threading.enumerate())
    report, chance = Report(), random.Random(seed)
    began = said = time.monotonic()
    killer = Killer(report, random.Random(~seed), spared=before[0])
    killer.start()
    try:
        while time.monotonic() < began + seconds or report.kills < kills:
            until = began + seconds if report.kills >= kills else began + 10 * seconds
            one_round(report, killer, chance, until)
            report.rounds += 1
            if not quiet and time.monotonic() > said + 10:
                said = time.monotonic()
                print(f"{said - began:6.0f} s  {report}", flush=True)
    finally:
        killer.over.set()
        killer.join()
    report.seconds = time.monotonic() - began
    gc.collect()
    give_up = time.monotonic() + 5
    while time.monotonic() < give_up and (children() - before[0] or descriptors() - before[1]):
        time.sleep(0.01)
    left = {
        "processes": children() - before[0],
        "descriptors": descriptors() - before[1],
        "threads": set(threading.enumerate()) - before[2],
    }
    report.left = {kind: things for kind, things in left.items() if things}
    return report


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--kills", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 30))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    report = run(arguments.seconds, arguments.kills, arguments.seed, quiet=False)
    print(report)
    return 1 if report.faults or report.left else 0


if __name__ == "__main__":
    sys.exit(main())
