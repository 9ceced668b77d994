"""The benchmarks run, and check what they get; what they measure is for `benchmarks/` to say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numpy")

pytestmark = [pytest.mark.long, pytest.mark.skipif(sys.platform != "linux", reason="the benchmarks read /proc")]

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.parametrize("workload", ["tiny_one_by_one", "arrays_600kb", "stream_arrays"])
def test_a_benchmark_gives_figures_of_ours_and_of_a_peer(tmp_path, workload):
    path = tmp_path / "figures.json"
    command = [
        sys.executable, BENCHMARKS / "run.py", workload, "--contenders", "processes*,executor",
        "--seconds", "0.05", "--repeats", "1", "--json", path,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = json.loads(path.read_text())["workloads"].values()
    assert not found["failures"]
    assert len(found["medians"]) == 2
    for figures in found["medians"].values():
        assert next(iter(figures.values())) > 0
    assert "to reach: processes" in done.stdout


def test_the_failures_say_what_became_of_ours_and_of_a_peer():
    command = [
        sys.executable, BENCHMARKS / "failures.py", "--contenders", "processes,executor",
        "--situations", "crash,exception,parent", "--limit", "10",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    ours = [line for line in done.stdout.splitlines() if line.startswith('| **ordmap** `"processes"` |')]
    assert [line.split(" | ")[1] for line in ours] == ["item error, went on"] * 2 + ["all ended"]
    assert done.stdout.count("| `ProcessPoolExecutor`, a window over it | error, ") == 2


def test_a_shuffled_epoch_is_measured_beside_lists():
    command = [
        sys.executable,
        BENCHMARKS / "shuffle.py",
        "5000",
        "10000000",
        "--repeats",
        "1",
        "--most-bytes",
        "1000000",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("ordmap, shuffled") == done.stdout.count("would hold") == 2
    assert len(done.stdout.splitlines()) == 9
