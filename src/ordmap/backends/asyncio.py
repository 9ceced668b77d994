"""Coroutines, on one event loop: for items that spend their time waiting, such as fetches.

With ``async for`` that is the caller's loop, where the sessions and locks of the program belong. Else the caller need
not be asynchronous, and the loop is one of their own, in a thread. Either way chunks are handed over and answers taken
as from threads::

    caller   submit ──> waiting ──> one of ``workers`` tasks: await compute(key)
    caller   collect <── answers <──┘
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import Context
from functools import partial
from types import CoroutineType
from typing import Any, Self

from ordmap import real_time as time
from ordmap.backends import Job
from ordmap.backends.forking import refuse_green_threads
from ordmap.backends.inbox import Inbox, present_loop
from ordmap.backends.pool import POOL_CLOSED, Life, LocalPool, initializer_failed
from ordmap.backends.promises import NOT_COPIED, refused, row, weaker
from ordmap.chunk import Chunk
from ordmap.context import separate, shares
from ordmap.errors import OrdmapError
from ordmap.item import InHand, current
from ordmap.limit import too_long
from ordmap.outcome import Answer, Raised, approximate_nbytes
from ordmap.repeats import Repeats
from ordmap.shielded import shielded

__all__ = ["Asyncio"]

#: Items that are awaited at the same time, unless it is said how many.
_WORKERS = 16

#: Seconds that closing waits for items to come to their end once they are cancelled.
_LEAVE = 5.0


class Asyncio(LocalPool):
    """Await ``workers`` items at the same time (``None``: 16).

    ``async for`` has them awaited on the running event loop; a plain ``for`` on one of their own, in a thread. The
    function of `ordered_map` is a coroutine function, or returns something to await; so does the ``__getitem__`` of a
    dataset. ``initializer(*initargs)`` runs first on each loop that awaits items, and ``finalizer()`` last; either may
    be a coroutine function: to open and to close a session, say. ``async with Asyncio(…) as pool:`` waits for that end.

    Attention: an item that works without awaiting anything holds up all others, and the loop.
    """

    name = "asyncio"
    awaits = True
    promises = row(
        order=NOT_COPIED,
        worker_death=refused("an item can't die by itself: what kills it kills the program"),
        parent_death=weaker("the loop is in the calling process"),
        clean=weaker("an item that doesn't end when it is cancelled is left alone after five seconds"),
        timeouts=weaker("an item is cancelled, and so ended where it awaits something; what doesn't can't be ended"),
        random_numbers=weaker("`item_rng()` does; the global generators are those of all items, and are left alone"),
    )

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
        self._crews: dict[Any, _Crew] = {}  # by the caller's loop; ``None``: that on a loop of its own

    async def __aenter__(self) -> Self:
        self.hold()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        crews = list(self._crews.items())
        own = self._crews.get(None)
        await asyncio.to_thread(self.__exit__) if own is not None else self.__exit__()
        for loop, crew in crews:
            if loop is present_loop() and self._crews.get(loop) is not crew:
                await crew.settled()

    def _begin(self, job: Job) -> _AsyncioRun:
        refuse_green_threads(self.name)
        hand = current.get()
        for loop, crew in list(self._crews.items()):
            if hand in crew.hands or crew.thread is threading.current_thread():
                raise OrdmapError(
                    "an item can't use the loop that it runs on, which would wait for itself: make another"
                )
            if crew.loop.is_closed():
                del self._crews[loop]
        if job.loop not in self._crews:
            self._crews[job.loop] = self._crew_on(job.loop)
        return _AsyncioRun(job, self._crews[job.loop], self._closed)

    def _crew_on(self, loop: Any) -> _Crew:
        """Return a new crew on the caller's running loop; ``None``: on one of its own, in a thread."""
        if loop is not None:
            return _Crew(self.workers, self._life, loop, self._forget)
        return shielded(lambda: _Crew(self.workers, self._life, None, self._forget), _Crew.leave)

    def begin_anew(self) -> None:
        super().begin_anew()
        self._callers.append(self._crews)
        self._crews = {}

    def _forget(self, crew: _Crew) -> None:
        """Have others take the place of a crew whose loop has ended; on that loop."""
        for loop, one in list(self._crews.items()):
            if one is crew:
                self._crews.pop(loop, None)

    def _end(self) -> None:
        for loop, crew in list(self._crews.items()):
            crew.leave()  # first: what an exception cuts short is done when the run is closed again
            self._crews.pop(loop, None)


class _Crew:
    """Those who compute chunks on one event loop, so many at a time: on the caller's, or in a thread on one of its own.

    They have a task only while there is something to compute, so that an idle pool leaves none to the caller's loop.
    But for `put`, `cancel` and `leave` all is called on that loop.
    """

    def __init__(self, size: int, life: Life, loop: Any, gone: Callable[[_Crew], None]) -> None:
        self.size = size
        self.hands = [InHand(number, size) for number in range(size)]
        self.runs: set[_AsyncioRun] = set()
        self.items: set[asyncio.Task[Any]] = set()
        self.own = Context()  # with what the initializer sets
        self.has_left = False
        self._life = life
        self._gone = gone
        self._free = self.hands[::-1]
        self._waiting: deque[tuple[_AsyncioRun, int, Chunk]] = deque()
        self._brought: deque[tuple[_AsyncioRun, int, Chunk]] = deque()  # by other threads
        self._is_told = False  # the loop, of these: to tell it is a system call
        self._workers: set[asyncio.Task[None]] = set()
        self._cancelled: set[asyncio.Task[Any]] = set()
        self._beginning: asyncio.Task[None] | None = None
        self._fault: BaseException | None = None
        self._left = asyncio.Event()
        self._staying: asyncio.Task[None] | None = None
        self.thread: threading.Thread | None = None
        self.loop = loop
        if loop is None:
            self.loop = asyncio.new_event_loop()
            self.loop.time = time.perf_counter  # as its limits of time are measured
            self.thread = threading.Thread(target=self._run, name="ordmap-asyncio", daemon=True)
            self.thread.start()

    def put(self, run: _AsyncioRun, ticket: int, chunk: Chunk) -> None:
        """Have a chunk computed; from any thread."""
        if present_loop() is self.loop:
            Context().run(self._take, run, ticket, chunk)
            return
        self._brought.append((run, ticket, chunk))
        if not self._is_told:
            try:
                self._is_told = True
                self.loop.call_soon_threadsafe(self._take_brought, context=Context())
            except BaseException:  # of a handler; another thread may rely on this one to tell
                self._is_told = False
                self.loop.call_soon_threadsafe(self._take_brought, context=Context())
                raise
        elif self.loop.is_closed():  # and was told in vain
            raise RuntimeError("Event loop is closed")

    def cancel(self, items: Sequence[asyncio.Task[Any]]) -> None:
        """Cancel some items, once; from any thread."""
        for item in items:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._on_loop(self.cancel_here, item)

    def leave(self) -> None:
        """Cancel all that is under way, and end; from any thread."""
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._on_loop(self._leave)
        if self.thread is not None and self.thread is not threading.current_thread():
            self.thread.join(_LEAVE)

    def _on_loop(self, function: Callable[..., object], *args: object) -> None:
        """Call a function on the loop, now or soon, in no context of anybody's."""
        if present_loop() is self.loop:
            Context().run(function, *args)
        else:
            self.loop.call_soon_threadsafe(function, *args, context=Context())

    def cancel_here(self, item: asyncio.Task[Any]) -> None:
        """Cancel an item, once."""
        if item not in self._cancelled and not item.done():
            self._cancelled.add(item)
            item.add_done_callback(self._cancelled.discard)
            item.cancel()

    async def settled(self) -> None:
        """Wait until it has ended, once it has left."""
        if self._staying is not None:
            await asyncio.wait([self._staying])
        if self._workers:
            await asyncio.wait(self._workers, timeout=_LEAVE)

    def _run(self) -> None:
        ended: BaseException | None = None
        try:
            with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
                runner.run(self._stay(), context=self.own)
        except BaseException as error:  # an item has stopped the loop, or has cancelled all tasks
            ended = error
        self._fail(ended)

    def _take_brought(self) -> None:
        self._is_told = False  # first: what comes from here on is told of anew
        while self._brought:
            self._take(*self._brought.popleft())

    def _take(self, run: _AsyncioRun, ticket: int, chunk: Chunk) -> None:
        if self.has_left:
            return
        self._waiting.append((run, ticket, chunk))
        life = self._life
        if self._beginning is None and life.initializer is not None:
            self._beginning = self.loop.create_task(self._begin(), context=self.own)
        if self._staying is None and self.thread is None and life.finalizer is not None:
            self._staying = self.loop.create_task(self._stay(), context=self.own)
        self._go_on()

    def _go_on(self) -> None:
        """Have what waits be computed, as far as there are workers free."""
        if self._beginning is not None and not self._beginning.done():
            return
        while self._waiting and self._free and not self.has_left:
            worker = self.loop.create_task(self._work(self._free.pop(), *self._waiting.popleft()))
            self._workers.add(worker)
            worker.add_done_callback(self._worker_ended)

    async def _work(self, hand: InHand, run: _AsyncioRun, ticket: int, chunk: Chunk) -> None:
        try:
            while True:
                await run.work(ticket, chunk, hand, self._fault)
                if self.has_left or not self._waiting:
                    break
                run, ticket, chunk = self._waiting.popleft()
        finally:
            self._free.append(hand)

    def _worker_ended(self, worker: asyncio.Task[None]) -> None:
        self._workers.discard(worker)
        error = asyncio.CancelledError("its tasks were cancelled") if worker.cancelled() else worker.exception()
        if error is not None and not self.has_left:
            self._leave()
            self._fail(error)

    def _fail(self, error: BaseException | None) -> None:
        """Have all callers hear that this can't go on."""
        self._gone(self)
        why = "" if error is None else f": {type(error).__name__}: {error}"
        for run in list(self.runs):
            run.fail(OrdmapError(f"the event loop of this pool has ended{why}"))

    def _leave(self) -> None:
        self.has_left = True
        self._waiting.clear()
        self._left.set()
        if self.thread is None and self._staying is None:  # there is nothing to be done after the items
            self._cancel_all()

    def _cancel_all(self) -> list[asyncio.Task[Any]]:
        beginning = [] if self._beginning is None or self._beginning.done() else [self._beginning]
        under_way = [*beginning, *self.items, *self._workers]  # all at once: the loop may have but one round to go
        for item in under_way:
            self.cancel_here(item)
        return under_way

    async def _begin(self) -> None:
        try:
            if self._life.initializer is not None:
                await _awaited(self._life.initializer(*self._life.initargs))
        except BaseException as error:
            self._fault = error
        self.loop.call_soon(self._go_on, context=Context())

    async def _stay(self) -> None:
        """Be there until it has left, or the loop ends; then end what there is, and run the finalizer."""
        with contextlib.suppress(asyncio.CancelledError):  # the loop ends
            await self._left.wait()
        if not self.has_left:
            self._leave()
            self._fail(None)
        under_way = self._cancel_all()
        if under_way:
            await asyncio.wait(under_way, timeout=_LEAVE)
        begun = self._life.initializer is None or (self._beginning is not None and self._fault is None)
        if self._life.finalizer is not None and begun:
            try:
                await _awaited(self._life.finalizer())
            except Exception as error:  # the loop is who hears of it
                self.loop.call_exception_handler({"message": "the finalizer of a pool failed", "exception": error})


async def _awaited(result: object) -> Any:
    return await result if inspect.isawaitable(result) else result


class _AsyncioRun:
    def __init__(self, job: Job, crew: _Crew, closed: Callable[[_AsyncioRun], None]) -> None:
        self.load = Repeats().load
        self._job = job
        self._crew = crew
        self._answers: Inbox[tuple[int, Answer] | BaseException | None] = Inbox()
        self.watch = self._answers.watch
        self._tell_closed = closed
        self._open = True
        self._busy = 0  # workers that have a chunk of it in hand
        self._idle: asyncio.Event | None = None  # for who waits until there is none
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
        self._busy += 1
        try:
            await self._compute(ticket, chunk, hand)
        finally:
            self._busy -= 1
            if not self._busy and self._idle is not None:
                self._idle.set()

    async def _compute(self, ticket: int, chunk: Chunk, hand: InHand) -> None:
        job = self._job
        context = separate(job.context, self._crew.own)
        context.run(current.set, hand)
        alike = not shares(context)
        outcomes = hand.take(chunk.keys, chunk.label, job.seed)
        began = time.perf_counter()
        give_up = began + job.patience if job.patience is not None else float("inf")
        for key in chunk.keys:
            outcomes.append(await self._outcome(context if alike else separate(context), key))
            if not self._open or time.perf_counter() >= give_up:
                break
        elapsed = time.perf_counter() - began
        hand.put_down()
        worker = f"ordmap-asyncio-{hand.worker}"
        self._answers.put((ticket, Answer(outcomes, elapsed, approximate_nbytes(outcomes), worker)))

    async def _outcome(self, context: Context, key: Any) -> Any:
        """Return what an item gives, or `Raised`.

        It has a task of its own, so that it can be cancelled by itself; a task runs in a copy of the context.
        """
        crew, limit = self._crew, self._job.limit
        item = context.run(crew.loop.create_task, _computed(self._job.compute, key))
        self._items.add(item)
        crew.items.add(item)
        told = crew.loop.create_future()  # in place of `asyncio.wait`, which takes longer than most of the rest
        item.add_done_callback(partial(self._ended, told))
        began = time.perf_counter()
        alarm = None if limit is None else crew.loop.call_later(limit, _tell, told)
        try:
            await told
        except asyncio.CancelledError:  # this worker is, for the loop is left
            crew.cancel_here(item)
            raise
        finally:
            if alarm is not None:
                alarm.cancel()
        elapsed = time.perf_counter() - began
        if limit is not None and elapsed > limit:
            return await self._timed_out(item, limit, elapsed)
        return Raised(asyncio.CancelledError()) if item.cancelled() else item.result()

    def _ended(self, told: asyncio.Future[None], item: asyncio.Task[Any]) -> None:
        self._items.discard(item)
        self._crew.items.discard(item)
        _tell(told)

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
        if self._answers.empty():
            if not self._open:
                raise OrdmapError(POOL_CLOSED)
            if self._crew.loop.is_closed():
                raise OrdmapError("the event loop that this iterator's items were awaited on is closed")
        if wait and present_loop() is self._crew.loop:
            raise OrdmapError(
                "the items of this iterator are awaited on this very event loop, which a plain loop, or next(), would "
                "hold up for ever: write `async for`, or `await anext(iterator)`"
            )
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

    async def settled(self) -> None:
        """Wait until nothing is under way on the present loop of what was, once this is closed."""
        crew = self._crew
        if present_loop() is crew.loop:
            if self._busy:
                self._idle = self._idle or asyncio.Event()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._idle.wait(), _LEAVE)
            if crew.has_left:
                await crew.settled()

    def close(self) -> None:
        self._open = False
        self._crew.runs.discard(self)
        self._crew.cancel(list(self._items))
        self._answers.put(OrdmapError(POOL_CLOSED))
        self._tell_closed(self)


def _tell(told: asyncio.Future[None]) -> None:
    """Have a task that waits for this go on, if it still does."""
    if not told.done():
        told.set_result(None)


async def _computed(compute: Callable[[Any], Any], key: Any) -> Any:
    """Compute an item; what it raises is caught here, for some of it would end the loop, or could leave no task."""
    try:
        result = compute(key)
        return await result if type(result) is CoroutineType or inspect.isawaitable(result) else result
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
