"""What this process may use of the machine: what a container or a batch system allows, not what the machine has."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator

__all__ = ["free_memory", "read_text", "usable_cores"]


def read_text(path: str) -> str:
    """Return the content of one of the system's small files: some are read each time that workers are started."""
    with io.FileIO(path) as file:  # in a third of the time that a file of text takes
        return file.readall().decode("utf-8", "surrogateescape")


def usable_cores() -> int:
    """Return the number of cores that this process may use, at least 1, cut by its cgroup's quota.

    ``-X cpu_count`` and ``PYTHON_CPU_COUNT`` come before its affinity, as for `os.process_cpu_count`.
    """
    count: Callable[[], int | None] = getattr(os, "process_cpu_count", _count_cores)
    affinity = count() or 1
    quotas = (_quota(group) for group in _control_groups("cpu"))
    return max(1, min([affinity, *(int(quota) for quota in quotas if quota is not None)]))


def _count_cores() -> int:
    """Return what `os.process_cpu_count` of Python 3.13 would: a number that it takes no notice of is none here."""
    told = sys._xoptions.get("cpu_count")
    if told is None and not sys.flags.ignore_environment:
        told = os.environ.get("PYTHON_CPU_COUNT")
    if isinstance(told, str) and told.isdecimal() and int(told):
        return int(told)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_memory() -> int:
    """Return about how many bytes can still be had: the machine's free memory, cut by its cgroup's limit (Linux)."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError, StopIteration, ValueError):
        free = 1024 * int(_entry("/proc/meminfo", "MemAvailable:"))
    lefts = (_memory_left(group) for group in _control_groups("memory"))
    return max(0, min([free, *(left for left in lefts if left is not None)]))


def _control_groups(controller: str) -> Iterator[str]:
    """Yield the folder of this process's control group, and of each above it, which may limit it, too (Linux)."""
    try:
        lines = read_text("/proc/self/cgroup").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":  # cgroup v2
            root = "/sys/fs/cgroup"
        elif controller in controllers.split(","):
            root = f"/sys/fs/cgroup/{controller}"
        else:
            continue
        group = f"{root}/{path.strip('/')}".rstrip("/")
        while True:
            yield group
            if group == root:
                break
            group = group.rpartition("/")[0]


def _quota(group: str) -> float | None:
    """Return a group's limit in cores."""
    for files in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        try:
            quota, period = " ".join(read_text(f"{group}/{name}") for name in files).split()
        except (OSError, ValueError):
            continue
        if quota not in {"max", "-1"}:
            return max(1.0, int(quota) / int(period))
    return None


def _memory_left(group: str) -> int | None:
    """Return the bytes that a group may still have, with those of files that it would be given for new ones."""
    for limit, used, cached in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        try:
            left = int(read_text(f"{group}/{limit}")) - int(read_text(f"{group}/{used}"))
            return left + int(_entry(f"{group}/memory.stat", cached))
        except (OSError, StopIteration, ValueError):  # there is none
            continue
    return None


def _entry(path: str, name: str) -> str:
    """Return the number that stands behind a name in a file of such lines."""
    return next(line.split()[1] for line in read_text(path).splitlines() if line.split()[0] == name)
