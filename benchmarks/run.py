"""ordmap beside its peers: ``python benchmarks/run.py [WORKLOAD …] [--contenders NAMES] [--seconds 3] [--repeats 5]``.

``--list`` names the workloads and their contenders. Both may be given by patterns (``'arrays_*'``, ``'torch*'``).

How it is measured:

- Whole calls: from the call to the end of the workers, start-up included. Only imports come before the clock.
- Each run is a fresh process, so that no contender spoils another; what one leaves behind is ended, and said.
- The number of items is chosen for each contender so that what follows its start-up takes about ``--seconds``.
- Contenders take turns: A B C, A B C, … Ratios are taken within a turn, and their median is given.
- Every run checks the order and the content of what it gets. One that fails, or takes longer than ``--limit``, is
  reported as such, and gets no further turn.

The peers are in ``requirements.txt``; one that isn't installed is left out. To measure another source tree:
``PYTHONPATH=…/src python benchmarks/run.py``.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import importlib.metadata
import json
import math
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import memory
import peers
import workload
from workload import Target, Workload

CHILD = Path(__file__).with_name("child.py")


class FailedError(Exception):
    """A run that gave nothing."""


@dataclass
class Results:
    """What the contenders of one workload did: for each a list with one entry a repeat, ``None`` where it failed."""

    workload: Workload
    counts: dict[str, int] = field(default_factory=dict)
    runs: dict[str, list[dict[str, float] | None]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def values(self, contender: str, metric: str) -> list[float | None]:
        return [run.get(metric) if run else None for run in self.runs.get(contender, [])]

    def median(self, contender: str, metric: str) -> float | None:
        known = [value for value in self.values(contender, metric) if value is not None]
        return statistics.median(known) if known else None

    def ratios(self, ours: str, theirs: str, metric: str) -> list[float]:
        pairs = zip(self.values(ours, metric), self.values(theirs, metric), strict=False)
        return [one / other for one, other in pairs if one is not None and other]


# One run


def run_child(module: str, chosen: Workload, task: workload.Task, limit: float) -> dict[str, float]:
    """Measure once, in a process of its own; raise `FailedError` with what is known of a failure."""
    with tempfile.TemporaryDirectory(prefix="ordmap-benchmark-") as folder:
        sent, received, log = Path(folder, "task"), Path(folder, "result"), Path(folder, "log")
        sent.write_text(
            json.dumps(
                {
                    "module": module,
                    "workload": chosen.name,
                    "task": {**vars(task), "folder": str(task.folder)},
                }
            )
        )
        with log.open("wb") as output:
            child = subprocess.Popen(
                [sys.executable, str(CHILD), str(sent), str(received)],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        try:
            status = child.wait(limit)
        except subprocess.TimeoutExpired:
            raise FailedError(f"took longer than {limit:g} s") from None
        finally:
            left = end_session(child)
        if not received.exists():
            lines = log.read_text(errors="replace").strip().splitlines() or [f"exit status {status}"]
            said = next((line for line in reversed(lines) if "Error" in line), lines[-1])
            raise FailedError(said[:200])
        if left:
            print(f"    {task.contender} left {left} process(es) behind", flush=True)
        return json.loads(received.read_text())


def end_session(child: subprocess.Popen[bytes]) -> int:
    """End a run and all that is still there of it; return how many outlived it by half a second."""
    descendants: set[int] = set()
    if child.poll() is None:  # it took too long
        descendants = set(memory.tree(child.pid)) - {child.pid}
        child.kill()
        child.wait()

    def left_after(seconds: float) -> set[int]:
        patience = time.monotonic() + seconds
        while left := memory.session(child.pid) | {one for one in descendants if memory.is_alive(one)}:
            if time.monotonic() > patience:
                break
            time.sleep(0.02)
        return left

    left = left_after(0.5)
    # The standard library's tracker removes what the others leave in /dev/shm, once they are gone.
    trackers = {one for one in left if memory.runs(one, "resource_tracker")}
    for processes, patience in ((left - trackers, 3.0), (trackers, 0.0)):
        for process in processes & left_after(0.0):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        left_after(patience)
    return len(left)


# All runs of a workload


class Runner:
    def __init__(self, seconds: float, repeats: int, limit: float) -> None:
        self.seconds = seconds
        self.repeats = repeats
        self.limit = limit

    def run(self, module: str, chosen: Workload, contenders: list[str]) -> Results:
        """Count, then let the contenders take turns."""
        results = Results(chosen)
        with tempfile.TemporaryDirectory(prefix="ordmap-benchmark-") as folder:
            if chosen.prepare is not None:
                chosen.prepare(Path(folder))

            def once(contender: str, count: int, repeat: int) -> dict[str, float]:
                task = workload.Task(contender, count, self.seconds, repeat, Path(folder))
                return run_child(module, chosen, task, self.limit)

            for contender in contenders:
                results.runs[contender] = []
                results.counts[contender] = chosen.count
                if chosen.counted:
                    with self._noting(results, contender):
                        results.counts[contender] = self._count(chosen, contender, once)
            for repeat in range(self.repeats):
                for contender in contenders:
                    given = None
                    if contender not in results.failures:
                        with self._noting(results, contender):
                            given = once(contender, results.counts[contender], repeat)
                    results.runs[contender].append(given)
                    self._say(chosen, contender, repeat, given)
        return results

    def _count(self, chosen: Workload, contender: str, once) -> int:
        """Return the number of items that takes about ``seconds`` after the start-up."""
        count = chosen.count
        start = once(contender, count, 0)["elapsed"]
        wanted = count
        for _ in range(6):
            wanted *= 8
            took = once(contender, wanted, 0)["elapsed"] - start
            if took > 0.4 * self.seconds:
                break
            if took > 0.05 * self.seconds:
                wanted = int(wanted * self.seconds / took / 8) + 1  # one more look, near the end
        return max(count, int((wanted - count) * self.seconds / max(took, 0.01 * self.seconds)))

    @contextlib.contextmanager
    def _noting(self, results: Results, contender: str):
        try:
            yield
        except FailedError as error:
            results.failures[contender] = str(error)
            print(f"    {contender}: {error}", flush=True)

    def _say(self, chosen: Workload, contender: str, repeat: int, given: dict[str, float] | None) -> None:
        if given is not None:
            said = ", ".join(
                f"{figure(given[one.name])} {one.unit}" for one in chosen.metrics if given.get(one.name) is not None
            )
            print(f"    {repeat + 1}/{self.repeats} {contender:<20} {said}", flush=True)


# Saying it


def figure(value: float | None) -> str:
    """Return three digits that count, and never an exponent."""
    if value is None:
        return "–"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    places = 0 if not value else 2 - math.floor(math.log10(abs(value)))
    return f"{value:.{min(places, 6)}f}"


def matching(names: list[str], patterns: tuple[str, ...] | list[str]) -> list[str]:
    return [name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]


@dataclass(frozen=True)
class Verdict:
    text: str
    value: float | None
    reached: bool | None


def judge(results: Results, target: Target) -> Verdict:
    """Compare what was measured with a figure to reach."""
    metric = next(one for one in results.workload.metrics if one.name == target.metric)
    peer = None
    if target.over:
        medians = {
            name: median
            for name in matching(list(results.runs), target.over)
            if (median := results.median(name, metric.name)) is not None
        }
        if medians:
            best = min if metric.less_is_better else max
            peer = best(medians, key=medians.__getitem__)
        ratios = results.ratios(target.ours, peer, metric.name) if peer else []
        value = statistics.median(ratios) if ratios else None
    else:
        value = results.median(target.ours, metric.name)
    sign, limit = ("≥", target.at_least) if target.at_least is not None else ("≤", target.at_most)
    what = f"{limit:g} x {peer or ' | '.join(target.over)}" if target.over else f"{limit:g} {metric.unit}"
    reached = None if value is None else (value >= limit if sign == "≥" else value <= limit)
    return Verdict(f"{target.ours} {sign} {what}", value, reached)


def table(results: Results) -> str:
    """Return medians, the range of the first metric, and the ratios of ours to each, as paired medians."""
    chosen = results.workload
    main = chosen.metrics[0]
    ours = [name for name in results.runs if name.split(":")[0] in peers.OURS and results.median(name, main.name)]
    rows = [
        ["", *(metric.unit for metric in chosen.metrics), "least … most", *(f"{name} /" for name in ours)],
    ]
    for name in results.runs:
        if results.median(name, main.name) is None:
            rows.append([name, results.failures.get(name, "no result")])
            continue
        known = [value for value in results.values(name, main.name) if value is not None]
        row = [name, *(figure(results.median(name, metric.name)) for metric in chosen.metrics)]
        row.append(f"{figure(min(known))} … {figure(max(known))}")
        for one in ours:
            ratios = results.ratios(one, name, main.name)
            row.append(figure(statistics.median(ratios)) if ratios and one != name else "")
        if name in results.failures:
            row.append(f"then: {results.failures[name]}")
        rows.append(row)
    columns = len(rows[0])
    widths = [max((len(row[n]) for row in rows if len(row) >= columns), default=0) for n in range(columns)]
    widths[0] = max(len(row[0]) for row in rows)
    lines = [f"\n{chosen.name}: {chosen.title}"]
    for row in rows:
        if len(row) < columns:
            lines.append(f"  {row[0]:<{widths[0]}}  FAILED: {row[1]}")
        else:
            cells = [f"{cell:>{width}}" for cell, width in zip(row[1:], [*widths[1:], 0], strict=False)]
            lines.append(f"  {row[0]:<{widths[0]}}  " + "  ".join(cells).rstrip())
    for target in chosen.targets:
        if target.ours not in results.runs:
            continue
        verdict = judge(results, target)
        word = {None: "not measured", True: "reached", False: "MISSED"}[verdict.reached]
        lines.append(f"  to reach: {verdict.text}: {figure(verdict.value)}  {word}")
    return "\n".join(lines)


def as_json(results: Results) -> dict[str, object]:
    chosen = results.workload
    return {
        "title": chosen.title,
        "counts": results.counts,
        "runs": results.runs,
        "failures": results.failures,
        "medians": {
            name: {metric.name: results.median(name, metric.name) for metric in chosen.metrics} for name in results.runs
        },
        "targets": [vars(judge(results, target)) for target in chosen.targets if target.ours in results.runs],
    }


def machine() -> dict[str, object]:
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "processor": names[0] if names else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load before": [round(load, 2) for load in os.getloadavg()],
    }


def versions() -> dict[str, str]:
    found = {}
    for name in ("numpy", "pillow", *(peer.distribution for peer in peers.PEERS.values() if peer.distribution)):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def main() -> int:
    """Run what is asked for; return 1 if one of ours failed."""
    parser = argparse.ArgumentParser(description="ordmap beside its peers.", epilog="See the beginning of this file.")
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help="names or patterns; default: all but extras")
    parser.add_argument("--contenders", default="*", help="names or patterns, separated by commas")
    parser.add_argument("--seconds", type=float, default=3.0, help="that a run takes (default 3)")
    parser.add_argument("--repeats", type=int, default=5, help="turns (default 5)")
    parser.add_argument(
        "--limit", type=float, help="seconds after which a run is ended (default 60, or 20 x --seconds)"
    )
    parser.add_argument("--json", type=Path, help="write everything to this file")
    parser.add_argument("--list", action="store_true", help="name the workloads and their contenders")
    arguments = parser.parse_args()

    known: list[tuple[str, Workload]] = []
    for module in workload.MODULES:
        try:
            known += [(module, one) for one in workload.load(module)]
        except ModuleNotFoundError as error:
            print(f"left out: {module}, since {error.name} is not installed")
    if arguments.list:
        for _, one in known:
            print(f"{one.name}{' (extra)' if one.extra else ''}: {one.title}\n    {' '.join(one.contenders)}")
        return 0
    if arguments.workloads:
        names = matching([one.name for _, one in known], arguments.workloads)
        chosen = [(module, one) for module, one in known if one.name in names]
        if not chosen:
            parser.error(f"no such workload; there are {', '.join(one.name for _, one in known)}")
    else:
        chosen = [(module, one) for module, one in known if not one.extra]

    import ordmap

    has_empty = hasattr(ordmap, "empty")
    about = machine()
    print(f"ordmap {ordmap.__version__} in {Path(ordmap.__file__).parent}")
    print(", ".join(f"{key} {value}" for key, value in (about | versions()).items()), flush=True)
    limit = arguments.limit or max(60.0, 20 * arguments.seconds)
    runner = Runner(arguments.seconds, arguments.repeats, limit)
    missing: set[str] = set()
    everything: dict[str, object] = {}
    tables: list[str] = []
    failed = False
    for module, one in chosen:
        contenders = []
        for name in matching(list(one.contenders), arguments.contenders.split(",")):
            if name.endswith(":in-place") and not has_empty:
                print(f"left out: {name}: this ordmap has no `empty`")
            elif name in workload.YARDSTICKS or peers.is_installed(name):
                contenders.append(name)
            elif (base := name.split(":")[0]) not in missing:
                missing.add(base)
                print(f"left out: {base} is not installed")
        print(f"\n{one.name}: {one.title}", flush=True)
        results = runner.run(module, one, contenders)
        failed |= any(name.split(":")[0] in peers.OURS for name in results.failures)
        tables.append(table(results))
        print(tables[-1], flush=True)
        everything[one.name] = as_json(results)
        if arguments.json:  # after each workload: what is there is there
            settings = {"seconds": arguments.seconds, "repeats": arguments.repeats, "limit": limit}
            document = {"machine": about, "versions": versions(), "settings": settings, "workloads": everything}
            arguments.json.write_text(json.dumps(document, indent=1) + "\n")
    if len(tables) > 1:
        print("\n\nall tables", *tables, sep="\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
