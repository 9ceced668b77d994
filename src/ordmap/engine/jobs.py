"""The jobs of a crew's runs, and how they reach its workers: inherited by a fork, or as parcels."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

from ordmap.backends import Job
from ordmap.context import variables
from ordmap.engine.board import Board
from ordmap.engine.child import Introduction
from ordmap.engine.message import FORGET, JOB, NOTICE, RENEW
from ordmap.engine.parcel import Parcel
from ordmap.engine.staff import Staff, Worker
from ordmap.engine.worker import Held, Sent
from ordmap.vocabulary import Vocabulary

__all__ = ["Jobs", "parcel_of"]


class Jobs:
    """What the runs of a crew compute, by number. One may be kept beyond its run, for others of the same.

    ``held`` is what a worker inherits that is forked now, and ``newest`` the last number given.
    """

    def __init__(self, staff: Staff, board: Board) -> None:
        self.held: dict[int, Held] = {}
        self.newest = 0
        self._staff = staff
        self._board = board
        self._parcels: dict[int, Parcel] = {}
        self._kept: tuple[Job, int] | None = None

    def add(self, job: Job, parcel: Parcel | None) -> int:
        """Give a job its number; with a parcel, send it to the workers that there are."""
        self.newest += 1
        self.held[self.newest] = Held.of(job)
        if parcel is not None:
            self._send_all(parcel)
        return self.newest

    def teach(self, parcel: Parcel) -> int:
        """Send all workers what inputs are about to name; return its number, which no job has."""
        self.newest += 1
        self._send_all(parcel)
        return self.newest

    def _send_all(self, parcel: Parcel) -> None:
        self._parcels[self.newest] = parcel
        for worker in self._staff:
            _send(worker, self.newest, parcel)
        self._board.post_bulletin()

    def keep(self, job: Job, number: int) -> int | None:
        """Keep a job; return the number of the one that was kept until now."""
        forgotten, self._kept = self._kept, (job, number)
        return forgotten[1] if forgotten is not None else None

    def drop_kept(self, number: int) -> None:
        """Keep a job no longer than its runs, if it is the one that is kept: a worker could not have it."""
        if self._kept is not None and self._kept[1] == number:
            self._kept = None

    def kept(self, job: Job) -> int | None:
        """Return the number of a job if it is the one that is kept."""
        if self._kept is None or job.changed:
            return None
        known, number = self._kept
        same = known.subject is job.subject and type(known.compute) is type(job.compute)
        alike = (known.patience, known.limit, known.seed) == (job.patience, job.limit, job.seed)
        return number if same and alike else None

    def as_kept(self, job: Job, number: int) -> bool:
        """Whether a run of the job that is kept can be had by its number: no item of either sees anything else."""
        return not variables(job.context) and not variables(self.held[number].context)

    def forget(self, number: int) -> None:
        """Have the workers let go of a job that no run needs any more, or of what its items have set if it is kept."""
        if self._kept is not None and self._kept[1] == number:
            self._tell(RENEW, number)
            return
        self.held.pop(number, None)
        parcel = self._parcels.pop(number, None)
        if parcel is not None:
            parcel.close()
        self._tell(FORGET, number)

    def _tell(self, kind: int, number: int) -> None:
        for worker in self._staff:
            worker.notices.put(NOTICE.pack(kind, number))
        self._board.post_bulletin()

    def brief(self, worker: Worker) -> None:
        """Send a new worker, which inherits nothing, all jobs that there are."""
        for number, parcel in self._parcels.items():
            _send(worker, number, parcel)
        if self.newest not in self._parcels:
            worker.notices.put(NOTICE.pack(FORGET, self.newest))  # there is none to wait for

    def close(self) -> None:
        """Let go of the parcels; a worker that has one keeps it."""
        for parcel in self._parcels.values():
            parcel.close()
        self._parcels.clear()


def _send(worker: Worker, number: int, parcel: Parcel) -> None:
    worker.notices.put_copy(NOTICE.pack(JOB, number), parcel.file)


def parcel_of(
    job: Job, inherited: Sequence[ContextVar[Any]], known: int | None = None, vocabulary: Vocabulary | None = None
) -> Parcel:
    """Return a job as it travels to workers that have inherited these variables and names; see `Sent.of`."""
    return Parcel((Introduction(), Sent.of(job, inherited, known)), vocabulary)
