"""Tests beside real libraries and servers, which `.ci/dev.py test-others` installs and the README's command doesn't.

No library is used in the tests' own process: its threads would be there at the forks of all other tests. Each program,
and each server, is a fresh interpreter. The fixtures of the suite hold here, too: nothing is left behind.
"""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def buffered_as_a_user_s_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have programs write into pipes as a user's do, whatever the shell that runs the tests has set."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
