"""Workers by fork: each begins as a copy of the caller, with all that it holds."""

from __future__ import annotations

# What `signal` wraps: that makes an enum of each of 64 numbers, which takes a quarter of a millisecond.
import _signal  # type: ignore[import-not-found]
import contextlib
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ordmap import marks, namespace
from ordmap.backends import Job, cores, streams
from ordmap.backends.pool import Life
from ordmap.backends.sharing import Shared
from ordmap.engine import channel, kernel
from ordmap.engine.bystanders import Bystanders
from ordmap.engine.child import Parent, become_child
from ordmap.engine.disown import disown
from ordmap.engine.inherited import Estate
from ordmap.engine.last_words import LastWords
from ordmap.engine.memory import Weak, streams_taken
from ordmap.engine.openmp import Teams
from ordmap.engine.staff import Started, Worker
from ordmap.engine.terminal import let_go_of_terminal
from ordmap.engine.trackers import outlive_workers, tracker_kept
from ordmap.engine.worker import Held, Seat, leashed, work
from ordmap.errors import BackendUnavailableError
from ordmap.generators import begin_in_fork
from ordmap.imports import refuse_workers_in_imports
from ordmap.shielded import give_way, hearing, noted
from ordmap.signalled import handled, leave_to_caller, take_own
from ordmap.unwarned import fork

if TYPE_CHECKING:
    from ordmap.engine.pool import Crew

__all__ = ["Fork"]


#: Milliseconds that workers have at most to let go of what is the caller's: one may have been stopped.
_SETTLED = 1000

#: Both ends of the channels by which pools wait for that, also in other threads.
_gates: Weak[socket.socket] = Weak()


class _Survey(NamedTuple):
    """What a fork is about to share with its caller: what items begin from, what is open, and what is to be renewed."""

    roots: Sequence[object]
    estate: Estate
    renewals: Sequence[Callable[[], object]]


class _Legacy(NamedTuple):
    """What a worker has to see to since it is a copy of its caller, which has prepared all this before the fork.

    ``ends`` of channels that are the caller's; ``place``: which child of the caller's it is; ``tracker``: a descriptor
    of the caller's resource tracker; ``teams`` and ``others`` are threads that it lacks, and ``shared`` says whether
    the caller had any beside its own.
    """

    ends: Sequence[socket.socket]
    place: int
    tracker: int | None
    teams: Teams
    others: Bystanders
    survey: _Survey
    shared: bool


class Fork:
    """Starts workers by ``os.fork``."""

    inherits = True

    def __init__(self, life: Life) -> None:
        refuse_workers_in_imports()
        self.life = life
        self._teams = Teams()
        self._others = Bystanders()
        self.beside = str(self._others)
        self._surveyed: _Survey | None = None

    def __call__(self, crew: Crew, number: int, started: Started, *, recorded: bool) -> Worker:
        with (
            channel.to_worker(started.opened) as (ours, theirs, file),
            channel.copied(crew.taking) as tasks,
            channel.copied(crew.offers) as offers,
        ):
            own_results, own_leash = theirs
            last_words = LastWords(file)
            seat = Seat(
                number,
                crew.size,
                crew.board,
                tasks,
                offers,
                own_results,
                own_leash,
                last_words,
                crew.jobs.held,
                crew.jobs.newest,
                crew.allowance,
                self.life,
                crew.variables,
            )
            shared = threading.active_count() > 1
            survey = self._surveyed or self._survey(seat.jobs.values())
            self._teams.let_go()
            self._others.settle([*survey.roots, sys.stdout, sys.stderr])
            with tracker_kept() as tracker, cores.limited_for_forks(self.life.threads):
                legacy = _Legacy(ours, crew.first + number, tracker, self._teams, self._others, survey, shared)
                marks.begin_fork()
                _fork_worker(seat, legacy, started.pids, recorded=recorded)
            if self._surveyed is None:  # in the place of another
                marks.note_classes()
            pid = started.pids[0]
            with contextlib.suppress(OSError):  # the child does the same; whoever comes first
                os.setpgid(pid, pid)
            noted(started.opened, kernel.pidfd_open, pid)
            return Worker(number, pid, started.opened[-1], *ours, last_words, crew.board, recorded=recorded)

    @contextlib.contextmanager
    def settled(self, jobs: Sequence[Job]) -> Iterator[None]:
        """Warn of what workers with these jobs can't share, and have those that are started in here let go of the rest.

        At the end it is waited for that they hold open nothing that is the caller's alone. Else a lock or a port that
        it gives up right after the first item would seem taken.
        """
        surveyed = self._survey(jobs, warn=True)
        try:
            with streams_taken():
                here, there = ends = channel.pair()
        except OSError as error:
            raise BackendUnavailableError(f"no pool of workers can be made: {error}") from error
        for end in ends:
            _gates.add(end)
        self._surveyed = surveyed
        try:
            with there:
                yield
            marks.note_classes()
            gone = select.poll()
            gone.register(here, 0)  # told when no worker has the other end, having closed it or died
            gone.poll(_SETTLED)
        finally:
            self._surveyed = None  # by then the caller may have opened more
            here.close()

    def _survey(self, jobs: Iterable[Job | Held], *, warn: bool = False) -> _Survey:
        roots = [*(job.compute for job in jobs), self.life.initializer, *self.life.initargs, self.life.finalizer]
        shared = Shared(roots)
        if warn:
            shared.warn()
        return _Survey(roots, Estate(roots), shared.renewals)

    def close(self) -> None:
        """Do nothing: a fork needs nothing beforehand."""


def _fork_worker(seat: Seat, legacy: _Legacy, pids: list[int], *, recorded: bool) -> None:
    """Fork a worker, with all text printed that has been written so far; its number is put into ``pids``."""
    caller = os.getpid()
    streams.flush()
    has_logs_locked = _logs_locked() is not None
    give_way()
    try:
        hearing(fork, pids)
        if not pids[0]:
            _be_worker(seat, legacy, recorded=recorded)
    except BaseException:
        if os.getpid() != caller:
            os._exit(1)  # what another thread of the caller's raises in this one is no business of the fork's
        raise
    finally:
        if not has_logs_locked and (lock := _logs_locked()):
            lock.release()


def _logs_locked() -> Any:
    """Return the lock of `logging`, before Python 3.13, if this thread has it.

    An exception of another thread's that comes in one of its functions that Python calls around a fork is ignored, and
    leaves the lock held for ever.
    """
    lock = getattr(sys.modules.get("logging"), "_lock", None)
    return lock if lock is not None and lock._is_owned() else None


def _be_worker(seat: Seat, legacy: _Legacy, *, recorded: bool) -> None:
    """Turn this copy of the caller into a worker; does not return."""
    try:
        legacy.teams.begin_in_fork()
        legacy.others.begin_in_fork()
        legacy.survey.estate.settle(keep=legacy.tracker)
        for end in (*legacy.ends, *_gates):
            end.close()
        os.setpgid(0, 0)
        leashed(seat.leash)
        let_go_of_terminal()
        if recorded:
            seat.last_words.record_from_now_on()
        seat.last_words.tell_of_crashes()
        signal.set_wakeup_fd(-1)
        take_own()
        leave_to_caller(handled())
        _signal.pthread_sigmask(signal.SIG_SETMASK, ())  # they waited for the caller's sake, see `Crew`
        disown()
        become_child(legacy.place, Parent.here()._replace(pid=os.getppid()), seat.leash.fileno())
        outlive_workers(seat.leash.fileno(), legacy.tracker)
        util = sys.modules.get("multiprocessing.util")
        if hasattr(util, "_run_after_forkers"):
            util._run_after_forkers()  # type: ignore[union-attr]
        streams.let_go_of_stdin()
        streams.begin(inherited=True)
        begin_in_fork(shared=legacy.shared)
        namespace.keep()
        marks.begin_in_fork()
        for renew in legacy.survey.renewals:
            with contextlib.suppress(Exception):  # a library's; the item will meet what is wrong
                renew()
    except BaseException:
        sys.excepthook(*sys.exc_info())  # among its last words, where they are kept
        os._exit(1)
    work(seat)
