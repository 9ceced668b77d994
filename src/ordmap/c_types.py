"""Classes of `ctypes` by value: its metaclasses make a class of what its body has, and that can't be told later."""

from __future__ import annotations

import operator
import sys
from collections.abc import Sequence
from typing import Any

__all__ = ["as_it_was_made", "comes_by_itself", "in_the_body"]

_MODULE = "_ctypes"

#: What the body of such a class may have, beside the fields, which are told afterwards: they may lead to the class.
_IN_THE_BODY = ("_type_", "_length_", "_pack_", "_align_", "_layout_", "_anonymous_", "_swappedbytes_", "_flags_")


def _is_one(kind: type) -> bool:
    """Whether a class is of `ctypes`."""
    return any(metaclass.__module__ == _MODULE for metaclass in type.mro(type(kind)))


def as_it_was_made(kind: Any) -> tuple[Any, ...] | None:
    """Reduce what no name leads to: a metaclass, or an array's class without a statement of its own, as ``c_int * 3``.

    ``None``: it is none such.
    """
    if kind.__module__ == _MODULE:
        ctypes = sys.modules["ctypes"]
        roots = ctypes.Structure, ctypes.Union, ctypes.Array, ctypes.c_int, ctypes._Pointer, ctypes._CFuncPtr
        return next(((type, (root,)) for root in roots if type(root) is kind), None)
    if not _is_one(kind) or not {"_type_", "_length_"} <= vars(kind).keys():
        return None
    element, length = kind._type_, kind._length_
    return (operator.mul, (element, length)) if element * length is kind else None


def in_the_body(kind: type) -> Sequence[str]:
    """Return the names of what a class has to have from its beginning."""
    return _IN_THE_BODY if _is_one(kind) else ()


def comes_by_itself(kind: type, name: str, value: object) -> bool:
    """Whether a class has this attribute once it is made, and told its fields."""
    return _is_one(kind) and (name in _IN_THE_BODY or type(value).__module__ == _MODULE)
