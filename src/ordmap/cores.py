"""How many cores this process may use: what a container or a batch system allows, not what the machine has."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["usable_cores"]


def usable_cores() -> int:
    """Return the number of cores that this process may use, at least 1: its affinity, cut by its cgroup's quota."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([affinity, *(int(quota) for quota in _quotas())]))


def _quotas() -> Iterator[float]:
    """Yield each limit in cores that a control group, or one above it, sets on this process (Linux)."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":  # cgroup v2
            root = Path("/sys/fs/cgroup")
        elif "cpu" in controllers.split(","):
            root = Path("/sys/fs/cgroup/cpu")
        else:
            continue
        group = root / path.lstrip("/")
        for folder in (group, *group.parents):
            quota = _quota(folder)
            if quota is not None:
                yield quota
            if folder == root:
                break


def _quota(group: Path) -> float | None:
    for files in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        try:
            quota, period = " ".join((group / name).read_text(encoding="ascii") for name in files).split()
        except (OSError, ValueError):
            continue
        if quota not in {"max", "-1"}:
            return max(1.0, int(quota) / int(period))
    return None
