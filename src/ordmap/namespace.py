"""The script's namespace, where what the script defines comes by value: one for all that comes.

Each function that comes finds its globals there, be it a part of the initializer, a dataset, an input or a result. What
the script has under a name is put there when the caller tells of it first, and again when it is not what it was: by the
digests that come along. What a worker has set itself meanwhile stays.

What comes *back*, to the caller, changes nothing that there is.
"""

from __future__ import annotations

import builtins
import functools
import importlib
import sys
from collections.abc import Callable, Mapping
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

from ordmap import enums
from ordmap.marks import Whereabouts, found
from ordmap.names import SCRIPT

__all__ = [
    "INHERITED",
    "News",
    "Place",
    "bare",
    "begin_class",
    "cached",
    "complete_class",
    "complete_function",
    "complete_inherited",
    "function",
    "function_of_library",
    "generic_method",
    "inherited",
    "keep",
    "learn",
    "learn_from",
    "lie_in",
    "named",
    "names_of",
    "register",
    "remade",
    "source_of",
    "tracked",
]

#: In the place of a digest: the value is what it was when this process was forked.
INHERITED = b"inherited"

#: By the name of a module and a name there: the digest that the caller has told of last.
_told: dict[tuple[str, str], bytes] = {}

#: What stands here for modules that this process doesn't have.
_private: dict[str, ModuleType] = {}

#: Whether this process is a worker of ours: what its ``__main__`` has is the script's.
_keeps = False


def keep() -> None:
    """From now on have what the caller's script defines in ``__main__`` here, as it is there.

    Plain pickle finds it then when it comes back in results: a reference is far smaller and quicker than a value.
    """
    global _keeps
    _keeps = True


#: What has a worker learn what its caller has sent ahead, by number.
_teacher: Callable[[int], None] | None = None


def learn_from(teacher: Callable[[int], None]) -> None:
    """Have `learn` ask there."""
    global _teacher
    _teacher = teacher


def learn(number: int) -> None:
    """Have what the caller has sent ahead of an input, by which that is understood."""
    if _teacher is not None:
        _teacher(number)


class Place(NamedTuple):
    """Where something of the script's is: its module, and its name there (``None``: it has none that leads to it).

    ``digest``: that of the value; ``back``: it is on the way back to the caller.
    """

    module: str
    name: str | None
    digest: bytes | None
    back: bool

    def space(self) -> dict[str, Any]:
        """Return the namespace."""
        if self.module in SCRIPT:
            if _keeps or self.back:
                return _script()
        elif self.module in sys.modules:
            return vars(sys.modules[self.module])
        return vars(_stand_in(self.module))

    def is_known(self) -> bool:
        """Whether this process has what is meant already."""
        if self.name is None or self.name not in self.space():
            return False
        return self.back or self.digest == _told.get((self.module, self.name), INHERITED)

    def tell(self, value: Any) -> None:
        """Have the name lead to a value, unless it is known."""
        if self.name is None or self.is_known():
            return
        self.space()[self.name] = value
        _told[self.module, self.name] = self.digest or b""


def source_of(names: Mapping[str, Any]) -> str | None:
    """Return the module that a namespace here stands for; ``None``: it is a module's own."""
    return next((module for module, private in _private.items() if vars(private) is names), None)


def names_of(module: str, name: str, value: object) -> Mapping[str, Any]:
    """Return the namespace of a module where a name leads to a value: the module's own, or what stands for it here."""
    own: dict[str, Any] = getattr(sys.modules.get(module), "__dict__", {})
    return own if own.get(name) is value else getattr(_private.get(module), "__dict__", {})


def _stand_in(module: str) -> ModuleType:
    """Return what stands for a module that this process doesn't have."""
    known = _private.get(module)
    if known is None:
        known = _private[module] = ModuleType(module.partition(" ")[0])
        known.__dict__["__builtins__"] = builtins
    return known


def _script() -> dict[str, Any]:
    """Return the globals of what the script has defined, which in children of multiprocessing's the module copies."""
    space = vars(sys.modules["__main__"])
    for value in space.values():
        if type(value) is FunctionType and value.__module__ in SCRIPT:
            return value.__globals__ if value.__globals__.get("__name__") in SCRIPT else space
    return space


#: Globals that something needs: where each is, and its value.
News = list[tuple[Place, Any]]


def named(place: Place, build: Callable[..., Any], *arguments: Any) -> Any:
    """Return what is at a place, or else build it."""
    if place.is_known():
        return place.space()[str(place.name)]
    built = build(*arguments)
    place.tell(built)
    return built


def inherited(place: Place) -> Any:
    """Return what is at a place, which this process has inherited; what a class has is where that is."""
    name, *inner = str(place.name).split(".")
    return functools.reduce(getattr, inner, place.space()[name])


def cached(function: Any, settings: dict[str, Any]) -> Any:
    """Return a function with a cache of its own."""
    return functools.lru_cache(**settings)(function)


def register(generic: Any, functions: list[tuple[type, Any]]) -> None:
    """Give a generic function what it calls for each class."""
    for kind, one in functions:
        generic.register(kind, one)


def generic_method(dispatcher: Any, function: Any) -> Any:
    """Return a method that goes by the class of its argument."""
    made: Any = functools.singledispatchmethod(function)
    made.dispatcher = dispatcher
    return made


def lie_in(variable: Any, module: str) -> None:
    """Have what stands for types be of a module, as it is of that which calls."""
    variable.__module__ = module


def alias(module: str, name: str, parameters: tuple[Any, ...], meant: list[object]) -> Any:
    """Return what a ``type`` statement makes in a module: what it stands for is looked up in the list, when asked for.

    With parameters, which have to be these very ones, it is there already.
    """
    space = {"__name__": module, "_ordmap_meant": meant, "_ordmap_parameters": parameters}
    generic = (
        "from typing import TypeAliasType as _ordmap_type\n"
        f"{name} = _ordmap_type({name!r}, _ordmap_meant[0], type_params=_ordmap_parameters)"
    )
    exec(generic if parameters else f"type {name} = _ordmap_meant[0]", space)  # noqa: S102  a newer Python's statement
    return space[name]


def complete_alias(_: Any, state: tuple[list[object], list[object]]) -> None:
    """Have an alias stand for what it is to."""
    meant, value = state
    meant[:] = value


def remade(kind: Any, state: dict[str, Any]) -> Any:
    """Return an object that pickle would only name."""
    made: Any = kind.__new__(kind)
    vars(made).update(state)
    return made


def tracked(mark: str, build: Callable[..., Any], *arguments: Any) -> Any:
    """Return what is known by a mark, or else build it."""
    from cloudpickle import cloudpickle

    return cloudpickle._lookup_class_or_track(mark, build(*arguments))


def function_of_library(module: str, code: Any, cells: Any) -> Any:
    """Return a function, without all that it has, whose globals are those of a module that is installed."""
    return FunctionType(code, vars(importlib.import_module(module)), code.co_name, None, cells)


def function(place: Place, code: Any, cells: Any) -> Any:
    """Return a function, without all that it has, or the one that is known."""
    space = place.space()
    if place.is_known() and type(space[str(place.name)]) is FunctionType:
        return space[str(place.name)]
    return FunctionType(code, space, code.co_name, None, cells)


def complete_function(made: FunctionType, state: tuple[Place, News, dict[str, Any], dict[str, Any]]) -> None:
    """Give a function all that it has, and have its globals be what its caller has."""
    place, news, attributes, slots = state
    if not place.is_known() or made.__globals__.get(str(place.name)) is not made:
        vars(made).update(attributes)
        for cell, value in zip(made.__closure__ or (), slots.pop("__closure__") or (), strict=True):
            _fill(cell, value)
        for name, value in slots.items():
            setattr(made, name, value)
        place.tell(made)
    tell(news)


def _fill(cell: Any, source: Any) -> None:
    try:
        cell.cell_contents = source.cell_contents
    except ValueError:  # it is empty
        return


def tell(news: News) -> None:
    """Have globals be what the caller has."""
    for place, value in news:
        place.tell(value)


def complete_inherited(_: Any, news: News) -> None:
    """Have the globals that an inherited class needs be what the caller has."""
    tell(news)


def bare(metaclass: type, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> type:
    """Return a class without all that it has, past its metaclass's own way to make one."""
    return type.__new__(metaclass, name, bases, body)


#: Classes by value that were begun, and have not all that they have.
_begun: set[str] = set()


def begin_class(mark: str, where: Whereabouts | None, build: Callable[..., type], *arguments: Any) -> type:
    """Return the class that is known by a mark, or by where it is; or else build one without all that it has."""
    from cloudpickle import cloudpickle  # heavy; who calls this has it

    known: type | None = cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID.get(mark) or found(where)
    if known is not None:
        cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID[mark] = known
        return known
    _begun.add(mark)
    return build(*arguments)


def complete_class(
    kind: Any, state: tuple[str, Place, dict[str, Any], dict[str, bytes | None], enums.State | None]
) -> None:
    """Give a class what its caller has told of it, but for what it knows already; see `Place`."""
    from cloudpickle import cloudpickle

    mark, place, attributes, digests, members = state
    if mark in _begun:
        if members is not None:
            enums.complete(kind, members)
    else:
        if place.back:
            return
        attributes = {
            name: value
            for name, value in attributes.items()
            if name not in vars(kind) or digests[name] is None or _told.get((mark, name)) != digests[name]
        }
    _begun.discard(mark)
    cloudpickle._class_setstate(kind, (attributes, {}))
    _told.update({(mark, name): digest for name, digest in digests.items() if digest is not None and not place.back})
    own: str = kind.__qualname__
    if place.name is None and not place.back and place.space().get(own) is kind:
        # The caller has another thing under its name by now: a result that names it would come back as that.
        del place.space()[own]
        _told.pop((place.module, own), None)
    if _keeps and place.name is not None and not place.back:
        # Plain pickle looks there for what comes back in results.
        sys.modules.setdefault(
            place.module, sys.modules["__main__"] if place.module in SCRIPT else _stand_in(place.module)
        )
        place.tell(kind)
