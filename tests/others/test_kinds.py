"""What comes out of each kind of object is what the page says."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location("table_of_kinds", Path(__file__).parent / "kinds" / "__main__.py")
table = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(table)

WRITTEN = table.written()


def check(backend, chosen):
    found = table.outcomes(backend, chosen)
    assert found
    words = {name: said.partition(": ")[0] for name, said in found.items()}
    expected = {name: WRITTEN.get(name, {}).get(backend, "nothing").partition(": ")[0] for name in found}
    wrong = {
        name: (said, WRITTEN.get(name, {}).get(backend))
        for name, said in found.items()
        if words[name] != expected[name]
    }
    assert not wrong, "write the page anew: python -m tests.others.kinds"


def test_the_page_has_many_kinds_and_nearly_all_are_equal():
    assert len(WRITTEN) >= 150
    for backend in table.BACKENDS:
        others = [name for name, row in WRITTEN.items() if not row[backend].startswith(("equal", "in part"))]
        assert len(others) < 10, others


@pytest.mark.timeout(700)
@pytest.mark.parametrize("backend", table.BACKENDS)
def test_what_comes_out_is_what_the_page_says(backend):
    check(backend, "-")
