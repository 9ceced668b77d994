"""Which program a fresh interpreter is, and how it is told to be a worker.

It is the one that multiprocessing starts: ``sys.executable``, unless the program has named another by
``multiprocessing.set_executable()``. A frozen application (PyInstaller, cx_Freeze) is its own interpreter. It is
started as multiprocessing starts it, and becomes a worker where it calls ``freeze_support()`` or imports ordmap.

What is not plainly Python is tried first. It might be a host program, such as a server with Python inside, that would
start as such, wait for ever, and start others.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from ordmap.engine import channel
from ordmap.errors import BackendUnavailableError

__all__ = ["Command", "checked_executable"]

#: Seconds that a program has to show that it is Python; an application in one file unpacks itself first.
_PATIENCE = 60.0

#: In the environment of a program that is tried: it starts no others.
_TRIED = "ORDMAP_TRIED"

_ADVICE = "name the Python that workers are to run by multiprocessing.set_executable(), or"

#: The programs that have shown it.
_proven: set[str] = set()


class Command(NamedTuple):
    """A command line, and the descriptor of what it reads, where that is not all."""

    line: list[str]
    file: int | None

    @classmethod
    def calling(cls, executable: str, prelude: str, module: str, function: str, *args: Any) -> Command:
        """Return the command that calls a function with plain arguments; Python runs the ``prelude`` first."""
        if getattr(sys, "frozen", False):
            # What multiprocessing reads first, and does: from then on the process is not one that is to be told.
            told = [pickle.dumps({"sys_argv": [executable]}), pickle.dumps(_Told(module, function, args))]
            file = channel.written_file(told)
            os.lseek(file, 0, os.SEEK_SET)
            return cls([executable, "--multiprocessing-fork", "tracker_fd=None", f"pipe_handle={file}"], file)
        code = f"{prelude}from {module} import {function}; {function}{args}"
        return cls([executable, *_flags(), "-c", code], None)

    def run(self, files: tuple[int, ...], **options: Any) -> int:
        """Run it in the background, with these descriptors, and return the process's number."""
        try:
            kept = (*files, self.file) if self.file is not None else files
            process = subprocess.Popen(  # noqa: S603  this very interpreter
                self.line, pass_fds=kept, stdin=subprocess.DEVNULL, process_group=0, **options
            )
        finally:
            if self.file is not None:
                os.close(self.file)
        process.returncode = 0  # the caller waits for it
        return process.pid


class _Told(NamedTuple):
    """What multiprocessing takes for a process that is to begin, in a frozen application."""

    module: str
    function: str
    args: tuple[Any, ...]

    def _bootstrap(self, parent: int) -> Any:
        os.close(parent)
        import importlib

        function: Callable[..., Any] = getattr(importlib.import_module(self.module), self.function)
        return function(*self.args)


def checked_executable(instead: str) -> str:
    """Return the path of the program that workers run, or refuse what can't be one; ``instead``: what else to write."""
    advice = f"{_ADVICE} {instead}"
    spawn = sys.modules.get("multiprocessing.spawn")  # it is the one that knows of another than Python's own
    frozen = bool(getattr(sys, "frozen", False))
    found = sys.executable if spawn is None or frozen else spawn.get_executable()
    if not found:
        raise BackendUnavailableError(f"fresh interpreters need a program, and sys.executable is {found!r}: {advice}")
    path = os.fsdecode(found)
    if not os.access(path, os.X_OK):
        raise BackendUnavailableError(f"fresh interpreters need a program, and {path} is none: {advice}")
    if path not in _proven:
        name = os.path.basename(os.path.realpath(path))  # noqa: PTH119
        if (frozen or not name.startswith(("python", "pypy"))) and not _is_python(path):
            how = "have the program call multiprocessing.freeze_support() first" if frozen else advice
            raise BackendUnavailableError(f"{path} does not become a worker when it is started as one: {how}")
        _proven.add(path)
    return path


def _is_python(path: str) -> bool:
    """Whether a program does what it is told as a worker is."""
    if _TRIED in os.environ:
        return False
    with contextlib.ExitStack() as cleanup:
        ours, theirs = os.pipe()
        cleanup.callback(os.close, ours)
        try:
            pid = Command.calling(path, "", "posix", "write", theirs, b"!").run(
                (theirs,), env={**os.environ, _TRIED: "1"}
            )
        except OSError:
            return False
        finally:
            os.close(theirs)
        cleanup.callback(_end, pid)
        poll = select.poll()
        poll.register(ours, select.POLLIN)
        return bool(poll.poll(_PATIENCE * 1000)) and os.read(ours, 1) == b"!"


def _end(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, ChildProcessError):  # of a caller that reaps any child
        os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _flags() -> list[str]:
    """Return the options that this interpreter was started with, but for those which are for its own program."""
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    told = {flags[place + 1].partition("=")[0] for place, flag in enumerate(flags) if flag == "-X"}
    for option, value in sys._xoptions.items():
        if option not in told:
            flags += ["-X", option if value is True else f"{option}={value}"]
    return flags
