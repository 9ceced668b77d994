"""Datasets that are told of the end of each epoch, and samplers that know where they are."""

from __future__ import annotations

import gc
import itertools
import json
import random
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ordmap import CheckpointError, Processes, Spawn, Threads, ordered_imap
from ordmap.backends import portable


class Reshuffled:
    """A dataset that puts itself in another order after each epoch, as Keras' do."""

    def __init__(self, length=6, delay=0.0):
        self.epoch = 0
        self.delay = delay
        self.order = list(range(length))

    def __len__(self):
        return len(self.order)

    def __getitem__(self, index):
        time.sleep(self.delay)
        return self.epoch, self.order[index]

    def on_epoch_end(self):
        self.epoch += 1
        random.Random(self.epoch).shuffle(self.order)


class Kept(Reshuffled):
    """One that can be kept beyond the process."""

    def state_dict(self):
        return {"epoch": self.epoch, "order": self.order}

    def load_state_dict(self, state):
        self.epoch = state["epoch"]
        self.order[:] = state["order"]


def plain(dataset, epochs):
    """Return what a loop without us gives."""
    found = []
    for _ in range(epochs):
        found += [dataset[index] for index in range(len(dataset))]
        dataset.on_epoch_end()
    return found


BACKENDS = {
    "serial": lambda: "serial",
    "threads": lambda: Threads(3),
    "processes": lambda: Processes(2),
    "spawn": lambda: Spawn(2),
    "portable processes": lambda: portable.Processes(2),
    "portable spawn": lambda: portable.Spawn(2),
}


@pytest.mark.parametrize("make", BACKENDS)
@pytest.mark.parametrize("chunksize", [1, 4, None])
def test_what_it_changes_is_seen_in_the_next_epoch(make, chunksize):
    backend = BACKENDS[make]()
    chunksize = None if backend == "serial" else chunksize
    found = list(ordered_imap(Reshuffled(), backend=backend, epochs=4, prefetch=9, chunksize=chunksize))
    assert found == plain(Reshuffled(), 4)


@pytest.mark.parametrize("make", BACKENDS)
def test_it_is_told_once_in_the_next_after_the_last_item(make):
    dataset = Reshuffled(3, delay=0.01)
    told = []
    dataset_told = dataset.on_epoch_end
    iterator = ordered_imap(dataset, backend=BACKENDS[make](), epochs=2, prefetch=30)
    del dataset_told
    for place in range(6):
        told.append(dataset.epoch)
        assert next(iterator)[0] == place // 3
    assert told == [0, 0, 0, 0, 1, 1]
    assert len(iterator) == 0
    assert dataset.epoch == 1
    with pytest.raises(StopIteration):
        next(iterator)
    assert dataset.epoch == 2
    assert list(iterator) == []
    assert dataset.epoch == 2


def test_the_workers_stay(tally):
    def note():
        tally.add()

    for make in (Processes, Spawn, portable.Processes, Threads):
        before = int(tally)
        pool = make(2, initializer=note)
        assert list(ordered_imap(Reshuffled(), backend=pool, epochs=20)) == plain(Reshuffled(), 20)
        assert int(tally) - before <= 2


def test_what_can_not_be_pickled_is_inherited_by_others():
    dataset = Reshuffled()
    dataset.lock = threading.Lock()
    for pool in (Processes(2), portable.Processes(2)):
        dataset.epoch, dataset.order = 0, list(range(6))
        assert list(ordered_imap(dataset, backend=pool, epochs=4)) == plain(Reshuffled(), 4)


def test_without_the_method_epochs_flow_into_each_other():
    class Flowing:
        def __init__(self):
            self.seen = 0

        def __len__(self):
            return 2

        def __getitem__(self, index):
            self.seen += 1
            return index

    dataset = Flowing()
    with ordered_imap(dataset, backend=Threads(2), epochs=None, prefetch=10).start():
        give_up = time.monotonic() + 30
        while dataset.seen < 10 and time.monotonic() < give_up:
            time.sleep(0.001)
    assert dataset.seen == 10
    dataset = Reshuffled(2)
    dataset.seen = 0
    with ordered_imap(dataset, backend=Threads(2), epochs=None, prefetch=10).start() as iterator:
        assert [next(iterator), next(iterator)] == [(0, 0), (0, 1)]
        assert dataset.epoch == 0


def test_its_length_may_change():
    class Growing(Reshuffled):
        def on_epoch_end(self):
            self.epoch += 1
            self.order.append(len(self.order))

    iterator = ordered_imap(Growing(1), 2, epochs=4)
    assert len(iterator) == 4
    found = list(itertools.islice(iterator, 3))
    assert found == [(0, 0), (1, 0), (1, 1)]
    assert len(iterator) == 4  # two epochs of two, as it is now
    assert found + list(iterator) == plain(Growing(1), 4)
    shuffled = list(ordered_imap(Growing(3), 2, epochs=3, shuffle=True, seed=1))
    assert sorted(shuffled) == plain(Growing(3), 3)
    assert shuffled == list(ordered_imap(Growing(3), 0, epochs=3, shuffle=True, seed=1))


def test_with_indices_and_shards():
    found = list(ordered_imap(Reshuffled(), 2, epochs=3, indices=lambda epoch: [epoch, 5 - epoch]))
    dataset, expected = Reshuffled(), []
    for epoch in range(3):
        expected += [dataset[epoch], dataset[5 - epoch]]
        dataset.on_epoch_end()
    assert found == expected
    shards = [list(ordered_imap(Reshuffled(), 2, epochs=3, shard=(rank, 2))) for rank in range(2)]
    assert [shards[n % 2][n // 2] for n in range(18)] == plain(Reshuffled(), 3)


def test_an_empty_epoch_ends_too():
    dataset = Reshuffled(0)
    assert list(ordered_imap(dataset, 2, epochs=3)) == []
    assert dataset.epoch == 3


@pytest.mark.parametrize("make", BACKENDS)
def test_what_it_raises_ends_the_iterator(make):
    class Failing(Reshuffled):
        def on_epoch_end(self):
            raise LookupError("told")

    iterator = ordered_imap(Failing(2), backend=BACKENDS[make](), epochs=3)
    assert [next(iterator), next(iterator)] == [(0, 0), (0, 1)]
    with pytest.raises(LookupError, match="told") as caught:
        next(iterator)
    assert not hasattr(caught.value, "__notes__")
    assert list(iterator) == []
    assert iterator.state_dict()["position"] == 2


def test_it_may_not_ask_the_iterator_for_more_but_close_it():
    class Asking(Reshuffled):
        def on_epoch_end(self):
            super().on_epoch_end()
            self.asked(self)

    dataset = Asking(2)
    for asked in (next, iter_state):
        iterator = ordered_imap(dataset, backend=Threads(2), epochs=3)
        dataset.asked = lambda _, asked=asked, iterator=iterator: asked(iterator)
        with pytest.raises(ValueError, match="computing"):
            list(iterator)
    iterator = ordered_imap(dataset, backend=Threads(2), epochs=3)
    dataset.asked = lambda _: iterator.close()
    assert len(list(iterator)) == 2


def iter_state(iterator):
    iterator.state_dict()


def test_a_method_that_does_nothing_is_none():
    """As that of Keras' datasets, which they all inherit."""

    class Nothing:
        def __len__(self):
            return 2

        def __getitem__(self, index):
            return index

        def on_epoch_end(self):
            """Method called at the end of every epoch."""
            pass

    class Silent(Nothing):
        def on_epoch_end(self):
            pass

    for dataset in (Nothing(), Silent()):
        iterator = ordered_imap(dataset, 0, epochs=3)
        assert list(itertools.islice(iterator, 3)) == [0, 1, 0]
        other = ordered_imap(dataset, 0, epochs=3)
        other.load_state_dict(iterator.state_dict())
        assert list(other) == [1, 0, 1]


def test_one_that_can_not_be_called_is_refused_at_once():
    class Wrong(Reshuffled):
        def on_epoch_end(self, epoch):
            self.epoch = epoch

    with pytest.raises(TypeError, match="on_epoch_end is called without arguments, and .* needs some"):
        ordered_imap(Wrong(), 2)

    class Awaited(Reshuffled):
        async def on_epoch_end(self):
            self.epoch += 1

    with pytest.raises(TypeError, match="called, not awaited"):
        ordered_imap(Awaited(), 2)


def test_its_stop_iteration_does_not_end_the_loop():
    class Stopping(Reshuffled):
        def on_epoch_end(self):
            raise StopIteration

    with pytest.raises(RuntimeError, match="on_epoch_end raised StopIteration"):
        list(ordered_imap(Stopping(), 2, epochs=2))


@pytest.mark.parametrize("make", [Processes, Spawn, portable.Processes])
def test_a_dataset_that_was_promised_never_to_change_does_so_all_the_same(make):
    with make(2, static_dataset=True) as pool:
        assert list(ordered_imap(Reshuffled(), backend=pool, epochs=3)) == plain(Reshuffled(), 3)


def test_indices_beyond_a_dataset_that_has_become_shorter_cost_themselves():
    class Shrinking(Reshuffled):
        def on_epoch_end(self):
            self.order.pop()

    for indices in (range(4), [0, 1, 2, 3]):
        found = list(ordered_imap(Shrinking(4), 0, epochs=2, indices=indices, on_error=lambda failure: failure.index))
        assert found == [(0, 0), (0, 1), (0, 2), (0, 3), (0, 0), (0, 1), (0, 2), 3]


def test_closed_while_it_is_told_it_begins_no_other_run(tally):
    class Closing(Reshuffled):
        def on_epoch_end(self):
            self.iterator.close()

    pool = Processes(1, initializer=tally.add)
    dataset = Closing(2)
    dataset.iterator = None
    iterator = ordered_imap(dataset, backend=pool, epochs=3)
    found = [next(iterator), next(iterator)]
    dataset.iterator = iterator
    assert found + list(iterator) == [(0, 0), (0, 1)]
    assert int(tally) == 1


@pytest.mark.parametrize("make", BACKENDS)
def test_failed_and_skipped_items_do_not_keep_it_from_ending(make):
    class Failing(Reshuffled):
        def __getitem__(self, index):
            if index % 2:
                raise LookupError
            return super().__getitem__(index)

    found = list(ordered_imap(Failing(4), backend=BACKENDS[make](), epochs=3, on_error="skip", retries=1))
    assert [epoch for epoch, _ in found] == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("make", ["processes", "threads", "portable processes"])
def test_closed_from_another_thread_while_it_is_told(make):
    told, go_on = threading.Event(), threading.Event()

    class Slow(Reshuffled):
        def on_epoch_end(self):
            told.set()
            assert go_on.wait(60)

        def __reduce__(self):
            return Slow, (2,)

    for _ in range(5):
        told.clear()
        go_on.clear()
        iterator = ordered_imap(Slow(2), backend=BACKENDS[make](), epochs=3)
        found = []
        thread = threading.Thread(target=lambda iterator=iterator, found=found: found.extend(iterator))
        thread.start()
        assert told.wait(60)
        iterator.close()
        go_on.set()
        thread.join(60)
        assert not thread.is_alive()
        assert found == [(0, 0), (0, 1)]


def test_an_iterator_left_between_epochs_ends():
    pool = Threads(2)
    dataset = Reshuffled(2)
    iterator = ordered_imap(dataset, backend=pool, epochs=3)
    assert len(list(itertools.islice(iterator, 3))) == 3
    gone = weakref.ref(iterator)
    del iterator
    gc.collect()
    assert gone() is None
    assert not pool._runs


# Going on


@pytest.mark.parametrize(("first", "second"), [("serial", "threads"), ("processes", "serial"), ("threads", "spawn")])
def test_one_that_keeps_its_state_goes_on_from_any_position(first, second):
    whole = plain(Kept(), 3)
    for position in range(19):
        with ordered_imap(Kept(), backend=BACKENDS[first](), epochs=3) as one:
            assert list(itertools.islice(one, position)) == whole[:position]
        state = json.loads(json.dumps(one.state_dict()))
        dataset = Kept()
        other = ordered_imap(dataset, backend=BACKENDS[second](), epochs=3)
        other.load_state_dict(state)
        assert other.state_dict() == state
        assert list(other) == whole[position:]
        assert dataset.epoch == 3


def test_one_whose_length_changes_goes_on():
    class Growing(Kept):
        def on_epoch_end(self):
            super().on_epoch_end()
            self.order.append(len(self.order))

    whole = list(ordered_imap(Growing(2), 0, epochs=3))
    for position in range(len(whole) + 1):
        one = ordered_imap(Growing(2), 0, epochs=3)
        assert list(itertools.islice(one, position)) == whole[:position]
        other = ordered_imap(Growing(2), 0, epochs=3)
        other.load_state_dict(one.state_dict())
        assert list(other) == whole[position:]


def test_one_that_does_not_is_refused_after_its_first_epoch():
    iterator = ordered_imap(Reshuffled(), 0, epochs=3)
    state = None
    for _ in range(6):
        next(iterator)
        state = iterator.state_dict()
    other = ordered_imap(Reshuffled(), 0, epochs=3)
    other.load_state_dict(state)
    assert list(other) == plain(Reshuffled(), 3)[6:]
    next(iterator)
    message = r"Reshuffled\.on_epoch_end\(\) was called.*needs methods state_dict\(\) and load_state_dict\(state\)"
    with pytest.raises(CheckpointError, match=message):
        iterator.state_dict()
    with pytest.raises(CheckpointError, match=message):
        ordered_imap(Reshuffled(), 0, epochs=3).load_state_dict({**state, "epoch": 1, "position": 1})
    left = ordered_imap(Reshuffled(), 0, epochs=3)
    assert len(list(itertools.islice(left, 8))) == 8
    left.close()
    with pytest.raises(CheckpointError, match=message):
        left.state_dict()
    list(iterator)
    ended = iterator.state_dict()  # nothing is left that could be lost
    other = ordered_imap(Reshuffled(), 0, epochs=3)
    other.load_state_dict(ended)
    assert list(other) == []


def test_a_state_is_not_changed_by_what_comes_after():
    iterator = ordered_imap(Kept(), 0, epochs=3)
    next(iterator)
    state = iterator.state_dict()
    before = json.dumps(state)
    list(iterator)
    assert json.dumps(state) == before


# Samplers


class Counter:
    """An endless sampler that would take long to skip, and knows where it is; ``of``: how it is asked."""

    def __init__(self, start=0):
        self.next = start
        self.given = 0

    def __iter__(self):
        return self

    def __next__(self):
        self.given += 1
        self.next += 1
        return self.next * self.next % 23

    def state_dict(self):
        return {"next": self.next}

    def load_state_dict(self, state):
        self.next = state["next"]


class Epochs:
    """A sampler that is gone through once an epoch, and keeps the place itself, as torchdata's do."""

    def __init__(self):
        self.epoch = -1
        self.place = self.resumed = 0
        self.given = 0

    def __iter__(self):
        self.epoch += not self.resumed
        self.place, self.resumed = self.resumed, 0
        order = random.Random(self.epoch).sample(range(23), 23)
        for index in order[self.place :]:
            self.place += 1
            self.given += 1
            yield index

    def state_dict(self):
        return {"epoch": self.epoch, "place": self.place}

    def load_state_dict(self, state):
        self.epoch, self.resumed = state["epoch"], state["place"]
        if not self.resumed:
            self.epoch -= 1


class OfItsIterator:
    """A sampler whose iterators know where they are."""

    def __init__(self):
        self.made = []

    def __iter__(self):
        self.made.append(Counter(100))
        return self.made[-1]


@pytest.mark.parametrize(
    ("make", "shard"),
    [
        *itertools.product(["serial", "threads", "processes"], [None, (0, 3), (2, 3), (1, 2, "keep")]),
        *(
            pytest.param(make, (2, 3), marks=pytest.mark.long)
            for make in ("spawn", "portable processes", "portable spawn")
        ),
    ],
)
@pytest.mark.parametrize("sampler", [Counter, OfItsIterator])
def test_a_sampler_that_knows_where_it_is_is_not_gone_through_again(sampler, shard, make):
    def made(order, backend="serial", **how):
        return ordered_imap(range(23), backend=backend, indices=order, shard=shard, **how)

    whole = list(itertools.islice(made(sampler()), 1100))
    positions = [*range(40), 1000] if make == "serial" else (0, 1, 17, 38, 1000)
    for position in positions:
        one = made(sampler(), BACKENDS[make](), **({} if make == "serial" else {"prefetch": 14, "chunksize": 5}))
        with one:
            assert list(itertools.islice(one, position)) == whole[:position]
        state = json.loads(json.dumps(one.state_dict()))
        order = sampler()
        other = made(order)
        other.load_state_dict(state)
        assert list(itertools.islice(other, 20)) == whole[position : position + 20]
        given = order.given if sampler is Counter else order.made[-1].given
        assert given <= 3 * (20 + 14 + 257)  # not those that were given before
        again = made(sampler())
        again.load_state_dict(other.state_dict())
        assert next(again) == whole[position + 20]


@pytest.mark.parametrize("position", [0, 1, 10, 22, 23, 24, 40, 46, 60, 69])
def test_a_sampler_of_epochs_that_keeps_its_place(position):
    def made(order, **how):
        return ordered_imap(range(23), indices=order, epochs=3, **how)

    whole = list(made(Epochs(), workers=0))
    one = made(Epochs(), backend=Threads(2), prefetch=12, chunksize=5)
    assert list(itertools.islice(one, position)) == whole[:position]
    one.close()
    order = Epochs()
    other = made(order, workers=0)
    other.load_state_dict(json.loads(json.dumps(one.state_dict())))
    assert list(other) == whole[position:]
    assert order.given <= 69 - position % 23 + 5 + 23


def test_a_bad_index_of_such_a_sampler_is_counted_once():
    class Bad(Counter):
        def __next__(self):
            found = super().__next__()
            return -1 if found in {2, 3, 18} else found

    def made(order, **how):
        return ordered_imap(range(23), indices=order, on_error=lambda failure: "bad", **how)

    whole = list(itertools.islice(made(Bad(), workers=0), 60))
    assert whole.count("bad") > 4
    for position in range(45):
        one = made(Bad(), backend=Threads(2), prefetch=12, chunksize=5)
        assert list(itertools.islice(one, position)) == whole[:position]
        one.close()
        other = made(Bad(), workers=0)
        other.load_state_dict(one.state_dict())
        assert list(itertools.islice(other, 15)) == whole[position : position + 15]


class Ending:
    """A sampler that is at the beginning again as soon as it comes to its end."""

    def __init__(self):
        self.epoch = self.place = 0

    def __iter__(self):
        order = random.Random(self.epoch).sample(range(23), 8)
        for index in order[self.place :]:
            self.place += 1
            yield index
        self.place = 0
        self.epoch += 1

    def state_dict(self):
        return {"epoch": self.epoch, "place": self.place}

    def load_state_dict(self, state):
        vars(self).update(state)


@pytest.mark.parametrize("chunksize", [1, 3, 8, 12, None])
def test_a_sampler_that_begins_anew_at_its_end(chunksize):
    whole = list(ordered_imap(range(23), 0, indices=Ending(), epochs=3))
    for position in range(25):
        how = {"prefetch": 24 if chunksize == 12 else None if chunksize is None else 8, "chunksize": chunksize}
        one = ordered_imap(range(23), backend=Threads(2), indices=Ending(), epochs=3, **how)
        assert list(itertools.islice(one, position)) == whole[:position]
        one.close()
        other = ordered_imap(range(23), 0, indices=Ending(), epochs=3)
        other.load_state_dict(one.state_dict())
        assert list(other) == whole[position:]


@pytest.mark.parametrize("chunksize", [1, 3, 5])
def test_a_sampler_that_raises_loses_no_index(chunksize):
    class Failing(Counter):
        def __next__(self):
            if self.next == 8 and self.fails:
                self.next += 1
                raise OSError("gone")
            return super().__next__()

        fails = True

    whole = list(itertools.islice(ordered_imap(range(23), 0, indices=Counter()), 20))
    for how in ({"workers": 0}, {"backend": Threads(2), "prefetch": 10, "chunksize": chunksize}):
        one = ordered_imap(range(23), indices=Failing(), **how)
        assert list(itertools.islice(one, 8)) == whole[:8]
        with pytest.raises(OSError, match="gone"):
            next(one)
        order = Failing()
        order.fails = False
        other = ordered_imap(range(23), 0, indices=order)
        other.load_state_dict(one.state_dict())
        assert list(itertools.islice(other, 12)) == whole[8:]


def test_a_sampler_that_keeps_the_state_that_it_is_given_does_not_change_ours():
    class Keeping(Counter):
        def __init__(self):
            self.state = {"next": 0}

        next = property(lambda self: self.state["next"], lambda self, value: self.state.update(next=value))
        given = 0

        def state_dict(self):
            return self.state

        def load_state_dict(self, state):
            self.state = state

    whole = list(itertools.islice(ordered_imap(range(23), 0, indices=Keeping()), 40))
    one = ordered_imap(range(23), 0, indices=Keeping())
    assert list(itertools.islice(one, 10)) == whole[:10]
    state = one.state_dict()
    kept = json.dumps(state)
    other = ordered_imap(range(23), 0, indices=Keeping())
    other.load_state_dict(state)
    assert list(itertools.islice(other, 3)) == whole[10:13]
    assert json.dumps(state) == kept
    again = ordered_imap(range(23), 0, indices=Keeping())
    again.load_state_dict(other.state_dict())
    assert list(itertools.islice(again, 9)) == whole[13:22]


def test_a_sampler_that_was_used_before_goes_on_from_any_position():
    order = Epochs()
    list(ordered_imap(range(23), 0, indices=order))
    one = ordered_imap(range(23), backend=Threads(2), prefetch=12, chunksize=6, indices=order)
    kept = order.state_dict()
    whole = list(ordered_imap(range(23), 0, indices=resumed(Epochs(), kept)))
    for position in range(1, 23):
        one = ordered_imap(range(23), backend=Threads(2), prefetch=12, chunksize=6, indices=resumed(Epochs(), kept))
        assert list(itertools.islice(one, position)) == whole[:position]
        one.close()
        other = ordered_imap(range(23), 0, indices=Epochs())
        other.load_state_dict(one.state_dict())
        assert list(other) == whole[position:]


def resumed(sampler, state):
    """Return a sampler that has come to its end, as one that has been gone through by another iterator."""
    sampler.epoch = state["epoch"]
    return sampler


def test_a_sampler_is_not_asked_for_its_state_each_time():
    class Asked(Counter):
        asked = 0

        def state_dict(self):
            self.asked += 1
            return super().state_dict()

    order = Asked()
    with ordered_imap(range(23), 0, indices=order) as iterator:
        for _ in range(2000):
            next(iterator)
    assert order.asked <= 12


def test_a_sampler_s_state_that_is_none_is_refused():
    state = ordered_imap(range(23), 0, indices=Counter()).state_dict()
    for told in (3, [1], ["a", "b", 0], {}, [{}, 1, 2, 3]):
        with pytest.raises(CheckpointError, match="the state has the sampler"):
            ordered_imap(range(23), 0, indices=Counter()).load_state_dict({**state, "sampler": told})


def test_a_sampler_whose_state_can_not_be_had_does_not_keep_the_iterator_from_closing():
    class Unwilling(Counter):
        def state_dict(self):
            raise LookupError("not now")

    pool = Threads(2)
    iterator = ordered_imap(range(23), backend=pool, indices=Unwilling(), prefetch=4)
    with pytest.raises(LookupError, match="not now"):
        list(iterator)
    assert not pool._runs
    assert list(iterator) == []


class Thrice:
    """A sampler of three epochs, whose iterators know where they are."""

    def __init__(self):
        self.given = 0

    def __iter__(self):
        return Third(self)


class Third:
    def __init__(self, sampler):
        self.sampler = sampler
        self.place = 0

    def __iter__(self):
        return self

    def __next__(self):
        if self.place == 9:
            raise StopIteration
        self.place += 1
        self.sampler.given += 1
        return self.place * 5 % 23

    def state_dict(self):
        return self.place

    def load_state_dict(self, state):
        self.place = state


def test_a_sampler_of_epochs_whose_iterators_know_where_they_are():
    whole = list(ordered_imap(range(23), 0, indices=Thrice(), epochs=3, shard=(1, 2)))
    assert len(whole) == 12
    for position in range(13):
        one = ordered_imap(
            range(23), backend=Threads(2), prefetch=6, chunksize=3, indices=Thrice(), epochs=3, shard=(1, 2)
        )
        assert list(itertools.islice(one, position)) == whole[:position]
        one.close()
        state = one.state_dict()
        for begun in range(3):
            other = ordered_imap(range(23), 0, indices=Thrice(), epochs=3, shard=(1, 2))
            other.load_state_dict(state)
            assert other.state_dict() == state
            assert list(itertools.islice(other, begun)) == whole[position : position + begun]
            again = ordered_imap(range(23), 0, indices=Thrice(), epochs=3, shard=(1, 2))
            again.load_state_dict(other.state_dict())
            assert list(again) == whole[position + begun :]


def test_a_sampler_is_begun_once_an_epoch():
    class Begun:
        def __init__(self):
            self.times = 0

        def __iter__(self):
            self.times += 1
            return iter([self.times, self.times + 1])

    order = Begun()
    assert list(ordered_imap(range(9), 2, epochs=3, indices=order)) == [1, 2, 2, 3, 3, 4]
    assert order.times == 3


def test_a_state_without_the_samplers_is_skipped_to():
    class Forgetful(Counter):
        load_state_dict = None

    one = ordered_imap(range(23), 0, indices=Forgetful())
    whole = [next(one) for _ in range(30)]
    state = one.state_dict()
    assert "sampler" not in state
    other = ordered_imap(range(23), 0, indices=Forgetful())
    other.load_state_dict(state)
    assert next(other) == next(one)
    again = ordered_imap(range(23), 0, indices=Forgetful())
    assert [next(again) for _ in range(30)] == whole


def test_a_large_dataset_may_change_too():
    class Large(Reshuffled):
        def __init__(self):
            super().__init__(4)
            self.data = np.ones(1 << 22)

        def __getitem__(self, index):
            return self.epoch, float(self.data[index])

        def on_epoch_end(self):
            self.epoch += 1
            self.data *= 2

    found = list(ordered_imap(Large(), backend=Processes(2), epochs=3))
    assert found == [(epoch, 2.0**epoch) for epoch in range(3) for _ in range(4)]


def test_an_executor_gets_it_again():
    with ThreadPoolExecutor(2) as executor:
        assert list(ordered_imap(Reshuffled(), backend=executor, epochs=3)) == plain(Reshuffled(), 3)
