"""``torch.multiprocessing.spawn``: each rank of a guarded script reads its shard of the script's own dataset."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch  # noqa: F401  what this is about

SCRIPT = """
import sys, torch, torch.multiprocessing as mp
from ordmap import ordered_imap, ordered_map

class Data:
    def __len__(self): return 11
    def __getitem__(self, i): return torch.full((3,), float(i))

def add(x): return x + 1

def train(rank, backend, folder):
    got = [int(t[0]) for t in ordered_imap(Data(), workers=1, backend=backend, shard=(rank, 2, "pad"))]
    with open(f"{folder}/{rank}", "w") as file:
        print(got, list(ordered_map(add, range(3), workers=1, backend=backend)), file=file)

if __name__ == "__main__":
    mp.START(train, (sys.argv[1], sys.argv[2]), nprocs=2)
"""


@pytest.mark.parametrize("backend", ["processes", "spawn"])
@pytest.mark.parametrize("start", ["spawn", "start_processes"])
def test_each_rank_gets_its_shard(script, tmp_path, backend, start):
    path = script(SCRIPT.replace("START", start))
    done = subprocess.run(
        [sys.executable, path, backend, tmp_path], capture_output=True, text=True, timeout=110, check=False,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "0").read_text() == "[0, 2, 4, 6, 8, 10] [1, 2, 3]\n"
    assert (tmp_path / "1").read_text() == "[1, 3, 5, 7, 9, 0] [1, 2, 3]\n"
