"""A DataLoader of the caller's, whose workers are children of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

TEXT = """
import os, signal, sys, time
import torch
from torch.utils.data import DataLoader
from ordmap import ordered_map

class Numbers(torch.utils.data.Dataset):
    def __len__(self):
        return 40

    def __getitem__(self, i):
        return torch.tensor(i)

def item(i):
    if i and sys.argv[1] == "raise":
        raise KeyError(i)
    if i and sys.argv[1] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if i and sys.argv[1] == "break":
        time.sleep(60)
    return i

if __name__ == "__main__":
    loader = DataLoader(Numbers(), num_workers=2, persistent_workers=True)
    batches = iter(loader)
    got = [next(batches).item()]
    items = ordered_map(item, range(4), workers=2, backend=sys.argv[2])
    try:
        for _ in items:
            if sys.argv[1] == "break":
                break
    except Exception as error:
        assert sys.argv[1] in ("raise", "kill"), error
    items.close()
    time.sleep(0.3)
    got += [batch.item() for batch in batches]
    assert got == list(range(40)), got
    assert [batch.item() for batch in loader] == list(range(40))
    print("well")
"""


@pytest.mark.parametrize("backend", ["processes", "spawn"])
@pytest.mark.parametrize("how", ["end", "break", "raise", "kill"])
def test_a_loader_amid_its_epoch_goes_on(tmp_path, how, backend):
    script = tmp_path / "script.py"
    script.write_text(TEXT)
    done = subprocess.run(
        [sys.executable, script, how, backend],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "TMPDIR": str(tmp_path)},  # where persistent workers of a loader leave folders, also alone
    )
    assert (done.returncode, done.stdout) == (0, "well\n"), done.stderr
