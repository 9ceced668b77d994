"""Which names of modules lead a fresh interpreter to the module that has them here.

Pickle writes a class or a function as the name of its module and its own. In another process that name may lead to
another module, or to none. The script's is ``__main__`` in every program, and ``__mp_main__`` in a child of
multiprocessing's. One that was made by hand, run by `runpy`, or loaded from a file under a name of one's own can't be
imported. All that asks whether something may travel by its name asks here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

from ordmap.interrupts import pass_on

__all__ = ["SCRIPT", "importable", "names_here", "strangers"]

#: The names that the script's module has: the program's own, and the one in children of multiprocessing's.
SCRIPT = frozenset({"__main__", "__mp_main__"})


class _Verdicts(dict[object, bool]):
    """Verdicts by name. A name is looked into when it is first asked for; a known one costs no Python code."""

    path: Sequence[object] = ()

    def __missing__(self, name: object) -> bool:
        if not isinstance(name, str):
            return True  # pickle finds out by itself where such a thing lives
        top = name.partition(".")[0]
        if name in sys.modules or name in SCRIPT or top in sys.stdlib_module_names:
            self[name] = verdict = _is_importable(name, top)
            return verdict
        # A part of a package that gets it on demand, or a namespace; a module that has this name may yet come.
        return top != name and self[top]


_verdicts = _Verdicts()


def importable() -> dict[object, bool]:
    """Return a dict that tells of each name of a module whether a fresh interpreter imports that very module by it."""
    if _verdicts.path != sys.path:
        _verdicts.clear()
        _verdicts.path = list(sys.path)
    return _verdicts


def names_here(kind: type) -> bool:
    """Whether the name of a class leads to it in this process."""
    module = sys.modules.get(kind.__module__)
    return module is not None and vars(module).get(kind.__qualname__) is kind


#: Modules that a fresh interpreter doesn't find by their names, and of how many, on which path, that was asked.
_strangers: tuple[int, list[object], tuple[str, ...]] = 0, [], ()


def strangers() -> tuple[str, ...]:
    """Return the names of modules here by which a fresh interpreter finds another module, or none."""
    global _strangers
    size, path, found = _strangers
    if size != len(sys.modules) or path != sys.path:
        verdicts = importable()
        found = tuple(
            name for name, module in list(sys.modules.items()) if _is_odd(name, module) and not verdicts[name]
        )
        _strangers = len(sys.modules), list(sys.path), found
    return found


def _is_odd(name: str, module: ModuleType) -> bool:
    """Whether it has to be looked into where a module is: nearly all belong to what is installed."""
    spec = getattr(module, "__spec__", None)
    origin = getattr(spec, "origin", None)
    installed = isinstance(origin, str) and "-packages" in origin and spec.name == name  # type: ignore[union-attr]
    return not installed and name.partition(".")[0] not in sys.stdlib_module_names


def _is_importable(name: str, top: str) -> bool:
    if name in SCRIPT or top in sys.stdlib_module_names:
        return name not in SCRIPT
    parent, _, last = name.rpartition(".")
    if parent and not _verdicts[parent]:
        return False
    module = sys.modules[name]
    spec = vars(module).get("__spec__") if isinstance(module, ModuleType) else None
    if parent and spec is None:
        return True  # its parent's code makes it
    where = getattr(sys.modules[parent], "__path__", ()) if parent else sys.path
    if spec is not None and spec.name == name and _lies_in(spec, last, where):
        return True
    # Made by hand, or in the place of itself; or found in a way of its own, such as that of an editable installation.
    found = _found(name, where if parent else None)
    return found is not None and (spec is None or (spec.name, spec.origin) == (found.name, found.origin))


def _lies_in(spec: ModuleSpec, last: str, where: Sequence[object]) -> bool:
    """Whether a module lies where one of this name is looked for; no file is asked."""
    if spec.origin is None or not spec.has_location:
        return spec.origin in {"built-in", "frozen"}
    folder, file = os.path.split(spec.origin)
    if spec.submodule_search_locations is not None:
        folder, file = os.path.split(folder)
    if file.partition(".")[0] != last:
        return False
    return folder in where or any(
        isinstance(entry, str) and folder == os.path.abspath(entry)  # noqa: PTH100  pathlib is heavy
        for entry in where
    )


def _found(name: str, where: Sequence[str] | None) -> ModuleSpec | None:
    """Return what the import system finds by a name, with no regard to what is imported already."""
    for finder in sys.meta_path:
        try:
            spec = finder.find_spec(name, where)
        except Exception as error:  # a finder of another maker's: the next may do better
            pass_on(error)
            continue
        if spec is not None:
            return spec
    return None
