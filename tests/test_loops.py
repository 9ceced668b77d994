"""Items that are awaited on the caller's own event loop, and waits that are given up while items are not."""

from __future__ import annotations

import asyncio
import gc
import threading
import time

import pytest

from ordmap import (
    Asyncio,
    Failure,
    ItemTimeoutError,
    OrdmapError,
    ParallelDataset,
    WorkerDiedError,
    item_rng,
    ordered_imap,
    ordered_map,
    worker_info,
)
from ordmap.testing import wait_until
from test_asyncio import BACKENDS as EVERY_BACKEND

BACKENDS = {name: how for name, how in EVERY_BACKEND.items() if name != "serial"}  # which never awaits anything
EACH = pytest.mark.parametrize("name", BACKENDS)


def run(main):
    """Run a coroutine function on a loop that checks itself; it may leave no task, and nothing that nobody heard."""
    complaints = []

    async def whole():
        loop = asyncio.get_running_loop()
        loop.slow_callback_duration = 60
        loop.set_exception_handler(lambda _, what: complaints.append(what))
        try:
            async with asyncio.timeout(60):
                return await main()
        finally:
            gc.collect()
            give_up = time.monotonic() + 10  # what the garbage collector finds is closed by a thread
            while len(asyncio.all_tasks()) > 1 and time.monotonic() < give_up:
                await asyncio.sleep(0.001)
            assert asyncio.all_tasks() == {asyncio.current_task()}

    found = asyncio.run(whole(), debug=True)
    gc.collect()
    assert complaints == []
    return found


async def own_loop(number):
    await asyncio.sleep(0)
    return number, asyncio.get_running_loop(), threading.current_thread()


async def slowly(number):
    await asyncio.sleep(0.02)
    return number


# Which loop


def test_async_for_awaits_items_on_the_running_loop():
    async def main():
        here = asyncio.get_running_loop(), threading.current_thread()
        found = [one async for one in ordered_map(own_loop, range(50), workers=4, backend="asyncio")]
        assert found == [(number, *here) for number in range(50)]
        assert [one async for one in ordered_map(slowly, range(9), backend="asyncio").start()] == list(range(9))

    run(main)


def test_a_plain_loop_has_one_of_its_own():
    found = list(ordered_map(own_loop, range(3), backend="asyncio"))
    assert all(thread.name == "ordmap-asyncio" for _, _, thread in found)

    async def main():  # where it is not asked for its items by await
        return list(ordered_map(own_loop, range(3), backend="asyncio")), asyncio.get_running_loop()

    found, loop = run(main)
    assert all(other is not loop for _, other, _ in found)


def test_it_stays_where_it_began():
    async def main():
        iterator = ordered_map(own_loop, range(6), workers=2, backend="asyncio")
        _, first, _ = next(iterator)
        others = {loop async for _, loop, _ in iterator}
        assert others == {first}
        assert first is not asyncio.get_running_loop()

    run(main)


@pytest.mark.parametrize("kind", ["lock", "semaphore", "event", "queue"])
def test_items_share_what_the_program_opens(kind):
    async def main():
        lock, event, queue = asyncio.Lock(), asyncio.Event(), asyncio.Queue()
        semaphore = asyncio.Semaphore(2)

        async def item(number):
            if kind == "event":
                await event.wait()
            elif kind == "queue":
                return await queue.get()
            else:
                async with lock if kind == "lock" else semaphore:
                    await asyncio.sleep(0.001)
            return number

        async def holder():
            async with lock, semaphore:
                await asyncio.sleep(0.05)
            event.set()
            for number in range(20):
                await queue.put(number)

        holding = asyncio.create_task(holder())
        await asyncio.sleep(0)
        found = [one async for one in ordered_map(item, range(20), workers=4, backend="asyncio")]
        await holding
        return sorted(found)

    assert run(main) == list(range(20))


def test_items_use_a_connection_that_was_opened_before():
    async def main():
        async def serve(reader, writer):
            while line := await reader.readline():
                writer.write(line.upper())
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        turn = asyncio.Lock()

        async def item(word):
            async with turn:
                writer.write(word.encode() + b"\n")
                return (await reader.readline()).decode().strip()

        found = [one async for one in ordered_map(item, "abcdefgh", workers=4, backend="asyncio")]
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
        return found

    assert run(main) == list("ABCDEFGH")


def test_a_dataset_s_items_too_over_epochs_and_in_a_parallel_dataset():
    class Dataset:
        def __len__(self):
            return 5

        async def __getitem__(self, index):
            await asyncio.sleep(0)
            return index, asyncio.get_running_loop()

        def on_epoch_end(self):
            pass

    async def main():
        here = asyncio.get_running_loop()
        whole = [(index, here) for index in range(5)]
        assert [one async for one in ordered_imap(Dataset(), 2, backend="asyncio", epochs=3)] == whole * 3
        with ParallelDataset(Dataset(), 2, backend="asyncio") as parallel:
            assert [one async for one in parallel] == whole
            assert [one async for one in parallel] == whole

    run(main)


# What holds anywhere holds here


@pytest.mark.parametrize("prefetch", [1, 3, 8])
def test_the_window_is_filled_while_the_caller_awaits_something_else_and_never_passed(prefetch):
    async def main():
        begun = []

        async def item(number):
            begun.append(number)
            return number

        yielded = 0
        async with ordered_map(item, range(40), workers=2, backend="asyncio", prefetch=prefetch) as iterator:
            async for _ in iterator:
                assert len(begun) <= yielded + prefetch
                yielded += 1
                await asyncio.sleep(0.002)
                while yielded == 1 and len(begun) < prefetch:  # which comes about without another next()
                    await asyncio.sleep(0.002)
        return yielded

    assert run(main) == 40


@pytest.mark.parametrize("workers", [1, 3])
def test_so_many_are_awaited_at_a_time(workers):
    async def main():
        now = most = 0

        async def item(number):
            nonlocal now, most
            now += 1
            most = max(most, now)
            await asyncio.sleep(0.001)
            now -= 1
            return number

        items = ordered_map(item, range(60), workers=workers, prefetch=60, chunksize=1, backend="asyncio")
        assert [one async for one in items] == list(range(60))
        return most

    assert run(main) == workers


def test_time_outs_retries_and_errors():
    tries = []

    async def item(number):
        tries.append(number)
        if number == 2:
            await asyncio.sleep(60)
        if number == 4:
            raise LookupError(number)
        if number == 6:
            asyncio.current_task().cancel()
            await asyncio.sleep(1)
        return number

    async def main():
        options = {"workers": 2, "backend": "asyncio", "item_timeout": 0.1, "retries": 1, "on_error": "return"}
        return [one async for one in ordered_map(item, range(8), **options)]

    found = run(main)
    assert [one for one in found if not isinstance(one, Failure)] == [0, 1, 3, 5, 7]
    assert [type(one.error).__name__ for one in found if isinstance(one, Failure)] == [
        "ItemTimeoutError",
        "LookupError",
        "RemoteError",
    ]
    assert isinstance(found[2].error, ItemTimeoutError)
    assert "in item\n" in found[2].error.stack
    assert [tries.count(number) for number in range(8)] == [1, 1, 2, 1, 2, 1, 2, 1]


def test_random_numbers_and_who_computes_what():
    async def item(_):
        before = worker_info(), item_rng().random()
        await asyncio.sleep(0)
        assert worker_info() == before[0]
        return before

    async def main():
        return [one async for one in ordered_map(item, range(30), workers=3, backend="asyncio", seed=5)]

    found = run(main)
    assert [info.index for info, _ in found] == list(range(30))
    assert {info.worker for info, _ in found} <= {0, 1, 2}
    assert [random for _, random in found] == list(ordered_map(_random, range(30), workers=0, seed=5))


def _random(_):
    return item_rng().random()


def test_states():
    async def main():
        iterator = ordered_imap(range(20), 2, backend="asyncio", shuffle=True, seed=2)
        found = [await anext(iterator) for _ in range(7)]
        state = iterator.state_dict()
        await iterator.aclose()
        return found, state

    found, state = run(main)
    other = ordered_imap(range(20), 0, shuffle=True, seed=2)
    other.load_state_dict(state)
    assert found + list(other) == list(ordered_imap(range(20), 0, shuffle=True, seed=2))


# Waits that are given up


@EACH
def test_a_time_out_around_anext_gives_up_the_wait_and_not_the_item(name):
    async def main():
        item = slowly if name == "asyncio" else _sleep
        iterator = ordered_map(item, range(12), **BACKENDS[name]())
        found, beats = [], 0
        while True:
            try:
                found.append(await asyncio.wait_for(anext(iterator), 0.003))
            except TimeoutError:
                beats += 1
            except StopAsyncIteration:
                break
        assert beats
        return found

    assert run(main) == list(range(12))


def _sleep(number):
    time.sleep(0.02)
    return number


@pytest.mark.parametrize("name", ["threads", "processes", "asyncio"])
def test_so_does_a_deadline_and_a_cancelled_task(name):
    async def main():
        item = slowly if name == "asyncio" else _sleep
        iterator = ordered_map(item, range(99), **BACKENDS[name]())
        found = []
        async with asyncio.timeout(60):
            while len(found) < 12:
                taking = asyncio.create_task(anext(iterator))
                await asyncio.sleep(0.005)
                taking.cancel()
                try:
                    found.append(await taking)
                except asyncio.CancelledError:
                    pass
                try:
                    async with asyncio.timeout(0.001):
                        found.append(await anext(iterator))
                except TimeoutError:
                    pass
        await iterator.aclose()
        return found

    assert run(main) in (list(range(12)), list(range(13)))


@pytest.mark.parametrize("name", ["threads", "asyncio"])
def test_so_it_is_with_an_asynchronous_source(name):
    pulled = []

    async def source():
        for number in range(8):
            await asyncio.sleep(0.01)
            pulled.append(number)
            yield number

    async def main():
        iterator = ordered_map(slowly if name == "asyncio" else _sleep, source(), **BACKENDS[name]())
        found = []
        while True:
            try:
                found.append(await asyncio.wait_for(anext(iterator), 0.003))
            except TimeoutError:
                continue
            except StopAsyncIteration:
                return found

    assert run(main) == pulled == list(range(8))


# The end


@pytest.mark.parametrize("how", ["end", "break", "close", "aclose", "with", "cancel", "garbage", "error"])
def test_nothing_stays_on_the_loop(how):
    begun, ended = [], []

    async def item(number):
        begun.append(number)
        try:
            if number % 3 == 2 and how != "end":
                await asyncio.sleep(60)
            if number == 4 and how == "error":
                raise LookupError(number)
        finally:
            ended.append(number)
            await asyncio.sleep(0)
        return number

    async def use(iterator):
        async for number in iterator:
            if number == 1 and how not in {"end", "cancel", "error"}:
                return

    async def main():
        iterator = ordered_map(item, range(12), workers=3, backend="asyncio", prefetch=6)
        if how == "with":
            async with iterator:
                await use(iterator)
            assert sorted(begun) == sorted(ended)
        elif how in {"cancel", "error"}:
            using = asyncio.create_task(use(iterator))
            del iterator
            await asyncio.sleep(0.02)
            using.cancel()
            with pytest.raises(asyncio.CancelledError):
                await using
        else:
            await use(iterator)
            if how == "close":
                iterator.close()
            elif how == "aclose":
                await iterator.aclose()
                assert sorted(begun) == sorted(ended)
            elif how == "garbage":
                loop = [iterator]
                loop.append(loop)
                del loop
            if how != "close":
                del iterator

    run(main)
    assert len(begun) >= 3
    assert sorted(begun) == sorted(ended)


def test_a_loop_that_is_stopped_right_after_a_break_has_no_task_pending():
    complaints = []

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda _, what: complaints.append(what))
        async for _ in ordered_map(slowly, range(9), workers=3, backend="asyncio"):
            break

    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    loop.close()
    gc.collect()
    assert complaints == []


def test_an_iterator_that_is_held_beyond_its_loop_says_so():
    held = []

    async def main():
        held.append(ordered_map(slowly, range(9), workers=3, backend="asyncio"))
        assert await anext(held[0]) == 0

    run_plainly = asyncio.run
    run_plainly(main())
    with pytest.raises(OrdmapError, match="event loop"):
        list(held[0])
    assert list(held[0]) == []


def test_one_whose_loop_was_closed_under_it_too():
    held = []

    async def main():
        held.append(ordered_map(own_loop, range(9), workers=1, backend="asyncio", prefetch=2))
        assert (await anext(held[0]))[0] == 0

    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    loop.run_until_complete(asyncio.sleep(0.02))
    loop.close()
    with pytest.raises(OrdmapError, match="event loop"):
        for _ in range(9):
            next(held[0])


def test_a_blocking_next_on_the_loop_itself_is_refused():
    async def main():
        iterator = ordered_map(slowly, range(5), workers=2, backend="asyncio")
        assert await anext(iterator) == 0
        with pytest.raises(OrdmapError, match="write `async for`, or `await anext"):
            list(iterator)
        begun = ordered_map(slowly, range(5), workers=2, backend="asyncio").start()
        with pytest.raises(OrdmapError, match="write `async for`, or `await anext"):
            list(begun)
        other = ordered_map(slowly, range(5), workers=2, backend="asyncio").start()
        assert [await asyncio.to_thread(next, other) for _ in range(5)] == list(range(5))  # in another thread it may

    run(main)


def test_an_item_that_cancels_all_tasks_ends_the_run_and_not_the_next():
    async def item(number):
        if number == 2:
            for task in asyncio.all_tasks() - callers:
                task.cancel()
            await asyncio.sleep(60)
        return number

    callers = set()

    async def main():
        callers.update(asyncio.all_tasks())
        with Asyncio(1) as pool:
            iterator = ordered_map(item, range(6), backend=pool, prefetch=1)
            assert [await anext(iterator), await anext(iterator)] == [0, 1]
            with pytest.raises(OrdmapError):
                await anext(iterator)
            assert [one async for one in ordered_map(slowly, range(3), backend=pool)] == [0, 1, 2]

    run(main)


# Pools


def test_a_pool_s_initializer_and_finalizer_run_on_the_loop_that_awaits_its_items():
    seen = []

    async def begin():
        await asyncio.sleep(0)
        seen.append(("begin", asyncio.get_running_loop()))

    async def end():
        await asyncio.sleep(0.01)
        seen.append(("end", asyncio.get_running_loop()))

    async def main():
        async with Asyncio(2, initializer=begin, finalizer=end) as pool:
            for _ in range(2):
                assert len([one async for one in ordered_map(own_loop, range(5), backend=pool)]) == 5
        assert seen == [("begin", asyncio.get_running_loop()), ("end", asyncio.get_running_loop())]
        seen.clear()
        items = ordered_map(own_loop, range(5), backend=Asyncio(2, initializer=begin, finalizer=end))
        assert len([one async for one in items]) == 5
        assert [name for name, _ in seen] == ["begin", "end"]

    run(main)


def test_a_pool_may_be_used_on_several_loops_and_on_its_own():
    seen = []

    def begin():
        seen.append(asyncio.get_running_loop())

    with Asyncio(2, initializer=begin) as pool:

        async def main():
            found = [loop async for _, loop, _ in ordered_map(own_loop, range(5), backend=pool)]
            assert set(found) == {asyncio.get_running_loop()}
            return found[0]

        first = run(main)
        (own,) = {loop for _, loop, _ in ordered_map(own_loop, range(5), backend=pool)}
        second = run(main)
        assert seen == [first, own, second]
        assert len(set(seen)) == 3


def test_a_held_pool_ends_with_its_loop():
    ended = []

    async def end():
        await asyncio.sleep(0)
        ended.append(asyncio.get_running_loop())

    with Asyncio(2, finalizer=end) as pool:

        async def main():
            return [loop async for _, loop, _ in ordered_map(own_loop, range(5), backend=pool)]

        (loop,) = set(asyncio.run(main()))
        assert ended == [loop]
    assert ended == [loop]


def test_an_initializer_that_fails_says_so():
    async def begin():
        raise LookupError("no")

    async def main():
        with pytest.raises(WorkerDiedError, match="the initializer failed in worker of the loop: LookupError: no"):
            async for _ in ordered_map(slowly, range(5), backend=Asyncio(2, initializer=begin)):
                pass

    run(main)


def test_a_finalizer_that_fails_is_heard():
    async def end():
        raise LookupError("no")

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda _, what: heard.append(what["exception"]))
        assert len([one async for one in ordered_map(slowly, range(5), backend=Asyncio(2, finalizer=end))]) == 5

    heard = []
    asyncio.run(main())
    assert [type(one) for one in heard] == [LookupError]


def test_iterators_share_a_pool_on_one_loop():
    async def main():
        async with Asyncio(3) as pool:

            async def take(start):
                return [one async for one in ordered_map(slowly, range(start, start + 20), backend=pool)]

            found = await asyncio.gather(*(take(100 * number) for number in range(4)))
        return found

    assert run(main) == [list(range(100 * number, 100 * number + 20)) for number in range(4)]


def test_an_item_can_not_use_the_pool_that_it_is_awaited_by():
    async def main():
        async with Asyncio(2) as pool:

            async def item(_):
                return [one async for one in ordered_map(slowly, [1], backend=pool)]

            with pytest.raises(OrdmapError, match="an item can't use the loop that it runs on"):
                await anext(ordered_map(item, [1], backend=pool))
        async with Asyncio(2) as other:

            async def item(number):
                return [one async for one in ordered_map(slowly, [number], backend=other)]

            assert [one async for one in ordered_map(item, [1, 2], workers=2, backend="asyncio")] == [[1], [2]]

    run(main)


def test_without_a_loop_of_asyncio_s_nothing_begins():
    """By hand, as any other library's scheduler does."""
    pulled = []

    def source():
        pulled.append(1)
        yield 1

    for backend in ("asyncio", "threads", "processes", "serial"):
        iterator = ordered_map(str, source(), backend=backend, workers=0 if backend == "serial" else 2)
        before = threading.active_count()
        with pytest.raises(OrdmapError, match="needs asyncio's event loop"):
            anext(iterator).send(None)
        assert (pulled, threading.active_count(), iterator.stats.in_flight) == ([], before, 0)
        iterator.close()


def test_closed_from_another_thread():
    async def main():
        for _ in range(5):
            iterator = ordered_map(slowly, range(50), workers=2, backend="asyncio")
            assert await anext(iterator) == 0
            thread = threading.Thread(target=iterator.close)
            thread.start()
            assert len([one async for one in iterator]) < 50
            await asyncio.to_thread(thread.join)

    run(main)


def test_dropped_by_the_garbage_collector_of_another_thread():
    async def main():
        ended = []

        async def item(number):
            try:
                await asyncio.sleep(60 if number else 0)
            finally:
                ended.append(number)

        iterator = ordered_map(item, range(5), workers=2, prefetch=3, backend="asyncio")
        await anext(iterator)
        await asyncio.sleep(0.01)
        circle = [iterator]
        circle.append(circle)
        del circle, iterator
        await asyncio.to_thread(gc.collect)
        async with asyncio.timeout(20):
            while len(ended) < 3:
                await asyncio.sleep(0.001)

    run(main)
    wait_until(lambda: not any(thread.name == "ordmap-close" for thread in threading.enumerate()), "it is closed")
