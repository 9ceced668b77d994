"""Coroutines, on an event loop of their own in one thread: for items that spend their time waiting, such as fetches.

The caller need not be asynchronous. It hands over chunks and takes answers as from threads::

    caller   submit ──call_soon_threadsafe──> waiting ──> one of ``workers`` tasks: await compute(key)
    caller   collect <──────────────────────── answers <──┘
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from ordmap.backends import Job
from ordmap.backends.forking import refuse_green_threads
from ordmap.backends.inbox import Inbox
from ordmap.backends.pool import POOL_CLOSED, Life, LocalPool, initializer_failed
from ordmap.backends.promises import refused, row, weaker
from ordmap.chunk import Chunk
from ordmap.errors import OrdmapError
from ordmap.item import InHand, current
from ordmap.limit import too_long
from ordmap.outcome import Answer, Raised, approximate_nbytes
from ordmap.shielded import shielded

__all__ = ["Asyncio"]

#: Items that are awaited at the same time, unless it is said how many.
_WORKERS = 16

#: Seconds that closing waits for items to come to their end once they are cancelled.
_LEAVE = 5.0


class Asyncio(LocalPool):
    """Await ``workers`` items at the same time (``None``: 16), on an event loop of its own, in a thread of its own.

    The function of `ordered_map` is a coroutine function, or returns something to await; so does the ``__getitem__`` of
    a dataset. ``initializer(*initargs)`` runs first on the loop, and ``finalizer()`` last; either may be a coroutine
    function: to open and to close a session, say.

    Attention: an item that works without awaiting anything holds up all others.
    """

    name = "asyncio"
    awaits = True
    promises = row(
        worker_death=refused("an item can't die by itself: what kills it kills the program"),
        parent_death=weaker("the loop's thread is in the calling process"),
        clean=weaker("an item that doesn't end when it is cancelled is left alone after five seconds"),
        timeouts=weaker("an item is cancelled, and so ended where it awaits something; what doesn't can't be ended"),
        random_numbers=weaker("`item_rng()` does; the global generators are those of all items, and are left alone"),
    )

    _crew: _Crew | None

    def __init__(
        self,
        workers: int | None = None,
        *,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        finalizer: Callable[[], object] | None = None,
    ) -> None:
        super().__init__(
            _WORKERS if workers is None else workers, initializer=initializer, initargs=initargs, finalizer=finalizer
        )

    def _begin(self, job: Job) -> _AsyncioRun:
        refuse_green_threads(self.name)
        crew = self._crew
        if crew is not None and crew.thread is threading.current_thread():
            raise OrdmapError("an item can't use the loop that it runs on, which would wait for itself: make another")
        if crew is None:
            crew = self._crew = shielded(lambda: _Crew(self.workers, self._life), _Crew.leave)
        return _AsyncioRun(job, crew, self._closed)


class _Crew:
    """An event loop in a thread, and the tasks on it that compute chunks."""

    def __init__(self, size: int, life: Life) -> None:
        self.size = size
        self._life = life
        self._loop = asyncio.new_event_loop()
        self._waiting: asyncio.Queue[tuple[_AsyncioRun, int, Chunk]] = asyncio.Queue()
        self.runs: set[_AsyncioRun] = set()
        self.items: set[asyncio.Task[Any]] = set()
        self._cancelled: set[asyncio.Task[Any]] = set()
        self._fault: BaseException | None = None
        self._left = asyncio.Event()
        self.thread = threading.Thread(target=self._run, name="ordmap-asyncio", daemon=True)
        self.thread.start()

    def put(self, run: _AsyncioRun, ticket: int, chunk: Chunk) -> None:
        """Have a chunk computed; from any thread."""
        self._loop.call_soon_threadsafe(self._waiting.put_nowait, (run, ticket, chunk))

    def cancel(self, items: Sequence[asyncio.Task[Any]]) -> None:
        """Cancel some items, once; from any thread."""
        for item in items:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self.cancel_here, item)

    def cancel_here(self, item: asyncio.Task[Any]) -> None:
        """Cancel an item, once; on the loop."""
        if item not in self._cancelled and not item.done():
            self._cancelled.add(item)
            item.add_done_callback(self._cancelled.discard)
            item.cancel()

    def leave(self) -> None:
        """Cancel all that is under way, and end the loop."""
        with contextlib.suppress(RuntimeError):  # it has ended
            self._loop.call_soon_threadsafe(self._left.set)
        if self.thread is not threading.current_thread():
            self.thread.join(_LEAVE)

    def _run(self) -> None:
        ended: BaseException | None = None
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._serve())
        except BaseException as error:  # an item has stopped the loop, or has cancelled all tasks
            ended = error
        why = "" if ended is None else f": {type(ended).__name__}: {ended}"
        for run in list(self.runs):
            run.fail(OrdmapError(f"the event loop of this pool has ended{why}"))

    async def _serve(self) -> None:
        left = asyncio.create_task(self._left.wait())
        beginning = asyncio.create_task(self._begin())
        await asyncio.wait([left, beginning], return_when=asyncio.FIRST_COMPLETED)
        if not beginning.done():
            beginning.cancel()
            return
        workers = [asyncio.create_task(self._work(number)) for number in range(self.size)]
        await asyncio.wait([left, *workers], return_when=asyncio.FIRST_COMPLETED)
        items = list(self.items)
        for item in items:
            self.cancel_here(item)
        if items:
            await asyncio.wait(items, timeout=_LEAVE)
        for worker in workers:
            worker.cancel()
        if self._life.finalizer is not None and self._fault is None:
            await _awaited(self._life.finalizer())

    async def _begin(self) -> None:
        try:
            if self._life.initializer is not None:
                await _awaited(self._life.initializer(*self._life.initargs))
        except BaseException as error:
            self._fault = error

    async def _work(self, number: int) -> None:
        hand = InHand(number, self.size)
        current.set(hand)
        while True:
            run, ticket, chunk = await self._waiting.get()
            await run.work(ticket, chunk, hand, self._fault)
            del run, chunk  # an idle worker keeps nothing alive


async def _awaited(result: object) -> Any:
    return await result if inspect.isawaitable(result) else result


class _AsyncioRun:
    def __init__(self, job: Job, crew: _Crew, closed: Callable[[_AsyncioRun], None]) -> None:
        self._job = job
        self._crew = crew
        self._answers: Inbox[tuple[int, Answer] | BaseException | None] = Inbox()
        self.watch = self._answers.watch
        self._tell_closed = closed
        self._open = True
        self._items: set[asyncio.Task[Any]] = set()
        crew.runs.add(self)

    def submit(self, ticket: int, chunk: Chunk) -> None:
        if not self._open:
            raise OrdmapError(POOL_CLOSED)
        try:
            self._crew.put(self, ticket, chunk)
        except RuntimeError as error:  # the loop has ended
            raise OrdmapError(f"the event loop of this pool has ended: {error}") from error

    async def work(self, ticket: int, chunk: Chunk, hand: InHand, fault: BaseException | None) -> None:
        """Compute a chunk, in a worker's task."""
        if not self._open:
            return
        if fault is not None:
            self._answers.put(initializer_failed(fault, "of the loop"))
            return
        job = self._job
        outcomes = hand.take(chunk.keys, chunk.label, job.seed)
        began = time.perf_counter()
        give_up = began + job.patience if job.patience is not None else float("inf")
        for key in chunk.keys:
            outcomes.append(await self._outcome(key))
            if not self._open or time.perf_counter() >= give_up:
                break
        elapsed = time.perf_counter() - began
        hand.put_down()
        worker = f"{self._crew.thread.name}-{hand.worker}"
        self._answers.put((ticket, Answer(outcomes, elapsed, approximate_nbytes(outcomes), worker)))

    async def _outcome(self, key: Any) -> Any:
        """Return what an item gives, or `Raised`. It has a task of its own, so that it can be cancelled by itself."""
        item = asyncio.ensure_future(_computed(self._job.compute, key))
        for items in (self._items, self._crew.items):
            items.add(item)
            item.add_done_callback(items.discard)
        began = time.perf_counter()
        limit = self._job.limit
        try:
            await asyncio.wait([item], timeout=limit)
        except asyncio.CancelledError:  # this worker is, for the loop is left
            self._crew.cancel_here(item)
            raise
        elapsed = time.perf_counter() - began
        if limit is not None and elapsed > limit:
            return await self._timed_out(item, limit, elapsed)
        return Raised(asyncio.CancelledError()) if item.cancelled() else item.result()

    async def _timed_out(self, item: asyncio.Task[Any], limit: float, elapsed: float) -> Raised:
        if item.done():
            return Raised(too_long(limit, elapsed, "came to its end too late"))
        stack = _stack(item)
        self._crew.cancel_here(item)
        await asyncio.wait([item], timeout=min(limit, _LEAVE))
        return Raised(too_long(limit, elapsed, "was cancelled", stack), stack)

    def fail(self, error: BaseException) -> None:
        """Have the caller hear that this can't go on."""
        self._answers.put(error)

    def collect(self, *, wait: bool) -> Sequence[tuple[int, Answer]]:
        answers: list[tuple[int, Answer]] = []
        if not self._open and self._answers.empty():
            raise OrdmapError(POOL_CLOSED)
        while (wait and not answers) or not self._answers.empty():
            answer = self._answers.get()
            if answer is None:
                break
            if isinstance(answer, BaseException):
                raise answer
            answers.append(answer)
        return answers

    def wake(self) -> None:
        self._answers.put(None)

    def close(self) -> None:
        self._open = False
        self._crew.runs.discard(self)
        self._crew.cancel(list(self._items))
        self._answers.put(OrdmapError(POOL_CLOSED))
        self._tell_closed(self)


async def _computed(compute: Callable[[Any], Any], key: Any) -> Any:
    """Compute an item; what it raises is caught here, for some of it would end the loop, or could leave no task."""
    try:
        return await _awaited(compute(key))
    except BaseException as error:
        # The frames of this file are of no interest to the user.
        place = error.__traceback__
        while place is not None and place.tb_frame.f_code.co_filename == __file__:
            place = place.tb_next
        return Raised(error.with_traceback(place))


def _stack(item: asyncio.Task[Any]) -> str:
    """Return where an item awaits something, as text."""
    import traceback  # only for who is late

    frames: list[Any] = []
    awaited: Any = item.get_coro()
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
        if frame is not None and frame.f_code.co_filename != __file__:
            frames.append((frame, frame.f_lineno))
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)
    summary = traceback.StackSummary.extract(iter(frames))
    return "".join(("Traceback (most recent call last):\n", *summary.format()))
