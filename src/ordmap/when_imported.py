"""What has to be done to a module as soon as that is imported, which may be never.

To import `multiprocessing` takes as long as to start a worker, and most workers never need it. A generator of random
numbers that an item is the first to import has to be set for that item.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec

__all__ = ["Finder", "when_imported"]

Act = Callable[[Any], object]


class Finder(ABC):
    """Among the interpreter's finders: lets the others find modules of these ``names``, and is told of each.

    What the others are is asked of those behind it. So where several are told of a module the last in the row is told
    first.
    """

    def __init__(self, names: Container[str]) -> None:
        self._names = names

    @abstractmethod
    def loaded(self, module: ModuleType) -> None:
        """Be told of a module, before its importer goes on."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self._names or self not in sys.meta_path:
            return None
        for finder in sys.meta_path[sys.meta_path.index(self) + 1 :]:
            spec = finder.find_spec(fullname, path, target) if hasattr(finder, "find_spec") else None
            if spec is not None:
                if spec.loader is not None:
                    loader: Any = _Loader(spec.loader, self)
                    spec.loader = loader
                return spec
        return None


class _Loader:
    """Loads a module as its own loader does, and then tells a finder."""

    def __init__(self, loader: Any, finder: Finder) -> None:
        self._loader = loader
        self._finder = finder

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        made: ModuleType | None = self._loader.create_module(spec)
        return made

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        self._finder.loaded(module)


class _Waiting(Finder):
    """Does what waits for modules, once."""

    def __init__(self) -> None:
        self.acts: dict[str, list[Act]] = {}
        super().__init__(self.acts)

    def loaded(self, module: ModuleType) -> None:
        for act in self.acts.pop(module.__name__, ()):
            act(module)


def when_imported(name: str, act: Act) -> None:
    """Call ``act`` with a module: now if it is imported, else as soon as it is, before its importer goes on."""
    module = sys.modules.get(name)
    if module is not None and not getattr(module.__spec__, "_initializing", False):
        act(module)
        return
    finder = next((finder for finder in sys.meta_path if isinstance(finder, _Waiting)), None)
    if finder is None:
        finder = _Waiting()
        sys.meta_path.insert(0, finder)
    finder.acts.setdefault(name, []).append(act)
