"""A frozen application (PyInstaller, cx_Freeze, Nuitka), which is its own interpreter.

What multiprocessing starts of it, our workers too, is the application itself, told by its arguments to be a child. It
would begin as the application, and start others, unless it has called ``freeze_support()``, which on POSIX does nothing
by itself. So the first import of ordmap does what that is for.
"""

from __future__ import annotations

import sys

__all__ = ["become_child"]


def become_child() -> None:
    """Be the child that this process was started to be, if it was, to its end.

    That may also be a helper of multiprocessing's, which PyInstaller knows. A worker imports anew, when it needs them,
    the modules whose import is under way: they have not defined all that they define. ordmap is the last of them, and
    is complete.
    """
    from multiprocessing import spawn

    if spawn.is_forking(sys.argv):
        _leave_imports()
    spawn.freeze_support()


def _leave_imports() -> None:
    for name, module in list(sys.modules.items()):
        spec = getattr(module, "__spec__", None)
        if getattr(spec, "_initializing", False):
            if name == "ordmap":
                spec._initializing = False  # type: ignore[union-attr]  # other threads would wait for its import
            else:
                del sys.modules[name]


def _imported_by_name() -> None:
    """Tell those who freeze applications, and follow what is imported, of modules that are imported by a name."""
    import ordmap.backends.asyncio
    import ordmap.backends.executor
    import ordmap.backends.processes
    import ordmap.backends.serial
    import ordmap.backends.threads
    import ordmap.engine.spawn
    import ordmap.parallel  # noqa: F401
