"""Starting workers beside many open descriptors: the time from the call to the first trivial item. 2 forked workers.

``python benchmarks/open_files.py``: for 10, 1,000 and 10,000 descriptors of each kind, the median of several calls, in
milliseconds. What a worker makes its own, or lets go of, it looks at one by one; so the time grows with their number.
"""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import statistics
import sys
import tempfile
import time

from ordmap import ordered_map

NUMBERS = (10, 1_000, 10_000)
TIMES = 15


def _none(_: int) -> contextlib.ExitStack:
    return contextlib.ExitStack()


def _files(number: int) -> contextlib.ExitStack:
    """Open a file for reading, again and again."""
    stack = contextlib.ExitStack()
    path = stack.enter_context(tempfile.NamedTemporaryFile()).name
    for _ in range(number):
        stack.callback(os.close, os.open(path, os.O_RDONLY))
    return stack


def _written(number: int) -> contextlib.ExitStack:
    """Open a file for writing, again and again."""
    stack = contextlib.ExitStack()
    path = stack.enter_context(tempfile.NamedTemporaryFile()).name
    for _ in range(number):
        stack.callback(os.close, os.open(path, os.O_WRONLY | os.O_APPEND))
    return stack


def _pipes(number: int) -> contextlib.ExitStack:
    stack = contextlib.ExitStack()
    for _ in range(number // 2):
        for end in os.pipe():
            stack.callback(os.close, end)
    return stack


def _sockets(number: int) -> contextlib.ExitStack:
    """Connect to a server in this process."""
    stack = contextlib.ExitStack()
    server = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=128))
    for _ in range(number // 2):
        stack.enter_context(socket.create_connection(server.getsockname()))
        stack.enter_context(server.accept()[0])
    return stack


def first_item() -> float:
    """Return the milliseconds from the call to the first item."""
    began = time.perf_counter()
    items = ordered_map(abs, range(4), workers=2)
    next(items)
    taken = time.perf_counter() - began
    items.close()
    return 1000 * taken


def main() -> None:
    """Print a line for each kind and number."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    first_item()  # imports
    for kind, opened in (
        ("none", _none),
        ("files", _files),
        ("written", _written),
        ("pipes", _pipes),
        ("sockets", _sockets),
    ):
        for number in NUMBERS if kind != "none" else (0,):
            try:
                with opened(number):
                    taken = statistics.median(first_item() for _ in range(TIMES))
            except OSError as error:
                print(f"{kind:8} {number:6}: {error}", file=sys.stderr)
                continue
            print(f"{kind:8} {number:6} {taken:8.2f} ms")


if __name__ == "__main__":
    main()
