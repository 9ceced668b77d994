"""README and docs: every block of Python runs, as a script of a user's; the table of promises is the code's.

A block with a title is a file of an application, whose framework these tests have not: `others/test_servers.py` runs it.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from pytest_examples import CodeExample, find_examples

import ordmap
from ordmap.backends import BACKENDS, resolve
from ordmap.backends.executor import FromExecutor
from ordmap.backends.promises import PROMISES

ROOT = Path(__file__).parent.parent
SOURCE = Path(ordmap.__file__).parent
START = "<!-- table -->\n"


EXAMPLES = [
    example
    for example in find_examples(str(ROOT / "README.md"), str(ROOT / "docs"))
    if "title" not in example.prefix_settings()
]


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_a_block_of_python_runs_as_a_script(example: CodeExample, script):
    if example.prefix in {"python", "py"}:
        path = script(example.source)
        done = subprocess.run(
            [sys.executable, "-W", "error", str(path)], capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
    else:
        assert example.prefix in {"", "console"}


def test_the_examples_in_the_docstrings():
    import doctest

    from ordmap import imap, item, rng

    assert [doctest.testmod(module) for module in (imap, item, rng)] == [(0, 3), (0, 2), (0, 4)]


def table() -> str:
    rows = {name: resolve(name, None).promises for name in BACKENDS} | {"an executor": FromExecutor.promises}
    lines = ["| promise | " + " | ".join(rows) + " |", "|---|" + "---|" * len(rows)]
    notes: list[str] = []
    for promise, says in PROMISES.items():
        cells = []
        for row in rows.values():
            grade = row[promise]
            if grade.how and grade.how not in notes:
                notes.append(grade.how)
            cells.append(grade.word + (f" ({notes.index(grade.how) + 1})" if grade.how else ""))
        lines.append(f"| **{promise}**: {says} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *(f"{number}. {how}" for number, how in enumerate(notes, 1)), ""])


def test_the_table_of_promises_is_the_code_s():
    page = (ROOT / "docs" / "promises.md").read_text(encoding="utf-8")
    assert page.partition(START)[2].strip() == table().strip(), (
        "write it anew: python -c 'import tests.test_docs as t; print(t.table())'"
    )


def test_the_links_lead_somewhere():
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
