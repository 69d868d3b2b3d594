import asyncio

import pytest

from engine.http.classify import Loss
from engine.http.heads import with_one_length
from engine.services.base import Answer

from .raw_server import raw_server
from .test_client import send

OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    "lengths",
    [
        b"Content-Length: 2\r\nContent-Length: 2\r\n",
        b"content-length: 2\r\nX: y\r\nCONTENT-LENGTH:2 \r\n",
        b"Content-Length: 2, 2\r\n",
        b"Content-Length: 2\nContent-Length: 2\n",
    ],
)
@pytest.mark.parametrize("pieces", [1, 7])
async def test_an_equal_length_said_twice_is_one(lengths, pieces):
    wire = OK + lengths + b"\r\nok"
    step = -(-len(wire) // pieces)

    async def in_pieces(server, writer):
        for start in range(0, len(wire), step):
            writer.write(wire[start : start + step])
            await writer.drain()
            await asyncio.sleep(0.001)

    async with raw_server(in_pieces) as server:
        answer = await send(server.url)
        assert isinstance(answer, Answer), answer
        assert answer.body == b"ok"
        assert answer.headers.getall("Content-Length") == ["2"]


async def test_lengths_that_differ_are_refused():
    async with raw_server(OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nokk") as server:
        assert (await send(server.url)).loss is Loss.GARBLED


async def test_an_answer_after_one_that_only_says_to_wait_is_read_so_too():
    async def early(server, writer):
        writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(0.01)
        writer.write(OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nok")

    async with raw_server(early) as server:
        assert (await send(server.url)).body == b"ok"


@pytest.mark.parametrize(
    "data",
    [
        OK + b"Content-Length: 2\r\n\r\nok",
        OK + b"\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n",
        OK + b"Content-Length: -2\r\nContent-Length: -2\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"",
    ],
)
def test_everything_else_stays_as_it_came(data):
    assert with_one_length(data) == data
