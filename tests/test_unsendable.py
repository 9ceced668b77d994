"""A refusal names what can't be pickled by the way that leads there, as the program writes it."""

import functools
import queue
import sqlite3
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from ordmap import BackendUnavailableError, ordered_imap, ordered_map

LOCK = threading.Lock()
QUEUE = queue.Queue()


class Client:
    def __init__(self):
        self.pools = {"main": [sqlite3.connect(":memory:")]}

    def __del__(self):
        self.pools["main"][0].close()


class Records:
    def __init__(self):
        self.client = Client()

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return self.client, index


def locked(item):
    with LOCK:
        return item


def queued(item):
    return QUEUE, item


def through_another(item):
    return locked(item)


def default(item, lock=LOCK):
    return lock, item


def given(lock, item):
    return lock, item


def enclosed():
    lock = threading.RLock()
    return lambda item: (lock, item)


FUNCTIONS = {
    "a global": (lambda: locked, "global 'LOCK' of locked"),
    "within a global": (lambda: queued, "global 'QUEUE' of queued"),
    "a global of another function": (lambda: through_another, "global 'LOCK' of locked"),
    "a default": (lambda: default, "a default of default"),
    "a closure": (enclosed, "closure variable 'lock' of enclosed.<locals>.<lambda>"),
    "an argument": (lambda: functools.partial(given, [LOCK]), "list[0]"),
}


@pytest.fixture(autouse=True)
def script(monkeypatch):
    """Have this be no module that a fresh interpreter imports, so that it goes by value as a script does."""
    for one in (locked, queued, through_another, default, given):
        monkeypatch.setattr(one, "__module__", "__main__")


@pytest.mark.parametrize("case", FUNCTIONS)
def test_in_a_function(case):
    make, way = FUNCTIONS[case]
    with pytest.raises(BackendUnavailableError, match="can't be pickled") as caught:
        list(ordered_map(make(), range(3), workers=1, backend="spawn"))
    assert f" object ({way}); use backend=" in str(caught.value)


def test_not_what_an_object_leaves_out_when_it_is_pickled():
    class Session:
        def __init__(self):
            self.lock = LOCK

        def __getstate__(self):
            return {}

    session, held = Session(), [1, LOCK]
    with pytest.raises(BackendUnavailableError) as caught:
        list(ordered_map(lambda _: (session, held), range(3), workers=1, backend="spawn"))
    assert "'held'" in str(caught.value)
    assert "'session'" not in str(caught.value)


def test_in_a_dataset():
    with pytest.raises(BackendUnavailableError) as caught:
        list(ordered_imap(Records(), workers=1, backend="spawn"))
    assert " (Records.client.pools['main'][0]); use backend=" in str(caught.value)


def test_on_an_executor():
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        with pytest.raises(BackendUnavailableError) as caught:
            list(ordered_map(enclosed(), range(3), backend=executor))
        assert "(closure variable 'lock' of enclosed.<locals>.<lambda>)" in str(caught.value)


def test_what_the_user_s_own_way_to_be_pickled_says_stands_alone():
    class Refuses:
        def __reduce__(self):
            raise TypeError("not today: a 'Refuses' stays here")

    one = Refuses()
    with pytest.raises(BackendUnavailableError, match="TypeError: not today: a 'Refuses' stays here; use backend="):
        list(ordered_map(lambda _: one, range(3), workers=1, backend="spawn"))
