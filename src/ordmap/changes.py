"""What has changed of what the script's functions and classes need, since the workers of a pool have them.

An input names its class. What the methods of that refer to may have another value by the next loop of a pool that is
held open, without any function of that loop's referring to it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import FunctionType
from typing import Any

from ordmap.by_value import globals_of
from ordmap.digest import digest_of
from ordmap.names import strangers
from ordmap.namespace import News, Place
from ordmap.vocabulary import Vocabulary, defined, token_of

__all__ = ["Told", "changes"]


class Told:
    """A global that workers are told of."""

    def __init__(self, place: Place, value: Any) -> None:
        self._place = place
        self._value = value

    def __reduce__(self) -> tuple[Any, ...]:
        return Place.tell, (self._place, self._value)


def changes(vocabulary: Vocabulary) -> News:
    """Return the globals to tell workers of that know these functions and classes, and note that they are told."""
    news: News = []
    for module, name, value in _needed():
        token = token_of(value)
        if vocabulary.seen.get((module, name)) != token:
            vocabulary.seen[module, name] = token
            digest = digest_of(value)
            if not vocabulary.has_value(module, name, value, digest):
                news.append((Place(module, name, digest, back=False), value))
    return news


def _needed() -> Iterator[tuple[str, str, Any]]:
    """Yield what the functions and classes of the script refer to: the module, the name, and the value."""
    for module in strangers():
        names = vars(sys.modules[module])
        needed = {name for _, thing in defined(module) for name in globals_of(thing)}
        functions = (thing for _, thing in defined(module) if type(thing) is FunctionType)
        own = next((it.__globals__ for it in functions if it.__globals__.get("__name__") == module), names)
        yield from ((module, name, own[name]) for name in needed if name in own)
