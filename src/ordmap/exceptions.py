"""Exceptions on their way between processes, with their chains of causes and contexts.

Each exception of a chain travels for itself, so that one that can't costs only itself; and of one that has something
that can't travel, that alone is left out, which a note says. Where its class can't be had either, a `RemoteError` has
its name, its text and its traceback.
"""

from __future__ import annotations

import copyreg
import pickle
import re
from collections.abc import Callable, Sequence
from types import EllipsisType, FunctionType
from typing import Any, NamedTuple

from ordmap.errors import RemoteError
from ordmap.interrupts import pass_on
from ordmap.reducers.errors import builtin_under, completed, fields_of, made_with, rebuilt
from ordmap.tracebacks import traceback_of

__all__ = ["PackedError", "one_line", "open_error", "pack_error", "set_relatives", "text_of", "type_name"]

Dumps = Callable[[object], bytes]

#: A class, the arguments that the builtin exception under it was made with, and all else.
_Parts = tuple[type[BaseException], tuple[Any, ...], dict[str, Any]]


class _Link(NamedTuple):
    """One exception of a chain: itself, as far as it can travel, and where in the chain its relatives are."""

    data: bytes | None
    note: str  # what didn't come with it
    type_name: str
    message: str
    cause: int | None
    context: int | None
    members: tuple[int, ...]  # of an exception group
    suppress_context: bool


class PackedError(NamedTuple):
    """An item's exception on its way between processes, with its whole chain of causes and contexts."""

    chain: tuple[_Link, ...]
    traceback: str


def pack_error(error: BaseException, text: str, dumps: Dumps) -> PackedError:
    """Pack an exception, and its traceback as text, unless that is given. ``dumps`` pickles what can be."""
    chain: list[BaseException] = []
    numbers: dict[int, int] = {}

    def enlist(link: BaseException | None) -> None:
        pending = [link]
        while pending:  # a loop, not a recursion: a chain may have thousands of links, and circles
            one = pending.pop()
            if one is not None and id(one) not in numbers:
                numbers[id(one)] = len(chain)
                chain.append(one)
                pending += (one.__context__, one.__cause__, *_members(one))

    def number(link: BaseException | None) -> int | None:
        return None if link is None else numbers[id(link)]

    enlist(error)
    links = tuple(
        _Link(
            *_pickled(one, dumps),
            type_name=type_name(one),
            message=text_of(one),
            cause=number(one.__cause__),
            context=number(one.__context__),
            members=tuple(numbers[id(member)] for member in _members(one)),
            suppress_context=one.__suppress_context__,
        )
        for one in chain
    )
    try:
        text = text or traceback_of(error)
    except BaseException as fault:  # the user's __str__ or __repr__
        text = f"{type_name(error)} (its traceback can't be formatted: {one_line(fault)})"
    return PackedError(links, text)


# A traceback that was pickled, as tblib does it, is made anew by calls, and its frames lead back to those that unpickle
# it: so none of these may hold the exception once it has returned.


def open_error(packed: PackedError) -> BaseException:
    """Return the exception that was packed, with its relatives."""
    chain: list[BaseException] = []
    try:
        for link in packed.chain:
            chain.append(_unpickled(link, "" if chain else packed.traceback))
        _relate(chain, packed.chain)
        return chain[0]
    finally:
        chain.clear()


def _relate(chain: Sequence[BaseException], links: Sequence[_Link]) -> None:
    """Set the relatives of exceptions, as their links say."""
    pending = list(zip(chain, links, strict=True))
    while pending:
        one, link = pending.pop()
        set_relatives(
            one,
            cause=None if link.cause is None else chain[link.cause],
            context=None if link.context is None else chain[link.context],
        )
        _suppress_context.__set__(one, link.suppress_context)
        # A group came with copies of its members, without their relatives.
        pending += [(member, links[n]) for member, n in zip(_members(one), link.members, strict=False)]


# The setters of BaseException itself: the user's class may refuse to have anything set, as a frozen dataclass does.
_cause = vars(BaseException)["__cause__"]
_context = vars(BaseException)["__context__"]
_suppress_context = vars(BaseException)["__suppress_context__"]


def set_relatives(
    error: BaseException, *, context: BaseException | None, cause: BaseException | EllipsisType | None = ...
) -> None:
    """Set the context of an exception, and its cause unless that is left out, whatever its class makes of it."""
    if cause is not ...:
        _cause.__set__(error, cause)
    _context.__set__(error, context)


def _members(error: BaseException) -> tuple[BaseException, ...]:
    return error.exceptions if isinstance(error, BaseExceptionGroup) else ()


# Where it is raised


def _pickled(error: BaseException, dumps: Dumps) -> tuple[bytes | None, str]:
    """Pickle one exception without its chain (``None``: it can't be), and say what is left out.

    An exception's own way to pickle calls its class with ``args``, and fails, or doubles its message, when the class
    has a constructor of its own. We leave that constructor out: it ran once already. A class that says how it is
    pickled may be wrong, and what an exception has may be another; so it is looked at what comes of these.
    """
    kind = type(error)
    lesser: bytes | None = None
    for way in _ways(kind):
        try:
            data = dumps(way(error))
            if _is_plain(error):
                return data, ""
            copy = _built(data)
            if type(copy) is kind and _is_said_alike(error, copy):
                return (_with_the_rest(error, copy, data, dumps) if way is _whole else data), ""
            lesser = lesser or (data if type(copy) is kind else None)
        except BaseException:  # noqa: S112  a user's __reduce__ may raise anything
            continue
    try:
        return _spared(error, lesser)
    except BaseException:  # the user's code again
        return lesser, ""


def _ways(kind: type[BaseException]) -> list[Callable[[BaseException], tuple[Any, ...]]]:
    if _reduces_itself(kind):
        return [_whole, _made_of_parts]
    # What else comes with it, such as the traceback that Dask has every exception bring, may keep it from it.
    own = isinstance(kind.__init__, FunctionType) or fields_of(builtin_under(kind))
    return [_made_of_parts] if own else [_whole, _made_of_parts]


def _whole(error: BaseException) -> tuple[Any, ...]:
    return _itself, (error,)


def _made_of_parts(error: BaseException) -> tuple[Any, ...]:
    return _rebuilt, _parts(error)


def _parts(error: BaseException) -> _Parts:
    kind = type(error)
    args, fields = made_with(error)
    state = (*builtin_under(kind).__reduce__(error), None)[2]
    state = state if isinstance(state, dict) else vars(error)
    slots = {name: getattr(error, name) for name in copyreg._slotnames(kind) if hasattr(error, name)}  # type: ignore[attr-defined]
    return kind, args, {**fields, **slots, **state}


def _reduces_itself(kind: type[BaseException]) -> bool:
    """Whether a class of the user's or a library's own says how it is pickled."""
    own = (base for base in kind.__mro__ if base.__module__ != "builtins")
    says = {"__reduce__", "__reduce_ex__", "__getstate__", "__setstate__"}
    registered = copyreg.dispatch_table.get(kind)
    if registered is not None and not registered.__module__.startswith("tblib"):  # which Dask brings, for every class
        return True
    return any(not says.isdisjoint(vars(base)) for base in own)


def _is_plain(error: BaseException) -> bool:
    """Whether nothing but pickle has a say in how an exception travels."""
    values = (*error.args, *vars(error).values())
    return not _reduces_itself(type(error)) and all(type(value) in _ATOMS for value in values)


_ATOMS = {bool, int, float, complex, str, bytes, type(None)}

_ADDRESS = re.compile(r"0x[0-9a-f]+")


def _is_said_alike(error: BaseException, copy: BaseException) -> bool:
    """Whether two exceptions have the same text, but for where in memory something is."""
    return _ADDRESS.sub("", text_of(error)) == _ADDRESS.sub("", text_of(copy))


def _with_the_rest(error: BaseException, copy: BaseException, data: bytes, dumps: Dumps) -> bytes:
    """Add what an exception has, and what its class forgets to pickle."""
    rest: dict[str, object] = {name: value for name, value in vars(error).items() if name not in vars(copy)}
    if _ADDRESS.sub("", repr(error.args)) != _ADDRESS.sub("", repr(copy.args)):
        rest["args"] = error.args
    if not rest:
        return data
    try:
        return dumps((completed, (error, rest)))
    except Exception:  # it may be left out for this reason
        return data


def _spared(error: BaseException, lesser: bytes | None) -> tuple[bytes | None, str]:
    """Pickle an exception without what keeps it from being pickled."""
    from ordmap.sparing import dumped_in_part, spared_parts, travels  # heavy, and seldom needed

    parts = kind, args, state = _parts(error)
    named = [*((f"args[{place}]", value) for place, value in enumerate(args)), *state.items()]
    lost = [f"{name} ({type(value).__name__})" for name, value in named if not travels(value)]
    note = f"ordmap: what can't be pickled is left out, or came without a part of it: {', '.join(lost)}" if lost else ""
    # An exception within another one is spared, too, and rebuilt as this one is.
    for spare in (tuple, spared_parts):
        try:
            data = dumped_in_part((_rebuilt, spare(parts)), _made_of_parts)
            copy = _built(data)
        except Exception:  # noqa: S112  what is left of it can't be had so
            continue
        if type(copy) is kind and _is_said_alike(error, copy):
            return data, note
        if lesser is None:
            lesser = data
    return lesser, "\n".join(filter(None, (note, f"ordmap: its text was: {text_of(error)}")))


# Where it is delivered


def _built(data: bytes) -> BaseException:
    build: Callable[..., object]
    build, args = pickle.loads(data)  # one of those below
    try:
        error = build(*args)
        if not isinstance(error, BaseException):
            raise TypeError("it comes as something else")
        return error
    finally:
        error = args = None


def _unpickled(link: _Link, text: str) -> BaseException:
    if link.data is not None:
        try:
            return _noted(_built(link.data), link.note)
        except BaseException as fault:
            pass_on(fault)
            # The stand-in below says all that is known of it.
    return RemoteError(
        f"{link.type_name}: {link.message} (the exception itself can't be pickled)",
        type_name=link.type_name,
        remote_message=link.message,
        remote_traceback=text,
    )


def _noted(error: BaseException, note: str) -> BaseException:
    """Return an exception with a note, if there is one."""
    if note:
        vars(error)["__notes__"] = [*vars(error).get("__notes__", ()), note]
    return error


def _itself(error: BaseException) -> BaseException:
    return error


def _rebuilt(kind: type[BaseException], args: tuple[Any, ...], state: dict[str, Any]) -> BaseException:
    return completed(rebuilt(kind, args), state)


# How it is said


def type_name(error: BaseException) -> str:
    """Return the name of an exception's class, as the last line of a traceback has it."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def text_of(error: BaseException) -> str:
    """Return the text of an exception, or why it can't be had."""
    try:
        return str(error)
    except BaseException as fault:  # the user's __str__
        return f"(its message can't be had: {type(fault).__name__})"


def one_line(error: BaseException) -> str:
    """Return the class and text of an exception, as the last line of a traceback has them."""
    text = text_of(error)
    return f"{type_name(error)}: {text}" if text else type_name(error)
