"""Each vendor's stand-in is served by the sandbox under the name of its description."""

import aiohttp
import pytest

from engine.sandbox.behaviour import Behaviour
from engine.sandbox.server import PORTS, running_sandbox
from engine.sandbox.vendors.all import VENDORS
from engine.services.described.shipped import shipped_kinds

KNOWN_BY = {
    "elasticsearch": ("/tasks/_count", {"Authorization": "ApiKey sandbox-key"}),
    "openai-batch": ("/batches", {"Authorization": "Bearer sandbox-key"}),
    "anthropic-batches": (
        "/v1/messages/batches",
        {"Authorization": "Bearer sandbox-key", "anthropic-version": "2026-10-21"},
    ),
    "salesforce-bulk2": ("/services/data", {}),
    "hubspot": ("/contacts", {"Authorization": "Bearer sandbox-key"}),
}
"""A call of each that only its own API answers: below the address that the sandbox tells, with what proves who asks."""


def test_each_has_the_name_of_a_shipped_description_and_a_port_of_its_own():
    assert VENDORS.keys() <= set(shipped_kinds())
    assert VENDORS.keys() <= PORTS.keys()
    assert len(set(PORTS.values())) == len(PORTS)


@pytest.mark.parametrize("kind", VENDORS)
async def test_the_sandbox_serves_it(kind):
    path, headers = KNOWN_BY[kind]
    async with running_sandbox(Behaviour(service=kind)) as sandbox, aiohttp.ClientSession() as session:
        async with session.get(sandbox.url + path, headers=headers) as answer:
            assert answer.status in ({401} if kind == "salesforce-bulk2" else {200})
        async with session.get(sandbox.url + "/no/such/place", headers=headers) as answer:
            assert answer.status >= 400
