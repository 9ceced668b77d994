"""The contract of a backend, as a suite of tests: for ordmap's own backends and for anybody's.

A test module of a third-party backend is this::

    class TestMine(BackendContract):
        @pytest.fixture
        def backend(self):
            return MyBackend(2)

Each test reads the backend's row of the table of promises, and checks the promise in the form in which it is made.
Needs pytest: ``pip install "ordmap[testing]"``.
"""

from __future__ import annotations

import contextlib
import gc
import io
import itertools
import json
import multiprocessing
import os
import random
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest

from ordmap import (
    Failure,
    ItemTimeoutError,
    OrderedIterator,
    OrdmapError,
    RemoteError,
    WorkerDiedError,
    item_rng,
    ordered_imap,
    ordered_map,
    worker_info,
)
from ordmap import real_time as time
from ordmap.backends import Backend, resolve
from ordmap.backends.promises import Grade

__all__ = ["BackendContract", "Journal", "Recorded", "outcomes", "wait_until"]

#: How long to wait for what must happen, in seconds; reached only by a failing test.
PATIENCE = 30.0


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition; fail when it doesn't come true."""
    give_up = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > give_up:
            pytest.fail(f"waited in vain until {what}")
        time.sleep(0.002)


class Journal:
    """A log in one order that all threads and processes of this machine append to."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        Path(path).touch()

    def note(self, event: str, number: int) -> None:
        """Append an event: one write to a file opened for appending, which no other writer can tear apart."""
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(file, f"{event} {number} {os.getpid()}\n".encode())
        finally:
            os.close(file)

    def events(self) -> list[tuple[str, int, int]]:
        """Return what was noted so far: (event, number, process id)."""
        lines = Path(self.path).read_text(encoding="ascii").splitlines()
        return [(event, int(number), int(pid)) for event, number, pid in map(str.split, lines)]

    def count(self, event: str) -> int:
        """Return how often an event was noted."""
        return sum(one == event for one, _, _ in self.events())


#: Who asks for items, in a loop's own context.
_asking: ContextVar[str] = ContextVar("ordmap testing", default="unnamed")


def _who_asks(_: int) -> str:
    return _asking.get()


class Recorded:
    """A dataset whose items are noted as they start; ``seconds(index)`` is how long an item takes."""

    def __init__(self, journal: Journal, length: int, seconds: Callable[[int], float] | float = 0.0) -> None:
        self.journal = journal
        self.length = length
        self.seconds = seconds

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> int:
        self.journal.note("start", index)
        time.sleep(self.seconds(index) if callable(self.seconds) else self.seconds)
        return index * index


class _Shipped(Recorded):
    """A dataset that notes each time it is rebuilt from a pickle."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.journal.note("rebuilt", 0)


class _Plain:
    """A dataset made of a function."""

    def __init__(self, length: int, fn: Callable[[int], Any]) -> None:
        self.length = length
        self.fn = fn

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        return self.fn(index)


class _Epochs:
    """A dataset that is told of the end of each epoch, and gets longer by it."""

    def __init__(self) -> None:
        self.ended = 0

    def __len__(self) -> int:
        return 4 + self.ended

    def __getitem__(self, index: int) -> tuple[int, int]:
        return self.ended, index

    def on_epoch_end(self) -> None:
        self.ended += 1


class _Closable:
    """An iterator over the first numbers that can be closed, and is no generator."""

    def __init__(self, length: int) -> None:
        self._numbers = iter(range(length))
        self.closed = 0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> int:
        return next(self._numbers)

    def close(self) -> None:
        self.closed += 1


class _Stream:
    """The numbers from 0 on, as a generator: how many were pulled, and in which thread each generator ended."""

    def __init__(self, length: int | None = None) -> None:
        self.length = length
        self.pulled = 0
        self.ended_in: list[threading.Thread] = []

    def __iter__(self) -> Iterator[int]:
        try:
            for number in itertools.count() if self.length is None else range(self.length):
                self.pulled += 1
                yield number
        finally:
            self.ended_in.append(threading.current_thread())


class NeedsTwoError(Exception):
    """An exception whose constructor takes other arguments than it passes on: pickle alone can't rebuild it."""

    def __init__(self, code: int, *, detail: str) -> None:
        super().__init__(f"code {code}: {detail}")
        self.code = code
        self.detail = detail


class ReducedError(Exception):
    """An exception that says itself how it is pickled, as ``json.JSONDecodeError`` does."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} and {second}")
        self.pair = (first, second)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.pair


class SlottedError(Exception):
    """An exception that keeps a field where no ``__dict__`` has it."""

    __slots__ = ("code",)

    def __init__(self, code: int) -> None:
        super().__init__("slotted")
        self.code = code


@dataclass(frozen=True)
class FrozenError(Exception):
    """An exception whose attributes no code may set."""

    code: int

    def __str__(self) -> str:
        return f"frozen {self.code}"


class _Unmeasurable:
    @property
    def nbytes(self) -> int:
        raise RuntimeError("not yet")


class UnpicklableError(Exception):
    """An exception that holds what no pickle takes."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.lock = threading.Lock()


class _Unpicklable:
    def __init__(self) -> None:
        self.lock = threading.Lock()


class _FailsToLoad:
    def __reduce__(self) -> tuple[Any, ...]:
        return _refuse_to_load, ()


def _refuse_to_load() -> None:
    raise ValueError("not here")


def outcomes(iterator: Iterator[Any], most: int | None = None) -> list[Any]:
    """Return every outcome of an iterator, or the first few: its results, and the exceptions in their places."""
    found: list[Any] = []
    while len(found) != most:
        try:
            found.append(next(iterator))
        except StopIteration:
            break
        except Exception as error:
            found.append(error)
    return found


def _held_here() -> tuple[Counter[str], set[threading.Thread], set[str]]:
    """Return what this process holds: what its descriptors point at, its threads, its child processes.

    Where there is no ``/proc`` (macOS, Windows): its threads, and the children that multiprocessing knows.
    """
    gc.collect()
    descriptors: Counter[str] = Counter()
    if not Path("/proc/self/fd").exists():
        return descriptors, set(threading.enumerate()), {str(child.pid) for child in multiprocessing.active_children()}
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the one that lists the others
            descriptors[os.readlink(f"/proc/self/fd/{descriptor}").split(":")[0]] += 1
    children: set[str] = set()
    for task in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError):  # a thread that has just ended
            children.update(Path(f"/proc/self/task/{task}/children").read_text(encoding="ascii").split())
    return descriptors, set(threading.enumerate()), children


def _nothing_more_than(before: tuple[Counter[str], set[threading.Thread], set[str]]) -> bool:
    now = _held_here()
    return not (now[0] - before[0]) and now[1] <= before[1] and now[2] <= before[2]


def _tries(journal: Journal, index: int) -> int:
    return sum(event == "try" and number == index for event, number, _ in journal.events())


class BackendContract:
    """What every backend does; a subclass gives it one by overriding the fixture `backend`."""

    @pytest.fixture
    def backend(self) -> Any:
        """Return what is given as ``backend=``: anything with at least two workers, or none."""
        raise NotImplementedError("override the fixture 'backend'")

    @pytest.fixture
    def resolved(self, backend: Any) -> Backend:
        """Return the backend object itself."""
        return resolve(backend, None)

    @pytest.fixture
    def grade(self, resolved: Backend) -> Callable[[str], Grade]:
        """Return the backend's row of the table."""
        return resolved.promises.__getitem__

    @pytest.fixture
    def journal(self, tmp_path: Path) -> Journal:
        """Return an empty journal."""
        return Journal(tmp_path / "journal")

    #: Whether the backend's own connections come and go by themselves, so that a count of descriptors says nothing.
    connections_vary = False

    # order

    @pytest.mark.parametrize(("prefetch", "chunksize"), [(None, None), (1, None), (2, 1), (7, 3), (64, None), (64, 64)])
    @pytest.mark.parametrize("length", [0, 1, 2, 3, 100])
    def test_gives_what_map_gives(self, backend: Any, length: int, prefetch: int | None, chunksize: int | None) -> None:
        dataset = [str(n) * (n % 5) for n in range(length)]
        found = list(ordered_imap(dataset, prefetch=prefetch, backend=backend, chunksize=chunksize))
        assert found == dataset

    def test_waits_for_the_slowest_first(self, backend: Any, journal: Journal) -> None:
        dataset = Recorded(journal, 6, lambda index: 0.06 - index / 100)
        assert list(ordered_imap(dataset, prefetch=6, backend=backend)) == [0, 1, 4, 9, 16, 25]

    def test_computes_each_item_once(self, backend: Any, journal: Journal) -> None:
        assert len(list(ordered_imap(Recorded(journal, 200), backend=backend))) == 200
        assert Counter(number for _, number, _ in journal.events()) == dict.fromkeys(range(200), 1)

    def test_goes_on_when_items_turn_slow(self, backend: Any) -> None:
        def work(index: int) -> int:
            if index >= 3000:
                time.sleep(0.02)
            return index

        assert list(ordered_imap(_Plain(3020, work), backend=backend)) == list(range(3020))

    # context

    def test_an_item_sees_the_context_of_its_own_loop(self, backend: Any) -> None:
        def seen(caller: str | None) -> set[str]:
            if caller is not None:
                _asking.set(caller)
            return set(ordered_map(_who_asks, range(20), backend=backend))

        callers = ("one", None, "other")
        assert [copy_context().run(seen, caller) for caller in callers] == [{"one"}, {"unnamed"}, {"other"}]

    # bounded, filled, lazy

    @pytest.mark.parametrize("prefetch", [1, 2, 3, 7, 64])
    def test_never_passes_the_window(self, backend: Any, journal: Journal, prefetch: int) -> None:
        dataset = Recorded(journal, 2 * prefetch + 5, lambda index: 0.05 if index % 7 == 0 else 0.001)
        for index, _ in enumerate(ordered_imap(dataset, prefetch=prefetch, backend=backend)):
            journal.note("yielded", index)
        ahead = most = 0
        for event, _, _ in journal.events():
            ahead += 1 if event == "start" else -1
            most = max(most, ahead)
        assert most <= prefetch

    @pytest.mark.parametrize("prefetch", [1, 2, 3, 7, 64])
    def test_fills_the_window_without_another_next(
        self, backend: Any, journal: Journal, prefetch: int, grade: Callable[[str], Grade]
    ) -> None:
        expected = prefetch if grade("filled").word == "kept" else 1
        with ordered_imap(Recorded(journal, 1000), prefetch=prefetch, backend=backend) as iterator:
            next(iterator)
            wait_until(lambda: journal.count("start") >= expected, "the window is computed")
            time.sleep(0.05)  # what would be too much has its chance
            assert journal.count("start") == expected

    def test_starts_nothing_before_the_first_next(self, backend: Any, journal: Journal) -> None:
        dataset = Recorded(journal, 3)
        iterator = ordered_imap(dataset, backend=backend)
        dataset.length = 2
        assert len(iterator) == 2
        assert journal.events() == []
        assert list(iterator) == [0, 1]

    def test_start_fills_the_window_now(self, backend: Any, journal: Journal, grade: Callable[[str], Grade]) -> None:
        with ordered_imap(Recorded(journal, 10), prefetch=4, backend=backend).start() as iterator:
            if grade("filled").word == "kept":
                wait_until(lambda: journal.count("start") == 4, "the window is computed")
            assert next(iterator) == 0

    def test_an_infinite_source_is_pulled_no_further_than_the_window(self, backend: Any) -> None:
        pulled = itertools.count()
        with ordered_map(_double, pulled, prefetch=5, backend=backend) as iterator:
            assert [next(iterator) for _ in range(20)] == [2 * n for n in range(20)]
        assert next(pulled) <= 24

    # epochs and indices

    def test_epochs(self, backend: Any) -> None:
        assert list(ordered_imap([5, 6, 7], epochs=3, backend=backend)) == [5, 6, 7] * 3
        assert list(ordered_imap([5, 6, 7], epochs=0, backend=backend)) == []

    def test_cycles_for_ever_until_it_is_left(self, backend: Any) -> None:
        with ordered_imap([5, 6, 7], epochs=None, backend=backend) as iterator:
            assert list(itertools.islice(iterator, 100)) == [(5, 6, 7)[n % 3] for n in range(100)]

    def test_indices(self, backend: Any) -> None:
        letters = "abcdef"
        assert list(ordered_imap(letters, indices=[5, 0, 0, 3], backend=backend)) == ["f", "a", "a", "d"]
        assert list(ordered_imap(letters, indices=range(5, 0, -2), backend=backend)) == ["f", "d", "b"]
        assert list(ordered_imap(letters, indices=(n for n in (4, 1)), backend=backend)) == ["e", "b"]
        by_epoch = ordered_imap(letters, indices=lambda epoch: [epoch, 5 - epoch], epochs=3, backend=backend)
        assert list(by_epoch) == ["a", "f", "b", "e", "c", "d"]
        with ordered_imap(letters, indices=itertools.cycle([2, 1]), backend=backend) as endless:
            assert list(itertools.islice(endless, 5)) == ["c", "b", "c", "b", "c"]

    def test_a_bad_lazy_index_costs_its_own_item(self, backend: Any) -> None:
        indices: Iterator[Any] = iter((0, 3, 1, -1, "x", 2))
        found = outcomes(ordered_imap("abc", indices=indices, backend=backend))
        assert [found[0], found[2], found[5]] == ["a", "b", "c"]
        assert [type(found[n]) for n in (1, 3, 4)] == [IndexError, IndexError, TypeError]

    # failures

    def test_an_exception_costs_its_own_item(self, backend: Any) -> None:
        def work(index: int) -> int:
            if index % 5 == 3:
                raise LookupError(f"no {index}")
            return index

        found = outcomes(ordered_imap(_Plain(50, work), backend=backend))
        assert [x for x in found if type(x) is int] == [n for n in range(50) if n % 5 != 3]
        failed = {n: error for n, error in enumerate(found) if not isinstance(error, int)}
        assert list(failed) == list(range(3, 50, 5))
        for index, error in failed.items():
            assert type(error) is LookupError
            assert error.args == (f"no {index}",)
            assert f"item {index}, epoch 0" in error.__notes__[0]

    def test_an_exception_keeps_its_cause_context_and_notes(self, backend: Any) -> None:
        def work(index: int) -> None:
            try:
                try:
                    raise KeyError("missing")
                except KeyError as error:
                    error.add_note("a note on the cause")
                    raise NeedsTwoError(index, detail="why") from error
            except NeedsTwoError as error:
                error.add_note("my own note")
                raise

        (error,) = outcomes(ordered_imap(_Plain(1, work), backend=backend))
        assert type(error) is NeedsTwoError
        assert (str(error), error.code, error.detail) == ("code 0: why", 0, "why")
        assert type(error.__cause__) is KeyError
        assert error.__cause__.args == ("missing",)
        assert error.__cause__.__notes__ == ["a note on the cause"]
        assert error.__context__ is error.__cause__
        assert error.__suppress_context__
        assert error.__notes__[0] == "my own note"
        text = "".join(traceback.format_exception(error))
        assert "in work" in text

    def test_an_exception_is_rebuilt_as_its_class_would_have_it(self, backend: Any) -> None:
        def work(index: int) -> int:
            if index == 0:
                raise ReducedError(1, 2)
            if index == 1:
                raise SlottedError(7)
            if index == 2:
                raise FrozenError(9)
            return len(json.loads("{bad"))

        reduced, slotted, frozen, decode = outcomes(ordered_imap(_Plain(4, work), backend=backend))
        assert (type(reduced), str(reduced), reduced.pair) == (ReducedError, "1 and 2", (1, 2))
        assert (type(slotted), str(slotted), slotted.code) == (SlottedError, "slotted", 7)
        assert (type(frozen), str(frozen), frozen.code) == (FrozenError, "frozen 9", 9)
        assert (type(decode), decode.pos, decode.doc) == (json.JSONDecodeError, 1, "{bad")
        assert all("ordmap: item" in error.__notes__[0] for error in (reduced, slotted, frozen, decode))

    def test_what_the_caller_handles_is_not_the_context(self, backend: Any) -> None:
        def work(index: int) -> None:
            try:
                raise KeyError("inner")
            except KeyError:
                raise ValueError(index)  # noqa: B904  its context is what this is about

        iterator = ordered_imap(_Plain(1, work), backend=backend)
        with pytest.raises(ValueError, match="0") as caught:
            try:
                raise RuntimeError("the caller's own")
            except RuntimeError:
                next(iterator)
        assert type(caught.value.__context__) is KeyError

    def test_a_result_may_refuse_to_tell_its_size(self, backend: Any) -> None:
        found = list(ordered_imap(_Plain(2, lambda _: _Unmeasurable()), backend=backend))
        assert len(found) == 2

    def test_an_exception_group_keeps_its_members(self, backend: Any) -> None:
        def work(index: int) -> int:
            try:
                raise OSError(2, "not there")
            except OSError as error:
                inner = ValueError("inner")
                inner.__cause__ = error
                raise ExceptionGroup("several", [inner, TypeError(index)]) from None

        (error,) = outcomes(ordered_imap(_Plain(1, work), backend=backend))
        assert type(error) is ExceptionGroup
        assert [type(member) for member in error.exceptions] == [ValueError, TypeError]
        cause = error.exceptions[0].__cause__
        assert isinstance(cause, FileNotFoundError)
        assert cause.errno == 2

    @pytest.mark.parametrize("kind", [StopIteration, StopAsyncIteration, GeneratorExit, SystemExit])
    def test_what_would_end_the_loop_is_a_remote_error(self, backend: Any, kind: type[BaseException]) -> None:
        def work(index: int) -> int:
            if index == 2:
                raise kind("quietly")
            return index

        found = outcomes(ordered_imap(_Plain(5, work), backend=backend))
        error = found[2]
        assert type(error) is RemoteError
        assert (error.index, error.type_name, error.remote_message) == (2, kind.__name__, "quietly")
        assert "quietly" in error.remote_traceback
        assert found[:2] + found[3:] == [0, 1, 3, 4]

    def test_an_exception_that_cannot_travel_is_named(self, backend: Any) -> None:
        def work(index: int) -> int:
            if index == 2:
                raise UnpicklableError("held")
            return index

        found = outcomes(ordered_imap(_Plain(5, work), backend=backend))
        error = found[2]
        if type(error) is not UnpicklableError:  # as itself where nothing is pickled
            assert type(error) is RemoteError
            assert error.type_name.endswith("UnpicklableError")
            assert (error.index, error.remote_message) == (2, "held")
        assert found[:2] + found[3:] == [0, 1, 3, 4]

    @pytest.mark.parametrize("result", [_Unpicklable, _FailsToLoad])
    def test_a_result_that_cannot_travel_costs_its_own_item(self, backend: Any, result: type) -> None:
        def work(index: int) -> Any:
            return result() if index == 2 else index

        found = outcomes(ordered_imap(_Plain(5, work), backend=backend))
        if type(found[2]) is not result:  # as itself where nothing is pickled
            assert type(found[2]) is RemoteError
            assert found[2].index == 2
        assert found[:2] + found[3:] == [0, 1, 3, 4]

    def test_a_worker_death_is_an_error(self, backend: Any, grade: Callable[[str], Grade]) -> None:
        if grade("worker death").word == "refused":
            assert grade("worker death").how
            return

        def work(index: int) -> int:
            if index == 3:
                time.sleep(0.1)
                os._exit(9)
            return index

        found = outcomes(ordered_imap(_Plain(8, work), prefetch=4, backend=backend))
        deaths = [error for error in found if isinstance(error, WorkerDiedError)]
        assert len(deaths) == 1
        if grade("worker death").word == "kept":
            assert deaths[0].index == 3
            assert found[:3] + found[4:] == [0, 1, 2, 4, 5, 6, 7]
        else:
            assert found == [*range(len(found) - 1), deaths[0]]
            assert deaths[0].index == len(found) - 1

    @pytest.mark.parametrize("chunksize", [None, 3])
    def test_a_time_out_costs_its_own_item(
        self, backend: Any, resolved: Backend, journal: Journal, chunksize: int | None
    ) -> None:
        workers = resolved.workers

        def work(index: int) -> int:
            give_up = time.monotonic() + PATIENCE
            while index == 4 and workers and not journal.count("enough") and time.monotonic() < give_up:
                time.sleep(0.01)
            return index

        iterator = ordered_imap(_Plain(9, work), prefetch=6, backend=backend, chunksize=chunksize, item_timeout=1)
        try:
            found = outcomes(iterator)
        finally:
            journal.note("enough", 0)
        if workers:
            error = found.pop(4)
            assert isinstance(error, ItemTimeoutError)
            assert isinstance(error, TimeoutError)
            assert (error.index, error.limit) == (4, 1.0)
            assert error.elapsed >= 1
            assert " in work" in error.stack
            assert error.stack.strip() in "".join(error.__notes__)
            found.insert(4, 4)
        assert found == [*range(9)]

    def test_a_time_out_is_for_the_item_alone(self, backend: Any) -> None:
        def nap(index: int) -> int:
            time.sleep(0.15)
            return index

        numbers = ordered_imap(_Plain(12, nap), prefetch=12, backend=backend, item_timeout=0.8)
        next(numbers)
        time.sleep(1)  # the others are computed, or wait for their turn, for longer than one may run
        assert outcomes(numbers) == [*range(1, 12)]

    def test_an_item_that_ended_too_late_is_a_time_out_though_nobody_looked(
        self, backend: Any, resolved: Backend
    ) -> None:
        def nap(index: int) -> int:
            time.sleep(0.4 * (index == 1))
            return index

        with ordered_imap(_Plain(3, nap), prefetch=3, backend=backend, item_timeout=0.3) as numbers:
            numbers.start()
            time.sleep(0.8)
            found = outcomes(numbers)
        assert found.pop(1) == 1 if not resolved.workers else isinstance(found.pop(1), ItemTimeoutError)
        assert found == [0, 2]

    # what becomes of an item that failed

    @pytest.mark.parametrize("chunksize", [None, 1, 5])
    def test_a_failed_item_is_tried_again_in_its_place(
        self, backend: Any, journal: Journal, chunksize: int | None
    ) -> None:
        def work(index: int) -> int:
            journal.note("try", index)
            if index % 4 == 1 and _tries(journal, index) <= 2:
                raise OSError("not yet")
            return index

        assert [*ordered_imap(_Plain(20, work), prefetch=5, backend=backend, chunksize=chunksize, retries=2)] == [
            *range(20)
        ]
        assert [_tries(journal, index) for index in range(20)] == [3 if index % 4 == 1 else 1 for index in range(20)]

    def test_an_item_fails_after_its_last_attempt(self, backend: Any, journal: Journal) -> None:
        def work(index: int) -> int:
            journal.note("try", index)
            if index == 2:
                raise OSError("never")
            return index

        found = outcomes(ordered_imap(_Plain(5, work), backend=backend, retries=3))
        error = found.pop(2)
        assert found == [0, 1, 3, 4]
        assert type(error) is OSError
        assert "item 2, epoch 0" in error.__notes__[0]
        assert "attempt 4" in error.__notes__[0]
        assert _tries(journal, 2) == 4

    @pytest.mark.parametrize("chunksize", [None, 3])
    def test_on_error(self, backend: Any, chunksize: int | None) -> None:
        def work(index: int) -> int:
            if index % 3 == 2:
                raise LookupError(f"no {index}")
            return index

        def given(on_error: Any) -> list[Any]:
            dataset = _Plain(9, work)
            return [*ordered_imap(dataset, prefetch=6, backend=backend, chunksize=chunksize, on_error=on_error)]

        assert given("skip") == [0, 1, 3, 4, 6, 7]
        assert given(lambda failure: (failure.index, str(failure.error), failure.attempts)) == [
            0, 1, (2, "no 2", 1), 3, 4, (5, "no 5", 1), 6, 7, (8, "no 8", 1),
        ]  # fmt: skip
        returned = given("return")
        assert [type(one) for one in returned] == [int, int, Failure] * 3
        assert "item 2, epoch 0" in returned[2].error.__notes__[0]

    def test_what_on_error_raises_is_raised_in_the_item_s_place(self, backend: Any) -> None:
        def work(index: int) -> int:
            if index == 1:
                raise LookupError
            return index

        def refuse(failure: Failure) -> None:
            raise ZeroDivisionError(failure.index)

        found = outcomes(ordered_imap(_Plain(3, work), backend=backend, on_error=refuse))
        assert [found[0], type(found[1]), found[2]] == [0, ZeroDivisionError, 2]

    def test_a_bad_lazy_index_is_not_tried_again_and_is_skipped(self, backend: Any) -> None:
        indices: Iterator[Any] = iter((0, 3, 1))
        assert [*ordered_imap("abc", indices=indices, backend=backend, retries=5, on_error="skip")] == ["a", "b"]

    def test_deaths_and_time_outs_are_failures_like_any_other(
        self, backend: Any, resolved: Backend, grade: Callable[[str], Grade], journal: Journal
    ) -> None:
        mortal, timed = grade("worker death").word == "kept", resolved.workers > 0
        assert grade("retries").word == "kept" or not mortal

        def work(index: int) -> int:
            journal.note("try", index)
            again = _tries(journal, index) > 1
            if index in {2, 3} and not again and mortal:
                os._exit(9)
            if index in {5, 6} and not again and timed:
                time.sleep(2)
            if index in {3, 6} and again:
                raise OSError("this time")
            return index

        given = ordered_imap(
            _Plain(9, work), prefetch=6, backend=backend, item_timeout=0.8, retries=1, on_error=lambda one: one.attempts
        )
        assert [*given] == [0, 1, 2, 2 if mortal else 3, 4, 5, 2 if timed else 6, 7, 8]

    # the source

    def test_what_the_source_raises_comes_after_its_results(self, backend: Any) -> None:
        def source() -> Iterator[int]:
            yield from (1, 2, 3)
            raise OSError("the source broke")

        found = outcomes(ordered_map(_double, source(), backend=backend))
        assert found[:3] == [2, 4, 6]
        assert type(found[3]) is OSError
        assert len(found) == 4

    def test_several_iterables_go_in_step(self, backend: Any) -> None:
        assert list(ordered_map(pow, [2, 3, 4], [5, 2, 3, 9], backend=backend)) == [32, 9, 64]
        found = outcomes(ordered_map(pow, [2, 3, 4], [5, 2, 3, 9], strict=True, backend=backend))
        assert found[:3] == [32, 9, 64]
        assert type(found[3]) is ValueError

    def test_the_source_is_closed_with_the_iterator(self, backend: Any) -> None:
        closed: list[bool] = []

        def source() -> Iterator[int]:
            try:
                yield from itertools.count()
            finally:
                closed.append(True)

        with ordered_map(_double, source(), backend=backend) as iterator:
            assert next(iterator) == 0
        assert closed == [True]

    def test_any_iterator_is_closed_that_has_not_ended_and_a_file_is_left_open(self, resolved: Any) -> None:
        with resolved:
            for taken in (1, 5):
                source = _Closable(4)
                iterator = ordered_map(_double, source, backend=resolved, prefetch=2)
                assert outcomes(iterator, taken) == [0, 2, 4, 6][:taken]
                iterator.close()
                iterator.close()
                assert source.closed == (taken == 1)
            inner = ordered_map(_double, itertools.count(), workers=0)
            with ordered_map(_double, inner, backend=resolved, prefetch=2) as outer:
                assert next(outer) == 0
            assert next(inner, "closed") == "closed"
            with io.StringIO("1\n2\n3\n4\n") as file:
                with ordered_map(str.strip, file, backend=resolved, prefetch=1) as lines:
                    assert next(lines) == "1"
                assert file.readline() == "2\n"

    # streams, with a window as large as there are items, smaller, and larger

    def test_a_stream_gives_what_map_gives_up_to_where_its_source_ends(self, resolved: Any) -> None:
        with resolved:
            for work, prefetch in itertools.product(_STREAMED, (4, 2, 8)):
                stream = _Stream(4)
                found = outcomes(ordered_map(work, stream, prefetch=prefetch, backend=resolved))
                assert [*map(repr, found)] == _mapped(work, range(4))
                assert (stream.pulled, stream.ended_in) == (4, [threading.current_thread()])

    def test_a_stream_has_fewer_items_than_there_are_workers_as_many_or_more(self, resolved: Any) -> None:
        with resolved:
            for work, more in itertools.product(_STREAMED, (-1, 0, 1)):
                length = max(0, resolved.workers + more)
                found = outcomes(ordered_map(work, _Stream(length), backend=resolved))
                assert [*map(repr, found)] == _mapped(work, range(length))

    def test_a_stream_that_is_left_early_is_pulled_no_further_and_closed(self, resolved: Any) -> None:
        with resolved:
            for work, prefetch in itertools.product(_STREAMED, (4, 2, 8)):
                stream = _Stream(8)
                source = iter(stream)  # held here, so that nothing but a `close` ends it
                iterator = ordered_map(work, source, prefetch=prefetch, backend=resolved)
                assert [*map(repr, outcomes(iterator, 4))] == _mapped(work, range(4))
                iterator.close()
                assert outcomes(iterator) == []
                assert stream.pulled <= min(3 + prefetch, 8)
                assert stream.ended_in == [threading.current_thread()]

    @pytest.mark.parametrize("prefetch", [16, 4, 32])
    def test_a_stream_that_is_left_early_computes_no_more(
        self, backend: Any, resolved: Backend, journal: Journal, prefetch: int, grade: Callable[[str], Grade]
    ) -> None:
        work = Recorded(journal, 16, 0.02).__getitem__
        with ordered_map(work, _Stream(16), prefetch=prefetch, backend=backend) as iterator:
            assert next(iterator) == 0
        # What is on its way to a worker at this moment may begin; on an executor, all that was submitted.
        most = prefetch if grade("clean").word != "kept" else min(prefetch, journal.count("start") + resolved.workers)
        time.sleep(0.15)  # what would be too much has its chance
        assert journal.count("start") <= most

    def test_two_streams_go_in_step(self, resolved: Any) -> None:
        with resolved:
            for work, prefetch in itertools.product(_STREAMED, (4, 2, 8)):
                ones, twos = (ordered_map(work, _Stream(4), prefetch=prefetch, backend=resolved) for _ in range(2))
                with ones, twos:
                    found = outcomes(zip(ones, twos, strict=False))
                expected = outcomes(zip(map(work, range(4)), map(work, range(4)), strict=False))
                assert [*map(repr, found)] == [*map(repr, expected)]

    def test_arguments_of_different_lengths_go_in_step_and_are_all_closed(self, resolved: Any) -> None:
        with resolved:
            for strict, lengths in itertools.product((False, True), ((3, 5, 9), (9, 3, 5), (5, 9, 3))):
                ours, others = ([_Stream(length) for length in lengths] for _ in range(2))
                sources = [iter(stream) for stream in ours]
                found = outcomes(ordered_map(_summed, *sources, strict=strict, prefetch=4, backend=resolved))
                expected = outcomes(_summed(*numbers) for numbers in zip(*others, strict=strict))
                assert [*map(repr, found)] == [*map(repr, expected)]
                assert [stream.pulled for stream in ours] == [stream.pulled for stream in others]
                assert [stream.ended_in for stream in ours] == [[threading.current_thread()]] * 3

    def test_an_infinite_source_is_at_no_moment_further_than_the_window(self, resolved: Any) -> None:
        given: list[int] = []

        def source(prefetch: int) -> Iterator[int]:
            for number in itertools.count():
                assert number < len(given) + prefetch
                yield number

        with resolved:
            for prefetch in (1, 2, 7):
                given.clear()
                with ordered_map(_double, source(prefetch), prefetch=prefetch, backend=resolved) as iterator:
                    for result in itertools.islice(iterator, 60):
                        assert result == 2 * len(given)
                        given.append(result)

    @pytest.mark.parametrize(("prefetch", "chunksize"), [(1, None), (2, None), (16, 1), (None, 1)])
    def test_a_source_may_wait_until_what_it_gave_is_computed(
        self, backend: Any, journal: Journal, prefetch: int | None, chunksize: int | None
    ) -> None:
        def answer(request: int) -> int:
            journal.note("answer", request + 1)
            return request + 1

        def source() -> Iterator[int]:
            request = 0
            for number in range(1, 9):
                yield request
                wait_until(lambda: journal.count("answer") == number, f"request {number} is answered")
                request = journal.events()[-1][1]

        found = ordered_map(answer, source(), prefetch=prefetch, backend=backend, chunksize=chunksize)
        assert list(found) == list(range(1, 9))

    def test_with_a_window_of_one_a_source_has_seen_every_answer(self, backend: Any) -> None:
        answers = [1]

        def source() -> Iterator[int]:
            while answers[-1] < 1000:
                yield answers[-1]

        for result in ordered_map(_double, source(), prefetch=1, backend=backend):
            assert result == 2 * answers[-1]
            answers.append(result)
        assert answers == [2**n for n in range(11)]

    @pytest.mark.parametrize("prefetch", [1, None])
    def test_what_has_come_is_given_before_a_slow_source_is_pulled_again(
        self, backend: Any, resolved: Backend, journal: Journal, prefetch: int | None
    ) -> None:
        dataset, pulled = Recorded(journal, 5), []

        def source() -> Iterator[int]:
            for number in range(5):
                wait_until(lambda: journal.count("start") == number, "what was pulled is computed")
                time.sleep(0.15 if number else 0.0)  # its result comes meanwhile
                pulled.append(number)
                yield number

        with ordered_map(dataset.__getitem__, source(), prefetch=prefetch, backend=backend) as iterator:
            assert next(iterator) == 0
        assert len(pulled) <= (1 if prefetch == 1 or not resolved.workers else 2)

    # the iterator

    def test_each_item_goes_to_one_of_several_threads(self, backend: Any) -> None:
        iterator = ordered_imap(range(300), backend=backend)
        found: list[list[int]] = [[], [], []]
        threads = [threading.Thread(target=lambda mine=mine: mine.extend(iterator)) for mine in found]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert sorted(itertools.chain(*found)) == list(range(300))
        assert all(mine == sorted(mine) for mine in found)

    def test_close_ends_a_waiting_next(self, backend: Any, journal: Journal) -> None:
        iterator = ordered_imap(Recorded(journal, 5, 0.5), prefetch=2, backend=backend)
        ended: list[Any] = []
        waiting = threading.Thread(target=lambda: ended.extend(outcomes(iterator)))
        waiting.start()
        wait_until(lambda: journal.count("start") > 0, "an item has started")
        iterator.close()
        waiting.join(PATIENCE)
        assert not waiting.is_alive()
        assert len(ended) <= 1  # serial: the item in hand comes to its end
        assert outcomes(iterator) == []
        assert len(iterator) == 0

    def test_len_counts_down(self, backend: Any) -> None:
        iterator = ordered_imap("abc", epochs=2, backend=backend)
        lengths = [len(iterator)]
        for _ in iterator:
            lengths.append(len(iterator))
        assert lengths == [6, 5, 4, 3, 2, 1, 0]

    # random numbers, and going on

    def test_the_random_numbers_are_those_of_the_seed_the_epoch_and_the_index(
        self, backend: Any, grade: Callable[[str], Grade]
    ) -> None:
        globals_too = grade("random numbers").word == "kept"

        def work(index: int) -> list[Any]:
            own = item_rng()
            return [index, own.random(), item_rng().random(), globals_too and random.random()]  # noqa: S311

        def found(backend: Any, **options: Any) -> list[Any]:
            return list(ordered_imap(_Plain(9, work), backend=backend, epochs=2, **options))

        expected = found("serial", seed=3)
        assert found(backend, seed=3) == found(backend, seed=3, prefetch=8, chunksize=4) == expected
        assert found(backend, seed=3, shuffle=True)[5] in expected
        assert not any(one in expected for one in [*found(backend, seed=4), *found(backend)])
        assert len({number for _, *numbers in expected for number in numbers if number}) == 18 * (2 + globals_too)

    def test_an_item_knows_which_it_is_and_who_computes_it(self, backend: Any, resolved: Backend) -> None:
        def work(index: int) -> Any:
            found = worker_info()
            if index % 3 == 2 and found is not None and found.attempt < 3:
                raise LookupError(index)
            return found

        def check(items: Iterator[Any], indices: range) -> None:
            workers = max(resolved.workers, 1)
            for place, info in enumerate(items):
                index = indices[place % len(indices)]
                assert info[1:] == (workers, index, place // len(indices), 3 if index % 3 == 2 else 1)
                assert info.worker is None or info.worker in range(workers)

        check(ordered_imap(_Plain(10, work), backend=backend, epochs=2, retries=2), range(10))
        check(ordered_imap(_Plain(9, work), backend=backend, indices=range(8, 0, -1), retries=2), range(8, 0, -1))
        check(ordered_map(work, range(10), backend=backend, prefetch=8, chunksize=4, retries=2), range(10))
        assert worker_info() is None

    def test_another_goes_on_where_one_was(self, backend: Any) -> None:
        def made(backend: Any) -> OrderedIterator[Any]:
            return ordered_imap(_Plain(7, _double), backend=backend, epochs=2, shuffle=True, seed=1)

        whole = list(made("serial"))
        for position in (0, 3, 7, 13, 14):
            with made(backend) as one:
                assert list(itertools.islice(one, position)) == whole[:position]
            other = made(backend)
            other.load_state_dict(json.loads(json.dumps(one.state_dict())))
            assert list(other) == whole[position:]

    def test_the_dataset_hears_of_the_end_of_each_epoch(self, backend: Any) -> None:
        dataset = _Epochs()
        iterator = ordered_imap(dataset, backend=backend, epochs=3, prefetch=8)
        assert list(itertools.islice(iterator, 4)) == [(0, n) for n in range(4)]
        assert dataset.ended == 0
        assert next(iterator) == (1, 0)
        assert dataset.ended == 1
        assert list(iterator) == [(1, n) for n in range(1, 5)] + [(2, n) for n in range(6)]
        assert dataset.ended == 3

    # the pool and the way there

    def test_two_runs_at_once(self, resolved: Backend) -> None:
        ones = ordered_imap(_Plain(40, lambda index: ("one", index)), backend=resolved, prefetch=5)
        twos = ordered_imap(_Plain(40, lambda index: ("two", index)), backend=resolved, prefetch=5)
        assert list(zip(ones, twos, strict=True)) == [(("one", n), ("two", n)) for n in range(40)]

    def test_a_pool_closed_under_an_iterator_ends_it_with_an_error(self, resolved: Any, journal: Journal) -> None:
        if not hasattr(resolved, "_runs"):  # borrowed: it is its owner's to close; serial: there is nothing to close
            return
        iterator = ordered_imap(Recorded(journal, 100), backend=resolved, prefetch=4)
        next(iterator)
        resolved.close()
        found = outcomes(iterator)
        assert [type(error) for error in found[-1:]] == [OrdmapError]
        assert "the pool was closed" in str(found[-1])
        assert outcomes(iterator) == []

        iterator = ordered_imap(Recorded(journal, 9, 1.0), backend=resolved, prefetch=4)
        waiting: list[Any] = []
        thread = threading.Thread(target=lambda: waiting.extend(outcomes(iterator)))
        started = journal.count("start")
        thread.start()
        wait_until(lambda: journal.count("start") > started, "an item has started")
        resolved.close()
        thread.join(PATIENCE)
        assert not thread.is_alive()
        assert "the pool was closed" in str(waiting[-1])
        assert list(ordered_imap("abc", backend=resolved)) == ["a", "b", "c"]  # it can be used again

    def test_close_during_the_first_next_ends_it(self, backend: Any, journal: Journal) -> None:
        for delay in (0.0, 0.001, 0.005, 0.02):
            iterator = ordered_imap(Recorded(journal, 50, 0.01), backend=backend, prefetch=4)
            closer = threading.Timer(delay, iterator.close)
            closer.start()
            found = outcomes(iterator)
            closer.join()
            assert found == [n * n for n in range(len(found))]
            assert outcomes(iterator) == []

    def test_a_later_run_sees_the_dataset_as_it_is_then(self, resolved: Any) -> None:
        dataset = [1, 2, 3]
        with resolved:
            assert list(ordered_imap(dataset, backend=resolved)) == [1, 2, 3]
            dataset[1] = 9
            assert list(ordered_imap(dataset, backend=resolved)) == [1, 9, 3]

    def test_the_dataset_reaches_each_worker_once(self, resolved: Any, journal: Journal) -> None:
        with resolved:
            for runs in (1, 2):
                dataset = _Shipped(journal, 60, 0.002)
                assert len(list(ordered_imap(dataset, backend=resolved, prefetch=8))) == 60
                rebuilt = Counter(pid for event, _, pid in journal.events() if event == "rebuilt")
                assert all(times <= runs for times in rebuilt.values())
                assert len(rebuilt) <= max(resolved.workers, 1)

    def test_closures_and_local_classes_travel(self, backend: Any) -> None:
        offset = 10

        class Local:
            def __init__(self, value: int) -> None:
                self.value = value

            def __eq__(self, other: object) -> bool:
                return type(other) is Local and other.value == self.value

            def __hash__(self) -> int:
                return self.value

        found = list(ordered_map(lambda x: Local(x.value + offset), [Local(1), Local(2)], backend=backend))
        assert found == [Local(11), Local(12)]

    def test_leaves_nothing_behind(self, backend: Any) -> None:
        def use(step: Callable[[OrderedIterator[int]], object]) -> None:
            step(ordered_imap(_Plain(20, _double), prefetch=6, epochs=2, backend=backend))

        def abandon(iterator: OrderedIterator[int]) -> None:
            cycle: list[Any] = [iterator, next(iterator)]
            cycle.append(cycle)

        def fail(iterator: OrderedIterator[int]) -> None:
            with pytest.raises(ZeroDivisionError), iterator:
                next(iterator)
                raise ZeroDivisionError

        use(list)  # what a backend keeps for good it has after this
        before = _held_here()
        if self.connections_vary:
            before = (Counter(dict.fromkeys(before[0], 1 << 30)), *before[1:])
        for step in (list, next, abandon, fail, OrderedIterator.start, OrderedIterator.close):
            use(step)
        wait_until(lambda: _nothing_more_than(before), "nothing is left behind")


def _double(number: int) -> int:
    return 2 * number


def _summed(*numbers: int) -> int:
    return sum(numbers)


def _odd_ones_fail(number: int) -> int:
    if number % 2:
        raise LookupError(number)
    return number


def _slowest_first(number: int) -> int:
    time.sleep(0.0 if number else 0.05)
    return number


#: What the streams are mapped with: all goes well, every other item fails, the others have to wait for the first.
_STREAMED: tuple[Callable[[int], int], ...] = (_double, _odd_ones_fail, _slowest_first)


def _mapped(work: Callable[[int], int], numbers: range) -> list[str]:
    """Return what `map` gives, and raises, in a form that compares."""
    return [*map(repr, outcomes(map(work, numbers)))]
