"""How many cores this process may use: what a container or a batch system allows, not what the machine has."""

from __future__ import annotations

import os
from collections.abc import Iterator

__all__ = ["read_text", "usable_cores"]


def read_text(path: str) -> str:
    """Return the content of one of the system's small files, without the cost of importing ``pathlib``."""
    with open(path, encoding="utf-8", errors="surrogateescape") as file:  # noqa: PTH123
        return file.read()


def usable_cores() -> int:
    """Return the number of cores that this process may use, at least 1: its affinity, cut by its cgroup's quota."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([affinity, *(int(quota) for quota in _quotas())]))


def _quotas() -> Iterator[float]:
    """Yield each limit in cores that a control group, or one above it, sets on this process (Linux)."""
    try:
        lines = read_text("/proc/self/cgroup").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":  # cgroup v2
            root = "/sys/fs/cgroup"
        elif "cpu" in controllers.split(","):
            root = "/sys/fs/cgroup/cpu"
        else:
            continue
        group = f"{root}/{path.strip('/')}".rstrip("/")
        while True:
            quota = _quota(group)
            if quota is not None:
                yield quota
            if group == root:
                break
            group = group.rpartition("/")[0]


def _quota(group: str) -> float | None:
    for files in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        try:
            quota, period = " ".join(read_text(f"{group}/{name}") for name in files).split()
        except (OSError, ValueError):
            continue
        if quota not in {"max", "-1"}:
            return max(1.0, int(quota) / int(period))
    return None
