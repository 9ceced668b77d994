"""A worker's side: it takes chunks from the channel that all share, and answers on its own.

::

    task channel ──receive──> pending ──compute──> outbox ──> result channel
    board <── who has which chunk, which item is next

An answer for which the channel has no room waits in the outbox, while the next chunk is computed: a caller that is busy
elsewhere holds nobody up. Every wait here ends with the caller: it shuts the channels, or its death kills this process
(see `leashed`).
"""

from __future__ import annotations

import contextlib
import errno
import faulthandler
import fcntl
import os
import pickle
import select
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context, ContextVar
from typing import Any, NamedTuple, NoReturn

from ordmap import namespace
from ordmap import real_time as time
from ordmap.backends import Job, cores, streams
from ordmap.backends.inputs import TRAVELLING, Pickles, unpacking, unpickling
from ordmap.backends.pool import Life, refuse_breakpoints
from ordmap.backends.variables import Packed, packed, unpacked
from ordmap.context import separate
from ordmap.engine import blocks, channel
from ordmap.engine.blocks import Arena, Block
from ordmap.engine.board import ITEM, LOADING, TAKEN, Board
from ordmap.engine.child import run_exit_functions
from ordmap.engine.clock import Clock
from ordmap.engine.codec import encode
from ordmap.engine.courtesy import Courtesy
from ordmap.engine.crates import Opened
from ordmap.engine.last_words import LastWords
from ordmap.engine.memory import keep_freed_memory
from ordmap.engine.message import (
    ANSWER,
    BLOCK,
    DROPPED,
    FAULT,
    FORGET,
    JOB,
    KEPT,
    MOST_ORDERS,
    NEWS,
    NOTICE,
    PLAIN,
    ROW,
    Order,
    send_orders,
    together,
    unpacked_orders,
)
from ordmap.engine.parcel import unpacked_parcel
from ordmap.engine.points import arm
from ordmap.engine.primed import Row
from ordmap.engine.wear import Wear
from ordmap.errors import RemoteError
from ordmap.generators import differ, seeding, watch_imports
from ordmap.imports import begins, works
from ordmap.item import InHand, current
from ordmap.outcome import Raised, are_numbers, end_child, pack
from ordmap.reducers import SMALL
from ordmap.rows import RowWriter

__all__ = ["Held", "Seat", "Sent", "leashed", "work"]

#: Exact types that the answer's own pickle carries as they are, by identity: a user's class may have no hash.
_PLAIN = frozenset(map(id, (bool, int, float, complex, type(None))))

#: … and that a row has no need of, or not always.
_ELSEWHERE = frozenset(map(id, (str, tuple, Raised)))

#: Numbers in a tuple up to which it is sent as it is, since it can't change before the chunk is done.
_TUPLE = 16

#: In how many messages a worker offers what it took and can't do soon.
_OFFERS = 16

#: Items of a chunk that fail at a time where its answer is too long for a message, and no file can be had.
_FAILED = 1024

#: Seconds that chunks which came in one message may take before those not begun are offered to others.
_HOARD = 0.010

#: Seconds between two looks up from the items of a chunk: has it taken too long, is there news?
_LOOK = 0.0005

#: Seconds between two attempts to send where the descriptors under way are too many, which nothing tells the end of.
_RETRY = 0.010


class Held(NamedTuple):
    """A run's job, at a worker: what to call, and the seconds after which the rest of a chunk is handed back.

    ``limit``: the seconds that an item may take; ``seed``: what gives its random numbers; ``context``: what it sees of
    context variables.
    """

    compute: Callable[[Any], Any]
    patience: float | None
    limit: float | None
    seed: int | None
    context: Context

    @classmethod
    def of(cls, job: Job) -> Held:
        """Return what a worker needs of a job."""
        return cls(job.compute, job.patience, job.limit, job.seed, job.context)


class Sent(NamedTuple):
    """A run's job as it travels to workers that run already; ``compute`` may be that of another run, by its number."""

    compute: Callable[[Any], Any] | int
    patience: float | None
    limit: float | None
    seed: int | None
    context: Packed

    @classmethod
    def of(cls, job: Job, inherited: Sequence[ContextVar[Any]], known: int | None = None) -> Sent:
        """Return what is to be pickled of a job, for workers that have inherited these variables.

        ``known``: the number of a run that has the same ``compute``.
        """
        compute = job.compute if known is None else known
        return cls(compute, job.patience, job.limit, job.seed, packed(job.context, inherited))


class _Unread(NamedTuple):
    """A job that came, and is not unpickled before it is needed."""

    file: int


class Seat(NamedTuple):
    """What a worker is given: its number, of so many, its ends of the channels, and the jobs that it knows.

    ``offers`` is the caller's end of the task channel, for giving back what others could do; ``newest`` is the last
    run whose job is among them. ``allowance``: how many blocks, of how many bytes, it may have. ``leash`` is the end
    of a channel that carries nothing, and that breaks with the caller's death. ``variables``: context variables that
    it has inherited, by number.
    """

    number: int
    workers: int
    board: Board
    tasks: socket.socket
    offers: socket.socket
    results: socket.socket
    leash: socket.socket
    last_words: LastWords
    jobs: Mapping[int, Held]
    newest: int
    allowance: tuple[int, int]
    life: Life
    variables: Sequence[ContextVar[Any]] = ()


def leashed(leash: socket.socket) -> None:
    """Have this process, and what it launched, killed when the caller is gone, whatever runs here at that time.

    The kernel sends the signal when the other end breaks: this needs no thread and no Python code.
    """
    end = leash.fileno()
    fcntl.fcntl(end, fcntl.F_SETOWN, -os.getpgrp() if os.getpgrp() == os.getpid() else os.getpid())
    fcntl.fcntl(end, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(end, fcntl.F_SETFL, fcntl.fcntl(end, fcntl.F_GETFL) | os.O_ASYNC)
    gone = select.poll()  # not select(), which knows no descriptor beyond 1,023
    gone.register(end, select.POLLIN)
    if gone.poll(0):
        os._exit(1)  # it was gone before this was set up


@works
def work(seat: Seat) -> NoReturn:
    """Be a worker, to the end of this process."""
    code = 1
    try:
        code = Context().run(_Worker(seat).serve)  # that of who has forked it may be another request's
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        _leave(code)


def _leave(code: int) -> NoReturn:
    """End this process as a program ends."""
    run_exit_functions()
    streams.flush()
    if code < 0:
        _die_by(-code)
    os._exit(code)


def _die_by(number: int) -> None:
    """End this process by a signal, for whoever asks how it ended."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


#: Whether this process was forked by an item of a worker's.
_forked = False


def _stray() -> None:
    global _forked
    _forked = True
    if blocks.current is not None:
        faulthandler.disable()  # a crash of this one is none of the worker's


def _stay() -> None:
    """Note that this process is a worker, and no item's child, which a worker within a worker is, too."""
    global _forked
    _forked = False


os.register_at_fork(after_in_child=_stray)


class _Stop(BaseException):
    """The caller wants no more, or this worker has done enough."""


class _Worker:
    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self._number = seat.number
        self._board = seat.board
        self._words = seat.board.words
        self._row = seat.board.row(seat.number)
        self._tasks = seat.tasks
        self._results = seat.results
        self._jobs: dict[int, Held | _Unread | None] = dict(seat.jobs)
        self._newest = seat.newest
        self._own = Context()  # what the initializer has set
        self._contexts: dict[int, Context] = {}  # of the jobs that items were computed of
        self._arena = blocks.current = Arena(seat.board, seat.number, *seat.allowance)
        self._outbox = channel.Outbox(seat.results)
        self._rows = RowWriter()
        self._clock = Clock(seat.last_words, self._row)
        self._wear = Wear(seat.life.most_items, seat.life.most_bytes)
        self._hand = InHand(seat.number, seat.workers)
        self._courtesy = Courtesy()
        self._crate: Opened | None = None  # what the inputs in hand lie in
        self._is_seeded = False  # the last chunk was
        self._has_seeded = False
        self._pending: deque[Order] = deque()
        self._pending_since = 0.0
        self._waited = 0.0  # seconds, for the last chunk
        self._bulletin = -1
        self._has_begun = False
        self._ending = False
        self._told: int | None = None  # to end, by this signal
        _stay()

    def serve(self) -> int:
        """Compute what comes, until the caller wants no more or this worker has done enough. Return the exit code."""
        current.set(self._hand)
        arm(self)
        namespace.learn_from(self._learn)
        life = self._seat.life
        if life.finalizer is not None:
            signal.signal(signal.SIGTERM, self._be_told)  # else it ends the process at once
        with contextlib.suppress(_Stop):
            self._begin()
            try:
                self._has_begun = True
                if self._told is not None:
                    self._stop()
                while not self._wear.is_over():
                    if not self._pending:
                        self._take()
                    elif time.perf_counter() - self._pending_since > _HOARD:
                        self._offer()
                    if self._pending:
                        self._serve(self._pending.popleft())
                self._hand_over()
            finally:
                self._ending = True
                self._put_down()
                if life.finalizer is not None and not _forked:
                    self._own.run(life.finalizer)
        return 0 if self._told is None else -self._told

    def _be_told(self, number: int, _: object) -> None:
        """Leave whatever this worker is at, once, but for its beginning; if its end takes too long, it is killed."""
        if _forked:  # an item's child, which has nothing to finish
            _die_by(number)
        elif not self._ending:
            self._told = number
            if self._has_begun:
                self._stop()

    def _stop(self) -> NoReturn:
        self._ending = True
        raise _Stop

    @begins
    def _begin(self) -> None:
        life = self._seat.life
        cores.limit(life.threads)
        keep_freed_memory()
        refuse_breakpoints()
        fault: BaseException | None = None
        if life.initializer is not None:
            try:
                self._own.run(life.initializer, *life.initargs)
            except BaseException as error:
                fault = error
        self._seat.last_words.pass_on()
        self._seat.last_words.tell_of_crashes()  # whatever the initializer has made of it
        if fault is not None:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            if self._told is not None:
                _die_by(self._told)
            self._report_fault(0, fault)
            while True:  # the caller ends this worker when it hears
                self._take()
                self._pending.clear()
        self._board.begin(self._number)

    def _hand_over(self) -> None:
        """Give back what others have to do, and send what is done, however long the caller takes to receive it."""
        self._offer()  # what there is no room for the caller gives out again, after this worker's end
        poll = select.poll()
        poll.register(self._results, select.POLLOUT)
        poll.register(self._tasks, 0)  # its end alone
        while not self._outbox.flush():
            self._heed()
            if any(file == self._results.fileno() for file, _ in poll.poll()) and not self._outbox.flush():
                time.sleep(_RETRY)  # there is room, yet no way: too many descriptors are under way
        self._board.take_leave(self._number)

    # Tasks

    def _take(self) -> None:
        """Wait for a message with tasks, and meanwhile send what is in the outbox."""
        self._arena.spare(self._waited)
        self._send_dropped()
        began = time.perf_counter()
        while True:
            self._heed()
            if self._outbox.flush():
                received = channel.receive(self._tasks, wait=True)
                if received is None:
                    received = self._leave_idle()
            else:
                self._wait_for_task_or_room()
                received = channel.receive(self._tasks, wait=False)
            if received is not None:
                break
        message, file = received
        if not message:
            self._stop()
        orders = list(unpacked_orders(message))
        for order in orders:
            self._board.take(order.serial, self._number)
        if file is not None and orders[0].crate is not None:
            orders = [orders[0]._replace(crate=file)]
        elif file is not None:
            orders = self._with_inputs(orders, message, file)
        self._pending.extend(orders)
        self._pending_since = time.perf_counter()
        self._waited = self._pending_since - began

    def _leave_idle(self) -> tuple[bytes, int | None]:
        """Leave, since there was no task for so long, unless one has come by now: then return that."""
        self._board.take_leave(self._number)
        self._board.some_away = True
        # In this order: the caller sends a task and looks there after that, so one of the two sees the other.
        received = channel.receive(self._tasks, wait=False)
        if received is None:
            self._stop()
        self._board.come_back(self._number)
        return received

    def _with_inputs(self, orders: list[Order], message: bytes, file: int) -> list[Order]:
        """Return the orders of a message whose inputs lie in a file; those that can't be had are answered."""
        try:
            if file < 0:
                raise OSError(errno.EMFILE, "the worker may have no more files open")
            return list(unpacked_orders(message, channel.read_file(file)))
        except OSError as error:
            for order in orders:
                if not isinstance(order.keys, range):
                    self._answer(NEWS.pack(ANSWER, order.serial, 0.0, 0), pack([Raised(error)])[0], ())
            return [order for order in orders if isinstance(order.keys, range)]

    def _wait_for_task_or_room(self) -> None:
        poll = select.poll()
        poll.register(self._tasks, select.POLLIN)
        poll.register(self._results, select.POLLOUT)
        events = dict(poll.poll())
        if self._tasks.fileno() not in events and not self._outbox.flush():
            time.sleep(_RETRY)  # there is room, yet no way: too many descriptors are under way

    def _offer(self) -> None:
        """Give back what came with a task that turned out long, as far as there is room for it."""
        waiting = list(self._pending)
        size = min(MOST_ORDERS, -(-len(waiting) // _OFFERS))
        while waiting:
            offered = waiting[: together([order.crate for order in waiting[:size]])]
            for order in offered:  # whoever receives them may die before it says that it has them
                self._board.give_up(order.serial)
            if not send_orders(self._seat.offers, offered):
                for order in offered:
                    self._board.take(order.serial, self._number)
                break
            for order in offered:
                _close_crate(order)
            del waiting[: len(offered)]
        self._pending = deque(waiting)
        self._pending_since = time.perf_counter()

    # Notices

    def _heed(self) -> None:
        """Read the notices that the bulletin tells of."""
        bulletin = self._words[0]
        if bulletin != self._bulletin:
            self._bulletin = bulletin
            if self._board.leaving:
                self._stop()
            while self._read_notice(wait=False):
                pass

    def _read_notice(self, *, wait: bool) -> bool:
        received = channel.receive(self._results, wait=wait)
        if received is None:
            return False
        message, file = received
        if not message:
            self._stop()
        kind, run = NOTICE.unpack_from(message)
        self._newest = max(self._newest, run)
        if kind == JOB:
            self._jobs[run] = _Unread(-1 if file is None else file)
        else:
            self._contexts.pop(run, None)
            job = self._jobs.pop(run, None) if kind == FORGET else None
            if isinstance(job, _Unread) and job.file >= 0:
                os.close(job.file)
        return True

    def _job(self, order: Order) -> Held | None:
        """Return the job of an order; ``None``: its run is over, or it can't be had, which the caller knows."""
        while order.run > self._newest:
            self._read_notice(wait=True)  # it was sent before the task, but maybe not yet taken by this channel
        return self._known(order.run)

    def _known(self, run: int) -> Held | None:
        """Return the job of a run, unpacked; see `_job`."""
        job = self._jobs.get(run)
        if isinstance(job, _Unread):
            self._row[1] = LOADING
            try:
                if job.file < 0:
                    raise OSError(errno.EMFILE, "the worker may have no more files open")
                _, sent = unpacked_parcel(job.file)
                job = self._held(sent)
                _settle_warnings()
            except BaseException as error:
                job = None
                self._report_fault(run, error)
            self._jobs[run] = job
            self._seat.last_words.tell_of_crashes()  # whatever a module has made of it that was imported
        return job

    def _learn(self, number: int) -> None:
        """Unpack what the caller has sent ahead of an input, which is being unpickled."""
        while number > self._newest:
            self._read_notice(wait=True)
        lesson = self._jobs.get(number)
        if isinstance(lesson, _Unread):
            self._jobs[number] = None
            unpacked_parcel(lesson.file)

    def _held(self, sent: Sent) -> Held:
        """Return a job that has come."""
        compute = sent.compute
        if isinstance(compute, int):
            known = self._known(compute)
            if known is None:
                raise RemoteError("the dataset that this run shares with another can't be had")
            compute = known.compute
        context = unpacked(sent.context, self._seat.variables)
        return Held(compute, sent.patience, sent.limit, sent.seed, context)

    def _context(self, run: int, job: Held) -> Context:
        """Return the context of a run's items here: what one sets, the next ones see, as with `map`."""
        context = self._contexts.get(run)
        if context is None:
            context = self._contexts[run] = separate(job.context, self._own)
            context.run(current.set, self._hand)
        return context

    # Items

    def _serve(self, order: Order) -> None:
        """Compute the items of a chunk, and answer."""
        row = self._row
        row[1] = TAKEN
        row[0] = order.serial
        self._heed()  # a run that ended before this was noted counts nobody as busy with it
        job = self._job(order)
        if job is None:
            self._leave_undone(order)
            return
        self._context(order.run, job).run(self._compute, order, job)

    def _compute(self, order: Order, job: Held) -> None:  # noqa: C901, PLR0912, PLR0915  a call costs more
        row = self._row
        compute, keys = self._inputs(order, job)
        outcomes = self._hand.take(keys, order.label, job.seed)
        nbytes = 0
        kind = PLAIN
        rows = self._rows
        add = rows.add if job.limit is None else self._added
        in_row: type | None = None  # the class of the last result that joined the row
        lent: list[Block] = []
        clock = time.perf_counter
        began = clock()
        give_up = began + job.patience if job.patience is not None and not order.patient else float("inf")
        look_up = began + _LOOK
        state = ITEM
        for key in keys:
            row[1] = state
            state += 1
            try:
                result = compute(key)
            except _Stop:
                raise
            except BaseException as error:
                # The frame of this loop is of no interest to the user.
                error = error.with_traceback(error.__traceback__.tb_next if error.__traceback__ else None)
                result = Raised(error)
            if _forked:
                end_child(result)
            cls = type(result)
            if cls is int:
                pass  # by far the most
            elif cls is in_row and (data := add(result)) is not None:
                result = data
                nbytes += len(data)
            elif id(cls) not in _PLAIN:
                if cls is str and len(result) <= SMALL:
                    nbytes += len(result)
                else:
                    kind = kind if kind != PLAIN else ROW if rows.begin(order.run, len(keys)) else ANSWER
                    in_row = None
                    if rows.on and id(cls) not in _ELSEWHERE and (data := add(result)) is not None:
                        result = data
                        nbytes += len(data)
                        in_row = cls
                    else:
                        box = [result]
                        result = None  # from here on the box alone holds it
                        result, size = self._encoded(box, lent, alone=kind == ANSWER)
                        nbytes += size
            outcomes.append(result)
            if clock() < look_up:
                continue
            look_up = clock() + _LOOK
            if look_up >= give_up or (not order.patient and self._wear.is_over(amid=True)):
                break
            self._heed()
            if order.run not in self._jobs:
                self._abandon(lent)
                return
        del result  # an idle worker keeps no result alive
        self._reply(kind, began, nbytes, outcomes, lent)

    def _reply(self, kind: int, began: float, nbytes: int, outcomes: list[Any], lent: Sequence[Block]) -> None:
        """Answer with what the chunk in hand has given."""
        row = self._row
        self._put_down()
        self._wear.note(len(outcomes))
        head = NEWS.pack(kind, row[0], time.perf_counter() - began, nbytes + 32 * len(outcomes))
        self._answer(head, (self._rows.primer, outcomes) if kind == ROW else outcomes, lent)
        row[0] = 0

    def _leave_undone(self, order: Order) -> None:
        """Let go of a chunk whose job can't be had."""
        _close_crate(order)
        self._row[0] = 0

    def _put_down(self) -> None:
        """Note that the items of a chunk are done, and let go of their inputs."""
        self._hand.put_down()
        self._clock.stop()
        streams.settle()
        crate, self._crate = self._crate, None
        if crate is not None and not crate.close():
            self._outbox.put(NEWS.pack(KEPT, self._row[0], 0.0, 0))

    def _abandon(self, lent: Sequence[Block]) -> None:
        """Leave the rest of a chunk undone, and what is done: its run is over."""
        self._put_down()
        self._take_back(lent)
        self._row[0] = 0

    def _added(self, result: Any) -> bytes | None:
        """Add a result to the row, which is no part of its item's time; see `RowWriter.add`."""
        self._clock.stop()
        return self._rows.add(result)

    def _encoded(self, box: list[Any], lent: list[Block], *, alone: bool) -> tuple[Any, int]:
        """Make the result in this box ready to be sent, which a few numbers are; see `encode`.

        ``alone``: not in a row, where bytes are what follows its primer.
        """
        kind = type(box[0])
        if kind is tuple and 0 < len(box[0]) <= _TUPLE and are_numbers(box[0]):
            numbers = box.pop()
            return numbers, 8 * len(numbers)
        self._clock.stop()
        if kind is tuple and self._rows.on and (data := self._rows.add(box[0])) is not None:
            box.clear()
            return data, len(data)
        sent, size = encode(box, self._arena, lent)
        return (sent if alone or type(sent) is not bytes else [sent, ()]), size

    def _inputs(self, order: Order, job: Held) -> tuple[Callable[[Any], Any], Sequence[Any]]:
        """Return what to call, and with what: as much as this worker may still compute, or all where it is to be.

        An input that is not plain is unpickled within its item.
        """
        compute = job.compute
        keys: Sequence[Any] = order.keys if isinstance(order.keys, range) else pickle.loads(order.keys)
        if order.crate is not None:
            compute = unpacking(compute, self._opened(order.crate))
        elif type(keys) is Pickles:
            compute = unpickling(compute)
        elif type(keys) is Row:
            compute = keys.opening(compute)
        elif isinstance(keys[0], TRAVELLING):
            compute = unpacking(compute)
        if job.limit is not None:
            compute = self._clock.timed(compute, job.limit)
        if job.seed is not None:
            if not self._has_seeded:
                watch_imports(self._hand)
            self._is_seeded = self._has_seeded = True
            compute = seeding(compute, self._hand)
        elif self._is_seeded:
            self._is_seeded = False
            differ()
        self._courtesy.show(len(keys) if job.patience is not None else 0)
        return compute, keys if order.patient or len(keys) <= self._wear.left else keys[: self._wear.left]

    def _opened(self, crate: int) -> Opened | OSError:
        """Return the inputs of the chunk in hand, or what keeps them from being had."""
        try:
            if crate < 0:
                raise OSError(errno.EMFILE, "the worker may have no more files open")
            self._crate = Opened(crate)
        except OSError as error:
            return error
        return self._crate

    def _answer(self, head: bytes, outcomes: list[Any] | tuple[bytes, list[Any]], lent: Sequence[Block]) -> None:
        """Send the outcomes of the chunk in hand, and the blocks that they lie in."""
        if self._ending:  # and somebody's code has caught what was to end this worker
            raise _Stop
        self._row[4] = self._row[0]
        data = pickle.dumps(outcomes, pickle.HIGHEST_PROTOCOL)
        try:
            letter = _letter(head, data)
        except OSError as error:
            self._take_back(lent)
            count = len(outcomes[1] if isinstance(outcomes, tuple) else outcomes)
            # Another error, which has no context; and no more than a message holds: the rest is handed back.
            packed, _ = pack([Raised(OSError(error.errno, error.strerror))])
            head = NEWS.pack(ANSWER, *NEWS.unpack(head)[1:])
            self._outbox.put(head + pickle.dumps(packed * min(count, _FAILED), pickle.HIGHEST_PROTOCOL))
            return
        # Where the item has closed the channel, this raises and ends the worker: the board says which item it was.
        self._send_blocks(lent)
        self._outbox.put(*letter)

    def _take_back(self, lent: Sequence[Block]) -> None:
        """Have the blocks of results that the caller won't get."""
        for block in lent:
            self._arena.put_back(block)

    def _send_blocks(self, lent: Sequence[Block]) -> None:
        """Note that the caller has these blocks, and make those known to it that are new."""
        self._send_dropped()  # before those that are new, which may have their numbers
        for block in lent:
            self._arena.lend(block)
            if not block.sent:
                block.sent = True
                self._outbox.put(NEWS.pack(BLOCK, block.number, 0.0, block.size), block.memory.file, owned=False)

    def _send_dropped(self) -> None:
        while self._arena.dropped:
            self._outbox.put(NEWS.pack(DROPPED, self._arena.dropped.pop(0), 0.0, 0))

    def _report_fault(self, run: int, error: BaseException) -> None:
        packed, _ = pack([Raised(error)])
        self._outbox.put(*_letter(NEWS.pack(FAULT, run, 0.0, 0), pickle.dumps(packed[0], pickle.HIGHEST_PROTOCOL)))


def _settle_warnings() -> None:
    """Have the caller's filters of warnings also for what was imported with a job, in a fresh interpreter."""
    surroundings = sys.modules.get("ordmap.surroundings")
    if surroundings is not None:
        surroundings.settle_warnings()


def _close_crate(order: Order) -> None:
    """Let go of the inputs of a chunk that is not computed here."""
    if order.crate is not None and order.crate >= 0:
        os.close(order.crate)


def _letter(head: bytes, data: bytes) -> tuple[bytes, int | None]:
    """Return a message, and the file that goes with it where it is too long for one."""
    return (head + data, None) if len(data) <= channel.LONG else (head, channel.written_file([data]))
