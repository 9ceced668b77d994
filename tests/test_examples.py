"""The examples run, give the same with workers as without, and give what is right."""

from __future__ import annotations

import gzip
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name: str, *arguments: object, workers: int) -> str:
    command = [sys.executable, "-W", "error", EXAMPLES / name, *map(str, arguments), "--workers", str(workers)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def alike(name: str, *arguments: object) -> str:
    """Return what an example prints, which is the same with workers as without."""
    found = run(name, *arguments, workers=2)
    assert found == run(name, *arguments, workers=0)
    return found


#: It is never imported here: a process that has used it can't well be forked.
with_av = pytest.mark.skipif(find_spec("av") is None, reason="PyAV is not installed")


@with_av
def test_the_frames_of_a_video_come_out_in_order(tmp_path):
    np = pytest.importorskip("numpy")
    path, frames = tmp_path / "edges.mp4", tmp_path / "frames.npy"
    assert re.fullmatch(r"30 frames, checksum [0-9a-f]{8}\n", alike("video.py", path, "--frames", 30))
    decode = (
        "import sys, av, numpy\n"
        "with av.open(sys.argv[1]) as video:\n"
        "    numpy.save(sys.argv[2], [frame.to_ndarray(format='gray') for frame in video.decode(video=0)])\n"
    )
    subprocess.run([sys.executable, "-c", decode, path, frames], check=True, timeout=60)
    images = np.load(frames)
    assert len(images) == 30
    # What is bright is the outline of the square, which moves to the right, and is dark inside.
    places = [np.flatnonzero((image > 100).sum(axis=0) > 20) for image in images]
    assert all(len(columns) and 28 <= columns[-1] - columns[0] <= 36 for columns in places)
    lefts = [columns[0] for columns in places]
    assert lefts == sorted(lefts)
    assert lefts[-1] - lefts[0] > 100


@with_av
def test_a_thread_may_have_workers_where_the_main_one_has_converted_frames(tmp_path):
    pytest.importorskip("numpy")
    path, script = tmp_path / "edges.mp4", tmp_path / "script.py"
    run("video.py", path, "--frames", 10, workers=0)
    script.write_text(
        "import sys, threading, av\n"
        "from ordmap import ordered_map\n"
        "with av.open(sys.argv[1]) as video:\n"
        "    for frame in video.decode(video=0): frame.to_ndarray(format='rgb24')\n"
        "def loop(): print(list(ordered_map(abs, range(5), workers=2)))\n"
        "loop()\n"
        "thread = threading.Thread(target=loop)\n"
        "thread.start()\n"
        "thread.join()\n"
    )
    done = subprocess.run([sys.executable, script, path], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "[0, 1, 2, 3, 4]\n" * 2)
    assert "PyAV is in use and does not survive a fork in another thread than the main one" in done.stderr


@with_av
def test_a_video_of_the_user_s_is_taken(tmp_path):
    pytest.importorskip("numpy")
    first, second = tmp_path / "first.mp4", tmp_path / "second.mp4"
    run("video.py", first, "--frames", 10, workers=0)
    assert alike("video.py", second, "--video", first).startswith("10 frames, ")


def test_a_log_is_added_up(tmp_path):
    log = tmp_path / "access.log.gz"
    lines = [
        '::1 - - [10/Oct/2025:22:59:59 +0000] "GET /a?q=1 HTTP/1.1" 200 100 30',
        '::1 - - [10/Oct/2025:23:00:00 +0000] "GET /b HTTP/1.1" 304 - 90',
        "no line of a log",
        '::1 - - [10/Oct/2025:23:59:59 +0000] "GET /b HTTP/1.1" 200 7 11',
        '::1 - - [11/Oct/2025:00:00:00 +0000] "GET /a?q=2 HTTP/1.1" 200 5 80',
    ]
    with gzip.open(log, "wt", encoding="utf-8") as file:
        file.write("\n".join(lines * 50))
    for group in (1, 7, 1000):
        assert alike("log_report.py", log, "--group", group).splitlines() == [
            "10/Oct/2025:22: 50 requests, 5000 bytes",
            "10/Oct/2025:23: 100 requests, 350 bytes",
            "11/Oct/2025:00: 50 requests, 250 bytes",
            "slowest: /a, 55 microseconds on average",
            "unreadable: 50 lines",
        ]


def test_a_log_is_made_if_none_is_given():
    found = alike("log_report.py", "--lines", 5000, "--group", 300)
    requests = [int(count) for count in re.findall(r": (\d+) requests", found)]
    assert len(requests) == 24
    assert sum(requests) == 4995
    assert re.search(r"\nslowest: /report.pdf, \d+ microseconds on average\nunreadable: 5 lines\n$", found)


def test_training_on_images_learns_the_same_with_any_workers():
    pytest.importorskip("numpy")
    pytest.importorskip("PIL")
    small = ("--images", 300, "--epochs", 3)
    found = alike("images_to_training.py", *small)
    epochs, losses, shares = zip(*re.findall(r"epoch (\d+): loss (\S+), (\S+)% right\n", found), strict=True)
    assert epochs == ("0", "1", "2")
    assert float(losses[0]) > float(losses[1]) > float(losses[2])
    assert float(shares[-1]) > 90
    assert run("images_to_training.py", *small, workers=3) == found
    assert run("images_to_training.py", *small, "--seed", 43, workers=2) != found


def test_predictions_come_in_the_order_of_plain_prediction():
    pytest.importorskip("sklearn")
    found = alike("predict.py", "--times", 2, "--batch", 50)
    digits, right = re.fullmatch(r"(\d+) digits, (\S+)% right, in the order of plain prediction\n", found).groups()
    assert int(digits) == 2 * 899
    assert float(right) > 90


def test_the_table_of_many_files_is_that_of_the_plain_loop(tmp_path):
    pytest.importorskip("pandas")
    files = {
        "b": [("1", "Lima", 2, 1.5), ("1", "Pune", 1, 4.25), ("2", "Pune", 1, 0.75)],
        "a": [("7", "Pune", 3, 2.0), ("7", "Lima", 1, 9.5), ("7", "Lima", 1, 0.25)],
    }
    for name, rows in files.items():
        text = "".join(f"{','.join(map(str, row))}\n" for row in rows)
        (tmp_path / f"{name}.csv").write_text("day,shop,pieces,price\n" + text, encoding="utf-8")
    # File by file, shop by shop.
    wanted = []
    for name in sorted(files):
        for shop in ("Lima", "Pune"):
            rows = [row for row in files[name] if row[1] == shop]
            taken = sum(pieces * price for _, _, pieces, price in rows)
            days = {day for day, *_ in rows}
            wanted.append([name, shop, str(len(days)), str(sum(row[2] for row in rows)), f"{taken:.2f}"])
    head, *table = [line.split() for line in alike("frames_of_data.py", tmp_path).splitlines()]
    assert head == ["file", "shop", "days", "pieces", "taken"]
    assert table == wanted


def test_files_are_made_if_no_folder_is_given():
    pytest.importorskip("pandas")
    _, *table = [line.split() for line in alike("frames_of_data.py", "--files", 5, "--rows", 400).splitlines()]
    months = [f"2020-0{n}" for n in range(1, 6)]
    assert [row[0] for row in table] == [month for month in months for _ in range(4)]
    assert {row[1] for row in table} == {"Bergen", "Lagos", "Lima", "Pune"}


def test_pages_come_in_order_and_one_that_hangs_costs_itself():
    pytest.importorskip("aiohttp")
    for workers in (1, 20):
        lines = run("pages.py", "--pages", 12, "--limit", 0.5, workers=workers).splitlines()
        assert lines[7].startswith("7: the item ran for 0.5")
        assert lines[:7] + lines[8:] == [f"{n}: page {n}" for n in range(12) if n != 7]


def test_a_model_that_has_begun_threads_of_openmp_predicts_in_forked_workers(tmp_path):
    """These threads don't survive a fork, and who waits for them waits for ever."""
    pytest.importorskip("sklearn")
    path = tmp_path / "script.py"
    path.write_text("""
import numpy as np
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier
from ordmap import batches, mapped, ordered_imap

x, y = load_digits(return_X_y=True)
model = KNeighborsClassifier().fit(x[:900], y[:900])
plain = model.predict(x[900:])
found = ordered_imap(mapped(model.predict, batches(x[900:], 300)), 2, item_timeout=40)
assert np.array_equal(np.concatenate(list(found)), plain)
""")
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stderr) == (0, "")
