"""What a script defines reaches fresh interpreters, however the script is run, and these are as their caller is."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
import zipapp
from pathlib import Path

import psutil
import pytest

import ordmap
from ordmap import BackendUnavailableError, Spawn, ordered_imap, ordered_map
from ordmap.engine import available, executable
from ordmap.names import importable

pytestmark = pytest.mark.skipif(not available(), reason="the engine is for Linux")

#: Everything that a script may define and that has to travel, there and back.
BODY = """
import enum, os, sys
from dataclasses import dataclass
from typing import Generic, TypeVar
from ordmap import Processes, Spawn, ordered_imap, ordered_map
from ordmap.backends import portable

T = TypeVar("T")
FACTOR = 3

@dataclass
class Point:
    x: int

class Box(Generic[T]):
    def __init__(self, content): self.content = content

class Colour(enum.Enum):
    RED = 1

class Bad(Exception):
    pass

class Data:
    def __len__(self): return 4
    def __getitem__(self, i):
        if i == 3:
            raise Bad(i)
        return Point(i * FACTOR)

begun = []
def begin(value): begun.append(value)

def work(point):
    assert type(point) is Point, type(point)
    return Point(point.x + 1), Colour.RED, Box(point.x), Box

def main():
    makes = [Processes, Spawn, portable.Processes, portable.Spawn]
    if "BY_MULTIPROCESSING_NOT" in os.environ:
        makes.remove(portable.Spawn)
    for make in makes:
        with make(2, initializer=begin, initargs=(Point(7),)) as pool:
            got = iter(ordered_imap(Data(), backend=pool))
            found = [next(got), next(got), next(got)]
            assert found == [Point(0), Point(3), Point(6)] and all(type(p) is Point for p in found), found
            try:
                next(got)
            except Bad:
                pass
            for point, colour, box, kind in ordered_map(work, [Point(1), Point(2)], backend=pool):
                assert type(point) is Point and colour is Colour.RED and type(box) is Box and kind is Box, (point, kind)
            assert list(ordered_map(lambda p: [Point(p.x)] * 2, [Point(5)] * 3, backend=pool)) == [[Point(5)] * 2] * 3
    print("all is well")
"""

GUARDED = BODY + '\nif __name__ == "__main__":\n    main()\n'


def run(*arguments, cwd=None, portable=False, **options):
    """Run Python as a user does, to its end, and return what it printed."""
    options.setdefault("env", dict(os.environ))
    if portable:
        options["env"]["ORDMAP_PORTABLE"] = "1"
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True, text=True, timeout=100, cwd=cwd, check=False, **options,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def by_multiprocessing(method):
    return lambda folder: [
        _written(
            folder / "script.py",
            f"{BODY}\nimport multiprocessing\nif __name__ == '__main__':\n"
            f"    child = multiprocessing.get_context({method!r}).Process(target=main)\n    child.start(); child.join()\n",
        )
    ]


def by_tool(*tool):
    return lambda folder: [*tool, _written(folder / "script.py", BODY + "\nmain()\n")]


def by_package(folder):
    (folder / "package").mkdir()
    _written(folder / "package/__init__.py", "")
    _written(folder / "package/__main__.py", GUARDED)
    return ["-m", "package"]


def by_zipapp(folder):
    (folder / "app").mkdir()
    _written(folder / "app/__main__.py", "from core import Data, main\nmain()\n")
    _written(folder / "app/core.py", BODY)
    zipapp.create_archive(folder / "app", folder / "app.pyz")
    return [folder / "app.pyz"]


def by_zipapp_s_main(folder):
    (folder / "app").mkdir()
    _written(folder / "app/__main__.py", GUARDED)
    zipapp.create_archive(folder / "app", folder / "app.pyz")
    return [folder / "app.pyz"]


def by_code(code):
    """Have a program run what lies in body.py, by this code."""

    def way(folder):
        _written(folder / "body.py", BODY)
        _written(folder / "running.py", BODY + "\nmain()\n")
        return ["-P", "-c", code]

    return way


def _written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


FROM_FILE = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location({name!r}, {file!r})
module = importlib.util.module_from_spec(spec)
sys.modules[{name!r}] = module
spec.loader.exec_module(module)
module.main()
"""

WAYS = {
    "a child of multiprocessing's, spawned": by_multiprocessing("spawn"),
    "a child of multiprocessing's fork server": by_multiprocessing("forkserver"),
    "cProfile": by_tool("-m", "cProfile", "-o", "/dev/null"),
    "profile": by_tool("-m", "profile", "-o", "/dev/null"),
    "trace": by_tool("-m", "trace", "--ignore-dir", f"{sys.prefix}:{sys.base_prefix}:{Path(ordmap.__file__).parent}", "-C", ".", "--count"),
    "pdb": by_tool("-m", "pdb", "-c", "continue", "-c", "quit"),
    "a package": by_package,
    "a zipapp": by_zipapp,
    "a zipapp's main module": by_zipapp_s_main,
    "runpy.run_path": by_code("import runpy; runpy.run_path('running.py', run_name='job')"),
    "runpy.run_path, then a call": by_code("import runpy; runpy.run_path('body.py')['main']()"),
    "runpy.run_module": by_code("import sys, runpy; sys.path.insert(0, ''); runpy.run_module('running', run_name='job', alter_sys=True)"),
    "exec, with a name": by_code("space = {'__name__': 'space'}; exec(open('body.py').read(), space); space['main']()"),
    "a module made by hand": by_code("import sys, types; m = sys.modules['by_hand'] = types.ModuleType('by_hand'); exec(open('body.py').read(), vars(m)); m.main()"),
    "a file, under its name": by_code(FROM_FILE.format(name="body", file="body.py")),
    "a file, under a name of one's own": by_code(FROM_FILE.format(name="tests.of.mine", file="body.py")),
    "a file of the path, under another name": by_code("import sys; sys.path.insert(0, '.')" + FROM_FILE.format(name="version_2", file="body.py")),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_what_a_script_defines_travels_however_it_is_run(tmp_path, way):
    env = {**os.environ, "PYTHONWARNINGS": "ignore"}  # of forks beside threads
    env.pop("PYTHONSAFEPATH", None)
    if way == "pdb" and sys.version_info < (3, 12):
        # It starts no fresh interpreter itself under this pdb, whose __main__ has no __spec__.
        env["BY_MULTIPROCESSING_NOT"] = "1"
    assert "all is well" in run(*WAYS[way](tmp_path), cwd=tmp_path, env=env)


def test_a_class_of_the_script_comes_back_by_its_name_where_that_leads_to_it(tmp_path):
    size = BODY + (
        "\nclass Size:\n"
        "    def __len__(self): return 4\n"
        "    def __getitem__(self, i):\n"
        "        from ordmap.engine.codec import _pickled\n"
        "        return len(_pickled(Point(i), []))\n"
        "def measure(): print(*ordered_imap(Size(), 2, backend='spawn'))\n"
    )
    child = "import multiprocessing\nif __name__ == '__main__':\n    c = multiprocessing.get_context('spawn').Process(target=measure)\n    c.start(); c.join()\n"
    by_name = run(_written(tmp_path / "a.py", size + "measure()\n"))
    in_child = run(_written(tmp_path / "b.py", size + child))
    profiled = run("-m", "cProfile", "-o", "/dev/null", _written(tmp_path / "c.py", size + "measure()\n"))
    assert max(map(int, (by_name + in_child).split())) < 100 < min(map(int, profiled.split()))


def test_what_is_installed_goes_by_its_name():
    import cloudpickle
    import numpy as np
    import pandas as pd

    verdicts = importable()
    for name in (
        "json",
        "os.path",
        "xml.parsers.expat",
        "numpy",
        "numpy.rec",
        "pandas.core.frame",
        "ordmap",
        "ordmap.names",
    ):
        assert verdicts[name], name
    assert verdicts[__name__] == (str(Path(__file__).parent) in sys.path)
    from ordmap.by_value import dumps

    for value in (np.sum, np.ndarray, pd.DataFrame, pd.DataFrame.merge, json.dumps, cloudpickle.dumps, Path):
        assert len(dumps(value)) < 200, value


# Modules that run a loop


BOMBS = {
    "its own function": "def f(x): return x\nR = list(ordered_map(f, range(4), workers=2, backend=BACKEND))\n",
    "its own dataset": (
        "class D:\n    def __len__(self): return 4\n    def __getitem__(self, i): return i\n"
        "R = list(ordered_imap(D(), workers=2, backend=BACKEND))\n"
    ),
    "inputs of its own class": (
        "class P:\n    def __init__(self, x): self.x = x\n"
        "R = list(ordered_map(lambda p: p.x, [P(i) for i in range(4)], workers=2, backend=BACKEND))\n"
    ),
    "its own initializer": (
        "def begin(): pass\nfrom ordmap import Spawn\n"
        "with Spawn(2, initializer=begin) as pool: R = list(ordered_map(abs, range(4), backend=pool))\n"
    ),
    "a module that imports it": "import second\nR = list(ordered_map(second.f, range(4), workers=2, backend=BACKEND))\n",
    "forked workers of its own": (
        "import __main__\nif __main__.__dict__.get('IN_WORKER', True): BACKEND = 'processes'  # this is a worker\n"
        "def f(x): return x\nR = list(ordered_map(f, range(4), workers=2, backend=BACKEND))\n"
    ),
    "an executor of its own": (
        "def f(x): return x\nfrom concurrent.futures import ProcessPoolExecutor\nimport multiprocessing\n"
        "with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context('spawn')) as executor:\n"
        "    R = list(ordered_map(f, range(4), backend=executor))\n"
    ),
}

#: Modules whose loop needs nothing of themselves, which is harmless.
SAFE = {"a function that is built in": "R = list(ordered_map(abs, range(4), workers=2, backend=BACKEND))\n"}


def watched(arguments, cwd, env):
    """Run a program to its end, and return it with the number of all processes that it had at any time."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd, env=env,
    )  # fmt: skip
    seen = set()
    with process:
        while process.poll() is None:
            time.sleep(0.01)  # a tenth of what the shortest life of a worker takes
            with contextlib.suppress(psutil.NoSuchProcess):
                seen |= {child.pid for child in psutil.Process(process.pid).children(recursive=True)}
            if len(seen) > 20:
                for child in psutil.Process(process.pid).children(recursive=True):
                    child.kill()
                process.kill()
        output = process.stdout.read(), process.stderr.read()
    return process.returncode, *output, len(seen)


@pytest.mark.parametrize("portable", [False, True], ids=["", "portable"])
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_module_that_runs_a_loop_when_it_is_imported_is_told_so(tmp_path, bomb, portable):
    _written(tmp_path / "bomb.py", f"from ordmap import ordered_imap, ordered_map\nBACKEND = 'spawn'\n{BOMBS[bomb]}")
    _written(tmp_path / "second.py", "def f(x): return x\nimport bomb\n")
    env = {**os.environ, **({"ORDMAP_PORTABLE": "1"} if portable else {})}
    code, out, err, processes = watched(["-c", "IN_WORKER = False; import bomb"], tmp_path, env)
    assert code == 1, out
    assert "put the loop into a function" in err
    assert processes <= 4 + (portable or "executor" in bomb)  # a resource tracker


@pytest.mark.parametrize("safe", SAFE)
def test_a_loop_at_import_that_no_worker_meets_is_none_of_our_business(tmp_path, safe):
    _written(tmp_path / "bomb.py", f"from ordmap import ordered_map\nBACKEND = 'spawn'\n{SAFE[safe]}")
    code, out, err, _ = watched(["-c", "import bomb; print(bomb.R)"], tmp_path, dict(os.environ))
    assert (code, out, err) == (0, "[0, 1, 2, 3]\n", "")


def test_an_initializer_imports_no_module_that_starts_workers(tmp_path):
    _written(
        tmp_path / "bomb.py",
        "from ordmap import ordered_map\nR = list(ordered_map(abs, [1], workers=2, backend='spawn'))\n",
    )
    program = _written(
        tmp_path / "main.py",
        "from ordmap import Spawn, ordered_map\ndef begin():\n    import bomb\n"
        "print(list(ordered_map(abs, range(4), backend=Spawn(2, initializer=begin))))\n",
    )
    code, _, err, _ = watched([program], tmp_path, dict(os.environ))
    assert code == 1
    assert "initializer failed" in err and "put the loop into a function" in err


@pytest.mark.parametrize("backend", ["processes", "spawn"])
def test_an_item_may_import_a_module_that_runs_a_loop_and_start_workers(script, backend):
    script(
        "from ordmap import ordered_map\nR = list(ordered_map(abs, range(3), workers=1, backend='spawn'))\n", "loops.py"
    )
    path = script(
        "from ordmap import ordered_map\n"
        "def item(i):\n"
        "    import loops\n"
        "    return loops.R + list(ordered_map(abs, range(2), workers=1, backend='processes'))\n"
        f"print(list(ordered_map(item, range(2), workers=1, backend={backend!r})))\n"
    )
    assert run("-W", "ignore", path) == f"{[[0, 1, 2, 0, 1]] * 2}\n"


def test_a_module_that_ends_its_worker_when_it_is_imported_is_tried_no_more_than_thrice(tmp_path):
    _written(
        tmp_path / "deadly.py",
        "import os, ordmap\nif 'main' not in os.environ.get('WHO', ''): os._exit(3)\ndef f(x): return x\n",
    )
    program = _written(
        tmp_path / "main.py",
        "import os\nos.environ['WHO'] = 'main'\nimport deadly\ndel os.environ['WHO']\nfrom ordmap import ordered_map\n"
        "print(list(ordered_map(deadly.f, range(4), workers=2, backend='spawn')))\n",
    )
    code, _, err, processes = watched([program], tmp_path, dict(os.environ))
    assert code == 1 and "workers die while they unpickle the job" in err
    assert processes <= 6


# As the caller is


def there(function, **options):
    """Return what a function gives in a fresh interpreter."""
    return next(iter(ordered_map(lambda _: function(), [0], backend=Spawn(1, **options))))


AS_TOLD = """
import sys, warnings
from ordmap import Processes, Spawn, ordered_map
import numpy as np

class Mine(UserWarning): pass

sys.setrecursionlimit(4321)
sys.set_int_max_str_digits(5000)
sys.setswitchinterval(0.25)
sys.dont_write_bytecode = True
warnings.filterwarnings("error", category=DeprecationWarning, message="old")
warnings.filterwarnings("ignore", category=RuntimeWarning)
warnings.filterwarnings("error", category=np.exceptions.ComplexWarning)
sys.path += [__import__("pathlib").Path("/nowhere"), *(f"/nowhere/{n:04}" * 20 for n in range(3000))]
sys.argv += ["x" * 200_000]

def item(_):
    told = sys.getrecursionlimit(), sys.get_int_max_str_digits(), sys.getswitchinterval(), sys.dont_write_bytecode
    flags = sys.flags.optimize, sys.flags.utf8_mode, sys.flags.dev_mode, sys._xoptions.get("mine"), sys._xoptions.get("no_debug_ranges"), sys.warnoptions
    seen = []
    for text, category in (("old", DeprecationWarning), ("new", RuntimeWarning), ("complex", np.exceptions.ComplexWarning)):
        try:
            warnings.warn(text, category)
        except Warning as warning:
            seen.append(str(warning))
    def depth(n): return n and depth(n - 1)
    return told, flags, seen, len(sys.path), list(map(type, sys.path[-3001:-2998])), sys.argv, hash("text"), depth(3000)

here = item(0)
for make in (Processes, Spawn):
    (got,) = ordered_map(item, [0], backend=make(1))
    assert got == here, (got[:3], here[:3], got[3:5], got[6:])
print("alike")
"""


@pytest.mark.parametrize("portable", [False, True], ids=["", "portable"])
def test_an_interpreter_is_told_what_its_caller_is_told(script, portable):
    env = {**os.environ, "PYTHONHASHSEED": "7"}
    if portable:  # what the standard library tells its children
        options = ["-X", "utf8"]
    else:
        options = ["-O", "-X", "utf8", "-X", "mine=2", "-X", "no_debug_ranges", "-W", "ignore::ImportWarning"]
    assert run(*options, script(AS_TOLD), portable=portable, env=env) == "alike\n"


@pytest.mark.parametrize("flags", [["-I"], ["-E", "-s"], ["-P", "-B"], ["-u"]], ids=" ".join)
def test_an_interpreter_has_its_caller_s_flags(script, flags):
    path = script(
        f"import sys\nsys.path.insert(0, {str(Path(ordmap.__file__).parents[1])!r})\n"
        "from ordmap import ordered_map\ndef flags(_=0): return tuple(sys.flags)\n"
        "print(*ordered_map(lambda _: flags() == {0}, [0], workers=1, backend='spawn'))\n".replace(
            "{0}", "HERE"
        ).replace("print(", "HERE = flags()\nprint(")
    )
    assert run(*flags, path) == "True\n"


def test_files_of_the_working_directory_are_not_taken_for_python_s(tmp_path):
    for name in ("pickle", "marshal", "os", "signal", "socket"):
        _written(tmp_path / f"{name}.py", "raise SystemExit('the wrong file')\n")
    (tmp_path / "scripts").mkdir()
    path = _written(
        tmp_path / "scripts/script.py",
        "from ordmap import ordered_map\nprint(*ordered_map(abs, range(3), workers=1, backend='spawn'))\n",
    )
    assert run(path, cwd=tmp_path) == "0 1 2\n"


def test_workers_start_where_the_working_directory_is_gone(script, tmp_path):
    (tmp_path / "gone").mkdir()
    plain = 'cd gone && rmdir "$PWD" && "$0" -c "import socket"'
    if subprocess.run(["sh", "-c", plain, sys.executable], cwd=tmp_path, capture_output=True, check=False).returncode:
        pytest.skip("this Python itself doesn't (early ones of 3.13)")
    (tmp_path / "gone").mkdir()
    path = script(
        "import os\nfrom ordmap import ordered_map\nos.chdir('gone'); os.umask(0o027); os.rmdir(os.getcwd())\n"
        "def item(_):\n    mask = os.umask(0); os.umask(mask)\n    return mask, os.path.exists(os.curdir)\n"
        "print(*ordered_map(item, [0], workers=1, backend='spawn'))\n"
    )
    assert run(path, cwd=tmp_path) == "(23, True)\n"


def test_a_filter_of_a_library_s_category_costs_no_import(script):
    path = script(
        "import sys, numpy as np, warnings\nfrom ordmap import ordered_map\n"
        "warnings.filterwarnings('error', category=np.exceptions.ComplexWarning)\n"
        "def item(_): return __import__('sys').modules.get('numpy') is None\n"
        "print(*ordered_map(item, [0], workers=1, backend='spawn'))\n"
    )
    assert run(path) == "True\n"


# Which program it is


@pytest.fixture
def unproven(monkeypatch):
    monkeypatch.setattr(executable, "_proven", set())
    monkeypatch.setattr(executable, "_PATIENCE", 1.0)


def program(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("empty", ["", None])
def test_no_executable_is_one_clear_error(monkeypatch, empty):
    monkeypatch.setattr(sys, "executable", empty)
    monkeypatch.delitem(sys.modules, "multiprocessing.spawn", raising=False)
    with pytest.raises(BackendUnavailableError, match="sys.executable is .*: name the Python .*set_executable"):
        list(ordered_imap(range(3), 1, backend="spawn"))


@pytest.mark.parametrize(
    "text",
    ["exec sleep 600", "exit 0", "echo usage: host; exit 2", 'exec "$0.again" & exec sleep 600'],
    ids=["waits", "ends", "fails", "has children"],
)
def test_a_host_program_is_no_worker(monkeypatch, tmp_path, unproven, text):
    monkeypatch.setattr(sys, "executable", program(tmp_path / "host", text))
    monkeypatch.delitem(sys.modules, "multiprocessing.spawn", raising=False)
    with pytest.raises(BackendUnavailableError, match="host does not become a worker .*set_executable"):
        list(ordered_imap(range(3), 1, backend="spawn"))


def test_a_host_program_that_runs_the_same_script_starts_no_chain(tmp_path, script):
    path = script(
        "import os, sys\nfrom ordmap.engine import executable\nexecutable._PATIENCE = 20\n"
        "open('begun', 'a').write('.')\n"
        "sys.executable = os.path.abspath('host')\n"
        "from ordmap import ordered_map\nprint(list(ordered_map(abs, range(3), workers=2, backend='spawn')))\n"
    )
    program(tmp_path / "host", f'exec "{sys.executable}" "{path}"')
    done = subprocess.run([sys.executable, path], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1 and "set_executable" in done.stderr
    assert (tmp_path / "begun").read_text() == ".."


@pytest.mark.parametrize("name", ["python-of-mine", "host"])
def test_the_executable_is_multiprocessing_s(monkeypatch, tmp_path, unproven, name):
    import multiprocessing.spawn

    before = multiprocessing.spawn.get_executable()
    multiprocessing.set_executable(program(tmp_path / name, f'STARTED_BY={name} exec "{sys.executable}" "$@"'))
    try:
        assert there(lambda: os.environ.get("STARTED_BY")) == name
    finally:
        multiprocessing.set_executable(before)


def test_an_executable_that_is_none(monkeypatch, tmp_path, unproven):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python-that-is-gone"))
    monkeypatch.delitem(sys.modules, "multiprocessing.spawn", raising=False)
    with pytest.raises(BackendUnavailableError, match="python-that-is-gone is none: name the Python"):
        list(ordered_imap(range(3), 1, backend="spawn"))
