"""Read-only views of mappings, which have no way of their own to be pickled: such as the headers of aiohttp's answers.

Their content travels, and the view is made anew.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from ordmap.reducers.purpose import Purpose

__all__ = ["reduced_proxy", "reducers_of_multidict"]


def reduced_proxy(proxy: MappingProxyType[Any, Any]) -> tuple[Any, ...]:
    """Reduce the standard library's read-only view of a mapping."""
    return _proxy, (proxy.copy(),)  # by the mapping's own method


def _proxy(mapping: Any) -> MappingProxyType[Any, Any]:
    """Return a view of a mapping; pickle finds no name for its class."""
    return MappingProxyType(mapping)


def reducers_of_multidict(multidict: Any, purpose: Purpose) -> dict[type, Any]:
    """Return the reducers of multidict's read-only views, which aiohttp's and yarl's objects hold."""
    del purpose

    def reduced(proxy: Any) -> tuple[Any, ...]:
        return type(proxy), (proxy.copy(),)

    return {multidict.MultiDictProxy: reduced, multidict.CIMultiDictProxy: reduced}
