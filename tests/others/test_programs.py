"""What comes out of each program with a real library is what the page says, and never a hang."""

from __future__ import annotations

import pytest
from table import BACKENDS, FAULTS, Program, outcome, programs, written

WRITTEN = written()


def needs_torch(program: Program) -> bool:
    return "torch" in program.distributions


def check(program: Program, backend: str) -> None:
    found = outcome(program, backend)
    assert not found.startswith(FAULTS)
    expected = program.expected(backend, WRITTEN[program.name][backend])
    assert found.partition(": ")[0] == expected, (
        f"{found}\nwrite the page anew: python -m tests.others.table {program.name}"
    )


def test_the_page_has_every_program_and_no_other():
    assert set(WRITTEN) == {program.name for program in programs()}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("program", [one for one in programs() if not needs_torch(one)], ids=lambda one: one.name)
def test_what_comes_out_is_what_the_page_says(program, backend):
    check(program, backend)
