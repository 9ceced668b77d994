"""Classes of `ctypes` that the script defines, in workers that have not inherited them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SCRIPT = """
import ctypes, sys
from ordmap import ordered_map

class Inner(ctypes.Structure):
    _fields_ = [("a", ctypes.c_int), ("b", ctypes.c_double)]

class Packed(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = [
        ("x", ctypes.c_int, 3), ("y", ctypes.c_int, 5), ("inner", Inner), ("name", ctypes.c_char * 8), ("v", ctypes.c_int * 3)
    ]
    def total(self): return self.x + self.y

class Other(ctypes.BigEndianStructure):
    _fields_ = [("x", ctypes.c_uint16)]

class Either(ctypes.Union):
    _anonymous_ = ["inner"]
    _fields_ = [("inner", Inner), ("raw", ctypes.c_ubyte * 4)]

class More(Packed):
    _fields_ = [("more", ctypes.c_long)]

class Two(ctypes.Array):
    _type_, _length_ = Inner, 2

class Number(ctypes.c_int):
    pass

class Later(ctypes.Structure):
    pass
Later._fields_ = [("x", ctypes.c_byte)]

class Bare(ctypes.Structure):
    pass

def shown(one):
    return type(one).__name__, bytes(one), getattr(one, "a", None), one.total() if isinstance(one, Packed) else None, one

given = [
    Packed(1, 2, Inner(3, 4.5), b"abc", (ctypes.c_int * 3)(7, 8, 9)), Other(258), Either(Inner(1, 2.0)), More(1, more=3),
    Two(Inner(1), Inner(2)), (Packed * 2)(Packed(2)), (ctypes.c_int * 3)(1, 2, 3), Number(5), Later(1), Bare(), Inner(1),
]
for one, got in zip(given, ordered_map(shown, given, workers=1, backend=sys.argv[1])):
    assert got[:4] == shown(one)[:4], (got, shown(one))
    assert type(got[4]) is type(one) and bytes(got[4]) == bytes(one), got
print("all is well")
"""


@pytest.mark.parametrize("backend", ["processes", "spawn"])
def test_they_come_and_go_as_they_are(script, backend):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", script(SCRIPT), backend],
        capture_output=True, text=True, timeout=60, check=False, env=dict(os.environ),
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "all is well\n"), done.stderr
