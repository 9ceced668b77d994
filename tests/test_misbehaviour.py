"""Items that misbehave, each in its own way: that costs the item at most, and nothing is left behind."""

from __future__ import annotations

import contextlib
import copyreg
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
import types
from collections import Counter
from pathlib import Path

import psutil
import pytest

from ordmap import OrdmapError, Processes, RemoteError, Spawn, Threads, WorkerDiedError, ordered_map
from ordmap.backends import portable
from ordmap.engine import available
from ordmap.testing import wait_until
from test_scripts import finished, making

pytestmark = pytest.mark.skipif(not available(), reason="these are the ways of Linux")

ENGINES = {"processes": Processes, "spawn": Spawn}
WORKERS = {**ENGINES, "portable": portable.Processes}

engines = pytest.mark.parametrize("make", ENGINES.values(), ids=ENGINES)
processes = pytest.mark.parametrize("make", WORKERS.values(), ids=WORKERS)
everywhere = pytest.mark.parametrize("make", [*WORKERS.values(), Threads], ids=[*WORKERS, "threads"])

#: The same for scripts.
in_processes = pytest.mark.parametrize("backend", WORKERS)


class RudeError(BaseException):
    """What ``except Exception`` misses."""


class DemandingError(Exception):
    """Its constructor wants other arguments than it passes on: the kind that hangs ``multiprocessing.Pool``."""

    def __init__(self, code, *, detail):
        super().__init__(f"{detail} {code}")


class RudeAndDemandingError(BaseException):
    def __init__(self, code, *, detail):
        super().__init__(f"{detail} {code}")


class UnspeakableError(Exception):
    def __str__(self):
        raise RudeError("no text")


def gathered(iterator):
    """Return every outcome in its place, also what ``except Exception`` misses."""
    found = []
    while True:
        try:
            found.append(next(iterator))
        except StopIteration:
            return found
        except (Exception, RudeError, RudeAndDemandingError, GeneratorExit, SystemExit) as error:
            found.append(error)


def all_but(item, found, expected):
    """Check that an item has failed, that its error names it, and that all others are unharmed. Return the error."""
    found, expected = list(found), list(expected)
    error = found.pop(item)
    del expected[item]
    assert found == expected
    assert isinstance(error, BaseException)
    if isinstance(error, OrdmapError):
        assert error.index == item
    else:
        assert f"ordmap: item {item}, epoch 0" in "".join(error.__notes__)
    return error


def said(error):
    """Return the name and the text of what an item raised, be it as itself or not."""
    if isinstance(error, RemoteError):
        return error.type_name.rpartition(".")[2], error.remote_message
    return type(error).__name__, str(error)


def is_alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


# What items raise


def fail(error):
    raise error


def recurse():
    recurse()


#: What an item does, and what its error says.
RAISING = {
    "sys.exit(3)": (lambda: sys.exit(3), ("SystemExit", "3")),
    "KeyboardInterrupt": (lambda: fail(KeyboardInterrupt("pressed")), ("KeyboardInterrupt", "pressed")),
    "GeneratorExit": (lambda: fail(GeneratorExit("over")), ("GeneratorExit", "over")),
    "StopIteration": (lambda: next(iter(())), ("StopIteration", "")),
    "a BaseException": (lambda: fail(RudeError("rude")), ("RudeError", "rude")),
    "a constructor that demands": (lambda: fail(DemandingError(7, detail="code")), ("DemandingError", "code 7")),
    "a BaseException that demands": (
        lambda: fail(RudeAndDemandingError(7, detail="code")),
        ("RudeAndDemandingError", "code 7"),
    ),
    "a recursion": (recurse, ("RecursionError", "maximum recursion depth exceeded")),
}

#: Those that would end the caller's loop, or the program.
ENDING = {"sys.exit(3)", "KeyboardInterrupt", "GeneratorExit", "StopIteration"}


@everywhere
@pytest.mark.parametrize("how", RAISING)
def test_whatever_an_item_raises_costs_that_item_alone(make, how):
    act, expected = RAISING[how]

    def work(index):
        return act() if index == 3 else index

    error = all_but(3, gathered(ordered_map(work, range(12), backend=make(2), chunksize=5)), range(12))
    assert said(error) == expected
    assert isinstance(error, RemoteError) == (how in ENDING)


@pytest.fixture
def tracebacks_travel():
    before = dict(copyreg.dispatch_table)
    pytest.importorskip("tblib.pickling_support").install(RecursionError)
    yield
    copyreg.dispatch_table.clear()
    copyreg.dispatch_table.update(before)


@everywhere
def test_a_deep_recursion_is_raised_where_dask_has_exceptions_bring_their_tracebacks(make, tracebacks_travel):
    def work(index):
        return recurse() if index == 3 else index

    assert type(all_but(3, gathered(ordered_map(work, range(6), backend=make(2))), range(6))) is RecursionError


@everywhere
def test_every_item_may_raise(make):
    acts = [act for act, _ in RAISING.values()]

    def work(index):
        return acts[index % len(acts)]()

    found = gathered(ordered_map(work, range(3 * len(acts)), backend=make(2)))
    assert [said(error) for error in found] == [text for _, text in RAISING.values()] * 3


@everywhere
def test_an_exception_whose_text_can_not_be_had_costs_its_item_alone(make):
    def work(index):
        return fail(UnspeakableError(index)) if index == 3 else index

    error = all_but(3, gathered(ordered_map(work, range(8), backend=make(2))), range(8))
    assert type(error) is UnspeakableError


@engines
def test_a_recursion_that_takes_the_whole_stack_costs_its_item_alone(make):
    def work(index):
        if index != 3:
            return index
        sys.setrecursionlimit(10**9)
        deep = []
        for _ in range(10**6):
            deep = [deep]
        return len(repr(deep))

    error = all_but(3, gathered(ordered_map(work, range(8), backend=make(2))), range(8))
    assert isinstance(error, WorkerDiedError | RecursionError)  # newer versions of Python look at the stack themselves


# What can't be sent, or not be opened


def refuse(kind, _):
    raise kind("not here")


class Refusing:
    """What raises when it is unpickled."""

    def __init__(self, kind, size):
        self.kind = kind
        self.size = size

    def __reduce__(self):
        return refuse, (self.kind, bytes(self.size))


class RefusingError(Exception):
    """An exception that raises when it is pickled, or when it is unpickled."""

    def __init__(self, kind, when):
        super().__init__("refusing")
        self.kind = kind
        self.when = when

    def __reduce__(self):
        if self.when == "pickled":
            raise self.kind("not there")
        return refuse, (self.kind, b"")


class Unsendable:
    """What raises when it is pickled."""

    def __init__(self, kind):
        self.kind = kind

    def __reduce__(self):
        raise self.kind("not there")


class Interrupting:
    """What presses Ctrl-C when it is unpickled."""

    def __reduce__(self):
        return signal.raise_signal, (int(signal.SIGINT),)


kinds = pytest.mark.parametrize("kind", [ValueError, SystemExit, RudeError])


@processes
@kinds
@pytest.mark.parametrize(("size", "chunksize"), [(1, 1), (100_000, 4)])
def test_a_result_whose_unpickling_raises_costs_its_own_item(make, kind, size, chunksize):
    def work(index):
        return Refusing(kind, size) if index == 3 else index

    error = all_but(3, gathered(ordered_map(work, range(12), backend=make(2), chunksize=chunksize)), range(12))
    assert said(error) == (kind.__name__, "not here")


@processes
@kinds
def test_a_result_whose_pickling_raises_costs_its_own_item(make, kind):
    def work(index):
        return Unsendable(kind) if index == 3 else index

    error = all_but(3, gathered(ordered_map(work, range(12), backend=make(2))), range(12))
    assert said(error) == (kind.__name__, "not there")


@processes
@kinds
@pytest.mark.parametrize("when", ["pickled", "unpickled"])
def test_an_exception_that_raises_when_it_is_sent_costs_its_own_item(make, kind, when):
    def work(index):
        return fail(RefusingError(kind, when)) if index == 3 else index

    all_but(3, gathered(ordered_map(work, range(12), backend=make(2))), range(12))


@processes
def test_ctrl_c_while_a_result_is_unpickled_is_one_keyboard_interrupt(make):
    def work(index):
        return Interrupting() if index == 3 else index

    iterator = ordered_map(work, range(100), backend=make(2), chunksize=1)
    assert [next(iterator) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(KeyboardInterrupt):
        next(iterator)
    assert list(iterator) == []


@processes
def test_a_result_of_a_class_that_the_caller_lacks_costs_its_own_item(make):
    def work(index):
        if index != 3:
            return index
        module = sys.modules["only_in_the_worker"] = types.ModuleType("only_in_the_worker")
        exec("class Thing: pass", vars(module))
        return module.Thing()

    error = all_but(3, gathered(ordered_map(work, range(8), backend=make(2))), range(8))
    assert said(error) == ("ModuleNotFoundError", "No module named 'only_in_the_worker'")


@processes
def test_a_result_too_deep_to_be_pickled_costs_its_own_item(make):
    def work(index):
        if index != 3:
            return index
        deep = []
        for _ in range(100_000):
            deep = [deep]
        return deep

    error = all_but(3, gathered(ordered_map(work, range(8), backend=make(2))), range(8))
    assert isinstance(error, RemoteError)


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_result_of_3_gb_among_small_ones():
    if psutil.virtual_memory().available < 10 << 30:
        pytest.skip("a result of 3 GB needs 10 GB: the worker's own, the block, and the caller's")
    size = 3 << 30

    def work(index):
        if index != 2:
            return bytes([index])
        content = bytearray(size)
        content[0], content[-1] = 7, 9
        return bytes(content)

    results = ordered_map(work, range(8), backend=Processes(2), prefetch=4)
    found = [(len(result), result[0], result[-1]) for result in results]
    assert found == [(1, n, n) if n != 2 else (size, 7, 9) for n in range(8)]


# What items print, and where to


#: Before, threads that print at the same time lose text in the buffer of the stream that they share, in any pool of
#: threads (gh-119506 of CPython's). What is written at once doesn't pass through that.
SAFE_FOR_THREADS = "if sys.version_info < (3, 12, 4): sys.stdout.reconfigure(write_through=True)"


@pytest.mark.parametrize("backend", [*WORKERS, "threads", "serial"])
def test_megabytes_that_items_print_arrive_whole(script, backend):
    path = script(
        f"""
import sys
from ordmap import ordered_map
{making(backend)}
{SAFE_FOR_THREADS if backend == "threads" else ""}

def work(n):
    if n < 4:
        for line in range(20_000):
            sys.stdout.write(f"item {{n}} line {{line}} {{'.' * 40}}\\n")
    else:
        print("ABCDEFGH"[n] * 3_000_000)
    return n

assert list(ordered_map(work, range(8), backend=backend)) == list(range(8))
"""
    )
    code, stdout, stderr = finished(path)
    assert (code, stderr) == (0, "")
    lines = [f"item {n} line {line} {'.' * 40}\n" for n in range(4) for line in range(20_000)]
    expected = Counter("".join(lines)) + Counter({letter: 3_000_000 for letter in "EFGH"})
    assert Counter(stdout) == expected + Counter("\n\n\n\n")
    assert Counter(re.findall(r"item \d+ line \d+ \.{40}\n", stdout)) == Counter(lines)


@in_processes
def test_what_items_print_without_ending_the_line_is_printed_at_the_end(script, backend):
    path = script(
        f"""
from ordmap import ordered_map
{making(backend)}

def work(n):
    print("-", end="")
    return n

for _ in range(10):
    assert list(ordered_map(work, range(8), backend=backend)) == list(range(8))
"""
    )
    assert finished(path) == (0, "-" * 80, "")


CLOSING = ["sys.stdout.close()", "sys.stdout = None", "os.close(1)", "os.closerange(0, 3)"]


@in_processes
@pytest.mark.parametrize("close", CLOSING)
def test_an_item_that_closes_stdout_harms_nobody(script, backend, close):
    path = script(
        f"""
import os, sys
from ordmap import ordered_map
{making(backend)}

def work(n):
    if n == 2:
        {close}
    return bytes([n]) * 100_000

print(list(ordered_map(work, range(12), backend=backend, chunksize=1)) == [bytes([n]) * 100_000 for n in range(12)])
"""
    )
    assert finished(path) == (0, "True\n", "")


@in_processes
@pytest.mark.parametrize("close", CLOSING)
def test_what_is_printed_after_stdout_was_closed_goes_into_no_result(script, tmp_path, backend, close):
    """What a worker opens later, such as the memory of a result, gets the number that an item has closed."""
    path = script(
        f"""
import os, sys, time
from pathlib import Path
from ordmap import ordered_map
{making(backend, workers=1)}

def result(n):
    return bytes([n]) * (100_000 + 10_000 * n)

def work(n):
    if n == 2:
        {close}
    elif n in (3, 5, 7):
        print("noise" * 1_000)
    elif n == 11:
        Path(sys.argv[1]).touch()
    return result(n)

results = ordered_map(work, range(12), backend=backend, prefetch=12, chunksize=1).start()
while not Path(sys.argv[1]).exists():
    time.sleep(0.01)  # so that all of them lie there when they are looked at
for n in range(12):
    try:
        found = next(results)
    except (OSError, ValueError) as error:
        assert n in (3, 5, 7) and f"ordmap: item {{n}}, " in error.__notes__[0], (n, error)
    else:
        assert found == result(n), (n, len(found), found[:10])
print("end")
"""
    )
    assert finished(path, tmp_path / "computed") == (0, "end\n", "")


@pytest.mark.parametrize("closed", ["0", "1", "2", "02", "12", "012"])
@pytest.mark.parametrize("backend", ENGINES)
def test_a_program_may_have_closed_its_standard_streams(script, tmp_path, backend, closed):
    """As a daemon does. What is opened next gets their numbers, and what is printed would be written there."""
    path = script(
        f"""
import os, sys
from pathlib import Path
for file in {closed!r}:
    os.close(int(file))
from ordmap import ordered_map
{making(backend)}

def work(n):
    try:
        print("noise", flush=True)
    except OSError:
        pass
    return bytes([n]) * (50_000 * n)

assert list(ordered_map(work, range(6), backend=backend)) == [bytes([n]) * (50_000 * n) for n in range(6)]
Path(sys.argv[1]).touch()
os._exit(0)  # Python itself may say that it can't flush
"""
    )
    assert finished(path, tmp_path / "done")[0] == 0
    assert (tmp_path / "done").exists()


# breakpoint()

BREAKPOINT = """
from ordmap import ordered_map
{making}

def work(n):
    if n == 3:
        breakpoint()
    return n

results = ordered_map(work, range(6), backend=backend)
found = []
for n in range(6):
    try:
        found.append(next(results))
    except RuntimeError as error:
        assert f"ordmap: item {{n}}, " in error.__notes__[0]
        found.append(str(error))
print(found)
"""


@in_processes
def test_a_breakpoint_in_a_worker_says_what_to_write_instead(script, backend):
    code, stdout, stderr = finished(script(BREAKPOINT.format(making=making(backend))))
    assert (code, stderr) == (0, "")
    message = "breakpoint() can't reach the terminal from a worker process: use backend='serial'"
    assert stdout == f"{[0, 1, 2, message, 4, 5]}\n"


@in_processes
def test_a_breakpoint_that_is_switched_off_does_nothing_in_a_worker(script, backend):
    path = script(BREAKPOINT.format(making=making(backend)))
    assert finished(path, env={**os.environ, "PYTHONBREAKPOINT": "0"}) == (0, "[0, 1, 2, 3, 4, 5]\n", "")


@pytest.mark.parametrize("backend", ["serial", "threads"])
def test_a_breakpoint_works_where_there_are_no_worker_processes(script, backend):
    path = script(BREAKPOINT.format(making=making(backend)))
    code, stdout, stderr = finished(path, typed="up\ndown\nprint('n is', n)\ncontinue\n")
    assert (code, stderr) == (0, "")
    assert "(Pdb) n is 3\n" in stdout
    assert stdout.endswith("[0, 1, 2, 3, 4, 5]\n")


# What items do to their process, and what they launch


@everywhere
def test_items_that_change_the_working_directory(make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def work(index):
        folder = tmp_path / str(index)
        folder.mkdir()
        os.chdir(folder)
        if index % 3 == 0:
            folder.rmdir()  # so that the worker is in a folder which is no more
        return index

    assert list(ordered_map(work, range(20), backend=make(2))) == list(range(20))
    if make is not Threads:  # which have one directory with the caller
        assert Path.cwd() == tmp_path


@engines
def test_a_worker_in_place_of_one_that_changed_its_directory_begins_in_the_caller_s(make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def work(index):
        if index == 0:
            os.chdir("/")
        elif index == 1:
            os._exit(3)
        return os.getcwd()

    found = gathered(ordered_map(work, range(3), backend=make(1), chunksize=1))
    assert isinstance(found[1], WorkerDiedError)
    assert (found[0], found[2]) == ("/", str(tmp_path))


@pytest.mark.parametrize("backend", [*WORKERS, "threads"])
@pytest.mark.parametrize(
    "fate", ["os._exit(0)", "os.kill(os.getpid(), 9)", "pass", "raise ZeroDivisionError", "sys.exit(1)"]
)
def test_a_child_that_an_item_forks_is_none_of_the_run_s(script, backend, fate):
    path = script(
        f"""
import os, sys
from ordmap import ordered_map
{making(backend)}

def work(n):
    if n % 4 == 1 and os.fork() == 0:
        {fate}
    return n, str(n) * 20_000

for _ in range(3):
    results = list(ordered_map(work, range(40), backend=backend))
    assert results == [(n, str(n) * 20_000) for n in range(40)]
"""
    )
    # Python 3.12 and later warn of the item's own fork, beside threads.
    code, stdout, stderr = finished(path, env={**os.environ, "PYTHONWARNINGS": "ignore"})
    assert (code, stdout) == (0, "")
    assert "ZeroDivisionError" in stderr if "Zero" in fate else stderr == ""


@everywhere
def test_a_child_that_an_item_forks_ends_as_a_program_does(make):
    ends = [
        lambda: 0,
        lambda: sys.exit(3),
        lambda: sys.exit(),
        lambda: sys.exit("a message"),
        lambda: fail(RudeError()),
    ]

    def work(index):
        child = os.fork()
        if child == 0:
            sys.excepthook = lambda *_: None
            return ends[index]()
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    assert list(ordered_map(work, range(len(ends)), backend=make(2))) == [0, 3, 0, 1, 1]


@in_processes
@pytest.mark.parametrize("daemon", [True, False], ids=["daemons", "not daemons"])
def test_threads_that_items_start_do_not_hold_up_the_end(script, backend, daemon):
    path = script(
        f"""
import threading, time
import psutil
from ordmap import ordered_map
{making(backend)}

def work(n):
    threading.Thread(target=time.sleep, args=(600,), daemon={daemon}).start()
    return n

print(list(ordered_map(work, range(12), backend=backend)), psutil.Process().children())
"""
    )
    assert finished(path) == (0, f"{list(range(12))} []\n", "")


@everywhere
def test_items_may_run_programs(make):
    def work(index):
        return int(subprocess.run(["cat"], input=str(index), capture_output=True, text=True, check=True).stdout)

    assert list(ordered_map(work, range(12), backend=make(2))) == list(range(12))


def launch_program():
    return subprocess.Popen(["sleep", "600"]).pid


def launch_in_background():
    return int(subprocess.check_output("nohup sleep 600 > /dev/null 2>&1 & echo $!", shell=True))


def launch_process():
    process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,), daemon=True)
    process.start()
    return process.pid


def fork_child():
    child = os.fork()
    if not child:
        time.sleep(600)
        os._exit(0)
    return child


def fork_daemon(*, leaves):
    """Fork twice, as a daemon does; with ``leaves``, it also has a session of its own."""
    told, tell = os.pipe()
    child = os.fork()
    if not child:
        if leaves:
            os.setsid()
        if os.fork() == 0:
            os.write(tell, str(os.getpid()).encode())
            time.sleep(600)
        os._exit(0)
    os.waitpid(child, 0)
    pid = int(os.read(told, 20))
    os.close(told)
    os.close(tell)
    return pid


LAUNCHING = {
    "a program": launch_program,
    "a program in the background": launch_in_background,
    "a process of multiprocessing": launch_process,
    "a child": fork_child,
    "a child's child": lambda: fork_daemon(leaves=False),
}


@contextlib.contextmanager
def killed_at_last():
    """Give a list of processes that end here at the latest."""
    pids = []
    try:
        yield pids
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@engines
@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
@pytest.mark.parametrize("how", LAUNCHING)
def test_what_an_item_launched_and_left_ends_with_its_worker(make, how):
    launch = LAUNCHING[how]

    def work(index):
        return index, launch()

    with killed_at_last() as launched:
        with make(2) as pool:
            for index, (found, pid) in enumerate(ordered_map(work, range(6), backend=pool)):
                launched.append(pid)
                assert found == index
            assert all(map(is_alive, launched))  # the next items may want it
        wait_until(lambda: not any(map(is_alive, launched)), "what the items launched has ended")


@processes
def test_a_daemon_that_an_item_makes_with_a_session_of_its_own_holds_nobody_up(make):
    def work(index):
        return index, fork_daemon(leaves=True) if index == 3 else 0

    with killed_at_last() as launched:
        for index, (found, pid) in enumerate(ordered_map(work, range(12), backend=make(2))):
            launched += [pid] if pid else []
            assert found == index
        assert len(launched) == 1
        assert is_alive(launched[0])  # it has left its worker for good, and has all that was open there
