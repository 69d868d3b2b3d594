"""Answers made to hurt whoever reads them, from the service and from the store: refused as such, in bounded memory."""

import gzip
import os

import pytest

from engine.sandbox.server import running_sandbox
from torture.faults.catalogue import sama_kind
from torture.faults.proxy import Fault, Strike, Work, fault_proxy, made_up

from .bombs import MEBIBYTE, gzip_bomb, zlib_bomb, zstd_bomb
from .command import port_of

TORTURE = os.environ.get("BULKSUBMIT_TORTURE") == "1"
BOUND_MIB = 200
"""The command takes 60, and 64 more to see that an answer is too large. Unpacked, the bombs are a GiB each, and 60 MiB
of empty objects are 1,900 once they are parsed."""
DEEP = 10**6
ENDLESS_HEAD = b"HTTP/1.1 200 OK\r\n"

TOO_LARGE = "the answer is larger than allowed"
NO_OBJECT = "the answer is not a JSON object"
UNREADABLE = "the answer cannot be read"

ANSWERS = {
    "gzip bomb": (made_up(200, gzip_bomb(), "Content-Encoding: gzip").wire, TOO_LARGE),
    "deflate bomb": (made_up(200, zlib_bomb(), "Content-Encoding: deflate").wire, TOO_LARGE),
    "zstd bomb": (made_up(200, zstd_bomb(), "Content-Encoding: zstd").wire, UNREADABLE),
    "brotli, which was not asked for": (made_up(200, b"\x8b\x7f" * 100, "Content-Encoding: br").wire, UNREADABLE),
    "bomb in a bomb": (made_up(200, gzip_bomb(), "Content-Encoding: gzip, gzip").wire, ""),
    "refusal as a bomb": (made_up(400, gzip_bomb(), "Content-Encoding: gzip").wire, TOO_LARGE),
    "more than fits": (made_up(200, bytes(80 * MEBIBYTE)).wire, TOO_LARGE),
    "one chunk of 2**64 bytes": (
        b"%bTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n%b" % (ENDLESS_HEAD, bytes(80 * MEBIBYTE)),
        TOO_LARGE,
    ),
    "endless header": (ENDLESS_HEAD + b"X: " + b"x" * (8 * MEBIBYTE), UNREADABLE),
    "endless headers": (ENDLESS_HEAD + b"X: x\r\n" * MEBIBYTE, UNREADABLE),
    "deep array": (made_up(200, b"[" * DEEP + b"]" * DEEP).wire, NO_OBJECT),
    "deep object": (made_up(200, b'{"batch_id":' * DEEP + b"1" + b"}" * DEEP).wire, NO_OBJECT),
    "millions of objects": (made_up(200, b'{"a":[%b{}]}' % (b"{}," * (20 * MEBIBYTE))).wire, TOO_LARGE),
    "invalid UTF-8": (made_up(200, b'{"batch_id":"\xff"}').wire, NO_OBJECT),
    "NUL": (made_up(200, b'{"batch_id":"\x00"}').wire, NO_OBJECT),
}

EACH_KIND = ("gzip bomb", "one chunk of 2**64 bytes", "endless headers", "deep array", "millions of objects")
"""One for each way in which an answer is refused; the others, too, where there is time."""


def answering(kind: str, wire: bytes) -> Strike:
    """Answer every request of a kind so, and close the connection."""

    async def act(exchange) -> bool:
        await exchange.say(wire)
        return False

    return Strike(kind, Fault("hostile", act), Work.NEVER, lambda number: True)


async def submitted(place, kind: str, wire: bytes, *, mode: str):
    strikes = [answering(kind, wire)]
    async with running_sandbox() as sandbox, fault_proxy(port_of(sandbox.url), sama_kind, strikes) as proxy:
        config = place.configure(f"http://127.0.0.1:{proxy.port}/v2", service=f'mode = "{mode}"', give_up=0.2)
        done = await place.run("submit", place.write_tasks(3), "--config", config, "--json")
        assert proxy.struck["hostile"], "it was never answered so"
        return done


@pytest.mark.parametrize("name", ANSWERS if TORTURE else EACH_KIND)
async def test_a_hostile_answer_to_the_call_that_creates_parks_the_batch(place, name):
    wire, reason = ANSWERS[name]
    done = await submitted(place, "post", wire, mode="inline")
    assert (done.code, done.json["uncertain"]) == (4, 3), done.err
    assert reason in done.json["reasons"][0]["reason"]
    assert done.peak_mib < BOUND_MIB


@pytest.mark.skipif(not TORTURE, reason="unpacks 4 GiB")
async def test_many_large_answers_at_the_same_time_are_read_in_bounded_memory(place):
    text = gzip.compress(b'["%b"]' % (b"x" * (62 * MEBIBYTE)), 1)
    wire = made_up(200, text, "Content-Encoding: gzip").wire
    strikes = [answering("post", wire)]
    async with running_sandbox() as sandbox, fault_proxy(port_of(sandbox.url), sama_kind, strikes) as proxy:
        url = f"http://127.0.0.1:{proxy.port}/v2"
        config = place.configure(url, service='mode = "inline"', give_up=0.2, more="max_in_flight = 64")
        done = await place.run("submit", place.write_tasks(640), "--config", config, "--json")
        assert proxy.struck["hostile"] == 64
    # 4,200 without a budget. An answer that cannot be used lives, whole and parsed, until its batch is parked.
    assert done.peak_mib < 4 * BOUND_MIB


OTHER_CALLS = {"create": (5, "open", 0), "put": (9, "open", 0), "status": (4, "finished", 3)}
"""What is struck → exit code, state of the job and uncertain records: once a batch is released, it is parked."""


@pytest.mark.parametrize("kind", OTHER_CALLS if TORTURE else ["put"])
async def test_a_bomb_in_place_of_any_other_answer_makes_nothing_of_it(place, kind):
    done = await submitted(place, kind, ANSWERS["gzip bomb"][0], mode="presigned")
    assert (done.code, done.json["state"], done.json["uncertain"]) == OTHER_CALLS[kind], done.err
    assert done.json["created"] == 0
    assert done.peak_mib < BOUND_MIB
