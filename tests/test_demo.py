"""The command ``ordmap demo``: real runs on small folders, its exit codes and its table, and its datasets."""

from __future__ import annotations

import hashlib
import os
import random
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

import ordmap.__main__
from ordmap import __version__, demo
from ordmap.demo import MEASURED
from ordmap.resources import usable_cores
from ordmap.testing import wait_until

ROW = re.compile(r"(serial loop|\w+) +([\d,]+\.\d) +(\d+\.\d\d)x +([\d,]+\.\d) ms +(-|\d+)")


def ordmap_command(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ordmap", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        **options,
    )


def table(output: str) -> dict[str, list[str]]:
    """Return the table's rows: name -> items/s, speed-up, first item, most in flight."""
    return {row[1]: [row[i] for i in range(2, 6)] for row in map(ROW.fullmatch, output.splitlines()) if row}


def check_good_run(done: subprocess.CompletedProcess[str], items: int, window: int) -> None:
    assert (done.returncode, done.stderr) == (0, "")
    rows = table(done.stdout)
    assert list(rows) == ["serial loop", *MEASURED]
    assert f"Every backend gave all {items:,} results, in order" in done.stdout
    for speed, _, first, _ in rows.values():
        assert float(speed.replace(",", "")) > 0
        assert float(first.replace(",", "")) >= 0
    assert rows["serial loop"][1] == "1.00"
    in_flight = {name: row[3] for name, row in rows.items()}
    assert in_flight.pop("serial loop") == "-"
    assert in_flight.pop("serial") == "1"
    assert set(in_flight.values()) == {str(min(items, window))}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder of plain files of very different sizes, some of them in folders below it."""
    folder = tmp_path / "files"
    random_bytes = random.Random(1).randbytes
    for i in range(40):
        path = folder / f"{i % 3}" / f"{i % 2}" / f"file {i}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(random_bytes(i**3))
    return folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of JPEG and PNG images, one of them broken, and a file that is none."""
    folder = tmp_path / "images"
    (folder / "deep" / "er").mkdir(parents=True)
    for i in range(12):
        size = (10 + 37 * i, 300 - 20 * i)
        if i % 2:
            Image.new("RGB", size, (20 * i, 255 - 20 * i, 128)).save(folder / f"{i:02}.JPG", "JPEG")
        else:
            Image.linear_gradient("L").resize(size).save(folder / "deep" / "er" / f"{i:02}.png")
    (folder / "05.JPG").write_bytes((folder / "03.JPG").read_bytes()[:700])
    (folder / "notes.txt").write_text("not an image", encoding="utf-8")
    return folder


@pytest.mark.long
def test_every_module_of_the_standard_library_is_parsed() -> None:
    done = ordmap_command("demo", "--workers", 2)
    first_line = done.stdout.partition("\n")[0]
    items = re.match(r"Parsing every module of the standard library: (\d+) files, [\d,]+ bytes, in ", first_line)
    assert items, done
    assert int(items[1]) > 300
    assert "Workers: 2; window: 32 items." in done.stdout
    check_good_run(done, int(items[1]), 32)


def test_a_folder_of_files_is_hashed(files: Path) -> None:
    done = ordmap_command("demo", files, "--workers", 1)
    nbytes = sum(i**3 for i in range(40))
    assert done.stdout.startswith(f"Hashing every file: 40 files, {nbytes:,} bytes, in {ascii(str(files))}\n")
    assert "Workers: 1; window: 16 items." in done.stdout
    check_good_run(done, 40, 16)


def test_a_folder_of_images_is_decoded(images: Path) -> None:
    done = ordmap_command("demo", "--workers", 3, images)
    assert done.stdout.startswith("Decoding and resizing every image: 12 files, ")
    assert "Files that are not images, and left out: 1.\n" in done.stdout
    assert "(1 of them say why a file could not be used.)\n" in done.stdout
    check_good_run(done, 12, 48)


def test_without_the_option_there_are_as_many_workers_as_usable_cores(tmp_path: Path) -> None:
    (tmp_path / "one").touch()
    done = ordmap_command("demo", tmp_path)
    assert f"Workers: {usable_cores()};" in done.stdout
    check_good_run(done, 1, 16)


def test_what_is_no_regular_file_is_left_out(files: Path) -> None:
    (files / "link").symlink_to(files / "0")  # a folder, which might be above this one
    (files / "dangling").symlink_to(files / "nothing")
    os.mkfifo(files / "pipe")  # reading it would never end
    check_good_run(ordmap_command("demo", files, "--workers", 1), 40, 16)


@pytest.mark.parametrize("kind", ["missing", "empty", "file", "only folders"])
def test_nothing_to_do_is_one_clear_line(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "it"
    if kind == "file":
        folder.touch()
    elif kind != "missing":
        folder.mkdir()
    if kind == "only folders":
        (folder / "one" / "two").mkdir(parents=True)
    done = ordmap_command("demo", folder)
    assert (done.returncode, done.stdout) == (2, "")
    why = {"missing": "No such file or directory", "file": "Not a directory"}.get(kind, "has no files in it")
    assert re.fullmatch(rf"ordmap demo: [^\n]*{re.escape(ascii(str(folder)))}[^\n]*{why}\n", done.stderr)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((), "the following arguments are required: COMMAND"),
        (("dem",), "invalid choice: 'dem'"),
        (("demo", "--workers", "0"), "'0': write a whole number, at least 1"),
        (("demo", "--workers", "two"), "'two': write a whole number, at least 1"),
    ],
)
def test_bad_arguments_end_with_2(arguments: tuple[str, ...], why: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        ordmap.__main__.main(arguments)
    assert caught.value.code == 2
    assert why in capsys.readouterr().err


def test_the_console_command_is_the_module(capsys: pytest.CaptureFixture[str]) -> None:
    command = Path(sys.executable).with_name("ordmap")
    if not command.exists():
        pytest.skip("ordmap is not installed here, only on the path")
    done = subprocess.run([command, "--version"], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"ordmap {__version__}\n", "")


def test_ctrl_c_is_one_clean_line(tmp_path: Path) -> None:
    for n in range(32):
        with (tmp_path / f"{n}.bin").open("wb") as file:
            file.truncate(32_000_000)
    with subprocess.Popen(
        [sys.executable, "-m", "ordmap", "demo", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        for line in process.stdout:
            if line.startswith("threads"):
                break
        # Not while the processes' modules are imported: Python 3.12 ignores Ctrl-C in a callback of its own import.
        born = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        if born.exists():
            wait_until(born.read_text, "workers are born")
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does it: to all
        _, errors = process.communicate(timeout=60)
    assert errors == "ordmap demo: interrupted\n"
    # Python itself sees to the second, where the exception has passed through code given as a text, such as that which
    # makes a named tuple. A shell says 130 to either.
    assert process.returncode in {130, -signal.SIGINT}


def test_a_reader_who_leaves_gets_no_traceback(files: Path) -> None:
    done = subprocess.run(
        f'"{sys.executable}" -m ordmap demo "{files}" | head -n 1',
        shell=True,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Hashing every file")


class Wrong(demo.Files):
    """Gives something else in a thread of ours."""

    def __getitem__(self, index: int) -> demo.Hashed:
        import threading

        result = super().__getitem__(index)
        if index == 3 and threading.current_thread().name.startswith("ordmap-"):
            return result._replace(digest="something else")
        return result


class Raising(demo.Files):
    """Raises in a thread of ours."""

    def __getitem__(self, index: int) -> demo.Hashed:
        import threading

        if index == 3 and threading.current_thread().name.startswith("ordmap-"):
            raise LookupError("no such luck")
        return super().__getitem__(index)


@pytest.mark.parametrize(
    ("dataset", "fault"),
    [
        (Wrong, r"item 3 is Hashed\(.*'something else'\), and the serial loop's is Hashed\(.*\)"),
        (Raising, r"item 3: LookupError: no such luck"),
    ],
)
def test_a_result_that_differs_is_named(
    files: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    dataset: type[demo.Files],
    fault: str,
) -> None:
    found = demo.find_work(files)
    wrong = demo.Work(found.title, dataset(files, found.dataset.files))
    monkeypatch.setattr(demo, "find_work", lambda _: wrong)
    assert demo.run(files, 2) == 1
    output = capsys.readouterr()
    assert re.fullmatch(rf"ordmap demo: threads: {fault}\n", output.err)
    assert re.search(r"^threads +WRONG$", output.out, re.MULTILINE)
    assert list(table(output.out)) == ["serial loop", *(name for name in MEASURED if name != "threads")]
    assert "Every backend" not in output.out


@pytest.mark.parametrize("extra", [-1, 1])
def test_too_few_or_too_many_results_are_seen(files: Path, monkeypatch: pytest.MonkeyPatch, extra: int) -> None:
    dataset = demo.find_work(files).dataset
    expected = [dataset[i] for i in range(len(dataset))]
    expected = expected[:-1] if extra == 1 else [*expected, expected[0]]
    row = demo._measure(dataset, expected, "threads", 2)
    place = 39 if extra == 1 else 40
    assert row.fault.startswith(f"item {place} is ")
    assert ("and the serial loop's is nothing" in row.fault) is (extra == 1)
    assert ("is nothing, and" in row.fault) is (extra == -1)


def test_a_window_that_is_passed_is_a_fault(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = demo.find_work(files).dataset
    expected = [dataset[i] for i in range(len(dataset))]
    stats = SimpleNamespace(most_in_flight=33)
    monkeypatch.setattr("ordmap.iterator.OrderedIterator.stats", stats)
    row = demo._measure(dataset, expected, "threads", 2)
    assert row.fault == "33 items were in flight, more than the window of 32"


def test_modules(tmp_path: Path) -> None:
    (tmp_path / "package" / "sub").mkdir(parents=True)
    sources = {
        "broken.py": b"def :",
        "latin.py": b"x = '\xe9'\n",
        "null.py": b"a\0b",
        "package/__init__.py": b"",
        "package/sub/one.py": b"x = 1\n",
    }
    for name, source in sources.items():
        (tmp_path / name).write_bytes(source)
    modules = demo.Modules(tmp_path, [tmp_path / name for name in [*sources, "missing.py"]])
    broken, latin, null, empty, one, missing = (modules[i] for i in range(len(modules)))
    assert broken == ("broken", 0, "not parsed: SyntaxError")
    assert latin == ("latin", 0, "not parsed: SyntaxError")
    assert null.nodes == 0
    assert null.digest in {"not parsed: SyntaxError", "not parsed: ValueError"}
    assert missing == ("missing", 0, "not parsed: FileNotFoundError")
    assert empty == ("package", 1, hashlib.sha256(b"Module").hexdigest())
    tree = b"Module Assign Name Constant Store"
    assert one == ("package.sub.one", 5, hashlib.sha256(b"x = 1\n" + tree).hexdigest())


def test_files(files: Path) -> None:
    dataset = demo.find_work(files).dataset
    assert isinstance(dataset, demo.Files)
    names = [dataset[i].name for i in range(len(dataset))]
    assert sorted(names) == sorted(str(path.relative_to(files)) for path in files.rglob("*.bin"))
    path = dataset.files[7]
    content = path.read_bytes()
    assert dataset[7] == (names[7], len(content), hashlib.sha256(content).hexdigest())
    path.unlink()
    assert dataset[7] == (names[7], 0, "not read: FileNotFoundError")


def test_images(images: Path) -> None:
    work = demo.find_work(images)
    assert isinstance(work.dataset, demo.Images)
    results = {result.name: result for result in (work.dataset[i] for i in range(len(work.dataset)))}
    assert len(results) == 12
    assert results.pop("05.JPG")[1:] == ((0, 0), "not decoded: OSError")
    assert results["03.JPG"].size == (121, 240)
    pixels = Image.open(images / "03.JPG").convert("RGB").resize((224, 224)).tobytes()
    assert results["03.JPG"].digest == hashlib.sha256(pixels).hexdigest()
    assert results[str(Path("deep", "er", "02.png"))].size == (84, 260)
    assert len({result.digest for result in results.values()}) == 11


def test_images_are_hashed_without_pillow(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    work = demo.find_work(images)
    assert isinstance(work.dataset, demo.Files)
    assert len(work.dataset) == 13
    assert 'pip install "ordmap[images]"' in work.remark


def test_a_standard_library_without_sources_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path / "python.zip"))
    assert ordmap.__main__.main(["demo"]) == 2
    assert "has no source files" in capsys.readouterr().err


def test_an_unusual_name_fits_on_a_plain_terminal(tmp_path: Path) -> None:
    folder = tmp_path / "é\udcff\n"
    folder.mkdir()
    (folder / "ü").touch()
    done = ordmap_command("demo", folder, "--workers", "1", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.stdout.isascii()
    check_good_run(done, 1, 16)
