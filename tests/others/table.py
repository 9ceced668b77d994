"""What comes out of each program of `programs/` with each backend: the table of docs/with-others.md.

A program is a script of a user's, in a folder that says where it uses a library: *before* the loop, *held* by the
dataset, *around* the loop, *inside* an item, *beside* the loop. It takes a backend's name and fails where an answer is
not that of `map`. Its docstring begins with the distributions that it needs and what it does (``polars: …``); lines
after it say what a user writes (``Write: …``), why a backend is not tried (``Not threads: …``), since which version of a
library it needs fresh interpreters, where older ones don't (``Fresh since: av 19``), and where such a program was
reported. Each run is a fresh interpreter whose output goes to a pipe.

``python -m tests.others.table [NAME…]`` runs all programs, or these, and writes their rows of the page anew. What isn't
installed keeps the row that it has.
"""

from __future__ import annotations

import ast
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
from packaging.version import Version

PROGRAMS = Path(__file__).parent / "programs"
PAGE = Path(__file__).parents[2] / "docs" / "with-others.md"
START = "<!-- table -->\n"
BACKENDS = ("processes", "spawn", "threads")

#: Seconds after which a program hangs. The slowest takes a tenth of it on an idle machine.
LIMIT = 100.0

#: Seconds that what a program has started may take to end after it.
GRACE = 10.0

KINDS = {
    "before": "The program has used the library before the loop",
    "held": "The dataset, or the function, holds what the library has opened",
    "around": "The library stands around the loop",
    "inside": "Each item uses the library",
    "beside": "The library works beside the loop, in processes or threads of its own",
}

#: What a shell may have set, and a user's program would be another with.
_OF_THE_SHELL = {"PYTHONUNBUFFERED", "PYTHONWARNINGS"}

#: The word for one that works since there was no fork.
BY_FRESH = "works by fresh interpreters"

#: How an outcome begins that no program may have.
FAULTS = ("hangs", "wrong", "leaves", "dies")


@dataclass(frozen=True)
class Program:
    """A script of `programs/`, and what its docstring says of it."""

    path: Path
    distributions: tuple[str, ...]
    does: str
    write: str
    not_tried: dict[str, str]
    fresh_since: tuple[str, str] | None

    @classmethod
    def at(cls, path: Path) -> Program:
        first, *more = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n\n")
        needs, _, does = first.partition(": ")
        says = dict(line.split(": ", 1) for line in "\n".join(more).splitlines())
        return cls(
            path,
            tuple(name for name in needs.split(", ") if name != "Python"),
            " ".join(does.split()),
            says["Write"],
            {backend: says[f"Not {backend}"] for backend in BACKENDS if f"Not {backend}" in says},
            tuple(says["Fresh since"].split()) if "Fresh since" in says else None,
        )

    @property
    def name(self) -> str:
        return f"{self.path.parent.name}/{self.path.stem}"

    @property
    def is_installed(self) -> bool:
        return not self._lacking()

    def versions(self) -> str:
        """Return what it needs, as it is installed."""
        return (
            ", ".join(f"{name} {version(name)}" for name in self.distributions) or f"Python {platform.python_version()}"
        )

    def expected(self, backend: str, told: str) -> str:
        """Return the word for what comes out with these versions, where the page has ``told`` of some versions."""
        word = told.partition(": ")[0]
        if self.fresh_since is None or backend != "processes":
            return word
        name, since = self.fresh_since
        assert word in {"works", BY_FRESH}
        return BY_FRESH if Version(version(name)) >= Version(since) else "works"

    def _lacking(self) -> list[str]:
        """Return what it needs and is not installed."""
        lacking = []
        for name in self.distributions:
            try:
                version(name)
            except PackageNotFoundError:
                lacking.append(name)
        return lacking


def programs() -> list[Program]:
    return [Program.at(path) for kind in KINDS for path in sorted((PROGRAMS / kind).glob("*.py"))]


def outcome(program: Program, backend: str, limit: float = LIMIT) -> str:
    """Run a program with a backend, as a user would, and say what comes out."""
    if backend in program.not_tried:
        return f"not tried: {program.not_tried[backend]}"
    environment = {name: value for name, value in os.environ.items() if name not in _OF_THE_SHELL}
    with tempfile.TemporaryDirectory() as folder:
        started = subprocess.Popen(
            [sys.executable, program.path, backend],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
            env=environment | {"TMPDIR": folder},
            start_new_session=True,
        )
        try:
            _, said = started.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            said = None
        # What the program doesn't wait for, such as multiprocessing's resource tracker, ends a moment after it.
        give_up = time.monotonic() + (GRACE if said is not None else 0)
        while (left := members(started.pid)) and time.monotonic() < give_up:
            time.sleep(0.02)
        for process in left:
            process.kill()
        psutil.wait_procs(left)
        if said is None:
            started.communicate()
            return "hangs"
    if left:
        return f"leaves {len(left)} processes"
    return _in_words(started.returncode, said)


def members(session: int) -> list[psutil.Process]:
    """Return the processes of a session that live: a worker is in a group of its own, and in its caller's session."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


_WARNING = re.compile(r"^\S*?:\d+: (\w*Warning): (.*)$", re.MULTILINE)
_ERROR = re.compile(r"^([a-zA-Z_][\w.]*)(?:: (.*))?$", re.MULTILINE)

#: Errors of ours that are of one item.
_OF_AN_ITEM = {"ordmap.errors.WorkerDiedError", "ordmap.errors.ItemTimeoutError", "ordmap.errors.RemoteError"}


def _in_words(code: int, said: str) -> str:
    """Return a word for what has come out, and after a colon what was said. The word alone is compared."""
    if code < 0:
        return f"dies: {signal.Signals(-code).name}"
    warned = [text for _, text in _WARNING.findall(said)]
    if len(warned) > len(set(warned)):
        return f"wrong: warned several times: {_sentence(warned[0])}"
    fresh = [text for text in warned if "fresh interpreters" in text]
    others = [text for text in warned if text not in fresh]
    if code:
        # Notes come after the error's own text, and hold the traceback in the worker.
        before, of_an_item, _ = said.partition("\nordmap: item ")
        error = _ERROR.search(before.rpartition("Traceback (most recent call last):")[2])
        name, text = error.groups() if error else ("", before.strip())
        told = f"`{name}`: {_sentence(text)}" if text else f"`{name}`"
        if of_an_item or name in _OF_AN_ITEM:
            # What is right by chance is as it is in the next run, and the warning is in each.
            return f"warned: {_sentence(others[0])}" if others else f"item error: {told}"
        return f"refused: {told}" if name.startswith("ordmap.") else f"wrong: {told}"
    if others:
        return f"warned: {_sentence(others[0])}"
    return f"{BY_FRESH}: {_sentence(fresh[0])}" if fresh else "works"


def _sentence(text: str) -> str:
    """Return the beginning of a message, as it goes into a table."""
    text = re.sub(r"\d{7,}", "…", re.sub(r" at 0x[0-9a-f]+|/tmp/\S+", "", text)).replace("|", "\\|").replace("<", "\\<")
    return text if len(text) <= 240 else text[:240].rpartition(" ")[0] + " …"


def written() -> dict[str, dict[str, str]]:
    """Return what the page says of each program: the outcome with each backend."""
    text = PAGE.read_text(encoding="utf-8").partition(START)[2]
    notes = dict(re.findall(r"^(\d+)\. (.*)$", text, re.MULTILINE))
    rows = {}
    for name, *cells in re.findall(
        r"^\| \[.*?\]\(.*?/programs/(.*?)\.py\) \|" + r" (.*?) \|" * 6 + "$", text, re.MULTILINE
    ):
        outcomes = [re.sub(r" \((\d+)\)$", lambda found: ": " + notes[found[1]], cell) for cell in cells[1:4]]
        rows[name] = dict(zip(BACKENDS, outcomes, strict=True)) | {"versions": cells[5]}
    return rows


def in_markdown(rows: dict[str, dict[str, str]]) -> str:
    """Return the tables, one for each kind, and the notes that their cells refer to."""
    lines, notes = [], []
    for kind, title in KINDS.items():
        lines += [f"## {title}", "", "| program | what it does | " + " | ".join(BACKENDS) + " | write | with |"]
        lines += ["|---" * (len(BACKENDS) + 4) + "|"]
        for program in programs():
            if program.path.parent.name != kind or program.name not in rows:
                continue
            row = rows[program.name]
            cells = []
            for backend in BACKENDS:
                word, _, told = row[backend].partition(": ")
                if told and told not in notes:
                    notes.append(told)
                cells.append(word + (f" ({notes.index(told) + 1})" if told else ""))
            link = f"[{program.path.stem}](../tests/others/programs/{program.name}.py)"
            lines.append("| " + " | ".join([link, program.does, *cells, program.write, row["versions"]]) + " |")
        lines.append("")
    return "\n".join(
        [*lines, "## What is said", "", *(f"{number}. {told}" for number, told in enumerate(notes, 1)), ""]
    )


def main(names: list[str]) -> int:
    """Run the programs, two at a time, and write the page anew; return 1 where one is as none may be."""
    rows = written()
    chosen = [one for one in programs() if not names or one.name in names or one.path.stem in names]
    chosen = [one for one in chosen if one.is_installed]
    cells = [(program, backend) for program in chosen for backend in BACKENDS]
    with ThreadPoolExecutor(2) as executor:
        outcomes = list(executor.map(lambda cell: outcome(*cell), cells))
    for (program, backend), found in zip(cells, outcomes, strict=True):
        print(f"{program.name} {backend}: {found}", flush=True)
        rows.setdefault(program.name, {})[backend] = found
        rows[program.name]["versions"] = program.versions()
    head = PAGE.read_text(encoding="utf-8").partition(START)[0]
    PAGE.write_text(head + START + "\n" + in_markdown(rows), encoding="utf-8")
    return int(any(found.startswith(FAULTS) for found in outcomes))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
