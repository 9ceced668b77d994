"""Signals that the caller handles are the caller's: no worker runs its handlers, and none dies of such a signal."""

from __future__ import annotations

import os
import signal

import pytest

from ordmap import OrdmapError, Processes, ordered_map
from ordmap.engine import available
from ordmap.signalled import handled
from test_scripts import finished, making

pytestmark = pytest.mark.skipif(not available(), reason="these are signals of Linux")

KINDS = ["processes", "spawn", "portable"]
SIGNALS = ["SIGUSR1", "SIGUSR2", "SIGHUP", "SIGWINCH", "SIGQUIT", "SIGRTMIN"]


@pytest.mark.parametrize("backend", KINDS)
def test_a_signal_to_every_process_is_handled_once(script, backend):
    """A batch system warns each process of a job before its time is over; a terminal that hangs up does, too."""
    path = script(
        f"""
import os, signal, sys, time
from ordmap import ordered_map
{making(backend)}
told = []
numbers = [getattr(signal, name) for name in {SIGNALS!r}]
for number in numbers:
    signal.signal(number, lambda number, _: told.append((os.getpid(), int(number))))

def work(n):
    time.sleep(0.1)
    return os.getpid()

loop = ordered_map(work, range(12), backend=backend, prefetch=4, chunksize=1)
pids = {{next(loop), next(loop), next(loop), next(loop)}}
assert os.getpid() not in pids
for number in numbers:
    for pid in (*pids, os.getpid()):
        os.kill(pid, number)
assert len(list(loop)) == 8
assert told == [(os.getpid(), int(number)) for number in numbers], told
print("once")
"""
    )
    assert finished(path) == (0, "once\n", "")


@pytest.mark.parametrize("backend", KINDS)
def test_ctrl_c_is_the_caller_s_and_sigterm_a_worker_s_end_whatever_the_caller_makes_of_them(script, backend):
    path = script(
        f"""
import os, signal, subprocess, sys
from ordmap import ordered_map
{making(backend)}
PRINT = "import signal; print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)"

def work(n):
    os.kill(os.getpid(), signal.SIGINT)
    run = subprocess.run([sys.executable, "-c", PRINT], stdout=subprocess.PIPE, text=True)
    return signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, run.stdout.strip()

for one in (signal.SIG_IGN, lambda *_: None):
    signal.signal(signal.SIGTERM, one)
    print(*list(ordered_map(work, range(2), backend=backend)))
"""
    )
    assert finished(path) == (0, "(True, 'False') (True, 'False')\n" * 2, "")


def test_what_an_item_or_the_initializer_handles_is_its_own(script):
    path = script(
        """
import os, signal
from ordmap import Processes, Spawn, ordered_map
signal.signal(signal.SIGUSR1, lambda *_: print("the caller's"))
signal.signal(signal.SIGALRM, lambda *_: told.append("alarm"))
told = []

def begin():
    signal.signal(signal.SIGUSR2, lambda *_: os.environ.update(TOLD="initializer"))

def work(n):
    signal.signal(signal.SIGUSR1, lambda *_: told.append("item"))
    os.kill(os.getpid(), signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGUSR2)
    if signal.getsignal(signal.SIGALRM) is not signal.SIG_DFL:  # a timer of the item's own, in a fork
        os.kill(os.getpid(), signal.SIGALRM)
    taken, told[:] = [*told, os.environ.pop("TOLD")], []
    return taken

for backend, more in (Processes(1, initializer=begin), ["alarm"]), (Spawn(1, initializer=begin), []):
    assert list(ordered_map(work, range(3), backend=backend)) == [["item", *more, "initializer"]] * 3
print("own")
"""
    )
    assert finished(path) == (0, "own\n", "")


def test_faulthandler_s_signal_still_tells_where_a_worker_is(script, tmp_path):
    path = script(
        f"""
import faulthandler, os, signal
from ordmap import ordered_map
file = open({str(tmp_path / "stacks")!r}, "w")
faulthandler.register(signal.SIGUSR1, file=file)

def work(n):
    os.kill(os.getpid(), signal.SIGUSR1)
    return n

assert list(ordered_map(work, range(2), workers=1)) == [0, 1]
"""
    )
    assert finished(path) == (0, "", "")
    assert "in work" in (tmp_path / "stacks").read_text()


def test_which_signals_are_the_caller_s():
    before = set(handled())
    own = [signal.SIGALRM, signal.SIGCHLD, signal.SIGTERM, signal.SIGINT]
    kept = {number: signal.signal(number, lambda *_: None) for number in [signal.SIGUSR1, signal.SIGRTMIN, *own]}
    try:
        assert set(handled()) - before == {int(signal.SIGUSR1), int(signal.SIGRTMIN)}
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


class Late(Exception):
    """What a handler raises."""


@pytest.mark.parametrize("make", ["processes", "threads", "serial"])
@pytest.mark.parametrize("raised", [Late, KeyboardInterrupt])
def test_an_iterator_that_a_handler_has_ended_says_so_once_and_its_state_goes_on(make, raised):
    """A program that catches a time limit's exception, and goes on, must not take this for the end of the items."""
    parent = os.getpid()

    def raise_late(*_):
        raise raised

    def work(n):
        if n == 5 and not told:
            told.append(n)
            import time

            time.sleep(0.3)  # by then the caller waits for this item, within `next`
            os.kill(parent, signal.SIGALRM)
            time.sleep(0.3 if make == "serial" else 2)
        return n

    told: list[int] = []
    before = signal.signal(signal.SIGALRM, raise_late)
    backend = make if make != "processes" else Processes(2)
    loop = ordered_map(work, range(12), workers=0 if make == "serial" else None, backend=backend, chunksize=None)
    given = []
    try:
        with pytest.raises(raised):
            while len(given) < 12:
                given.append(next(loop))
    finally:
        signal.signal(signal.SIGALRM, before)
    if make != "serial" and raised is not KeyboardInterrupt:
        with pytest.raises(OrdmapError, match=f"ended by the {raised.__name__}.*load_state_dict"):
            next(loop)
    if make != "serial":
        assert list(loop) == []
    others = ordered_map(lambda n: n, range(12), workers=0)
    others.load_state_dict(loop.state_dict())
    loop.close()
    rest = list(others)
    assert [*given, *rest] == list(range(12)) or (make == "serial" and rest == list(range(6, 12)))
