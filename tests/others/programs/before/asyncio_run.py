"""aiohttp: Pages are fetched by `asyncio.run` before the loop, and by each item, which runs a loop of its own.

Write: as it is; or `backend="asyncio"`, with one session for all
"""

import asyncio
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import aiohttp

from ordmap import ordered_map

for n in range(6):
    Path(f"{n}.txt").write_text(f"page {n}")
SimpleHTTPRequestHandler.log_message = lambda *_: None
server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(Path.cwd())))
threading.Thread(target=server.serve_forever, daemon=True).start()
address = f"http://127.0.0.1:{server.server_port}"


def page(n):
    async def fetch():
        async with aiohttp.ClientSession() as session, session.get(f"{address}/{n}.txt") as answer:
            return await answer.text()

    return asyncio.run(fetch())


assert page(0) == "page 0"
assert list(ordered_map(page, range(6), workers=2, backend=sys.argv[1])) == [f"page {n}" for n in range(6)]
