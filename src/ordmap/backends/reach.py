"""What an item may use: the objects that its dataset or function leads to, a few steps far.

A step goes to an attribute, an element, a closure's variable, or a global that the code names. No code of the user's
is run for it: an object may open something when it is asked, or be a stand-in that fails. So its class alone is asked.
Code of the standard library and of what is installed is not followed: it leads everywhere.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import opcode
import os
import sys
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ordmap.interrupts import pass_on

__all__ = ["Reached", "file_of", "reached"]

#: Attributes of an object that are looked at.
_MOST = 128

#: Numbers in a container that may be descriptors, as ``os.pipe()`` gives them.
_PAIR = 2

#: What leads nowhere, by address: a class may have no hash, or be equal to another.
_LEAVES = frozenset(
    id(kind)
    for kind in {
        int,
        float,
        complex,
        bool,
        str,
        bytes,
        bytearray,
        memoryview,
        range,
        slice,
        object,
        property,
        type(None),
    }
    | {types.BuiltinFunctionType, types.ModuleType, types.CodeType, type(Ellipsis), type(NotImplemented)}
)

#: What a class has beside its items' state.
_NOT_STATE = _LEAVES | set(map(id, (types.FunctionType, types.WrapperDescriptorType, types.MethodDescriptorType)))

#: Containers, and how their elements are had.
_CONTAINERS: tuple[tuple[type, Callable[[Any], Iterable[tuple[object, object]]]], ...] = (
    (dict, dict.items),
    (list, lambda these: enumerate(list.__iter__(these))),
    (tuple, lambda these: enumerate(tuple.__iter__(these))),
    (set, lambda these: enumerate(set.__iter__(these))),
    (frozenset, lambda these: enumerate(frozenset.__iter__(these))),
    (deque, lambda these: enumerate(deque.__iter__(these))),
)

#: What is called of an object that computes items.
_ENTRIES = frozenset({"__getitem__", "__call__"})


_LOAD_GLOBAL, _LOAD_NAME, _EXTENDED_ARG = map(opcode.opmap.get, ("LOAD_GLOBAL", "LOAD_NAME", "EXTENDED_ARG"))


class Reached:
    """An object and the way to it; ``used``: code that was read names each step of the way that is an attribute.

    ``names`` are those that the code names which was passed on the way. Set ``ends`` to go no further from here.
    """

    __slots__ = ("_label", "_parent", "ends", "names", "thing", "used")

    used: bool

    def __init__(
        self, thing: object, label: str, parent: Reached | None, names: frozenset[str], *, used: bool = True
    ) -> None:
        self.thing = thing
        self.names = names
        self.used = used and (parent is None or parent.used)
        self.ends = False
        self._label = label
        self._parent = parent

    def __str__(self) -> str:
        """Return how a program writes the way, such as ``Records.session``, without what a library has inside."""
        way = [self]
        while way[-1]._label[:1] in ".[" and way[-1]._parent is not None:
            way.append(way[-1]._parent)
        way.reverse()
        return "".join(one._label for one in itertools.takewhile(Reached._is_written, way))

    def _is_written(self) -> bool:
        """Whether the last step is the user's: to an attribute of an object of his, or one that his code names."""
        parent, label = self._parent, self._label
        return label[:1] != "." or parent is None or label[1:] in self.names or _is_users(type(parent.thing))


def reached(roots: Iterable[object], looks: int, breadth: int) -> Iterator[Reached]:
    """Yield what there is on the way from some objects, the nearest first, not more than so many.

    ``breadth``: the elements that are looked at of each container.
    """
    pending = deque(Reached(root, _name(root), None, _ENTRIES) for root in roots if root is not None)
    seen: dict[int, Reached] = {}  # which keeps what has an address for as long
    while pending and len(seen) < looks:
        one = pending.popleft()
        if id(one.thing) in seen:
            continue
        seen[id(one.thing)] = one
        yield one
        if not one.ends and id(type(one.thing)) not in _LEAVES:
            pending.extend(_steps(one, breadth))


def _name(thing: object) -> str:
    kind = type(thing)
    if kind is functools.partial:
        return _name(thing.func)  # type: ignore[attr-defined]
    if kind is types.MethodType:
        return _name(thing.__self__)  # type: ignore[attr-defined]
    if id(kind) in _NAMED:
        return thing.__qualname__  # type: ignore[attr-defined, no-any-return]
    return kind.__qualname__


_NAMED = frozenset(map(id, (types.FunctionType, types.BuiltinFunctionType, type)))


def _steps(one: Reached, breadth: int) -> Iterator[Reached]:
    thing: Any = one.thing
    kind = type(thing)
    if kind is types.FunctionType:
        return _steps_of_function(one, thing)
    if kind is types.MethodType:
        return _steps_of_method(one, thing)
    if kind is functools.partial:
        parts = (thing.func, *thing.args, *thing.keywords.values())
        return (Reached(part, _name(part), one, one.names) for part in parts if id(type(part)) not in _LEAVES)
    if issubclass(kind, type):
        return _steps_of_class(one, thing)
    for container, elements in _CONTAINERS:
        if issubclass(kind, container):
            inside = _steps_of_container(one, elements(thing), breadth)
            return inside if kind is container else itertools.chain(inside, _steps_of_instance(one, thing))
    return _steps_of_instance(one, thing)


def _steps_of_method(one: Reached, method: types.MethodType) -> Iterator[Reached]:
    name = getattr(method.__func__, "__name__", "")
    yield Reached(method.__self__, _name(method), one, one.names | {name})
    yield Reached(method.__func__, _name(method), one, one.names)


def _steps_of_container(one: Reached, elements: Iterable[tuple[object, object]], breadth: int) -> Iterator[Reached]:
    try:
        some = list(itertools.islice(elements, breadth))
    except RuntimeError:
        return  # another thread changes it
    for key, value in some:
        if id(type(value)) not in _LEAVES or (type(value) is int and len(some) <= _PAIR):
            yield Reached(value, f"[{key!r}]" if id(type(key)) in _KEYS else "[…]", one, one.names)


_KEYS = frozenset(map(id, (int, str)))


def _steps_of_class(one: Reached, kind: type) -> Iterator[Reached]:
    own = vars(kind)
    for name in one.names & own.keys():
        if id(type(own[name])) not in _LEAVES:
            yield Reached(own[name], f"{kind.__qualname__}.{name}", one, one.names)


def _steps_of_instance(one: Reached, thing: object) -> Iterator[Reached]:
    names, methods, values = _read(type(thing), one.names)
    for name, value in values:
        yield Reached(value, f".{name}", one, one.names)
    for name, value in _attributes(thing):
        if _leads_on(value):
            yield Reached(value, f".{name}", one, names, used=not methods or name in names)
    for method in methods:
        yield Reached(method, method.__qualname__, one, names)


def _read(
    kind: type, asked: frozenset[str]
) -> tuple[frozenset[str], list[types.FunctionType], list[tuple[str, object]]]:
    """Return all names in the code of a class that is run where these are asked for, its methods, and its values."""
    names = set(asked)
    methods = []
    values = []
    done: set[str] = set()
    while new := names - done:
        done |= new
        for base in kind.__mro__[:-1]:
            own = vars(base)
            for name in new & own.keys():
                value = own[name]
                if type(value) is property:
                    value = value.fget
                elif id(type(value)) in _METHODS:
                    value = value.__func__
                if type(value) is types.FunctionType and _is_own(value.__code__.co_filename):
                    names |= _names(value.__code__)
                    methods.append(value)
                elif id(type(value)) not in _NOT_STATE:
                    values.append((name, value))
    return frozenset(names), methods, values


_METHODS = frozenset(map(id, (staticmethod, classmethod)))


def _attributes(thing: object) -> Iterator[tuple[str, object]]:
    for kind in type(thing).__mro__[:-1]:
        place = vars(kind).get("__dict__")
        # And no stand-in's own idea of it. The second is that of a `types.SimpleNamespace`.
        if isinstance(place, types.GetSetDescriptorType | types.MemberDescriptorType):
            fields = place.__get__(thing)
            yield from _some(fields) if type(fields) is dict else ()  # a C class may have none
            break
    for kind in type(thing).__mro__[:-1]:
        slots = vars(kind).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            place = vars(kind).get(f"_{kind.__name__.lstrip('_')}{name}" if name.startswith("__") else name)
            if isinstance(place, types.MemberDescriptorType):
                try:
                    yield name, place.__get__(thing)
                except AttributeError:
                    continue  # not set


def _some(fields: dict[str, object]) -> list[tuple[str, object]]:
    """Return as many of these as are looked at, which another thread may change meanwhile."""
    return list(itertools.islice(fields.copy().items(), _MOST))


def _steps_of_function(one: Reached, function: types.FunctionType) -> Iterator[Reached]:
    code = function.__code__
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # an empty one
            if _leads_on(cell.cell_contents):
                label = f"closure variable {name!r} of {function.__qualname__}"
                yield Reached(cell.cell_contents, label, one, one.names)
    for value in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
        if _leads_on(value):
            yield Reached(value, f"a default of {function.__qualname__}", one, one.names)
    if _is_own(code.co_filename):
        yield from _steps_of_code(one, function)


def _steps_of_code(one: Reached, function: types.FunctionType) -> Iterator[Reached]:
    names = _names(function.__code__)
    passed = one.names | names
    there = function.__globals__
    for name in _globals(function.__code__) & there.keys():
        value = there[name]
        if type(value) is types.ModuleType:
            module = vars(value)
            for inner in names & module.keys():
                if _leads_on(module[inner]):
                    yield Reached(module[inner], f"{value.__name__}.{inner}", one, passed)
        elif _leads_on(value):
            yield Reached(value, f"global {name!r} of {function.__qualname__}", one, passed)


def _leads_on(value: object) -> bool:
    """Whether this is of interest: a whole number may be a descriptor."""
    return type(value) is int or id(type(value)) not in _LEAVES


@functools.lru_cache(256)
def _globals(code: types.CodeType) -> frozenset[str]:
    """Return the names that some code looks up among its globals; `_names` has those of attributes, too."""
    inner = [_globals(const) for const in code.co_consts if isinstance(const, types.CodeType)]
    found = set()
    extended = 0
    for operation, argument in zip(code.co_code[::2], code.co_code[1::2], strict=True):
        whole = extended | argument
        if operation == _LOAD_GLOBAL:
            found.add(code.co_names[whole >> 1])
        elif operation == _LOAD_NAME:  # in the body of a class
            found.add(code.co_names[whole])
        extended = whole << 8 if operation == _EXTENDED_ARG else 0
    return frozenset(found).union(*inner)


@functools.lru_cache(256)
def _names(code: types.CodeType) -> frozenset[str]:
    inner = [_names(const) for const in code.co_consts if isinstance(const, types.CodeType)]
    return frozenset(code.co_names).union(*inner)


@functools.lru_cache(256)
def _is_own(path: str) -> bool:
    """Whether a file of code is the user's own."""
    return not path.startswith(_NOT_OWN) and "/site-packages/" not in path and "/dist-packages/" not in path


def _is_users(kind: type) -> bool:
    """Whether a class is the user's own."""
    if kind.__module__ in sys.builtin_module_names:
        return False
    return _is_own(getattr(sys.modules.get(kind.__module__), "__file__", None) or "")


#: Where the standard library's code lies, and ours.
_NOT_OWN = (
    os.path.dirname(os.__file__) + os.sep,  # noqa: PTH120  pathlib takes longer to import than the engine
    os.path.dirname(os.path.dirname(__file__)) + os.sep,  # noqa: PTH120
    "<frozen ",
)


def file_of(thing: Any) -> int | None:
    """Return the descriptor of an open file, socket or the like; ``None``: this is none, or closed.

    A class of the user's is not asked, which may open something then: what it has is reached anyway.
    """
    method = getattr(type(thing), "fileno", None)
    if method is None or (type(method) is types.FunctionType and _is_own(method.__code__.co_filename)):
        return None
    try:
        file = thing.fileno()
    except Exception as error:  # it is closed, or has none
        pass_on(error)
        return None
    return file if type(file) is int and file >= 0 else None
