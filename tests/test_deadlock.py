"""The situations in which a pool of processes may wait for ever: those that CPython's own test_deadlock.py knows.

Each is an error, an exit or a crash on the way of an item: while its input is pickled or unpickled, while it is
computed, while its result is pickled or unpickled. Further ones: much is under way while workers die, or while the pool
is closed. There all is lost at the first crash. Here the item fails, under its own name, and all others come, in order.

What kills the caller itself is beyond any library, so what happens there are errors and exits, and no crash.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import pickle
import re
import signal
import subprocess
import sys
from functools import partial

import pytest

from ordmap import OrdmapError, Processes, RemoteError, Spawn, WorkerDiedError, ordered_imap, ordered_map
from ordmap.backends import portable
from ordmap.engine import available
from ordmap.testing import outcomes, wait_until

pytestmark = [pytest.mark.skipif(not available(), reason="the engine is for Linux"), pytest.mark.timeout(60)]

ENGINE = [Processes, Spawn]
PORTABLE = [portable.Processes, portable.Spawn]

#: Workers and chunks. What travels by chunks does so alike in fresh interpreters, which take long to begin.
CROSS = [
    *(("processes", chunksize) for chunksize in (None, 1, 3)),
    ("spawn", None),
    *(pytest.param("spawn", chunksize, marks=pytest.mark.long) for chunksize in (1, 3)),
]

#: More bytes than any pipe or socket has room for.
LARGE = "a" * ((4 << 20) + 1)


# What befalls an item


def error():
    raise pickle.PickleError("not this one")


def leave():
    sys.exit("good bye")


def end():
    os._exit(7)


def crash():
    faulthandler.disable()  # it would fill the log
    faulthandler._sigsegv()


class AtPickle:
    """An object that nobody can pickle, for something happens then."""

    def __init__(self, effect, *luggage):
        self.effect = effect
        self.luggage = luggage

    def __reduce__(self):
        return AtPickle, (self.luggage, _Effect(self.effect))


class _Effect:
    """What takes place once all that stands before it in a pickle is written."""

    def __init__(self, effect):
        self.effect = effect

    def __reduce__(self):
        self.effect()
        return str, ()


class AtUnpickle:
    """An object that nobody can unpickle, for something happens then."""

    def __init__(self, effect, *luggage):
        self.effect = effect
        self.luggage = luggage

    def __reduce__(self):
        return _take_place, (self.effect, self.luggage)


def _take_place(effect, luggage):
    return effect()


class AtPickleError(AtPickle, Exception):
    """The same as an exception."""


class AtUnpickleError(AtUnpickle, Exception):
    """The same as an exception."""


def fail(kind, effect):
    raise kind(effect)


def work(given):
    """Return ten times a number; anything else says itself what it gives."""
    return given() if callable(given) else 10 * given


#: The input, and the error that comes in the place of its result: its class, and what it says.
SITUATIONS = {
    "input pickled: error": (AtPickle(error), RemoteError, "the input can't be pickled: .*PickleError: not this one"),
    "input pickled: exit": (AtPickle(leave), RemoteError, "SystemExit: good bye"),
    "input unpickled: error": (AtUnpickle(error), pickle.PickleError, "not this one"),
    "input unpickled: exit": (AtUnpickle(leave), RemoteError, "SystemExit: good bye"),
    "input unpickled: end": (AtUnpickle(end), WorkerDiedError, "exit code 7"),
    "input unpickled: crash": (AtUnpickle(crash), WorkerDiedError, "SIGSEGV"),
    "computed: error": (error, pickle.PickleError, "not this one"),
    "computed: exit": (leave, RemoteError, "SystemExit: good bye"),
    "computed: end": (end, WorkerDiedError, "exit code 7"),
    "computed: crash": (crash, WorkerDiedError, "SIGSEGV"),
    "result pickled: error": (partial(AtPickle, error), RemoteError, "AtPickle, can't be pickled: .*: not this one"),
    "result pickled: exit": (partial(AtPickle, leave), RemoteError, "can't be pickled: SystemExit: good bye"),
    "result pickled: end": (partial(AtPickle, end), WorkerDiedError, "exit code 7"),
    "result pickled: crash": (partial(AtPickle, crash), WorkerDiedError, "SIGSEGV"),
    "result unpickled: error": (partial(AtUnpickle, error), RemoteError, "the result can't be unpickled: .*: not this"),
    "result unpickled: exit": (partial(AtUnpickle, leave), RemoteError, "SystemExit: good bye"),
    "large result unpickled: error": (partial(AtUnpickle, error, LARGE), RemoteError, "the result can't be unpickled"),
    "large result unpickled: exit": (partial(AtUnpickle, leave, LARGE), RemoteError, "SystemExit: good bye"),
    # What its own way to be pickled does is its own affair: it is itself all the same, made of what it has.
    "exception pickled: error": (partial(fail, AtPickleError, error), AtPickleError, "function error"),
    "exception pickled: exit": (partial(fail, AtPickleError, leave), AtPickleError, "function leave"),
    "exception pickled: end": (partial(fail, AtPickleError, end), WorkerDiedError, "exit code 7"),
    "exception pickled: crash": (partial(fail, AtPickleError, crash), WorkerDiedError, "SIGSEGV"),
    "exception unpickled: error": (partial(fail, AtUnpickleError, error), AtUnpickleError, "function error"),
    "exception unpickled: exit": (partial(fail, AtUnpickleError, leave), AtUnpickleError, "function leave"),
}


def check(found, inputs):
    """Check that each of these inputs has its result, or the error of its situation, in its place."""
    assert len(found) == len(inputs)
    for index, (one, given) in enumerate(zip(found, inputs, strict=True)):
        if isinstance(given, int):
            assert one == 10 * given
        else:
            kind, said = next((kind, said) for value, kind, said in SITUATIONS.values() if value is given)
            check_failure(one, index, kind, said)


def check_failure(failure, index, kind, said):
    """Check that this is such an error, and that it names the item."""
    assert isinstance(failure, kind)
    assert re.search(said, str(failure))
    assert any(note.startswith(f"ordmap: item {index}, ") for note in failure.__notes__)
    if isinstance(failure, OrdmapError):
        assert failure.index == index


def check_end(found, inputs):
    """Check that a run on the portable path has given results in order, and then has told of a worker's death."""
    *results, death = found
    assert results == [10 * given for given in inputs[: len(results)]]
    assert type(death) is WorkerDiedError
    assert "a worker died, and with it the executor" in str(death)
    assert death.index == len(results)


def ended_by_itself(program):
    """Run a program whose hang, in a thread that isn't its main one, no time limit of a test would end."""
    with subprocess.Popen([sys.executable, program], stderr=subprocess.PIPE, text=True, process_group=0) as running:
        try:
            _, said = running.communicate(timeout=30)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)  # a borrowed executor's workers outlive the program
    assert (running.returncode, said) == (0, "")


# A single item


@pytest.mark.parametrize(("backend", "chunksize"), CROSS)
@pytest.mark.parametrize("situation", SITUATIONS)
def test_it_costs_its_own_item(situation, backend, chunksize):
    inputs = [0, 1, 2, 3, SITUATIONS[situation][0], 5, 6, 7, 8, 9]
    given = ordered_map(work, inputs, workers=2, prefetch=6, backend=backend, chunksize=chunksize)
    check(outcomes(given), inputs)


@pytest.mark.parametrize("make", PORTABLE)
@pytest.mark.parametrize("situation", [name for name in SITUATIONS if name != "input pickled: exit"])
def test_on_the_portable_path_a_death_ends_the_run_and_all_else_costs_its_own_item(situation, make):
    bad, kind, _ = SITUATIONS[situation]
    inputs = [0, 1, 2, 3, bad, 5, 6, 7, 8, 9]
    found = outcomes(ordered_map(work, inputs, prefetch=6, backend=make(2)))
    if kind is WorkerDiedError:
        check_end(found, inputs)
    else:
        check(found, inputs)


@pytest.mark.parametrize("backend", ["portable.Processes(2)", "portable.Spawn(2)", "ProcessPoolExecutor(2)"])
def test_an_exit_while_an_input_is_pickled_for_an_executor(backend, script):
    """In whichever thread that is: the executor's own, which submits what waits for a worker, doesn't survive it."""
    program = script(
        f"""
import sys, time
from concurrent.futures import ProcessPoolExecutor
from ordmap import RemoteError, ordered_map
from ordmap.backends import portable
from ordmap.testing import outcomes

class Leaves:
    def __reduce__(self):
        sys.exit("good bye")

def work(given):
    time.sleep(0.1)  # all have been submitted then, and those that wait for a worker are sent by the executor's thread
    return given

found = outcomes(ordered_map(work, [0, 1, 2, 3, Leaves(), 5], prefetch=6, backend={backend}))
failure = found.pop(4)
assert found == [0, 1, 2, 3, 5], found
assert isinstance(failure, RemoteError) and failure.index == 4 and "SystemExit: good bye" in str(failure), failure
"""
    )
    ended_by_itself(program)


# Several at once: the first item and the last, and one right after another


def in_a_row(situations):
    bad = [SITUATIONS[name][0] for name in situations]
    return [*bad[::2], *(one for number, given in enumerate(bad[1::2]) for one in (number, given)), 1, 2, 3, bad[-1]]


#: An exit in the caller comes alone, above: where that ends the run, it would hide all that stands behind it.
IN_THE_CALLER = (
    "input pickled: exit",
    "result unpickled: exit",
    "large result unpickled: exit",
    "exception unpickled: exit",
)
SURVIVED = [name for name in SITUATIONS if name not in IN_THE_CALLER]


@pytest.mark.parametrize(("backend", "chunksize"), CROSS)
def test_all_in_a_row(backend, chunksize):
    inputs = in_a_row(SURVIVED)
    given = ordered_map(work, inputs, workers=2, prefetch=12, backend=backend, chunksize=chunksize)
    check(outcomes(given), inputs)


class Worked:
    """A dataset of what `work` makes of these."""

    def __init__(self, inputs):
        self.inputs = inputs

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, index):
        name = self.inputs[index]
        return work(SITUATIONS[name][0] if isinstance(name, str) else name)


@pytest.mark.parametrize(("backend", "chunksize"), CROSS)
def test_all_items_of_a_dataset_in_a_row(backend, chunksize):
    names = [name for name in SURVIVED if not name.startswith("input")]
    inputs = in_a_row(names)
    of = {SITUATIONS[name][0]: name for name in names}
    dataset = Worked([one if isinstance(one, int) else of[one] for one in inputs])
    check(outcomes(ordered_imap(dataset, 2, 12, backend=backend, chunksize=chunksize)), inputs)


@pytest.mark.parametrize("backend", ["processes", "spawn"])
def test_what_fails_is_left_out_or_replaced_where_that_is_asked_for(backend):
    inputs = in_a_row([name for name in SURVIVED if "result" in name])
    places = [index for index, one in enumerate(inputs) if not isinstance(one, int)]
    given = partial(ordered_map, work, inputs, workers=2, prefetch=12, backend=backend)
    assert [*given(on_error="skip")] == [10 * one for one in inputs if isinstance(one, int)]
    returned = [*given(on_error="return", retries=1)]
    assert [(returned[place].index, returned[place].attempts) for place in places] == [(place, 2) for place in places]
    check([one.error if place in places else one for place, one in enumerate(returned)], inputs)


# The function, which travels as the inputs do, but once


class Function(AtUnpickle):
    def __call__(self, given):
        return given


@pytest.mark.parametrize("make", [*ENGINE, *PORTABLE])
@pytest.mark.parametrize("effect", [error, leave, end, crash])
def test_a_function_that_can_not_be_had_ends_the_run_and_not_the_pool(make, effect):
    with make(2) as pool:
        assert list(ordered_map(work, [1], backend=pool)) == [10]  # from here on nothing is inherited
        found = outcomes(ordered_map(Function(effect), range(20), backend=pool, prefetch=4))
        if make is Processes and effect in {end, crash}:
            assert found == [*range(20)]  # whoever takes the place of a worker inherits it, and unpickles nothing
        else:
            assert [type(one) for one in found] == [RemoteError if effect in {error, leave} else WorkerDiedError]
        assert list(ordered_map(work, range(20), backend=pool)) == [*range(0, 200, 10)]


# The end of a pool


def wait_and(effect, gate, journal):
    """Have something happen once the gate is open."""
    with open(journal, "a") as file:
        file.write(".")
    wait_until(gate.exists, "the gate opens")
    return effect() if callable(effect) else 10 * effect


@pytest.fixture
def gate(tmp_path):
    return tmp_path / "gate"


@pytest.fixture
def held(gate, tally):
    """Return a function that makes an input of another, whose item waits for the gate."""
    return lambda effect: partial(wait_and, effect, gate, str(tally.path))


@pytest.mark.parametrize("death", ["before", "after"])
@pytest.mark.parametrize("closed", ["iterator", "pool"])
@pytest.mark.parametrize("make", [*ENGINE, *PORTABLE])
def test_closing_while_workers_die(make, closed, death, held, gate, tally):
    with make(2) as pool:
        iterator = ordered_map(work, [held(crash)] * 20, backend=pool, prefetch=8, chunksize=1).start()
        wait_until(lambda: int(tally) == 2, "both workers have an item")
        if death == "before":
            gate.touch()
        (pool if closed == "pool" else iterator).close()
        gate.touch()
        found = outcomes(iterator)
        assert [isinstance(one, OrdmapError) for one in found] == [True] * (closed == "pool")
        assert outcomes(iterator) == []
        assert list(ordered_map(work, range(20), backend=pool)) == [*range(0, 200, 10)]


@pytest.mark.parametrize("closed", ["iterator", "pool"])
@pytest.mark.parametrize("make", [*ENGINE, *PORTABLE])
def test_closing_with_inputs_that_can_not_be_pickled(make, closed, held, gate, tally):
    with make(2) as pool:
        assert list(ordered_map(work, [1], backend=pool)) == [10]
        inputs = [held(0), AtPickle(error), AtPickle(error), held(3), *range(20)]
        iterator = ordered_map(work, inputs, backend=pool, prefetch=8, chunksize=1).start()
        wait_until(lambda: int(tally) == 2, "both workers have an item")
        (pool if closed == "pool" else iterator).close()
        gate.touch()
        assert len(outcomes(iterator)) == (closed == "pool")
        assert list(ordered_map(work, range(20), backend=pool)) == [*range(0, 200, 10)]


@pytest.mark.parametrize("make", PORTABLE)
def test_a_pool_that_has_broken_is_whole_again_in_the_next_run(make):
    with make(2) as pool:
        for _ in range(2):
            inputs = [0, 1, crash, *range(3, 10)]
            check_end(outcomes(ordered_map(work, inputs, backend=pool, prefetch=4)), inputs)
            assert list(ordered_map(work, range(20), backend=pool)) == [*range(0, 200, 10)]
    assert list(ordered_map(work, range(20), backend=pool)) == [*range(0, 200, 10)]


@pytest.mark.parametrize("make", [*ENGINE, *PORTABLE])
def test_two_runs_on_a_pool_whose_workers_die(make):
    with make(2) as pool:
        deadly = [crash if n % 3 == 1 else n for n in range(12)]
        one = ordered_map(work, deadly, backend=pool, prefetch=4, chunksize=1)
        other = ordered_map(work, range(200), backend=pool, prefetch=4, chunksize=1)
        assert next(other) == 0
        if make in ENGINE:
            check(outcomes(one), deadly)
            check([0, *other], range(200))
        else:
            check_end(outcomes(one), deadly)
            check_end([0, *outcomes(other)], range(200))


@pytest.mark.parametrize("backend", ["portable.Processes(2)", "portable.Spawn(2)", "ProcessPoolExecutor(2)"])
def test_two_runs_of_which_one_has_much_waiting(backend, script):
    """The run that hears of the death first cancels what it has, while the executor still tells all of the death."""
    program = script(
        f"""
import os, threading, time
from concurrent.futures import ProcessPoolExecutor
from ordmap import WorkerDiedError, ordered_map
from ordmap.backends import portable
from ordmap.testing import outcomes, wait_until

gate = {str(script("", "gate"))!r}

def die(number):
    while os.path.exists(gate):
        time.sleep(0.002)
    os._exit(7)

with {backend} as backend:
    one = ordered_map(die, range(5000), prefetch=5000, chunksize=1, backend=backend).start()
    other = ordered_map(abs, range(10), backend=backend).start()
    os.unlink(gate)
    assert [type(found) for found in outcomes(one)] == [WorkerDiedError]
    assert [type(found) for found in outcomes(other)] == [WorkerDiedError]
wait_until(lambda: threading.enumerate() == [threading.main_thread()], "the executor's threads have ended")
"""
    )
    ended_by_itself(program)


# Much under way


@pytest.mark.parametrize(("backend", "chunksize"), CROSS)
def test_large_inputs_whose_items_all_crash(backend, chunksize):
    inputs = [partial(crash_with, LARGE)] * 6
    found = outcomes(ordered_map(work, inputs, workers=2, prefetch=6, backend=backend, chunksize=chunksize))
    for index, death in enumerate(found):
        check_failure(death, index, WorkerDiedError, "SIGSEGV")
    assert len(found) == 6


def crash_with(data):
    crash()


def give(data, *others):
    return (data, *others)


@pytest.mark.parametrize(("backend", "chunksize"), CROSS)
def test_large_inputs_and_results_among_crashes(backend, chunksize):
    kinds = [
        (partial(give, LARGE), None, ""),
        (partial(crash_with, LARGE), WorkerDiedError, "SIGSEGV"),
        (AtPickle(error, LARGE), RemoteError, "the input can't be pickled"),
        (AtUnpickle(crash, LARGE), WorkerDiedError, "SIGSEGV"),
        (partial(AtPickle, crash, LARGE), WorkerDiedError, "SIGSEGV"),
        (partial(AtPickle, error, LARGE), RemoteError, "can't be pickled"),
        (partial(AtUnpickle, error, LARGE), RemoteError, "can't be unpickled"),
        (partial(give, LARGE), None, ""),
    ]
    inputs = [given for given, _, _ in kinds] * 2
    found = outcomes(ordered_map(work, inputs, workers=2, prefetch=6, backend=backend, chunksize=chunksize))
    assert len(found) == len(inputs)
    for index, (one, (_, kind, said)) in enumerate(zip(found, kinds * 2, strict=True)):
        if kind is None:
            assert one == (LARGE,)
        else:
            check_failure(one, index, kind, said)


@pytest.mark.parametrize("make", PORTABLE)
@pytest.mark.parametrize("bad", [partial(crash_with, LARGE), AtUnpickle(crash, LARGE), partial(AtPickle, crash, LARGE)])
def test_on_the_portable_path_a_death_among_large_ones_ends_the_run(make, bad):
    inputs = [partial(give, LARGE), partial(give, LARGE), bad, *[partial(give, LARGE)] * 6]
    *results, death = outcomes(ordered_map(work, inputs, prefetch=6, backend=make(2)))
    assert results == [(LARGE,)] * len(results)
    assert type(death) is WorkerDiedError
    assert death.index == len(results) <= 2


#: Items that are submitted at once: more than the channel to the workers takes one by one.
MANY = 1500


@pytest.mark.parametrize("chunksize", [None, 1, 3])
@pytest.mark.parametrize("make", [*ENGINE, *PORTABLE])
def test_submitting_waits_for_nobody(make, chunksize, held, gate):
    """Where all workers are busy for long, and the channel to them is full."""
    inputs = [held(0), held(1), held(2), *range(3, MANY)]
    with ordered_map(work, inputs, prefetch=MANY, backend=make(2), chunksize=chunksize).start() as iterator:
        gate.touch()
        assert list(iterator) == [*range(0, 10 * MANY, 10)]


@pytest.mark.parametrize("chunksize", [None, 1, 3])
@pytest.mark.parametrize("make", [*ENGINE, *PORTABLE])
def test_all_workers_die_with_many_items_waiting(make, chunksize, held, gate):
    inputs = [*range(MANY)]
    for index in (0, 1, 2, 3, 4, 5, 700, 701, MANY - 1):
        inputs[index] = held(crash)
    with ordered_map(work, inputs, prefetch=MANY, backend=make(2), chunksize=chunksize).start() as iterator:
        gate.touch()
        found = outcomes(iterator)
    if make in PORTABLE:
        check_end(found, inputs)
        assert len(found) == 1
        return
    assert len(found) == MANY
    for index, (one, given) in enumerate(zip(found, inputs, strict=True)):
        if isinstance(given, int):
            assert one == 10 * given
        else:
            check_failure(one, index, WorkerDiedError, "SIGSEGV")


@pytest.mark.parametrize("chunksize", [None, 1, 3])
@pytest.mark.parametrize("make", [*ENGINE, *PORTABLE])
def test_an_input_that_can_not_be_pickled_while_others_run_and_wait(make, chunksize, held, gate, tally):
    inputs = [held(0), 1, 2, held(3), AtPickle(error), 5, AtPickle(error), AtPickle(error), *range(8, 100)]
    with ordered_map(work, inputs, prefetch=50, backend=make(2), chunksize=chunksize).start() as iterator:
        wait_until(lambda: int(tally) == 2, "both workers have an item")
        gate.touch()
        found = outcomes(iterator)
    for index in (4, 6, 7):
        check_failure(found[index], index, RemoteError, "the input can't be pickled: .*PickleError: not this one")
        found[index] = 10 * index
    assert found == [*range(0, 1000, 10)]


def noted(journal, given):
    """Return a result that fills a channel soon, and note that it was computed."""
    if callable(given):
        given()
    with open(journal, "a") as file:
        file.write(".")
    return given, b"x" * 4000


@pytest.mark.parametrize("chunksize", [None, 1, 3])
@pytest.mark.parametrize("make", ENGINE)
def test_a_worker_dies_with_results_that_nobody_has_received(make, chunksize, held, gate, tally):
    """Items that it computed come again, or from it: the caller is elsewhere meanwhile, and its channel is full."""
    inputs = [*range(600)]
    inputs[500] = held(crash)
    compute = partial(noted, str(tally.path))
    with ordered_map(compute, inputs, prefetch=600, backend=make(2), chunksize=chunksize).start() as iterator:
        wait_until(lambda: int(tally) >= 500, "what stands before it is computed")
        gate.touch()
        found = outcomes(iterator)
    check_failure(found[500], 500, WorkerDiedError, "SIGSEGV")
    del found[500]
    assert found == [(n, b"x" * 4000) for n in range(600) if n != 500]


@pytest.mark.parametrize("backend", ["portable.Processes(2)", "portable.Spawn(2)", "ProcessPoolExecutor(2)"])
def test_the_executor_s_thread_comes_late_to_a_full_pipe_of_wake_ups(backend, script):
    """Each task that is submitted writes to that pipe, and once waited for room with a lock that the thread needs."""
    program = script(
        f"""
import fcntl, time
from concurrent.futures import ProcessPoolExecutor, process
from ordmap import ordered_map
from ordmap.backends import portable

class SmallWakeup(process._ThreadWakeup):
    def __init__(self):
        super().__init__()
        fcntl.fcntl(self._writer.fileno(), fcntl.F_SETPIPE_SZ, 4096)

def late(thread):
    time.sleep(0.3)
    run(thread)

run = process._ExecutorManagerThread.run
process._ThreadWakeup = SmallWakeup
process._ExecutorManagerThread.run = late
with ordered_map(abs, range(3000), prefetch=3000, backend={backend}, chunksize=1) as iterator:
    assert list(iterator) == [*range(3000)]
"""
    )
    ended_by_itself(program)


@pytest.mark.parametrize("pool", ["portable.Processes", "portable.Spawn"])
def test_a_loop_is_left_in_the_midst_of_large_results(pool, script):
    """Its workers are ended then, but none that writes: the executor's thread would wait for the rest for ever."""
    program = script(
        f"""
from ordmap import ordered_map
from ordmap.backends import portable

def work(number):
    return bytes(20_000_000)

for _ in range(5):
    for result in ordered_map(work, range(100), backend={pool}(2), chunksize=1):
        assert len(result) == 20_000_000
        break
"""
    )
    ended_by_itself(program)


def test_a_pool_that_is_left_in_the_midst_of_a_result_that_others_may_write_to_as_well(script):
    """Whoever was forked meanwhile has that end of the pipe, too, so that the executor's thread never sees its end."""
    program = script(
        """
import os, signal, time
from ordmap import WorkerDiedError, ordered_map
from ordmap.backends.portable import Processes

def work(number):
    if number == 3:
        print(os.getpid(), flush=True)
        return bytes(300_000_000)
    return number

pool = Processes(1).__enter__()
results = ordered_map(work, range(10), backend=pool, prefetch=2, chunksize=1)
assert [next(results), next(results), next(results)] == [0, 1, 2]
with Processes(1) as other:
    assert list(ordered_map(abs, range(3), backend=other)) == [0, 1, 2]
    worker = next(iter(pool._crew.executor._processes.values()))
    time.sleep(0.3)  # into the midst of writing
    os.kill(worker.pid, signal.SIGKILL)
    results.close()
    pool.__exit__(None, None, None)
"""
    )
    ended_by_itself(program)


def test_the_executor_s_thread_can_not_be_started(script):
    program = script(
        """
from concurrent.futures import process
from ordmap import BackendUnavailableError, ordered_map
from ordmap.backends.portable import Processes

def start(thread):
    process._ExecutorManagerThread.start = started
    raise RuntimeError("can't start new thread")

started, process._ExecutorManagerThread.start = process._ExecutorManagerThread.start, start
with Processes(2) as pool:
    try:
        list(ordered_map(abs, range(4), backend=pool))
    except BackendUnavailableError as error:
        assert "can't start new thread" in str(error)
    assert list(ordered_map(abs, range(4), backend=pool)) == [0, 1, 2, 3]
process._ExecutorManagerThread.start = start
try:
    list(ordered_map(abs, range(4), backend=Processes(2)))
except BackendUnavailableError as error:
    assert "can't start new thread" in str(error)
"""
    )
    ended_by_itself(program)


# The end of the program


@pytest.mark.parametrize("pool", ["portable.Processes", "portable.Spawn"])
def test_the_program_ends_while_a_daemon_thread_has_much_waiting(pool, script):
    program = script(
        f"""
import threading, time
from ordmap import ordered_map
from ordmap.backends import portable

def consume():
    for result in ordered_map(abs, range(10**9), backend={pool}(2), prefetch=4000, chunksize=1):
        found.append(result)

found = []
threading.Thread(target=consume, daemon=True).start()
while len(found) < 1000:
    time.sleep(0.01)
"""
    )
    ended_by_itself(program)


@pytest.mark.parametrize("pool", ["Processes", "Spawn", "portable.Processes", "portable.Spawn"])
def test_the_program_ends_while_workers_die(pool, script):
    program = script(
        f"""
import os, time
from ordmap import Processes, Spawn, WorkerDiedError, ordered_map
from ordmap.backends import portable

def die(number):
    time.sleep(0.001 * number)
    return os._exit(7) if number else number

iterator = ordered_map(die, range(100), backend={pool}(2), prefetch=50)
try:
    assert next(iterator) == 0
except WorkerDiedError:
    assert "portable" in {pool!r}
"""
    )
    ended_by_itself(program)
