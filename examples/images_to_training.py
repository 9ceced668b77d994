"""Training on images: the workers decode and augment them in batches, and the loop gets these in a fixed order.

``python examples/images_to_training.py`` makes some JPEGs, with a sun on the left or on the right, and trains a linear
model to tell which. What is random in a batch, and the order of the batches in each epoch, come from ``--seed`` alone:
the losses are the same with any number of workers. The model is numpy's; a step of JAX or Keras goes in its place.
It needs numpy and Pillow: ``pip install numpy pillow``.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ordmap import batches, item_rng, ordered_imap

SIDE, CLIPPED = 40, 32


def make(folder: Path, count: int) -> None:
    """Write JPEGs of a noisy sky with a sun, which have their label in their name."""
    rng = np.random.default_rng(7)
    for n in range(count):
        image = Image.fromarray(rng.integers(0, 160, (SIDE, SIDE, 3), np.uint8))
        label = int(rng.integers(2))
        x, y = rng.integers(8, 14) + label * 18, rng.integers(10, 30)
        ImageDraw.Draw(image).ellipse((x - 4, y - 4, x + 4, y + 4), fill="yellow")
        image.save(folder / f"{n:05}-{label}.jpg")


class Photos:
    """The JPEGs of a folder, with their labels: each time another part of them, mirrored or not, darker or brighter."""

    def __init__(self, folder: Path) -> None:
        self.files = sorted(folder.glob("*.jpg"))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        rng = item_rng("numpy")
        left, top = rng.integers(0, SIDE - CLIPPED, 2, endpoint=True).tolist()
        with Image.open(self.files[index]) as image:
            part = image.convert("L").crop((left, top, left + CLIPPED, top + CLIPPED))
        pixels = np.asarray(part, np.float32) / 255 - 0.5
        if rng.random() < 0.5:
            pixels = pixels[::-1]  # upside down
        return pixels.ravel() * np.float32(rng.uniform(0.8, 1.2)), int(self.files[index].stem[-1])


def train(photos: Photos, epochs: int, size: int, seed: int, workers: int | None) -> None:
    """Fit a logistic regression by gradient descent, and print the loss of each epoch."""
    weights, bias, rate = np.zeros(CLIPPED * CLIPPED, np.float32), 0.0, 0.05
    dataset = batches(photos, size)
    samples = ordered_imap(dataset, workers, epochs=epochs, shuffle=True, seed=seed)
    for epoch in range(epochs):
        loss = right = 0.0
        for pixels, labels in itertools.islice(samples, len(dataset)):
            guesses = 1 / (1 + np.exp(-(pixels @ weights + bias)))
            loss -= np.log(np.where(labels == 1, guesses, 1 - guesses)).sum()
            right += ((guesses > 0.5) == labels).sum()
            weights -= rate * ((guesses - labels) @ pixels / len(labels)).astype(np.float32)
            bias -= rate * (guesses - labels).mean()
        print(f"epoch {epoch}: loss {loss / len(photos):.6f}, {right / len(photos):.1%} right")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--workers", type=int, help="0: none; as many as there are cores if not given")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), arguments.images)
        train(Photos(Path(folder)), arguments.epochs, arguments.batch, arguments.seed, arguments.workers)


if __name__ == "__main__":
    main()
