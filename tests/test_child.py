"""A worker is a child process as the standard library makes one, and leaves alone what is its caller's.

Each test runs a program of its own: what a caller holds when it forks is what matters here.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

BACKENDS = ["processes", "spawn"]

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or bool(os.environ.get("ORDMAP_PORTABLE")), reason="of the engine's workers"
)


@pytest.fixture
def run(script):
    """Run a program of a user's; return what it prints."""

    def do(text: str, *arguments: str, timeout: float = 90) -> str:
        done = subprocess.run(
            [sys.executable, "-W", "ignore::DeprecationWarning", script(text), *arguments],
            check=False,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert not done.stderr, done.stderr
        return done.stdout

    return do


#: How a loop is left; ``{backend}`` is filled in.
LOOPS = """
import os, signal, sys, time
from ordmap import ordered_map

def fail(i):
    raise KeyError(i)

def die(i):
    os.kill(os.getpid(), signal.SIGKILL)

def hang(i):
    time.sleep(0 if i < 1 else 60)

def loop(how, backend, item=abs):
    made = {"end": item, "break": hang, "raise": fail, "kill": die}[how]
    items = ordered_map(made, range(6), workers=2, backend=backend)
    try:
        for _ in items:
            if how == "break":
                break
    except Exception as error:
        assert how in ("raise", "kill"), error
    items.close()
"""


# What is the caller's


CALLERS = (
    LOOPS
    + """
import logging, logging.handlers, multiprocessing as mp, tempfile, weakref, atexit
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing.shared_memory import SharedMemory

def slow(i):
    time.sleep(0.02)
    return i

if __name__ == "__main__":
    backend, *ways = sys.argv[1:]
    lines = []
    class Lines(logging.Handler):
        def emit(self, record):
            lines.append(record.getMessage())
    daemon = mp.Process(target=time.sleep, args=(60,), daemon=True)
    other = mp.Process(target=time.sleep, args=(60,))
    daemon.start(); other.start()
    records = mp.Queue()
    listener = logging.handlers.QueueListener(records, Lines())
    listener.start()
    pool = mp.Pool(2)
    manager = mp.Manager()
    shared = manager.dict()
    memory = SharedMemory(create=True, size=100)
    folder = tempfile.TemporaryDirectory()
    file = tempfile.NamedTemporaryFile()
    threads, processes = ThreadPoolExecutor(2), ProcessPoolExecutor(2)
    assert threads.submit(slow, 1).result() == processes.submit(slow, 1).result() == 1
    for how in ways:
        pending = pool.map_async(slow, range(40), chunksize=1)
        futures = [processes.submit(slow, i) for i in range(20)]
        loop(how, backend)
        time.sleep(0.2)
        assert daemon.is_alive() and other.is_alive()
        assert pending.get(60) == list(range(40)) and pool.map(slow, range(4)) == list(range(4))
        assert [future.result(60) for future in futures] == list(range(20)) and processes.submit(slow, 3).result(60) == 3
        assert threads.submit(slow, 3).result(60) == 3
        shared[how] = 1
        assert shared[how] == 1
        SharedMemory(name=memory.name).close()
        assert os.path.isdir(folder.name) and os.path.exists(file.name)
        records.put(logging.makeLogRecord({"msg": how}))
        print("well after", how)
    listener.stop()
    assert lines == ways, lines
    other.kill(); other.join()
    memory.close(); memory.unlink(); folder.cleanup(); file.close()
    pool.terminate(); pool.join(); threads.shutdown(); processes.shutdown(); manager.shutdown()
    daemon.kill(); daemon.join()
"""
)


@pytest.mark.parametrize("backend", BACKENDS)
def test_all_that_is_the_callers_goes_on(run, backend):
    ways = ["end", "break", "raise", "kill"]
    assert run(CALLERS, backend, *ways).splitlines() == [f"well after {how}" for how in ways]


REGISTERED = (
    LOOPS
    + """
import atexit, gc, logging, logging.handlers, multiprocessing.util, threading, weakref

def note(what):
    with open(sys.argv[2], "a") as file:
        file.write(f"{what} {os.getpid()}\\n")

class Thing:
    pass

class Ends:
    def __del__(self):
        note("end of garbage")

if __name__ == "__main__":
    backend, notes, *ways = sys.argv[1:]
    thing = Thing()
    atexit.register(note, "atexit")
    weakref.finalize(thing, note, "finalize")
    multiprocessing.util.Finalize(None, note, ("Finalize",), exitpriority=1)
    threading._register_atexit(note, "threads")
    class Target(logging.Handler):
        def emit(self, record):
            note("log")
        def close(self):
            note("close")
            super().close()
    target = Target()
    handler = logging.handlers.MemoryHandler(100, target=target)
    logging.getLogger("a").addHandler(handler)
    logging.getLogger("a").warning("kept for later")
    gc.collect()
    gc.disable()
    one, other = Ends(), Ends()
    one.other, other.other = other, one
    del one, other
    def item(i):
        global thing
        thing = None
        gc.collect()
    for how in ways:
        loop(how, backend, item)
        with open(notes) as file:
            assert not file.read(), how
    gc.collect()
    print(os.getpid())
"""
)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_the_caller_has_registered_runs_in_the_caller_alone(run, tmp_path, backend):
    notes = tmp_path / "notes"
    notes.touch()
    pid = run(REGISTERED, backend, str(notes), "end", "break", "raise").strip()
    kinds = ["atexit", "finalize", "Finalize", "threads", "log", "close", "end of garbage", "end of garbage"]
    assert sorted(notes.read_text().splitlines()) == sorted(f"{kind} {pid}" for kind in kinds)


# What is the worker's


ENDS = """
import atexit, logging, logging.handlers, multiprocessing as mp, os, sys, threading, time, weakref
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing.util import Finalize
from ordmap import ordered_map

if __name__ == "__main__":
    backend, path, imported = sys.argv[1:]
    records = mp.Queue() if imported == "used" else None

    def note(what):
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, f"{what}\\n".encode())
        os.close(file)

    def fail():
        raise ValueError("of an exit function")

    class Target(logging.Handler):
        def emit(self, record):
            note(record.getMessage())

    class Thing:
        pass

    if imported == "used":  # so that each of these modules knows that it has registered itself
        kept = Thing()
        weakref.finalize(kept, int)
        atexit.register(int)
        ThreadPoolExecutor(1).submit(int).result()
        with ProcessPoolExecutor(1) as pool:
            pool.submit(int).result()

    def late(what):
        time.sleep(0.1)
        note(what)

    def item(i):
        global thing, threads
        sys.excepthook = lambda *_: None
        sys.unraisablehook = lambda *_: None
        thing = Thing()
        weakref.finalize(thing, note, "finalize")
        weakref.finalize(thing, fail)
        atexit.register(note, "atexit")
        atexit.register(fail)
        atexit.register(late, "late atexit")
        Finalize(None, note, ("Finalize",), exitpriority=1)
        threading.Thread(target=late, args=("thread",)).start()
        threads = ThreadPoolExecutor(1)
        for _ in range(3):
            threads.submit(late, "executor")
        mp.Process(target=late, args=("child",)).start() if backend == "processes" else note("child")
        mp.Process(target=time.sleep, args=(100,), daemon=True).start()
        log = logging.getLogger("a")
        log.addHandler(logging.handlers.MemoryHandler(100, target=Target()))
        log.warning("log")
        return i

    assert list(ordered_map(item, range(1), workers=1, backend=backend)) == [0]
    print("over")
"""


@pytest.mark.parametrize("imported", ["used", "fresh"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_what_a_worker_has_registered_runs_at_its_end(run, tmp_path, backend, imported):
    notes = tmp_path / "notes"
    assert run(ENDS, backend, str(notes), imported) == "over\n"
    once = ["finalize", "atexit", "late atexit", "Finalize", "thread", "child", "log"]
    assert sorted(notes.read_text().splitlines()) == sorted([*once, *["executor"] * 3])


QUEUES = """
import multiprocessing as mp, sys, time
from ordmap import Processes, ordered_map

if __name__ == "__main__":
    with_child = sys.argv[1] == "child"
    if with_child:
        child = mp.Process(target=time.sleep, args=(60,))
        child.start()
    queue = mp.Queue()
    def put(i):
        for n in range(1000):
            queue.put((i, n, "x" * 100))
    import threading
    got = []
    def take():
        while len(got) < 4000:
            got.append(queue.get(timeout=20))
    taker = threading.Thread(target=take)
    taker.start()
    options = {"max_items_per_worker": 1} if sys.argv[1] == "recycled" else {}
    with Processes(2, **options) as pool:
        list(ordered_map(put, range(4), backend=pool))
    taker.join()
    if with_child:
        assert child.is_alive()
        child.kill()
        child.join()
    print(len(got))
"""


@pytest.mark.parametrize("how", ["alone", "child", "recycled"])
def test_no_record_in_a_queue_is_lost(run, how):
    assert run(QUEUES, how) == "4000\n"


def test_an_exit_function_has_seconds(run, tmp_path):
    text = """
import atexit, sys, time
from ordmap import ordered_map

def late():
    time.sleep(2)
    print("late", flush=True)

def item(i):
    atexit.register(late)

list(ordered_map(item, range(1), workers=1))
print("over")
"""
    assert run(text) == "late\nover\n"


# Who a worker is


NAMES = """
import logging, os, sys, time
from ordmap import Processes, Spawn, ordered_map
logging.basicConfig(format="%(processName)s", stream=sys.stdout)

if __name__ == "__main__":
    backend, imported, folder = sys.argv[1:]
    if imported == "imported":
        import multiprocessing

    def item(place):
        loop, i = place
        open(os.path.join(folder, f"{loop}-{i}"), "w").close()
        while not os.path.exists(os.path.join(folder, f"{loop}-{1 - i}")):  # the other worker has the other item
            time.sleep(0.01)
        record = logging.getLogger().makeRecord("a", 20, "p", 1, "m", (), None)
        text = logging.Formatter("%(processName)s").format(record)
        if imported == "later":
            import multiprocessing
            assert multiprocessing.current_process().name == text
        return text

    make = {"processes": Processes, "spawn": Spawn}[backend]
    with make(2) as one, make(2) as other:
        first = ordered_map(item, [(1, 0), (1, 1)], backend=one).start()
        print(sorted([*ordered_map(item, [(2, 0), (2, 1)], backend=other), *first]))
    print(sorted(ordered_map(item, [(3, 0), (3, 1)], workers=2, backend=backend)))
"""


@pytest.mark.parametrize("imported", ["imported", "later", "never"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_names_tell_workers_apart(run, tmp_path, backend, imported):
    printed = run(NAMES, backend, imported, str(tmp_path))
    assert printed == "['ordmap-1', 'ordmap-2', 'ordmap-3', 'ordmap-4']\n['ordmap-1', 'ordmap-2']\n"


BESIDE = """
import asyncio, gc, json, multiprocessing as mp, os, resource, signal, sys, tempfile, threading
from ordmap import ordered_map

def describe(_=None):
    me, parent = mp.current_process(), mp.parent_process()
    try:
        loop = repr(asyncio.get_running_loop())
    except RuntimeError:
        loop = "none"
    names = [name for name in dir(resource) if name.startswith("RLIMIT_")]
    try:
        sentinel = me.sentinel
    except ValueError as error:
        sentinel = str(error)
    return {
        "is a process": isinstance(me, mp.process.BaseProcess),
        "pid": me.pid == os.getpid() == me.ident,
        "daemon": me.daemon,
        "alive": me.is_alive(),
        "exitcode": me.exitcode,
        "sentinel": sentinel,
        "depth": len(me._identity),
        "authkey": me.authkey.hex(),
        "parent pid of it": me._parent_pid,
        "parent": (parent.name, parent.pid, parent.is_alive(), parent.join(0), isinstance(parent.sentinel, int)),
        "children": mp.active_children(),
        "next child": mp.Process().name.rsplit(":", 1)[1],
        "start method": mp.get_start_method(allow_none=True),
        "threads": threading.active_count(),
        "main thread": threading.main_thread() is threading.current_thread(),
        "native id": threading.main_thread().native_id == os.getpid(),
        "umask": (os.umask(0o22), os.umask(0o22)),
        "folder": os.getcwd(),
        "nice": os.nice(0),
        "limits": [resource.getrlimit(getattr(resource, name)) for name in names],
        "session": os.getsid(0),
        "stdin": sys.stdin.read(),
        "argv": sys.argv,
        "flags": list(sys.flags),
        "loop": loop,
        "temporary": tempfile.gettempdir(),
        "gc": (gc.isenabled(), gc.get_threshold()),
        "displayhook": repr(sys.displayhook).partition(" at ")[0],
        "excepthook": repr(sys.excepthook).partition(" at ")[0],
        "switch interval": sys.getswitchinterval(),
        "SIGUSR1": repr(signal.getsignal(signal.SIGUSR1)).partition(" at ")[0],
        "SIGPIPE": repr(signal.getsignal(signal.SIGPIPE)),
        "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        "timer": signal.getitimer(signal.ITIMER_REAL),
        "hash": hash("a") if os.environ.get("PYTHONHASHSEED") else None,
    }

def send(pipe):
    pipe.send(describe())

def own(*_):
    pass

if __name__ == "__main__":
    method = {"processes": "fork", "spawn": "spawn"}[sys.argv[1]]
    signal.signal(signal.SIGUSR1, own)
    os.nice(1)
    mp.set_start_method(method)
    ours, theirs = mp.Pipe()
    process = mp.Process(target=send, args=(theirs,))
    process.start()
    expected = ours.recv()
    process.join()
    found = list(ordered_map(describe, range(1), workers=1, backend=sys.argv[1]))[0]
    differences = {key: (expected[key], found[key]) for key in expected if expected[key] != found[key]}
    print(json.dumps(differences, default=repr))
"""


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_worker_is_what_a_child_of_the_standard_library_s_is(run, backend):
    differences = json.loads(run(BESIDE, backend))
    assert "do_nothing" in differences.pop("SIGUSR1")[1]  # which the caller handles: once, and not in each worker
    assert differences == {}


NESTED = """
import asyncio, multiprocessing as mp, os, subprocess, sys
from concurrent.futures import ProcessPoolExecutor
from named import name, put, sleep
from ordmap import ordered_map

def item(i):
    with mp.Pool(1) as pool:
        pooled = pool.map(name, range(1))
    queue = mp.Queue()
    process = mp.Process(target=put, args=(queue,), daemon=True)
    process.start()
    with ProcessPoolExecutor(1) as executor:
        executed = executor.submit(name).result()
    assert asyncio.run(sleep()) == b"1\\n"
    assert subprocess.run(["true"]).returncode == 0
    child = os.fork()
    if not child:
        return None
    assert os.waitpid(child, 0)[1] == 0
    inner = list(ordered_map(name, range(1), workers=1, backend=sys.argv[1]))
    return [name(), *pooled, queue.get(), executed, *inner, process.join()]

def run():
    return list(ordered_map(item, range(1), workers=1, backend=sys.argv[1]))

async def main():
    return run()

if __name__ == "__main__":
    print(run() + asyncio.run(main()))
"""

NAMED = """
import asyncio, multiprocessing, subprocess, sys

def name(i=0):
    return multiprocessing.current_process().name

def put(queue):
    queue.put(name())

async def sleep():
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", "print(1)", stdout=subprocess.PIPE)
    return (await process.communicate())[0]
"""


@pytest.mark.parametrize("backend", BACKENDS)
def test_items_may_have_children_of_all_kinds(run, script, backend):
    script(NAMED, "named.py")
    plainly, in_a_loop = eval(run(NESTED, backend))
    for names in plainly, in_a_loop:
        assert [name.replace("Fork", "").replace("Spawn", "") for name in names[:-1]] == [
            "ordmap-1",
            "PoolWorker-1:1",
            "Process-1:2",
            "Process-1:3",
            "ordmap-1:1",
        ]


EXECUTORS = """
import asyncio
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from ordmap import ordered_map

threads, processes = ThreadPoolExecutor(2), ProcessPoolExecutor(1)

def item(i):
    if i == 2:
        try:
            processes.submit(abs, -1).result()
        except BrokenProcessPool as error:
            return str(error)
    return list(threads.map(abs, [-i, i]))

if __name__ == "__main__":
    assert threads.submit(int).result() == processes.submit(int).result() == 0
    *first, last = ordered_map(item, range(3), workers=2)
    print(first, last)
    assert threads.submit(int).result() == processes.submit(int).result() == 0
"""


def test_items_may_use_the_callers_executor_of_threads_and_are_told_of_that_of_processes(run):
    printed = run(EXECUTORS)
    assert printed.startswith("[[0, 0], [1, 1]] this pool is that of process ")


SERVER = """
import multiprocessing as mp, sys
from ordmap import ordered_map

def item(i):
    process = mp.get_context("forkserver").Process(target=abs, args=(i,))
    process.start()
    process.join()
    return process.exitcode

if __name__ == "__main__":
    item(0)
    print(list(ordered_map(item, range(2), workers=2, backend=sys.argv[1])), item(0))
"""


@pytest.mark.parametrize("backend", BACKENDS)
def test_items_may_use_a_fork_server_where_the_caller_has_one(run, backend):
    assert run(SERVER, backend) == "[0, 0] 0\n"


MANAGER = """
import sys
from ordmap import Processes, Spawn, ordered_map

if __name__ == "__main__":
    with {"processes": Processes, "spawn": Spawn}[sys.argv[1]](2) as pool:
        list(ordered_map(abs, range(4), backend=pool))
        import multiprocessing
        with multiprocessing.Manager() as manager:
            shared = manager.dict()
            list(ordered_map(lambda i: shared.update({i: i}), range(4), backend=pool))
            list(ordered_map(lambda pair: pair[1].update({pair[0]: 0}), [(i, shared) for i in range(4, 8)], backend=pool))
            print(sorted(shared))
"""


@pytest.mark.parametrize("backend", BACKENDS)
def test_items_reach_a_manager_that_is_younger_than_their_workers(run, backend):
    assert run(MANAGER, backend) == "[0, 1, 2, 3, 4, 5, 6, 7]\n"


# What items leave to a helper


LEFT = """
import os, signal, sys, time
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory
import multiprocessing as mp
from ordmap import ordered_map

def mine():
    return sorted(name for name in os.listdir("/dev/shm") if mark in name)

def item(i):
    name = f"{mark}-{how}-{i}"
    if depth == "deep":
        process = mp.get_context("fork").Process(target=leave, args=(name, bool(i) and how == "break"))
        process.start()
        process.join()
    else:
        leave(name)
    if i and how == "break":
        time.sleep(60)
    if i and how == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if i and how == "exit":
        os._exit(1)
    if i and how == "orphan":
        os.kill(int(os.environ["CALLER"]), signal.SIGKILL)
        time.sleep(60)

def leave(name, stay=False):
    memory = SharedMemory(name, create=True, size=100)
    memory.close()
    if stay:
        time.sleep(60)

backend, mark, depth, *ways = sys.argv[1:]
if __name__ == "__main__":
    os.environ["CALLER"] = str(os.getpid())
    for how in ways:
        for _ in ordered_map(item, range(4), workers=2, backend=backend, on_error="skip"):
            if how == "break":
                while not mine():
                    time.sleep(0.01)
                break
        del _
        assert resource_tracker._resource_tracker._fd is None
        print(how, *mine(), flush=True)
"""


@pytest.mark.parametrize("depth", ["flat", "deep"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_shared_memory_that_items_leave_is_removed(script, backend, depth):
    mark = f"ordmap-child-{os.getpid()}-{time.monotonic_ns()}"
    ways = ["end", "break", "crash", "exit", "orphan"]
    command = [sys.executable, script(LEFT), backend, mark, depth, *ways]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert done.stdout.splitlines() == ways[:-1], done.stderr
    assert done.returncode == -signal.SIGKILL
    give_up = time.monotonic() + 20  # for nobody waits for the trackers
    while any(mark in name for name in os.listdir("/dev/shm")):
        assert time.monotonic() < give_up
        time.sleep(0.01)


ATTACHED = """
import os, sys
from multiprocessing.shared_memory import SharedMemory
from ordmap import Processes, Spawn, ordered_map

def item(name):
    memory = SharedMemory(name)
    memory.buf[0] += 1
    first = memory.buf[0]
    memory.close()
    return first

if __name__ == "__main__":
    make = {"processes": Processes, "spawn": Spawn}[sys.argv[1]]
    for when in "after", "before":  # the second time, the caller has a tracker when its workers are started
        if when == "before":
            memory = SharedMemory(create=True, size=100)
        with make(1, max_items_per_worker=2) as pool:
            list(ordered_map(abs, range(1), backend=pool))
            if when == "after":
                memory = SharedMemory(create=True, size=100)
            assert sorted(ordered_map(item, [memory.name] * 5, backend=pool)) == [1, 2, 3, 4, 5]
        again = SharedMemory(memory.name)
        assert again.buf[0] == 5
        again.close()
        memory.close()
        memory.unlink()
        print("there", when)
"""


@pytest.mark.parametrize("backend", BACKENDS)
def test_shared_memory_of_the_callers_stays(run, backend):
    assert run(ATTACHED, backend) == "there after\nthere before\n"


HANDED_OVER = """
import os, sys
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory
from ordmap import ordered_map

def item(i):
    memory = SharedMemory(create=True, size=100)
    memory.buf[0] = i
    memory.close()
    return memory.name

if __name__ == "__main__":
    resource_tracker.ensure_running()
    if sys.argv[2] == "taken":  # as Python takes it from a fork, from 3.14 on
        def forget():
            tracker = resource_tracker._resource_tracker
            os.close(tracker._fd)
            tracker._fd = None
        os.register_at_fork(after_in_child=forget)
    for i, name in enumerate(list(ordered_map(item, range(4), workers=2, backend=sys.argv[1]))):
        memory = SharedMemory(name)
        assert memory.buf[0] == i
        memory.close()
        memory.unlink()
    print("had")
"""


@pytest.mark.parametrize(("backend", "how"), [("processes", "inherited"), ("processes", "taken"), ("spawn", "passed")])
def test_shared_memory_can_be_handed_over_where_the_caller_has_a_tracker(run, backend, how):
    assert run(HANDED_OVER, backend, how) == "had\n"
