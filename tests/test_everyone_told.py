"""SIGTERM for every process of a program at once, as systemd sends it: the program's own way to end is the one taken."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import psutil
import pytest

from ordmap.engine import available
from test_engine import until

pytestmark = pytest.mark.skipif(not available(), reason="the engine is for Linux")

PROGRAM = """
import asyncio, os, signal, sys, time
from ordmap import Processes, Spawn, ordered_map

kind, backend = sys.argv[1:]
pool = {"processes": Processes, "spawn": Spawn}[backend](2)

def item(number):
    time.sleep(0.02)
    return number

def results(count, **options):
    return ordered_map(item, range(count), backend=pool, prefetch=8, chunksize=1, **options)

def told(*_):
    raise SystemExit(7)

async def main():
    task = asyncio.current_task()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        async with results(100_000, on_error="return") as these:
            async for number in these:
                if number == 4:
                    print("at work", flush=True)
    except asyncio.CancelledError:
        print("cancelled", flush=True)
        raise SystemExit(7)

if kind == "raises":
    signal.signal(signal.SIGTERM, told)
    for number in results(100_000, on_error="return"):
        if number == 4:
            print("at work", flush=True)
elif kind == "hears of workers":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for number in results(100_000):
        if number == 4:
            print("at work", flush=True)
elif kind == "asyncio":
    asyncio.run(main())
elif kind == "goes on":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    lost = []
    for place, number in enumerate(results(150, on_error="return")):
        if number == 4:
            print("at work", flush=True)
        if number != place:
            lost.append(f"{type(number.error).__name__}: {number.error}")
    print(len(lost), {text.partition(": worker ")[0] for text in lost}, all("SIGTERM" in text for text in lost))
elif kind == "tries again":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for place, number in enumerate(results(150, retries=8)):
        assert place == number
        if number == 4:
            print("at work", flush=True)
    print("all", flush=True)
elif kind == "default":
    for number in results(100_000, on_error="return"):
        if number == 4:
            print("at work", flush=True)
"""


class Told:
    """A program in the midst of its loop, and all the processes that are its own."""

    def __init__(self, path, *args):
        self.running = subprocess.Popen(
            [sys.executable, path, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.workers = []
        assert self.running.stdout.readline() == "at work\n"

    def tell(self, *, last):
        """Send SIGTERM to each, by its number; the caller is the first or the ``last``."""
        workers = psutil.Process(self.running.pid).children(recursive=True)
        self.workers += workers
        pids = [worker.pid for worker in workers]
        for pid in [*pids, self.running.pid] if last else [self.running.pid, *pids]:
            try:
                os.kill(pid, signal.SIGTERM)
            except ProcessLookupError:  # the caller has ended it by now
                assert pid != self.running.pid

    def ended(self):
        """Return what it has said, and its exit code; none of its workers lives on."""
        try:
            said, errors = self.running.communicate(timeout=60)
        finally:
            self.running.kill()
        until(lambda: not any(worker.is_running() for worker in self.workers))
        return said, errors, self.running.returncode


@pytest.mark.parametrize("last", [True, False], ids=["caller last", "caller first"])
@pytest.mark.parametrize("backend", ["processes", "spawn"])
@pytest.mark.parametrize(
    ("kind", "said", "code"), [("raises", "", 7), ("asyncio", "cancelled\n", 7), ("default", "", -signal.SIGTERM)]
)
def test_the_program_ends_in_its_own_way(script, kind, said, code, backend, last):
    program = Told(script(PROGRAM), kind, backend)
    program.tell(last=last)
    assert program.ended() == (said, "", code)


@pytest.mark.parametrize("backend", ["processes", "spawn"])
def test_where_it_takes_no_notice_each_item_under_way_says_what_ended_its_worker(script, backend):
    program = Told(script(PROGRAM), "goes on", backend)
    program.tell(last=False)
    said, errors, code = program.ended()
    lost, kinds, all_by_it = said.split(maxsplit=2)[0], *said.split(maxsplit=1)[1].rsplit(maxsplit=1)
    assert (int(lost) in {1, 2}, kinds, all_by_it, errors, code) == (True, "{'WorkerDiedError'}", "True", "", 0)


@pytest.mark.parametrize("backend", ["processes", "spawn"])
def test_where_it_takes_no_notice_the_first_such_item_ends_a_plain_loop(script, backend):
    program = Told(script(PROGRAM), "hears of workers", backend)
    program.tell(last=False)
    said, errors, code = program.ended()
    assert (said, code) == ("", 1)
    assert "was killed by SIGTERM while it computed this item" in errors


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("backend", ["processes", "spawn"])
def test_where_it_takes_no_notice_and_tries_again_nothing_is_lost(script, backend, times):
    program = Told(script(PROGRAM), "tries again", backend)
    for _ in range(times):
        program.tell(last=False)
    assert program.ended() == ("all\n", "", 0)
    assert len(set(program.workers)) <= 2 * times  # others took the places of those that were told, and no more
