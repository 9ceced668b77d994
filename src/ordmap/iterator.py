"""The object that a caller holds: an iterator that opens its run late, survives errors, and closes once."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import Context
from itertools import repeat
from operator import length_hint
from typing import Any, Generic, NamedTuple, NoReturn, Self, TypeVar, cast

from ordmap import real_time as time
from ordmap.backends import Backend, Immediate, Job, Run
from ordmap.backends.inbox import present_loop
from ordmap.context import captured
from ordmap.dropping import close_dropped, close_run
from ordmap.errors import CheckpointError, OrdmapError
from ordmap.frames import gives_out, show_the_users
from ordmap.indices import Source
from ordmap.interrupts import came_from_outside
from ordmap.outcome import Raised, report, set_relatives
from ordmap.pace import Pace
from ordmap.policy import Failure, OnError, stand_in
from ordmap.relay import Relay
from ordmap.shielded import noted
from ordmap.solo import Solo
from ordmap.window import LATER, Window

__all__ = ["OrderedIterator", "Settings", "Stats"]

T_co = TypeVar("T_co", covariant=True)

_END = object()

#: In place of a result: numbers are at hand.
_AT_HAND = object()

#: Of what `OrderedIterator.state_dict` gives.
_VERSION = 1


class Settings(NamedTuple):
    """What a call asked for, checked once."""

    backend: Backend
    compute: Callable[[Any], Any]
    subject: object
    source: Source
    prefetch: int | None
    chunksize: int | None
    item_timeout: float | None
    retries: int
    on_error: OnError
    seed: int | None


class Stats(NamedTuple):
    """What an iterator has done so far.

    ``delivered``: items given out, errors included; ``in_flight``: items submitted and not yet given out, now;
    ``most_in_flight``: their highest number so far; ``waited``: seconds that the caller spent inside ``next()``.
    """

    delivered: int
    in_flight: int
    most_in_flight: int
    waited: float


class OrderedIterator(Relay[T_co], Generic[T_co]):
    """Results in order; made by `ordered_imap` and `ordered_map`.

    ``next()`` gives the next result, or raises what its item raised (see ``on_error``); after that, ``next()`` goes on
    with the following item. Several threads may call it: each item goes to exactly one of them. The end of the items,
    ``close()``, the end of a ``with`` block and garbage collection each end what the iterator started.

    ``async for`` does the same without holding up the event loop. Where its task is cancelled, or a time-out is around
    it, the wait alone is given up: the next ``anext()`` gives that very item. So what is to end with its task is held
    by ``async with``, or by that task alone.

    ``len()`` is the number of items to come, where it is known, those that will be skipped included; the object itself
    is always true. ``len()`` can't say more than ``sys.maxsize``, which is said of so many, and of more.

    Attention: an iterator belongs to the process that made it; after an ``os.fork()`` the child must make its own. What
    a signal's handler raises within ``next()``, or another thread there, ends it; the following ``next()`` says so, but
    after Ctrl-C.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._at_hand: Iterator[Any] = iter(())  # the next results, if they are many numbers
        self._window: Window | Solo | None = None
        self._steps: Iterator[Any] | None = None  # the next results, each computed when it is asked for
        self._pace: Pace
        self._dropped: list[weakref.finalize[Any, Any]] = []  # of its runs: one, two for a moment between epochs
        # Re-entrant, since a signal may come right after it was taken, and its handler raise, or ask for the state.
        self._lock = threading.RLock()
        self._context: Context | None = None  # that the items see: as it is at the first step
        self._loop: Any = None  # that items are awaited on, where a run can have that
        self._inside: int | None = None  # the thread that is inside next()
        self._awaiting: list[Callable[[], object]] = []  # tells who awaits something that it is closed
        self._process = os.getpid()
        self._closed = False
        self._cut_short: str | None = None  # what came from outside within a step, and has ended this
        self._waited = 0.0

    def __reduce__(self) -> NoReturn:
        raise TypeError("an iterator can't be copied or pickled: make another, and load this one's state_dict()")

    def _advance(self) -> Any:
        if self._steps is not None and isinstance(self._window, Solo) and self._window.flows:
            self._leave(self._steps)
        outcome = self._alone(self._next)
        while type(outcome) is Raised:
            if self._settings.on_error != "skip":
                return cast("T_co", self._failed(outcome))  # held by no name: its error may hold this frame
            outcome.hand_over()
            outcome = self._alone(self._next)
        if outcome is _AT_HAND:
            self._leave(self._at_hand)
        if outcome is _END:
            self._over()
        if outcome is LATER:
            raise TypeError("an asynchronous iterable is gone through by `async for`, and not by a plain loop")
        return outcome

    @gives_out
    def _failed(self, raised: Raised) -> Any:
        """Raise what an item raised, or return what takes its place."""
        error = report(raised, self, backend=self._settings.backend.name)
        if self._settings.on_error != "raise":
            try:
                return stand_in(self._settings.on_error, Failure(raised.index, error, raised.attempt))
            except BaseException as fault:
                if not isinstance(fault, Exception):  # Ctrl-C
                    self.close()
                raise
            finally:
                del raised, error
        context = error.__context__
        try:
            raise error
        finally:
            # What the caller handles just now is not its context; and this frame and it must not hold each other.
            set_relatives(error, context=context)
            del raised, error, context

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T_co:
        while True:
            try:
                result = self._at_once()
            except BaseException as error:
                show_the_users(error)
                raise
            if result is LATER:
                from ordmap.awaiting import more  # asyncio is large

                # What ends this wait, such as a time-out around it, ends nothing else.
                await more(self._window, self._settings.source, self._awaiting)
            elif result is _END:
                await self._settled()
                raise StopAsyncIteration
            else:
                return cast("T_co", result)

    def _at_once(self) -> Any:
        """Return the next result, ``_END``, or `LATER` where it has to be waited for; or raise what its item raised."""
        outcome: Any = None
        try:
            while True:
                try:
                    return self._ready.pop()
                except IndexError:
                    pass
                for result in self._at_hand:
                    return result
                outcome = self._by_now()
                if type(outcome) is Raised:
                    if self._settings.on_error != "skip":
                        return self._failed(outcome)
                    outcome.hand_over()
                elif outcome is not _AT_HAND:
                    return outcome
        except BaseException as error:
            if not isinstance(error, Exception):  # Ctrl-C
                self.close()
            raise
        finally:
            outcome = None  # its error may hold this frame

    def disown(self) -> None:
        super().disown()
        if self._window is not None:
            self._window.withdraw()

    async def _settled(self) -> None:
        """Wait until nothing is left on the event loop of what this has begun there, once it is closed."""
        if self._window is not None:
            await self._window.settled()

    def start(self) -> Self:
        """Begin now: start the workers and fill the window, without waiting for an item. Return the iterator.

        In the midst of a coroutine, items that are to be awaited are awaited on its event loop, as by ``async for``.
        """
        if self._window is None and getattr(self._settings.backend, "awaits", False):
            self._loop = present_loop()
        try:
            self._alone(lambda: None if self._closed else self._opened().fill())
        except BaseException as error:
            show_the_users(error)
            raise
        return self

    def close(self) -> None:
        """End everything that the iterator started; it gives no more items. Any number of times, from any thread.

        An item that is being computed is given up: a worker process is ended, a thread is left alone with it. Another
        thread that waits in ``next()`` gets ``StopIteration``.
        """
        self._closed = True
        self._cut_short = None
        self._ready = []
        if self._window is not None:
            self._window.withdraw()
        if os.getpid() != self._process:
            return  # a forked child owns nothing of it
        if self._window is not None:
            self._window.wake()
        for tell in list(self._awaiting):
            tell()
        self._close_runs()
        self._let_go()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End it as `close` does, and wait until items that were awaited on this event loop have ended."""
        self.close()
        await self._settled()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __len__(self) -> int:
        remaining = self._remaining()
        if remaining is None:
            raise TypeError("the number of items to come is not known: it is infinite, or the indices are lazy")
        return min(remaining, sys.maxsize)

    def __repr__(self) -> str:
        """Say how many items it has given, of how many, and where they are computed; nothing is started for that."""
        given = self.stats.delivered
        remaining: int | None = None
        with contextlib.suppress(Exception):  # a length of the user's that can't be had
            remaining = self._remaining()
        where = f"{given} so far" if remaining is None else f"{given} of {given + remaining}"
        backend = self._settings.backend
        workers = f" × {backend.workers}" if backend.workers else ""  # noqa: RUF001  it is that sign
        return f"<OrderedIterator {f'ended after {given}' if self._closed else where}, {backend.name}{workers}>"

    def __length_hint__(self) -> int:
        remaining = self._remaining()
        return NotImplemented if remaining is None else min(remaining, sys.maxsize)

    def __bool__(self) -> bool:
        return True

    def state_dict(self) -> dict[str, Any]:
        """Return where this iterator is, for `load_state_dict`: what JSON can hold, if a sampler's own state is.

        What was given counts, with items that raised or were skipped; what was computed ahead does not. It costs some
        microseconds, and once as long as it takes to read the indices that are listed (a million of them: some
        milliseconds); another thread's ``next()`` is waited for. In a signal's handler it is a ``ValueError`` where
        that has interrupted ``next()``.

        Attention: where Ctrl-C, or what another handler raises, ends ``next()`` itself, its item may count, though it
        didn't arrive. So save the state between two items, not after such an end.
        """
        if self._is_inside():
            raise ValueError("the iterator is computing just now: ask for its state between two items")
        with self._lock:
            source = self._settings.source
            place = source.place() if self._window is None else self._window.place()
            return {"version": _VERSION, **source.state(place)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another iterator was, with the item after the last that it gave; before the first ``next()``.

        It may have had another backend, and other workers, ``prefetch`` and ``chunksize``; the length of the dataset,
        its views (`subset` and `batches`), its ``seed``, its ``shard`` and its ``indices`` must be the same. What was
        drawn for a shuffle without a ``seed`` is taken over. A sampler is gone through here, from its first epoch on,
        and must give again what it gave last before the state was taken; so must a function of the epoch, which is
        called for that epoch alone. An iterator of indices, and the iterables of `ordered_map` but for sequences, are
        gone through by the first ``next()``; indices that have, or whose iterator has, ``state_dict()`` and
        ``load_state_dict(state)`` go on by themselves.

        Raises:
            CheckpointError: The state doesn't fit, or this iterator has begun. A sampler that was gone through for it
                is to be made anew, too.
        """
        if self._window is not None or self._closed:
            raise CheckpointError("this iterator has begun: load the state into a new one, before its first next()")
        if not isinstance(state, Mapping) or state.get("version") != _VERSION:
            raise CheckpointError(f"this is no state that state_dict() of this version of ordmap gives: {state!r}")
        self._settings.source.resume(state)

    @property
    def stats(self) -> Stats:
        """What has happened so far."""
        window = self._window
        return Stats(
            delivered=window.delivered if window is not None else 0,
            in_flight=window.in_flight if window is not None else 0,
            most_in_flight=window.most_in_flight if window is not None else 0,
            waited=self._waited + (window.waited if isinstance(window, Solo) else 0.0),
        )

    def _alone(self, step: Callable[[], Any]) -> Any:
        """Take a step that no other thread takes at the same time. What it raises ends the run: it is no item's error.

        So does Ctrl-C, at any instant of it.
        """
        if self._is_inside():
            raise ValueError("the iterator is computing already: an item, or a signal handler, can't ask it for more")
        if os.getpid() != self._process:
            raise OrdmapError(
                f"this iterator belongs to process {self._process}, and this is a fork of it: make a new one here"
            )
        began = time.perf_counter()
        try:
            try:
                with self._lock:
                    self._inside = threading.get_ident()
                    try:
                        return step()
                    finally:
                        self._inside = None
            finally:
                self._waited += time.perf_counter() - began
                if self._closed:
                    self._let_go()
        except BaseException as error:
            if isinstance(error, OrdmapError) and error.index is None and self._window is not None:
                error.index = self._window.first_missing()
            self._inside = None
            self._ended_by(error)
            raise

    def _is_inside(self) -> bool:
        """Whether this thread is in the midst of a step, or computes an item."""
        me = threading.get_ident()
        return self._inside == me or (isinstance(self._window, Solo) and self._window.inside == me)

    def _ended_by(self, error: BaseException) -> None:
        # Ctrl-C is known to end it; what a time limit raises may be caught by a program that goes on.
        cut_short = not self._closed and not isinstance(error, KeyboardInterrupt) and came_from_outside(error)
        self.close()
        if cut_short:
            self._cut_short = type(error).__name__

    def _by_now(self) -> Any:
        """Return the next outcome, ``_END``, or `LATER`: without workers an item is computed here and now."""
        if self._is_inside():
            return LATER
        taken: list[bool] = []
        try:
            noted(taken, self._lock.acquire, False)
            if taken == [False]:
                return LATER  # another thread is inside, and may wait there
            if self._window is None and not self._closed:
                self._loop = _loop_to_wait_on()
            return self._alone(lambda: self._next(wait=not self._settings.backend.workers))
        finally:
            if taken == [True]:
                self._lock.release()

    def _next(self, *, wait: bool = True) -> Any:
        """Return the next outcome, or ``_END``; the only place where anything is waited for."""
        while not self._closed:
            with contextlib.suppress(IndexError):  # another thread may have been here, and may be there
                return self._ready.pop()
            if length_hint(self._at_hand):
                return _AT_HAND
            given = self._opened().take(wait=wait)
            if given is None:
                if self._closed or not self._settings.source.turn() or self._closed:
                    self.close()
                else:
                    self._opened().go_on(self._run(changed=True))
                    self._close_runs(but=self._dropped[-1:] if not self._closed else ())
            elif type(given) is list:
                self._ready = given
            elif isinstance(given, Iterator):
                self._at_hand = given
            else:
                return given
        self._ready, self._at_hand = [], iter(())  # those of a call which `close` has overtaken
        if self._cut_short is not None:  # the program goes on, and is not to take this for the end of the items
            raise OrdmapError(
                f"this iterator was ended by the {self._cut_short} that a signal's handler, or another thread, raised "
                "within next(): go on with another, by load_state_dict(iterator.state_dict())"
            )
        return _END

    def _let_go(self) -> None:
        """Have a closed window hold nothing, unless a thread is inside: then that does it on its way out."""
        while self._closed and self._window is not None and not self._window.closed:
            if self._is_inside():
                return
            taken: list[bool] = []
            try:
                noted(taken, self._lock.acquire, False)
                if taken == [False]:
                    return
                self._window.close()
            finally:
                if taken == [True]:
                    self._lock.release()

    def _opened(self) -> Window | Solo:
        """Return the window, beginning the run if this is the first time."""
        if self._window is None:
            settings = self._settings
            self._context = captured()
            pace = self._pace = Pace(settings.backend.workers, settings.prefetch, settings.chunksize)
            run = self._run(changed=settings.source.begin())
            if isinstance(run, Immediate):
                ended_by = weakref.WeakMethod(self._ended_by)
                solo = self._window = Solo(settings.source, run, settings.retries, self._lock, ended_by)
                self._steps = map(solo.step, repeat(None))
            else:
                self._window = Window(settings.source, run, pace, settings.retries)
            if hasattr(settings.source, "pulling"):  # an asynchronous one has a task, which has to end
                self._dropped.append(weakref.finalize(self, close_dropped, settings.source, self._process))
                self._dropped[-1].atexit = False
            if self._closed:  # meanwhile, from another thread or a signal handler, which found nothing yet to end
                self._window.wake()
                self._close_runs()
        return self._window

    def _run(self, *, changed: bool = False) -> Run:
        """Begin a run of the dataset as it is now; ``changed``: whatever has been promised, it is another."""
        settings = self._settings
        rules = (self._pace.patience, settings.item_timeout, settings.seed)
        job = Job(settings.compute, settings.subject, *rules, changed=changed, context=self._context, loop=self._loop)
        run = settings.backend.open(job)
        try:
            self._dropped.append(weakref.finalize(self, close_dropped, run, self._process))
            self._dropped[-1].atexit = False  # pools end by themselves then, and in time
        except BaseException:  # of another thread
            run.close()
            raise
        return run

    def _close_runs(self, but: Sequence[weakref.finalize[Any, Any]] = ()) -> None:
        for dropped in [dropped for dropped in self._dropped if dropped not in but]:
            if (found := dropped.peek()) is not None:
                close_run(*found[2])
                dropped.detach()  # at the end: what an exception cuts short is done when the iterator is dropped
            with contextlib.suppress(ValueError):  # another thread was here
                self._dropped.remove(dropped)

    def _remaining(self) -> int | None:
        if self._closed:
            return 0
        return self._settings.source.remaining() if self._window is None else self._window.remaining()


def _loop_to_wait_on() -> Any:
    """Return the present event loop, or say that there is none that `async for` could wait on."""
    loop = present_loop()
    if loop is None:
        raise OrdmapError(
            "`async for` over an iterator of ordmap needs asyncio's event loop, and this code runs on none (on trio's, "
            "maybe): write `for`, in a thread where it would hold up others, as by trio.to_thread.run_sync"
        )
    return loop
