"""The house: dependencies run downwards only, and everything public says what it is."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

import ordmap

SOURCE = Path(ordmap.__file__).parent

#: From the ground up: a module may import from those before it, and from its own floor where a set holds several.
FLOORS = [
    {
        "c_types",
        "dataset",
        "enums",
        "errors",
        "frames",
        "interrupts",
        "item",
        "names",
        "placing",
        "policy",
        "real_time",
        "relay",
        "resources",
        "shielded",
        "signalled",
        "shuffle",
        "sizes",
        "telling",
        "tracebacks",
        "unwarned",
        "when_imported",
    },
    {
        "context",
        "digest",
        "hooks",
        "imports",
        "listed",
        "marks",
        "namespace",
        "places",
        "pulling",
        "rng",
        "surroundings",
    },
    {"chunk", "reducers.purpose", "vocabulary"},
    {
        "reducers.files",
        "reducers.instances",
        "reducers.labels",
        "reducers.mappings",
        "reducers.tables",
        "reducers.tensors",
    },
    {"reducers.arrays", "reducers.errors"},
    {"reducers.dispatching"},
    {"reducers"},
    {"by_value", "rows"},
    {"changes", "sparing", "states"},
    {"exceptions", "samplers"},
    {"generators"},
    {"indices", "limit", "outcome", "pace"},
    {"apart", "arguments"},
    {"repeats"},
    {"backends.promises"},
    {"backends"},
    {
        "backends.cores",
        "backends.forking",
        "backends.inbox",
        "backends.inputs",
        "backends.logs",
        "backends.pool",
        "backends.reach",
        "backends.streams",
        "backends.variables",
        "backends.watch",
    },
    {"backends.loads", "backends.sharing", "backends.unsendable"},
    {"backends.remote"},
    {"backends.asyncio", "backends.executor", "backends.serial", "backends.threads"},
    {"backends.portable"},
    {"engine.kernel"},
    {"engine"},
    {
        "engine.bystanders",
        "engine.courtesy",
        "engine.disown",
        "engine.last_words",
        "engine.openmp",
        "engine.points",
        "engine.terminal",
        "engine.wear",
    },
    {
        "engine.board",
        "engine.channel",
        "engine.child",
        "engine.clock",
        "engine.memory",
        "engine.message",
        "engine.trackers",
    },
    {"engine.used_streams"},
    {"engine.inherited"},
    {"engine.blocks", "engine.crates", "engine.executable", "engine.parcel", "engine.primed", "engine.shelf"},
    {"engine.codec", "engine.loads"},
    {"engine.worker"},
    {"engine.staff"},
    {"engine.ending", "engine.groups", "engine.jobs", "engine.vigil"},
    {"engine.fork", "engine.ledger", "engine.pool", "engine.run", "engine.spawn"},
    {"engine.backends"},
    {"backends.processes"},
    {"dropping", "window"},
    {"solo"},
    {"awaiting"},
    {"iterator"},
    {"imap", "views"},
    {"parallel"},
    {"frozen"},
    {""},
    {"demo", "testing"},
    {"__main__"},
]

HEIGHT = {name: height for height, floor in enumerate(FLOORS) for name in floor}

#: Looked up by name when they are used, so that nobody pays for a backend that isn't.
LAZY = {("backends", "backends.executor"), ("", "backends.executor"), ("", "backends.processes"), ("", "backends.asyncio"),
        ("", "backends.serial"), ("", "backends.threads")}  # fmt: skip


def modules():
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "ordmap":
            inside = node.module.removeprefix("ordmap").removeprefix(".")
            for alias in node.names:
                deeper = f"{inside}.{alias.name}".removeprefix(".")
                yield deeper if deeper in HEIGHT and deeper else inside
        elif isinstance(node, ast.Import):
            yield from (
                a.name.removeprefix("ordmap").removeprefix(".") for a in node.names if a.name.startswith("ordmap")
            )


@pytest.mark.parametrize(("name", "path"), list(modules()))
def test_dependencies_run_downwards(name, path):
    assert name in HEIGHT, "a new module: say on which floor it lives"
    for imported in imports(path):
        if (name, imported) not in LAZY:
            assert HEIGHT[imported] <= HEIGHT[name] and imported != name, f"{name} imports {imported}"


@pytest.mark.parametrize(("name", "path"), list(modules()))
def test_no_clock_is_read_that_a_test_may_have_set(name, path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    froms = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    if name != "real_time":
        assert not {"time", "datetime", "timeit"} & {*imported, *froms}, "clocks are those of ordmap.real_time"


@pytest.mark.parametrize("name", ordmap.__all__)
def test_every_public_name_is_there_and_documented(name):
    thing = getattr(ordmap, name)
    assert name in dir(ordmap)
    assert inspect.getdoc(thing)
    for attribute, member in vars(thing).items() if inspect.isclass(thing) else ():
        if not attribute.startswith("_") and callable(member):
            assert inspect.getdoc(getattr(thing, attribute)), f"{name}.{attribute}"


def test_there_is_no_other_name():
    with pytest.raises(AttributeError, match="no attribute 'orderd_imap'"):
        ordmap.orderd_imap  # noqa: B018
