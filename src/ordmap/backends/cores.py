"""How many threads the numerical libraries of a worker process use: the workers share the cores already.

What is loaded now is told by its own C call. What an item loads later reads the environment, where a number of the
user's stays as it is. Programs that an item runs have that environment, too, and so the same bound.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import sys
import threading
from collections.abc import Iterator, Mapping

__all__ = ["environment", "limit", "limited_for_forks", "loaded"]

#: What the runtimes read when they are loaded.
_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)

#: A library that may be one of them, as a line of ``/proc/self/maps`` ends. Wheels bring their own, under longer names.
_RUNTIME = re.compile(rb" (/[^\n]*/lib[^\n/]*(?:blas|blis|mkl_rt|omp)[^\n/]*\.so[^\n/]*)\n")

#: What sets their numbers.
_SETTERS = ("omp_set_num_threads", "MKL_Set_Num_Threads", "bli_thread_set_num_threads")

#: OpenBLAS has its functions under a name for each of its makers, and shows its own number, or doesn't. To call it in a
#: fork has its threads start again, to be idle, which takes longer than all else that a worker begins with. So a lesser
#: number is set directly. Not a greater one: it would wait for ever for threads that it doesn't have.
_OPENBLAS = tuple(
    (f"{maker}openblas_set_num_threads{size}", f"{maker}openblas_get_num_threads{size}")
    for maker in ("", "scipy_")
    for size in ("", "64_")
)
_OPENBLAS_NUMBER = "blas_cpu_number"


def environment(threads: int | None) -> Mapping[str, str]:
    """Return the environment of this process, for one whose libraries use so many threads; ``None``: as they like."""
    given = {} if threads is None else dict.fromkeys(_VARIABLES, str(threads))
    return given | os.environ


def limit(threads: int | None) -> None:
    """Have the libraries of this process, loaded or not, use so many threads; ``None``: as they like."""
    if threads is None:
        return
    for variable in _VARIABLES:
        os.environ.setdefault(variable, str(threads))
    for library in loaded():
        for name in _SETTERS:
            if hasattr(library, name):
                getattr(library, name)(threads)
        _limit_openblas(library, threads)
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "set_num_threads"):  # it is imported, wholly
        torch.set_num_threads(threads)


def _limit_openblas(library: ctypes.CDLL, threads: int) -> None:
    if hasattr(library, _OPENBLAS_NUMBER):
        number = ctypes.c_int.in_dll(library, _OPENBLAS_NUMBER)
        if threads <= number.value:
            number.value = threads
            return
    for setter, getter in _OPENBLAS:
        if hasattr(library, setter) and getattr(library, getter)() != threads:
            getattr(library, setter)(threads)


@contextlib.contextmanager
def limited_for_forks(threads: int | None) -> Iterator[None]:
    """Have what is forked in here begin with so many threads of OpenBLAS's, where Python has one thread here.

    Here the call costs next to nothing, and no other thread could compute meanwhile.
    """
    changed = []
    if threads is not None and threading.active_count() == 1:
        for library in loaded():
            if not hasattr(library, _OPENBLAS_NUMBER):
                changed += [(library, names) for names in _OPENBLAS if hasattr(library, names[0])]
    before = [getattr(library, getter)() for library, (_, getter) in changed]
    try:
        for library, (setter, _) in changed:
            getattr(library, setter)(threads)
        yield
    finally:
        for (library, (setter, _)), number in zip(changed, before, strict=True):
            getattr(library, setter)(number)


#: The runtimes that were found last, and how many modules were imported then.
_found: tuple[int, list[ctypes.CDLL]] = (-1, [])


def loaded() -> list[ctypes.CDLL]:
    """Return the runtimes that are loaded, as far as they can be found here.

    To look takes 0.1 to 2 ms. So that is done anew where modules were imported since; a fork has what its caller found.
    """
    global _found
    modules = len(sys.modules)
    if _found[0] != modules:
        _found = modules, _mapped()
    return _found[1]


def _mapped() -> list[ctypes.CDLL]:
    try:
        with open("/proc/self/maps", "rb") as file:  # noqa: PTH123  each worker's start counts
            paths = set(_RUNTIME.findall(file.read()))
    except OSError:
        return []  # not Linux, or there is no descriptor left
    found = []
    for path in sorted(paths):
        with contextlib.suppress(OSError):  # its file was deleted or replaced since it was loaded
            found.append(ctypes.CDLL(os.fsdecode(path), mode=os.RTLD_NOLOAD | os.RTLD_NOW))
    return found
