"""As a user would: scripts without a main guard, a REPL, ``python -c``, standard input, a notebook's kernel."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import psutil
import pytest

from ordmap.backends import BACKENDS
from ordmap.testing import wait_until

#: Whose items may be plain functions; of coroutines programs are run in `test_asyncio`.
LOCAL = [name for name in BACKENDS if name != "asyncio"]

#: … and the processes of systems that the engine doesn't know.
ALL = [*LOCAL, "portable"]

DATASET = """
from dataclasses import dataclass
from ordmap import ordered_imap, ordered_map

@dataclass
class Point:
    x: int

class MyError(Exception):
    def __init__(self, index, *, why):
        super().__init__(f"{index}: {why}")
        self.index = index

class Squares:
    def __len__(self):
        return 20
    def __getitem__(self, index):
        if index == 13:
            raise MyError(index, why="unlucky")
        return Point(index * index)
"""

LOOP = """
for x in ordered_imap(Squares(), workers=4, prefetch=16, backend=BACKEND, indices=range(13)): print(x.x, end=" ")

print(all(type(x) is Point for x in ordered_map(lambda p: Point(p.x + 1), [Point(1), Point(2)], backend=BACKEND)))
"""

EXPECTED = " ".join(str(n * n) for n in range(13)) + " True"


def run(*arguments, stdin=None, cwd=None):
    done = subprocess.run(
        [sys.executable, "-W", "error", *map(str, arguments)],
        input=stdin, capture_output=True, text=True, timeout=100, cwd=cwd, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done


def making(backend, workers=2):
    """Return the lines of a script that make a backend."""
    if backend == "portable":
        return f"from ordmap.backends.portable import Processes\nbackend = Processes({workers})"
    return f"from ordmap.backends import resolve\nbackend = resolve({backend!r}, {workers})"


def in_session(session):
    """Return the processes of a session that have not ended."""
    found = []
    for pid in psutil.pids():
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            process = psutil.Process(pid)
            if os.getsid(pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


@contextlib.contextmanager
def launched(path, *arguments, **options):
    """Run a script in a session of its own, of which nothing is left at the end."""
    process = subprocess.Popen(
        [sys.executable, str(path), *map(str, arguments)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        **options,
    )  # fmt: skip
    with process:
        try:
            yield process
        finally:
            for one in in_session(process.pid):
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()


def finished(path, *arguments, typed="", **options):
    """Run a script to its end, which comes soon and leaves no process. Return its exit code and what it wrote."""
    with launched(path, *arguments, **options) as process:
        stdout, stderr = process.communicate(typed, timeout=30)
        wait_until(lambda: not in_session(process.pid), "no process of the script's is left")
    return process.returncode, stdout, stderr


@pytest.mark.parametrize("backend", LOCAL)
def test_a_script_without_a_main_guard(script, backend):
    path = script(f"print('once')\nBACKEND = {backend!r}\n{DATASET}\n{LOOP}")
    assert run(path).stdout.split() == ["once", *EXPECTED.split()]


@pytest.mark.parametrize("backend", LOCAL)
def test_python_c(backend):
    assert run("-c", f"BACKEND = {backend!r}\n{DATASET}\n{LOOP}").stdout.strip() == EXPECTED


@pytest.mark.parametrize("backend", LOCAL)
def test_typed_into_a_repl(backend):
    typed = DATASET.replace("\n\n", "\n\n\n").replace("20\n    def", "20\n    def") + "\n\n" + LOOP
    assert EXPECTED in run("-i", stdin=f"BACKEND = {backend!r}\n{typed}").stdout.replace(">>> ", "").replace("... ", "")


@pytest.mark.parametrize("backend", LOCAL)
def test_read_from_standard_input(backend):
    assert run("-", stdin=f"BACKEND = {backend!r}\n{DATASET}\n{LOOP}").stdout.strip() == EXPECTED


@pytest.mark.parametrize("backend", LOCAL)
def test_a_module_run_by_name(script, backend, tmp_path):
    script(f"BACKEND = {backend!r}\n{DATASET}\n{LOOP}", "by_name.py")
    assert run("-m", "by_name", cwd=tmp_path).stdout.strip() == EXPECTED


@pytest.mark.parametrize("backend", LOCAL)
def test_an_exception_class_of_the_script(script, backend):
    path = script(
        f"""{DATASET}
iterator = ordered_imap(Squares(), workers=2, backend={backend!r})
found = []
while True:
    try:
        found.append(next(iterator).x)
    except StopIteration:
        break
    except MyError as error:
        found.append((str(error), error.index))
assert found[13] == ("13: unlucky", 13), found[13]
assert found[:13] + found[14:] == [n * n for n in range(20) if n != 13], found
"""
    )
    run(path)


@pytest.mark.parametrize("backend", LOCAL)
def test_an_infinite_loop_left_by_break_many_times_leaves_nothing(script, backend):
    path = script(
        f"""
import gc, os, threading, psutil
from ordmap import ordered_imap

def counts():
    gc.collect()
    me = psutil.Process()
    children = [p for p in me.children(recursive=True) if "resource_tracker" not in " ".join(p.cmdline())]
    return me.num_fds(), threading.active_count(), len(children)

def loop():
    for n, x in enumerate(ordered_imap("abc", workers=2, prefetch=8, epochs=None, backend={backend!r})):
        assert x == "abc"[n % 3]
        if n == 50:
            break

loop()
before = counts()
for _ in range({100 if backend == "processes" else 20}):
    loop()
assert counts() == before, (before, counts())
"""
    )
    run(path)


#: What an item may be busy with, for ever.
BUSY = {
    "sleeps": "time.sleep(600)",
    "loops": "while True: pass",
    "holds the GIL in C": 're.match(r"(a+)+$", "a" * 64 + "b")',
    "runs a program": 'subprocess.run(["sleep", "600"])',
}


def busy(backends, items):
    """Return each backend with what an item may be busy with there."""
    alone = {"serial", "threads"}  # these would hang themselves
    return [(name, item) for name in backends for item in items if name not in alone or item != "holds the GIL in C"]


#: How a program may end at once: its exit code, and how it prepares for that.
KILLS = {
    "SIGKILL": (-signal.SIGKILL, ""),
    "SIGTERM": (-signal.SIGTERM, ""),
    "SIGTERM that it handles": (9, "signal.signal(signal.SIGTERM, lambda *_: sys.exit(9))"),
    "os._exit": (9, "threading.Thread(target=lambda: os.read(0, 1) and os._exit(9), daemon=True).start()"),
}


@pytest.mark.parametrize(
    ("backend", "item", "way"),
    [
        (backend, item, way)
        for backend, item in busy(ALL, BUSY)
        for way in KILLS
        if (backend in {"processes", "spawn"} or item != "runs a program")
        and (backend != "serial" or way != "SIGTERM that it handles")  # the handler is called within the item there
    ],
)
def test_no_worker_outlives_a_killed_parent(script, tmp_path, backend, item, way):
    code, prepare = KILLS[way]
    path = script(
        f"""
import os, re, signal, subprocess, sys, threading, time
from pathlib import Path
from ordmap import ordered_map
{making(backend)}

def work(n):
    if n == 0:
        return n
    Path(sys.argv[1], str(n)).touch()
    {BUSY[item]}

{prepare}
iterator = ordered_map(work, range(9), prefetch=4, chunksize=1, backend=backend)
next(iterator)
next(iterator)
"""
    )
    started = tmp_path / "started"
    started.mkdir()
    with launched(path, started) as parent:
        wait_until(lambda: len(list(started.iterdir())) == (1 if backend == "serial" else 2), "its workers are busy")
        if way == "os._exit":
            parent.stdin.write("!")
            parent.stdin.flush()
        else:
            parent.send_signal(signal.SIGKILL if way == "SIGKILL" else signal.SIGTERM)
        stdout, stderr = parent.communicate(timeout=20)
        assert (parent.returncode, stdout, stderr) == (code, "", "")
        wait_until(lambda: not in_session(parent.pid), "no worker is left")


@pytest.mark.parametrize("how", ["pass", "sys.exit(0)", "raise ZeroDivisionError", "os._exit(0)"])
@pytest.mark.parametrize("backend", LOCAL)
def test_a_program_that_ends_in_mid_run_ends_quietly_and_whole(script, backend, how):
    path = script(
        f"""
import os, sys, time
from ordmap import ordered_map

def work(n):
    time.sleep(0.01 if n < 3 or {backend!r} == "serial" else 30)
    return n

iterator = ordered_map(work, range(100), workers=2, prefetch=6, backend={backend!r})
next(iterator)
next(iterator)
{how}
"""
    )
    process = subprocess.Popen([sys.executable, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    stdout, stderr = process.communicate(timeout=20)  # far less than an item's 30 s
    assert stdout == ""
    assert stderr == "" or "ZeroDivisionError" in stderr.splitlines()[-1], stderr


LOOP_THAT_FAILS = """
def loop():
    for n in results:
        if n == 2:
            raise LookupError("in the loop's body")
"""

#: How a program may end, or what may hold its iterator when it does. All of it is right with ``map``, too.
ENDINGS = {
    "an error in the body of a function's loop": LOOP_THAT_FAILS + "loop()",
    "an error that is kept": LOOP_THAT_FAILS
    + """
try:
    loop()
except LookupError as error:
    kept = error
""",
    "sys.exit(3) in the loop's body": """
for n in results:
    if n == 2:
        sys.exit(3)
""",
    "sys.exit with a message in a function's loop": """
def loop():
    for n in results:
        if n == 2:
            sys.exit("that was all")
loop()
""",
    "a reference cycle": """
class Node:
    pass
node = Node()
node.own, node.results = node, results
print(next(results))
del node, results
""",
    "a global in a cycle of its own": """
class Node:
    def __del__(self):
        pass
node = Node()
node.own, node.results = node, results
print(next(results))
""",
    "a module": """
sys.modules["holder"] = types.ModuleType("holder")
sys.modules["holder"].results = results
print(next(results))
del results
""",
    "a class": """
class Holder:
    held = results
print(next(Holder.held))
del results
""",
    "a generator in the midst of its loop": """
def doubled():
    for n in results:
        yield 2 * n
numbers = doubled()
print(next(numbers))
""",
    "an object that closes it at its own end": """
class Closing:
    def __init__(self, results):
        self.results = results
    def __del__(self):
        if hasattr(self.results, "close"):
            self.results.close()
closing = Closing(results)
print(next(results))
""",
    "a thread that waits for the next": """
def consume():
    for n in results:
        found.append(n)
found = []
threading.Thread(target=consume, daemon=True).start()
while len(found) < 5:
    time.sleep(0.01)
print(found)
""",
}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("backend", ALL)
def test_a_program_ends_with_a_live_iterator_as_it_does_with_map(script, backend, ending):
    path = script(
        f"""
import gc, sys, threading, time, types
from ordmap import ordered_map
{making(backend)}
gc.disable()  # what is garbage waits for the interpreter's end

def work(n):
    time.sleep(600 if n > 4 else 0)
    return n

results = ordered_map(work, range(100), backend=backend, prefetch=6, chunksize=1)
if sys.argv[1:] == ["map"]:
    results = map(work, range(100))
{ENDINGS[ending]}
"""
    )
    assert finished(path) == finished(path, "map")


#: How a program may leave an iterator behind, and go on.
LEAVINGS = {
    "an error in the loop's body": LOOP_THAT_FAILS
    + """
try:
    loop()
except LookupError:
    pass
del results
""",
    "an error through a generator": """
def doubled():
    for n in results:
        yield 2 * n
try:
    for n in doubled():
        raise LookupError("in the loop's body")
except LookupError:
    pass
del results
""",
    "a reference cycle": ENDINGS["a reference cycle"],
    "a cycle with an error": LOOP_THAT_FAILS
    + """
def keep():
    mine = results
    try:
        loop()
    except LookupError as error:
        kept = error  # whose frames hold it
keep()
del results
""",
}


@pytest.mark.parametrize("leaving", LEAVINGS)
@pytest.mark.parametrize("backend", ["processes", "spawn", "portable"])
def test_an_iterator_left_behind_ends_with_the_next_collection_of_garbage(script, backend, leaving):
    path = script(
        f"""
import gc, threading, time, psutil
from ordmap import ordered_map
{making(backend)}

def work(n):
    time.sleep(600 if n > 4 else 0)
    return n

results = ordered_map(work, range(100), backend=backend, prefetch=6, chunksize=1)
{LEAVINGS[leaving]}
gc.collect()
# A thread of the standard library's pool closes what its exit function writes to, and may do so right then.
while psutil.Process().children(recursive=True) or threading.active_count() > 1:
    time.sleep(0.01)
print("nothing is left")
"""
    )
    code, stdout, stderr = finished(path)
    assert (code, stdout.splitlines()[-1], stderr) == (0, "nothing is left", "")


@pytest.mark.parametrize("backend", LOCAL)
def test_ctrl_c_is_one_keyboard_interrupt(script, backend):
    path = script(
        f"""
import time
from ordmap import ordered_map

def work(n):
    time.sleep(0 if n < 3 else 30)
    return n

iterator = ordered_map(work, range(100), workers=2, prefetch=6, backend={backend!r})
try:
    for n in iterator:
        if n == 2:
            print("running", flush=True)
except KeyboardInterrupt:
    print("interrupted", list(iterator), flush=True)
"""
    )
    process = subprocess.Popen(
        [sys.executable, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout.readline() == "running\n"
    time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    stdout, stderr = process.communicate(timeout=20)
    assert (stdout, stderr, process.returncode) == ("interrupted []\n", "", 0)


@pytest.mark.parametrize("backend", ALL)
def test_ctrl_c_that_nobody_catches_is_one_traceback(script, tmp_path, backend):
    path = script(
        f"""
import sys, time
from pathlib import Path
from ordmap import ordered_map
{making(backend)}

def work(n):
    if n:
        Path(sys.argv[1], str(n)).touch()
        time.sleep(600)
    return n

for n in ordered_map(work, range(100), prefetch=6, chunksize=1, backend=backend):
    pass
"""
    )
    started = tmp_path / "started"
    started.mkdir()
    with launched(path, started) as process:
        wait_until(lambda: len(list(started.iterdir())) == (1 if backend == "serial" else 2), "its workers are busy")
        os.killpg(process.pid, signal.SIGINT)
        stdout, stderr = process.communicate(timeout=20)
        assert (stdout, process.returncode) == ("", -signal.SIGINT)
        assert stderr.startswith(f'Traceback (most recent call last):\n  File "{path}", line ')
        assert stderr.endswith("\nKeyboardInterrupt\n")
        assert stderr.count("Traceback") == stderr.count("KeyboardInterrupt\n") == 1
        wait_until(lambda: not in_session(process.pid), "no process is left")


class Terminal:
    """A terminal in which a shell runs a script, in the foreground."""

    def __init__(self, path, *arguments):
        self.screen, self.line = pty.openpty()
        self.attributes = termios.tcgetattr(self.line)
        run = 'trap : INT; "$@"; echo "ended with $?"; read _'
        self.shell = subprocess.Popen(
            ["sh", "-c", run, "sh", sys.executable, str(path), *map(str, arguments)],
            stdin=self.line, stdout=self.line, stderr=self.line, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        self.shown = ""

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        for one in in_session(self.shell.pid):
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        self.shell.wait()
        os.close(self.screen)
        os.close(self.line)

    def type(self, text):
        os.write(self.screen, text.encode())

    def wait_for(self, text):
        """Wait until the screen shows a text."""

        def is_shown():
            while select.select([self.screen], [], [], 0)[0]:
                self.shown += os.read(self.screen, 1 << 16).decode().replace("\r\n", "\n")
            return text in self.shown

        wait_until(is_shown, f"the screen shows {text!r}")


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
@pytest.mark.parametrize(("backend", "item"), busy(ALL, ["sleeps", "loops", "holds the GIL in C"]))
def test_ctrl_c_leaves_the_terminal_as_it_was(script, tmp_path, backend, item):
    path = script(
        f"""
import re, sys, time
from pathlib import Path
from ordmap import ordered_map
{making(backend)}

def work(n):
    if n:
        Path(sys.argv[1], str(n)).touch()
        {BUSY[item]}
    return n

try:
    for n in ordered_map(work, range(100), prefetch=6, chunksize=1, backend=backend):
        print("running", flush=True)
except KeyboardInterrupt:
    print("interrupted", flush=True)
print("heard", input())
"""
    )
    started = tmp_path / "started"
    started.mkdir()
    with Terminal(path, started) as terminal:
        terminal.wait_for("running\n")
        wait_until(lambda: len(list(started.iterdir())) == (1 if backend == "serial" else 2), "its workers are busy")
        terminal.type("\x03")
        terminal.wait_for("interrupted\n")
        terminal.type("hello\n")
        terminal.wait_for("ended with 0\n")
        assert terminal.shown == "running\n^Cinterrupted\nhello\nheard hello\nended with 0\n"
        assert termios.tcgetattr(terminal.line) == terminal.attributes
        assert os.tcgetpgrp(terminal.screen) == terminal.shell.pid
        wait_until(lambda: len(in_session(terminal.shell.pid)) == 1, "the shell alone is left")


@pytest.mark.parametrize("held", [False, True], ids=["", "with a pool held open"])
@pytest.mark.parametrize("where", ["in next()", "in the loop's body"])
@pytest.mark.parametrize("backend", ALL)
def test_a_cell_can_be_run_again_after_ctrl_c(script, backend, where, held):
    path = script(
        f"""
import os, signal, sys, time
from ordmap import ordered_imap
{making(backend)}

class Squares:
    caller = os.getpid()
    interrupts = {where == "in next()"}
    def __len__(self):
        return 12
    def __getitem__(self, n):
        if self.interrupts and n == 5:
            os.kill(self.caller, signal.SIGINT)
            time.sleep(600)
        return n * n

def run(cell):
    try:
        exec(compile(cell, "<cell>", "exec"), globals())
    except KeyboardInterrupt:
        sys.last_type, sys.last_value, sys.last_traceback = sys.exc_info()  # as a notebook does
        print("interrupted")

loop = '''
found = []
for x in ordered_imap(squares, backend=backend, prefetch=4, chunksize=1):
    found.append(x)
    if x == 16 and interrupts:
        signal.raise_signal(signal.SIGINT)
'''
if {held}:
    run("backend.__enter__()")
run("squares = Squares(); interrupts = {where != "in next()"}")
run(loop)
run("squares.interrupts = interrupts = False")
run(loop + "print(found)")
run(loop + "print(found)")
if {held}:
    run("backend.__exit__(None, None, None)")
"""
    )
    squares = f"{[n * n for n in range(12)]}\n"
    assert finished(path) == (0, "interrupted\n" + 2 * squares, "")


@pytest.mark.parametrize("backend", [name for name in LOCAL if name != "serial"])
def test_a_forked_child_owns_nothing_of_an_iterator(script, backend):
    path = script(
        f"""
import gc, os
from ordmap import OrdmapError, ordered_imap

iterator = ordered_imap(range(100), workers=2, prefetch=10, backend={backend!r})
found = [next(iterator)]
child = os.fork()
if child == 0:
    try:
        next(iterator)
    except OrdmapError as error:
        assert "make a new one here" in str(error)
    else:
        os._exit(3)
    assert list(ordered_imap(range(5), workers=2, backend={backend!r})) == list(range(5))
    iterator.close()
    del iterator
    gc.collect()
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
found += iterator
assert found == list(range(100))
"""
    )
    # Python 3.12 and later warn of the user's own fork, beside threads.
    command = [sys.executable, "-W", "ignore::DeprecationWarning", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_importing_ordmap_is_light():
    done = run(
        "-c",
        "import sys; bare = set(sys.modules); import ordmap\n"
        "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - bare}))",
    )
    heavy = {"numpy", "multiprocessing", "concurrent", "asyncio", "cloudpickle", "logging", "inspect", "pathlib"}
    # … and what `traceback` brings, more with each Python: that is taken when an error comes.
    heavy |= {"traceback", "linecache", "tokenize", "textwrap", "dataclasses", "dis", "_colorize"}
    heavy |= {"ctypes", "socket", "selectors", "subprocess", "tempfile", "random", "datetime", "locale"}
    assert not heavy & set(done.stdout.split())


ALL_TAKEN = """
import os, sys
from ordmap import ordered_imap, Processes
class Taken:
    def __len__(self): return 2
    def __getitem__(self, i):
        if i:
            return i
        sys.path_importer_cache.clear()
        try:
            while True: os.open("/dev/null", os.O_RDONLY)
        except OSError as error:
            raise ValueError("none left") from error
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))
assert "traceback" not in sys.modules
with Processes(1) as pool:
    results = ordered_imap(Taken(), backend=pool)
    try:
        next(results)
    except ValueError as error:
        print(*error.__notes__)
"""


def test_an_error_has_its_traceback_where_nothing_can_be_imported_any_more():
    done = run("-c", ALL_TAKEN)
    assert done.stderr == ""
    assert re.search(
        r"Traceback \(most recent call last\):\n.*line \d+, in __getitem__\n(.*\n)*ValueError: none left", done.stdout
    )


def test_it_runs_where_the_package_was_installed():
    import ordmap

    assert (Path(ordmap.__file__).parent / "py.typed").exists()
