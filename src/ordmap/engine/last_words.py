"""What a worker leaves for the caller to read after its death, in a memory file that both have.

That is where it was, if a crash or its own clock ended it: `faulthandler` writes it, in C, as the process dies. And, of
one that takes the place of others which died before they began, what it said on its standard error until it began.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import sys

from ordmap.limit import FRAME

__all__ = ["LastWords"]

#: Bytes that are read at most: the first of a stack, the last of what was said.
_MOST = 1 << 16

_STDERR = 2


def _line_of(path: str) -> str:
    """Return how `faulthandler` writes of a frame of this file."""
    return '"{}"'.format(path.encode("ascii", "backslashreplace").decode())


#: The frames of ours that call an item: what stands below them is no concern of the user's.
_OURS = (_line_of(FRAME), _line_of(os.path.join(os.path.dirname(__file__), "worker.py")))  # noqa: PTH118, PTH120


class LastWords:
    """The file of one worker, on either side."""

    def __init__(self, file: int) -> None:
        self.file = file
        self._stderr: int | None = None  # where it goes again, in time

    # In the worker

    def tell_of_crashes(self) -> None:
        """Have a signal such as SIGSEGV that ends this process leave where it was."""
        faulthandler.enable(self.file, all_threads=True)

    def record(self, stderr: int) -> None:
        """Note that standard error is written here until `pass_on`; ``stderr``: where it went before."""
        self._stderr = stderr

    def record_from_now_on(self) -> None:
        """Have what this process says on its standard error written here, until `pass_on`."""
        self.record(os.dup(_STDERR))
        os.dup2(self.file, _STDERR)

    def pass_on(self) -> None:
        """Have standard error be what it was, and say there what was said meanwhile."""
        if self._stderr is None:
            return
        stderr, self._stderr = self._stderr, None
        with contextlib.suppress(Exception):  # an odd stream of the initializer's
            sys.stderr.flush()
        if os.path.sameopenfile(self.file, _STDERR):  # else the initializer has its own idea of where it goes
            os.dup2(stderr, _STDERR)
        os.close(stderr)
        said = self._read_last()
        os.ftruncate(self.file, 0)
        os.lseek(self.file, 0, os.SEEK_SET)
        with contextlib.suppress(OSError):  # nobody reads it
            while said:
                said = said[os.write(_STDERR, said) :]

    # In the caller

    def stack(self) -> str:
        """Return where the worker was: the frames of each thread, but for ours and what called them."""
        text = os.pread(self.file, _MOST, 0).decode(errors="replace")
        lines = []
        is_ours = False
        for line in text.splitlines(keepends=True):  # the most recent call comes first
            is_ours = line.startswith("  File ") and (is_ours or any(ours in line for ours in _OURS))
            if not is_ours and not line.startswith("Extension modules:"):
                lines.append(line)
        return "".join(lines).rstrip("\n") + "\n" if lines else ""

    def said(self) -> str:
        """Return what the worker said at last."""
        return self._read_last().decode(errors="replace")

    def _read_last(self) -> bytes:
        size = os.fstat(self.file).st_size
        return os.pread(self.file, _MOST, max(0, size - _MOST))
