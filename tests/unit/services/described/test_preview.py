"""What a preview takes for the answers of a described service."""

import random

import orjson

from engine.services.base import Call
from engine.services.described.service import answer_preview, sample
from engine.services.described.steps import Step

from .served import read
from .test_service import BULK, FILES, JOBS


def call(kind):
    return Call(kind, "POST", "https://api.example.com/x")


def test_a_step_that_others_build_on_is_answered_with_what_it_takes():
    settings = read(JOBS)
    answer = answer_preview(call("stage"), settings)
    taken = Step("stage", settings.stage, settings).taken(answer)
    assert taken == {"id": "ID", "where": "https://api.example.com/WHERE"}
    assert answer_preview(call("upload"), settings).body == b""
    assert answer_preview(call("status"), settings) is None


def test_a_release_is_answered_where_its_answer_only_names_the_batch():
    assert orjson.loads(answer_preview(call("release"), read(FILES)).body) == {"id": "ID"}
    assert answer_preview(call("release"), read(BULK)) is None


def test_a_presigned_address_is_at_a_host_that_may_be_called():
    presigned = JOBS.replace("payload = true\n[release]", "payload = true\nwithout_credentials = true\n[release]")
    presigned = presigned.replace('id = "id", where = "contentUrl"', 'id = "0.*.id", where = "header.Location"')
    settings = read(presigned)
    answer = answer_preview(call("stage"), settings)
    assert answer.headers["Location"] == "https://store.example.com/WHERE"
    assert orjson.loads(answer.body) == [{"any": {"id": "ID"}}]


def test_a_made_up_task_is_the_same_for_the_same_draws():
    assert sample(random.Random(1), "a") == sample(random.Random(1), "a")
