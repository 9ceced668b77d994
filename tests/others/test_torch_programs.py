"""The programs of the page that need PyTorch."""

from __future__ import annotations

import pytest
from table import BACKENDS, programs
from test_programs import check, needs_torch


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("program", [one for one in programs() if needs_torch(one)], ids=lambda one: one.name)
def test_what_comes_out_is_what_the_page_says(program, backend):
    check(program, backend)
