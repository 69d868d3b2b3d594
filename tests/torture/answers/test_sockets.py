"""The real command over real sockets, 64 batches in flight, and half of the answers spoilt: in bounded memory."""

import random

import pytest
from fakes.served import served
from msgspec.structs import replace

from engine.services.base import Answer
from torture.faults.judge import Judge, lines
from torture.faults.proxy import Fault, Strike, Work, fault_proxy, made_up
from torture.faults.ways import BRIDGES, PRESIGNED, SCHEMA, SECRETS
from torture.hostile.command import Place, files

from .mutations import CANARY, KEY, mutated

ANSWER = Answer(200, {}, b"")
BATCHES = 64
BOUND_MIB = 200
SEND = "max_in_flight = 64\ngive_up_seconds = 0.5\nanswer_seconds = 5"
OURS = frozenset({0, 3, 4, 5, 9})
"""Exit codes of a run whose service does odd things; 1 would be a crash."""
MOST_RUNS = 40
KINDS = {
    "sama": ("create", "put", "continue", "status", "tasks"),
    "sevenbridges": ("create", "run", "get", "bulk", "find", "children"),
}


def spoiling(kind, draw, share):
    """Spoil some of the answers to the requests of a kind; what they ask for is done."""

    async def spoil(exchange):
        answer = exchange.answer
        status = int(answer.wire.split(b" ", 2)[1])
        await exchange.say(made_up(status, mutated(replace(ANSWER, body=answer.body), draw).body).wire)
        return True

    return Strike(kind, Fault("spoilt", spoil), Work.DONE, lambda number: draw.random() < share[0])


@pytest.fixture
def place(tmp_path):
    (folder := tmp_path / "work").mkdir()
    return Place(folder, {**SECRETS, "PYTHONDONTWRITEBYTECODE": "1"})


@pytest.mark.parametrize("way", [PRESIGNED, BRIDGES], ids=str)
async def test_half_of_the_answers_are_spoilt_and_memory_is_bounded(way, place, tmp_path):
    draw, share = random.Random(7), [0.5]
    (tmp_path / "schema.json").write_bytes(SCHEMA)
    with served(tmp_path, way.behaviour) as (url, journal):
        strikes = [spoiling(kind, draw, share) for kind in KINDS[way.service]]
        async with fault_proxy(int(url.split(":")[2].partition("/")[0]), way.kind_of, strikes) as proxy:
            config = place.folder / "engine.toml"
            way.write_config(config, proxy.port, settle_seconds=0.5, send=SEND)
            markers = way.write_tasks(place.folder / "tasks.ndjson", "s", BATCHES)
            runs = [await place.run("submit", "tasks.ndjson", "--config", config, "--job", "j", "--json")]
            for number in range(MOST_RUNS):
                if runs[-1].json["state"] == "finished":
                    break
                share[0] = 0.5 if number < 3 else 0.0
                runs.append(await place.run("resume", "j", "--json"))
    assert runs[-1].json["state"] == "finished", runs[-1].err
    assert proxy.struck["spoilt"] > BATCHES
    for run in runs:
        assert run.code in OURS, run.err
        assert run.peak_mib < BOUND_MIB
    judge = Judge(journal)
    assert judge.duplicated == []
    outcomes = lines(place.folder / ".bulksubmit" / "j" / "outcomes.ndjson")
    exist = {marker for marker in markers if judge.task_ids.get(marker)}
    assert [
        one for one, marker in zip(outcomes, markers, strict=True) if one["state"] == "failed" and marker in exist
    ] == []
    written = [path.read_bytes() for path in files(place.folder)] + [(run.out + run.err).encode() for run in runs]
    assert not any(secret.encode() in content for content in written for secret in (CANARY, KEY))
