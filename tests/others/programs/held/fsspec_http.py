"""fsspec, aiohttp: The dataset holds an HTTP file system that the caller has used, and each item reads a file.

Write: as it is
"""

import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec

from ordmap import ordered_imap

for n in range(10):
    Path(f"{n}.txt").write_text(f"page {n}")
SimpleHTTPRequestHandler.log_message = lambda *_: None
server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(Path.cwd())))
threading.Thread(target=server.serve_forever, daemon=True).start()


class Files:
    def __init__(self, address):
        self.address = address
        self.files = fsspec.filesystem("http")
        assert self[0] == b"page 0"

    def __len__(self):
        return 10

    def __getitem__(self, i):
        return self.files.cat(f"{self.address}/{i}.txt")


files = Files(f"http://127.0.0.1:{server.server_port}")
assert list(ordered_imap(files, workers=2, backend=sys.argv[1])) == [b"page %d" % n for n in range(10)]
