"""Coroutines as items, ``async for`` over any backend, and inputs that come asynchronously."""

from __future__ import annotations

import asyncio
import gc
import json
import random
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest

import ordmap
from ordmap import (
    Asyncio,
    Failure,
    ItemTimeoutError,
    OrdmapError,
    ParallelDataset,
    Processes,
    Threads,
    WorkerDiedError,
    item_rng,
    ordered_imap,
    ordered_map,
    worker_info,
)
from ordmap.backends import portable
from ordmap.testing import outcomes, wait_until

BACKENDS = {
    "serial": lambda: {"workers": 0},
    "threads": lambda: {"workers": 2, "backend": "threads"},
    "processes": lambda: {"workers": 2, "backend": "processes"},
    "spawn": lambda: {"workers": 2, "backend": "spawn"},
    "asyncio": lambda: {"workers": 2, "backend": "asyncio"},
    "portable processes": lambda: {"backend": portable.Processes(2)},
}
EACH = pytest.mark.parametrize("name", BACKENDS)


def run(main):
    return asyncio.run(asyncio.wait_for(main(), 60))


def square(number):
    return number * number


async def numbers(length, delay=0.0, seen=None):
    for number in range(length):
        await asyncio.sleep(delay)
        if seen is not None:
            seen.append(number)
        yield number


# Items that are awaited


class Fetched:
    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length

    async def __getitem__(self, index):
        await asyncio.sleep(random.Random(index).random() / 100)
        if index % 10 == 7:
            raise LookupError(index)
        return index, worker_info()[1:], item_rng().random()


def test_a_dataset_may_give_coroutines():
    iterator = ordered_imap(Fetched(40), 8, backend="asyncio", seed=3, epochs=2, shuffle=True)
    found = outcomes(iterator)
    assert len(found) == 80
    failed = [error for error in found if isinstance(error, LookupError)]
    assert Counter(error.args[0] for error in failed) == {7: 2, 17: 2, 27: 2, 37: 2}
    for _, info, _ in (one for one in found if type(one) is tuple):
        assert info[0] == 8
    assert {(info[1], info[2]) for _, info, _ in (one for one in found if type(one) is tuple)} == {
        (index, epoch) for index in range(40) for epoch in range(2) if index % 10 != 7
    }
    again = outcomes(ordered_imap(Fetched(40), 3, backend="asyncio", seed=3, epochs=2, shuffle=True))
    assert [one[2] for one in found if type(one) is tuple] == [one[2] for one in again if type(one) is tuple]


@pytest.mark.parametrize("workers", [1, 3, 50])
def test_as_many_are_awaited_at_a_time_as_there_are_workers(workers):
    now, most = 0, 0

    async def item(number):
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.02)
        now -= 1
        return number

    found = list(ordered_map(item, range(60), workers=workers, prefetch=60, chunksize=1, backend="asyncio"))
    assert found == list(range(60))
    assert most == workers


def test_an_item_that_takes_too_long_is_cancelled_and_tried_again():
    ended = []

    async def item(number):
        try:
            if number == 2:
                await asyncio.sleep(60)
            return number
        finally:
            ended.append(number)

    with Asyncio(2) as pool:
        found = outcomes(ordered_map(item, range(5), backend=pool, item_timeout=0.1, retries=1))
        assert [found[0], found[1], found[3], found[4]] == [0, 1, 3, 4]
        error = found[2]
        assert type(error) is ItemTimeoutError
        assert (error.index, error.limit) == (2, 0.1)
        assert ", in item\n" in error.stack
        assert ", in sleep\n" in error.stack
        wait_until(lambda: ended.count(2) == 2, "both attempts have ended")


def test_what_items_raise():
    async def item(number):
        await asyncio.sleep(0)
        if number == 0:
            raise StopIteration
        if number == 1:
            raise asyncio.CancelledError
        if number == 2:
            raise SystemExit(3)
        if number == 3:
            raise KeyboardInterrupt
        if number == 4:
            asyncio.current_task().cancel()
            await asyncio.sleep(1)
        if number == 5:
            raise StopAsyncIteration
        return number

    found = outcomes(ordered_map(item, range(8), workers=2, backend="asyncio"))
    assert [type(error).__name__ for error in found[:6]] == ["RuntimeError", *["RemoteError"] * 5]
    assert found[6:] == [6, 7]
    names = [error.type_name for error in found[1:5]]
    assert names == [
        "asyncio.exceptions.CancelledError",
        "SystemExit",
        "KeyboardInterrupt",
        "asyncio.exceptions.CancelledError",
    ]


def test_a_traceback_begins_in_the_item():
    async def item(number):
        return 1 // number

    (error,) = outcomes(ordered_map(item, [0], backend="asyncio"))
    assert error.__traceback__.tb_next is not None
    places = []
    place = error.__traceback__
    while place is not None:
        places.append(place.tb_frame.f_code.co_name)
        place = place.tb_next
    assert places[-1] == "item"
    assert "_computed" not in places


def test_what_is_under_way_is_cancelled_when_the_iterator_is_left():
    ended = []

    async def item(number):
        try:
            await asyncio.sleep(60 if number else 0)
        finally:
            ended.append(number)
        return number

    with Asyncio(3) as pool:
        with ordered_map(item, range(100), backend=pool, prefetch=4, chunksize=1) as iterator:
            assert next(iterator) == 0
        wait_until(lambda: len(ended) == 4, "all items have ended")
        assert list(ordered_map(item, [0], backend=pool)) == [0]
    with ordered_map(item, range(100), workers=3, backend="asyncio", prefetch=4) as iterator:
        assert next(iterator) == 0


def test_the_initializer_and_the_finalizer_run_on_the_loop():
    seen = []

    async def begin(name):
        seen.append((name, asyncio.get_running_loop()))

    async def end():
        await asyncio.sleep(0)
        seen.append(("end", asyncio.get_running_loop()))

    async def item(_):
        return asyncio.get_running_loop()

    with Asyncio(2, initializer=begin, initargs=("begin",), finalizer=end) as pool:
        (loop,) = ordered_map(item, [1], backend=pool)
    assert seen == [("begin", loop), ("end", loop)]
    assert loop.is_closed()

    def fail():
        raise LookupError("no")

    with pytest.raises(WorkerDiedError, match="the initializer failed in worker of the loop: LookupError: no"):
        list(ordered_map(item, [1], backend=Asyncio(2, initializer=fail)))


def test_plain_functions_are_taken_too_and_what_they_return_is_awaited():
    assert list(ordered_map(square, range(5), backend="asyncio")) == [0, 1, 4, 9, 16]

    def later(number):
        return asyncio.sleep(0.001, number)

    assert list(ordered_map(later, range(5), backend="asyncio")) == list(range(5))
    assert list(ordered_map(asyncio.sleep, [0.001, 0], "ab", backend="asyncio")) == ["a", "b"]


def test_coroutine_functions_are_refused_elsewhere():
    async def item(number):
        return number

    for how in ({}, {"workers": 0}, {"backend": "threads"}, {"backend": Processes(2)}):
        with pytest.raises(
            TypeError, match=r"is a coroutine function, which backend=.* doesn't await: write 'asyncio'"
        ):
            ordered_map(item, range(3), **how)
        with pytest.raises(TypeError, match="this dataset's __getitem__ is a coroutine function"):
            ordered_imap(Fetched(3), **how)
    assert list(ordered_map(square, range(3), workers=0)) == [0, 1, 4]


def test_an_item_can_not_use_its_own_loop():
    with Asyncio(2) as pool:

        async def item(_):
            return list(ordered_map(square, [1], backend=pool))

        with pytest.raises(OrdmapError, match="an item can't use the loop that it runs on"):
            list(ordered_map(item, [1], backend=pool))


def test_a_program_may_end_in_the_midst(script):
    path = script("""
import asyncio, sys
from ordmap import ordered_map

async def item(number):
    await asyncio.sleep(60 if number else 0)
    return number

numbers = ordered_map(item, range(9), workers=2, backend="asyncio")
print(next(numbers))
if "exit" in sys.argv:
    sys.exit(3)
""")
    for argument, code in (("", 0), ("exit", 3)):
        began = time.monotonic()
        done = subprocess.run([sys.executable, path, argument], capture_output=True, text=True, timeout=50, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (code, "0\n", "")
        assert time.monotonic() - began < 20


# async for


@EACH
def test_async_for_gives_what_a_loop_gives(name):
    async def main():
        found = [one async for one in ordered_map(square, range(300), **BACKENDS[name]())]
        async with ordered_imap("abc", epochs=3, **BACKENDS[name]()) as letters:
            return found, [letter async for letter in letters]

    found, letters = run(main)
    assert found == [n * n for n in range(300)]
    assert letters == list("abcabcabc")


@EACH
def test_async_for_goes_on_after_a_failure(name):
    def item(number):
        if number % 4 == 2:
            raise LookupError(number)
        return number

    async def main():
        iterator = ordered_map(item, range(10), **BACKENDS[name]())
        found = []
        while True:
            try:
                found.append(await anext(iterator))
            except StopAsyncIteration:
                break
            except LookupError as error:
                found.append(error.args)
        skipped = [one async for one in ordered_map(item, range(10), on_error="skip", **BACKENDS[name]())]
        returned = [one async for one in ordered_map(item, range(10), on_error="return", retries=1, **BACKENDS[name]())]
        return found, skipped, returned

    found, skipped, returned = run(main)
    assert found == [0, 1, (2,), 3, 4, 5, (6,), 7, 8, 9]
    assert skipped == [0, 1, 3, 4, 5, 7, 8, 9]
    assert [one.attempts for one in returned if isinstance(one, Failure)] == [2, 2]


@pytest.mark.parametrize("name", [name for name in BACKENDS if name != "serial"])
def test_the_loop_is_not_held_up(name):
    """A task that wakes a thousand times a second does so, while items take half a second each."""

    async def main():
        item = asyncio.sleep if name == "asyncio" else time.sleep
        iterator = ordered_map(item, [0.0, 0.5, 0.5, 0.5], prefetch=4, **BACKENDS[name]())
        await anext(iterator)  # begins the workers
        beats = [time.perf_counter()]

        async def beat():
            while True:
                await asyncio.sleep(0.001)
                beats.append(time.perf_counter())

        beating = asyncio.create_task(beat())
        assert [one async for one in iterator] == [None] * 3
        beating.cancel()
        return beats

    beats = run(main)
    assert len(beats) > 50
    assert max(later - earlier for earlier, later in pairwise(beats)) < 0.45


@EACH
def test_a_cancelled_task_closes_the_iterator_that_it_alone_holds(name):
    item = (lambda _: asyncio.sleep(0.05)) if name == "asyncio" else (lambda _: time.sleep(0.05))
    made = []

    async def use():
        iterator = ordered_map(item, range(1000), **BACKENDS[name]())
        made.append(weakref.ref(iterator))
        async for _ in iterator:
            await asyncio.sleep(0)

    async def main():
        task = asyncio.create_task(use())
        await asyncio.sleep(0.3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        del task
        await asyncio.sleep(0)  # asyncio holds the exception, and so the frames, as long as this step takes
        gc.collect()
        if name != "serial":  # which never awaits anything, so that the task came to its end
            assert made[0]() is None

    run(main)


@pytest.mark.parametrize("name", ["threads", "processes", "asyncio"])
def test_closed_from_elsewhere_it_ends(name):
    async def main():
        for _ in range(5):
            item = asyncio.sleep if name == "asyncio" else time.sleep
            iterator = ordered_map(item, [0, *[0.2] * 20], **BACKENDS[name]())
            await anext(iterator)
            threading.Timer(0.02, iterator.close).start()
            assert len([one async for one in iterator]) < 20

    run(main)


def test_several_tasks_share_an_iterator():
    async def main():
        iterator = ordered_map(square, range(200), workers=2)
        found = []

        async def take():
            async for one in iterator:
                found.append(one)  # noqa: PERF401  an await may come between any two
                await asyncio.sleep(0)

        await asyncio.gather(*(take() for _ in range(5)))
        return found

    assert sorted(run(main)) == [n * n for n in range(200)]


def test_several_iterators_share_a_pool():
    async def main():
        with Processes(2) as pool:

            async def take(start):
                return [one async for one in ordered_map(square, range(start, start + 100), backend=pool)]

            found = await asyncio.gather(*(take(100 * n) for n in range(4)))
            return sum(found, [])

    assert run(main) == [n * n for n in range(400)]


def test_a_worker_s_death_and_a_late_item_cost_themselves():
    def item(number):
        import os

        if number == 3:
            os.kill(os.getpid(), 9)
        if number == 5:
            time.sleep(60)
        return number

    async def main():
        found = []
        iterator = ordered_map(item, range(8), workers=2, item_timeout=0.5, on_error="return")
        async for one in iterator:
            found.append(type(one.error) if isinstance(one, Failure) else one)  # noqa: PERF401
        return found

    assert run(main) == [0, 1, 2, WorkerDiedError, 4, ItemTimeoutError, 6, 7]


def test_states_are_those_of_a_plain_loop():
    async def main():
        one = ordered_imap(range(50), 2, shuffle=True, seed=1)
        found = [await anext(one) for _ in range(20)]
        return found, one.state_dict()

    found, state = run(main)
    other = ordered_imap(range(50), 0, shuffle=True, seed=1)
    other.load_state_dict(json.loads(json.dumps(state)))
    assert found + list(other) == list(ordered_imap(range(50), 0, shuffle=True, seed=1))


def test_a_parallel_dataset_too():
    async def main():
        with ParallelDataset(range(20), 2, backend="threads") as parallel:
            return [one async for one in parallel], [one async for one in parallel[5:8]]

    assert run(main) == (list(range(20)), [5, 6, 7])


def test_executors_of_others():
    async def main():
        with ThreadPoolExecutor(2) as executor:
            return [one async for one in ordered_map(square, range(100), backend=executor)]

    assert run(main) == [n * n for n in range(100)]


# Inputs that come asynchronously


@EACH
def test_an_asynchronous_source(name):
    async def main():
        found = [one async for one in ordered_map(square, numbers(30), **BACKENDS[name]())]
        pairs = [one async for one in ordered_map(lambda *pair: pair, numbers(5), "abcdefg", **BACKENDS[name]())]
        return found, pairs

    found, pairs = run(main)
    assert found == [n * n for n in range(30)]
    assert pairs == list(zip(range(5), "abcdefg", strict=False))


@pytest.mark.parametrize("prefetch", [1, 2, 7])
@pytest.mark.parametrize("name", ["threads", "processes", "asyncio"])
def test_it_is_pulled_no_further_than_the_window(name, prefetch):
    async def main():
        seen = []
        iterator = ordered_map(square, numbers(10**9, 0.0, seen), prefetch=prefetch, **BACKENDS[name]())
        async with iterator:
            for place in range(40):
                assert await anext(iterator) == place * place
                await asyncio.sleep(0.001)
                assert len(seen) <= place + 1 + prefetch

    run(main)


def test_a_request_may_be_made_of_the_last_answer():
    async def main():
        for prefetch in (1, 2, 16):
            answers = asyncio.Queue()

            async def requests(answers=answers):
                number = 1
                while number < 500:
                    yield number
                    number = await answers.get()

            found = []
            async for one in ordered_map(lambda n: n * 2, requests(), workers=2, backend="threads", prefetch=prefetch):
                found.append(one)
                answers.put_nowait(one)
            assert found == [2**n for n in range(1, 10)]

    run(main)


def test_what_it_raises_comes_after_what_it_gave():
    async def source():
        yield 1
        yield 2
        raise LookupError("source")

    async def main():
        iterator = ordered_map(square, source(), workers=2, backend="threads")
        found = [await anext(iterator), await anext(iterator)]
        with pytest.raises(LookupError, match="source"):
            await anext(iterator)
        return found, [one async for one in iterator]

    assert run(main) == ([1, 4], [])


def test_strict():
    async def main():
        with pytest.raises(ValueError, match="different lengths"):
            async for _ in ordered_map(max, numbers(3), range(5), workers=2, backend="threads", strict=True):
                pass
        return [one async for one in ordered_map(max, numbers(3), range(3), workers=2, backend="threads", strict=True)]

    assert run(main) == [0, 1, 2]


@pytest.mark.parametrize("how", ["end", "close", "cancel", "with", "drop"])
def test_it_is_closed(how):
    closed = asyncio.Event()

    async def source():
        try:
            for number in range(3 if how == "end" else 10**9):
                yield number
                await asyncio.sleep(0.001)
        finally:
            await asyncio.sleep(0)
            closed.set()

    async def use(iterator):
        async for number in iterator:
            if number == 25 and how != "cancel":
                return

    async def main():
        iterator = ordered_map(square, source(), workers=2, backend="threads")
        if how == "cancel":
            task = asyncio.create_task(use(iterator))
            del iterator
            await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            del task
        elif how == "with":
            async with iterator:
                await use(iterator)
        else:
            await use(iterator)
            if how == "close":
                iterator.close()
            del iterator
            gc.collect()
        if how != "drop":
            await asyncio.wait_for(closed.wait(), 20)

    run(main)


def test_a_plain_loop_over_it_is_refused():
    with pytest.raises(TypeError, match="gone through by `async for`, and not by a plain loop"):
        list(ordered_map(square, numbers(3), workers=2, backend="threads"))


def test_its_state_goes_on():
    async def main():
        one = ordered_map(square, numbers(30), workers=2, backend="threads", prefetch=6)
        found = [await anext(one) for _ in range(11)]
        state = json.loads(json.dumps(one.state_dict()))
        one.close()
        other = ordered_map(square, numbers(30), workers=2)
        other.load_state_dict(state)
        return found + [one async for one in other]

    assert run(main) == [n * n for n in range(30)]


# A real one


def test_500_pages_are_fetched_in_order_bounded_and_one_that_hangs_is_given_up():
    web = pytest.importorskip("aiohttp.web")
    import aiohttp

    now = most = 0
    hung = asyncio.Event()
    session = None

    async def answer(request):
        number = int(request.match_info["number"])
        if number == 250:
            hung.set()
            await asyncio.sleep(600)
        await asyncio.sleep(random.Random(number).random() / 50)
        return web.Response(text=f"page {number}")

    async def begin():
        nonlocal session
        session = aiohttp.ClientSession()

    async def end():
        await session.close()

    async def fetch(url):
        nonlocal now, most
        now += 1
        most = max(most, now)
        try:
            async with session.get(url) as response:
                return await response.text()
        finally:
            now -= 1

    async def main():
        app = web.Application()
        app.router.add_get("/{number}", answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]
        urls = (f"http://127.0.0.1:{port}/{number}" for number in range(500))
        pool = Asyncio(20, initializer=begin, finalizer=end)
        try:
            pages = ordered_map(fetch, urls, backend=pool, prefetch=40, item_timeout=2, on_error="return")
            return [page async for page in pages]
        finally:
            await runner.cleanup()

    pages = run(main)
    assert isinstance(pages[250], Failure)
    assert type(pages[250].error) is ItemTimeoutError
    assert pages[:250] + pages[251:] == [f"page {n}" for n in range(500) if n != 250]
    assert hung.is_set()
    assert 5 < most <= 20


def test_asyncio_is_imported_by_who_uses_it():
    done = subprocess.run(
        [sys.executable, "-c", "import sys, ordmap; list(ordmap.ordered_map(abs, [1], workers=0)); sys.exit('asyncio' in sys.modules)"],
        check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0
    assert ordmap.Asyncio is Asyncio
    assert Threads.name == "threads"


def test_one_iterator_feeds_another_in_both_kinds_of_loops():
    def made():
        return ordered_map(square, ordered_map(square, range(50), workers=2, backend="threads"), workers=2)

    async def main():
        return [one async for one in made()]

    assert run(main) == list(made()) == [n**4 for n in range(50)]


@pytest.mark.parametrize("how", ["stop", "cancel all"])
def test_an_item_that_ends_the_loop_ends_the_run_with_an_error(how):
    async def item(number):
        if number == 2:
            if how == "stop":
                asyncio.get_running_loop().stop()
            else:
                for task in asyncio.all_tasks():
                    task.cancel()
            await asyncio.sleep(60)
        return number

    iterator = ordered_map(item, range(6), workers=1, prefetch=1, backend="asyncio")
    assert [next(iterator), next(iterator)] == [0, 1]
    with pytest.raises(OrdmapError):
        while True:
            next(iterator)
    assert list(ordered_map(square, range(3), backend="asyncio")) == [0, 1, 4]


def test_an_item_may_clean_up_before_the_finalizer():
    seen = []

    async def item(number):
        try:
            await asyncio.sleep(60 if number else 0)
        finally:
            await asyncio.sleep(0.05)
            seen.append(number)
        return number

    with ordered_map(item, range(9), backend=Asyncio(2, finalizer=lambda: seen.append("end")), prefetch=3) as iterator:
        assert next(iterator) == 0
        time.sleep(0.05)
    assert seen[0] == 0
    assert seen[-1] == "end"
    assert len(seen) >= 3


def test_an_asynchronous_source_of_arrays():
    np = pytest.importorskip("numpy")

    async def arrays():
        for number in range(5):
            yield np.full(30_000, number)

    async def main():
        return [one async for one in ordered_map(lambda x: int(x.max()), arrays(), workers=2)]

    assert run(main) == [0, 1, 2, 3, 4]


def test_async_for_leaves_a_thread_alone_whose_item_takes_too_long():
    async def main():
        iterator = ordered_map(time.sleep, [0, 2, 0], backend=Threads(1), item_timeout=0.2, on_error="return")
        began = time.perf_counter()
        found = [one async for one in iterator]
        return found, time.perf_counter() - began

    found, took = run(main)
    assert [type(one) for one in found] == [type(None), Failure, type(None)]
    assert took < 1.9


def test_a_source_that_is_cancelled_says_so():
    async def source():
        yield 1
        yield 2
        raise asyncio.CancelledError

    async def main():
        iterator = ordered_map(square, source(), workers=2, backend="threads")
        assert [await anext(iterator), await anext(iterator)] == [1, 4]
        with pytest.raises(RuntimeError, match="the source of ordered_map was cancelled"):
            await anext(iterator)
        assert [one async for one in iterator] == []

    run(main)


def test_sources_behind_one_that_has_ended_are_not_pulled():
    async def main():
        seen = []
        found = [one async for one in ordered_map(max, numbers(2), numbers(9, 0.0, seen), workers=2, backend="threads")]
        return found, seen

    assert run(main) == ([0, 1], [0, 1])


@pytest.mark.parametrize("taken", [1, 5])
def test_any_asynchronous_source_is_closed(taken):
    class Source:
        def __init__(self):
            self.numbers = iter(range(4))
            self.closed = 0

        def __aiter__(self):
            return self

        async def __anext__(self):
            for number in self.numbers:
                return number
            raise StopAsyncIteration

        async def aclose(self):
            self.closed += 1

    class Plain:
        closed = 0

        def __iter__(self):
            return self

        def __next__(self):
            return 1

        def close(self):
            self.closed += 1

    async def main():
        source, plain = Source(), Plain()
        iterator = ordered_map(lambda one, other: one + other, source, plain, workers=2, prefetch=2)
        found = []
        async for one in iterator:
            found.append(one)
            if len(found) == taken:
                break
        iterator.close()
        iterator.close()
        await asyncio.sleep(0.05)
        return found, source.closed, plain.closed

    assert asyncio.run(main()) == ([1, 2, 3, 4][:taken], 1, 1)


# Chunks that another thread brings


def test_the_loop_is_told_once_of_all_chunks_that_come_while_it_is_busy():
    with Asyncio(4) as pool:
        assert list(ordered_map(square, [3], backend=pool)) == [9]
        loop = pool._crews[None].loop
        is_held, go_on, told = threading.Event(), threading.Event(), []
        tell = loop.call_soon_threadsafe
        tell(lambda: (is_held.set(), go_on.wait(20)))
        assert is_held.wait(20)
        loop.call_soon_threadsafe = lambda *call, **how: (told.append(call[0].__name__), tell(*call, **how))
        iterator = ordered_map(square, range(200), backend=pool, prefetch=64, chunksize=1).start()
        assert iterator.stats.in_flight == 64
        assert told == ["_take_brought"]
        go_on.set()
        assert list(iterator) == [n * n for n in range(200)]


def test_a_handler_that_raises_while_the_loop_is_told_costs_another_run_nothing():
    """At each call and return of ours that brings a chunk to the loop."""

    class Interrupt(BaseException):
        pass

    def raises(*_):
        raise Interrupt

    def profile(frame, _, argument):
        nonlocal left
        left -= argument is not sys.setprofile and frame.f_code.co_filename.endswith("asyncio.py")
        if left == 0:
            sys.setprofile(None)
            signal.raise_signal(signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, raises)
    try:
        for instant in range(1, 200):
            left = instant
            with Asyncio(2) as pool:
                other = ordered_map(square, range(30), backend=pool, prefetch=4, chunksize=1)
                assert [next(other), next(other)] == [0, 1]
                one = ordered_map(square, range(30), backend=pool, prefetch=4, chunksize=1)
                try:
                    sys.setprofile(profile)
                    one.start()
                except Interrupt:
                    pass
                finally:
                    sys.setprofile(None)
                assert list(other) == [n * n for n in range(2, 30)]
                one.close()
            if left > 0:
                break
        assert 8 < instant < 199
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("limit", [None, 30])
@pytest.mark.parametrize("kind", ["for", "async for"])
def test_thousands_of_items_of_any_length_come_in_order_and_leave_no_timer(kind, limit):
    loops = []

    async def item(number):
        if not loops:
            loops.append(asyncio.get_running_loop())
        if number % 3:
            await asyncio.sleep(random.Random(number).random() / 200)
        return number

    def made():
        return ordered_map(item, range(2000), workers=150, backend="asyncio", item_timeout=limit)

    async def main():
        found = [one async for one in made()]
        assert not [
            timer for timer in loops[0]._scheduled if not timer.cancelled() and timer.when() > loops[0].time() + 5
        ]
        return found

    assert (asyncio.run(main()) if kind == "async for" else list(made())) == list(range(2000))
