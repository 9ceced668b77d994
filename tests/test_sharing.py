"""What two processes can't both use is found before a fork, and named with the way to it; what they can is not."""

from __future__ import annotations

import collections
import functools
import http.client
import logging
import mmap
import operator
import socket
import sqlite3
import subprocess
import sys
import sysconfig
import threading
import types
import warnings
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from ordmap import Processes, ordered_imap, ordered_map
from ordmap.backends.sharing import Shared


def found(thing):
    """Return the ways to what can't be shared, of a dataset or a function."""
    compute = functools.partial(operator.getitem, thing) if hasattr(thing, "__getitem__") else thing
    return [str(one) for one, _ in Shared([compute])._found]


class Records:
    def __init__(self, **fields):
        vars(self).update(fields)

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return self.used(index)

    def used(self, index):
        return index, self.it


@pytest.fixture
def database():
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    yield connection
    connection.close()


def test_an_attribute_is_named(database):
    assert found(Records(it=database)) == ["Records.it"]
    assert found(Records(it=Records(it=database))) == ["Records.it.it"]
    assert found(Records(it={"main": [database]})) == ["Records.it['main'][0]"]
    assert found(Records(it=functools.partial(print, database))) == ["Connection"]


def test_a_closure_s_variable_a_global_and_a_default_are_named(database):
    def get(index):
        return index, database

    def given(index, connection=database):
        return index, connection

    assert found(get) == [f"closure variable 'database' of {get.__qualname__}"]
    assert found(given) == [f"a default of {given.__qualname__}"]
    there = {"__name__": "there", "db": database, "__builtins__": __builtins__}
    exec("def deeper(index): return db\ndef work(index): return deeper(index)", there)
    assert found(there["work"]) == ["global 'db' of deeper"]
    assert found(functools.lru_cache(there["work"])) == ["global 'db' of deeper"]


def in_the_library(monkeypatch, **fields):
    """Return an object of a class that lies with the installed ones."""
    there = types.ModuleType("a_library")
    there.__file__ = f"{sysconfig.get_path('purelib')}/a_library.py"
    monkeypatch.setitem(sys.modules, "a_library", there)
    made = type("Engine", (), {"__module__": "a_library"})()
    vars(made).update(fields)
    return made


def test_the_way_ends_where_a_library_s_own_part_begins(database, monkeypatch):
    queue = collections.deque([in_the_library(monkeypatch, dbapi_connection=database)])
    engine = in_the_library(monkeypatch, pool=in_the_library(monkeypatch, _pool=queue))
    assert found(Records(it=engine)) == ["Records.it"]
    assert found(Records(it=Records(it=engine))) == ["Records.it.it"]
    assert found(Records(it={"main": [engine]})) == ["Records.it['main'][0]"]
    assert found(Records(it=[queue])) == ["Records.it[0][0]"]
    assert found(lambda index: (index, engine)) == [f"closure variable 'engine' of {COMPUTING}"]


COMPUTING = "test_the_way_ends_where_a_library_s_own_part_begins.<locals>.<lambda>"


def test_a_library_s_attribute_that_the_user_s_code_names_is_in_the_way(database, monkeypatch):
    class Named(Records):
        def used(self, index):
            return index, self.it.main

    for it in (types.SimpleNamespace(main=database), in_the_library(monkeypatch, main=database)):
        assert [way.rpartition(".")[2] for way in found(Named(it=it))] == ["main"]
        assert found(Records(it=it)) == ["Records.it"]
    assert found(Records(it=Records(it=types.SimpleNamespace(main=database)))) == ["Records.it.it"]


def test_what_the_items_do_not_use_is_no_concern(database):
    assert found(Records(it=1, other=database)) == []


@pytest.mark.parametrize(("mode", "is_found"), [("rb", False), ("r+b", True), ("wb", True), ("ab", False)])
def test_a_file_that_is_written_to_is_found(tmp_path, mode, is_found):
    path = tmp_path / "file"
    path.touch()
    with path.open(mode) as file:
        assert bool(found(Records(it=file))) == is_found
    assert not found(Records(it=file))  # closed


def test_a_connection_is_found_and_an_unconnected_socket_is_not():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        assert found(Records(it=client)) == ["Records.it"]
        assert found(Records(it=server)) == []
        with socket.socket() as unconnected:
            assert found(Records(it=unconnected)) == []


def test_an_archive_is_found_where_it_is_written(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a", "a")
        assert found(Records(it=archive)) == ["Records.it"]
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert found(Records(it=archive)) == []


class StandIn:
    """Fails whatever it is asked, as a proxy does outside of its context."""

    def __getattribute__(self, name):
        raise RuntimeError(f"asked for {name}")


class Odd(type):
    __hash__ = None

    def __eq__(cls, other):
        raise RuntimeError("compared")


class Opening:
    def fileno(self):
        raise AssertionError("opened")


HARMLESS = {
    "a lock": threading.Lock,
    "a logger": logging.getLogger,
    "an array": lambda: np.arange(3),
    "a list": lambda: [1] * 1000,
    "a stand-in": StandIn,
    "an odd class": Odd("Kind", (), {}),
    "what opens something": Opening,
    "a thread": threading.current_thread,
    "a dict": lambda: {object(): StandIn()},
}


@pytest.mark.parametrize("kind", HARMLESS)
def test_there_is_no_false_alarm(kind):
    assert found(Records(it=HARMLESS[kind]())) == []


def test_mapped_files_are_no_concern(tmp_path):
    path = tmp_path / "data"
    path.write_bytes(bytes(4096))
    array = np.memmap(path, mode="r")
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        assert found(Records(it=[array, mapped], file=file)) == []


def test_the_search_is_bounded():
    deep = []
    for _ in range(100_000):
        deep = [deep, [], {}]
    assert found(Records(it=deep)) == []
    while deep:
        deep = deep[0]


def test_a_loop_warns_once_where_it_stands_and_names_the_cure(database):
    with pytest.warns(RuntimeWarning, match=r"Records\.it \(a database connection\).*initializer=") as told:
        items = ordered_imap(Records(it=database), workers=2, on_error="skip")
        list(items)
    assert [(one.filename, "Records.it" in str(one.message)) for one in told] == [(__file__, True)]


def test_threads_and_serial_share_as_they_always_do(database):
    for backend in ("threads", "serial"):
        assert len(list(ordered_imap(Records(it=database), workers=None, backend=backend))) == 4


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = self.path.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = False
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_an_http_connection_is_opened_anew_in_each_worker(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)

    def get(index):
        connection.request("GET", f"/{index}")
        return connection.getresponse().read().decode()

    assert get(5) == "/5"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with Processes(2) as pool:
            assert list(ordered_map(get, range(50), backend=pool)) == [f"/{index}" for index in range(50)]
            assert get(6) == "/6"  # the caller's own is as it was
    connection.close()


def test_items_may_print_to_a_file(script, tmp_path):
    path = script("""
import sys
from ordmap import ordered_map
out = sys.stdout
def say(i): print(i * (out is not None)); sys.stdout.flush(); sys.stderr.write("")
list(ordered_map(say, range(3), workers=2))
""")
    with (tmp_path / "out").open("w") as out:
        done = subprocess.run(
            [sys.executable, "-W", "error", str(path)], stdout=out, stderr=out, timeout=60, check=False
        )
    assert (done.returncode, sorted((tmp_path / "out").read_text().split())) == (0, ["0", "1", "2"])
