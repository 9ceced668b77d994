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
from collections.abc import Mapping

__all__ = ["environment", "limit", "loaded"]

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

#: What sets their numbers. OpenBLAS has its functions under a name for each of its makers.
_SETTERS = (
    "omp_set_num_threads",
    "MKL_Set_Num_Threads",
    "bli_thread_set_num_threads",
    "openblas_set_num_threads",
    "openblas_set_num_threads64_",
    "scipy_openblas_set_num_threads",
    "scipy_openblas_set_num_threads64_",
)


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
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "set_num_threads"):  # it is imported, wholly
        torch.set_num_threads(threads)


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
