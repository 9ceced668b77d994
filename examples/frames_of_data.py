"""Many CSV files to one table: the workers read and sum up a file each, and pandas puts the parts together in order.

``python examples/frames_of_data.py FOLDER`` reads the files ``*.csv`` of that folder, which have the columns ``day``,
``shop``, ``pieces`` and ``price``, and says what each shop took in each of them. Without a folder it makes one. It
needs pandas: ``pip install pandas``.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from ordmap import ordered_map

SHOPS = ["Bergen", "Lagos", "Lima", "Pune"]


def make(folder: Path, files: int, rows: int) -> None:
    """Write a CSV file for each month."""
    rng = np.random.default_rng(42)
    for month in pd.period_range("2020-01", periods=files, freq="M"):
        sales = pd.DataFrame(
            {
                "day": rng.integers(1, month.days_in_month, rows, endpoint=True),
                "shop": rng.choice(SHOPS, rows),
                "pieces": rng.integers(1, 10, rows),
                "price": rng.integers(100, 10_000, rows) / 100,
            }
        )
        sales.to_csv(folder / f"{month}.csv", index=False)


def summed_up(path: Path) -> pd.DataFrame:
    """Return what each shop took, according to one file."""
    sales = pd.read_csv(path)
    sales["taken"] = sales["pieces"] * sales["price"]
    shops = sales.groupby("shop", as_index=False)
    table = shops.agg(days=("day", "nunique"), pieces=("pieces", "sum"), taken=("taken", "sum"))
    table.insert(0, "file", path.stem)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--files", type=int, default=24, help="of the folder that it makes")
    parser.add_argument("--rows", type=int, default=50_000, help="of each file that it makes")
    parser.add_argument("--workers", type=int, help="0: none; as many as there are cores if not given")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = arguments.folder
        if folder is None:
            folder = Path(made)
            make(folder, arguments.files, arguments.rows)
        files = sorted(folder.glob("*.csv"))
        if not files:
            raise SystemExit(f"there are no files *.csv in {folder}")
        table = pd.concat(ordered_map(summed_up, files, workers=arguments.workers), ignore_index=True)
    print(table.to_string(index=False, float_format="{:.2f}".format))


if __name__ == "__main__":
    main()
