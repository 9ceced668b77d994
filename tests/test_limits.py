"""Under limits of the system a loop works all the same, or ends with one clear error; nothing hangs or stays behind.

Each test is a script as a user would write it, without a main guard, run under the very limit. What it prints must be
what plain indexing gives. Where that can't be, the test's name says so, and the script's last word is the error.

The portable path (``ORDMAP_PORTABLE=1``) keeps to that, too.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cloudpickle
import pytest

import ordmap

np = pytest.importorskip("numpy")

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="these limits are Linux's")

BACKENDS = ["serial", "threads", "processes", "spawn", "portable-processes", "portable-spawn"]
POOLS = BACKENDS[1:]
PROCESSES = BACKENDS[2:]

#: Seconds after which a script hangs; reached only by a failing test.
DEADLINE = 60

NOBODY = 65534

DATASET = """
import zlib
import numpy as np

class Items:
    def __init__(self, length, nbytes, each=1):
        self.length, self.nbytes, self.each = length, nbytes, each
    def __len__(self):
        return self.length
    def __getitem__(self, i):
        return i * i if i % self.each else np.arange(i, i + self.nbytes // 8)

class Plain:
    def __len__(self):
        return 96
    def __getitem__(self, i):
        return i * i if i % 4 else i.to_bytes(4) * 150_000

def told(x):
    return x if type(x) is int else f"{memoryview(x).nbytes}:{zlib.crc32(x)}"

mixed = Items(96, 600_000, each=4)  # numbers, and 24 arrays
plain = Plain()  # the same without numpy, whose import takes longer than the start of an interpreter
large = Items(64, 4_000_000)
"""

KEEPING = "print(*map(told, list(ordered_imap(DATASET, WORKERS, backend=BACKEND))))"
TAKING = "print(*map(told, ordered_imap(DATASET, WORKERS, backend=BACKEND)))"


@functools.cache
def answer(dataset):
    """Return what a script prints of a dataset if all is well."""
    names = {}
    exec(DATASET, names)
    items = names[dataset]
    return " ".join(str(names["told"](items[i])) for i in range(len(items))) + "\n"


class User:
    """Who runs scripts. ``before`` are lines for the shell that runs them, ``within`` is what runs the shell."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir(mode=0o755)
        folder.chmod(0o755)

    def runs(self, text, backend, *before, dataset="mixed", workers=2, within=(), **environment):
        script = self.folder / "script.py"
        for name, value in (("DATASET", dataset), ("WORKERS", workers)):
            text = text.replace(name, str(value))
        backend, portable = backend.removeprefix("portable-"), backend.startswith("portable-")
        head = f"{DATASET}\nfrom ordmap import Failure, OrdmapError, ordered_imap\nBACKEND = {backend!r}\n"
        script.write_text(head + text + "\n", encoding="utf-8")
        environment = {"ORDMAP_PORTABLE": str(int(portable)), **environment}
        environment["OPENBLAS_NUM_THREADS"] = "1"  # it reserves memory for each core
        command = [*within, *shell(before), sys.executable, "-W", "error", str(script)]
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
            start_new_session=True,
        )
        try:
            stdout, stderr = process.communicate(timeout=DEADLINE)
            left = until_none(lambda: processes_of(process.pid))
            assert not left, f"left behind: {left}\n{stderr}"
        except subprocess.TimeoutExpired:
            there = list(processes_of(process.pid).values())
            pytest.fail(f"it hangs, with {len(there)} processes such as {there[:2]}, having said:\n{ended(process)}")
        finally:
            ended(process)
        return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


def shell(before):
    return ["sh", "-ec", "\n".join((*before, 'exec "$@"')), "sh"]


def processes_of(session):
    """Return the processes of a session, but for those that have ended."""
    found = {}
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            state, _, _, of = Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[:4]
            if int(of) == session and state != "Z":
                found[int(pid)] = Path("/proc", pid, "cmdline").read_text().replace("\0", " ")[:120]
        except OSError:
            continue
    return found


def until_none(what):
    give_up = time.monotonic() + 5  # some may be ending
    while (there := what()) and time.monotonic() < give_up:
        time.sleep(0.01)
    return there


def ended(process):
    """End all that is left of a script, and return what it said."""
    for pid in processes_of(process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return "" if process.stderr.closed else process.communicate()[1]


@pytest.fixture
def user(tmp_path):
    folder = tmp_path / "folder"
    yield User(folder)
    folder.chmod(0o755)


def works(done, expected=None):
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (answer("mixed") if expected is None else expected)


def says(done, *words):
    """The script has ended with one error, whose text and notes end what it says."""
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    *lines, last = done.stderr.splitlines()
    if last.startswith("ordmap: item "):
        last = f"{lines[-1]} ({last})"
    assert all(re.search(word, last) for word in words), done.stderr
    assert "During handling" not in done.stderr, done.stderr
    assert "Exception ignored" not in done.stderr, done.stderr


def isolated(*before):
    """Return what runs a shell in a mount namespace of its own, where these lines may be run; skip if there is none."""
    within, why = _isolated(before)
    if within is None:
        pytest.skip(f"no mount namespace can be had, or not so: {why}")
    return within


@functools.cache
def _isolated(before):
    why = ""
    for flags in ("-m", "-rm"):  # as root, and as root of a user namespace
        try:
            done = subprocess.run(
                ["unshare", flags, *shell(before), "true"], capture_output=True, text=True, timeout=20, check=False
            )
        except FileNotFoundError:
            return None, "unshare is not installed"
        if done.returncode == 0:
            return ("unshare", flags), ""
        why = done.stderr.strip() or f"exit code {done.returncode}"
    return None, why


# Files


@pytest.mark.parametrize("backend", POOLS)
def test_64_open_files_are_enough_for_2_workers(user, backend):
    works(user.runs(KEEPING, backend, "ulimit -n 64"))


def test_64_open_files_are_enough_for_64_threads(user):
    works(user.runs(KEEPING, "threads", "ulimit -n 64", workers=64))


@pytest.mark.parametrize("backend", POOLS)
def test_thousands_of_open_files_are_not_in_the_way(user, backend):
    """Python's ``select.select`` knows none beyond 1,023, and whatever asked it would fail."""
    works(user.runs("import os\nopened = [os.dup(0) for _ in range(2000)]\n" + KEEPING, backend, "ulimit -n 4096"))


@pytest.mark.parametrize("backend", PROCESSES)
def test_64_open_files_are_too_few_for_64_processes_and_that_is_said(user, backend):
    text = "import time\nItems.__getitem__ = lambda self, i: time.sleep(3)\n" + KEEPING
    done = user.runs(text, backend, "ulimit -n 64", workers=64)
    says(done, "BackendUnavailableError: ", "Too many open files")


# Shared memory


@pytest.mark.parametrize("backend", POOLS)
def test_64_mb_of_shared_memory_are_enough(user, backend):
    before = ("mount -t tmpfs -o size=64M tmpfs /dev/shm",)
    works(user.runs(KEEPING, backend, *before, within=isolated(*before), dataset="large"), answer("large"))


@pytest.mark.parametrize("backend", ["threads", "processes", "spawn"])
def test_no_shared_memory_is_enough(user, backend):
    before = ("mount -t tmpfs -o ro tmpfs /dev/shm",)
    works(user.runs(KEEPING, backend, *before, within=isolated(*before)))


@pytest.mark.parametrize("backend", ["portable-processes", "portable-spawn"])
def test_no_shared_memory_is_too_little_for_the_portable_path_and_that_is_said(user, backend):
    before = ("mount -t tmpfs -o ro tmpfs /dev/shm",)
    says(user.runs(KEEPING, backend, *before, within=isolated(*before)), "BackendUnavailableError: ")


# Memory

#: 717 MB, less than 320 of which are the interpreter's, numpy's and that of threads.
FEW_ADDRESSES = "ulimit -v 700000"


@pytest.mark.parametrize("backend", POOLS)
def test_a_limit_of_addresses_is_kept_to(user, backend):
    works(user.runs(KEEPING, backend, FEW_ADDRESSES, dataset="large"), answer("large"))


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_item_that_is_too_large_for_the_addresses_is_named_and_costs_itself_only(user, backend):
    text = """
class Mixed(Items):
    def __getitem__(self, i):
        return np.zeros(4_000_000_000, "u1") if i == 5 else super().__getitem__(i)

results = list(ordered_imap(Mixed(96, 600_000, each=4), 2, backend=BACKEND, on_error="return"))
failure, results[5] = results[5], 25
assert type(failure) is Failure and failure.index == 5, failure
assert isinstance(failure.error, MemoryError), failure
assert failure.error.__notes__[0].startswith("ordmap: item 5, epoch 0, "), failure.error.__notes__
print(*map(told, results))
"""
    works(user.runs(text, backend, FEW_ADDRESSES))


KEEPS_TOO_MUCH = """
iterator = iter(ordered_imap(Items(180, 4_000_000), 2, backend=BACKEND))
kept, failed = {}, []
for i in range(180):
    try:
        kept[i] = next(iterator)
    except (MemoryError, OSError, OrdmapError) as error:
        assert not isinstance(error, OrdmapError) or "MemoryError" in str(error), error
        assert error.__notes__[0].startswith(f"ordmap: item {i}, epoch 0, "), error.__notes__
        failed.append(i)
        kept.clear()
    else:
        assert len(kept[i]) == 500_000 and kept[i][0] == i and kept[i][-1] == i + 499_999
assert next(iterator, None) is None
print(failed)
"""


@pytest.mark.parametrize("backend", POOLS)
def test_results_that_are_kept_beyond_the_addresses_cost_items_that_are_named_and_the_loop_goes_on(user, backend):
    # By itself malloc may keep what a thread has freed for that thread alone.
    malloc = {"MALLOC_MMAP_THRESHOLD_": "131072"} if backend == "threads" else {}
    done = user.runs(KEEPS_TOO_MUCH, backend, FEW_ADDRESSES, **malloc)
    said = {line for line in done.stderr.splitlines() if line != UNPICKLER_SAYS}
    assert (done.returncode, said) == (0, set())
    assert 1 <= len(json.loads(done.stdout)) < 90


#: Written by Python itself where it unpickles a bytearray's buffer, and there is no memory for a copy.
UNPICKLER_SAYS = "SystemError: deallocated bytearray object has exported buffers"


@pytest.mark.parametrize("backend", PROCESSES)
def test_a_program_that_keeps_results_beyond_the_addresses_ends_with_an_error_that_names_the_item(user, backend):
    text = "list(ordered_imap(Items(180, 4_000_000), 2, backend=BACKEND))"
    done = user.runs(text, backend, FEW_ADDRESSES)
    says(done, r"^(OSError|MemoryError|ordmap\.errors\.RemoteError): .*[mM]emory", r"\(ordmap: item \d+, epoch 0, ")


def groups_of_memory():
    """Yield the control groups that limit this process's memory, from its own up, and the name of the limit's file."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, limit = Path("/sys/fs/cgroup"), "memory.max"
        elif "memory" in controllers.split(","):
            root, limit = Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"
        else:
            continue
        own = root / path.strip("/")
        yield from ((folder, limit) for folder in (own, *own.parents) if folder.is_relative_to(root))


def made_group():
    """Return a new control group that may have 300 MB of memory, or why there is none."""
    why = "the system has none"
    for parent, limit in groups_of_memory():
        made = parent / f"ordmap-test-{os.getpid()}"
        try:
            made.mkdir()
            if (made / "memory.swap.max").exists():
                (made / "memory.swap.max").write_text("0")
            with open(made / limit, "r+") as file:  # which is there if the group may limit memory
                file.write("300M")
            subprocess.run([*shell(entering(made)), "true"], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            why = f"none can be made in {parent}: {error}"
            if made.exists():
                made.rmdir()
        else:
            return made
    return why


@pytest.fixture
def group():
    """Make a control group that may have 300 MB of memory; skip where none can be made."""
    made = made_group()
    if isinstance(made, str):
        pytest.skip(f"no control group: {made}")
    yield made
    give_up = time.monotonic() + 10
    while True:  # what has ended may not have left yet
        try:
            made.rmdir()
            break
        except OSError:
            assert time.monotonic() < give_up, "the group can't be removed"
            time.sleep(0.01)


def entering(group):
    return (f"echo $$ > {shlex.quote(str(group / 'cgroup.procs'))}",)


def test_the_memory_that_can_still_be_had_is_the_group_s(user, group):
    done = user.runs("from ordmap.resources import free_memory\nprint(free_memory())", "serial", *entering(group))
    assert 150_000_000 < int(done.stdout) < 300 << 20


@pytest.mark.parametrize("backend", POOLS)
def test_a_limit_of_memory_is_kept_to(user, group, backend):
    works(user.runs(TAKING, backend, *entering(group), dataset="large"), answer("large"))


ASKS_FOR_TOO_MUCH = """
class Mixed(Items):
    def __getitem__(self, i):
        return np.ones(1_000_000_000, "u1")[:10].sum() if i == 5 else super().__getitem__(i)

"""


@pytest.mark.parametrize("backend", ["processes", "spawn"])
def test_the_kernel_kills_a_worker_whose_item_asks_for_too_much_and_the_item_is_named(user, group, backend):
    text = f"""{ASKS_FOR_TOO_MUCH}
results = list(ordered_imap(Mixed(96, 600_000, each=4), 2, backend=BACKEND, on_error="return"))
failure, results[5] = results[5], 25
assert type(failure) is Failure and failure.index == 5, failure
assert type(failure.error).__name__ == "WorkerDiedError" and failure.error.signal == "SIGKILL", failure
print(*map(told, results))
"""
    works(user.runs(text, backend, *entering(group)))


@pytest.mark.parametrize("backend", ["portable-processes", "portable-spawn"])
def test_the_kernel_kills_a_worker_and_with_it_the_portable_path_which_says_so(user, group, backend):
    text = f"{ASKS_FOR_TOO_MUCH}\nlist(ordered_imap(Mixed(96, 600_000, each=4), 2, backend=BACKEND))"
    says(user.runs(text, backend, *entering(group)), "WorkerDiedError: ")


# Cores

FEW_CORES = "import os\nos.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:{}])\n"


@pytest.mark.parametrize(("backend", "workers"), [*((name, 4) for name in POOLS), ("processes", None)])
def test_1_core_is_enough(user, backend, workers):
    works(user.runs(FEW_CORES.format(1) + KEEPING, backend, workers=workers))


FILTERED = """
import ctypes, struct
# It looks at the number of each system call: 144 kills.
code = b"".join(struct.pack("HBBI", *line) for line in
                [(0x20, 0, 0, 0), (0x15, 0, 1, 144), (0x06, 0, 0, 0x80000000), (0x06, 0, 0, 0x7FFF0000)])
lines = ctypes.create_string_buffer(code)
program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", 4, ctypes.addressof(lines)))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, program, 0, 0) == 0
from ordmap import ordered_map
print(list(ordered_map(abs, range(5000), workers=2)) == list(range(5000)))
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the number is that of sched_setscheduler there")
def test_a_filter_that_kills_who_asks_to_be_scheduled_otherwise_kills_no_worker():
    done = subprocess.run(
        [sys.executable, "-c", FILTERED], capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    assert (done.stdout, done.stderr) == ("True\n", "")


@pytest.mark.parametrize("backend", POOLS)
def test_2_cores_are_enough_for_many_workers(user, backend):
    dataset, workers = ("plain", 24) if backend.endswith("spawn") else ("mixed", 64)  # an interpreter takes longer
    done = user.runs(FEW_CORES.format(2) + KEEPING, backend, dataset=dataset, workers=workers)
    works(done, answer(dataset))


# Rights


def as_nobody(folder):
    """Return lines by which a shell gives up what root may do, and what has to run it; as another user: nothing.

    What Python needs, and the folder, may lie where only root may go: there, they are mounted anew for all to see.
    """
    if os.getuid():
        return (), ()
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv is not installed")
    modules = (ordmap, np, cloudpickle)
    needed = {*(sys.base_prefix, sys.prefix, folder), *(Path(module.__file__).parents[1] for module in modules)}
    needed |= {os.path.realpath(path) for path in needed}
    hidden = {path: top for path in sorted(map(Path, needed)) if (top := closed_above(path)) is not None}
    lines = []
    if hidden:
        lines += ["umask 022", "mount -t tmpfs tmpfs /mnt"]
    for n, path in enumerate(hidden):
        lines += [f"mkdir /mnt/{n}", f"mount --rbind {shlex.quote(str(path))} /mnt/{n}"]
    for top in sorted(set(hidden.values())):
        lines.append(f"mount -t tmpfs -o mode=755 tmpfs {shlex.quote(str(top))}")
    for n, path in enumerate(hidden):
        lines += [f"mkdir -p {shlex.quote(str(path))}", f"mount --rbind /mnt/{n} {shlex.quote(str(path))}"]
    lines.append(f'set -- setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups "$@"')
    return tuple(lines), isolated(*lines) if hidden else ()


def closed_above(path):
    """Return the topmost folder on the way to a path which only its owner may enter; ``None``: there is none."""
    return next((one for one in reversed(path.parents) if not one.stat().st_mode & 0o001), None)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_unprivileged_user_is_welcome(user, backend):
    before, within = as_nobody(user.folder)
    text = "import os\nassert os.getuid() != 0 and os.geteuid() != 0\n" + KEEPING
    works(user.runs(text, backend, *before, within=within))


@pytest.mark.parametrize("backend", POOLS)
def test_a_working_directory_may_be_read_only(user, backend):
    before, within = as_nobody(user.folder)
    text = f"""
import os
assert os.getcwd() == {str(user.folder)!r}
try:
    open("file", "w")
except PermissionError:
    {KEEPING}
"""
    folder = shlex.quote(str(user.folder))
    works(user.runs(text, backend, *before, f"chmod 555 {folder}", f"cd {folder}", within=within))


@pytest.mark.parametrize("backend", POOLS)
def test_no_temporary_folder_is_needed(user, backend):
    before = ["cd /proc", "unset TEMP TMP"]
    for folder in ("/tmp", "/var/tmp", "/usr/tmp"):
        if os.path.isdir(folder):
            before += [f"mount --rbind {folder} {folder}", f"mount -o remount,bind,ro {folder}"]
    text = f"""
{KEEPING}
import tempfile
try:
    print("temporary folder:", tempfile.gettempdir())
except FileNotFoundError:
    print("no temporary folder")
"""
    done = user.runs(text, backend, *before, within=isolated(*before), TMPDIR="/nonexistent")
    works(done, answer("mixed") + "no temporary folder\n")
