import asyncio
import random
from itertools import pairwise

import pytest
from yarl import URL

from engine.http.client import Request, open_client
from engine.http.reading import MAX_ANSWER_BYTES, ROOM_BYTES, AnswerRoom
from engine.model.settings import SendSettings
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
