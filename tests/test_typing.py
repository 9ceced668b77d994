"""The types, as a user's type checker sees them in the installed package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_inference(tmp_path):
    # In a process of its own: what mypy leaves in memory makes each later garbage collection take a second.
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={tmp_path}"]
    file = Path(__file__).parent / "typing" / "inference.py"
    done = subprocess.run([*command, str(file)], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
