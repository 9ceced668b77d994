"""The page on servers: its files, run by its commands, answer as they should and leave nothing."""

from __future__ import annotations

import http.client
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import pbkdf2_hmac
from pathlib import Path

import psutil
import pytest
from pytest_examples import find_examples
from table import members

PAGE = Path(__file__).parents[2] / "docs" / "servers.md"

#: The section whose files all others import from.
SHARED = "What the items do"


@dataclass
class Section:
    """A part of the page: an application's files, and the commands that start it."""

    files: dict[str, str] = field(default_factory=dict)
    commands: list[str] = field(default_factory=list)


def read_page() -> dict[str, Section]:
    sections = {}
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    examples = {example.start_line: example for example in find_examples(str(PAGE))}
    for number, line in enumerate(lines, 1):
        if line.startswith("## "):
            section = sections[line[3:]] = Section()
        if line.startswith("$ "):
            section.commands.append(line[2:])
        if number in examples:
            section.files[examples[number].prefix_settings()["title"]] = examples[number].source
    return sections


SECTIONS = read_page()
COMMANDS = [(name, command) for name, section in SECTIONS.items() for command in section.commands]
WEB = [(name, command) for name, command in COMMANDS if "8000" in command]
TASKS = [(name, command) for name, command in COMMANDS if "8000" not in command]
RELOADING = [(n, c) for n, c in WEB if "--reload" in c or "--debug" in c or c.endswith("runserver 127.0.0.1:8000")]


class Server:
    """A server of the page's in a folder of its own, in a session of its own: its processes are all of that."""

    def __init__(self, folder: Path, name: str, command: str, **changed: str):
        files = {**SECTIONS[SHARED].files, **SECTIONS[name].files, **changed}
        for file, source in files.items():
            (folder / file).write_text(source, encoding="utf-8")
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.connections: list[http.client.HTTPConnection] = []
        self.log = folder / "log"
        self.temporary = folder / "temporary"
        self.temporary.mkdir()
        program, *arguments = shlex.split(command.replace("8000", str(self.port)))
        start = [sys.executable] if program == "python" else [sys.executable, "-m", program]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*start, *arguments],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=os.environ | {"TMPDIR": str(self.temporary)},
            )

    def __enter__(self) -> Server:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        for connection in self.connections:
            connection.close()
        left = members(self.process.pid)
        for process in left:
            process.kill()
        psutil.wait_procs(left, timeout=10)
        self.process.wait(10)
        if kind is not None:
            print(self.log.read_text(encoding="utf-8", errors="replace"))

    def connect(self, patience: float = 60) -> http.client.HTTPConnection:
        """Return a connection, once the server takes one."""
        give_up = time.monotonic() + patience
        while True:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
            try:
                connection.connect()
                self.connections.append(connection)
            except ConnectionError:
                assert self.process.poll() is None, "the server has ended"
                assert time.monotonic() < give_up, "the server takes no connection"
                time.sleep(0.05)
            else:
                return connection

    def end(self, how: signal.Signals) -> None:
        """Tell the server to end, as an init system or a terminal does; it does, and leaves nothing."""
        if how == signal.SIGINT:
            os.killpg(self.process.pid, how)
        else:
            self.process.send_signal(how)
        self.process.wait(45)
        give_up = time.monotonic() + 10
        while (left := members(self.process.pid)) and time.monotonic() < give_up:
            time.sleep(0.02)
        assert not left
        assert how == signal.SIGKILL or not os.listdir(self.temporary)
        with socket.create_server(("127.0.0.1", self.port)):  # nothing listens there
            pass


def ask(connection: http.client.HTTPConnection, path: str, **headers: str) -> object:
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    assert answer.status == 200, body
    return json.loads(body)


def hashes(*words: str) -> list[str]:
    return [pbkdf2_hmac("sha256", word.encode(), b"salt", 20_000).hex() for word in words]


def talk(server: Server, visitor: int) -> None:
    """Ask three times over one connection, which is closed by the server where it doesn't keep any."""
    connection = server.connect()
    for turn in range(3):
        words = [f"{visitor}.{turn}.{n}" for n in range(5)]
        assert ask(connection, "/hashes?words=" + ",".join(words)) == hashes(*words)
    connection.close()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT], ids=str)
@pytest.mark.parametrize(("name", "command"), WEB)
def test_a_server_answers_several_at_a_time_and_ends(name, command, how, tmp_path):
    with Server(tmp_path, name, command) as server:
        talk(server, 0)
        with ThreadPoolExecutor(6) as visitors:
            list(visitors.map(talk, [server] * 6, range(1, 7)))
        kept = server.connect()
        assert ask(kept, "/hashes?words=last") == hashes("last")
        server.end(how)
        assert kept.sock is None or kept.sock.recv(1) == b""  # the client is told
        kept.close()


@pytest.mark.parametrize(("name", "command"), RELOADING)
def test_a_server_that_reloads_leaves_no_old_worker(name, command, tmp_path):
    with Server(tmp_path, name, command) as server:
        talk(server, 0)
        before = members(server.process.pid)
        time.sleep(1.1)  # files are watched by the second
        work = tmp_path / "work.py"
        work.write_text(work.read_text().replace(".hex()", ".hex().upper()"), encoding="utf-8")
        give_up = time.monotonic() + 40
        while True:
            try:
                connection = server.connect()
                if ask(connection, "/hashes?words=a") == [hashes("a")[0].upper()]:
                    break
            # It is just being restarted. Django's own server says no length: an answer that is cut short is no JSON.
            except (http.client.HTTPException, ConnectionError, json.JSONDecodeError):
                pass
            finally:
                connection.close()
            assert time.monotonic() < give_up, "the new code is never run"
            time.sleep(0.1)
        give_up = time.monotonic() + 10
        while len(now := members(server.process.pid)) != len(before) and time.monotonic() < give_up:
            time.sleep(0.05)
        assert len(now) == len(before), (before, now)
        server.end(signal.SIGINT)


API = "FastAPI with uvicorn"
UVICORN = SECTIONS[API].commands[0]
LATE = SECTIONS[API].files["api.py"].replace("with pool.start():", "with pool:")
assert LATE != SECTIONS[API].files["api.py"]


@pytest.mark.parametrize("changed", [{}, {"api.py": LATE}], ids=["at the start", "in the first request"])
def test_a_kept_connection_is_closed_when_it_is_idle(changed, tmp_path):
    """Also where the workers were forked while it was open."""
    with Server(tmp_path, API, UVICORN + " --timeout-keep-alive 1", **changed) as server:
        connection = server.connect()
        assert ask(connection, "/hashes?words=a,b,c") == hashes("a", "b", "c")
        connection.sock.settimeout(20)
        assert connection.sock.recv(1) == b""
        connection.close()
        talk(server, 1)
        server.end(signal.SIGTERM)


@pytest.mark.parametrize("changed", [{}, {"api.py": LATE}], ids=["at the start", "in the first request"])
def test_an_item_sees_the_context_of_its_own_request(changed, tmp_path):
    words = [f"w{n}" for n in range(8)]

    def visit(visitor: int) -> None:
        connection = server.connect()
        for turn in range(4):
            own = f"{visitor}.{turn}"
            found = ask(connection, "/named?words=" + ",".join(words), **{"x-request-id": own})
            assert found == [f"{own}: {word}" for word in words]
        connection.close()

    with Server(tmp_path, API, UVICORN, **changed) as server:
        with ThreadPoolExecutor(4) as visitors:
            list(visitors.map(visit, range(4)))
        server.end(signal.SIGTERM)


def test_a_client_that_goes_away_ends_the_loop_and_the_workers_stay(tmp_path):
    with Server(tmp_path, API, UVICORN) as server:
        talk(server, 0)
        before = {process.pid for process in members(server.process.pid)}
        for _ in range(3):
            connection = server.connect()
            connection.request("GET", "/stream?count=100000")
            answer = connection.getresponse()
            assert answer.readline().decode().strip() == hashes("0")[0]
            connection.sock and connection.sock.shutdown(socket.SHUT_RDWR)
            answer.close()
            connection.close()
        talk(server, 1)
        assert {process.pid for process in members(server.process.pid)} == before
        server.end(signal.SIGTERM)


def test_a_server_that_is_killed_takes_its_workers_along(tmp_path):
    with Server(tmp_path, API, UVICORN) as server:
        talk(server, 0)
        server.end(signal.SIGKILL)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT], ids=str)
@pytest.mark.parametrize(("name", "command"), TASKS)
def test_a_task_queue_s_worker_computes_and_ends(name, command, how, tmp_path):
    with Server(tmp_path, name, command) as server:
        ask_for = (
            "import tasks\n"
            "waiting = [tasks.hashes.delay([f'{n}.{k}' for k in range(4)]) for n in range(6)]\n"
            "print([one.get(timeout=60) for one in waiting])\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", ask_for], cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == str([hashes(*(f"{n}.{k}" for k in range(4))) for n in range(6)])
        server.end(how)
