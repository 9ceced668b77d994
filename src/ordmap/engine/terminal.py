"""A worker and the caller's terminal: it may write there, and has no part in the terminal's control of jobs.

A worker leads a process group of its own, which is in the background of the caller's terminal: what reads there, sets
it, or writes under ``stty tostop`` would be stopped, for ever, as no shell knows of that group.
"""

from __future__ import annotations

import fcntl
import os
import termios

__all__ = ["let_go_of_terminal"]


def let_go_of_terminal() -> None:
    """Have no controlling terminal any more, nor has what is started here: ``/dev/tty`` can't be opened.

    Prompts for a password are errors then. The session stays the same, for the kernel may share out cores by session.
    """
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return  # there is none
    try:
        fcntl.ioctl(terminal, termios.TIOCNOTTY)
    finally:
        os.close(terminal)
