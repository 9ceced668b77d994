"""The types, as a user's type checker sees them in the installed package."""

from __future__ import annotations

from pathlib import Path

from mypy import api


def test_inference(tmp_path):
    stdout, stderr, status = api.run(
        ["--strict", "--config-file=", f"--cache-dir={tmp_path}", str(Path(__file__).parent / "typing" / "inference.py")]
    )
    assert (status, stderr) == (0, ""), stdout
