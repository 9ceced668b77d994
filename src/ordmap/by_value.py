"""Pickles for other processes: by value goes what a fresh interpreter would not find by its name.

cloudpickle does so for what ``__main__`` defines, and takes all other modules that are loaded here for importable
there. It gives each pickle globals of its own, which here are those of the script: see `ordmap.namespace`. This module
is imported when something can't go by plain pickle: cloudpickle is heavy.
"""

from __future__ import annotations

import copyreg
import functools
import io
import keyword
import pickle
import sys
import typing
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from enum import Enum
from types import CellType, FunctionType, MemberDescriptorType, ModuleType
from typing import Any, NewType, ParamSpec, TypeVar, TypeVarTuple

from cloudpickle import cloudpickle

from ordmap import c_types, enums, marks, namespace, places
from ordmap.digest import digest_of
from ordmap.names import SCRIPT, importable, names_here
from ordmap.namespace import INHERITED, News, Place
from ordmap.reducers import RESULT, Purpose, has_own_way, reducers
from ordmap.reducers.errors import reducer_of_errors
from ordmap.vocabulary import Vocabulary

__all__ = ["dumps", "globals_of"]

Collect = Callable[[pickle.PickleBuffer], bool]


def dumps(
    value: object,
    buffer_callback: Collect | None = None,
    purpose: Purpose = RESULT,
    *,
    vocabulary: Vocabulary | None = None,
    back: bool = False,
) -> bytes:
    """Return the pickle of a value, which ``pickle.loads`` opens in any process that has the same packages.

    ``vocabulary``: what the other side has inherited; ``back``: that is the caller.
    """
    with io.BytesIO() as file:
        _Pickler(file, buffer_callback, purpose, vocabulary, back=back).dump(value)
        return file.getvalue()


def _table(purpose: Purpose) -> dict[type, Any]:
    """Return cloudpickle's reducers, but for those that we, or the user's libraries, have others of."""
    own = reducers(purpose)
    if _tables.get(purpose, _NONE)[0] is not own:
        _tables[purpose] = own, {**cloudpickle.Pickler._dispatch_table, **own}
    return _tables[purpose][1]


_NONE: tuple[object, dict[type, Any]] = None, {}

#: By purpose, what a table was made of, and the table.
_tables: dict[Purpose, tuple[object, dict[type, Any]]] = {}


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # it has no types
    def __init__(
        self,
        file: io.BytesIO,
        buffer_callback: Collect | None,
        purpose: Purpose,
        vocabulary: Vocabulary | None = None,
        *,
        back: bool = False,
    ) -> None:
        self.dispatch_table = _table(purpose)  # it is looked at right now
        super().__init__(file, pickle.HIGHEST_PROTOCOL, buffer_callback=buffer_callback)
        self._importable = importable()
        self._vocabulary = vocabulary
        self._back = back

    def reducer_override(self, value: Any) -> Any:
        """Be called for everything but containers, numbers and texts."""
        kind = type(value)  # what isinstance() asks may be a lie
        if kind is FunctionType:
            return self._function(value)
        if issubclass(kind, type):
            return self._class(value)
        reduce = _KINDS.get(kind)
        if reduce is not None:
            return reduce(self, value)
        if issubclass(kind, BaseException) and kind not in self.dispatch_table:
            of_errors = reducer_of_errors(kind)
            if of_errors is not None:
                return of_errors(value)
        return _at_its_name(value, kind) if self._importable[kind.__module__] else self._object(value, kind)

    def _place(self, module: str, names: Mapping[str, Any], thing: Any, name: str) -> Place:
        """Return where something is, as far as its name leads to it."""
        if names.get(name) is not thing:
            return Place(module, None, None, self._back)
        return self._told(module, name, thing)

    def _told(self, module: str, name: str, value: Any) -> Place:
        """Return the place of a global."""
        digest = None if self._back else digest_of(value)
        if self._vocabulary is not None and self._vocabulary.has_value(module, name, value, digest):
            digest = INHERITED
        return Place(module, name, digest, self._back)

    def _inherits(self, thing: Any) -> bool:
        return self._vocabulary is not None and self._vocabulary.has(thing)

    # Functions

    def _function(self, function: FunctionType) -> Any:
        if super().reducer_override(function) is NotImplemented and self._importable[function.__module__]:
            return NotImplemented
        names = function.__globals__
        module = _module_of(names)
        news = [] if module is None else self._news(module, function)
        if self._inherits(function):
            return self._inherited(function, [*news, *self._beneath(function)])
        if function.__code__ is _GENERIC:
            return self._generic_function(function)
        if module is None:
            return self._of_importable(function)
        attributes, slots = cloudpickle._function_getstate(function)
        del slots["__globals__"]
        if parameters := getattr(function, "__type_params__", ()):  # as of Python 3.12
            slots["__type_params__"] = parameters
        news.append((Place(module, None, None, self._back), slots.pop("_cloudpickle_submodules")))
        place = self._place(module, names, function, function.__qualname__)
        state = place, news, attributes, slots
        return namespace.function, (place, function.__code__, _empty_cells(function)), state, None, None, _COMPLETE

    def _news(self, module: str, function: FunctionType) -> News:
        """Return the globals that a function needs."""
        names = function.__globals__
        needed = [name for name in cloudpickle._extract_code_globals(function.__code__) if name in names]
        return [(self._told(module, name, names[name]), names[name]) for name in needed]

    def _inherited(self, thing: Any, news: News) -> Any:
        place = Place(thing.__module__, thing.__qualname__, INHERITED, self._back)
        return namespace.inherited, (place,), news, None, None, namespace.complete_inherited

    def _beneath(self, *things: Any) -> News:
        """Return, as if they were globals, functions that are reached through something inherited."""
        place = Place("", None, None, self._back)
        return [(place, one) for thing in things for one in _parts(thing) if self._is_ours(one)]

    def _is_ours(self, one: Any) -> bool:
        return _is_defined(one) and not self._importable[one.__module__]

    def _generic_function(self, function: Any) -> Any:
        """Reduce what `functools.singledispatch` has made, which holds weak references."""
        first = function.registry[object]
        names = first.__globals__ if type(first) is FunctionType else {}
        place = self._place(_module_of(names) or "", names, function, function.__qualname__)
        others = [(kind, one) for kind, one in function.registry.items() if kind is not object]
        return namespace.named, (place, functools.singledispatch, first), others, None, None, namespace.register

    def _of_importable(self, function: FunctionType) -> Any:
        """Reduce a function whose globals are those of a module that the other side can import, or of none."""
        module = function.__globals__.get("__name__")
        if not _is_installed(module, function.__globals__):
            return self._dynamic_function_reduce(function)
        attributes, slots = cloudpickle._function_getstate(function)
        del slots["__globals__"], slots["_cloudpickle_submodules"]
        place = Place("", None, None, self._back)
        arguments = module, function.__code__, _empty_cells(function)
        return namespace.function_of_library, arguments, (place, [], attributes, slots), None, None, _COMPLETE

    # Classes

    def _class(self, kind: type) -> Any:
        reduced = super().reducer_override(kind)
        if reduced is NotImplemented:
            if self._importable[kind.__module__] or kind.__flags__ & _IMMUTABLE:
                return NotImplemented
            reduced = cloudpickle._dynamic_class_reduce(kind)
        elif reduced[0] not in _SKELETONS:
            return reduced
        if (made := c_types.as_it_was_made(kind)) is not None:
            return made
        if self._inherits(kind):
            return self._inherited(kind, self._beneath(*kind.__mro__))
        build, arguments, (attributes, _), *_ = reduced
        mark = arguments[-2]
        metaclass, name, bases = type(kind), kind.__name__, kind.__bases__
        body = {**_in_the_body(kind), "__module__": kind.__module__, "__qualname__": kind.__qualname__}
        members = None
        if issubclass(kind, Enum):
            own, *rest = enums.plan(kind)
            build, arguments = namespace.tracked, (mark, enums.make, metaclass, name, bases, {**body, **own}, *rest)
            attributes, members = _enum_attributes(kind), enums.state(kind)
        elif metaclass.__name__ == _TYPED:
            build, arguments = namespace.tracked, (mark, namespace.bare, metaclass, name, bases, body)
        else:
            arguments = metaclass, name, bases, {**arguments[3], **body}, *arguments[4:]
        attributes = {**_same_as_bases(kind), **attributes}
        attributes = {
            name: value
            for name, value in attributes.items()
            if type(value) is not MemberDescriptorType and not c_types.comes_by_itself(kind, name, value)
        }
        digests = {name: None if self._back else digest_of(value) for name, value in attributes.items()}
        module = kind.__module__
        place = self._place(module, vars(sys.modules[module]) if names_here(kind) else {}, kind, kind.__qualname__)
        state = mark, place, attributes, digests, members
        known = mark, marks.whereabouts(kind)
        return namespace.begin_class, (*known, build, *arguments), state, None, None, namespace.complete_class

    # Others that pickle would name

    def _module(self, module: ModuleType) -> Any:
        name = module.__name__
        if self._importable[name]:
            return NotImplemented
        if name in SCRIPT:
            return cloudpickle.subimport, ("__main__",)  # that of the process that opens this
        state = {name: one for name, one in vars(module).items() if name != "__builtins__"}
        return cloudpickle.dynamic_subimport, (name, state)

    def _cached(self, cached: Any) -> Any:
        """Reduce what `functools.lru_cache` has made, without what it has cached."""
        if self._importable[cached.__module__] and _leads_to(cached):
            return NotImplemented
        function, settings = cached.__wrapped__, cached.cache_parameters()
        names = getattr(function, "__globals__", {})
        place = self._place(_module_of(names) or "", names, cached, cached.__qualname__)
        return namespace.named, (place, namespace.cached, function, settings)

    def _cached_property(self, value: Any) -> Any:
        """Reduce it without its lock, which it has before Python 3.12."""
        return type(value), (value.func,), {"attrname": value.attrname, "__doc__": value.__doc__}

    def _generic_method(self, method: Any) -> Any:
        """Reduce it without what it has cached, as of Python 3.13."""
        return namespace.generic_method, (method.dispatcher, method.func)

    def _variable(self, variable: Any) -> Any:
        """Reduce what stands for types: it is the same in all that needs it."""
        kind, module, name = type(variable), variable.__module__, variable.__name__
        # A parameter of a statement's says that it is of `typing`.
        if self._importable[module] and getattr(sys.modules.get(module), name, None) is variable:
            return NotImplemented
        place = self._place(module, namespace.names_of(module, name, variable), variable, name)
        if kind is TypeVar:
            build, arguments = cloudpickle._make_typevar, cloudpickle._decompose_typevar(variable)
        else:
            mark = cloudpickle._get_or_create_tracker_id(variable)
            rest = (variable.__supertype__,) if kind is NewType else ()
            build, arguments = namespace.tracked, (mark, kind, name, *rest)
        return namespace.named, (place, build, *arguments), module, None, None, namespace.lie_in

    def _alias(self, alias: Any) -> Any:
        """Reduce what a ``type`` statement has made, as of Python 3.12."""
        module, name = alias.__module__, alias.__name__
        if self._importable[module] or not name.isidentifier() or keyword.iskeyword(name):
            return NotImplemented
        place = self._place(module, namespace.names_of(module, name, alias), alias, name)
        meant, parameters = [alias.__value__], alias.__type_params__
        # It may lead back to the alias, which has it only later, where it need not be known from the beginning.
        first, then = (meant, None) if parameters else ([], meant)
        arguments = place, namespace.alias, module, name, parameters, first
        return namespace.named, arguments, then and (first, then), None, None, namespace.complete_alias

    def _object(self, value: Any, kind: type) -> Any:
        """Reduce an object of the script's; one may say that it is found by a name, as what is there but once does."""
        if all(getattr(kind, way) is getattr(object, way) for way in ("__reduce__", "__reduce_ex__")):
            return NotImplemented
        if kind in copyreg.dispatch_table:
            return NotImplemented
        if issubclass(kind, Enum) and enums.is_member(value):
            return enums.member, (kind, value._name_)
        reduced = value.__reduce_ex__(pickle.HIGHEST_PROTOCOL)
        module = getattr(value, "__module__", kind.__module__)  # a function of Cython's has its library's
        if type(reduced) is not str or self._importable[module]:
            return reduced
        place = self._place(module, namespace.names_of(module, reduced, value), value, reduced)
        return namespace.named, (place, namespace.remade, kind, getattr(value, "__dict__", {}))

    def _context_variable(self, variable: ContextVar[Any]) -> Any:
        return places.reduced(variable)


_COMPLETE = namespace.complete_function

#: Python's flag of a class that nothing can be written to, and so none that a ``class`` statement makes.
_IMMUTABLE = 1 << 8

#: How cloudpickle begins a class that goes by value.
_SKELETONS = frozenset({cloudpickle._make_skeleton_class, cloudpickle._make_skeleton_enum})

#: The metaclass of typed dictionaries, in `typing` and in `typing_extensions`: called, it wants bases that these lose.
_TYPED = "_TypedDictMeta"

#: The code of all functions that `functools.singledispatch` makes.
_GENERIC = getattr(functools.singledispatch(lambda _: None), "__code__")  # noqa: B009  it is more than its type says

_KINDS: dict[type, Callable[[_Pickler, Any], Any]] = {
    ModuleType: _Pickler._module,
    functools._lru_cache_wrapper: _Pickler._cached,
    functools.cached_property: _Pickler._cached_property,
    functools.singledispatchmethod: _Pickler._generic_method,
    TypeVar: _Pickler._variable,
    ParamSpec: _Pickler._variable,
    TypeVarTuple: _Pickler._variable,
    NewType: _Pickler._variable,
    ContextVar: _Pickler._context_variable,
}
if sys.version_info >= (3, 12):
    _KINDS[typing.TypeAliasType] = _Pickler._alias


def _same_as_bases(kind: type) -> dict[str, Any]:
    """Return what a class has for itself that a base has, too, which cloudpickle takes for inherited."""
    own = ((name, value) for name, value in vars(kind).items() if not name.startswith("__"))
    return {name: value for name, value in own if any(vars(base).get(name) is value for base in kind.__mro__[1:])}


def _at_its_name(value: Any, kind: type) -> Any:
    """Reduce what has nothing but its identity, such as `dataclasses.MISSING`, to where its class's module has it."""
    if not _has_no_state(kind) or getattr(value, "__dict__", None):
        return NotImplemented
    module = sys.modules.get(kind.__module__)
    name = next((name for name, one in list(vars(module).items()) if one is value), None) if module else None
    return NotImplemented if name is None else (getattr, (module, name))


@functools.lru_cache(256)
def _has_no_state(kind: type) -> bool:
    """Whether objects of a class, which Python made and says nothing of pickles, have but a dict of attributes."""
    if has_own_way(kind):
        return False
    roots = [vars(base) for base in kind.__mro__ if base.__bases__ == (object,)]
    are_python_s = all("__dict__" in names or names.get("__slots__") == () for names in roots)
    return bool(roots) and are_python_s and kind.__basicsize__ <= _Plain.__basicsize__


class _Plain:
    """Has what each class has that Python makes."""


def _is_defined(value: Any) -> bool:
    kind = type(value)
    return kind is FunctionType or issubclass(kind, type)


def _module_of(names: Mapping[str, Any]) -> str | None:
    """Return the name of the script, or of another namespace that the other side can't import, which has these globals.

    Under a profiler the script is in no module; then no name leads to what it defines.
    """
    name = names.get("__name__")
    if not isinstance(name, str):
        return None
    came_from = namespace.source_of(names)
    if came_from is not None:
        return came_from
    if name in sys.modules and getattr(sys.modules[name], "__dict__", None) is names:
        return None if importable()[name] else name
    if name == "__mp_main__":
        return name
    return f"{name} of {id(names)}" if name in SCRIPT else None


def _is_installed(module: Any, names: Mapping[str, Any]) -> bool:
    """Whether these are the globals of a library's module."""
    loaded = sys.modules.get(module) if isinstance(module, str) else None
    if loaded is None or getattr(loaded, "__dict__", None) is not names or not importable()[module]:
        return False
    return module.partition(".")[0] in sys.stdlib_module_names or "-packages" in str(names.get("__file__"))


def _leads_to(thing: Any) -> bool:
    """Whether the name of something leads to it in this process."""
    try:
        return functools.reduce(getattr, thing.__qualname__.split("."), sys.modules[thing.__module__]) is thing
    except (AttributeError, KeyError):
        return False


def _parts(thing: Any) -> Iterator[Any]:
    """Yield what a function has in its closure, or a class among its attributes, and the functions that these wrap."""
    if type(thing) is not FunctionType:
        values = [thing, *vars(thing).values()]
    elif thing.__code__ is _GENERIC:
        values = list(thing.registry.values())  # type: ignore[attr-defined]
    else:
        values = [cell.cell_contents for cell in thing.__closure__ or () if _is_filled(cell)]
    for value in values:
        yield value
        yield from (getattr(value, name, None) for name in _WRAPPED.get(type(value), ()))


def globals_of(thing: Any) -> set[str]:
    """Return the names of globals that a function, or the methods of a class, refer to."""
    functions = [one for one in (thing, *_parts(thing)) if type(one) is FunctionType]
    return {name for one in functions for name in cloudpickle._extract_code_globals(one.__code__)}


#: Where the standard library's wrappers of functions have these.
_WRAPPED: dict[type, tuple[str, ...]] = {
    staticmethod: ("__func__",),
    classmethod: ("__func__",),
    property: ("fget", "fset", "fdel"),
    functools._lru_cache_wrapper: ("__wrapped__",),
    functools.cached_property: ("func",),
    functools.partial: ("func",),
    functools.partialmethod: ("func",),
    functools.singledispatchmethod: ("dispatcher",),
}


def _is_filled(cell: CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018  it is asked
    except ValueError:
        return False
    return True


def _empty_cells(function: FunctionType) -> Any:
    cells = function.__closure__
    return None if cells is None else tuple(cloudpickle._make_empty_cell() for _ in cells)


def _enum_attributes(kind: type[Enum]) -> dict[str, Any]:
    """Return what an enum has beside its members."""
    attributes, _ = cloudpickle._class_getstate(kind)
    return {name: one for name, one in attributes.items() if name not in enums.ATTENDED | kind._member_map_.keys()}


def _in_the_body(kind: type) -> dict[str, Any]:
    """Return what a class has to have from its beginning: its slots, and what makes it generic."""
    own = vars(kind)
    body = {name: own[name] for name in ("__orig_bases__", *c_types.in_the_body(kind)) if name in own}
    if "__slots__" in own:
        slots = [name for name, one in own.items() if type(one) is MemberDescriptorType]
        body["__slots__"] = (*slots, *(name for name in ("__dict__", "__weakref__") if name in own))
    return body
