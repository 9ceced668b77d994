#!/usr/bin/env python3
"""Set up and run: all that a fresh clone needs is this file and Python 3.11 or newer.

python3 .ci/dev.py demo [ARGS…]   set up .venv, and run `ordmap demo ARGS`
python3 .ci/dev.py test [ARGS…]   set up .venv with what the tests need, and run `pytest ARGS` in a few processes
python3 .ci/dev.py test-others [ARGS…]
                                  set up .venv with other libraries and servers, and run the tests beside them
python3 .ci/dev.py test-torch     set up .venv with these and PyTorch, and run the tests that need it
python3 .ci/dev.py check          lint, types and docs

The package is built and installed from its wheel, not linked to: what the tests see is what is shipped. It is
installed again when its sources have changed. Nothing outside .venv is touched, so that a Python which is 'externally
managed' does as well as any, also one without the packages venv, ensurepip or pip.
"""

import sys

if sys.version_info < (3, 11):  # before anything that an older Python might lack
    sys.exit(
        "ordmap needs Python 3.11 or newer, and %s is %d.%d: run this file by a newer one, such as python3.13"
        % (sys.executable, sys.version_info[0], sys.version_info[1])
    )

import hashlib
import importlib.util
import json
import os
import re
import ssl
import subprocess
import tempfile
import tomllib
import urllib.error
import urllib.parse
import urllib.request
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = VENV / "ordmap-installed.json"
#: One process more than there are cores, since many tests wait for something.
AT_ONCE = ["-n", str(min((os.cpu_count() or 1) + 1, 4))]
OF_TORCH = "tests/test_torch.py"
INDEX = "https://pypi.org/simple"


class SetUpError(Exception):
    """The set-up can't go on; the message is for the user."""


def main(arguments: list[str]) -> int:
    command, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    if command == "demo":
        set_up([])
        return last([str(PYTHON), "-m", "ordmap", "demo", *rest], at_root=False)
    if command == "test":
        set_up(["test"])
        # Where PyTorch was installed, each of these processes would have it, and be forked with it for each test.
        without = [] if OF_TORCH in rest else [f"--ignore={OF_TORCH}"]
        return last([str(PYTHON), "-m", "pytest", *AT_ONCE, *without, *rest])
    if command == "test-others":
        set_up(["test", "others"])
        named = any("tests/others" in argument for argument in rest)
        chosen = [] if named else ["tests/others", *(f"--ignore={path}" for path in with_torch())]
        return last([str(PYTHON), "-m", "pytest", *AT_ONCE, *chosen, *rest])
    if command == "test-torch" and not rest:
        set_up(["test", "others", "torch"])
        return last([str(PYTHON), "-m", "pytest", OF_TORCH, *with_torch()])
    if command == "check" and not rest:
        set_up(["test", "lint", "docs"])
        return check()
    print(__doc__, file=sys.stdout if command in {"-h", "--help"} else sys.stderr)
    return 0 if command in {"-h", "--help"} else 2


def with_torch() -> list[str]:
    """Return the tests beside other libraries that need PyTorch as well: their names say so."""
    return sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests" / "others").glob("test_torch*.py"))


def check() -> int:
    """Run every check, also after one has failed; return the first exit code that is not 0."""
    code = 0
    for check in (
        ["ruff", "check", "."],
        # Names that are wrong or not used, where the other rules do not go.
        ["ruff", "check", "--isolated", "--select", "F", "tests", "benchmarks", "examples"],
        ["ruff", "format", "--check", "."],
        ["mypy"],
        ["sphinx", "-W", "-n", "-q", "docs", "docs/_build/html"],
    ):
        say("check: " + " ".join(check))
        code = subprocess.call([str(PYTHON), "-m", *check], cwd=ROOT) or code
    return code if code >= 0 else 128 - code


def last(command: list[str], *, at_root: bool = True) -> int:
    """Become that command, so that its exit code, its terminal and its Ctrl-C are its own."""
    sys.stdout.flush()
    if at_root:
        os.chdir(ROOT)
    if os.name == "nt":  # there, the shell would not wait for it
        return subprocess.call(command)
    os.execv(command[0], command)


def set_up(groups: list[str]) -> None:
    """Make .venv hold the package as its sources are now, and these dependency groups."""
    make_venv()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = {"": project["project"]["dependencies"]}
    wanted.update({group: requirements(project["dependency-groups"], group) for group in groups})
    installed = read_stamp()

    lacking = {name: listed for name, listed in wanted.items() if installed["groups"].get(name) != listed}
    if lacking:
        say("installing what " + (f"{' and '.join(filter(None, lacking))} needs" if any(lacking) else "ordmap needs"))
        pip("install", *sorted({requirement for listed in wanted.values() for requirement in listed}))
        installed["groups"].update(lacking)
        STAMP.write_text(json.dumps(installed), encoding="utf-8")
    sources = digest_of_sources()
    if installed["sources"] != sources:
        say("building and installing ordmap")
        pip("install", "--force-reinstall", "--no-deps", str(ROOT))
        installed["sources"] = sources
        STAMP.write_text(json.dumps(installed), encoding="utf-8")


def make_venv() -> None:
    """Make .venv, with this version of Python and with pip in it, unless it is there."""
    version = run_quietly([str(PYTHON), "-c", "import sys; print(*sys.version_info[:2])"])
    if version != "%d %d" % sys.version_info[:2]:
        say(f"making {VENV.name} for Python {sys.version_info.major}.{sys.version_info.minor}")
        # pip is not asked for here: where ensurepip is a package of its own, that would end in a traceback.
        venv.EnvBuilder(clear=VENV.is_dir(), symlinks=os.name != "nt").create(VENV)
    if not has_pip([str(PYTHON)]):
        install_pip()


def install_pip() -> None:
    """Put pip into .venv: by ensurepip, or by this Python's own pip, or from pip's wheel on the package index."""
    if importlib.util.find_spec("ensurepip") is not None:
        run_quietly([str(PYTHON), "-m", "ensurepip", "--default-pip"])
    if not has_pip([str(PYTHON)]) and importlib.util.find_spec("pip") is not None:
        run_quietly([sys.executable, "-m", "pip", "--python", str(PYTHON), "install", "-q", "pip"])
    if not has_pip([str(PYTHON)]):
        say("fetching pip from the package index")
        with tempfile.TemporaryDirectory() as folder:
            wheel = fetch_pip(Path(folder))
            # A wheel is a zip file, and pip runs from it.
            call([str(PYTHON), str(wheel / "pip"), "install", "-q", "--no-index", str(wheel)])


def fetch_pip(folder: Path) -> Path:
    """Download the newest wheel of pip that this Python can use; its digest must be the one that the index lists."""
    index = os.environ.get("PIP_INDEX_URL", INDEX).rstrip("/") + "/pip/"
    try:
        files = json.loads(get(index, {"Accept": "application/vnd.pypi.simple.v1+json"}))["files"]
    except (ValueError, KeyError, TypeError):
        raise SetUpError(f"{without_password(index)} is no package index that answers in JSON") from None
    wheels = {}
    for file in files:
        name = re.fullmatch(r"pip-(\d+(?:\.\d+)*)-py3-none-any\.whl", file["filename"])
        needs = re.fullmatch(r">=(\d+)\.(\d+)", (file.get("requires-python") or ">=3.0").replace(" ", ""))
        usable = needs is not None and sys.version_info[:2] >= (int(needs[1]), int(needs[2]))
        if name is not None and usable and not file.get("yanked") and "sha256" in file["hashes"]:
            wheels[tuple(map(int, name[1].split(".")))] = file
    if not wheels:
        raise SetUpError(f"{without_password(index)} lists no wheel of pip for this Python")
    newest = wheels[max(wheels)]
    content = get(urllib.parse.urljoin(index, newest["url"]))
    if hashlib.sha256(content).hexdigest() != newest["hashes"]["sha256"]:
        raise SetUpError(f"{newest['filename']} is not what the package index says that it is")
    wheel = folder / newest["filename"]
    wheel.write_bytes(content)
    return wheel


def get(url: str, headers: "dict[str, str] | None" = None) -> bytes:
    """Return what is at an address."""
    parts = urllib.parse.urlsplit(url)
    passwords = urllib.request.HTTPPasswordMgrWithPriorAuth()
    if parts.username is not None:
        url = without_password(url)
        user, password = urllib.parse.unquote(parts.username), urllib.parse.unquote(parts.password or "")
        passwords.add_password(None, url, user, password, is_authenticated=True)
    opener = urllib.request.build_opener(
        urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=os.environ.get("PIP_CERT"))),
        urllib.request.HTTPBasicAuthHandler(passwords),
    )
    try:
        with opener.open(urllib.request.Request(url, headers=headers or {}), timeout=60) as answer:
            return answer.read()
    except (OSError, ValueError) as error:
        raise SetUpError(f"can't fetch {without_password(url)}: {error}") from None


def without_password(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def requirements(groups: dict, name: str) -> list[str]:
    """Return what a dependency group of pyproject.toml lists, with the groups that it includes."""
    listed = []
    for entry in groups[name]:
        listed += [entry] if isinstance(entry, str) else requirements(groups, entry["include-group"])
    return listed


def digest_of_sources() -> str:
    """Return a digest of every file that the wheel is made from."""
    digest = hashlib.sha256()
    sources = [path for path in (ROOT / "src").rglob("*") if path.is_file() and path.suffix != ".pyc"]
    for path in sorted([*sources, *(ROOT / name for name in ("pyproject.toml", "README.md", "LICENSE"))]):
        content = path.read_bytes() if path.exists() else b""
        digest.update(f"{path.relative_to(ROOT)}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def read_stamp() -> dict:
    """Return what is installed: a digest of the sources, and the requirements of each group."""
    try:
        stamp = json.loads(STAMP.read_text(encoding="utf-8"))
        return {"sources": str(stamp["sources"]), "groups": dict(stamp["groups"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {"sources": "", "groups": {}}


def pip(*arguments: str) -> None:
    call([str(PYTHON), "-m", "pip", "--disable-pip-version-check", *arguments, "-q"])


def has_pip(python: list[str]) -> bool:
    return run_quietly([*python, "-m", "pip", "--version"]) is not None


def run_quietly(command: list[str]) -> "str | None":
    """Return what a command prints, or None where it can't be run or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def call(command: list[str]) -> None:
    """Run a command; end with its exit code where it fails."""
    code = subprocess.call(command)
    if code:
        raise SystemExit(code if code > 0 else 128 - code)


def say(what: str) -> None:
    print(f"dev: {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except SetUpError as error:
        sys.exit(f"dev: {error}")
    except KeyboardInterrupt:
        say("interrupted")
        sys.exit(130)
