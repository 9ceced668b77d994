"""Is what has travelled what was sent? Both are made by the same function, in the process that asks."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from types import FunctionType, ModuleType
from typing import Any

import of_arrays
import of_errors
import of_python

#: Distributions whose modules run threads that don't survive a fork: what comes after them has fresh interpreters.
LAST = ("numba", "grpcio", "polars", "zarr")

_made: dict[str, dict[str, Callable[[], Any]]] = {}


def libraries(module: ModuleType) -> list[str]:
    """Return the distributions that a module has kinds of, and that are installed."""
    found = [
        name for name, thing in vars(module).items() if type(thing) is FunctionType and thing.__code__.co_argcount == 0
    ]
    found = [name for name in found if not name.startswith("_") and thing_is_of(module, name) and is_installed(name)]
    return sorted(found, key=lambda name: LAST.index(name) + 1 if name in LAST else 0)


def thing_is_of(module: ModuleType, name: str) -> bool:
    return vars(module)[name].__module__ == module.__name__ and name != "words"


def is_installed(library: str) -> bool:
    if library in {"python", "memmap"}:
        return library == "python" or is_installed("numpy")
    try:
        version(library)
    except PackageNotFoundError:
        return False
    return True


def kinds() -> list[str]:
    """Return the names of all kinds: role, library and what it is."""
    modules = [("object", of_python), ("object", of_arrays), ("error", of_errors)]
    pairs = [(role, module, library) for role, module in modules for library in libraries(module)]
    pairs.sort(key=lambda pair: LAST.index(pair[2]) + 1 if pair[2] in LAST else 0)
    return [f"{role}/{library}/{name}" for role, module, library in pairs for name in _makers(role, library)]


def _makers(role: str, library: str) -> dict[str, Callable[[], Any]]:
    key = f"{role}/{library}"
    if key not in _made:
        module = of_errors if role == "error" else of_python if library == "python" else of_arrays
        _made[key] = getattr(module, library)()
    return _made[key]


def make(kind: str) -> Any:
    """Return an object of a kind; an error is raised."""
    role, library, name = kind.split("/", 2)
    return _makers(role, library)[name]()


def judge(pair: tuple[str, Any]) -> str:
    """Return what is wrong with an object that has come as an input; "": nothing."""
    kind, got = pair
    return difference(make(kind), got)


def difference(expected: Any, got: Any) -> str:
    """Return how an object differs from what was sent; "": it doesn't."""
    if type(got) is not type(expected):
        return f"it comes as {type(got).__module__}.{type(got).__qualname__}"
    try:
        return _difference(expected, got)
    except Exception as error:
        traceback.print_exc()
        return f"it can't be compared: {type(error).__name__}: {error}"


def _difference(expected: Any, got: Any) -> str:
    if isinstance(expected, BaseException):
        return _difference_of_errors(expected, got)
    for library, compare in _COMPARISONS.items():
        if library in sys.modules:
            verdict = compare(sys.modules[library], expected, got)
            if verdict is not None:
                return "" if verdict is True else verdict or "it is not equal"
    if callable(expected) and not isinstance(expected, type) and hasattr(expected, "__code__"):
        return "" if expected(2) == got(2) else "it is not equal"
    if isinstance(expected, memoryview):
        same = (got.format, got.shape, got.readonly) == (expected.format, expected.shape, expected.readonly)
        return "" if same and got == expected else "it is not equal"
    alike = expected == got or (expected != expected and got != got) or _said(expected) == _said(got)  # noqa: PLR0124
    own = _attributes(expected) == _attributes(got)
    return "" if alike and own else "it is not equal" if own else "its attributes are not equal"


def _of_numpy(np: Any, expected: Any, got: Any) -> bool | str | None:
    if isinstance(expected, np.random.Generator):
        return bool(expected.random() == got.random())
    if not isinstance(expected, np.ndarray):
        return None
    if (expected.dtype, expected.shape) != (got.dtype, got.shape):
        return f"it is of {got.dtype} {got.shape}"
    if expected.flags.writeable and not got.flags.writeable:
        return "it is read-only"
    if isinstance(expected, np.ma.MaskedArray):
        return bool((expected.mask == got.mask).all() and (expected == got).all())
    return bool(np.array_equal(expected, got)) and vars_alike(expected, got)


def vars_alike(expected: Any, got: Any) -> bool:
    return {**getattr(expected, "__dict__", {})}.keys() == {**getattr(got, "__dict__", {})}.keys()


def _of_pandas(pd: Any, expected: Any, got: Any) -> bool | str | None:
    kinds = {pd.DataFrame: "frame", pd.Series: "series", pd.Index: "index"}
    for kind, name in kinds.items():
        if isinstance(expected, kind):
            getattr(pd.testing, f"assert_{name}_equal")(expected, got)
            return getattr(expected, "attrs", None) == getattr(got, "attrs", None)
    if isinstance(expected, pd.Categorical):
        return bool((expected == got).all() and expected.ordered == got.ordered)
    return True if expected is pd.NA or expected is pd.NaT else None


def _of_pyarrow(pa: Any, expected: Any, got: Any) -> bool | str | None:
    return (
        bool(expected.equals(got))
        if hasattr(expected, "equals") and hasattr(expected, "get_total_buffer_size")
        else None
    )


def _of_polars(pl: Any, expected: Any, got: Any) -> bool | str | None:
    if isinstance(expected, pl.Expr):
        return bool(expected.meta.eq(got))
    if isinstance(expected, pl.LazyFrame):
        expected, got = expected.collect(), got.collect()
    return bool(expected.equals(got)) if isinstance(expected, pl.DataFrame | pl.Series) else None


def _of_scipy(scipy: Any, expected: Any, got: Any) -> bool | str | None:
    if not scipy.issparse(expected):
        return None
    return bool(expected.shape == got.shape and (expected != got).nnz == 0)


def _of_xarray(xr: Any, expected: Any, got: Any) -> bool | str | None:
    return bool(expected.identical(got)) if isinstance(expected, xr.DataArray | xr.Dataset) else None


def _of_pillow(image: Any, expected: Any, got: Any) -> bool | str | None:
    if not isinstance(expected, image.Image):
        return None
    return (expected.mode, expected.size, expected.tobytes()) == (got.mode, got.size, got.tobytes())


def _of_torch(torch: Any, expected: Any, got: Any) -> bool | str | None:
    if not isinstance(expected, torch.Tensor):
        return None
    facts = [(t.dtype, t.shape, t.layout, t.requires_grad, t.is_conj(), vars(t)) for t in (expected, got)]
    if facts[0] != facts[1]:
        return f"it is {facts[1]}"
    if expected.layout is torch.strided and expected.stride() != got.stride() and expected.numel() > 1:
        return "" if expected._base is not None else f"it has strides {got.stride()}"
    return bool((expected.detach().to_dense() == got.detach().to_dense()).all())


_COMPARISONS: dict[str, Callable[[Any, Any, Any], bool | str | None]] = {
    "torch": _of_torch,
    "numpy": _of_numpy,
    "pandas": _of_pandas,
    "pyarrow": _of_pyarrow,
    "polars": _of_polars,
    "scipy.sparse": _of_scipy,
    "xarray": _of_xarray,
    "PIL.Image": _of_pillow,
}


def _attributes(thing: Any) -> dict[str, str]:
    return {name: _said(value) for name, value in getattr(thing, "__dict__", {}).items() if not callable(value)}


#: What differs from one process, or request, to the next.
_PASSING = re.compile(r"0x[0-9a-f]+|\d\d:\d\d:\d\d|127\.0\.0\.1:\d{3,}|created_time.*|\d+\.\d{4,}|\(\+.*")


def _said(thing: Any) -> str:
    return _PASSING.sub("…", repr(thing))


#: What Python prints of an error; an attribute that is not whole is named by a note of ours, and is the error's loss.
_NOTE = "ordmap: what can't be pickled is left out"


def _difference_of_errors(expected: BaseException, got: BaseException) -> str:
    texts = [
        re.sub(r"0x[0-9a-f]+|127\.0\.0\.1:\d{3,}|created_time.*|\d+\.\d{4,}", "…", str(one)) for one in (expected, got)
    ]
    if texts[0] != texts[1]:
        return f"its text is {texts[1]!r}"
    if len(expected.args) != len(got.args):
        return "its args are not equal"
    lost = [note for note in getattr(got, "__notes__", ()) if note.startswith(_NOTE)]
    missing = vars(expected).keys() - vars(got).keys() - {"__notes__"}
    if missing:
        return f"it lacks {', '.join(sorted(missing))}"
    return "but for " + lost[0].rpartition(": ")[2] if lost else ""
