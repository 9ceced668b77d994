"""What becomes of a run in which one item fails badly: ``python benchmarks/failures.py [--limit 20]``.

``--contenders NAMES`` and ``--situations NAMES`` choose, by names or patterns with commas between; ``--list``: all.

200 items that take 5 ms, 2 workers, a window of 16. Item 50 kills its process, or leaves it, or hangs, or raises what
can't be unpickled; or the calling process is killed while its workers are inside items. See `SITUATIONS`.

- Each run is a fresh program in a session of its own. What is left of it is counted, and ended.
- The caller takes item after item, and goes on after an error: to the end, or until nothing came for ``--limit``
  seconds. Then it calls ``close()``, waits two seconds for its workers to go, and ends.
- Where the caller itself is not heard of for that long the run hangs, and the program is killed.
- Where an item hangs, a peer that has a time-out gets it set to 2 s, as ours does.

The tables are Markdown, on the standard output. Exit status 1: one of ours is not what ``docs/promises.md`` says.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import inspect
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import memory
import peers
import run
from workload import Task, Workload

COUNT, ITEM, WORKERS, WINDOW = 200, 50, 2, 16
TIMEOUT = 2.0  # seconds that an item may take, where there is such an option
PATIENCE = 2.0  # seconds after which a process is one that was left behind
START = 120.0  # seconds in which item 50 must have begun, imports included


@dataclass(frozen=True)
class Situation:
    title: str
    promise: str  # in the table of promises


SITUATIONS = {
    "crash": Situation("Item 50 kills its process with SIGKILL, as the out-of-memory killer does", "worker death"),
    "exit": Situation("Item 50 ends its process with `os._exit(1)`, as a segmentation fault would", "worker death"),
    "hang": Situation("Item 50 sleeps for ever; time-out 2 s where there is one", "timeouts"),
    "exception": Situation("Item 50 raises an exception that can be pickled, but not unpickled", "item errors"),
    "parent": Situation("The calling process is killed while its workers are inside items", "parent death"),
}

#: Each with items one by one.
CONTENDERS = {
    "processes": '**ordmap** `"processes"`',
    "spawn": '**ordmap** `"spawn"`',
    "threads": '**ordmap** `"threads"`',
    "executor": "`ProcessPoolExecutor`, a window over it",
    "pool.imap": "`multiprocessing.Pool.imap`",
    "joblib:1": "joblib `Parallel`, generator",
    "mpire": "mpire `imap`",
    "pebble": "pebble, a window over its pool",
    "torch": "PyTorch `DataLoader`",
    "grain": "Grain `DataLoader`",
    "seqtools": "SeqTools `prefetch`",
    "keras": "Keras `OrderedEnqueuer`",
}


# In the program that is watched


class Journal:
    """A file to which all processes of a run append, a line of JSON for each event."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "journal")

    def note(self, what: str, **more: Any) -> None:
        line = json.dumps({"at": time.monotonic(), "what": what, **more}) + "\n"
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(file, line.encode())
        finally:
            os.close(file)

    def read(self) -> list[dict[str, Any]]:
        with contextlib.suppress(FileNotFoundError):
            text, _, _ = Path(self.path).read_text().rpartition("\n")
            return [json.loads(line) for line in text.splitlines()]
        return []


class NeedsTwoError(Exception):
    """Its pickle calls the constructor with ``args``, which is one argument."""

    def __init__(self, code: int, detail: str) -> None:
        super().__init__(f"code {code}: {detail}")
        self.code = code
        self.detail = detail


class Failing:
    """The dataset."""

    def __init__(self, situation: str, journal: Journal, seconds: float) -> None:
        self.situation = situation
        self.journal = journal
        self.seconds = seconds  # that an item takes which the caller does not live to see

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> int:
        if self.situation == "parent" and index >= ITEM:
            self.journal.note("inside")
            time.sleep(self.seconds)
        elif index == ITEM:
            time.sleep(0.005)
            self.journal.note("failed")
            self.fail()
        else:
            time.sleep(0.005)
        return 3 * int(index)

    def fail(self) -> None:
        if self.situation == "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.situation == "exit":
            os._exit(1)
        elif self.situation == "hang":
            while True:
                time.sleep(3600)
        raise NeedsTwoError(7, detail="no luck")


#: The item's number, and no part of another one, nor one of the lines and processes that tracebacks and the like name.
_NUMBER = re.compile(rf"(?<!line )(?<!pid )(?<!pid\(s\) )(?<![\w.]){ITEM}(?!\w)(?!\.\d)")


def names_item(error: BaseException) -> bool:
    """Whether an exception, or one in its chain, says which item it is: its message, its notes or an attribute."""
    pending, seen = [error], set()
    while pending:
        one = pending.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        if any(_NUMBER.search(str(text)) for text in (one, *getattr(one, "__notes__", ()))):
            return True
        fields = {name: value for name, value in vars(one).items() if name not in {"pid", "exitcode", "exit_code"}}
        if any(type(value) is int and value == ITEM for value in fields.values()):
            return True
        pending += (one.__cause__, one.__context__)
    return False


def consume(situation: str, task: Task) -> dict[str, float]:
    """Take what comes, and note it."""
    journal = Journal(task.folder)
    contender = peers.resolve(task.contender)
    options = {}
    if situation == "hang" and "timeout" in inspect.signature(contender).parameters:
        options["timeout"] = TIMEOUT
    stream = contender(Failing(situation, journal, task.seconds / 2), WORKERS, WINDOW, **options)
    items = iter(stream)
    delivered = errors = 0
    last = time.monotonic()
    while errors <= COUNT and time.monotonic() - last < task.seconds:
        try:
            item = next(items)
        except StopIteration:
            break
        except Exception as error:
            now = time.monotonic()
            last = last if errors else now
            errors += 1
            about = {"type": type(error).__name__, "named": names_item(error), "text": str(error)[:500]}
            journal.note("error", at=now, delivered=delivered, **about)
        else:
            journal.note("item", item=int(item))
            delivered += 1
            last = time.monotonic()
    journal.note("end")
    del items
    with contextlib.suppress(Exception):
        stream.close()
    del stream
    gc.collect()
    journal.note("closed")
    myself = os.getpid()
    give_up = time.monotonic() + PATIENCE
    while (left := (memory.session(myself) | set(memory.tree(myself))) - {myself}) and time.monotonic() < give_up:
        time.sleep(0.02)
    journal.note("left", left=len(left))
    return {}


#: For ``child.py``.
WORKLOADS = [
    Workload(name, one.title, tuple(CONTENDERS), (), (), partial(consume, name), counted=False, count=COUNT)
    for name, one in SITUATIONS.items()
]


# Watching it


@dataclass
class Run:
    """A program, what it noted, and how it ended."""

    child: subprocess.Popen[bytes]
    journal: Journal
    log: Path
    limit: float
    family: set[int] = field(default_factory=set)
    events: list[dict[str, Any]] = field(default_factory=list)
    killed: bool = False

    def look(self) -> None:
        """Learn what is new."""
        self.events = self.journal.read()
        if self.child.poll() is None:
            self.family |= set(memory.tree(self.child.pid)) - {self.child.pid}

    def has(self, what: str) -> bool:
        return any(event["what"] == what for event in self.events)

    def all(self, what: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["what"] == what]

    def is_late(self, since: float) -> bool:
        """Whether nothing has been heard for too long, by a second: the program itself may give up before that."""
        if not self.has("failed"):
            return time.monotonic() - since > START
        return time.monotonic() - self.events[-1]["at"] > self.limit + 1

    def left(self) -> set[int]:
        return memory.session(self.child.pid) | {one for one in self.family if memory.is_alive(one)}

    def left_after(self, seconds: float) -> int:
        give_up = time.monotonic() + seconds
        while (left := self.left()) and time.monotonic() < give_up:
            time.sleep(0.01)
        return len(left)

    def kill(self) -> None:
        self.look()
        self.killed = True
        self.child.kill()
        self.child.wait()

    def end(self) -> None:
        """End all that there is of it."""
        run.end_session(self.child)
        for process in self.left():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        if self.left_after(5.0):
            raise RuntimeError(f"processes that can't be ended: {self.left()}")

    def last_words(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines() or [f"exit status {self.child.returncode}"]
        return next((line for line in reversed(lines) if "Error" in line), lines[-1])[:200]


@contextlib.contextmanager
def started(contender: str, situation: str, limit: float):
    """Start a program, and end whatever comes of it."""
    with tempfile.TemporaryDirectory(prefix="ordmap-failures-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        task = {"contender": contender, "count": COUNT, "seconds": limit, "repeat": 0, "folder": name}
        (folder / "task").write_text(json.dumps({"module": "failures", "workload": situation, "task": task}))
        with (folder / "log").open("wb") as output:
            child = subprocess.Popen(
                [sys.executable, str(run.CHILD), str(folder / "task"), str(folder / "result")],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
                env={**os.environ, "TMPDIR": name, "JOBLIB_TEMP_FOLDER": name},
            )  # fmt: skip
        watched = Run(child, Journal(folder), folder / "log", limit)
        try:
            yield watched
        finally:
            watched.end()


@dataclass
class Verdict:
    """What is printed of a run."""

    outcome: str
    cells: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()  # what it owes, if it is one of ours


def watch_caller_killed(watched: Run) -> Verdict:
    began = time.monotonic()
    while len(watched.all("inside")) < WORKERS:
        watched.look()
        if watched.child.poll() is not None or time.monotonic() - began > START:
            raise run.FailedError(watched.last_words())
        time.sleep(0.02)
    watched.kill()
    killed = time.monotonic()
    left = watched.left_after(PATIENCE)
    more = watched.left_after(watched.limit - PATIENCE) if left else 0
    seconds = f"> {watched.limit:g}" if more else f"{time.monotonic() - killed:.2f}"
    outcome = "orphans left" if left else "all ended"
    return Verdict(outcome, (seconds, str(left)), (f"{left} left after {PATIENCE:g} s",) if left else ())


def watch_item_fail(watched: Run) -> Verdict:
    began = time.monotonic()
    while watched.child.poll() is None:
        watched.look()
        if watched.is_late(began):
            watched.kill()
            break
        time.sleep(0.05)
    watched.look()
    if not watched.has("failed") and not watched.has("error"):
        raise run.FailedError(watched.last_words())
    left = left_after_exit = watched.left_after(PATIENCE)
    if watched.has("left"):
        left = watched.all("left")[0]["left"]

    indices = [event["item"] / 3 for event in watched.all("item")]
    others = len(set(indices) & (set(range(COUNT)) - {ITEM}))
    errors = watched.all("error")
    first = errors[0] if errors else None
    went_on = others == COUNT - 1
    if indices != sorted(set(indices) & set(range(COUNT))):
        outcome = "wrong items"
    elif not watched.has("failed"):
        outcome = f"error at item {first['delivered']} already"
    elif first and went_on:
        outcome = "item error, went on" + ("" if watched.has("end") else ", then no end")
    elif first and not watched.has("end"):
        outcome = "error, then hangs" if watched.killed else "error, then the program died"
    elif first and others > first["delivered"] and indices[-1] >= COUNT - WINDOW:
        lost = COUNT - 1 - others
        outcome = f"error, went on, {lost} other{'s'[: lost > 1]} lost"
        outcome += " without a word" if len(errors) == 1 else ""
    elif first:
        outcome = "error, stopped"  # some that were there already may have come
    elif watched.has("end"):
        outcome = "ended early, no error"
        if went_on:
            outcome = "all items though" if ITEM in indices else "left out, no error"
    else:
        outcome = "hangs" if watched.killed else "the program died"
    if watched.has("left"):
        outcome += "; the program does not end" if watched.killed else ""
    elif watched.has("closed"):
        pass
    elif watched.has("end"):
        outcome += "; `close()` hangs" if watched.killed else "; the program died in `close()`"

    failed = watched.all("failed")
    seconds = f"{first['at'] - failed[0]['at']:.2f}" if first and failed else "–"
    if not first and not watched.has("end"):
        seconds = f"> {watched.limit:g}" if watched.killed else "–"
    named = "–"
    if first:
        by_place = went_on and first["delivered"] == ITEM
        named = "yes" if first["named"] else "by its place" if by_place else "no"
    remains = str(left)
    if watched.killed:
        remains = f"{left_after_exit} (killed)"
    elif left:
        remains = f"{left} ({left_after_exit} after its exit)"

    faults = []
    if outcome != "item error, went on":
        faults.append(outcome)
    if named != "yes":
        faults.append(f"item {ITEM} is not named")
    if len(errors) > 1:
        faults.append(f"{len(errors)} errors")
    if not went_on:
        faults.append(f"{others} of the {COUNT - 1} others came")
    if left or left_after_exit:
        faults.append(f"left behind: {remains}")
    kind = f"`{first['type']}`" if first else "–"
    return Verdict(outcome, (kind, named, str(others), seconds, remains), tuple(faults))


def verdict_of(contender: str, situation: str, limit: float) -> Verdict:
    try:
        with started(contender, situation, limit) as watched:
            verdict = (watch_caller_killed if situation == "parent" else watch_item_fail)(watched)
            for event in watched.all("error")[:1]:
                say(f"    {event['type']}: {' '.join(event['text'].split())[:150]}")
            return verdict
    except run.FailedError as error:
        return Verdict(f"no result: {error}", faults=(str(error),))


# Saying it


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def promised(contender: str, situation: str):
    """Return how far ours promises to keep it up, as the table of promises has it."""
    from ordmap.backends import resolve

    return resolve(contender, WORKERS).promises[SITUATIONS[situation].promise]


def table(situation: str, verdicts: dict[str, Verdict]) -> str:
    """Return a situation's table in Markdown."""
    if situation == "parent":
        columns = ["outcome", "seconds until the last process was gone", f"processes left after {PATIENCE:g} s"]
    else:
        columns = [
            "outcome", "exception", f"names item {ITEM}", f"others in order, of {COUNT - 1}",
            "seconds until the caller knew", f"processes left after {PATIENCE:g} s",
        ]  # fmt: skip
    lines = [f"### {SITUATIONS[situation].title}", ""]
    lines.append("| | " + " | ".join(columns) + " |")
    lines.append("|---|" + "---|" * len(columns))
    for name, verdict in verdicts.items():
        cells = [verdict.outcome, *verdict.cells]
        cells += ["–"] * (len(columns) - len(cells))
        lines.append(f"| {CONTENDERS[name]} | " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def chosen(names: list[str], patterns: str) -> list[str]:
    """Return the names that match; what follows a colon in them need not."""
    wanted = patterns.split(",")
    return [name for name in names if run.matching([name, name.split(":")[0]], wanted)]


def main() -> int:
    """Run what is asked for; return 1 if one of ours is not as promised."""
    parser = argparse.ArgumentParser(
        description="What becomes of a run in which one item fails badly.", epilog="See the beginning of this file."
    )
    parser.add_argument("--contenders", default="*", help="names or patterns, separated by commas")
    parser.add_argument("--situations", default="*", help="names or patterns, separated by commas")
    parser.add_argument("--limit", type=float, default=20.0, help="seconds to wait for anything (default 20)")
    parser.add_argument("--list", action="store_true", help="name the contenders and the situations")
    arguments = parser.parse_args()
    if arguments.list:
        print(" ".join(CONTENDERS), *(f"{name}: {one.title}" for name, one in SITUATIONS.items()), sep="\n")
        return 0
    contenders = chosen(list(CONTENDERS), arguments.contenders)
    situations = chosen(list(SITUATIONS), arguments.situations)
    if not contenders or not situations:
        parser.error("nothing has such a name; see --list")
    missing = [name for name in contenders if not peers.is_installed(name)]
    contenders = [name for name in contenders if name not in missing]

    import ordmap

    about = {key: value for key, value in run.machine().items() if key in {"python", "cores"}}
    versions = {name: version for name, version in run.versions().items() if name not in {"numpy", "pillow"}}
    print(", ".join(f"{key} {value}" for key, value in ({"ordmap": ordmap.__version__} | about | versions).items()))
    if missing:
        print(f"\nLeft out, since they are not installed: {', '.join(missing)}")
    faults: list[str] = []
    for situation in situations:
        verdicts: dict[str, Verdict] = {}
        for name in contenders:
            grade = promised(name, situation) if name in peers.OURS else None
            if grade and grade.word == "refused":
                verdicts[name] = Verdict(f"not tried: {grade.how}")
                continue
            verdicts[name] = verdict_of(name, situation, arguments.limit)
            say(f"  {situation:<10} {name:<10} {verdicts[name].outcome}, {', '.join(verdicts[name].cells)}")
            if grade and grade.word == "kept":
                faults += [f"{name}, {situation}: {fault}" for fault in verdicts[name].faults]
        print("\n" + table(situation, verdicts), flush=True)
    for fault in faults:
        say(f"NOT AS PROMISED: {fault}")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
