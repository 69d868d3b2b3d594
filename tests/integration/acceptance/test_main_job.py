import json

import pytest

RESULT_KEYS = {
    "job", "state", "records", "batches", "created", "failed", "rejected", "uncertain", "unresolved", "elapsed_seconds",
}  # fmt: skip


@pytest.mark.parametrize("mode", ["presigned", "inline"])
def test_every_record_becomes_a_task_with_its_id_and_page(workplace, mode):
    config, tasks = workplace.configure(mode=mode), workplace.write_tasks(2_500)
    done = workplace.run("submit", tasks, "--config", config, "--job", "first", "--json")
    assert (done.code, done.json["created"], done.json["batches"]) == (0, 2_500, 3)
    assert done.json.keys() >= RESULT_KEYS
    assert len(done.out.splitlines()) == 1
    outcomes = workplace.lines("first", "outcomes.ndjson")
    assert [outcome["index"] for outcome in outcomes] == list(range(2_500))
    assert all(outcome["url"].endswith(f"/projects/42/tasks/{outcome['task_id']}") for outcome in outcomes)
    assert len({outcome["task_id"] for outcome in outcomes}) == 2_500
    assert workplace.lines("first", "rejects.ndjson") == []
    assert workplace.sandbox.markers == {f"task-{n}": 1 for n in range(2_500)}
    audit = workplace.run("audit", "first", "--json")
    assert (audit.code, audit.json["holds"]) == (0, True)


def test_standard_input_is_spooled_and_can_be_audited(workplace):
    config, tasks = workplace.configure(), workplace.write_tasks(30).read_text()
    done = workplace.run("submit", "-", "--config", config, "--job", "piped", "--json", stdin=tasks)
    assert (done.code, done.json["created"]) == (0, 30)
    assert workplace.run("audit", "piped").code == 0


def test_ten_kinds_of_bad_records_are_rejected_with_reasons_and_the_good_ones_created(workplace):
    good = [json.dumps({"data": {"id": f"task-{n}"}}) for n in range(10_000)]
    bad = {
        '{"data": {"id": 1}': "JSON",
        '["a"]': "object",
        "nonsense": "JSON",
        '{"data": 5}': "data",
        '{"priority": 1}': "data",
        '{"data": {}, "priority": 2147483648}': "priority",
        '{"data": {}, "priorty": 1}': "did you mean 'priority'",
        '{"data": {}, "submit": "yes"}': "submit",
        '{"data": {}, "duration": 3}': "duration",
        '{"data": {"id": NaN}}': "JSON",
    }
    lines = good.copy()
    for number, line in enumerate(bad):
        lines.insert(number * 997, line)
    source = workplace.folder / "mixed.ndjson"
    source.write_text("\n".join(lines))
    done = workplace.run("submit", source, "--config", workplace.configure(), "--job", "mixed", "--json")
    assert (done.code, done.json["created"], done.json["rejected"]) == (3, 10_000, 10)
    rejects = workplace.lines("mixed", "rejects.ndjson")
    assert len(rejects) == 10
    for reject, (line, reason), position in zip(rejects, bad.items(), range(0, 9_970, 997), strict=True):
        assert reason in reject["error"]
        assert reject["index"] == position
        assert reject["line"] == position + 1
        assert reject["attempts"] == 1
        try:
            expected = json.loads(line, parse_constant=lambda _: (_ for _ in ()).throw(ValueError()))
        except ValueError:
            expected = line
        assert reject["record"] == expected
    assert workplace.run("audit", "mixed").code == 0


@pytest.mark.parametrize("behaviour", ['[[failures]]\npath = "data.id"\nmatches = "7$"\nmessage = "no sevens"\n'])
def test_what_the_service_refuses_is_mended_and_tried_again_once(workplace):
    done = workplace.run(
        "submit", workplace.write_tasks(100), "--config", workplace.configure(), "--job", "sevens", "--json"
    )
    assert (done.code, done.json["failed"]) == (3, 10)
    rejects = workplace.folder / ".bulksubmit" / "sevens" / "rejects.ndjson"
    assert all("no sevens" in line["error"] for line in workplace.lines("sevens", "rejects.ndjson"))
    rejects.write_text(rejects.read_text().replace('7"}', '7-mended"}'))
    retried = workplace.run("retry", "sevens", "--json")
    assert (retried.code, retried.json["created"], retried.json["job"]) == (0, 10, "sevens.retry")
    again = workplace.run("retry", "sevens", "--json")
    assert (again.code, again.json["created"]) == (0, 10)
    markers = workplace.sandbox.markers
    assert sum("mended" in str(marker) for marker in markers) == 10
    assert set(markers.values()) == {1}


def test_a_wrong_key_stops_the_job_and_resume_goes_on_with_the_right_one(workplace):
    config, tasks = workplace.configure(), workplace.write_tasks(50)
    stopped = workplace.run(
        "submit", tasks, "--config", config, "--job", "keyless", "--json", SAMA_ACCESS_KEY="canary-7f3a"
    )
    assert (stopped.code, stopped.json["created"], stopped.json["unresolved"]) == (9, 0, 50)
    assert "canary-7f3a" not in stopped.out + stopped.err + (
        workplace.folder / ".bulksubmit" / "ledger.db"
    ).read_bytes().decode("latin-1")
    done = workplace.run("resume", "keyless", "--json")
    assert (done.code, done.json["created"]) == (0, 50)
    assert set(workplace.sandbox.markers.values()) == {1}


def test_strict_sends_nothing_when_one_record_is_bad(workplace):
    tasks = workplace.write_tasks(1_500)
    tasks.write_text(tasks.read_text() + "{}\n")
    done = workplace.run("submit", tasks, "--config", workplace.configure(), "--job", "strict", "--strict", "--json")
    assert done.code == 3
    assert not workplace.sandbox.markers


def test_validate_reads_everything_and_sends_nothing(workplace):
    tasks = workplace.write_tasks(1_200)
    tasks.write_text(tasks.read_text() + "{}\n")
    done = workplace.run("validate", tasks, "--config", workplace.configure(), "--json")
    assert (done.code, done.json["records"], done.json["rejected"]) == (3, 1_201, 1)
    assert not workplace.sandbox.markers
