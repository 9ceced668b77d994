"""Libraries that keep what is said of the present request or trace in context variables."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
from aiohttp import web
from opentelemetry import baggage, context
from opentelemetry.baggage.propagation import W3CBaggagePropagator

from ordmap import Asyncio, Processes, Spawn, Threads, ordered_map


def tenant(_):
    return baggage.get_baggage("tenant")


async def awaited_tenant(_):
    await asyncio.sleep(0)
    return tenant(_)


@pytest.mark.parametrize("make", [Processes, Spawn, Threads, Asyncio])
def test_opentelemetry_s_context_is_that_of_the_loop_or_none(make):
    """It can't be pickled. A forked worker has it of the loop that it was forked for."""
    travels = make in {Threads, Asyncio}
    item = awaited_tenant if make is Asyncio else tenant
    with make(2) as pool:
        for name in ("ann", "bob", None):
            token = context.attach(baggage.set_baggage("tenant", name) if name else context.Context())
            try:
                expected = name if travels or (make is Processes and name == "ann") else None
                assert list(ordered_map(item, range(6), backend=pool)) == [expected] * 6
            finally:
                context.detach(token)


def carried(carrier):
    token = context.attach(W3CBaggagePropagator().extract(carrier))
    try:
        return tenant(0)
    finally:
        context.detach(token)


def test_opentelemetry_s_propagators_take_it_along():
    with Spawn(2) as pool:
        for name in ("ann", "bob"):
            token = context.attach(baggage.set_baggage("tenant", name))
            carrier = {}
            W3CBaggagePropagator().inject(carrier)
            context.detach(token)
            assert list(ordered_map(carried, [carrier] * 4, backend=pool)) == [name] * 4


def test_an_aiohttp_session_of_main_s_is_used_by_items():
    async def main():
        app = web.Application()
        app.router.add_get("/{name}", _answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(20)) as session:

            async def fetch(name):
                async with session.get(f"http://127.0.0.1:{port}/{name}") as response:
                    return await response.text()

            found = [one async for one in ordered_map(fetch, range(30), workers=4, backend="asyncio")]
        await runner.cleanup()
        return found

    assert asyncio.run(main()) == [str(number) for number in range(30)]


async def _answer(request):
    return web.Response(text=request.match_info["name"])
