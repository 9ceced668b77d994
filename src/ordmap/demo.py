"""The main job on real input: what ``ordmap demo`` runs, measures and checks.

One dataset (the modules of the standard library, or a folder of the user's own) is gone through by the plain loop
``[dataset[i] for i in range(len(dataset))]``, and then by `ordered_imap` on each local backend. Each result is compared
with the plain loop's at the same place, so that a wrong one, a missing one and a wrong order all show.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import os
import sys
import sysconfig
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from ordmap import real_time as time
from ordmap.backends import BACKENDS
from ordmap.dataset import Dataset
from ordmap.imap import ordered_imap
from ordmap.resources import usable_cores

__all__ = ["Decoded", "Files", "Hashed", "Images", "Modules", "NothingToDoError", "Parsed", "Work", "find_work", "run"]

#: Folders of the standard library's that are not the library: its tests (some of them not Python on purpose), and what
#: was installed beside it.
_NOT_LIBRARY = frozenset({"__pycache__", "dist-packages", "idle_test", "site-packages", "test", "tests"})

_IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
_SMALL = (224, 224)

#: Items in the window for each worker: enough to compute on past one item that takes long.
_AHEAD = 16

#: The backends that are compared: this work awaits nothing.
MEASURED = [name for name in BACKENDS if name != "asyncio"]

_HEADING = f"{'':<13}{'items/s':>10}{'speed-up':>11}{'first item':>14}{'most in flight':>17}"


class NothingToDoError(Exception):
    """There is nothing to work on; the message is for the user."""


class Parsed(NamedTuple):
    """A module that was parsed: the number of nodes in its tree, and a digest of its source and of its tree."""

    module: str
    nodes: int
    digest: str


class Decoded(NamedTuple):
    """An image that was decoded: its size in pixels, and a digest of its pixels after resizing."""

    name: str
    size: tuple[int, int]
    digest: str


class Hashed(NamedTuple):
    """A file that was hashed: how many bytes were read, and their digest."""

    name: str
    nbytes: int
    digest: str


#: Python 3.11 raises a SystemError now and then where two threads build a tree at the same time: it counts its depth in
#: one place for all. Under the GIL they don't do so faster than one.
_ONE_PARSER = threading.Lock()


class Modules:
    """Source files below ``root``, each parsed by ``ast.parse``. What can't be parsed is a result that says so."""

    def __init__(self, root: Path, files: Sequence[Path]) -> None:
        self.root = root
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Parsed:
        path = self.files[index]
        module = ".".join(path.relative_to(self.root).with_suffix("").parts).removesuffix(".__init__")
        try:
            source = path.read_bytes()
            with _ONE_PARSER:
                tree = ast.parse(source)
        except (OSError, SyntaxError, ValueError) as error:  # ValueError: null bytes, or not in its declared encoding
            return Parsed(module, 0, f"not parsed: {type(error).__name__}")
        kinds = [type(node).__name__ for node in ast.walk(tree)]
        digest = hashlib.sha256(source)
        digest.update(" ".join(kinds).encode("ascii"))
        return Parsed(module, len(kinds), digest.hexdigest())


class Images:
    """Images below ``root``, each decoded and resized to 224 x 224. A broken one is a result that says so."""

    def __init__(self, root: Path, files: Sequence[Path]) -> None:
        self.root = root
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Decoded:
        from PIL import Image  # an extra

        path = self.files[index]
        name = str(path.relative_to(self.root))
        try:
            with Image.open(path) as image:
                size = image.size
                small = image.convert("RGB").resize(_SMALL)
        except Exception as error:  # each decoder has its own way to say that a file is broken
            return Decoded(name, (0, 0), f"not decoded: {type(error).__name__}")
        return Decoded(name, size, hashlib.sha256(small.tobytes()).hexdigest())


class Files:
    """Files below ``root``, each hashed by SHA-256. One that can't be read is a result that says so."""

    def __init__(self, root: Path, files: Sequence[Path]) -> None:
        self.root = root
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Hashed:
        path = self.files[index]
        name = str(path.relative_to(self.root))
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                return Hashed(name, file.tell(), digest)
        except OSError as error:
            return Hashed(name, 0, f"not read: {type(error).__name__}")


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be done, in words, and the dataset that does it."""

    title: str
    dataset: Modules | Images | Files
    remark: str = ""


@dataclass(frozen=True, slots=True)
class _Row:
    """A line of the table: one way to do the work. Times are in seconds; ``fault`` is empty when all was right."""

    name: str
    elapsed: float
    first: float
    in_flight: int | None
    fault: str = ""

    def line(self, items: int, serial: float) -> str:
        return (
            f"{self.name:<13}{items / self.elapsed:>10,.1f}{serial / self.elapsed:>10.2f}x"
            f"{1000 * self.first:>11,.1f} ms{'-' if self.in_flight is None else self.in_flight:>17}"
        )


def run(folder: Path | None, workers: int | None) -> int:
    """Do the work of a folder (``None``: the standard library's) in every way, and print the table.

    Return 0, 1 where a result differs from the serial loop's, or 2 where there is nothing to work on.
    """
    try:
        work = find_work(folder)
    except NothingToDoError as error:
        print(f"ordmap demo: {error}", file=sys.stderr)
        return 2
    workers = workers or usable_cores()
    dataset = work.dataset
    nbytes = _read_once(dataset.files)
    print(f"{work.title}: {len(dataset):,} files, {nbytes:,} bytes, in {_printable(dataset.root)}")
    if work.remark:
        print(work.remark)
    print(f"Workers: {workers}; window: {_AHEAD * workers} items. The times are of the whole call, start-up included.")
    print(f"\n{_HEADING}", flush=True)

    serial, expected = _serial_loop(dataset)
    print(serial.line(len(dataset), serial.elapsed), flush=True)
    rows: list[_Row] = []
    for backend in MEASURED:
        row = _measure(dataset, expected, backend, workers)
        print(row.line(len(dataset), serial.elapsed) if not row.fault else f"{row.name:<13}WRONG", flush=True)
        rows.append(row)

    print()
    faults = [row for row in rows if row.fault]
    for row in faults:
        print(f"ordmap demo: {row.name}: {row.fault}", file=sys.stderr)
    if not faults:
        print(f"Every backend gave all {len(dataset):,} results, in order, and each equals the serial loop's.")
    refused = sum(": " in result.digest for result in expected)
    if refused:
        print(f"({refused:,} of them say why a file could not be used.)")
    return 1 if faults else 0


def find_work(folder: Path | None) -> Work:
    """Choose what to do with the files of a folder, or of the standard library's; raise `NothingToDoError`."""
    if folder is None:
        library = Path(sysconfig.get_path("stdlib"))
        modules = [path for path in _files_below(library, leave_out=_NOT_LIBRARY) if path.suffix == ".py"]
        if not modules:
            raise NothingToDoError(f"the standard library has no source files in {_printable(library)}: give a FOLDER")
        return Work("Parsing every module of the standard library", Modules(library, modules))
    try:
        os.scandir(folder).close()
    except OSError as error:
        raise NothingToDoError(f"can't use the folder {_printable(folder)}: {error.strerror}") from None
    files = list(_files_below(folder))
    if not files:
        raise NothingToDoError(f"the folder {_printable(folder)} has no files in it")
    images = [path for path in files if path.suffix.lower() in _IMAGE_SUFFIXES]
    if not images:
        return Work("Hashing every file", Files(folder, files))
    if importlib.util.find_spec("PIL") is None:
        return Work("Hashing every file", Files(folder, files), 'To decode the images: pip install "ordmap[images]"')
    others = len(files) - len(images)
    remark = f"Files that are not images, and left out: {others:,}." if others else ""
    return Work("Decoding and resizing every image", Images(folder, images), remark)


def _files_below(root: Path, leave_out: frozenset[str] = frozenset()) -> Iterator[Path]:
    """Yield the regular files of a folder and of the folders in it, sorted; folders that can't be opened give none."""
    for where, folders, names in os.walk(root):
        folders[:] = sorted(set(folders) - leave_out)
        for name in sorted(names):
            path = Path(where, name)
            with suppress(OSError):
                if path.is_file():  # not a pipe or a device, whose reading may never end
                    yield path


def _read_once(files: Sequence[Path]) -> int:
    """Read every file, so that the plain loop is not the one that waits for the disk; return the number of bytes."""
    total = 0
    for path in files:
        with suppress(OSError), path.open("rb", buffering=0) as file:
            while block := file.read(1 << 20):
                total += len(block)
    return total


def _serial_loop(dataset: Dataset[Any]) -> tuple[_Row, list[Any]]:
    """Do the work without ordmap: return its row, and the results that every other way must give."""
    began = time.perf_counter()
    results = [dataset[0]]
    first = time.perf_counter() - began
    results += [dataset[i] for i in range(1, len(dataset))]
    return _Row("serial loop", time.perf_counter() - began, first, None), results


def _measure(dataset: Dataset[Any], expected: Sequence[Any], backend: str, workers: int) -> _Row:
    """Do the work on a backend, and compare each result as it comes."""
    window = _AHEAD * workers
    nothing = object()
    first = 0.0
    index = 0
    began = time.perf_counter()
    try:
        with ordered_imap(dataset, workers, window, backend=backend) as results:
            for index, (result, wanted) in enumerate(zip_longest(results, expected, fillvalue=nothing)):
                first = first or time.perf_counter() - began
                if result != wanted:
                    gave = "nothing" if result is nothing else repr(result)
                    loop = "nothing" if wanted is nothing else repr(wanted)
                    return _Row(backend, 0.0, 0.0, None, f"item {index} is {gave}, and the serial loop's is {loop}")
            in_flight = results.stats.most_in_flight
    except Exception as error:
        return _Row(backend, 0.0, 0.0, None, f"item {index + 1 if first else 0}: {type(error).__name__}: {error}")
    elapsed = time.perf_counter() - began
    fault = f"{in_flight} items were in flight, more than the window of {window}" if in_flight > window else ""
    return _Row(backend, elapsed, first, in_flight, fault)


def _printable(path: Path) -> str:
    """Return a path as any terminal can show it."""
    return ascii(str(path))
