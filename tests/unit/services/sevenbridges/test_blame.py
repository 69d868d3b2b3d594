"""What the calls of Seven Bridges carry, and whose fault a code is that names a project or an app."""

import pytest

from engine.model.error_hints import Blame, Carries
from engine.model.errors import Refused

from .scripted import APP, PROJECT, TASK_ID, Caller, a_batch, payload, service, task


def refused(code):
    refusal = Refused("create: refused", status=404, blame=Blame.JOB)
    refusal.code = code
    return refusal


async def test_creating_a_draft_carries_its_record_and_running_it_none():
    caller = Caller(task(), task("QUEUED"))
    service_ = service(caller, run=True)
    await service_.stage(a_batch(), payload())
    await service_.release(a_batch(), TASK_ID, None)
    assert [(call.kind, call.carries) for call in caller.calls] == [
        ("create", Carries.RECORDS),
        ("run", Carries.RELEASE),
    ]


@pytest.mark.parametrize(
    ("code", "settings", "blame"),
    [
        ("3002", {"project": PROJECT}, Blame.JOB),
        ("3002", {"project": "owner/other"}, Blame.RECORDS),
        ("3001", {}, Blame.RECORDS),
        ("6002", {"app": APP}, Blame.JOB),
        ("6002", {"project": PROJECT}, Blame.RECORDS),
        ("90002", {}, Blame.JOB),
    ],
)
async def test_an_unknown_project_is_the_records_fault_where_the_record_names_its_own(code, settings, blame):
    with pytest.raises(Refused) as raised:
        await service(Caller(refused(code)), **settings).stage(a_batch(), payload())
    assert raised.value.blame is blame


async def test_a_look_costs_nothing_of_the_window():
    caller = Caller({"rate": {}})
    await service(caller).look()
    assert [call.url.rsplit("/", 1)[1] for call in caller.calls] == ["rate_limit"]
