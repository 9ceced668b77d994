"""The engine asks the system for what it stands on, by number where Python has no name for it, and goes another way
where it is refused."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="what the engine stands on is Linux's")

LOOPS = """
import warnings
warnings.simplefilter("always")
from ordmap import ordered_map
with warnings.catch_warnings(record=True) as told:
    for backend in ("processes", "spawn"):
        results = list(ordered_map(lambda i: bytes([i]) * 100_000, range(8), workers=2, backend=backend))
        assert results == [bytes([i]) * 100_000 for i in range(8)]
from ordmap import Processes
print(Processes.__module__)
for warning in told:
    print(warning.message)
"""

NAMELESS = """
import os, signal
for module, names in {os: NAMES, signal: ["pidfd_send_signal"]}.items():
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
"""

#: Refuses one system call, or those of `fcntl` with one command.
FILTER = """
import ctypes, struct
def refuse(number, error, command=None):
    load, equal, back = 0x20, 0x15, 0x06
    refused, granted = (back, 0, 0, 0x00050000 | error), (back, 0, 0, 0x7FFF0000)
    if command is None:
        lines = [(load, 0, 0, 0), (equal, 0, 1, number), refused, granted]
    else:
        lines = [(load, 0, 0, 0), (equal, 0, 3, number), (load, 0, 0, 24), (equal, 0, 1, command), refused, granted]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in lines))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(lines), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    assert libc.prctl(22, 2, program, 0, 0) == 0
"""

#: Numbers of system calls by machine.
NUMBERS = {
    "x86_64": {"memfd_create": 319, "pidfd_open": 434, "pidfd_send_signal": 424, "eventfd": 290, "sendmsg": 46,
               "fcntl": 72},
    "aarch64": {"memfd_create": 279, "pidfd_open": 434, "pidfd_send_signal": 424, "eventfd": 19, "sendmsg": 211,
                "fcntl": 25},
}.get(platform.machine())  # fmt: skip

filtered = pytest.mark.skipif(NUMBERS is None, reason="the numbers of this machine's system calls aren't known here")
ENOSYS, EPERM, EINVAL = 38, 1, 22
ENGINE, PORTABLE = "ordmap.engine.backends", "ordmap.backends.portable"


def run(script, **environment):
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=100, env={**os.environ, **environment}
    )
    assert (done.returncode, done.stderr) == (0, "")
    module, *told = done.stdout.splitlines()
    return module, told


@pytest.mark.parametrize(
    "names",
    [["memfd_create", "MFD_CLOEXEC"], ["pidfd_open", "P_PIDFD"], ["memfd_create", "MFD_CLOEXEC", "pidfd_open"]],
    ids=" ".join,
)
def test_a_python_without_the_names_makes_the_calls_by_their_numbers(tmp_path, names):
    (tmp_path / "sitecustomize.py").write_text(NAMELESS.replace("NAMES", repr(names)), encoding="utf-8")
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    missing = f"import os; assert not [n for n in {names} if hasattr(os, n)]\n"
    assert run(missing + LOOPS, PYTHONPATH=path) == (ENGINE, [])


@pytest.mark.parametrize("error", [ENOSYS, EPERM])
@pytest.mark.parametrize("call", ["memfd_create", "pidfd_open", "pidfd_send_signal", "eventfd", "sendmsg"])
@filtered
def test_a_system_that_refuses_a_call_has_the_portable_path_which_is_said_once(call, error):
    module, told = run(f"{FILTER}\nrefuse({NUMBERS[call]}, {error})\n{LOOPS}")
    named = {"sendmsg": "descriptors in messages"}.get(call, call)
    assert module == PORTABLE
    assert len(told) == 1 and told[0].startswith(f"this system refuses {named} (")


@pytest.mark.parametrize(("command", "name"), [(8, "F_SETOWN"), (10, "F_SETSIG")])
@filtered
def test_so_it_is_with_commands_that_a_kernel_of_another_make_lacks(command, name):
    module, told = run(f"{FILTER}\nrefuse({NUMBERS['fcntl']}, {EINVAL}, {command})\n{LOOPS}")
    assert module == PORTABLE
    assert len(told) == 1 and told[0].startswith(f"this system refuses {name} (")


@filtered
def test_seals_of_memory_files_are_not_asked_for():
    assert run(f"{FILTER}\nrefuse({NUMBERS['fcntl']}, {EINVAL}, 1033)\n{LOOPS}") == (ENGINE, [])


@filtered
def test_where_the_portable_path_was_asked_for_nothing_is_said():
    script = f"{FILTER}\nrefuse({NUMBERS['memfd_create']}, {EPERM})\n{LOOPS}"
    assert run(script, ORDMAP_PORTABLE="1") == (PORTABLE, [])


def test_where_there_are_no_descriptors_left_that_is_not_taken_for_a_refusal():
    script = """
import os, resource
from ordmap.engine import kernel
resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1, 100))
print(kernel.lack())
"""
    assert run(script) == ("None", [])


@pytest.mark.parametrize(
    ("options", "variable", "cores"),
    [
        ([], "1", 1),
        (["-X", "cpu_count=1"], "64", 1),
        (["-X", "cpu_count=default"], "1", None),
        (["-E"], "1", None),
        ([], "default", None),
    ],
)
def test_the_number_of_cores_that_the_interpreter_was_told_is_heeded(options, variable, cores):
    script = "import os; from ordmap.resources import usable_cores as u; print(u(), len(os.sched_getaffinity(0)))"
    env = {**os.environ, "PYTHON_CPU_COUNT": variable}
    if "-E" in options:
        script = f"import sys; sys.path[:] = {sys.path!r}; {script}"
    done = subprocess.run([sys.executable, *options, "-c", script], capture_output=True, text=True, env=env, check=True)
    usable, allowed = map(int, done.stdout.split())
    assert usable == cores if cores else usable <= allowed
