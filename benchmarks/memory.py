"""What a tree of processes holds, as the Linux kernel tells it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def tree(root: int) -> list[int]:
    """Return the ids of a process and of all that descend from it."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                stat = Path("/proc", entry, "stat").read_text(errors="replace")
                state, parent = stat.rpartition(")")[2].split()[:2]
                if state != "Z":
                    children.setdefault(int(parent), []).append(int(entry))
    found = [root]
    for process in found:
        found += children.get(process, [])
    return found


def pss(root: int, kind: str = "Pss") -> int:
    """Return the bytes that a process and its descendants hold; what several share is counted once.

    ``kind``: a name in ``smaps_rollup``, such as ``"Pss_Shmem"``, the shared memory that is mapped.
    """
    total = 0
    for process in tree(root):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
                if line.startswith(f"{kind}:"):
                    total += 1024 * int(line.split()[1])
    return total


def descriptors() -> int:
    """Return the number of this process's open files."""
    return len(os.listdir("/proc/self/fd")) - 1


def mappings() -> int:
    """Return the number of this process's memory mappings."""
    with open("/proc/self/maps", "rb") as lines:
        return sum(1 for _ in lines)


def session(leader: int) -> set[int]:
    """Return the living processes of the session that a process led."""
    found = set()
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                fields = Path("/proc", entry, "stat").read_text(errors="replace").rpartition(")")[2].split()
                if fields[0] != "Z" and int(fields[3]) == leader:
                    found.add(int(entry))
    return found


def is_alive(process: int) -> bool:
    """Whether a process is there and has not ended."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text(errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def runs(process: int, program: str) -> bool:
    """Whether a process's command line names a program."""
    with contextlib.suppress(OSError):
        return program.encode() in Path(f"/proc/{process}/cmdline").read_bytes()
    return False


def shared() -> int:
    """Return the bytes of shared memory in the whole system, mapped or not: files in ``/dev/shm``, memfds, mappings."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("Shmem:"):
            return 1024 * int(line.split()[1])
    return 0
