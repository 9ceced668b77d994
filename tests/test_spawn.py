"""Workers as fresh interpreters."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from ordmap import BackendUnavailableError, RemoteError, Spawn, WorkerDiedError, ordered_imap, ordered_map
from ordmap.engine import available
from test_engine import Items, children, gathered, nothing_left, program  # noqa: F401

pytestmark = pytest.mark.skipif(not available(), reason="the engine is for Linux")


def test_results_are_those_of_map():
    assert list(ordered_imap(Items(200, lambda i: i * i), 2, backend="spawn")) == [i * i for i in range(200)]
    assert list(ordered_map(lambda x: x + 1, range(50), workers=2, backend="spawn")) == list(range(1, 51))


def test_a_warm_pool_gets_the_next_dataset_and_keeps_its_workers():
    with Spawn(2) as pool:
        pids = set()
        for run in range(4):
            got = list(ordered_imap(Items(20, lambda i: (os.getpid(), i + run)), backend=pool))
            assert [x for _, x in got] == [i + run for i in range(20)]
            pids |= {pid for pid, _ in got}
        assert len(pids) <= 2


def test_interpreters_are_started_side_by_side(script, monkeypatch):
    """Each waits, before it runs a line of ours, until all are there: in a row they would wait for ever."""
    started = script("", "started")
    script(
        f"""
import os, time
with open({str(started)!r}, "a") as file:
    file.write(".")
give_up = time.monotonic() + 30
while os.path.getsize({str(started)!r}) < 3:
    time.sleep(0.002)
    if time.monotonic() > give_up:
        os._exit(1)
""",
        "sitecustomize.py",
    )
    monkeypatch.setenv("PYTHONPATH", str(started.parent), prepend=os.pathsep)
    with Spawn(3) as pool:
        assert list(ordered_imap(range(6), backend=pool)) == [*range(6)]
    assert started.read_text() == "..."


def test_a_static_dataset_is_sent_once():
    class Counted(Items):
        pickled = 0

        def __reduce__(self):
            Counted.pickled += 1
            return list, (list(range(self.length)),)

    dataset = Counted(20, None)
    with Spawn(2, static_dataset=True) as pool:
        for _ in range(3):
            assert list(ordered_imap(dataset, backend=pool)) == list(range(20))
    assert Counted.pickled == 1


def test_a_death_costs_its_own_item_only():
    got = gathered(ordered_imap(Items(20, lambda i: os._exit(3) if i == 7 else i), 2, 8, backend="spawn"))
    assert isinstance(got[7], WorkerDiedError)
    assert [x for i, x in enumerate(got) if i != 7] == [i for i in range(20) if i != 7]


def test_a_worker_that_comes_late_knows_which_runs_are_over():
    with Spawn(2) as pool:
        assert list(ordered_imap(Items(5, lambda i: i), backend=pool)) == list(range(5))
        for _ in range(3):
            got = gathered(ordered_imap(Items(12, lambda i: os._exit(3) if i == 4 else i), backend=pool, prefetch=4))
            assert isinstance(got[4], WorkerDiedError)


def test_what_can_not_be_pickled_is_refused_and_what_can_not_be_unpickled_is_said():
    lock = threading.Lock()
    with pytest.raises(BackendUnavailableError, match="can't be pickled"):
        list(ordered_imap(Items(5, lambda i: lock), 2, backend="spawn"))
    assert not children()

    class Odd:
        def __reduce__(self):
            return int, ("x",)

    odd = Odd()
    with pytest.raises(RemoteError, match="the dataset can't be rebuilt in worker .*: ValueError: invalid literal"):
        list(ordered_imap(Items(5, lambda i: odd), 2, backend="spawn"))


def test_a_dataset_that_kills_while_it_is_unpickled():
    class Deadly:
        def __reduce__(self):
            return os._exit, (4,)

    deadly = Deadly()
    with pytest.raises(WorkerDiedError, match="while they unpickle the job|before they begin"):
        list(ordered_imap(Items(5, lambda i: deadly), 2, backend="spawn"))


def test_no_process_is_started_beside_the_workers(tmp_path):
    script = """
        import os
        from ordmap import ordered_imap
        from multiprocessing import resource_tracker
        assert len(set(ordered_imap(range(50), 2, backend="spawn"))) == 50
        assert resource_tracker._resource_tracker._fd is None
    """
    done = program(script)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_portable_path_can_be_forced():
    script = """
        from ordmap import Processes, Spawn, ordered_imap
        assert Processes.__module__ == Spawn.__module__ == "ordmap.backends.portable"
        for backend in ("processes", "spawn"):
            assert list(ordered_imap(range(50), 2, backend=backend)) == list(range(50))
    """
    done = program(script, env={**os.environ, "ORDMAP_PORTABLE": "1"})
    assert (done.returncode, done.stderr) == (0, "")


def test_initializers():
    def begin(value):
        os.environ["ORDMAP_TEST"] = value

    with Spawn(2, initializer=begin, initargs=("x",)) as pool:
        assert set(ordered_imap(Items(8, lambda i: os.environ["ORDMAP_TEST"]), backend=pool)) == {"x"}
    with pytest.raises(WorkerDiedError, match="initializer failed"):
        list(ordered_imap(range(4), backend=Spawn(2, initializer=lambda: 1 / 0)))


def test_large_buffers_of_the_dataset_are_shared_and_written_to_apart():
    np = pytest.importorskip("numpy")
    big = np.zeros(2_000_000)

    def item(i):
        big[i] += 1
        shared = next(
            line
            for line in open("/proc/self/maps")
            if "memfd:ordmap" in line
            and int(line.split("-")[0], 16) <= big.ctypes.data < int(line.split("-")[1].split()[0], 16)
        )
        return big[: i + 1].sum() <= i + 1, shared.split()[1]

    assert set(ordered_imap(Items(40, item), 2, backend="spawn")) == {(True, "rw-p")}
    assert not big.any()


def test_a_script_needs_no_guard_and_its_classes_come_back(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nfrom dataclasses import dataclass\nfrom ordmap import ordered_imap\n"
        "print('run')\n"
        "@dataclass\nclass Sample:\n    x: int\n"
        "class Data:\n"
        "    def __len__(self): return 20\n"
        "    def __getitem__(self, i): return Sample(i), sys.argv[1:], __name__\n"
        "got = list(ordered_imap(Data(), 2, backend='spawn'))\n"
        "assert got == [(Sample(i), ['a', 'b'], '__main__') for i in range(20)], got\n"
        "import pickle, ordmap\n"
        "class Size:\n"
        "    def __len__(self): return 4\n"
        "    def __getitem__(self, i):\n"
        "        from ordmap.engine.codec import _pickled\n"
        "        return len(_pickled(Sample(i), []))\n"
        "assert max(ordered_imap(Size(), 2, backend='spawn')) < 100\n"
        "print('end')\n"
    )
    done = subprocess.run([sys.executable, script, "a", "b"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "run\nend\n"


class Unreadable(Items):
    def __reduce__(self):
        return int, ("not a number",)


def test_a_static_dataset_that_can_t_be_rebuilt_fails_each_time():
    with Spawn(1, static_dataset=True) as pool:
        dataset = Unreadable(10, None)
        for _ in range(2):
            with pytest.raises(RemoteError, match="can't be rebuilt"):
                next(ordered_imap(dataset, backend=pool))


@pytest.mark.parametrize("backend", ["processes", "spawn"])
def test_nothing_imports_numpy_or_torch_for_results(script, backend):
    path = script(
        f"""
import sys
from ordmap import ordered_imap

class Buffers:
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return bytes(100_000), {{"numpy", "torch"}} & set(sys.modules)

for buffer, imported in ordered_imap(Buffers(), 1, backend={backend!r}):
    print(len(buffer), imported | {{"numpy", "torch"}} & set(sys.modules))
"""
    )
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("100000 set()\n" * 3, "")
