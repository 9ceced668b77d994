"""What items log comes out of fresh interpreters as it comes out of forked workers."""

from __future__ import annotations

import logging
import multiprocessing
import queue
import socket
from logging.handlers import QueueHandler

import pytest

from ordmap import Spawn, ordered_map
from ordmap.backends import logs, portable
from ordmap.engine import available
from test_scripts import finished

pytestmark = pytest.mark.skipif(not available(), reason="these are the ways of Linux")

#: What a program makes of `logging`, and what its items log.
CONFIGURED = {
    "basicConfig": ("logging.basicConfig(level=logging.INFO, format='%(levelname)s %(message)s', stream=sys.stdout)",
                    "logging.info('item %d', n); logging.debug('no')"),
    "stderr": ("logging.basicConfig(level='INFO')", "logging.getLogger('a.b').info('item %d', n)"),
    "nothing": ("", "logging.info('no'); logging.warning('item %d', n)"),
    "loggers of their own": (
        "logging.basicConfig(stream=sys.stdout, level='ERROR'); logging.getLogger('loud').setLevel('DEBUG')\n"
        "logging.getLogger('quiet').propagate = False; logging.getLogger('quiet').addHandler(logging.NullHandler())\n"
        "logging.getLogger('off').disabled = True",
        "[logging.getLogger(name).log(level, 'item %d', n) for name in ('loud', 'quiet', 'off', 'any') for level in (10, 50)]",
    ),
    "one handler of two loggers": (
        "handler = logging.StreamHandler(sys.stdout)\n"
        "for name in ('a', 'b'): logging.getLogger(name).addHandler(handler); logging.getLogger(name).propagate = False",
        "logging.getLogger('a').error('item %d', n); logging.getLogger('b').error('item %d', n)",
    ),
    "what the script defines": (
        "class Short(logging.Formatter):\n    def format(self, record): return f'{record.levelname[0]}: {record.getMessage()}'\n"
        "class Handler(logging.StreamHandler): pass\n"
        "handler = Handler(sys.stdout); handler.setFormatter(Short()); logging.getLogger().addHandler(handler)\n"
        "handler.addFilter(lambda record: record.args[0] % 2)",
        "logging.warning('item %d', n)",
    ),
    "dictConfig": (
        "import logging.config\n"
        "logging.config.dictConfig({'version': 1, 'formatters': {'f': {'format': '%(name)s %(message)s'}}, 'handlers': {'h': {\n"
        "  'class': 'logging.StreamHandler', 'formatter': 'f', 'stream': 'ext://sys.stdout'}},\n"
        "  'loggers': {'app': {'level': 'DEBUG', 'handlers': ['h'], 'propagate': False}}})",
        "logging.getLogger('app.part').debug('item %d', n)",
    ),
    "disable": ("logging.basicConfig(stream=sys.stdout); logging.disable(logging.WARNING)",
                "logging.warning('no'); logging.error('item %d', n)"),
    "levels and classes": (
        "class Log(logging.Logger):\n    def trace(self, *args): self.log(5, *args)\n"
        "logging.addLevelName(5, 'TRACE'); logging.setLoggerClass(Log); logging.basicConfig(level=5, stream=sys.stdout)\n"
        "def record(*args, **kwargs):\n    made = logging.LogRecord(*args, **kwargs); made.name = 'made'; return made\n"
        "logging.setLogRecordFactory(record)",
        "logging.getLogger('mine').trace('item %d', n)",
    ),
    "warnings": ("logging.captureWarnings(True); logging.basicConfig(stream=sys.stdout, format='%(name)s')",
                 "import warnings; warnings.warn(f'item {n}')"),
    "exceptions": (
        "class Short(logging.Formatter):\n    def formatException(self, info): return repr(info[1])\n"
        "logging.basicConfig(stream=sys.stdout); logging.root.handlers[0].setFormatter(Short())",
        "\n    try: int('x')\n    except ValueError: logging.exception('item %d', n)",
    ),
    "another stream on the descriptor": (
        "import io; logging.basicConfig(stream=io.TextIOWrapper(sys.stdout.buffer, line_buffering=True))",
        "logging.error('item %d', n)",
    ),
    "a module that configures itself": ("import configured", "configured.log.info('item %d', n)"),
    "a memory handler": (
        "import logging.handlers\n"
        "memory = logging.handlers.MemoryHandler(100, logging.ERROR, logging.StreamHandler(sys.stdout)); logging.getLogger().addHandler(memory)",
        "logging.warning('item %d', n); logging.error('flush')",
    ),
    "a thread's own state": (
        "class Local(threading.local):\n    def __init__(self, prefix): self.prefix = prefix\n"
        "class Handler(logging.Handler):\n"
        "    def __init__(self): super().__init__(); self.lock_of_mine = threading.Lock(); self.local = Local(prefix='mine')\n"
        "    def emit(self, record):\n        with self.lock_of_mine: print(self.local.prefix, record.getMessage())\n"
        "logging.getLogger().addHandler(Handler())",
        "logging.warning('item %d', n)",
    ),
}  # fmt: skip

#: What a program prints at the end of a loop.
END = "-- end of the loop --\n"

MODULE = """
import logging, sys
log = logging.getLogger("configured")
log.setLevel("INFO")
log.propagate = False
log.addHandler(logging.StreamHandler(sys.stdout))
logging.getLogger().addHandler(logging.StreamHandler(sys.stdout))
"""


@pytest.mark.parametrize("how", CONFIGURED)
def test_records_come_out_as_they_do_in_forked_workers(script, how):
    configure, log = CONFIGURED[how]
    script(MODULE, "configured.py")
    path = script(
        f"""
import logging, sys, threading
from ordmap import Processes, Spawn, ordered_map
from ordmap.backends import portable
{configure}

def work(n):
    {log}

for make in Processes, Spawn, portable.Spawn:
    list(ordered_map(work, range(4), backend=make(1)))
    print({END!r}, end='', flush=True)
    print({END!r}, end='', file=sys.stderr, flush=True)
"""
    )
    code, stdout, stderr = finished(path)
    assert code == 0, stderr
    forked, *fresh = zip(stdout.split(END), stderr.split(END), strict=True)
    assert sum(text.count("\n") for text in forked) >= 2
    assert fresh == [forked, forked, ("", "")]


@pytest.mark.parametrize("make", [Spawn, portable.Spawn])
@pytest.mark.parametrize("mode", ["a", "w"])
def test_a_file_has_the_records_of_the_caller_and_of_all_workers(tmp_path, make, mode):
    path = tmp_path / "log"
    path.write_text("old\n")
    handler = logging.FileHandler(path, mode=mode)
    log = logging.getLogger("to a file")
    log.addHandler(handler)
    try:
        log.error("before")
        for _ in ordered_map(lambda n: logging.getLogger("to a file").error("item"), range(20), backend=make(2)):
            log.error("meanwhile")
        log.error("after")
    finally:
        log.removeHandler(handler)
        handler.close()
    old = ["old"] if mode == "a" else []
    lines = path.read_text().splitlines()
    assert sorted(lines) == sorted([*old, "before", *["item", "meanwhile"] * 20, "after"])


def test_a_socket_is_connected_anew(tmp_path):
    from logging.handlers import SocketHandler

    with socket.create_server(("127.0.0.1", 0)) as server:
        handler = SocketHandler(*server.getsockname())
        log = logging.getLogger("to a socket")
        log.addHandler(handler)
        try:
            log.error("connects")
            ours, _ = server.accept()
            results = ordered_map(lambda n: logging.getLogger("to a socket").error("item"), range(1), backend=Spawn(1))
            assert list(results) == [None]
            theirs, _ = server.accept()
            with ours, theirs, theirs.makefile("rb") as file:
                assert b"item" in file.read()
        finally:
            log.removeHandler(handler)
            handler.close()


class Unsendable(logging.Handler):
    def __reduce__(self):
        raise TypeError("this one stays")


LEFT_OUT = {
    "one that refuses": (Unsendable, "this one stays"),
    "a thread's queue": (lambda: QueueHandler(queue.Queue()), "a thread of the caller's"),
    "multiprocessing's queue": (lambda: QueueHandler(multiprocessing.Queue()), "inheritance"),
}


@pytest.mark.parametrize("make", [Spawn, portable.Spawn])
@pytest.mark.parametrize("how", LEFT_OUT)
def test_a_handler_that_can_not_travel_is_left_out_and_that_is_said(how, make):
    build, reason = LEFT_OUT[how]
    handler = build()
    log = logging.getLogger("left out")
    log.addHandler(handler)
    log.setLevel(17)
    try:
        with pytest.warns(RuntimeWarning, match=f"{reason}.*initializer="):
            results = ordered_map(
                lambda n: logging.getLogger("left out").getEffectiveLevel(), range(2), backend=make(1)
            )
            assert list(results) == [17, 17]
    finally:
        log.removeHandler(handler)
        log.setLevel(logging.NOTSET)
        if isinstance(handler, QueueHandler) and not isinstance(handler.queue, queue.Queue):
            handler.queue.close()


def test_nothing_is_noted_where_nobody_has_configured_it(monkeypatch):
    monkeypatch.setattr(logging.root, "handlers", [])
    monkeypatch.setattr(logging.root.manager, "loggerDict", {})
    assert logs.note() is None
    logging.getLogger("some").setLevel(logging.INFO)
    assert logs.note() is not None
