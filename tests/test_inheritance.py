"""What a forked worker has open: files at places of its own, and no stream that is the caller's alone.

Each program runs in an interpreter of its own, as a user's: this one has streams enough of others.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from ordmap.backends import resolve

ENGINE = type(resolve("processes", 1)).__module__ == "ordmap.engine.backends"

pytestmark = pytest.mark.skipif(not ENGINE, reason="the portable path leaves a fork as it is")


def run(script, text, *, code=0, options=("-W", "error")):
    """Run a program, which has to come to its end, and return what it printed."""
    path = script(text)
    done = subprocess.run(
        [sys.executable, *options, str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (code, ""), done.stdout
    return done.stdout


# Files

RECORDS = """
import bz2, gzip, io, lzma, mmap, os, tarfile, tempfile, warnings, zipfile
from ordmap import ordered_imap, ordered_map

SIZE, NUMBER = 5000, 200
folder = tempfile.mkdtemp()
path = os.path.join(folder, "records")

def record(i):
    return i.to_bytes(4, "little") * (SIZE // 4)

with open(path, "wb") as f:
    for i in range(NUMBER):
        f.write(record(i))

class Records:
    def __init__(self):
        self.f = self.opened()
    def __len__(self):
        return NUMBER
    def __getitem__(self, i):
        self.f.seek(i * SIZE)
        return self.f.read(SIZE) == record(i)
    def opened(self):
        raise NotImplementedError
"""

END = """
data = Opened()
assert all(ordered_imap(data, workers=3, chunksize=1))
assert all(data[i] for i in (NUMBER - 1, 0))
import shutil; shutil.rmtree(folder)
"""

KINDS = {
    "buffered": "    def opened(self): return open(path, 'rb')",
    "unbuffered": "    def opened(self): return open(path, 'rb', buffering=0)",
    "deleted": "    def opened(self):\n        f = open(path, 'rb'); os.remove(path); return f",
    "by number": """
    def opened(self): return os.open(path, os.O_RDONLY)
    def __getitem__(self, i):
        os.lseek(self.f, i * SIZE, os.SEEK_SET)
        return os.read(self.f, SIZE) == record(i)""",
    "gzip": "    def opened(self):\n        p = path + '.gz'; gzip.open(p, 'wb', 1).write(open(path, 'rb').read())\n        return gzip.open(p)",
    "bz2": "    def opened(self):\n        p = path + '.bz2'\n        with bz2.open(p, 'wb', 1) as f: f.write(open(path, 'rb').read())\n        return bz2.open(p)",
    "lzma": "    def opened(self):\n        p = path + '.xz'\n        with lzma.open(p, 'wb', preset=0) as f: f.write(open(path, 'rb').read())\n        return lzma.open(p)",
    "mmap": """
    def opened(self):
        f = open(path, 'r+b'); return mmap.mmap(f.fileno(), 0)""",
    "zip": """
    def opened(self):
        with zipfile.ZipFile(path + '.zip', 'w') as z:
            for i in range(NUMBER): z.writestr(str(i), record(i))
        return zipfile.ZipFile(path + '.zip')
    def __getitem__(self, i): return self.f.read(str(i)) == record(i)""",
    "tar": """
    def opened(self):
        with tarfile.open(path + '.tar', 'w') as t:
            for i in range(NUMBER):
                info = tarfile.TarInfo(str(i)); info.size = SIZE; t.addfile(info, io.BytesIO(record(i)))
        return tarfile.open(path + '.tar')
    def __getitem__(self, i): return self.f.extractfile(str(i)).read() == record(i)""",
    "images": """
    def opened(self):
        from PIL import Image
        pages = [Image.new('L', (64, 64), i) for i in range(NUMBER)]
        pages[0].save(path + '.tif', save_all=True, append_images=pages[1:])
        self.image = Image.open(path + '.tif')
    def __getitem__(self, i):
        self.image.seek(i)
        return self.image.getpixel((5, 5)) == i""",
}


@pytest.mark.parametrize("kind", KINDS)
def test_items_that_read_an_open_file_find_what_they_look_for(script, kind):
    run(script, f"{RECORDS}\nclass Opened(Records):\n{KINDS[kind]}\n{END}", options=("-W", "ignore::ResourceWarning"))


def test_a_worker_goes_on_where_the_caller_was(script):
    text = """
import os, tempfile
from ordmap import Processes, ordered_map
with tempfile.NamedTemporaryFile("w+", suffix=".txt") as made:
    made.write("".join(f"{i}\\n" for i in range(100_000))); made.flush()
    lines = open(made.name)
    for _ in range(7): next(lines)
    def line(_): return next(lines)
    with Processes(1) as pool:
        found = list(ordered_map(line, range(50_000), backend=pool))
    assert found == [f"{i}\\n" for i in range(7, 50_007)], found[:3]
    assert next(lines) == "7\\n"
    lines.close()
"""
    run(script, text)


# Streams

LOOP = """
import os, signal, socket, subprocess, sys, threading
from ordmap import Processes, ordered_map
signal.alarm(30)
"""

SOURCES = {
    "a pair of sockets": "a, b = socket.socketpair(); out = a.makefile('wb'); source = b.makefile('rb')",
    "a pipe": "r, w = os.pipe(); a = out = os.fdopen(w, 'wb'); b = source = os.fdopen(r, 'rb')",
    "a connection": """
server = socket.create_server(("127.0.0.1", 0))
a = socket.create_connection(server.getsockname()); b, _ = server.accept()
server.close(); out = a.makefile('wb'); source = b.makefile('rb')""",
    "a fifo": """
name = "ordmap-test-fifo"; os.chdir(os.path.dirname(__file__)); os.mkfifo(name)
b = source = os.fdopen(os.open(name, os.O_RDONLY | os.O_NONBLOCK), 'rb'); a = out = open(name, 'wb')
os.set_blocking(b.fileno(), True)""",
}


@pytest.mark.parametrize("source", SOURCES)
def test_a_source_ends_when_a_thread_of_the_caller_s_closes_its_other_end(script, source):
    text = f"""{LOOP}{SOURCES[source]}
def write():
    for i in range(20_000): out.write(b"%d\\n" % i)
    out.close(); a.close()
thread = threading.Thread(target=write); thread.start()
assert sum(ordered_map(int, source, workers=2)) == sum(range(20_000))
thread.join(); source.close(); b.close()
"""
    run(script, text)


@pytest.mark.parametrize("held", ["pool", "iterator"])
def test_a_program_that_is_fed_by_a_pipe_sees_its_end(script, held):
    text = f"""{LOOP}
program = subprocess.Popen(["wc", "-l"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
pool = Processes(2)
if {held == "pool"}: pool.hold()
items = ordered_map(str, range(10_000), backend=pool)
for item in items:
    program.stdin.write(item + "\\n")
    if item == "9" and not {held == "pool"}: break
program.stdin.close()
program.wait(10)
print(program.stdout.read().strip())
program.stdout.close(); items.close(); pool.close()
"""
    assert run(script, text) == ("10000\n" if held == "pool" else "10\n")


def test_a_port_and_a_connection_are_free_as_soon_as_the_caller_lets_go_of_them(script):
    text = f"""{LOOP}
server = socket.create_server(("127.0.0.1", 0))
address = server.getsockname()
client = socket.create_connection(address); accepted, _ = server.accept()
with Processes(2) as pool:
    assert list(ordered_map(abs, range(4), backend=pool)) == [0, 1, 2, 3]
    accepted.close()
    assert client.recv(1) == b""
    client.close(); server.close()
    again = socket.socket(); again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); again.bind(address); again.listen()
    again.close()
"""
    run(script, text)


@pytest.mark.parametrize("mode", ["r", "w", "a", "r+"])
def test_a_lock_is_let_go_of_with_the_caller_s_file(script, mode):
    text = f"""{LOOP}
import fcntl, tempfile
with tempfile.NamedTemporaryFile() as made:
    lock = open(made.name, {mode!r}); fcntl.flock(lock, fcntl.LOCK_EX)
    with Processes(2) as pool:
        assert list(ordered_map(abs, range(4), backend=pool)) == [0, 1, 2, 3]
        with open(made.name) as other:
            try: fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError: pass
            else: raise AssertionError("not even held")
        lock.close()
        with open(made.name) as other: fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
"""
    run(script, text)


# What items use stays

USED = {
    "a queue": "q = multiprocessing.SimpleQueue()\ndef note(i): q.put(i)\ndef noted(n): return [q.get() for _ in range(n)]",
    "a queue in an initializer's hand": """
import types
place = types.SimpleNamespace()
q = multiprocessing.Queue()
def begin(queue): place.q = queue
def note(i): place.q.put(i)
def noted(n): return [q.get() for _ in range(n)]
options = dict(initializer=begin, initargs=(q,))""",
    "a connection out of sight": """
here, there = multiprocessing.Pipe(); lock = multiprocessing.Lock()
hidden = {"deep": [[[[[[[[there]]]]]]]]}
def note(i):
    with lock: eval("hidden")["deep"][0][0][0][0][0][0][0][0].send(i)
def noted(n): return [here.recv() for _ in range(n)]""",
    "an event": "e = multiprocessing.Event(); m = multiprocessing.Value('i')\ndef note(i):\n    with m: m.value += i\n    e.set()\ndef noted(n): assert e.wait(5); return [m.value, *[0] * (n - 1)]",
    "a manager": "manager = multiprocessing.Manager(); found = manager.list()\ndef note(i): found.append(i)\ndef noted(n): return list(found)",
    "a pipe's number": """
r, w = os.pipe()
def note(i): os.write(w, bytes([i]))
def noted(n): return list(os.read(r, n))""",
    "numbers of a pipe in an object": """
class Reports:
    def __init__(self): self.ends = os.pipe()
    def write(self, i): os.write(self.ends[1], bytes([i]))
reports = Reports()
def deeper(i): reports.write(i)
def note(i): deeper(i)
def noted(n): return list(os.read(reports.ends[0], n))""",
    "a socket": """
a, b = socket.socketpair()
def note(i): b.send(bytes([i]))
def noted(n): return list(a.recv(n))""",
    "a handler of logging": """
import logging.handlers, pickle
server = socket.create_server(("127.0.0.1", 0))
logger = logging.getLogger("test"); logger.setLevel("INFO")
logger.addHandler(logging.handlers.SocketHandler(*server.getsockname())); logger.info(0)
stream = server.accept()[0].makefile("rb")
def note(i): logging.getLogger("test").info(i)
def noted(n):
    found = []
    for _ in range(n + 1):
        size = int.from_bytes(stream.read(4), "big"); found.append(int(pickle.loads(stream.read(size))["msg"]))
    return found""",
    "an event loop": """
import asyncio
loop = asyncio.new_event_loop(); asyncio.set_event_loop(loop)
q = multiprocessing.SimpleQueue()
async def later(i):
    one, other = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=one)
    other.sendall(bytes([i])); got = (await reader.readexactly(1))[0]
    writer.close(); other.close(); await asyncio.sleep(0.001)
    return got
def note(i): q.put(loop.run_until_complete(later(i)))
def noted(n): return [q.get() for _ in range(n)]""",
}


@pytest.mark.parametrize("used", USED)
def test_what_items_use_of_the_caller_s_stays_open(script, used):
    text = f"""{LOOP}
import multiprocessing
options = {{}}
{USED[used]}
with Processes(2, **options) as pool:
    assert list(ordered_map(note, range(8), backend=pool)) == [None] * 8
assert sum(noted(8)) == 28
"""
    run(script, text, options=("-W", "ignore"))


# Ahead


def test_workers_that_were_started_ahead_have_nothing_that_came_later(script):
    text = f"""{LOOP}
before = len(os.listdir("/proc/self/fd"))
with Processes(2).start() as pool:
    r, w = os.pipe()
    def held(i): return os.getpid(), os.path.exists(f"/proc/self/fd/{{w}}") and os.readlink(f"/proc/self/fd/{{w}}")
    mine = os.readlink(f"/proc/self/fd/{{w}}")
    first = list(ordered_map(held, range(8), backend=pool))
    again = list(ordered_map(held, range(8), backend=pool))
    assert all(link != mine for _, link in first + again)
    assert len({{pid for pid, _ in first + again}}) <= 2
    os.close(r); os.close(w)
pool.start(); pool.start()
assert sum(ordered_map(abs, range(5), backend=pool)) == 10
lock = threading.Lock()
def locked(i):
    with lock: return i
assert list(ordered_map(locked, range(5), backend=pool)) == [*range(5)]
pool.close()
try: os.waitpid(-1, os.WNOHANG)
except ChildProcessError: pass
else: raise AssertionError("a worker is left")
assert len(os.listdir("/proc/self/fd")) == before
"""
    run(script, text)


def test_pools_that_start_in_two_threads_do_not_wait_for_each_other(script):
    text = f"""{LOOP}
from ordmap.engine import fork
fork._SETTLED = 20_000  # with a limit of 30 seconds
def loop():
    for _ in range(5): assert list(ordered_map(abs, range(4), workers=2)) == [0, 1, 2, 3]
threads = [threading.Thread(target=loop) for _ in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
    run(script, text, options=())


SLOW_TO_BEGIN = """
import fcntl, os, tempfile, time
from ordmap import Processes, ordered_imap, ordered_map

forks = []
def wait():
    if len(forks) == 2: time.sleep(0.3)  # the second worker, when the first has computed long since
os.register_at_fork(before=lambda: forks.append(0), after_in_child=wait)

made = tempfile.NamedTemporaryFile()
lock = open(made.name, "r+"); fcntl.flock(lock, fcntl.LOCK_EX)

def let_go():
    lock.close()
    with open(made.name) as other: fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)

class Triples:
    def __len__(self): return 6
    def __getitem__(self, i): return 3 * i
"""


@pytest.mark.parametrize(
    "program",
    [
        "items = ordered_imap(Triples(), workers=2); next(items); let_go(); list(items)",
        "items = ordered_imap(Triples(), workers=2, epochs=2)\nfor _ in range(6): next(items)\nlet_go(); list(items)",
        "items = ordered_imap(Triples(), workers=2).start(); let_go(); list(items)",
        "items = ordered_imap([], workers=2); list(items); let_go()",
        """
class Failing(Triples):
    def __getitem__(self, i): raise ValueError(i)
items = ordered_imap(Failing(), workers=2)
try: next(items)
except ValueError: let_go()
items.close()""",
        """
def source():
    let_go()
    yield from range(3)
list(ordered_map(abs, source(), workers=2))""",
        """
import collections.abc
class Inputs(Triples, collections.abc.Sequence):
    def __getitem__(self, i):
        if not lock.closed: let_go()
        if i >= 6: raise IndexError
        return i
assert list(ordered_map(abs, Inputs(), workers=2)) == [*range(6)]
assert lock.closed""",
        "pool = Processes(2).start(); let_go(); pool.close()",
        "with Processes(2) as pool: next(ordered_imap(Triples(), backend=pool)); let_go()",
        """
import asyncio
async def main():
    items = ordered_imap(Triples(), workers=2)
    async def beside():
        let_go()
    task = asyncio.ensure_future(beside())
    assert [item async for item in items] == [0, 3, 6, 9, 12, 15]
    await task
asyncio.run(main())""",
    ],
    ids=[
        "an item",
        "epochs",
        "started",
        "no item",
        "a failure",
        "a source",
        "inputs",
        "a pool",
        "a warm pool",
        "another task",
    ],
)
def test_a_lock_is_free_however_long_a_worker_takes_to_begin(script, program):
    run(script, SLOW_TO_BEGIN + program)
