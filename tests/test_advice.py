"""A message that names another backend never names the one that the user has."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from ordmap.engine import available

PROGRAM = """
import multiprocessing, os, sys, threading, types, warnings
from concurrent.futures import ProcessPoolExecutor
from ordmap import Processes, Spawn, ordered_imap, ordered_map

kind, situation = sys.argv[1:]
in_use = {"processes": Processes, "spawn": Spawn}.get(kind)
warnings.simplefilter("always")
warnings.showwarning = lambda message, *_: print("warned:", message)

class Locked:
    def __init__(self):
        self.lock = threading.Lock()
    def __len__(self):
        return 3
    def __getitem__(self, index):
        return index

async def awaited(number):
    return number

class Unpicklable:
    def __reduce__(self):
        raise TypeError("this one stays here")

def made(_):
    return Unpicklable()

def backend(**options):
    if in_use is None:
        return ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork"))
    return in_use(2, **options)

def attempt(make, work):
    try:
        pool = make()
        try:
            print(list(work(pool)))
        finally:
            getattr(pool, "close", getattr(pool, "shutdown", None))()
    except Exception as error:
        print("raised:", error)

if situation == "JAX":
    sys.modules["jax"] = types.ModuleType("jax")
elif situation == "set_start_method":
    multiprocessing.set_start_method("spawn")
elif situation == "no Python":
    multiprocessing.set_start_method("spawn")
    multiprocessing.set_executable("/bin/true" if os.environ.get("ORDMAP_PORTABLE") != "1" else sys.executable)

attempt(backend, lambda pool: ordered_imap(Locked(), backend=pool))
attempt(backend, lambda pool: ordered_map(str, [1, Unpicklable()], backend=pool))
attempt(backend, lambda pool: ordered_map(made, [1], backend=pool))
attempt(backend, lambda pool: ordered_map(awaited, [1], backend=pool))
if in_use is not None:
    attempt(lambda: backend(initializer=threading.Lock().acquire), lambda pool: ordered_map(abs, [1], backend=pool))
    attempt(lambda: backend().start(), lambda pool: ordered_imap(Locked(), backend=pool))
"""


ENGINE = pytest.mark.skipif(not available(), reason="the engine is for Linux")
SITUATIONS = ("plain", "JAX", "set_start_method", "no Python")
CASES = [
    *(pytest.param(kind, False, one, marks=ENGINE) for kind in ("processes", "spawn") for one in SITUATIONS),
    ("processes", True, "set_start_method"),
    *(
        pytest.param(kind, True, one, marks=pytest.mark.long)
        for kind in ("processes", "spawn")
        for one in SITUATIONS
        if (kind, one) != ("processes", "set_start_method")
    ),
    ("executor", False, "plain"),
]


@pytest.mark.parametrize(("kind", "portable", "situation"), CASES)
def test_no_message_names_the_backend_in_use(kind, portable, situation, script):
    environment = os.environ | {"ORDMAP_PORTABLE": str(int(portable)), "PYTHONWARNINGS": "default"}
    done = subprocess.run(
        [sys.executable, script(PROGRAM), kind, situation],
        capture_output=True, text=True, timeout=60, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "raised: " in done.stdout
    advised = re.findall(r"(?:use|or|with|write) (?:backend=)?'(\w+)'", done.stdout)
    assert advised
    assert kind not in advised, done.stdout
    if situation == "JAX":
        assert "processes" not in advised, done.stdout
