"""Training that may be killed at any moment, and goes on where it was: the outcome is that of an undisturbed run.

``python examples/resume.py CHECKPOINT`` trains for some epochs, and saves its progress in that file now and then. Kill
it when you like, as often as you like, and start it again: with other workers, too. In the end it prints the weights.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from ordmap import ordered_imap


class Samples:
    """A thousand samples that take a moment each, as those from a disk do."""

    def __len__(self) -> int:
        return 1000

    def __getitem__(self, index: int) -> float:
        time.sleep(0.001)
        return (index * 7919 % 1000) / 1000


def save(path: Path, progress: dict) -> None:
    """Replace the file by one with this progress, as a whole: whoever is killed meanwhile leaves the old one."""
    new = path.with_suffix(".new")
    new.write_text(json.dumps(progress), encoding="utf-8")
    new.replace(path)


def train(path: Path, workers: int, epochs: int) -> dict:
    """Return the weights and the number of steps, from the last checkpoint on if there is one."""
    samples = ordered_imap(Samples(), workers, epochs=epochs, shuffle=True, seed=42)
    progress = {"weights": 0.0, "steps": 0}
    if path.exists():
        progress = json.loads(path.read_text(encoding="utf-8"))
        samples.load_state_dict(progress["samples"])
    for sample in samples:
        # It depends on the order: two samples that change places give other weights.
        progress["weights"] += 0.1 * (sample - progress["weights"])
        progress["steps"] += 1
        if progress["steps"] % 50 == 0:
            save(path, {**progress, "samples": samples.state_dict()})
    return progress


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=3)
    arguments = parser.parse_args()
    progress = train(arguments.checkpoint, arguments.workers, arguments.epochs)
    print(f"weights {progress['weights']!r} after {progress['steps']} steps")


if __name__ == "__main__":
    main()
