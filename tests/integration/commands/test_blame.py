"""Refusals that are no fault of the records, each with a server, or something before it, that refuses so."""

import pytest

from engine.commands.result import exit_code
from engine.model.errors import (
    ConfigError,
    DeadlineReached,
    Exit,
    JobRefused,
    LedgerError,
    PossiblyApplied,
    SourceChanged,
    StillWaiting,
    Unauthorized,
    Unavailable,
    WrongAddress,
)
from engine.model.outcome import Tally
from engine.model.submission import State
from engine.sandbox.behaviour import Fault, Project

from .between import RESET, between, page, store_says
from .desk import counts, lines, once, tasks

INLINE = 'mode = "inline"'
SCRIPT = "see <script>alert(1)</script>"


def the_page_for_scripts(kind, nth, body, path):
    return page(403, "403 Forbidden") if b"<script" in body else None


def with_script(at, count=60):
    records = tasks(count)
    records[at]["data"]["text"] = SCRIPT
    return records


# What something in between refuses


@pytest.mark.parametrize(("service", "at"), [(INLINE, 0), (INLINE, 20), (INLINE, 59), ("", 20)])
async def test_one_record_that_a_firewall_turns_away_fails_with_the_title_of_its_page(desk, service, at):
    desk = await desk()
    async with between(desk, the_page_for_scripts) as stands:
        result = await desk.submit(desk.source(with_script(at)), desk.config(url=stands.url, service=service))
    assert (result.state, result.exit_code, counts(result)) == ("finished", Exit.SOME_FAILED, (59, 1, 0, 0, 0))
    (line,) = lines(result.rejects)
    assert line["index"] == at
    assert "403 Forbidden" in line["error"]
    assert "Support ID" not in line["error"]  # a page is not quoted: it may echo what it was sent
    assert desk.created() == {str(number): 1 for number in range(60) if number != at}
    assert (await desk.audit()).holds


@pytest.mark.parametrize("status", [400, 404, 406, 501])
async def test_a_page_of_any_status_in_the_place_of_one_upload_is_about_its_record(desk, status):
    desk = await desk()
    rule = lambda kind, nth, body, path: page(status, "No") if kind == "put" and b"<script" in body else None  # noqa: E731 - one line reads best beside its run
    async with between(desk, rule) as stands:
        result = await desk.submit(desk.source(with_script(0, 30)), desk.config(url=stands.url))
    assert (result.state, counts(result)) == ("finished", (29, 1, 0, 0, 0))
    (line,) = lines(result.rejects)
    assert (line["index"], "while another upload got through" in line["error"]) == (0, True)
    assert desk.created() == {str(number): 1 for number in range(1, 30)}


async def test_a_firewall_that_turns_everything_away_stops_the_job_and_no_record_fails(desk):
    desk = await desk()
    async with between(desk, lambda kind, nth, body, path: page(403, "No") if kind == "create" else None) as stands:
        config = desk.config(url=stands.url, service=INLINE)
        result = await desk.submit(desk.source(tasks(60)), config)
        assert stands.calls["create"] < 120
    assert (result.state, result.exit_code, counts(result)) == ("open", Exit.MEND_FIRST, (0, 0, 0, 0, 60))
    assert "records in a row" in result.message
    result = await desk.resume(config=desk.config(service=INLINE))
    assert (result.exit_code, desk.created()) == (Exit.ALL_CREATED, once(60))


@pytest.mark.parametrize("status", [301, 307, 308])
async def test_a_redirect_of_creates_stops_the_job_at_once_and_no_batch_is_halved(desk, status):
    desk = await desk()
    async with between(
        desk, lambda kind, nth, body, path: page(status, "Moved") if kind == "create" else None
    ) as stands:
        config = desk.config(url=stands.url, service=INLINE, send="max_in_flight = 1")
        result = await desk.submit(desk.source(tasks(60)), config)
        assert stands.calls["create"] == 1
    assert (result.state, result.exit_code, counts(result)) == ("open", Exit.MEND_FIRST, (0, 0, 0, 0, 60))
    assert "which is not followed; check base_url" in result.message
    result = await desk.resume(config=desk.config(service=INLINE))
    assert (result.exit_code, desk.created()) == (Exit.ALL_CREATED, once(60))


async def test_an_empty_create_that_a_proxy_does_not_find_is_tried_again(desk):
    desk = await desk()
    rule = lambda kind, nth, body, path: page(404, "404 Not Found") if kind == "create" and 4 <= nth <= 9 else None  # noqa: E731 - one line reads best beside its run
    async with between(desk, rule) as stands:
        result = await desk.submit(desk.source(tasks(200)), desk.config(url=stands.url))
        assert stands.calls["create"] == 26
    assert (result.exit_code, counts(result)) == (Exit.ALL_CREATED, (200, 0, 0, 0, 0))
    assert desk.created() == once(200)


@pytest.mark.parametrize("service", [INLINE, ""], ids=["inline", "presigned"])
async def test_an_address_where_nobody_knows_the_service_stops_the_job_at_the_first_batch(desk, service):
    desk = await desk()
    async with between(desk, lambda kind, nth, body, path: page(404, "404 Not Found")) as stands:
        config = desk.config(url=stands.url, service=service, send="give_up_seconds = 0.2")
        result = await desk.submit(desk.source(tasks(60)), config)
    assert (result.state, result.exit_code, counts(result)[:4]) == ("open", Exit.MEND_FIRST, (0, 0, 0, 0))
    assert "404 Not Found" in result.message
    assert "check the address" in result.message
    result = await desk.resume(config=desk.config(service=service))
    assert (result.exit_code, desk.created()) == (Exit.ALL_CREATED, once(60))


async def test_a_page_in_the_place_of_one_batchs_status_is_no_matter_of_the_others(desk):
    desk, first = await desk(), []

    def rule(kind, nth, body, path):
        first.extend([path] if kind == "status" and not first else [])
        return page(403, "403 Forbidden") if [path] == first else None

    async with between(desk, rule) as stands:
        config = desk.config(url=stands.url, send="give_up_seconds = 0.05")
        result = await desk.submit(desk.source(tasks(30)), config)
    assert (result.state, result.exit_code, counts(result)) == ("finished", Exit.SOME_UNCERTAIN, (20, 0, 0, 10, 0))
    assert (await desk.resume(config=desk.config())).exit_code == Exit.ALL_CREATED
    assert desk.created() == once(30)


# What the store refuses


async def test_a_store_that_refuses_the_way_of_uploading_stops_the_job_with_its_words(desk):
    desk = await desk()
    rule = lambda kind, nth, body, path: store_says("InvalidArgument") if kind == "put" else None  # noqa: E731 - one line reads best beside its run
    async with between(desk, rule) as stands:
        result = await desk.submit(desk.source(tasks(100)), desk.config(url=stands.url))
        assert stands.calls["put"] == 3
    assert (result.state, result.exit_code, counts(result)) == ("open", Exit.MEND_FIRST, (0, 0, 0, 0, 100))
    assert "InvalidArgument: Said by the store." in result.message
    result = await desk.resume(config=desk.config())
    assert (result.exit_code, desk.created()) == (Exit.ALL_CREATED, once(100))


@pytest.mark.parametrize("code", ["RequestTimeout", "OperationAborted", "TemporaryRedirect"])
async def test_what_the_store_says_of_the_moment_costs_no_record(desk, code):
    desk = await desk()
    status = 307 if code == "TemporaryRedirect" else 400
    rule = lambda kind, nth, body, path: store_says(code, status) if kind == "put" and nth <= 2 else None  # noqa: E731 - one line reads best beside its run
    async with between(desk, rule) as stands:
        result = await desk.submit(desk.source(tasks(3)), desk.config(url=stands.url, send="max_in_flight = 1"))
    assert (result.exit_code, counts(result)) == (Exit.ALL_CREATED, (3, 0, 0, 0, 0))
    assert desk.created() == once(3)


async def test_uploads_that_are_cut_off_above_a_size_go_in_smaller_parts(desk):
    desk = await desk()
    rule = lambda kind, nth, body, path: RESET if kind == "put" and len(body) > 300_000 else None  # noqa: E731 - one line reads best beside its run
    async with between(desk, rule) as stands:
        source = desk.source(tasks(80, text="x" * 100_000))
        result = await desk.submit(source, desk.config(url=stands.url))
    assert (result.exit_code, counts(result)) == (Exit.ALL_CREATED, (80, 0, 0, 0, 0))
    assert desk.created() == once(80)


async def test_a_record_whose_upload_is_always_cut_off_fails_once_others_got_through(desk):
    desk = await desk()
    rule = lambda kind, nth, body, path: RESET if kind == "put" and b"<script" in body else None  # noqa: E731 - one line reads best beside its run
    async with between(desk, rule) as stands:
        result = await desk.submit(desk.source(with_script(7, 30)), desk.config(url=stands.url))
    assert (result.state, counts(result)) == ("finished", (29, 1, 0, 0, 0))
    (line,) = lines(result.rejects)
    assert (line["index"], "while another upload got through" in line["error"]) == (7, True)


# What concerns the whole job


@pytest.mark.parametrize("service", [INLINE, ""], ids=["inline", "presigned"])
async def test_a_project_that_is_not_there_stops_the_job_and_can_be_mended(desk, service):
    desk = await desk(projects=(Project(42),))
    wrong = desk.config(service=service)
    wrong.write_text(wrong.read_text().replace("project_id = 42", "project_id = 43"))
    result = await desk.submit(desk.source(tasks(60)), wrong)
    assert (result.state, result.exit_code, counts(result)) == ("open", Exit.MEND_FIRST, (0, 0, 0, 0, 60))
    assert "service.project_id 43 is no project of this key" in result.message
    assert desk.calls("create") == 1
    result = await desk.resume(config=desk.config(service=service))
    assert (result.exit_code, desk.created()) == (Exit.ALL_CREATED, once(60))
    assert (await desk.audit()).holds


async def test_a_refused_address_to_notify_stops_the_job_and_can_be_mended(desk):
    desk = await desk(faults=(Fault("create", "refuse", nth=(1,), status=422),))
    result = await desk.submit(desk.source(tasks(60)), desk.config(service='notification_email = "no"'))
    assert (result.exit_code, counts(result)) == (Exit.MEND_FIRST, (0, 0, 0, 0, 60))
    assert "notification_email" in result.message
    assert (await desk.resume(config=desk.config())).exit_code == Exit.ALL_CREATED


async def test_what_was_staged_at_the_wrong_project_is_canceled_before_the_right_one_is_used(desk):
    desk = await desk(projects=(Project(42), Project(43)), faults=(Fault("put", "refuse", status=500, nth=(1,)),))
    wrong = desk.config(send="give_up_seconds = 0.0")
    wrong.write_text(wrong.read_text().replace("project_id = 42", "project_id = 43"))
    result = await desk.submit(desk.source(tasks(20)), wrong)
    assert (result.exit_code, result.tally.states[State.STAGED]) == (Exit.STOPPED_EARLY, 1)
    result = await desk.resume(config=desk.config())
    assert (result.exit_code, result.orphans, desk.created()) == (Exit.ALL_CREATED, 0, once(20))
    assert desk.calls("cancel") == 1


async def test_a_project_cannot_change_once_tasks_were_created(desk):
    desk = await desk(projects=(Project(42), Project(43)))
    await desk.submit(desk.source(tasks(20)))
    other = desk.config()
    other.write_text(other.read_text().replace("project_id = 42", "project_id = 43"))
    with pytest.raises(ConfigError, match="something was created or released"):
        await desk.resume(config=other)


# What tells a scheduler which it is


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Unauthorized(), 9),
        (JobRefused(), 9),
        (WrongAddress(), 9),
        (LedgerError(), 9),
        (ConfigError("an upload URL leads elsewhere"), 9),
        (Unavailable(), 5),
        (DeadlineReached(), 5),
        (StillWaiting(), 5),
        (PossiblyApplied(), 5),
        (SourceChanged(), 9),
        (None, 0),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_exit_code_tells_whether_a_person_is_needed(error, code):
    assert exit_code(Tally(1, 1, 1), error) == code
