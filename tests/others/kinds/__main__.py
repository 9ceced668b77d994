"""Which kinds of objects travel, with each backend: the table of docs/kinds.md.

``python -m tests.others.kinds`` sends all kinds through all backends, each in a fresh interpreter, and writes the page
anew. Kinds of what isn't installed keep the row that they have.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parents[2] / "docs" / "kinds.md"
START = "<!-- table -->\n"
BACKENDS = ("processes", "spawn", "threads", "portable", "executor", "loky")

TITLES = {"object": "Objects, as inputs and as results", "error": "Exceptions that items raise"}

#: Seconds after which a backend hangs; on an idle machine it takes a twentieth of it.
LIMIT = 600.0

_OF_THE_SHELL = {"PYTHONUNBUFFERED", "PYTHONWARNINGS"}

#: What is said of a kind, by backend.
Row = dict[str, str]


def outcomes(backend: str, chosen: str = "") -> dict[str, str]:
    """Send kinds through a backend: those of a library, all ("") or all but PyTorch's ("-"). Say what comes out."""
    environment = {name: value for name, value in os.environ.items() if name not in _OF_THE_SHELL}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "found.json")
        done = subprocess.run(
            [sys.executable, HERE / "run.py", backend, file, chosen],
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
            env=environment | {"ORDMAP_KINDS": folder, "TMPDIR": folder},
        )
        if done.returncode:
            raise RuntimeError(f"{backend}: {done.stderr}")
        found = json.loads(file.read_text(encoding="utf-8"))
    return {name: _in_words(said) for name, said in found.items()}


def _in_words(said: dict[str, str]) -> str:
    """Return a word for what came out, and after a colon what is not as it was."""
    wrong = [f"as {role}, {what}" if role != "raised" else what for role, what in said.items() if what]
    if not wrong:
        return "equal"
    text = re.sub(r"/tmp/\S+|0x[0-9a-f]+", "…", "; ".join(wrong)).replace("|", "\\|").replace("<", "\\<")
    text = " ".join(text.split())
    return f"{'in part' if text.startswith('but for') else 'other'}: {text}"


def written() -> dict[str, Row]:
    """Return what the page says."""
    text = PAGE.read_text(encoding="utf-8").partition(START)[2]
    notes = dict(re.findall(r"^(\d+)\. (.*)$", text, re.MULTILINE))
    rows = {}
    for role, title in TITLES.items():
        part = text.partition(f"## {title}\n")[2].partition("\n## ")[0]
        for library, kind, *cells in re.findall(
            r"^\| (\S+) \| (.*?) \|" + r" (.*?) \|" * len(BACKENDS) + "$", part, re.MULTILINE
        ):
            if library != "library":
                said = [re.sub(r" \((\d+)\)$", lambda found: ": " + notes[found[1]], cell) for cell in cells]
                rows[f"{role}/{library}/{kind}"] = dict(zip(BACKENDS, said, strict=True))
    return rows


def in_markdown(rows: dict[str, Row]) -> str:
    """Return the tables, and the notes that their cells refer to."""
    lines, notes = [], []
    for role, title in TITLES.items():
        lines += [
            f"## {title}",
            "",
            "| library | kind | " + " | ".join(BACKENDS) + " |",
            "|---" * (2 + len(BACKENDS)) + "|",
        ]
        for name in sorted(name for name in rows if name.startswith(role)):
            _, library, kind = name.split("/", 2)
            cells = []
            for backend in BACKENDS:
                word, _, told = rows[name].get(backend, "not tried").partition(": ")
                if told and told not in notes:
                    notes.append(told)
                cells.append(word + (f" ({notes.index(told) + 1})" if told else ""))
            lines.append("| " + " | ".join([library, kind, *cells]) + " |")
        lines.append("")
    return "\n".join([*lines, "## What is not as it was", "", *(f"{n}. {told}" for n, told in enumerate(notes, 1)), ""])


def main(backends: list[str]) -> int:
    rows = written()
    for backend in backends or BACKENDS:
        for name, said in outcomes(backend).items():
            rows.setdefault(name, {})[backend] = said
            if said != "equal":
                print(f"{name} {backend}: {said}", flush=True)
    head = PAGE.read_text(encoding="utf-8").partition(START)[0]
    PAGE.write_text(head + START + "\n" + in_markdown(rows), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
