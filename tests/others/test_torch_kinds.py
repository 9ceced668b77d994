"""The kinds of the page that are PyTorch's."""

from __future__ import annotations

import pytest
import torch  # noqa: F401  what this is about
from test_kinds import check, table


@pytest.mark.parametrize("backend", table.BACKENDS)
def test_what_comes_out_is_what_the_page_says(backend):
    check(backend, "torch")
