"""Sessions, files and environments of well-known libraries in a dataset: right in forked workers, or named before."""

from __future__ import annotations

import threading
import warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import fsspec
import grpc
import h5py
import httpx
import lmdb
import numpy as np
import pytest
import requests
import sqlalchemy

from ordmap import Processes, ordered_imap
from ordmap.backends import forking
from ordmap.testing import wait_until

#: They keep threads and connections for as long as the program runs.
pytestmark = pytest.mark.others_workers

NUMBER = 60


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.path)))
        self.end_headers()

    def do_GET(self):
        self.do_HEAD()
        self.wfile.write(self.path.encode())

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def site():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class Pages:
    def __init__(self, site, client, get):
        self.site, self.client, self.get = site, client, get
        assert self[3] == "/3"

    def __len__(self):
        return NUMBER

    def __getitem__(self, index):
        return self.get(self.client, f"{self.site}/{index}")


SESSIONS = {
    "requests": (requests.Session, lambda client, url: client.get(url, timeout=10).text),
    "httpx": (httpx.Client, lambda client, url: client.get(url, timeout=10).text),
    "fsspec": (lambda: fsspec.filesystem("http"), lambda client, url: client.cat(url).decode()),
}


@pytest.mark.parametrize("library", SESSIONS)
@pytest.mark.parametrize("workers", [1, 3])
def test_a_session_that_was_used_gives_each_item_its_own_answer(site, library, workers):
    make, get = SESSIONS[library]
    client = make()
    pages = Pages(site, client, get)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        with Processes(workers) as pool:
            for _ in range(2):
                assert list(ordered_imap(pages, backend=pool)) == [f"/{index}" for index in range(NUMBER)]
                assert pages[5] == "/5"
    getattr(client, "close", lambda: None)()


class Rows:
    def __init__(self, source, read):
        self.source, self.read = source, read

    def __len__(self):
        return NUMBER

    def __getitem__(self, index):
        return int(self.read(self.source, index))


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_an_hdf5_file_that_is_read(tmp_path, compression):
    with h5py.File(tmp_path / "rows.h5", "w") as file:
        file.create_dataset(
            "rows", data=np.arange(NUMBER * 1000).reshape(NUMBER, 1000), chunks=(1, 1000), compression=compression
        )
        file.flush()
        with pytest.warns(RuntimeWarning, match=r"Rows\.source \(an HDF5 file"):
            list(ordered_imap(Rows(file, lambda file, index: 0), workers=2))
    with h5py.File(tmp_path / "rows.h5", "r") as file, warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        rows = Rows(file, lambda file, index: file["rows"][index].sum())
        want = [rows[index] for index in range(NUMBER)]
        assert list(ordered_imap(rows, workers=3)) == want


def test_an_lmdb_environment_is_named(tmp_path):
    with lmdb.open(str(tmp_path)) as environment:
        rows = Rows(environment, lambda environment, index: index)
        with pytest.warns(RuntimeWarning, match=r"Rows\.source \(an LMDB environment\)"):
            assert list(ordered_imap(rows, workers=2)) == list(range(NUMBER))


@pytest.mark.parametrize("pool", [None, sqlalchemy.pool.StaticPool, sqlalchemy.pool.SingletonThreadPool])
def test_an_engine_is_named_as_the_program_does(tmp_path, pool):
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path}/rows.db", poolclass=pool)
    try:
        with engine.connect():
            pass
        rows = Rows({"main": engine}, lambda engines, index: index)
        with pytest.warns(RuntimeWarning, match=r": Rows\.source\['main'\] \(a database connection\)\. Open"):
            assert list(ordered_imap(rows, workers=2)) == list(range(NUMBER))
    finally:
        engine.dispose()


def test_a_grpc_channel_is_named_and_so_are_the_threads_that_a_fork_lacks(monkeypatch):
    monkeypatch.setattr(forking, "_told", set())  # each is told of once
    with grpc.insecure_channel("localhost:1") as channel:
        wait_until(forking.objection_to_fork, "gRPC's threads run")
        iterator = ordered_imap(Rows(channel, lambda channel, index: index), workers=2)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            next(iterator)
        iterator.close()
        # Such a channel can't be sent to fresh interpreters.
        threads, shared = (str(one.message) for one in told)
        assert threads.startswith(f"{forking.objection_to_fork().reason}: backend='processes' forks nevertheless")
        assert ": Rows.source (a gRPC channel). Open" in shared
