"""A service or a store that sends us on to somebody else: neither key nor payload goes there."""

import asyncio
import os

import pytest
from integration.commands.desk import Desk
from unit.http.raw_server import OK, raw_server

from engine.sandbox.server import running_sandbox
from torture.faults.catalogue import sama_kind
from torture.faults.proxy import Fault, Strike, Work, fault_proxy, made_up

from .command import port_of

TORTURE = os.environ.get("BULKSUBMIT_TORTURE") == "1"
QUICK = ["create", "put", "post"]
"""After the others the engine asks, for half a minute, what has become of the batch."""
PLACES = ("http://localhost:{port}/", "//127.0.0.1:{port}/x", "http://user:password@127.0.0.1:{port}/")


async def follow(folder, kind, status) -> None:
    """Submit a record through a proxy that answers each call of a kind with a redirect; nothing may go there."""
    folder.mkdir()
    async with raw_server(OK) as elsewhere, running_sandbox() as sandbox:
        location = PLACES[status % len(PLACES)].format(port=port_of(elsewhere.url + "/"))

        async def act(exchange) -> bool:
            await exchange.say(made_up(status, b"", f"Location: {location}", "Refresh: 0; url=" + location).wire)
            return True

        strikes = [Strike(kind, Fault("redirect", act), Work.NEVER, lambda number: True)]
        async with fault_proxy(port_of(sandbox.url), sama_kind, strikes) as proxy:
            desk = Desk(folder, sandbox)
            mode = "inline" if kind == "post" else "presigned"
            config = desk.config(service=f'mode = "{mode}"', send="give_up_seconds = 0.1", url=proxy_url(proxy))
            result = await desk.submit(desk.source([{"data": {"id": "0"}}]), config)
        assert proxy.struck["redirect"], status
        assert elsewhere.connections == 0, status
        assert result.tally.created == 0, status
        assert "password" not in result.outcomes.read_text() + result.message, status


@pytest.mark.parametrize("kind", [*QUICK, *(["continue", "status"] if TORTURE else [])])
async def test_a_redirect_is_followed_by_nobody(tmp_path, monkeypatch, kind):
    monkeypatch.setenv("SAMA_ACCESS_KEY", "sandbox-key")
    statuses = (301, 302, 303, 307, 308)
    await asyncio.gather(*(follow(tmp_path / str(status), kind, status) for status in statuses))


def proxy_url(proxy) -> str:
    return f"http://127.0.0.1:{proxy.port}/v2"
