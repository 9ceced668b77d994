"""A report on a server's log: its lines are read as a stream, parsed by the workers in groups, and added up in order.

``python examples/log_report.py LOG.gz`` says how many requests and bytes there were in each hour, and which path was
slowest. The lines are those of Apache's "common" format, with the microseconds that the request took (``%D``) at the
end. Without a log it makes one. It never holds more than a few groups, however long the log is.
"""

from __future__ import annotations

import argparse
import gzip
import random
import re
import tempfile
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from ordmap import ordered_map

LINE = re.compile(
    r'\S+ \S+ \S+ \[(?P<hour>[^:]+:\d\d):[^]]+\] "\S+ (?P<path>[^ ?"]+)[^"]*" \d+ (?P<size>\d+|-) (?P<time>\d+)'
)


class Sums(NamedTuple):
    """What some lines add up to; hours are in the order in which they came."""

    requests: Counter[str]  # of an hour
    bytes: Counter[str]  # of an hour
    visits: Counter[str]  # of a path
    times: Counter[str]  # of a path, in microseconds
    unreadable: Counter[str]


def add_up(lines: list[str]) -> Sums:
    """Parse some lines."""
    sums = Sums(*(Counter() for _ in Sums._fields))
    for line in lines:
        found = LINE.match(line)
        if found is None:
            sums.unreadable["lines"] += 1
            continue
        hour, path, size, time = found.group("hour", "path", "size", "time")
        sums.requests[hour] += 1
        sums.bytes[hour] += 0 if size == "-" else int(size)
        sums.visits[path] += 1
        sums.times[path] += int(time)
    return sums


def report(path: Path, group: int, workers: int | None) -> Sums:
    """Add up a whole log, so many lines at a time."""
    whole = Sums(*(Counter() for _ in Sums._fields))
    with gzip.open(path, "rt", encoding="utf-8", errors="replace") as log:
        groups = iter(lambda: list(islice(log, group)), [])
        for part in ordered_map(add_up, groups, workers=workers):
            for total, counted in zip(whole, part, strict=True):
                total.update(counted)
    return whole


def make(path: Path, lines: int) -> None:
    """Write a log of a day, with a line now and then that is none."""
    rng = random.Random(42)
    paths = ["/", "/about", "/search?q=map", "/images/logo.png", "/report.pdf"]
    with gzip.open(path, "wt", encoding="utf-8") as log:
        for n in range(lines):
            minute, second = divmod(n * 86_400 // lines, 60)
            hour, minute = divmod(minute, 60)
            place = rng.randrange(len(paths))
            log.write(
                f"10.0.0.{rng.randrange(256)} - - [10/Oct/2025:{hour:02}:{minute:02}:{second:02} +0000] "
                f'"GET {paths[place]} HTTP/1.1" 200 {rng.randrange(100_000)} {rng.randrange(1000 * (place + 1))}\n'
                if n % 1000
                else "-- MARK --\n"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log", type=Path, nargs="?")
    parser.add_argument("--lines", type=int, default=200_000, help="of the log that it makes")
    parser.add_argument("--group", type=int, default=2000, help="how many lines are parsed together")
    parser.add_argument("--workers", type=int, help="0: none; as many as there are cores if not given")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        log = arguments.log
        if log is None:
            log = Path(folder) / "access.log.gz"
            make(log, arguments.lines)
        sums = report(log, arguments.group, arguments.workers)
    for hour, requests in sums.requests.items():
        print(f"{hour}: {requests} requests, {sums.bytes[hour]} bytes")
    if sums.visits:
        slowest = max(sums.visits, key=lambda path: sums.times[path] / sums.visits[path])
        print(f"slowest: {slowest}, {sums.times[slowest] / sums.visits[slowest]:.0f} microseconds on average")
    print(f"unreadable: {sums.unreadable.total()} lines")


if __name__ == "__main__":
    main()
