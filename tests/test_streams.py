"""What items write to the standard streams comes out, by whatever name they have them, whole, and once."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter

import pytest

from ordmap import Processes, ordered_map
from ordmap.engine import available
from test_scripts import finished, launched, making

pytestmark = pytest.mark.skipif(not available(), reason="these are the ways of Linux")

ITEMS = 40
ROWS = Counter(f"row {n}" for n in range(ITEMS))

#: How a program may come by a stream before its workers are forked, and what an item then does with it.
BOUND = {
    "from sys import stdout": ("from sys import stdout", "stdout.write(row)"),
    "a bound method": ("write = sys.stdout.write", "write(row)"),
    "csv.writer": ("import csv; table = csv.writer(sys.stdout, lineterminator='\\n')", "table.writerow([row.strip()])"),
    "partial": ("say = functools.partial(print, file=sys.stdout, end='')", "say(row)"),
    "a default argument": ("def say(text, to=sys.stdout): to.write(text)", "say(row)"),
    "sys.__stdout__": ("", "sys.__stdout__.write(row)"),
    "one that was replaced": ("out = sys.stdout; sys.stdout = io.StringIO()", "out.write(row)"),
    "its buffer": ("out = sys.stdout.buffer", "out.write(row.encode())"),
    "its raw file": ("out = getattr(sys.stdout.buffer, 'raw', sys.stdout.buffer)", "out.write(row.encode())"),
    "another text stream on its buffer": (
        "sys.stdout = io.TextIOWrapper(sys.stdout.buffer, newline='', encoding='utf-16-le')",
        "sys.__stdout__.write(row) if n % 2 else print(row, end='')",
    ),
    "codecs": ("import codecs; sys.stdout = codecs.getwriter('utf-8')(sys.stdout.buffer)", "print(row, end='')"),
    "logging": (
        "import logging; logging.basicConfig(stream=sys.stdout, format='%(message)s', level=20)",
        "logging.info(row.strip())",
    ),
    "a tee": (
        "class Tee:\n    def __init__(self, *to): self.to = to\n"
        "    def write(self, text): return [one.write(text) for one in self.to] and len(text)\n"
        "    def flush(self): [one.flush() for one in self.to]\n"
        "sys.stdout = Tee(sys.stdout, io.StringIO())",
        "print(row, end='')",
    ),
    "the descriptor": ("", "os.write(1, row.encode())"),
}


#: Ways that go through the objects that `-u` makes in another manner.
UNBUFFERED = {"from sys import stdout", "one that was replaced", "its buffer", "its raw file", "codecs", "a tee"}


@pytest.mark.parametrize(
    ("how", "flags"),
    [
        *(pytest.param(how, [], id=how) for how in BOUND),
        *(
            pytest.param(how, ["-u"], id=f"{how}-unbuffered", marks=() if how in UNBUFFERED else pytest.mark.long)
            for how in BOUND
        ),
    ],
)
def test_what_items_write_by_a_name_that_was_bound_before_comes_out(script, how, flags):
    before, write = BOUND[how]
    path = script(
        f"""
import functools, io, os, sys
from ordmap import Processes, ordered_map
print("before", file=sys.__stdout__)
{before}

def work(n):
    row = f"row {{n}}\\n"
    {write}
    return n

assert list(ordered_map(work, range({ITEMS}), backend=Processes(2))) == list(range({ITEMS}))
print("after", file=sys.__stdout__, flush=True)
"""
    )
    done = subprocess.run([sys.executable, *flags, path], capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    lines = done.stdout.replace(b"\0", b"").decode().splitlines()
    assert (lines[0], lines[-1]) == ("before", "after")
    assert Counter(lines[1:-1]) == ROWS


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_what_another_thread_has_in_a_stream_at_the_fork_is_printed_once_and_holds_up_no_worker(script, stream):
    """A thread that waits in ``write`` has the lock of the buffer, which no fork is rid of by itself."""
    path = script(
        f"""
import os, sys, threading, time
from ordmap import Processes, ordered_map

def work(n):
    print(f"row {{n}}", file=sys.{stream})
    sys.{stream}.buffer.write(b"binary\\n")
    return n

def fill():
    while not sys.stdin.closed:
        sys.{stream}.buffer.write(b"x" * 99_999 + b"\\n")
        full.set()

full = threading.Event()
threading.Thread(target=fill, daemon=True).start()
full.wait()
for _ in range(5):
    assert list(ordered_map(work, range(10), backend=Processes(2))) == list(range(10))
sys.stdin.close()
os._exit(0)
"""
    )
    pieces = []
    with launched(path) as process:
        while piece := os.read(getattr(process, stream).fileno(), 65_536):
            pieces.append(piece)
            time.sleep(0.001)  # so that the other thread waits in ``write`` nearly always
        assert process.wait(30) == 0
    text = b"".join(pieces)
    assert text.count(b"row ") == 50
    assert text.count(b"binary") == 50


def test_text_that_the_caller_writes_between_flush_and_fork_is_the_caller_s_to_print(script):
    path = script(
        """
import os, sys
from ordmap import Processes, ordered_map
os.register_at_fork(before=lambda: sys.stdout.write("late\\n"))
out = sys.stdout

def work(n):
    out.write(f"row {n}\\n")

list(ordered_map(work, range(10), backend=Processes(2)))
"""
    )
    code, stdout, stderr = finished(path)
    assert (code, stderr) == (0, "")
    assert Counter(stdout.split("\n")) == Counter(["late", "late", "", *(f"row {n}" for n in range(10))])


WAYS = {
    "a line": 'out.write(f"row {n}\\n")',
    "no line": 'print("-", end="", file=out)',
    "bytes": 'out.buffer.write(b"-")',
}


@pytest.mark.parametrize("backend", ["processes", "spawn"])
@pytest.mark.parametrize("way", WAYS)
def test_what_an_item_has_printed_before_its_result_is_there_is_printed_when_its_worker_is_ended(script, backend, way):
    path = script(
        f"""
import sys, time
{making(backend)}
from ordmap import ordered_map
out = sys.stdout if {backend!r} == "processes" else None

def work(n):
    global out
    import sys, time
    out = out or sys.stdout
    if n >= 4:
        time.sleep(60)
    {WAYS[way]}

results = ordered_map(work, range(100), backend=backend, prefetch=8, chunksize=1)
for _ in range(4):
    next(results)
results.close()
"""
    )
    code, stdout, stderr = finished(path)
    assert (code, stderr) == (0, "")
    assert sorted(stdout) == sorted("".join(f"row {n}\n" for n in range(4)) if way == "a line" else "----")


def test_each_line_arrives_whole_where_the_caller_s_stream_is_unbuffered(script):
    path = script(
        """
import sys
from ordmap import Processes, ordered_map

def work(n):
    for _ in range(2_000):
        print("item", n, "." * 40)

list(ordered_map(work, range(8), backend=Processes(2)))
"""
    )
    done = subprocess.run([sys.executable, "-u", path], capture_output=True, text=True, timeout=60, check=True)
    assert Counter(done.stdout.splitlines()) == {f"item {n} {'.' * 40}": 2_000 for n in range(8)}


def test_a_file_in_the_place_of_standard_output_has_all_lines(tmp_path):
    import contextlib

    with (tmp_path / "out").open("w") as file, contextlib.redirect_stdout(file):
        print("before")
        list(ordered_map(lambda n: print("row", n), range(ITEMS), backend=Processes(2)))
        print("after")
    first, *rows, last = (tmp_path / "out").read_text().splitlines()
    assert (first, last, Counter(rows)) == ("before", "after", ROWS)


ODD = {
    "closed": "sys.stdout.close()",
    "None": "sys.stdout = sys.__stdout__ = None",
    "detached": "kept = sys.stdout.detach()",
    "its buffer closed": "sys.stdout.buffer.close()",
    "no stream at all": "sys.stdout = sys.__stdout__ = object()",
    "one that raises": "sys.stdout = type('Raising', (io.TextIOWrapper,), {'flush': lambda self: 1 / 0})(sys.stdout.buffer)",
}


@pytest.mark.parametrize("how", ODD)
def test_workers_begin_whatever_the_caller_has_made_of_its_streams(script, how):
    path = script(
        f"""
import io, sys
from ordmap import Processes, ordered_map
{ODD[how]}
assert list(ordered_map(abs, range(10), backend=Processes(2))) == list(range(10))
print("end", file=sys.stderr)
import os
os._exit(0)
"""
    )
    assert finished(path) == (0, "", "end\n")


def test_what_items_print_into_a_pipe_that_nobody_reads_costs_those_items_alone(script):
    path = script(
        """
import sys
from ordmap import Processes, ordered_map
sys.stdout.close()
read, write = __import__("os").pipe()
sys.stdout = open(write, "w", closefd=False)
__import__("os").close(read)

def work(n):
    if n == 3:
        print("into the void", flush=True)
    return n

found = []
results = ordered_map(work, range(10), backend=Processes(2))
for _ in range(10):
    try:
        found.append(next(results))
    except BrokenPipeError:
        found.append("broken")
assert found == [0, 1, 2, "broken", *range(4, 10)], found
__import__("os")._exit(0)
"""
    )
    assert finished(path) == (0, "", "")


@pytest.mark.parametrize("kind", ["FileHandler", "StreamHandler", "RotatingFileHandler"])
def test_threads_that_log_when_workers_are_forked_hold_up_no_item_that_logs(script, tmp_path, kind):
    """The lock of a handler's stream is C's, and no fork is rid of it by itself."""
    making = {
        "FileHandler": f"logging.FileHandler({str(tmp_path / 'log')!r})",
        "StreamHandler": f"logging.StreamHandler(open({str(tmp_path / 'log')!r}, 'a'))",
        "RotatingFileHandler": f"logging.handlers.RotatingFileHandler({str(tmp_path / 'log')!r})",
    }[kind]
    path = script(
        f"""
import logging, logging.handlers, os, threading
from ordmap import ordered_map
logging.basicConfig(handlers=[{making}], level=logging.INFO, format="%(message)s")

def chat():
    while True:
        logging.info("x" * 200)

for _ in range(3):
    threading.Thread(target=chat, daemon=True).start()

def work(n):
    logging.info("item %d", n)
    return n

for _ in range(3):
    assert list(ordered_map(work, range(10), workers=2)) == list(range(10))
os._exit(0)
"""
    )
    code, _, stderr = finished(path)
    assert (code, stderr) == (0, "")
    assert Counter((tmp_path / "log").read_text().split("\n"))["item 3"] == 3
