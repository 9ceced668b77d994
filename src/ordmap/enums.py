"""Enums by value: their members arrive as they are, without the constructor that the class had for them.

That took what the script wrote; members have what it made of that. A class that mixes in a dataclass, or has a
``__new__`` of its own, would not take it again. So the class and its members are made bare at first. All that they have
comes when the class can be referred to.
"""

from __future__ import annotations

from abc import ABCMeta
from enum import Enum, EnumType, Flag
from types import MemberDescriptorType
from typing import Any, NamedTuple

__all__ = ["ATTENDED", "State", "complete", "is_member", "make", "member", "plan", "state"]

#: The attributes of a class that `make` and `complete` see to.
ATTENDED = frozenset({"_member_names_", "_member_map_", "_value2member_map_"})

#: What a class has from its beginning: flags are combined before it has all.
_AT_ONCE = ("_member_type_", "_boundary_", "_flag_mask_", "_singles_mask_", "_all_bits_")

#: What can't refer to the class.
_ATOMS = frozenset({bool, int, float, complex, str, bytes, type(None)})


class _Bare(NamedTuple):
    """A member without all that it has, and how to make it."""

    base: Any
    arguments: tuple[Any, ...]
    has: dict[str, Any]


class State(NamedTuple):
    """What members have, in their ``__dict__`` and in slots; which values lead to them; what the class has instead."""

    members: list[tuple[str, dict[str, Any], dict[str, Any]]]
    values: list[tuple[Any, str]]
    redirects: dict[str, Any]


def is_member(value: Enum) -> bool:
    """Whether a name leads to it, as none does to a combination of flags."""
    return type(value)._member_map_.get(value._name_) is value


def member(kind: type[Enum], name: str) -> Enum:
    """Return a member by its name, for its value may be equal to itself alone."""
    return kind._member_map_[name]


def plan(kind: type[Enum]) -> tuple[dict[str, Any], dict[str, str], dict[str, _Bare]]:
    """Return what `make` needs: what the class has at once, all names and whose they are, and the members."""
    own = vars(kind)
    at_once = {name: own[name] for name in _AT_ONCE if name in own}
    bare = {one._name_: _Bare(*_made_by(kind, one), _atoms(one)) for one in _members(kind)}
    names = {name: one._name_ for name, one in kind._member_map_.items()}
    return {**at_once, "_member_names_": list(kind._member_names_)}, names, bare


def make(  # noqa: PLR0917  it is called by a pickle
    metaclass: Any,
    name: str,
    bases: tuple[type, ...],
    body: dict[str, Any],
    names: dict[str, str],
    bare: dict[str, _Bare],
) -> type[Enum]:
    """Return a class without all that it and its members have."""
    # Python's own: what the script's has done comes along.
    maker = next(one for one in metaclass.__mro__ if one in {EnumType, ABCMeta})
    body = {**body, "_member_map_": {}, "_value2member_map_": {}}
    kind = maker.__new__(metaclass, name, bases, body, _simple=True)
    if isinstance(kind, ABCMeta):
        kind.__abstractmethods__ = frozenset()  # its methods are yet to come
    made: dict[str, Any] = {}
    for own, (base, arguments, has) in bare.items():
        made[own] = one = base.__new__(kind, *arguments)
        if base.__init__ is not object.__init__:
            base.__init__(one, *arguments)
        vars(one).update(has, __objclass__=kind)
        if "_value_" in has:
            kind._value2member_map_.setdefault(has["_value_"], one)
    for at, own in names.items():
        kind._member_map_[at] = made[own]
        type.__setattr__(kind, at, made[own])
    if issubclass(kind, Flag):
        values = [vars(made[own]).get("_value_", 0) for own in kind._member_names_]
        if values != sorted(values):  # what is combined is named in the order of the class
            kind._iter_member_ = kind._iter_member_by_def_
    return kind  # type: ignore[no-any-return]


def state(kind: type[Enum]) -> State:
    """Return what `complete` needs."""
    own = vars(kind)
    members = [(one._name_, _dictionary(one), _slots(one)) for one in _members(kind)]
    values = [(value, one._name_) for value, one in kind._value2member_map_.items() if is_member(one)]
    redirects = {name: own[name] for name, one in kind._member_map_.items() if own.get(name, one) is not one}
    return State(members, values, redirects)


def complete(kind: type[Enum], told: State) -> None:
    """Give members all that they have."""
    for name, dictionary, slots in told.members:
        one = kind._member_map_[name]
        vars(one).update(dictionary)
        for slot, value in slots.items():
            object.__setattr__(one, slot, value)  # the class may say that it is frozen
    for value, name in told.values:
        kind._value2member_map_.setdefault(value, kind._member_map_[name])
    for name, redirect in told.redirects.items():
        type.__setattr__(kind, name, redirect)


def _members(kind: type[Enum]) -> list[Any]:
    """Return the members, those that combine others included, each once."""
    return [one for name, one in kind._member_map_.items() if one._name_ == name]


def _made_by(kind: type[Enum], one: Any) -> tuple[type, tuple[Any, ...]]:
    """Return the type in C that a member is made by, and what that is called with."""
    base: Any = next(base for base in kind.__mro__ if getattr(base.__new__, "__self__", None) is base)
    if base is object:
        return base, ()
    if hasattr(base, "__getnewargs__"):
        return base, base.__getnewargs__(one)
    if base.__reduce__ is not object.__reduce__:
        return base, base.__reduce__(one)[1]
    return base, (base.copy(one),)  # a list or a dictionary


def _atoms(one: Enum) -> dict[str, Any]:
    has = vars(one)
    return {name: has[name] for name in ("_name_", "_value_", "_sort_order_") if type(has.get(name, ...)) in _ATOMS}


def _dictionary(one: Enum) -> dict[str, Any]:
    """Return what a member has, but for its class, and what flags keep once it was asked for."""
    return {name: value for name, value in vars(one).items() if name not in {"__objclass__", "_inverted_"}}


def _slots(one: Enum) -> dict[str, Any]:
    slots = [
        (name, slot)
        for base in type(one).__mro__
        if "__slots__" in vars(base)
        for name, slot in vars(base).items()
        if type(slot) is MemberDescriptorType
    ]
    return {name: slot.__get__(one) for name, slot in slots if hasattr(one, name)}
