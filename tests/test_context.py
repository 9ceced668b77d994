"""What items see of context variables: what the loop that asks for them has set, and never another's."""

from __future__ import annotations

import asyncio
import contextvars
import decimal
import os
import sys
import threading
import time
import types
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextvars import ContextVar
from multiprocessing import get_context

import pytest

from ordmap import Asyncio, Processes, Spawn, Threads, item_rng, ordered_imap, ordered_map, worker_info
from ordmap.backends import portable
from ordmap.backends.variables import packed, unpacked
from ordmap.context import separate
from test_scripts import finished


class Settings:
    tenant: ContextVar[str] = ContextVar("tenant", default="none")

    def __init__(self):
        self.own = ContextVar("own", default="none")


plain: ContextVar[object] = ContextVar("plain", default="none")
settings = Settings()
table = {"user": ContextVar("user", default="none")}

#: One of each kind of place where a variable may be.
VARIABLES = (plain, Settings.tenant, settings.own, table["user"])


def seen(_):
    return (*(variable.get() for variable in VARIABLES), str(1 / decimal.Decimal(3)))


async def awaited(number):
    return seen(number)


def expected(name, precision=28):
    return {(*[name] * len(VARIABLES), f"0.{'3' * precision}")}


def in_request(use, name=None, precision=None):
    """Call a function in a thread, and so in a context, of its own."""

    def serve():
        if name is not None:
            for variable in VARIABLES:
                variable.set(name)
        if precision is not None:
            decimal.getcontext().prec = precision
        return use()

    with ThreadPoolExecutor(1) as executor:
        return executor.submit(serve).result()


POOLS = {
    "processes": lambda **options: Processes(2, **options),
    "processes, static": lambda **options: Processes(2, static_dataset=True, **options),
    "spawn": lambda **options: Spawn(2, **options),
    "spawn, static": lambda **options: Spawn(2, static_dataset=True, **options),
    "threads": lambda **options: Threads(2, **options),
    "asyncio": lambda **options: Asyncio(2, **options),
    "portable processes": lambda **options: portable.Processes(2, **options),
    "portable spawn": lambda **options: portable.Spawn(2, **options),
}
EACH_POOL = pytest.mark.parametrize("name", POOLS)


def items_of(pool):
    return awaited if isinstance(pool, Asyncio) else seen


# Warm pools


@EACH_POOL
def test_loops_of_a_warm_pool(name):
    with POOLS[name]() as pool:
        each_loop_has_its_own_context(pool)
        what_an_item_sets_reaches_neither_the_caller_nor_another_loop(pool)
        who_computes_what_is_known_all_the_same(pool)


def each_loop_has_its_own_context(pool):
    def found():
        return set(ordered_map(items_of(pool), range(8), backend=pool))

    assert in_request(found) == expected("none")
    assert in_request(found, "alice", 10) == expected("alice", 10)
    assert in_request(found) == expected("none")
    assert in_request(found, "bob", 20) == expected("bob", 20)
    assert in_request(found, "carol") == expected("carol")
    assert in_request(found) == expected("none")


def what_an_item_sets_reaches_neither_the_caller_nor_another_loop(pool):
    item = _set_and_return if isinstance(pool, Asyncio) else _set_and_return_what_was

    def found():
        before = decimal.getcontext().prec, plain.get()
        set_by_items = set(ordered_map(item, range(30), backend=pool))
        assert set_by_items <= {before[::-1], ("an item's", 3)}
        assert (decimal.getcontext().prec, plain.get()) == before
        return set(ordered_map(items_of(pool), range(8), backend=pool))

    assert in_request(found, "alice", 12) == expected("alice", 12)
    assert in_request(found) == expected("none")


def who_computes_what_is_known_all_the_same(pool):
    def found():
        item = _told_awaited if isinstance(pool, Asyncio) else _told
        return list(ordered_map(item, range(30), backend=pool, seed=7))

    first, second = in_request(found, "alice"), in_request(found)
    assert [index for index, _ in first] == list(range(30))
    assert first == second == list(ordered_map(_told, range(30), workers=0, seed=7))


def _told(_):
    return worker_info().index, item_rng().random()


async def _told_awaited(_):
    await asyncio.sleep(0)
    return _told(_)


def _set_and_return_what_was(_):
    was = plain.get(), decimal.getcontext().prec
    plain.set("an item's")
    decimal.getcontext().prec = 3
    return was


async def _set_and_return(_):
    return _set_and_return_what_was(_)


@pytest.mark.parametrize("name", ["processes", "processes, static", "spawn", "threads", "asyncio"])
def test_loops_at_the_same_time_have_their_own(name):
    with POOLS[name]() as pool:
        found = {}

        def serve(who):
            plain.set(who)
            found[who] = set(ordered_map(item, range(200), backend=pool, chunksize=1))

        item = _plain_awaited if isinstance(pool, Asyncio) else _plain
        threads = [threading.Thread(target=serve, args=(f"caller {number}",)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == {who: {who} for who in found}
    assert len(found) == 4


def _plain(_):
    return plain.get()


async def _plain_awaited(_):
    await asyncio.sleep(0)
    return plain.get()


def _dies_once(key):
    number, path = key
    if number == 2 and not os.path.exists(path):
        open(path, "w").close()  # noqa: SIM115
        os.kill(os.getpid(), 9)
    return plain.get()


@pytest.mark.parametrize("make", [Processes, Spawn])
def test_a_worker_that_takes_a_dead_one_s_place_sees_no_more(make, tmp_path):
    """It is started by another's next(), in whatever context that is called."""
    with make(1) as pool:

        def found():
            keys = [(number, str(tmp_path / "died")) for number in range(5)]
            return list(ordered_map(_dies_once, keys, backend=pool, retries=1))

        assert in_request(lambda: list(ordered_map(_plain, range(2), backend=pool)), "alice") == ["alice"] * 2
        assert in_request(found, "bob") == ["bob"] * 5
        assert in_request(lambda: list(ordered_map(_plain, range(2), backend=pool))) == ["none"] * 2


def test_next_may_be_called_in_another_context_than_the_first():
    iterators = []

    def begin():
        iterators.append(ordered_map(_dies_once, [(n, "/") for n in range(40)], workers=2, prefetch=2))
        return next(iterators[0])

    assert in_request(begin, "alice") == "alice"
    assert in_request(lambda: set(iterators[0]), "bob") == {"alice"}


#: Where nobody looks for variables.
hidden = [ContextVar("first", default="none"), ContextVar("second", default="none")]


def _hidden(_):
    return tuple(variable.get() for variable in hidden)


def test_a_variable_without_a_place_that_was_set_when_the_workers_were_forked():
    def found(name, *variables):
        for variable in variables:
            variable.set(name)
        return set(ordered_map(_hidden, range(4), backend=pool))

    hidden[:] = [ContextVar("first", default="none"), ContextVar("second", default="none")]  # which never travelled
    with Processes(2) as pool:
        assert contextvars.copy_context().run(found, "alice", hidden[0]) == {("alice", "none")}
        assert contextvars.copy_context().run(found, "bob", *hidden) == {("bob", "none")}
        assert contextvars.copy_context().run(found, "bob") == {("none", "none")}
    for make, second in ((Spawn, "none"), (Threads, "bob")):
        with make(2) as pool:
            assert contextvars.copy_context().run(found, "bob", *hidden) == {(second, second)}


def test_a_variable_that_keeps_a_function_from_travelling_has_others_forked():
    local = ContextVar("local", default="none")

    def found(name):
        local.set(name)
        return set(ordered_map(lambda _: local.get(), range(4), backend=pool))

    with Processes(2) as pool:
        assert contextvars.copy_context().run(found, "alice") == {"alice"}
        assert contextvars.copy_context().run(found, "bob") == {"bob"}


def test_what_cannot_be_pickled_is_left_out_and_nothing_else():
    def found(value):
        plain.set(value)
        Settings.tenant.set("bob")
        return set(ordered_map(_kinds, range(4), backend=pool))

    for make in (Processes, Spawn, portable.Spawn):
        with make(2) as pool:
            assert contextvars.copy_context().run(found, "text") == {("str", "bob")}
            assert contextvars.copy_context().run(found, threading.Lock()) == {("str", "bob")}
            assert contextvars.copy_context().run(found, 3) == {("int", "bob")}


def _kinds(_):
    return type(plain.get()).__name__, Settings.tenant.get()


class Weird:
    def __reduce__(self):
        raise SystemExit("no")


class WeirdThere:
    def __reduce__(self):
        return _refuse, ()


def _refuse():
    raise LookupError("no")


@pytest.mark.parametrize("value", [Weird(), WeirdThere()])
def test_values_that_refuse_to_travel(value):
    context = contextvars.Context()
    context.run(plain.set, value)
    context.run(Settings.tenant.set, "bob")
    come = unpacked(packed(context))
    assert come.get(plain) is None
    assert come[Settings.tenant] == "bob"


def test_a_place_that_is_another_thing_there_is_not_used():
    context = contextvars.Context()
    context.run(plain.set, 1)
    ((name, places, data),) = packed(context)
    assert ("test_context", "plain") in places or (__name__, "plain") in places
    assert len(unpacked([(name, places, data)])) == 1
    assert len(unpacked([("other", places, data)])) == 0
    assert len(unpacked([(name, [("no_such_module", "plain"), ("os", "path")], data)])) == 0


def test_a_context_without_variables_costs_no_bytes():
    assert packed(contextvars.Context()) == []
    # Nor does our own, of the item that a loop is in.
    found = in_request(lambda: list(ordered_map(lambda _: packed(contextvars.copy_context()), [1], backend="threads")))
    assert found == [[]]


# What items and initializers set


def test_with_a_worker_of_one_s_own_the_next_item_sees_it_as_with_map():
    for backend in (Processes(1), Threads(1)):
        found = list(ordered_map(_count, range(5), backend=backend, chunksize=1))
        assert found == [0, 1, 2, 3, 4]
    assert contextvars.copy_context().run(lambda: list(ordered_map(_count, range(5), workers=0))) == [0, 1, 2, 3, 4]


def _count(_):
    before = plain.get()
    number = 0 if before == "none" else before
    plain.set(number + 1)
    return number


def test_serial_items_run_in_the_caller_s_own():
    def found():
        list(ordered_map(plain.set, ["a", "b"], workers=0))
        return plain.get()

    assert contextvars.copy_context().run(found) == "b"


def _begin():
    _compute_in_decimals()
    plain.set("the initializer's")


async def _begin_awaited():
    _begin()


def _compute_in_decimals():
    assert decimal.Decimal(1) / 3


@EACH_POOL
def test_what_an_initializer_sets_stands(name):
    with POOLS[name](initializer=_begin_awaited if name == "asyncio" else _begin) as pool:

        def found():
            return set(ordered_map(items_of(pool), range(8), backend=pool))

        ((first, *others),) = in_request(found, "alice", 10)
        assert (first, *others) == ("the initializer's", "alice", "alice", "alice", "0.3333333333")
        ((first, *others),) = in_request(found)
        assert (first, others[0]) == ("the initializer's", "none")


@pytest.mark.parametrize("name", ["processes", "spawn", "threads", "asyncio"])
def test_what_an_initializer_computes_in_decimals_sets_nothing(name):
    with POOLS[name](initializer=_compute_in_decimals) as pool:
        found = in_request(lambda: set(ordered_map(items_of(pool), range(8), backend=pool)), "alice", 10)
    assert found == expected("alice", 10)


@pytest.mark.parametrize("name", ["processes", "threads", "asyncio", "portable processes"])
def test_an_initializer_and_a_finalizer_are_in_nobody_s_context(name, tmp_path):
    def note():
        (tmp_path / f"{time.monotonic_ns()}-{threading.get_ident()}-{os.getpid()}").write_text(str(plain.get()))

    def use():
        with POOLS[name](initializer=note, finalizer=note) as pool:
            list(ordered_map(items_of(pool), range(4), backend=pool))

    in_request(use, "alice")
    found = [path.read_text() for path in tmp_path.iterdir()]
    assert len(found) >= 2
    assert set(found) == {"none"}


# Executors


@pytest.mark.parametrize("kind", ["threads", "fork", "spawn"])
@pytest.mark.parametrize("limit", [None, 20])
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_borrowed_executor(kind, limit):
    made = ThreadPoolExecutor(2) if kind == "threads" else ProcessPoolExecutor(2, mp_context=get_context(kind))
    with made as executor:

        def found():
            return set(ordered_map(seen, range(8), backend=executor, item_timeout=limit))

        assert in_request(found, "alice", 10) == expected("alice", 10)
        assert in_request(found) == expected("none")
        assert in_request(found, "bob", 20) == expected("bob", 20)


# Libraries


@pytest.mark.parametrize("backend", ["serial", "threads", "processes", "spawn"])
def test_numpy_s_errors(backend):
    np = pytest.importorskip("numpy", minversion="2")

    with np.errstate(divide="raise", over="ignore"):
        failures = list(ordered_map(_divide, [0], backend=backend, on_error="return"))
    assert isinstance(failures[0].error, FloatingPointError)


@pytest.mark.parametrize("make", [Processes, Spawn, Threads])
def test_numpy_s_errors_in_a_warm_pool(make):
    np = pytest.importorskip("numpy", minversion="2")

    with make(1) as pool:
        with np.errstate(divide="ignore"):
            assert list(ordered_map(_divide, [0], backend=pool)) == [float("inf")]
        with np.errstate(divide="raise"):
            failures = list(ordered_map(_divide, [0], backend=pool, on_error="return"))
        assert isinstance(failures[0].error, FloatingPointError)
        with np.errstate(divide="ignore"):
            assert list(ordered_map(_divide, [0], backend=pool)) == [float("inf")]


def _divide(number):
    import numpy as np

    return float(np.float64(1) / np.float64(number))


# More than one loop


def test_a_loop_within_an_item_takes_the_item_s_context_along():
    def outer(number):
        plain.set(number)
        return list(ordered_map(_plain, range(3), workers=2, backend="threads"))

    for backend in ("threads", "processes", "serial"):
        workers = 0 if backend == "serial" else 2
        found = contextvars.copy_context().run(
            lambda: list(ordered_map(outer, range(4), workers=workers, backend=backend))  # noqa: B023
        )
        assert found == [[number] * 3 for number in range(4)]


def test_epochs_are_all_in_the_context_of_the_first_step():
    class Dataset:
        def __len__(self):
            return 3

        def __getitem__(self, index):
            return plain.get()

        def on_epoch_end(self):
            pass

    def begin():
        plain.set("first")
        iterator = ordered_imap(Dataset(), 2, epochs=3)
        found = [next(iterator)]
        plain.set("later")
        return found + list(iterator)

    assert contextvars.copy_context().run(begin) == ["first"] * 9


def test_the_rules_of_decimals_are_those_of_the_first_step():
    def begin():
        decimal.getcontext().prec = 8
        iterator = ordered_map(_third, range(50), workers=2, backend="threads", prefetch=2)
        found = [next(iterator)]
        decimal.getcontext().prec = 3
        return {*found, *iterator}

    assert contextvars.copy_context().run(begin) == {"0.33333333"}


def _third(_):
    return str(decimal.Decimal(1) / 3)


def test_what_happens_in_a_copy_s_decimals_is_not_noted_in_the_caller_s():
    def begin():
        decimal.getcontext().clear_flags()
        list(ordered_map(_third, range(5), workers=2, backend="threads"))
        return decimal.getcontext().flags[decimal.Inexact]

    assert not contextvars.copy_context().run(begin)


def test_a_context_is_not_separated_for_nothing():
    context = contextvars.Context()
    context.run(plain.set, [1])
    assert separate(context)[plain] is context[plain]
    assert sys.modules["decimal"] is decimal


def test_the_search_for_a_variable_asks_no_object_what_it_is(tmp_path, monkeypatch):
    """Some modules have objects that warn, or import more, where they are asked for their class or attributes."""

    class Touchy:
        def __getattribute__(self, name):
            raise AssertionError(f"asked for {name}")

    class Hidden:
        variable = contextvars.ContextVar("hidden")

    module = types.ModuleType("touchy_module")
    vars(module).update(touchy=Touchy(), hidden=Hidden)
    monkeypatch.setitem(sys.modules, "touchy_module", module)
    context = contextvars.Context()
    context.run(Hidden.variable.set, 1)
    name, places, _ = packed(context)[0]
    assert (name, places[0]) == ("hidden", ("touchy_module", "hidden", "variable"))


#: How a program of one file may have its variables, and how an item reads them.
OF_THE_SCRIPT = {
    "a global": ("tenant = ContextVar('tenant', default='none')", "tenant", "tenant.get()"),
    "without a default": ("tenant = ContextVar('tenant')", "tenant", "tenant.get('none')"),
    "of a class": ("class Settings:\n    tenant = ContextVar('tenant', default='none')", "Settings.tenant", "Settings.tenant.get()"),
    "in a table": ("table = {'tenant': ContextVar('tenant', default='none')}", "table['tenant']", "table['tenant'].get()"),
    "of a library": ("from structural import tenant", "tenant", "tenant.get() + structural.read()"),
}  # fmt: skip


@pytest.mark.parametrize("how", OF_THE_SCRIPT)
def test_variables_of_a_script_are_those_of_its_items_in_fresh_interpreters(script, tmp_path, how):
    made, variable, read = OF_THE_SCRIPT[how]
    (tmp_path / "structural.py").write_text(
        "from contextvars import ContextVar\ntenant = ContextVar('tenant', default='none')\n"
        "def read(): return '' if tenant.get() == 'none' else '!'\n"
    )
    path = script(
        f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from contextvars import ContextVar
import structural
from ordmap import Spawn, ordered_map
{made}

def work(n):
    return {read}

with Spawn(2) as pool:
    for name in ("ann", "bob"):
        {variable}.set(name)
        assert set(ordered_map(work, range(4), backend=pool)) == {{name + ("!" if "structural.read" in {read!r} else "")}}
"""
    )
    assert finished(path) == (0, "", "")
