import asyncio
import errno
import gzip
import random
import tracemalloc
from io import BytesIO
from itertools import pairwise

import pytest
from yarl import URL

from engine.http import reading
from engine.http.classify import Loss
from engine.http.client import Request, open_client
from engine.http.reading import MAX_ANSWER_BYTES, ROOM_BYTES, AnswerRoom
from engine.http.secrets import Credentials, HidingFile
from engine.model.errors import AnswerNotKept
from engine.model.settings import SecretStr, SendSettings
from engine.services.base import Answer, Call

from .raw_server import plain, raw_server


async def read(room, name, pieces, log):
    try:
        for piece in pieces:
            await room.take(name, piece)
            log.append(room.held)
            await asyncio.sleep(0)
    finally:
        room.give_back(name)
        log.append(room.held)


@pytest.mark.parametrize("seed", range(20))
async def test_answers_of_any_sizes_all_end_and_never_hold_more_than_the_room(seed):
    draw = random.Random(seed)
    room, log = AnswerRoom(total=15, largest=10), []
    answers = []
    for _ in range(30):
        left, pieces = draw.randint(0, 10), []
        while left > 0:
            pieces.append(draw.randint(1, left))
            left -= pieces[-1]
        answers.append(pieces)
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        for number, pieces in enumerate(answers):
            tasks.create_task(read(room, number, pieces, log))
    assert max(log) <= 15
    assert room.held == 0
    assert any(later < earlier for earlier, later in pairwise(log)), "it was given back"


async def test_the_largest_answer_never_waits_for_others():
    room = AnswerRoom(total=15, largest=10)
    await room.take("first", 1)
    await room.take("second", 5)
    async with asyncio.timeout(1):
        await room.take("first", 9)
    waiting = asyncio.create_task(room.take("second", 1))
    await asyncio.sleep(0)
    assert not waiting.done()
    room.give_back("first")
    await waiting


async def test_an_answer_that_is_given_up_gives_its_room_back():
    room = AnswerRoom(total=15, largest=10)
    await room.take("first", 10)
    canceled = asyncio.create_task(read(room, "second", [5, 5], []))
    await asyncio.sleep(0)
    canceled.cancel()
    await asyncio.wait([canceled])
    assert room.held == 10


def test_there_is_room_for_the_largest_answer_and_for_what_is_usual_beside_it():
    assert ROOM_BYTES > MAX_ANSWER_BYTES


async def test_large_answers_that_come_at_the_same_time_are_all_read():
    body = bytes(1_000_000)
    opened = open_client(SendSettings(), trusted_hosts=[], anywhere=True)
    async with raw_server(plain(200, body)) as server, opened as client:
        client._room = AnswerRoom(total=1_500_000, largest=1_000_000)
        call = Request(Call("test", "GET", server.url), URL(server.url), {})
        async with asyncio.TaskGroup() as tasks:
            sent = [tasks.create_task(client.send(call)) for _ in range(16)]
        assert all(isinstance(one.result(), Answer) and one.result().body == body for one in sent)
        assert client._room.held == 0


# Into a file


KEY = SecretStr("s3cr3t-of-ours")
QUICK = SendSettings(connect_seconds=1, answer_seconds=0.3, call_seconds=2.0)


async def fetched(url, file, settings=QUICK, **headers):
    async with open_client(settings, trusted_hosts=[], anywhere=True) as client:
        into = HidingFile(file, Credentials({"X-Key": KEY}))
        return await client.send(Request(Call("fetch", "GET", url, into=file), URL(url), headers, into))


@pytest.mark.parametrize("size", [0, 1, 5_000, 3_000_000])
async def test_an_answer_goes_into_a_file_whole(size):
    body = random.Random(size).randbytes(size)
    file = BytesIO(b"of an earlier attempt" * 1000)
    async with raw_server(plain(200, body)) as server:
        answer = await fetched(server.url, file)
    assert (answer.status, answer.body) == (200, b"")
    assert file.getvalue() == body


async def test_a_packed_one_is_unpacked_and_has_no_secret_in_it_wherever_it_stands():
    rows = [b"x" * (65_536 - 7) + KEY.get_secret_value().encode()] * 40
    packed = gzip.compress(b"\n".join(rows))
    file = BytesIO()
    async with raw_server(plain(200, packed, "Content-Encoding: gzip")) as server:
        await fetched(server.url, file)
    assert file.getvalue() == b"\n".join([b"x" * (65_536 - 7) + b"***"] * 40)


@pytest.mark.parametrize("status", [307, 404, 429, 500])
async def test_what_is_no_success_is_read_as_ever_and_leaves_the_file_alone(status):
    file = BytesIO(b"as it was")
    async with raw_server(plain(status, b'{"message":"no"}')) as server:
        answer = await fetched(server.url, file)
    assert (answer.status, answer.body, file.getvalue()) == (status, b'{"message":"no"}', b"as it was")


async def test_one_that_breaks_off_is_lost_and_the_next_attempt_begins_anew():
    head = b"HTTP/1.1 200 OK\r\n"
    file = BytesIO()
    async with raw_server(head + b"Content-Length: 100\r\n\r\ntruncated", plain(200, b"whole")) as server:
        assert (await fetched(server.url, file)).loss is Loss.CUT
        assert (await fetched(server.url, file)).status == 200
    assert file.getvalue() == b"whole"


async def test_one_that_is_larger_than_any_file_may_be_is_not_read_to_its_end(monkeypatch):
    monkeypatch.setattr(reading, "MOST_FILE_BYTES", 1_000_000)
    file = BytesIO()
    bomb = gzip.compress(bytes(20_000_000))
    async with raw_server(plain(200, bomb, "Content-Encoding: gzip")) as server:
        assert (await fetched(server.url, file)).loss is Loss.TOO_LARGE
    assert len(file.getvalue()) <= 1_000_000


async def test_one_may_take_longer_than_a_call_while_it_comes_fast_enough_and_not_while_it_drips(monkeypatch):
    def trickling(size):
        async def trickle(server, writer):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n")
            for _ in range(10_000 // size):
                writer.write(b"." * size)
                await writer.drain()
                await asyncio.sleep(0.01)
                if server.silence.is_set():
                    return

        return trickle

    short = SendSettings(connect_seconds=1, answer_seconds=0.2, call_seconds=0.05, give_up_seconds=1)
    monkeypatch.setattr(reading, "LEAST_BYTES_PER_SECOND", 5_000)
    file = BytesIO()
    async with raw_server(trickling(500)) as server:
        assert isinstance(await fetched(server.url, file, short), Answer)
    assert len(file.getvalue()) == 10_000
    async with raw_server(trickling(10)) as server:
        assert (await fetched(server.url, file, short)).loss is Loss.ANSWER_TIMEOUT


class FullDisk(BytesIO):
    def write(self, piece):
        raise OSError(errno.ENOSPC, "No space left on device")


async def test_a_full_disk_is_not_taken_for_a_lost_connection():
    async with raw_server(plain(200, b"x" * 1000)) as server:
        with pytest.raises(AnswerNotKept, match="No space left on device"):
            await fetched(server.url, FullDisk())


async def test_memory_stays_flat(tmp_path):
    async def long(server, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        for _ in range(400):
            writer.write(bytes(250_000))
            await writer.drain()
        writer.close()

    async with raw_server(long) as server:
        with (tmp_path / "body").open("w+b") as file:
            tracemalloc.start()
            try:
                assert isinstance(await fetched(server.url, file), Answer)
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
        assert (tmp_path / "body").stat().st_size == 100_000_000
    assert peak < 8_000_000
