"""The process group that each worker leads: what its items have launched, told to end, and reaped where that is due.

A number is not enough to signal a group: once its leader is reaped, and all its members are gone, the system gives the
number to others. A pidfd holds on to the group itself. Linux knows that since 6.9; before, the group is signalled by
its number while the leader isn't reaped, and after that each member by a pidfd of its own.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING

from ordmap import real_time as time
from ordmap.engine import kernel
from ordmap.resources import read_text

if TYPE_CHECKING:
    from ordmap.engine.staff import Worker

__all__ = ["note_end", "reap_group", "reap_orphans", "signal_group"]

#: To ``pidfd_send_signal``: the whole group that this process leads, or led.
_PROCESS_GROUP = 1 << 2

#: What it says where it doesn't know that.
_UNKNOWN = frozenset({errno.EINVAL, errno.ENOSYS})

#: Seconds that the end of orphans which were killed is waited for, and between two looks.
_PATIENCE, _GLANCE = 1.0, 0.001


def signal_group(worker: Worker, number: int) -> None:
    """Signal a worker and what its items have launched, as far as it is there, and no other process."""
    try:
        kernel.pidfd_send_signal(worker.pidfd, number, None, _PROCESS_GROUP)
    except (ProcessLookupError, PermissionError):
        return
    except OSError as error:
        if error.errno not in _UNKNOWN:
            raise
        _signal_by_number(worker, number)


def _signal_by_number(worker: Worker, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        try:
            kernel.pidfd_send_signal(worker.pidfd, 0)
        except ProcessLookupError:
            _signal_members(worker.pid, number)
        else:
            os.killpg(worker.pid, number)


def _signal_members(group: int, number: int) -> None:
    """Signal the members of a group whose leader is reaped, until there are no new ones."""
    told: set[int] = set()
    while True:
        processes = {int(name) for name in os.listdir("/proc") if name.isdigit()}  # noqa: PTH208  pathlib is heavy
        members = {pid for pid in processes - told if _group_of(pid) == group}
        # While there are members the number can't be a new process's: one that has it leads a group of its own.
        if not members or group in processes:
            return
        told |= members
        for pid in members:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                file = kernel.pidfd_open(pid)
                try:
                    if _group_of(pid) == group:  # it was not another's number when the pidfd was opened
                        kernel.pidfd_send_signal(file, number)
                finally:
                    os.close(file)


def _group_of(pid: int) -> int | None:
    """Return the group of a process; ``None``: it is gone."""
    try:
        stat = read_text(f"/proc/{pid}/stat")
    except OSError:
        return None
    return int(stat.rpartition(")")[2].split()[2])


def reap_orphans(worker: Worker) -> None:
    """Reap those of a worker's group that have ended and are the caller's own children by now; the worker lives.

    Such it has where it is a container's first process, or a subreaper: each whose own parent has ended.
    """
    with contextlib.suppress(ChildProcessError):  # the worker has been reaped by the caller
        while (ended := os.waitid(os.P_PGID, worker.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
            if ended.si_pid == worker.pid:
                return  # its number has to be its own until all is reaped
            os.waitid(os.P_PID, ended.si_pid, os.WEXITED | os.WNOHANG)


def reap_group(worker: Worker) -> None:
    """Reap a worker that is dead and not reaped, and those of its killed group that are the caller's own children."""
    give_up = time.monotonic() + _PATIENCE
    with contextlib.suppress(ChildProcessError):  # there are no more
        while True:
            ended = os.waitid(os.P_PGID, worker.pid, os.WEXITED | os.WNOHANG)
            if ended is not None and ended.si_pid == worker.pid:
                note_end(worker, ended)
            elif ended is None:
                if time.monotonic() > give_up:  # the kernel itself is stuck in a system call
                    return
                time.sleep(_GLANCE)


def note_end(worker: Worker, ended: os.waitid_result) -> None:
    """Note how a worker has ended that was reaped."""
    worker.reaped = True
    worker.code = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
