"""Pages fetched many at a time, given out in order, and one that hangs given up: by coroutines, from a plain loop.

``python examples/pages.py`` serves itself some pages, each after a moment, and fetches them; or give it some URLs.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import threading

import aiohttp
from aiohttp import web

from ordmap import Asyncio, Failure, ordered_map

HANGS = 7


async def answer(request: web.Request) -> web.Response:
    number = int(request.match_info["number"])
    await asyncio.sleep(60 if number == HANGS else random.Random(number).random() / 20)
    return web.Response(text=f"page {number}")


async def serve(ready: threading.Event, ports: list[int]) -> None:
    """Serve pages on a port of this machine, until the program ends."""
    app = web.Application()
    app.router.add_get("/{number}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    ports.append(runner.addresses[0][1])
    ready.set()
    await asyncio.Event().wait()


def own_pages(count: int) -> list[str]:
    """Return the URLs of some pages that a thread of this program serves."""
    ready, ports = threading.Event(), []
    threading.Thread(target=lambda: asyncio.run(serve(ready, ports)), daemon=True).start()
    ready.wait()
    return [f"http://127.0.0.1:{ports[0]}/{number}" for number in range(count)]


class Browser:
    """One session for all fetches; it belongs to the loop on which these run, so it is opened and closed there."""

    async def open(self) -> None:
        self.session = aiohttp.ClientSession()

    async def close(self) -> None:
        await self.session.close()

    async def fetch(self, url: str) -> str:
        async with self.session.get(url) as response:
            return await response.text()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("urls", nargs="*", help="what to fetch, in place of pages of its own")
    parser.add_argument("--pages", type=int, default=50)
    parser.add_argument("--workers", type=int, default=20, help="pages that are fetched at the same time")
    parser.add_argument("--limit", type=float, default=1.0, help="seconds that a page may take")
    arguments = parser.parse_args()
    urls = arguments.urls or own_pages(arguments.pages)
    browser = Browser()
    pool = Asyncio(arguments.workers, initializer=browser.open, finalizer=browser.close)
    pages = ordered_map(browser.fetch, urls, backend=pool, item_timeout=arguments.limit, on_error="return")
    for url, page in zip(urls, pages, strict=True):
        print(f"{url.rpartition('/')[2]}: {page.error if isinstance(page, Failure) else page}")


if __name__ == "__main__":
    main()
