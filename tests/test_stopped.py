"""What stops a worker, and would stop it for ever: a terminal, in whose background it is, and signals."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import termios
import threading
import time

import pytest

import ordmap.engine.pool as pool
import ordmap.engine.vigil as vigil
from ordmap import ItemTimeoutError, Processes, ordered_map

ENGINE = ["processes", "spawn"]


class Terminal:
    """A terminal with a program in its foreground, which leads its session as a shell does."""

    def __init__(self, command):
        self.ours, theirs = os.openpty()
        self.program = subprocess.Popen(
            command,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(theirs)
        self.output = b""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        with contextlib.suppress(OSError):  # EIO: the last that had it open is gone
            while data := os.read(self.ours, 4096):
                self.output += data

    def ends(self):
        try:
            code = self.program.wait(timeout=60)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.program.pid, signal.SIGKILL)
            self.program.wait()
            self._reader.join()
            os.close(self.ours)
        return code, self.output.decode().replace("\r\n", "\n")


HEAD = """
import getpass, os, subprocess, sys, termios, warnings
from ordmap import ordered_map

assert os.tcgetpgrp(0) == os.getpgrp(), "not in the foreground"
warnings.simplefilter("ignore", getpass.GetPassWarning)


def reads_from_the_terminal(i):
    with open("/dev/tty") as terminal:
        return terminal.readline()


def asks_for_a_password(i):
    return getpass.getpass()


def runs_a_program_that_reads(i):
    return subprocess.run(["sh", "-c", "read answer </dev/tty && echo $answer"], check=True, capture_output=True)


def runs_a_program_that_sets_the_terminal(i):
    return subprocess.run(["sh", "-c", "stty -echo </dev/tty"], check=True, capture_output=True)


def leads_no_group(i):
    os.setpgid(0, os.getppid())  # in the foreground again
    with open("/dev/tty") as terminal:
        return terminal.readline()


def sets_the_terminal(i):
    termios.tcsetattr(1, termios.TCSADRAIN, termios.tcgetattr(1))
    return "done"


def writes(i):
    print("item", i, "prints")
    os.write(2, b"item %d writes\\n" % i)
    subprocess.run(["echo", "item", str(i), "echoes"], check=True)
    return "done"
"""


@pytest.mark.parametrize("backend", ENGINE)
def test_an_item_that_uses_the_terminal_gets_an_error_or_goes_on(script, backend):
    text = f"""
before = termios.tcgetattr(0)
for work, comes in (
    (reads_from_the_terminal, "OSError"),
    (asks_for_a_password, "EOFError"),
    (runs_a_program_that_reads, "CalledProcessError"),
    (runs_a_program_that_sets_the_terminal, "CalledProcessError"),
    (leads_no_group, "OSError"),
    (sets_the_terminal, "done"),
    (writes, "done"),
):
    got = list(ordered_map(work, range(6), workers=2, backend={backend!r}, on_error=lambda f: type(f.error).__name__))
    assert got == [comes] * 6, (work, got)
    assert termios.tcgetattr(0) == before, f"the terminal is not as it was before {{work}}"
settings = termios.tcgetattr(0)
settings[3] |= termios.TOSTOP
termios.tcsetattr(0, termios.TCSANOW, settings)
assert list(ordered_map(writes, range(6, 12), workers=2, backend={backend!r})) == ["done"] * 6
print("well")
"""
    code, output = Terminal([sys.executable, str(script(HEAD + text))]).ends()
    assert code == 0 and output.endswith("well\n"), output
    for i in range(12):
        assert [output.count(f"item {i} {what}\n") for what in ("prints", "writes", "echoes")] == [1, 1, 1], output


def test_a_worker_has_no_terminal_and_the_caller_keeps_its_own(script):
    path = script(
        HEAD
        + """
got = list(ordered_map(lambda i: (os.getsid(0), os.isatty(1), os.get_terminal_size(1)), range(2), workers=2))
assert got == [(os.getsid(0), True, os.get_terminal_size(1))] * 2, got
os.close(os.open("/dev/tty", os.O_RDWR))
print("well")
"""
    )
    code, output = Terminal([sys.executable, str(path)]).ends()
    assert (code, output) == (0, "well\n")


# Overdue items, ended from outside


def stops_itself():
    os.kill(os.getpid(), signal.SIGSTOP)


def stops_its_group():
    os.killpg(0, signal.SIGSTOP)


def puts_the_clock_out_of_order():
    signal.setitimer(signal.ITIMER_REAL, 0)
    time.sleep(60)


def ignores_the_clock():
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    time.sleep(60)


def blocks_the_clock_and_is_stopped():
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
    os.kill(os.getpid(), signal.SIGTSTP)
    time.sleep(60)


CULPRITS = [
    stops_itself,
    stops_its_group,
    puts_the_clock_out_of_order,
    ignores_the_clock,
    blocks_the_clock_and_is_stopped,
]


@pytest.mark.parametrize("backend", ENGINE)
def test_an_item_is_overdue_also_where_its_worker_s_clock_is_of_no_use(backend):
    """Several workers are in this state at the same time, and others take their places."""

    def work(i):
        if i % 2:
            CULPRITS[i // 2]()
        return i

    size = len(CULPRITS)
    options = {"workers": size, "prefetch": 2 * size, "chunksize": 1, "backend": backend, "item_timeout": 0.2}
    got = list(ordered_map(work, range(2 * size), on_error=lambda f: f.error, **options))
    assert got[::2] == [0, 2, 4, 6, 8]
    for error in got[1::2]:
        assert type(error) is ItemTimeoutError and error.limit == 0.2
        assert "was ended, with its worker" in str(error)


def test_what_comes_before_and_after_it_in_a_chunk_is_computed():
    def work(i):
        if i == 5:
            stops_itself()
        return i

    got = list(ordered_map(work, range(12), workers=2, chunksize=4, item_timeout=0.2, on_error="skip"))
    assert got == [i for i in range(12) if i != 5]


def test_a_worker_that_was_stopped_but_for_a_while_says_where_it_was():
    def is_stopped_and_waits(i):
        stops_itself()
        time.sleep(60)  # else the item may have come to its end before the clock is heard

    with pytest.raises(ItemTimeoutError) as caught:
        next(ordered_map(is_stopped_and_waits, [1], workers=1, item_timeout=0.2))
    assert "is_stopped_and_waits" in caught.value.stack


def test_an_item_in_time_is_left_alone_in_a_worker_whose_earlier_items_were_timed():
    with Processes(1) as used:
        assert list(ordered_map(abs, range(-3, 0), backend=used, item_timeout=0.1)) == [3, 2, 1]
        assert list(ordered_map(time.sleep, [1.5], backend=used)) == [None]
        assert list(ordered_map(time.sleep, [0.1] * 3, backend=used, item_timeout=0.3, chunksize=3)) == [None] * 3


# A word about those that wait


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(vigil, "IDLE", 0.3)
    monkeypatch.setattr(vigil, "_PERIOD", 0.05)
    monkeypatch.setattr(pool, "_HEARTBEAT", 0.05)


def test_a_worker_that_was_stopped_by_hand_is_told_of_once_and_goes_on_when_it_may(impatient):
    def work(i):
        if i == 1:
            os.kill(os.getpid(), signal.SIGSTOP)
        return os.getpid()

    items = ordered_map(work, range(3), workers=1)
    pid = next(items)
    lets_go_on = threading.Timer(1.2, os.kill, (pid, signal.SIGCONT))
    lets_go_on.start()
    with pytest.warns(RuntimeWarning, match=f"is stopped.*kill -CONT {pid}") as told:
        assert list(items) == [pid, pid]
    lets_go_on.join()
    assert len(told) == 1
