"""``prefetch="512MB"``: a window bounded in bytes."""

from __future__ import annotations

import random

import pytest

from ordmap import ordered_imap
from ordmap.pace import Budget
from test_engine import Items, nothing_left, until  # noqa: F401


@pytest.mark.parametrize(
    ("text", "size"),
    [("512MB", 512_000_000), ("1 MiB", 1 << 20), ("1.5GB", 1_500_000_000), ("10b", 10), ("2kib", 2048)],
)
def test_sizes_are_read(text, size):
    assert Budget.parsed(text) == size


@pytest.mark.parametrize("text", ["", "512", "MB", "-1MB", "0MB", "5 lots", "1e3MB"])
def test_other_texts_are_refused(text):
    with pytest.raises(ValueError, match="prefetch="):
        ordered_imap(range(3), 2, text)


@pytest.mark.parametrize("backend", ["threads", "processes", "serial"])
@pytest.mark.parametrize("budget", ["1B", "100kB", "5MB"])
@pytest.mark.parametrize("chunksize", [None, 7])
def test_results_are_those_of_map(backend, budget, chunksize):
    sizes = [random.Random(i).choice([3, 1000, 50_000]) for i in range(150)]
    items = Items(150, lambda i: bytes([i]) * sizes[i])
    workers = None if backend == "serial" else 2
    got = list(ordered_imap(items, workers, budget, backend=backend, chunksize=chunksize))
    assert got == [items[i] for i in range(150)]


def test_the_budget_is_kept_and_used(tally):
    def item(i):
        tally.add()
        return bytes(100_000)

    results = ordered_imap(Items(200, item), 2, "1MB")
    most = 0
    for given, _ in enumerate(results, 1):
        assert int(tally) - given <= 10 + 2
        most = max(most, results.stats.in_flight)
        if given == 50:
            until(lambda: int(tally) - given == results.stats.in_flight)
    assert most >= 8
