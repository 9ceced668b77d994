"""JPEG files decoded, resized and normalised, as before a training loop: 2 workers, a window of 16."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import peers
from PIL import Image
from workload import Metric, Target, Task, Workload, WrongResultError, timed

WORKERS = 2
WINDOW = 16
FILES = 24
WIDTH, HEIGHT, SIDE = 800, 600, 224
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)


def photographs(folder: Path) -> None:
    """Write files like photographs: large soft shapes, some with an edge, texture at every scale, a little noise."""
    for number in range(FILES):
        generator = np.random.default_rng(number)
        picture = np.zeros((HEIGHT, WIDTH, 3))
        for scale in (4, 12, 36, 108, 324):
            rough = generator.normal(size=(scale, scale, 3)).cumsum(axis=0 if number % 2 else 1)
            rough = (255 * (rough - rough.min()) / np.ptp(rough)).astype(np.uint8)
            kind = Image.Resampling.NEAREST if scale == 12 else Image.Resampling.BICUBIC
            picture += np.asarray(Image.fromarray(rough).resize((WIDTH, HEIGHT), kind)) / scale**0.5
        picture += generator.normal(scale=2, size=picture.shape)
        picture = 255 * (picture - picture.min()) / np.ptp(picture)
        Image.fromarray(picture.astype(np.uint8)).save(folder / f"{number:03}.jpeg", quality=90)


class Photographs:
    nbytes = 4 * 3 * SIDE * SIDE

    def __init__(self, length: int, folder: Path) -> None:
        self.length = length
        self.files = sorted(map(str, folder.glob("*.jpeg")))

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int):
        if not 0 <= index < self.length:
            raise IndexError(index)
        with Image.open(self.files[index % len(self.files)]) as image:
            small = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        return (np.asarray(small, np.float32) / np.float32(255) - MEAN) / DEVIATION


def _mark(item):
    """Return three pixels of an item."""
    return np.concatenate([item[0, 0], item[SIDE // 2, SIDE // 3], item[-1, -1]])


def measure(task: Task) -> dict[str, float]:
    dataset = Photographs(task.count, task.folder)
    marks = [_mark(item) for item in Photographs(FILES, task.folder)]

    def check(items, length: int) -> None:
        number = 0
        for item in items:
            item = np.asarray(item)
            if item.shape != (SIDE, SIDE, 3) or not np.array_equal(_mark(item), marks[number % FILES]):
                raise WrongResultError(f"item {number} differs")
            number += 1
        if number != length:
            raise WrongResultError(f"{number} items in place of {length}")

    elapsed = timed(peers.resolve(task.contender), dataset, WORKERS, WINDOW, check)
    return {"rate": task.count / elapsed, "elapsed": elapsed}


_PROCESS_PEERS = ("seqtools", "grain", "executor", "pool.imap:1", "mpire:1", "joblib:1", "pebble", "keras")

WORKLOADS = [
    Workload(
        name="jpeg",
        title=f"JPEG {WIDTH} x {HEIGHT} decode + resize + normalise, {WORKERS} workers, window {WINDOW}",
        contenders=("processes", "spawn", "threads", "serial", "torch", "torch:numpy", *_PROCESS_PEERS),
        metrics=(Metric("rate", "items/s"),),
        targets=(
            Target("processes", "rate", over=("serial",), at_least=1.75),
            Target("processes", "rate", over=("torch", "torch:*"), at_least=1.2),
            Target("processes", "rate", over=_PROCESS_PEERS, at_least=1),
        ),
        measure=measure,
        count=16,
        prepare=photographs,
    )
]
