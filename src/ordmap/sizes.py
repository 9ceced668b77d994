"""Sizes in bytes, as people write them."""

from __future__ import annotations

import re

__all__ = ["nbytes_of"]

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


def nbytes_of(name: str, text: str, instead: str = "a number of bytes") -> int:
    """Return what a text such as ``"512MB"`` (10⁶) or ``"512MiB"`` (2²⁰) says, or refuse it as the argument ``name``.

    ``instead`` is what may be written.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]I?|)B\s*", text.upper())
    if match is None:
        raise ValueError(f'{name}={text!r}: write {instead} such as "512MB" or "1.5GiB"')
    nbytes = int(float(match[1]) * _UNITS[match[2]])
    if nbytes < 1:
        raise ValueError(f'{name}={text!r}: it must be at least "1B"')
    return nbytes
