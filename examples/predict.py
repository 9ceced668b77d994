"""Prediction with scikit-learn: the workers answer batches, and the answers come in the order of the questions.

``python examples/predict.py`` fits a classifier on half of scikit-learn's handwritten digits, and has it read the other
half, as often as ``--times`` says. The model reaches each worker once, not with every batch. It needs scikit-learn:
``pip install scikit-learn``.
"""

from __future__ import annotations

import argparse

import numpy as np
from sklearn.datasets import load_digits
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from ordmap import ParallelDataset, batches, mapped


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--workers", type=int, help="0: none; as many as there are cores if not given")
    arguments = parser.parse_args()

    images, labels = load_digits(return_X_y=True)
    half = len(images) // 2
    model = make_pipeline(StandardScaler(), SVC()).fit(images[:half], labels[:half])
    asked, wanted = (np.concatenate([array[half:]] * arguments.times) for array in (images, labels))

    # A lazy view: the answers to batch 0, 1, … are made when they are asked for, by the workers.
    with ParallelDataset(mapped(model.predict, batches(asked, arguments.batch)), arguments.workers) as answers:
        predicted = np.concatenate(list(answers))
        # An index, and a slice, ask for these batches alone.
        last = answers[-1]

    if not np.array_equal(predicted, model.predict(asked)) or last[-1] != predicted[-1]:
        raise SystemExit("the answers are not those of plain prediction")
    print(f"{len(predicted)} digits, {np.mean(predicted == wanted):.1%} right, in the order of plain prediction")


if __name__ == "__main__":
    main()
