"""All kinds of objects through one pool of a backend, as inputs, as results, and raised: ``run.py BACKEND FILE``.

What came out of each is written to the file, as JSON. The caller of the pool is a script of a user's.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import warnings
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from pathlib import Path

if len(sys.argv) > 1 and sys.argv[1] == "portable":
    os.environ["ORDMAP_PORTABLE"] = "1"

from judging import difference, judge, kinds, make

from ordmap import Failure, FromExecutor, ordered_map


class Refusal(BaseHTTPRequestHandler):
    """A server that has nothing."""

    def do_GET(self) -> None:
        self.send_response(404, "Not Found")
        self.end_headers()
        self.wfile.write(b"no")

    def log_message(self, *_: object) -> None:
        pass


def pool(backend: str):
    """Return a backend as a program names it, in something to be left at the end."""
    if backend == "executor":
        return ProcessPoolExecutor(2, mp_context=get_context("spawn"))
    if backend == "loky":
        import loky

        return loky.ProcessPoolExecutor(2)
    return nullcontext("processes" if backend == "portable" else backend)


def verdict(kind: str, got: object, *, raised: bool = False) -> str:
    """Return how what came out differs from what a plain loop has."""
    if not raised and type(got) is Failure:
        return _failed(got)
    try:
        expected = make(kind)
    except Exception as error:
        expected = error
    return difference(expected, got.error if raised and type(got) is Failure else got)


def _failed(failure: Failure) -> str:
    return f"{type(failure.error).__name__}: {failure.error}"


def main(backend: str, chosen: str) -> dict[str, dict[str, str]]:
    names = [
        name for name in kinds() if chosen in {"", name.split("/")[1]} or (chosen == "-" and "/torch/" not in name)
    ]
    objects = [name for name in names if name.startswith("object/")]
    found: dict[str, dict[str, str]] = {name: {} for name in names}
    with pool(backend) as given:
        executor = FromExecutor(given) if backend in {"executor", "loky"} else given
        how = {"workers": None if executor is not given else 2, "backend": executor, "on_error": "return"}
        for name, got in zip(names, ordered_map(make, names, **how), strict=True):
            found[name]["raised" if name.startswith("error/") else "result"] = verdict(
                name, got, raised=name.startswith("error/")
            )
        for name, got in zip(objects, ordered_map(judge, [(name, make(name)) for name in objects], **how), strict=True):
            found[name]["input"] = _failed(got) if type(got) is Failure else got
    return found


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusal)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    os.environ["ORDMAP_URL"] = f"http://127.0.0.1:{server.server_port}/x"
    outcome = main(sys.argv[1], sys.argv[3] if len(sys.argv) > 3 else "")
    server.shutdown()
    server.server_close()
    Path(sys.argv[2]).write_text(json.dumps(outcome), encoding="utf-8")
