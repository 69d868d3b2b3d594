import csv
from contextlib import suppress
from functools import partial
from unittest.mock import patch

import apsw
import orjson
import pytest
from fakes.fates import BIG, every_fate, write

import engine
from engine.commands.lineage import find_attempts, flagged
from engine.commands.mended import mended_records
from engine.ledger.sqlite import SqliteLedger
from engine.ledger.writer import Hooks
from engine.model.errors import ConfigError, JobError, LedgerError, SourceChanged
from engine.progress.events import Noticed
from engine.reports.outcomes import REPLAYABLE
from engine.sandbox.behaviour import FailureRule

from .desk import counts, lines, once, tasks

BROKEN = FailureRule(path="data.status", equals="broken", message="data.status must not be broken.")


@pytest.fixture
async def bench(tmp_path):
    async with every_fate(tmp_path) as bench:
        yield bench


async def retried(bench):
    """Return what a retry of a job takes: indexes, and the file."""
    attempts = await find_attempts(bench.job, bench.ledger)
    flags = await flagged(bench.job, bench.ledger, REPLAYABLE)
    taken = [pair async for page in mended_records(bench.job, attempts, flags) for pair in page]
    return [index for index, _ in taken], b"".join(text + b"\n" for _, text in taken)


async def test_what_failed_or_was_rejected_is_tried_again_and_what_is_uncertain_is_not(bench):
    await write(bench)
    indexes, text = await retried(bench)
    assert text == b'no json\n{"data":{"id":"1","n":%s}}\n{"input":"\xc3\xa9"}\n' % BIG.encode()
    assert indexes == [1, 2, 6]


async def test_a_line_that_a_person_mended_is_sent_as_mended(bench):
    reports = await write(bench)
    mended = reports.rejects.read_bytes().replace(b'{"input":"\xc3\xa9"}', b'{ "data": {"input":\r 1e999} }')
    mended = mended.replace(b'"record":"no json"', b'"record":{"data":{}}')
    reports.rejects.write_bytes(mended + b"\n\n")
    _, text = await retried(bench)
    assert text.splitlines()[0] == b'{"data":{}}'
    assert b'{ "data": {"input":\r 1e999} }\n' in text


async def test_text_that_is_mended_as_text_is_tried_as_what_it_says(bench):
    reports = await write(bench)
    mended = reports.rejects.read_bytes().replace(b'"no json"', orjson.dumps('{"data":{"a":"\\n"},\n"priority":1}'))
    reports.rejects.write_bytes(mended)
    _, text = await retried(bench)
    assert text.splitlines()[0] == b'{"data":{"a":"\\n"}, "priority":1}'


async def test_lines_may_be_taken_out(bench):
    reports = await write(bench)
    reports.rejects.write_bytes(reports.rejects.read_bytes().splitlines(keepends=True)[1])
    _, text = await retried(bench)
    assert text.count(b"\n") == 1


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (b"{not json}", "line 6: not a line of a rejects file"),
        (b"[1]", "line 6: not a line of a rejects file"),
        (b'{"record":{}}', "line 6: not a line of a rejects file"),
        (b'{"index":0,"state":"failed"}', "line 6: the record is missing"),
        (b'{"index":0,"state":["failed"],"record":{}}', "line 6: not a line of a rejects file"),
        (b'{"index":0,"state":"Failed","record":{}}', "line 6: not a line of a rejects file"),
        (b'{"index":"0","record":{}}', "line 6: not a line of a rejects file: its index is no number"),
        (b'{"index":-1,"record":{}}', "line 6: job 'j' has no record -1"),
        (b'{"index":7,"record":{}}', "line 6: job 'j' has no record 7"),
        (b'{"index":1,"record":{}}', "line 6: record 1 has a line before this one; keep one of the two"),
    ],
)
async def test_a_damaged_line_is_named_and_nothing_is_tried(bench, damage, said):
    reports = await write(bench)
    reports.rejects.write_bytes(reports.rejects.read_bytes() + damage + b"\n")
    with pytest.raises(JobError, match=said):
        await retried(bench)


async def test_the_rejects_of_another_job_are_not_tried(bench):
    reports = await write(bench)
    reports.rejects.write_bytes(reports.rejects.read_bytes().replace(b'{"job":"j"', b'{"job":"k"', 1))
    with pytest.raises(JobError, match="line 1: a record of job 'k', not of 'j'; retry that one"):
        await retried(bench)


async def test_without_a_rejects_file_there_is_a_way_to_get_one(bench):
    with pytest.raises(JobError, match="`bulksubmit report j` writes it again"):
        await retried(bench)


async def test_of_lines_that_are_all_uncertain_nothing_is_tried(bench):
    reports = await write(bench)
    uncertain = [line for line in reports.rejects.read_bytes().splitlines() if b'"uncertain"' in line]
    reports.rejects.write_bytes(b"\n".join(uncertain))
    assert await retried(bench) == ([], b"")


async def test_a_record_that_is_mended_to_nothing_stays_a_record(bench):
    reports = await write(bench)
    reports.rejects.write_bytes(reports.rejects.read_bytes().replace(b'"no json"', b'"\\n "'))
    assert (await retried(bench))[1].startswith(b'""\n')


# Again and again


def mend(path, *numbers):
    """Mend the records with some ids in a rejects file; return it."""
    text = path.read_bytes()
    for number in numbers:
        before = b'"id":"%d","status":"broken"' % number
        assert before in text
        text = text.replace(before, b'"id":"%d","status":"mended"' % number)
    path.write_bytes(text)
    return path


def take_out(path, number):
    kept = [line for line in path.read_bytes().splitlines(keepends=True) if b'"id":"%d"' % number not in line]
    path.write_bytes(b"".join(kept))


def ids(desk, job):
    """Return the ids that a retry sends."""
    path = desk.folder / "state" / job / "records.ndjson"
    return [int(orjson.loads(line)["data"]["id"]) for line in path.read_bytes().splitlines()]


async def broken(desk, count=5):
    """Submit a job of which the last so many records fail; return its rejects."""
    desk = await desk(failures=(BROKEN,))
    result = await desk.submit(desk.source([*tasks(10), *tasks(count, start=10, status="broken")]))
    return desk, result.rejects


async def test_what_was_mended_since_goes_and_what_was_created_stays(desk):
    desk, rejects = await broken(desk)
    mend(rejects, 10, 11)
    first = await desk.retry()
    assert (first.job, counts(first)) == ("j.retry", (2, 3, 0, 0, 0))
    mend(first.rejects, 12)
    second = await desk.retry()
    assert (second.job, counts(second), ids(desk, "j.retry-2")) == ("j.retry-2", (1, 2, 0, 0, 0), [12, 13, 14])
    mend(second.rejects, 13, 14)
    third = await desk.retry()
    assert (third.job, third.exit_code, counts(third)) == ("j.retry-3", 0, (2, 0, 0, 0, 0))
    assert [line["attempts"] for line in lines(second.rejects)] == [3, 3]
    last = await desk.retry()
    assert (last.job, last.exit_code) == ("j.retry-3", 0)
    assert "nothing of job j is left to try again" in last.message
    assert desk.created() == once(15)
    assert all([(await desk.audit(name)).holds for name in ("j", "j.retry", "j.retry-2", "j.retry-3")])


async def test_an_edit_is_never_ignored_whichever_attempts_file_it_is_in(desk):
    desk, rejects = await broken(desk)
    first = await desk.retry()
    second = await desk.retry()
    mend(rejects, 10)
    mend(first.rejects, 11)
    mend(second.rejects, 12)
    assert counts(await desk.retry()) == (3, 2, 0, 0, 0)
    assert desk.created() == once(13)


async def test_an_edit_that_was_sent_is_not_taken_for_a_new_one(desk):
    desk, rejects = await broken(desk)
    rejects.write_bytes(rejects.read_bytes().replace(b'"id":"10","status"', b'"id":"10","n":1,"status"'))
    first = await desk.retry()
    first.rejects.write_bytes(first.rejects.read_bytes().replace(b'"n":1', b'"n":2'))
    await desk.retry()
    last = await desk.retry()
    assert [line["record"]["data"].get("n") for line in lines(last.rejects)] == [2, None, None, None, None]


@pytest.mark.parametrize("job", ["j", "j.retry"])
async def test_a_line_that_is_taken_out_of_any_of_the_files_is_left_alone(desk, job):
    desk, rejects = await broken(desk)
    await desk.retry()
    take_out(rejects.parent.with_name(job) / "rejects.ndjson", 12)
    await desk.retry()
    assert ids(desk, "j.retry-2") == [10, 11, 13, 14]


async def test_what_a_first_retry_left_out_can_go_later(desk):
    desk, rejects = await broken(desk)
    whole = rejects.read_bytes()
    take_out(rejects, 14)
    await desk.retry()
    rejects.write_bytes(whole)
    await desk.retry()
    assert sorted(ids(desk, "j.retry-2")) == [10, 11, 12, 13, 14]


async def test_a_retry_of_a_retry_and_a_second_retry_never_send_a_record_twice(desk):
    desk, rejects = await broken(desk)
    first = await desk.retry()
    mend(first.rejects, 10, 11)
    below = await desk.retry("j.retry")
    assert (below.job, counts(below)) == ("j.retry.retry", (2, 3, 0, 0, 0))
    mend(rejects, 10, 11, 12)
    beside = await desk.retry()
    assert (beside.job, sorted(ids(desk, beside.job)), counts(beside)) == ("j.retry-2", [12, 13, 14], (1, 2, 0, 0, 0))
    mend(first.rejects, 12, 13)
    last = await desk.retry("j.retry")
    assert (last.job, sorted(ids(desk, last.job)), counts(last)) == ("j.retry.retry-2", [13, 14], (1, 1, 0, 0, 0))
    assert desk.created() == once(14)


async def test_a_retry_that_is_not_finished_goes_on_first(desk):
    desk, rejects = await broken(desk, 40)
    mend(rejects, *range(10, 40))
    desk.stop_at = 1
    stopped = await desk.retry()
    desk.stop_at = None
    assert (stopped.job, stopped.state) == ("j.retry", "open")
    result = await desk.retry()
    assert (result.job, counts(result)) == ("j.retry", (30, 10, 0, 0, 0))
    assert ids(desk, (await desk.retry()).job) == list(range(40, 50))
    assert desk.created() == once(40)


async def test_what_is_uncertain_in_a_retry_is_not_sent_once_more(desk):
    desk, rejects = await broken(desk)
    await desk.retry()
    connection = apsw.Connection(str(desk.ledger))
    connection.execute(
        "UPDATE settlements SET uncertain = '{\"lost\":[0]}', errors = '{\"no\":[1,2,3,4]}' WHERE job = 2"
    )
    connection.execute("UPDATE batches SET uncertain = 1, failed = 4 WHERE job = 2")
    connection.close()
    await engine.report("j.retry", desk.ledger)
    mend(rejects, *range(10, 15))
    assert counts(await desk.retry()) == (4, 0, 0, 0, 0)
    assert "10" not in desk.created()


async def test_a_retry_by_an_older_bulksubmit_is_not_guessed_about(desk):
    desk, _ = await broken(desk)
    await desk.retry()
    connection = apsw.Connection(str(desk.ledger))
    connection.execute("DELETE FROM origins")
    connection.close()
    with pytest.raises(JobError, match=r"older bulksubmit.*`bulksubmit retry j\.retry --ledger .*` sends what is left"):
        await desk.retry()
    assert (await desk.retry("j.retry")).job == "j.retry.retry"


async def test_a_retry_takes_a_configuration_that_was_mended_for_it(desk):
    desk, _ = await broken(desk)
    mapping = '[mapping]\ntemplate = { data = { id = "7", of = "${row.data}" } }'
    config = desk.config(more=mapping)
    result = await desk.retry(config=config)
    assert counts(result) == (5, 0, 0, 0, 0)
    assert (await desk.status("j")).job.config != (await desk.status("j.retry")).job.config == config.read_text()


async def test_a_configuration_for_another_service_is_refused(desk):
    desk, _ = await broken(desk)
    config = desk.folder / "other.toml"
    config.write_text('[service]\nkind = "sevenbridges"\nproject = "a/b"\nauth_token = "${env:SAMA_ACCESS_KEY}"\n')
    with pytest.raises(ConfigError, match=r"service\.kind: 'sevenbridges', but job 'j' is one for 'sama'"):
        await desk.retry(config=config)


@pytest.mark.parametrize("change", ["DELETE FROM origins", "UPDATE origins SET record_index = 9"])
async def test_the_audit_sees_that_a_retry_knows_where_its_records_come_from(desk, change):
    desk, _ = await broken(desk)
    await desk.retry()
    assert (await desk.audit("j.retry")).holds
    connection = apsw.Connection(str(desk.ledger))
    connection.execute(f"{change} WHERE record_index = 4")
    connection.close()
    (finding,) = (await desk.audit("j.retry")).findings
    assert "does not say of each of 5 records which one of 'j' it is" in finding


# The story of a record


async def told(desk, job, **asked):
    story = await engine.tell_story(job, desk.ledger, **asked)
    assert story.asked.job == job
    return story


async def test_the_story_of_a_record_is_the_same_from_whichever_attempt_it_is_asked(desk):
    """A record fails, is mended, fails for another reason, is mended again, and its task fails later."""
    desk, rejects = await broken(desk)
    take_out(rejects, 10)
    rejects.write_bytes(rejects.read_bytes().replace(b'"id":"12",', b'"id":"12","n":1,'))
    first = await desk.retry()
    second = await desk.retry(mend(first.rejects, 13) and "j")
    connection = apsw.Connection(str(desk.ledger))
    connection.execute(
        "INSERT INTO later_fates SELECT id, 2, 'failed', 'disk full', 9.0 FROM jobs WHERE name = 'j.retry-2'"
    )
    connection.close()
    stories = [
        await told(desk, "j", record=13),
        await told(desk, "j.retry", record=2),
        await told(desk, second.job, record=2),
        await told(desk, "j", key="data.id=13"),
    ]
    assert len({repr(story.attempts) for story in stories}) == 1
    attempts = stories[0].attempts
    assert [(one.job, one.number, one.outcome.index, one.outcome.state, one.line) for one in attempts] == [
        ("j", 1, 13, "failed", 14),
        ("j.retry", 2, 2, "failed", 3),
        ("j.retry-2", 3, 2, "created", 3),
    ]
    assert attempts[0].outcome.error == attempts[1].outcome.error == f"InvalidInputSchema: {BROKEN.message}"
    assert attempts[2].outcome.task_id
    assert [one.later and one.later.reason for one in attempts] == [None, None, "disk full"]
    assert [one.at > 1e9 for one in attempts] == [True] * 3
    assert (await told(desk, "j", record=10)).attempts == [(await told(desk, "j", record=10)).asked]


async def test_a_record_is_found_by_its_own_key(desk):
    desk = await desk(failures=(BROKEN,))
    path = desk.folder / "rows.csv"
    path.write_text("id,n,status\na,1,\nb,2,broken\nc,2,broken\n")
    types = '[source]\nformat = "csv"\n[source.types]\nn = "integer"\n[mapping]\nwrap = "data"'
    result = await desk.submit(path, desk.config(more=types))
    result.rejects.write_bytes(result.rejects.read_bytes().replace(b"broken", b"mended"))
    await desk.retry()
    story = await told(desk, "j", key="id=b")
    assert (story.column, story.key, story.asked.line, len(story.attempts)) == ("id", "b", 3, 2)
    assert (await told(desk, "j", key="n=1")).asked.outcome.index == 0
    with pytest.raises(JobError, match=r"'j' has several records with '2' in 'n': 1, 2; ask by --record"):
        await told(desk, "j", key="n=2")
    with pytest.raises(JobError, match="no record that job 'j' has read has 'x' in 'id'"):
        await told(desk, "j", key="id=x")
    with pytest.raises(JobError, match="which column holds the key"):
        await told(desk, "j", key="b")
    with pytest.raises(JobError, match="has no record 3"):
        await told(desk, "j", record=3)


async def test_a_key_is_not_looked_for_in_a_source_that_is_another_one_by_now(desk):
    desk, _ = await broken(desk)
    desk.source(tasks(99))
    with pytest.raises(SourceChanged):
        await told(desk, "j", key="id=1")
    assert (await told(desk, "j", record=1)).attempts


# What became of the failures


async def test_the_parent_says_what_became_of_its_failures(desk):
    desk, rejects = await broken(desk)
    assert (await desk.status("j")).retried is None
    mend(rejects, 10, 11)
    first = await desk.retry()
    assert str(first.retried) == "2 of 5 failures of j were created by j.retry"
    mend(first.rejects, 12)
    assert str((await desk.retry("j.retry")).retried) == "1 of 3 failures of j.retry was created by j.retry.retry"
    mend(rejects, 13, 14)
    await desk.retry()
    retried = (await desk.status("j")).retried
    assert str(retried) == "5 of 5 failures of j were created: 2 by j.retry, 1 by j.retry.retry, 2 by j.retry-2"
    assert retried.left == 0
    assert str((await desk.status("j.retry-2")).retried) == str(retried)


# From a file that was mended elsewhere


async def test_a_file_that_was_mended_elsewhere_says_what_goes_and_the_rest_is_left_alone(desk):
    desk, _ = await broken(desk)
    mended = desk.source([{"index": 12, "record": tasks(1, 12)[0]}, {"index": 3, "record": {}}], "mended.ndjson")
    result = await desk.retry(from_file=mended)
    assert (ids(desk, "j.retry"), counts(result)) == ([12], (1, 0, 0, 0, 0))
    said = [event.text for event in desk.events if isinstance(event, Noticed)]
    assert said == [f"1 record of {mended} left alone: created, uncertain or on its way, here or in a retry"]
    with pytest.raises(JobError, match="holds no record of job 'j' that failed and that no retry has created"):
        await desk.retry(from_file=mended)
    assert sorted(ids(desk, (await desk.retry()).job)) == [10, 11, 13, 14]
    assert desk.created() == once(10) | {"12": 1}


async def test_a_file_may_have_the_rejects_of_a_retry(desk):
    desk, _ = await broken(desk)
    result = await desk.retry()
    elsewhere = desk.folder / "elsewhere.ndjson"
    elsewhere.write_bytes(result.rejects.read_bytes().replace(b"broken", b"mended"))
    assert counts(await desk.retry(from_file=elsewhere)) == (5, 0, 0, 0, 0)
    assert desk.created() == once(15)


ROWS = """id,n,when,status
a,1,=1+1,broken
b,x,'=1+1,ok
c,-3,"two
lines",broken
d,4,,broken
e,5,-,broken
"""


async def with_rows(desk):
    desk = await desk(failures=(BROKEN,))
    path = desk.folder / "rows.csv"
    path.write_text(ROWS)
    config = desk.config(more='[source.types]\nn = "integer"\n[mapping]\nwrap = "data"')
    return desk, await desk.submit(path, config)


async def test_the_rejects_are_a_table_too_in_which_no_cell_is_a_formula(desk):
    _, result = await with_rows(desk)
    text = (result.rejects.with_name("rejects.csv")).read_bytes()
    error = f"InvalidInputSchema: {BROKEN.message}"
    assert text.decode("utf-8-sig").split("\r\n") == [
        "job,index,line,state,reason,unread,id,n,when,status",
        f"j,0,2,failed,{error},,a,1,'=1+1,broken",
        "j,1,3,rejected,column 'n': 'x' is no integer,\"b,x,'=1+1,ok\"",
        f'j,2,4,failed,{error},,c,\'-3,"two\nlines",broken',
        f"j,3,6,failed,{error},,d,4,,broken",
        f"j,4,7,failed,{error},,e,5,'-,broken",
        "",
    ]
    assert text.startswith(b"\xef\xbb\xbf")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
async def test_a_table_that_comes_back_is_what_it_says_with_the_types_that_were(desk, delimiter):
    desk, result = await with_rows(desk)
    with result.rejects.with_name("rejects.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.reader(file))
    for row in (rows[1], rows[4], rows[5]):
        row[9] = "mended"
    rows[2][5:] = ["b,x,ok", "b", "7", "", "mended"]
    rows[4][7] = "44"
    del rows[3]
    back = desk.folder / "back.csv"
    with back.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    assert counts(await desk.retry(from_file=back)) == (4, 0, 0, 0, 0)
    sent = desk.folder / "state" / "j.retry" / "records.ndjson"
    assert [tuple(line.values()) for line in lines(sent)] == [
        ("a", 1, "=1+1", "mended"),
        ("b", 7, "", "mended"),
        ("d", 44, "", "mended"),
        ("e", 5, "-", "mended"),
    ]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("id,n\na,1\n", "its first columns must be job, index, line, state, reason, unread"),
        ("index,n\n0,x\n", r"line 2: column 'n': 'x' is no integer"),
        ("index,n\nx,1\n", "line 2: its index is 'x', not the number of a record"),
        ("index,n\n99,1\n", "line 2: job 'j' has no record 99"),
        ("index,n\n0,1\n0,2\n", "line 3: record 0 has a line before this one"),
        ("index,n\n0,1,2\n", "line 2: has more cells than the header has names"),
        ("job,index,n\nk,0,1\n", "line 2: a record of job 'k', not of 'j'"),
        ('index,n\n0,"a"b\n', "line 2: not valid CSV"),
        ("index,n\n0,\udcff\n", "is not UTF-8: save it as “CSV UTF-8”"),
    ],
)
async def test_a_table_that_cannot_be_taken_is_refused_with_the_place(desk, table, said):
    desk, _ = await with_rows(desk)
    path = desk.folder / "back.csv"
    path.write_bytes(table.encode(errors="surrogateescape"))
    with pytest.raises(JobError, match=said):
        await desk.retry(from_file=path)
    assert [status.job.name for status in await engine.status(None, desk.ledger)] == ["j"]


# Killed


@pytest.mark.parametrize("moment", ["before_commit", "on_commit"])
async def test_a_retry_that_ends_at_any_write_sends_each_record_once(desk, moment):
    """Just before or just after each write in its turn: the first makes the retry, with where its records come from."""
    desk, rejects = await broken(desk)
    mend(rejects, 10, 11, 12)
    names, result, death = set(), None, 0
    while result is None or result.state != "finished":
        death += 1
        writes = iter(range(1, 1000))

        def ends(_changes, writes=writes, death=death):
            if next(writes) == death:
                raise OSError("the power goes")

        dying = partial(SqliteLedger.open, hooks=Hooks(**{moment: ends}))
        with patch.object(SqliteLedger, "open", dying), suppress(LedgerError):
            result = await desk.retry()
        names |= {status.job.name for status in await engine.status(None, desk.ledger)}
    assert death > 3
    assert names == {"j", "j.retry"}
    assert counts(result) == (3, 2, 0, 0, 0)
    assert sorted(ids(desk, (await desk.retry()).job)) == [13, 14]
    assert desk.created() == once(13)
