"""How worker processes are started, where the program has said so to multiprocessing, or something can't be forked."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ordmap.engine import available

HEAD = """
import multiprocessing, os, pathlib, sys, threading, types, warnings
from ordmap import BackendUnavailableError, Processes, Spawn, ordered_imap, ordered_map

VALUE = "as imported"

def work(i):
    return VALUE, pathlib.Path("/proc/self/cmdline").read_text() == COMMAND

class Locked:
    def __init__(self):
        self.lock = threading.Lock()
    def __len__(self):
        return 3
    def __getitem__(self, i):
        return i, os.getppid() == CALLER

CALLER, COMMAND = os.getpid(), pathlib.Path("/proc/self/cmdline").read_text()
"""


def run(script, text, *flags):
    done = subprocess.run(
        [sys.executable, *flags, str(script(HEAD + text))], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "well\n", done.stderr
    return done.stderr


#: Ways in which a program says it, and whether workers are then forked.
SAID = {
    "multiprocessing.set_start_method('spawn')": False,
    "multiprocessing.set_start_method('forkserver')": sys.version_info >= (3, 14),
    "multiprocessing.set_start_method('fork'); multiprocessing.set_start_method('spawn', force=True)": False,
    "multiprocessing.set_start_method('fork')": True,
    "multiprocessing.set_start_method('spawn'); multiprocessing.set_start_method(None, force=True)": True,
    "multiprocessing.get_context('spawn').Queue().close()": True,
    "multiprocessing.Queue().close()": True,
    "import concurrent.futures; concurrent.futures.ProcessPoolExecutor(1).shutdown()": True,
    "pass": True,
}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux forks")
@pytest.mark.parametrize("said", SAID)
def test_the_program_s_own_start_method_is_honoured(script, said):
    stderr = run(
        script,
        f"""
{said}
assert list(ordered_map(work, range(4), workers=2)) == [(VALUE, {SAID[said]})] * 4
with Processes(2) as pool:
    for _ in range(2):
        assert list(ordered_map(work, range(4), backend=pool)) == [(VALUE, {SAID[said]})] * 4
print("well")
""",
        "-W",
        "error",
    )
    assert stderr == ""


@pytest.mark.skipif(not available(), reason="the engine is for Linux")
@pytest.mark.parametrize("pool", ["'processes'", "Processes(2)", "Processes(2, static_dataset=True)"])
def test_what_can_t_be_pickled_is_refused_then_with_what_to_do(script, pool):
    stderr = run(
        script,
        f"""
multiprocessing.set_start_method("spawn")
for _ in range(2):
    try:
        list(ordered_imap(Locked(), backend={pool}))
    except BackendUnavailableError as error:
        said = str(error)
assert "the Locked can't be pickled" in said and "cannot pickle '_thread.lock' object" in said, said
for cure in "initializer=", "backend='threads'", "ask for 'fork'":
    assert cure in said, said
assert "backend='processes'" not in said
multiprocessing.set_start_method("fork", force=True)
assert list(ordered_imap(Locked(), 2)) == [(0, True), (1, True), (2, True)]
print("well")
""",
    )
    assert stderr == ""


@pytest.mark.skipif(not available(), reason="the engine is for Linux")
def test_a_warm_pool_goes_on_and_refuses_what_only_a_fork_could_have(script):
    run(
        script,
        """
with Processes(1) as pool:
    assert list(ordered_map(work, range(2), backend=pool)) == [(VALUE, True)] * 2
    multiprocessing.set_start_method("spawn", force=True)
    assert list(ordered_map(work, range(2), backend=pool)) == [(VALUE, True)] * 2
    try:
        list(ordered_imap(Locked(), backend=pool))
    except BackendUnavailableError as error:
        assert "set_start_method" in str(error)
        print("well")
""",
    )


@pytest.mark.skipif(not available(), reason="the engine is for Linux")
@pytest.mark.parametrize("module", ["jax", "tensorflow"])
@pytest.mark.parametrize("pool", ["Processes(2)", "Processes(2, initializer=threading.Lock().acquire)"])
def test_what_can_t_be_pickled_is_forked_where_a_fork_may_not_go_well(script, module, pool):
    stderr = run(
        script,
        f"""
sys.modules[{module!r}] = types.ModuleType({module!r})
with {pool} as pool:
    for _ in range(2):
        assert list(ordered_imap(Locked(), backend=pool)) == [(0, True), (1, True), (2, True)]
    assert list(ordered_map(abs, [-1], backend=pool)) == [1]
print("well")
""",
    )
    assert stderr.count("RuntimeWarning") == 1 and f"{module} is in use and does not survive a fork" in stderr
    assert "backend='processes' forks nevertheless, since the" in stderr


@pytest.mark.skipif(not available(), reason="the engine is for Linux")
def test_spawn_says_which_backend_would_do(script):
    run(
        script,
        """
try:
    list(ordered_imap(Locked(), 2, backend="spawn"))
except BackendUnavailableError as error:
    assert "use backend='processes' or backend='threads'" in str(error)
    print("well")
""",
    )
