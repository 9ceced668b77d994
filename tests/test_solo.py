"""Loops without workers: each item is computed inside its ``next()``, by a quick step or not, and nobody can tell."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import os
import signal
import sys
import threading
import time
import weakref
from contextvars import ContextVar

import numpy as np
import pytest

from ordmap import (
    Failure,
    OrdmapError,
    RemoteError,
    Serial,
    batches,
    item_rng,
    mapped,
    ordered_imap,
    ordered_map,
    worker_info,
)
from ordmap.solo import Solo
from test_interrupts import Interrupt, handling, interrupt, signalled

LENGTH = 40


class Squares:
    def __init__(self, length=LENGTH):
        self.length = length
        self.computed = []

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        self.computed.append(index)
        return index * index


class Sampler:
    """Indices in an order of its own, which says where it is."""

    def __init__(self):
        self.position = 0

    def __iter__(self):
        while self.position < LENGTH:
            self.position += 1
            yield (7 * self.position) % LENGTH
        self.position = 0

    def state_dict(self):
        return {"position": self.position}

    def load_state_dict(self, state):
        self.position = state["position"]


def pulled(log):
    for number in range(LENGTH):
        log.append(number)
        yield number


def negative(*numbers):
    return -sum(numbers)


WAYS = {
    "a dataset": lambda log: ordered_imap(Squares(), 0),
    "epochs": lambda log: ordered_imap(Squares(7), 0, epochs=5),
    "shuffled": lambda log: ordered_imap(Squares(), 0, shuffle=True, seed=4, epochs=2),
    "a padded shard": lambda log: ordered_imap(Squares(), 0, shuffle=True, seed=4, shard=(1, 3, "pad")),
    "a list of indices": lambda log: ordered_imap(Squares(), 0, indices=[5, 3, 3, *range(30)], epochs=2),
    "an array of indices": lambda log: ordered_imap(Squares(), 0, indices=np.arange(LENGTH)[::-1]),
    "a function of the epoch": lambda log: ordered_imap(Squares(), 0, indices=lambda epoch: range(epoch, 20), epochs=3),
    "lazy indices": lambda log: ordered_imap(Squares(), 0, indices=pulled(log)),
    "a sampler with a state": lambda log: ordered_imap(Squares(), 0, indices=Sampler(), epochs=2),
    "a range": lambda log: ordered_map(negative, range(LENGTH), workers=0),
    "an odd range": lambda log: ordered_map(negative, range(3, 90, 2), workers=0),
    "a list": lambda log: ordered_map(negative, list(range(LENGTH)), workers=0),
    "a generator": lambda log: ordered_map(negative, pulled(log), workers=0),
    "two iterables": lambda log: ordered_map(negative, pulled(log), itertools.count(), workers=0),
    "a view": lambda log: ordered_imap(batches(mapped(negative, range(LENGTH)), 3), 0),
}
EACH = pytest.mark.parametrize("way", WAYS)


def by_chunks(way, log):
    """Return the same as an iterator over a window, as a backend around this one has it."""

    class Around:
        name, workers, promises = "around", 0, Serial.promises

        def open(self, job):
            run = Serial().open(job)

            class Run:
                submit, collect, wake, close = run.submit, run.collect, run.wake, run.close

            return Run()

        def close(self):
            pass

    iterator = WAYS[way](log)
    iterator._settings = iterator._settings._replace(backend=Around())
    return iterator


@EACH
def test_steps_give_what_a_window_gives_and_say_so_at_every_item(way):
    logs = [], []
    one, other = WAYS[way](logs[0]), by_chunks(way, logs[1])
    for place in itertools.count():
        assert one.__length_hint__() == other.__length_hint__() or place == 0
        found = [next(iterator, None) for iterator in (one, other)]
        assert repr(found[0]) == repr(found[1])
        assert one.stats[:3] == other.stats[:3]
        assert json.dumps(one.state_dict()) == json.dumps(other.state_dict())
        assert logs[0] == logs[1] == list(range(len(logs[0])))
        assert len(logs[0]) <= place + 1
        if found[0] is None:
            break
    assert type(one._window) is Solo
    assert type(other._window) is not Solo


@EACH
def test_another_goes_on_from_the_state_at_every_item(way):
    whole = list(WAYS[way]([]))
    for taken in range(0, len(whole) + 1, 3):
        one = WAYS[way]([])
        assert list(map(repr, itertools.islice(one, taken))) == list(map(repr, whole[:taken]))
        state = json.loads(json.dumps(one.state_dict()))
        one.close()
        assert one.state_dict() == state
        other = WAYS[way]([])
        other.load_state_dict(state)
        assert list(map(repr, other)) == list(map(repr, whole[taken:]))


def test_an_item_is_computed_inside_its_next_and_not_before():
    dataset = Squares()
    iterator = ordered_imap(dataset, 0)
    assert len(iterator.start()) == LENGTH
    for index in range(LENGTH):
        assert dataset.computed == list(range(index))
        assert next(iterator) == index * index
        assert len(iterator) == LENGTH - 1 - index


def test_a_list_that_grows_meanwhile_is_seen_as_by_map():
    numbers = [1]
    found = []
    for number in ordered_map(abs, numbers, workers=0):
        found.append(number)
        if number < 6:
            numbers.append(number + 1)
    assert found == [1, 2, 3, 4, 5, 6]


# Who computes what


def test_an_item_knows_itself_and_its_neighbours_nothing_of_it():
    def item(number):
        return number, worker_info(), item_rng().random()

    for numbers in (range(9), list(range(9)), iter(range(9))):
        iterator = ordered_map(item, numbers, workers=0, seed=3)
        for index, (number, info, random) in enumerate(iterator):
            assert worker_info() is None
            assert (number, *info) == (index, 0, 1, index, 0, 1)
            assert random == list(ordered_map(item, range(9), workers=0, seed=3))[index][2]
    assert [info.index for _, info, _ in ordered_imap(mapped(item, range(5)), 0, indices=[4, 0, 3])] == [4, 0, 3]


def test_the_global_generators_are_set_for_each_item_and_set_back():
    import random

    def item(_):
        return random.random(), float(np.random.rand())

    random.seed(1)
    np.random.seed(1)
    before = random.getstate(), repr(np.random.get_state())
    found = list(ordered_map(item, range(20), workers=0, seed=7))
    assert len(set(found)) == 20
    assert found == list(ordered_map(item, iter(range(20)), workers=0, seed=7))
    assert found == list(ordered_map(item, range(20), workers=2, seed=7))
    assert (random.getstate(), repr(np.random.get_state())) == before


def test_what_an_item_sets_in_the_context_is_the_caller_s():
    variable = ContextVar("variable", default=0)

    def item(number):
        variable.set(variable.get() + number)
        return variable.get()

    for number, total in enumerate(ordered_map(item, range(10), workers=0)):
        assert total == variable.get()
        assert total >= number
        variable.set(total)


# Failures


@pytest.mark.parametrize("bad", [{0}, {5}, {0, 1, 2}, {6, 39}, set(range(40))], ids=str)
@pytest.mark.parametrize("source", [range, lambda n: list(range(n)), lambda n: (i for i in range(n))])
@pytest.mark.parametrize("retries", [0, 2])
def test_failures_at_any_place(bad, source, retries):
    tries = []

    def item(number):
        tries.append((number, worker_info().attempt))
        if number in bad:
            raise LookupError(number)
        return number

    def made(on_error):
        tries.clear()
        return ordered_map(item, source(40), workers=0, retries=retries, on_error=on_error)

    iterator = made("raise")
    for number in range(40):
        if number in bad:
            with pytest.raises(LookupError) as caught:
                next(iterator)
            assert caught.value.args == (number,)
            (note,) = caught.value.__notes__
            assert note.startswith(f"ordmap: item {number}, epoch 0, backend 'serial', worker of the caller, attempt ")
            names = [entry.name for entry in caught.traceback]
            assert names[-1] == "item"
            assert not {"step", "_outcome"} & set(names)
            assert caught.value.__context__ is None
        else:
            assert next(iterator) == number
        assert iterator.stats.delivered == iterator.state_dict()["position"] == number + 1
    assert next(iterator, "over") == "over"
    expected = [(n, attempt + 1) for n in range(40) for attempt in range((retries if n in bad else 0) + 1)]
    assert tries == expected
    assert list(made("skip")) == [n for n in range(40) if n not in bad]
    returned = list(made("return"))
    assert [one.index for one in returned if isinstance(one, Failure)] == sorted(bad)


def test_what_would_end_the_loop_is_an_error_and_bad_indices_cost_themselves():
    def item(number):
        if number == 3:
            raise StopIteration
        if number == 5:
            raise SystemExit(2)
        return number

    found = list(ordered_map(item, range(8), workers=0, on_error="return"))
    assert [type(found[3].error), type(found[5].error)] == [RemoteError, RemoteError]
    assert [one for one in found if not isinstance(one, Failure)] == [0, 1, 2, 4, 6, 7]
    indices = (index for index in (0, 1, 99, 2, -1, 3, 2.5, 4, True, 5))
    found = list(ordered_imap(Squares(6), 0, indices=indices, on_error="return"))
    assert [one for one in found if not isinstance(one, Failure)] == [0, 1, 4, 9, 16, 25]
    assert [type(one.error) for one in found if isinstance(one, Failure)] == [IndexError] * 2 + [TypeError] * 2


@pytest.mark.parametrize("place", [0, 1, 7])
def test_what_a_source_raises_comes_in_its_place_and_ends_it(place):
    def source():
        yield from range(place)
        raise LookupError("the source")

    iterator = ordered_map(abs, source(), workers=0)
    assert [next(iterator) for _ in range(place)] == list(range(place))
    with pytest.raises(LookupError, match="the source"):
        next(iterator)
    assert list(iterator) == []


def test_the_frames_of_a_failure_hold_nothing_once_it_is_gone():
    class Big:
        pass

    kept = []

    def item(number):
        big = Big()
        kept.append(weakref.ref(big))
        if number % 2:
            raise LookupError(number)
        return big

    gc.disable()
    try:
        iterator = ordered_map(item, range(8), workers=0, on_error="skip")
        for big in iterator:
            del big
            assert sum(one() is not None for one in kept) <= 1
        assert all(one() is None for one in kept)
    finally:
        gc.enable()


def test_neither_input_nor_result_is_held_between_items():
    class Input:
        pass

    inputs, results = [], []

    def source():
        for _ in range(6):
            one = Input()
            inputs.append(weakref.ref(one))
            yield one
            del one

    def item(_):
        result = Input()
        results.append(weakref.ref(result))
        return result

    for result in ordered_map(item, source(), workers=0):
        del result
        assert results[-1]() is None
        assert len(inputs) < 2 or inputs[-2]() is None


# Who asks


def test_several_threads_get_each_item_once_and_compute_one_at_a_time():
    now = []

    def item(number):
        now.append(number)
        assert len(now) == 1
        if number % 50 == 0:
            time.sleep(0.001)
        now.remove(number)
        if number % 7 == 3:
            raise LookupError(number)
        return number

    for source in (range(2000), iter(range(2000))):
        iterator = ordered_map(item, source, workers=0, on_error="return")
        found = [[] for _ in range(4)]
        threads = [threading.Thread(target=lambda own=own: own.extend(iterator)) for own in found]
        switch = sys.getswitchinterval()
        sys.setswitchinterval(1e-5)
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            sys.setswitchinterval(switch)
        together = [one.index if isinstance(one, Failure) else one for own in found for one in own]
        assert sorted(together) == list(range(2000))


@pytest.mark.parametrize("number", [0, 1, 5])
def test_an_item_can_not_ask_its_own_iterator(number):
    asked = []

    def item(one):
        if one == number:
            for ask in (lambda: next(iterator), iterator.state_dict):
                with pytest.raises(ValueError, match="computing"):
                    ask()
            asked.append((iterator.stats[:3], len(iterator)))
        return one

    iterator = ordered_map(item, range(9), workers=0)
    assert list(iterator) == list(range(9))
    assert asked == [((number, 1, 1), 9 - number)]


@pytest.mark.parametrize("number", [0, 4])
def test_an_item_that_closes_its_iterator_is_the_last(number):
    def item(one):
        if one == number:
            iterator.close()
        return one

    closed = []

    def source():
        try:
            yield from range(9)
        finally:
            closed.append(True)

    iterator = ordered_map(item, source(), workers=0)
    assert list(iterator) == list(range(number))
    assert closed == [True]
    assert iterator.state_dict()["position"] == iterator.stats.delivered == number


def test_closed_from_another_thread_in_the_midst_of_an_item():
    arrived, go_on = threading.Event(), threading.Event()

    def item(one):
        if one == 3:
            arrived.set()
            assert go_on.wait(20)
        return one

    iterator = ordered_map(item, range(9), workers=0)
    found = []
    thread = threading.Thread(target=lambda: found.extend(iterator))
    thread.start()
    assert arrived.wait(20)
    iterator.close()
    go_on.set()
    thread.join()
    assert found == [0, 1, 2]
    assert iterator.state_dict()["position"] == 3
    assert iterator._window.closed


@pytest.mark.parametrize("both", ["sync first", "async first"])
def test_both_kinds_of_loops_take_turns(both):
    async def main():
        iterator = ordered_map(abs, range(20), workers=0)
        found = []
        for turn in range(20):
            if (turn // 3) % 2 == (both == "sync first"):
                found.append(await anext(iterator))
            else:
                found.append(next(iterator))
        assert next(iterator, "over") == "over"
        return found

    assert asyncio.run(main()) == list(range(20))


def test_a_fork_gets_nothing_of_it():
    iterator = ordered_map(abs, range(9), workers=0)
    assert [next(iterator) for _ in range(3)] == [0, 1, 2]
    pid = os.fork()
    if not pid:
        try:
            next(iterator)
        except OrdmapError:
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    assert list(iterator) == list(range(3, 9))


def test_a_dropped_iterator_lets_go_of_its_source_without_the_garbage_collector():
    closed = []

    def source():
        try:
            yield from range(9)
        finally:
            closed.append(True)

    gc.disable()
    try:
        iterator = ordered_map(abs, source(), workers=0)
        assert [next(iterator) for _ in range(4)] == [0, 1, 2, 3]
        window = weakref.ref(iterator._window)
        del iterator
        assert window() is None
    finally:
        gc.enable()


# Signals


@pytest.mark.parametrize("kind", [KeyboardInterrupt, Interrupt, TimeoutError])
def test_wherever_a_handler_raises_no_item_is_lost_or_given_twice(kind):
    """At each call and return that a step makes; the state says what to go on with."""

    def raises(*_):
        raise kind

    def item(number):
        return abs(number)

    for instant in itertools.count(1):
        left = instant

        def profile(_, __, argument):
            nonlocal left
            left -= argument is not sys.setprofile
            if left == 0:
                sys.setprofile(None)
                signal.raise_signal(signal.SIGUSR1)

        iterator = ordered_map(item, (n for n in range(9)), workers=0)
        assert [next(iterator) for _ in range(3)] == [0, 1, 2]
        given = []
        with handling(SIGUSR1=raises):
            sys.setprofile(profile)
            try:
                given.append(next(iterator))
                raised = False
            except kind:
                raised = True
            finally:
                sys.setprofile(None)
        if left > 0:
            break
        assert worker_info() is None
        position = iterator.state_dict()["position"]
        assert position in ({3, 4} if raised else {4})
        other = ordered_map(item, range(9), workers=0)
        if iterator._closed:
            other = ordered_map(item, (n for n in range(9)), workers=0)
            other.load_state_dict(iterator.state_dict())
            assert list(other) == list(range(position, 9))
        else:  # as if it had come before this next()
            assert list(iterator) == list(range(position, 9))
    assert instant > 8


def test_a_handler_that_asks_is_told_where_it_is_and_one_that_raises_ends_it():
    iterator = ordered_map(abs, range(9), workers=0)
    assert [next(iterator), next(iterator)] == [0, 1]

    def abs_called(frame, event, argument):
        return event == "c_call" and argument is abs

    asked = []
    with handling(SIGUSR1=lambda *_: asked.append(iterator.stats[:2])), signalled(abs_called):
        assert next(iterator) == 2
    assert asked == [(2, 1)]
    with handling(SIGUSR1=interrupt), signalled(abs_called):
        with pytest.raises(Interrupt):
            next(iterator)
    rest = ordered_map(abs, range(9), workers=0)
    rest.load_state_dict(iterator.state_dict())
    assert list(rest) in (list(range(3, 9)), list(range(4, 9)))
