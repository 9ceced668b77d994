"""The caller's side: a crew of workers, what each was given, and what is to be done when one dies.

::

    submit ──> tasks ──task channel──> workers            tasks: every chunk not answered yet, by serial number
    collect <── answers <──result channels── workers      board: which of them a worker holds, and how far it is

There is no thread here. Only a call of `Crew.submit` or `Crew.collect` sends and receives, in the thread that makes it;
of several that wait at a time, one polls for all.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import os
import pickle
import select
import signal
import socket
import threading
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextvars import copy_context
from typing import Any, Protocol

from ordmap import real_time as time
from ordmap.backends import Job
from ordmap.backends.pool import POOL_CLOSED, Life, initializer_failed
from ordmap.chunk import Chunk
from ordmap.context import variables
from ordmap.engine import channel, kernel
from ordmap.engine.board import ITEM, LOADING, Board
from ordmap.engine.clock import TIMED_OUT
from ordmap.engine.courtesy import Courtesy
from ordmap.engine.crates import Crates
from ordmap.engine.ending import LEAVE, Death, end_gently, end_workers, has_ended, reap
from ordmap.engine.groups import reap_orphans
from ordmap.engine.jobs import Jobs, parcel_of
from ordmap.engine.ledger import Ledger, Task
from ordmap.engine.memory import close_all, close_lost, streams_taken
from ordmap.engine.message import ANSWERS, BLOCK, DROPPED, FAULT, KEPT, NEWS, PLAIN, ROW
from ordmap.engine.parcel import Parcel
from ordmap.engine.run import EngineRun
from ordmap.engine.shelf import Lent, Shelf, room
from ordmap.engine.staff import Staff, Started, Worker
from ordmap.engine.vigil import Vigil
from ordmap.errors import BackendUnavailableError, OrdmapError, RemoteError
from ordmap.interrupts import pass_on, uninterrupted
from ordmap.limit import too_long
from ordmap.outcome import Answer, Raised, one_line, opened
from ordmap.places import token_of
from ordmap.resources import free_memory
from ordmap.shielded import noted, shielded
from ordmap.vocabulary import Lesson, Vocabulary

__all__ = ["Crew", "Launch"]

#: Seconds that closing a run waits for another thread to leave the crew to it.
_PATIENCE = 1.0

#: Seconds that an item may go on after its run is over, before it costs its worker.
_GRACE = 0.2

#: Deaths in a row, with no item begun, that count against a chunk, a job, or the start of workers.
_DEATHS = 3

#: … where somebody else killed them, who may have meant no one in particular.
_KILLS = 10

#: Seconds that a wait takes at most, before it is begun again. A signal that another thread receives doesn't end it,
#: and its handler, which may raise, runs in the main thread and nowhere else.
_HEARTBEAT = 0.25

#: Seconds between two attempts to send what there was no room for.
_RETRY = 0.02


class Launch(Protocol):
    """A way to start workers; ``inherits``: they have all that the caller has, as of now.

    ``beside``: what of the caller's they lack, and may wait for, in words.
    """

    inherits: bool
    beside: str
    life: Life

    def __call__(self, crew: Crew, number: int, started: Started, *, recorded: bool) -> Worker:
        """Start a worker; an ``OSError`` says why there can be none.

        ``started``: where is noted what there is of it, until it is one of the staff.

        ``recorded``: what it says on its standard error before it begins is kept for its last words.
        """

    def close(self) -> None:
        """Let go of what is needed to start workers: there will be no more."""


class Crew:
    """Some workers and the runs that use them. Belongs to the process that made it."""

    ended = _emptied = True  # until it has all that it needs
    first = 0  # of the numbers that its workers have among this process's children

    def __init__(self, size: int, launch: Launch, lock: threading.RLock, idle: float = float("inf")) -> None:
        """``idle``: the seconds without a task after which a worker leaves, to come back when there is one."""
        files: list[int] = []
        try:
            with streams_taken():
                self._open_files(size, files, shared=not launch.inherits)
            self._begin(size, launch, lock, idle)
        except BaseException as error:
            if self.ended:
                close_all(files)
            if not isinstance(error, OSError):
                raise
            raise BackendUnavailableError(f"no pool of workers can be made: {error}") from error

    def _begin(self, size: int, launch: Launch, lock: threading.RLock, idle: float) -> None:
        self.process = os.getpid()
        self.runs: set[EngineRun] = set()
        free = free_memory()
        self.allowance = _allowance(size, free)
        teach = weakref.WeakMethod(self._teach)
        self.vocabulary = Vocabulary.inherited(teach) if launch.inherits else Vocabulary(teach)
        self.crates = Crates(max(1 << 26, free // 4), self.vocabulary)
        self._launch = launch
        self.size = size
        self.variables = variables(copy_context()) if launch.inherits else []  # that all workers know
        for variable in self.variables:
            token_of(variable)  # by which a function that needs it finds it there
        self._staff = Staff(self._epoll)
        self.jobs = Jobs(self._staff, self.board)
        self._ledger = Ledger(self.board, self.offers, self.taking)
        self._away: list[int] = []  # numbers of workers that had waited long, and are not needed yet
        channel.limit_waits(self.taking, idle)
        self._stillborn: Counter[int] = Counter()  # by number: deaths in a row before anything was computed
        self._unloaded = 0
        self._strays: dict[Worker, tuple[int, float, Iterator[float]]] = {}
        self._leavers: dict[Worker, float] = {}
        self._vigil = Vigil(self.board, launch.beside)
        self._fault: OrdmapError | None = None
        self._busy = False  # with tasks or answers, in the thread that has the lock
        # The pool's own, lest two threads take the two in different order. Re-entrant, since the garbage collector or a
        # signal handler may close a run in here; and taken directly, since a handler's exception could leave it locked
        # inside the methods of a Condition, which are Python.
        self._lock = lock
        self._leaving: deque[EngineRun] = deque()
        self._turn = threading.Condition(self._lock)
        self._leader: int | None = None
        self._followers = 0
        self._users = 0
        with _numbering:
            self.first = _first_free(size)
            self.ended = self._emptied = False
            _crews.add(self)

    def _open_files(self, size: int, files: list[int], *, shared: bool) -> None:
        """Make the board and the channels; ``shared``: the board is not inherited.

        On failure nothing is left but bare ``files``, which are the caller's to close then.
        """
        with contextlib.ExitStack() as undo:
            self.board_file = -1
            if shared:
                noted(files, kernel.memfd_create, "ordmap-board", kernel.MFD_CLOEXEC)
                self.board_file = files[-1]
                os.ftruncate(self.board_file, Board.size(size))
            self.board = Board(size, self.board_file)
            undo.callback(self.board.close)
            self.offers, self.taking = channel.pair()
            undo.callback(self.offers.close)
            undo.callback(self.taking.close)
            self._epoll = select.epoll()
            undo.callback(self._epoll.close)
            noted(files, os.eventfd, 0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            self._wake = files[-1]
            self._epoll.register(self._wake, select.EPOLLIN)
            undo.pop_all()

    @property
    def usable(self) -> bool:
        """Whether a new run can be had here."""
        return not self.ended and self._fault is None and self.process == os.getpid()

    def start(self) -> None:
        """Start the workers; on failure nothing is left."""
        with self._lock:
            try:
                for number in range(self.size):
                    self._hire(number)
            except OSError as error:
                self.end()
                raise BackendUnavailableError(f"no worker process can be started: {error}") from error
            except BaseException:
                self.end()
                raise

    # Runs

    def join(self, job: Job, parcel: Parcel | None = None, *, keep: bool = False) -> EngineRun:
        """Begin a run. Workers that run already need the job as a ``parcel``.

        With ``keep`` the workers hold on to the job after the run, for `join_kept`.
        """
        with self._lock:
            number = self.jobs.add(job, parcel)
            if parcel is not None:
                self.vocabulary.begin()
                self._rouse()  # whoever polls sends what there was no room for
            if keep and (forgotten := self.jobs.keep(job, number)) is not None:
                self._forget_job(forgotten)
            return self._joined(number, job)

    def join_kept(self, job: Job) -> EngineRun | None:
        """Begin a run of the job that was kept, if this is the same; what its items see goes to the workers."""
        with self._lock:
            known = self.jobs.kept(job)
            if known is None or self.jobs.as_kept(job, known):
                return None if known is None else self._joined(known, job)
            number = self.jobs.add(job, parcel_of(job, self.variables, known, self.vocabulary))
            self._rouse()
            return self._joined(number, job, known)

    def _teach(self, lesson: Lesson) -> int:
        """Send all workers some functions and classes of the script, which they are to know by their names."""
        if lesson.things is not None:
            return self._send_lesson(lesson)
        from ordmap.changes import Told, changes  # heavy; one loop does without

        # All in one, so that what they share is one object there, too; if one of them can't be pickled, each by itself.
        told = [Told(place, value) for place, value in changes(self.vocabulary)]
        for things in [told, *([one] for one in told)] if told else []:
            try:
                lesson.previous = self._send_lesson(Lesson(lesson.previous, things))
                if things is told:
                    break
            except Exception as error:
                pass_on(error)
        return lesson.previous

    def _send_lesson(self, lesson: Lesson) -> int:
        parcel = Parcel(lesson, self.vocabulary)
        with self._lock:
            number = self.jobs.teach(parcel)
            self._rouse()
            return number

    def _joined(self, number: int, job: Job, known: int | None = None) -> EngineRun:
        run = EngineRun(self, number, job.limit, known)
        self.runs.add(run)
        return run

    def _forget_job(self, number: int) -> None:
        if not self.ended and not any(number in {run.number, run.known} for run in self.runs):
            self.jobs.forget(number)

    def close_run(self, run: EngineRun) -> None:
        """End a run, at once or, where this thread can't have the lock, as soon as it is free.

        The garbage collector may close a run of one pool in a thread that holds the lock of another. Two threads that
        do so crosswise must not wait for each other for ever.
        """
        self._leaving.append(run)
        self._settle()
        if self._leaving:  # whoever has the lock may never look
            with contextlib.suppress(RuntimeError):  # the program ends, and the crew with it
                threading.Thread(target=self._settle, args=(-1,), name="ordmap-close", daemon=True).start()

    def _settle(self, patience: float = _PATIENCE) -> None:
        while self._leaving:
            taken: list[bool] = []
            try:
                noted(taken, self._lock.acquire, True, patience)
                if taken == [False]:
                    return
                if self._leaving:
                    run = self._leaving[0]
                    with uninterrupted():
                        self._leave(run)
                    run.end()
                    self._rouse()
                    with contextlib.suppress(ValueError):  # a signal handler has been here meanwhile
                        self._leaving.remove(run)
            finally:
                if taken == [True]:
                    self._lock.release()

    def _leave(self, run: EngineRun) -> None:
        """End a run: workers give up what they have of it."""
        with self._lock:
            if run not in self.runs:
                return
            self.runs.discard(run)
            if not self.ended:
                self._forget_job(run.number)  # first: a worker that takes a chunk from now on sees it
                if run.known is not None:
                    self._forget_job(run.known)
                self._note_strays(run)
                self._ledger.strike_run(run)
                for worker in self._staff:
                    reap_orphans(worker)
                if not self.runs:
                    self.crates.trim()

    def _note_strays(self, run: EngineRun) -> None:
        """Note which workers are in an item that nobody waits for any more."""
        for worker in self._staff:
            serial = self.board.row(worker.number)[0]
            task = self._ledger.find(serial)
            if task is not None and task.run is run:
                steps = end_gently(worker) if self._launch.life.finalizer is not None else iter(())
                self._strays[worker] = serial, time.monotonic() + _GRACE, steps

    def _watch_over_workers(self) -> None:
        """End the workers that don't come to their end by themselves."""
        self._end_strays()
        if self._launch.life.recycles:
            self._end_leavers()
        if time.monotonic() >= self._vigil.due:
            self._vigil.look(self._staff)

    def _end_strays(self) -> None:
        """Kill workers that an item of a run that is over holds up; their places are filled like any other's."""
        now = time.monotonic()
        for worker, (serial, when, steps) in list(self._strays.items()):
            if worker not in self._staff or self.board.row(worker.number)[0] != serial:
                del self._strays[worker]
            elif now > when:
                worker.condemned = True
                wait = next(steps, None)
                if wait is None:
                    del self._strays[worker]
                    _kill(worker)
                else:
                    self._strays[worker] = serial, now + wait, steps

    def _end_leavers(self) -> None:
        """Kill workers that have handed all over and don't come to their end."""
        now = time.monotonic()
        for worker in self._staff:
            if self.board.has_left(worker.number) and now > self._leavers.setdefault(worker, now + LEAVE):
                _kill(worker)
        for worker in [worker for worker in self._leavers if worker not in self._staff]:
            del self._leavers[worker]

    # Tasks

    def submit(self, run: EngineRun, ticket: int, chunk: Chunk) -> None:
        """Have a chunk computed."""
        task = Task.of(run, ticket, chunk)
        with self._lock:
            self._refuse_to_nest()
            self._users += 1
            try:
                if not self.ended:
                    self._busy = True
                    self._give_back()  # first: who takes this chunk may need them for it
                    self._ledger.put(task)
                    if self.board.some_away:
                        self._call_back()
                    self._answer_unsendable()
            finally:
                self._busy = False
                self._users -= 1
                self._let_go()
        if self._leaving:
            self._settle()

    # Answers

    def collect(self, run: EngineRun, *, wait: bool) -> Sequence[tuple[int, Answer]]:
        """Return a run's answers; see `ordmap.backends.Run.collect`."""
        me = threading.get_ident()
        before = None  # who led; also this thread, where a signal handler calls
        entered = False
        try:
            with self._lock:
                before = self._leader
                self._refuse_to_nest()
                self._users += 1
                entered = True
                self._give_back()
            polled = False
            while True:
                with self._lock:
                    before = self._leader
                    while self._leader is not None and self._leader != me and run.waits and not self._stopped():
                        if not wait:
                            return ()
                        self._followers += 1
                        try:
                            self._turn.wait(_HEARTBEAT)
                        finally:
                            self._followers -= 1
                        before = self._leader
                    if not run.waits or self._stopped() or (polled and not wait):
                        return self._given(run)
                    self._leader = me
                try:
                    # Whoever needs this thread's attention writes to a descriptor that is polled here.
                    self._watch_over_workers()
                    retry = bool(self._strays) or self._ledger.waits or any(worker.notices for worker in self._staff)
                    events = self._epoll.poll((_RETRY if retry else _HEARTBEAT) if wait else 0)
                    with self._lock:
                        self._attend(events)
                finally:
                    self._lead_no_more(me, before)
                polled = True
        finally:
            try:
                if self._leader == me:  # an exception came right after this thread took the lead
                    self._lead_no_more(me, before)
            finally:
                with self._lock:
                    self._users -= entered
                    self._let_go()
            if self._leaving:
                self._settle()

    def watch(self, loop: Any, callback: Callable[[], None]) -> Callable[[], None]:
        """Have a callback called on an event loop when there is an event to be polled; return what ends that."""
        with self._lock:
            if self._epoll.closed:
                loop.call_soon(callback)
                return lambda: None
            file = os.dup(self._epoll.fileno())  # a loop knows one callback for each descriptor
        loop.add_reader(file, callback)

        def end() -> None:
            loop.remove_reader(file)
            os.close(file)

        return end

    def _give_back(self) -> None:
        """Have the workers use again what is not in use here any more."""
        for worker in self._staff:
            worker.shelf.give_back()

    def _refuse_to_nest(self) -> None:
        """Keep a signal's handler out that asks for items in the midst of what this thread does with them."""
        if self._busy:
            raise OrdmapError(
                "a signal handler has asked a pool for items that is at work with others in this very thread: "
                "let it set a flag or raise, and ask in the program's own course"
            )

    def _lead_no_more(self, me: int, before: int | None) -> None:
        with self._lock:
            if self._leader == me != before:
                self._leader = before
                if self._followers:
                    self._turn.notify_all()

    def _stopped(self) -> bool:
        return self.ended or self._fault is not None

    def _given(self, run: EngineRun) -> Sequence[tuple[int, Answer]]:
        woken = run.woken
        answers = run.take()
        if not answers and not woken:
            if run.closed or self.ended:
                raise OrdmapError(POOL_CLOSED)
            if run.fault is not None:
                raise run.fault
            if self._fault is not None:
                raise _copied(self._fault)
        return answers

    def wake(self) -> None:
        """Have whoever polls look at what has changed; from any thread."""
        with self._lock:
            self._rouse()

    def _rouse(self) -> None:
        # Also where nobody polls yet: this may be a signal handler, in a thread that is about to.
        if self._users and not self._epoll.closed:
            os.eventfd_write(self._wake, 1)
        self._turn.notify_all()

    def _attend(self, events: Sequence[tuple[int, int]]) -> None:
        """Do what the events call for. If that fails half-way nobody may wait for this crew any more."""
        try:
            self._busy = True
            self._respond(events)
            if not self.ended:
                self._ledger.flush()
                self._answer_unsendable()
                for worker in self._staff:
                    if worker.notices:
                        worker.notices.flush()
        except BaseException as error:
            if self._fault is None:
                self._fault = OrdmapError(f"the workers of this run were given up: {type(error).__name__}: {error}")
            raise
        finally:
            self._busy = False

    def _respond(self, events: Sequence[tuple[int, int]]) -> None:
        dead = []
        for file, _ in events:
            if self.ended:  # by a signal handler, or the garbage collector
                return
            worker = self._staff.told_by(file)
            if file == self._wake:
                _read_eventfd(file)
            elif worker is not None and file == worker.pidfd:
                dead.append(worker)
            elif worker is not None:
                self._receive(worker)
        for worker in dead:
            # The event may be old: another worker has the same descriptor now.
            if not self.ended and worker in self._staff and has_ended(worker):
                self._bury(worker)

    def _receive(self, worker: Worker) -> None:
        """Take in all that a worker has sent."""
        while (received := channel.receive(worker.results, wait=False)) is not None:
            message, file = received
            if not message:
                # The end is only a hint of a death: that is the pidfd's to say.
                self._staff.ignore(worker.results.fileno())
                return
            kind, number, _, nbytes = news = NEWS.unpack_from(message)
            if kind in ANSWERS:
                self._take_answer(worker, news, message[NEWS.size :], file)
            elif kind == BLOCK and file is not None:
                worker.shelf.put(number, nbytes, file)
            elif kind == DROPPED:
                worker.shelf.drop(number)
            elif kind == KEPT:
                task = self._ledger.find(number)
                if task is not None and task.crate is not None:
                    task.crate.retire()
            elif kind == FAULT:
                data = message[NEWS.size :]
                self._take_fault(worker, number, data if file is None or file < 0 else channel.read_file(file))

    def _take_answer(self, worker: Worker, news: tuple[int, int, float, int], data: bytes, file: int | None) -> None:
        kind, serial, elapsed, nbytes = news
        task = self._ledger.find(serial)
        outcomes, plain, pickled, primer = _outcomes(worker, kind, data, file)
        if task is None:
            return  # of a run that is over, or the second answer around a death
        if task.dead is not None and len(outcomes) == task.size:
            outcomes.append(task.dead)
            plain = False
        self._unloaded = 0
        worker.proven = True
        self._finish(task, Answer(outcomes, elapsed, nbytes, worker.name, plain, pickled, primer))

    def _answer_unsendable(self) -> None:
        while (unsendable := self._ledger.take_unsendable()) is not None:
            task, error = unsendable
            self._finish(task, Answer([Raised(error) for _ in range(task.size)], 0.0, 0, "of the caller"))

    def _finish(self, task: Task, answer: Answer) -> None:
        self._ledger.strike(task)
        task.run.give(task.ticket, answer)

    def _take_fault(self, worker: Worker, number: int, data: bytes) -> None:
        raised = opened(pickle.loads(data)) if data else Raised(OSError(errno.EMFILE, "what it raised was too long"))
        if not number:
            self._fault = initializer_failed(raised.error, worker.name, worker.pid)
            return
        self.jobs.drop_kept(number)
        self._forget_job(number)
        for run in self.runs:
            if run.number == number:
                run.fault = RemoteError(
                    f"the dataset can't be rebuilt in worker {worker.name}: {one_line(raised.error)}",
                    remote_traceback=raised.traceback,
                )

    # Deaths

    def _call_back(self) -> None:
        """Have others in the places of workers that had waited long, and have left."""
        self.board.some_away = False
        for worker in self._staff:
            if self.board.has_left(worker.number):
                if has_ended(worker):
                    self._bury(worker)
                else:
                    self.board.some_away = True
        try:
            while self._away and not self._stopped():
                self._hire(self._away[-1])
                self._away.pop()
        except OSError as error:
            if not self._staff.is_empty:
                self.board.some_away = True  # those that there are do it; the next task tries again
                return
            self._fault = BackendUnavailableError(f"no worker process can be started: {error}")

    def _hire(self, number: int) -> None:
        Courtesy.forgo()
        with uninterrupted(), streams_taken():
            started = Started()
            try:
                worker = self._launch(self, number, started, recorded=self._stillborn[number] > 0)
                self._staff.add(worker)
            except BaseException:
                if self.process == os.getpid() and not any(worker.pid in started.pids for worker in self._staff):
                    started.undo()
                raise
            if not self._launch.inherits:
                self.jobs.brief(worker)

    def _bury(self, worker: Worker) -> None:
        """Take note of a death: what the worker sent counts, what it had is done again, another takes its place."""
        self._receive(worker)
        with uninterrupted():
            if not self.ended:  # by a signal handler, meanwhile
                self._replace(worker)

    def _replace(self, worker: Worker) -> None:
        begun = self.board.has_begun(worker.number)
        code = reap(worker)
        if worker.was_overdue(self.board.row(worker.number)):
            code = TIMED_OUT
        said = worker.last_words.said().strip() if worker.recorded and not begun else ""
        death = Death(worker.name, worker.pid, code, "" if said else worker.last_words.stack())
        self._staff.remove(worker)
        number = worker.number
        proven = worker.proven or self.board.row(number)[0] or self.board.has_left(number)
        self._stillborn[number] = 0 if proven else self._stillborn[number] + 1
        if self._stillborn[number] >= _most_in_a_row(death):
            said = f", having said:\n{said}" if said else ", without a word"
            self._fault = death.error(f"workers die before they begin; the last: {death}{said}")
            return
        self._recover(worker, death)
        left = self.board.has_left(number)
        self.board.clear(number)
        if left and not self._launch.life.recycles and not self._ledger.has_untaken:
            self._away.append(number)
            self.board.some_away = True
            return
        try:
            self._hire(number)
        except OSError as error:
            self._fault = death.error(f"{death}, and no other can be started: {error}")

    def _recover(self, worker: Worker, death: Death) -> None:
        """Send again what is lost with a worker, and answer for the item that ended it."""
        serial, state, *_ = self.board.row(worker.number)
        culprit = self._ledger.find(serial)
        if culprit is not None and (death.timed_out or not worker.condemned):
            self._blame(culprit, state, death)
        self._ledger.give_out_lost(worker.number, in_peace=self.board.has_left(worker.number))

    def _blame(self, task: Task, state: int, death: Death) -> None:
        """Count a death against the chunk that the worker had in hand."""
        if state >= ITEM:
            self._unloaded = 0  # it had the job
            place = state - ITEM
            raised = _ended_by(death, task.run.limit)
            if place:
                # What came before died with the worker: it is done again, to its end, and the answer ends with this.
                task.cut(place)
                task.patient = True
                task.dead = raised
            else:
                self._finish(task, Answer([raised], 0.0, 0, death.worker))
        elif state == LOADING:
            self._unloaded += 1
            if self._unloaded >= _most_in_a_row(death):
                task.run.fault = death.error(f"workers die while they unpickle the job; the last: {death}")
        else:
            task.deaths += 1
            if task.deaths >= _most_in_a_row(death):
                raised = Raised(
                    death.error(f"workers die while they unpickle this input; the last: {death}"), death.stack
                )
                self._finish(task, Answer([raised], 0.0, 0, death.worker))

    # The end

    def end(self) -> None:
        """End the workers, with what they launched; any number of times."""
        if self.process != os.getpid():
            return
        with uninterrupted(), self._lock:
            try:
                if not self._emptied:  # also where an exception has cut this short before
                    shielded(self._empty)
            finally:
                self._rouse()
                self._let_go()

    def _empty(self) -> None:
        """End the workers; no lock is needed that the caller has not."""
        self.ended = True
        self.board.ask_to_leave()
        self.offers.shutdown(socket.SHUT_RDWR)
        workers = [worker for worker in self._staff if not worker.reaped]
        busy = [worker for worker in workers if self.board.is_busy(worker.number)]
        try:
            end_workers(workers, busy, gently=self._launch.life.finalizer is not None)
        finally:
            self._staff.wait_for_trackers()
        self._emptied = True

    def __del__(self) -> None:
        if not (self.ended and self._emptied):
            self.end()

    def _let_go(self) -> None:
        """Close the descriptors once the crew has ended and nobody is inside a call any more."""
        if self.ended and self._emptied and not self._users and not self._epoll.closed:
            shielded(self._close)

    def _close(self) -> None:
        self.close_files()
        self.board.close()

    def close_files(self) -> None:
        """Close this process's descriptors of the crew, whoever else has them."""
        if self._epoll.closed:
            return
        self._epoll.close()
        os.close(self._wake)
        self.offers.close()
        self.taking.close()
        if self.board_file >= 0:
            os.close(self.board_file)
        self.jobs.close()
        self._launch.close()
        pids = [worker.pid for worker in self._staff] if self._fault is not None else []
        self._staff.close()
        for pid in pids:
            close_lost(pid)
        self._ledger.clear()
        self.crates.close()


def _kill(worker: Worker) -> None:
    with contextlib.suppress(ProcessLookupError):
        kernel.pidfd_send_signal(worker.pidfd, signal.SIGKILL)


def _ended_by(death: Death, limit: float | None) -> Raised:
    """Return the failure of an item with which its worker ended."""
    if limit is None or not death.timed_out:
        return Raised(death.error(f"{death} while it computed this item"), death.stack, death.worker)
    error = too_long(limit, limit, f"was ended, with its worker {death.worker}", death.stack)
    return Raised(error, death.stack, death.worker)


def _copied(fault: OrdmapError) -> OrdmapError:
    """Return the same error for one run of several, which adds its index to it."""
    copied = type(fault)(str(fault))  # copy.copy() asks pickle's registry, where others have entered what they like
    vars(copied).update(vars(fault))
    copied.__cause__ = fault.__cause__
    return copied


def _outcomes(worker: Worker, kind: int, data: bytes, file: int | None) -> tuple[list[Any], bool, bool, bytes | None]:
    """Return what a worker has answered, whether it is plain, and whether there are pickles in it, with what primer."""
    try:
        if file == -1:
            raise OSError(errno.EMFILE, "no more files can be opened, to receive this result")
        outcomes: list[Any] = pickle.loads(data if file is None else channel.read_file(file))
    except (MemoryError, OSError) as error:
        return [Raised(error)], False, False, None
    if kind == PLAIN:
        return outcomes, True, False, None
    primer = None
    if kind == ROW:
        primer, outcomes = outcomes
    kinds = set(map(type, outcomes))
    if list in kinds:
        outcomes = [_lent(worker.shelf, one) if type(one) is list else one for one in outcomes]
    return outcomes, False, bytes in kinds, primer


def _lent(shelf: Shelf, placed: list[Any]) -> Any:
    try:
        return Lent(shelf, *placed)
    except OSError as error:  # a block in it could not be mapped
        return Raised(error)


def _most_in_a_row(death: Death) -> int:
    """Return how many such deaths in a row, with no item begun, are too many."""
    return _KILLS if death.code == -signal.SIGKILL else _DEATHS


def _allowance(workers: int, free: int) -> tuple[int, int]:
    """Return how many blocks a worker may have, and of how many bytes: a part of what this process can still get.

    A pool may use up half of what is left. What goes beyond is copied.
    """
    return max(2, room() // 2 // workers), max(1 << 26, free // 2 // workers)


def _read_eventfd(file: int) -> None:
    try:
        os.eventfd_read(file)
    except BlockingIOError:
        return  # another run's thread has read it


#: The crews of this process that have not ended.
_crews: weakref.WeakSet[Crew] = weakref.WeakSet()


#: Held while a crew is given numbers; re-entrant, since the garbage collector may begin one of the caller's loops.
_numbering = threading.RLock()


def _first_free(size: int) -> int:
    """Return the first of so many numbers in a row that no worker of this process has."""
    first = 1
    for crew in sorted((crew for crew in _crews if not crew.ended), key=lambda crew: crew.first):
        if first + size <= crew.first:
            break
        first = crew.first + crew.size
    return first


def _end_crews() -> None:
    for crew in list(_crews):
        crew.end()


def _abandon_crews() -> None:
    """In a forked child: hold nothing of the caller's crews, whose workers must see the caller's death, not ours."""
    global _numbering
    _numbering = threading.RLock()
    for crew in list(_crews):
        crew.ended = True
        crew.close_files()
        _crews.discard(crew)


atexit.register(_end_crews)
os.register_at_fork(after_in_child=_abandon_crews)
