"""`chaos` as a test: short, or for as long as ``--stress-seconds`` and ``--stress-kills`` say."""

from __future__ import annotations

import random

import pytest
from chaos import run

from ordmap.engine import available

pytestmark = [
    pytest.mark.stress,
    pytest.mark.long,
    pytest.mark.skipif(not available(), reason="the engine is for Linux"),
    pytest.mark.timeout(0),  # it may be asked to take hours
]


def test_every_item_comes_once_and_in_order_whatever_happens_to_workers(request):
    seconds, kills = request.config.getoption("stress_seconds"), request.config.getoption("stress_kills")
    seed = random.SystemRandom().randrange(1 << 30)
    report = run(seconds, kills, seed)
    assert not report.faults, (seed, report)
    assert not report.left, (seed, report)
    assert report.items > 0
    assert report.kills >= kills
