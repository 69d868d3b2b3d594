"""Sources that are packed, or behind a URL, through whole jobs."""

import gzip
import signal

import orjson
import pytest
from backports import zstd
from fakes.files_server import serving_files

import engine
from engine.commands import intake
from engine.http import remote
from engine.model.errors import AlreadyTaken, Exit, Interrupted, JobError, SourceError, SourceUnreachable
from engine.progress.events import SourceCopied
from engine.sandbox.behaviour import CreationPace

from .desk import counts, lines, once, tasks


@pytest.fixture
async def server():
    async with serving_files() as serving:
        yield serving


@pytest.fixture
def no_waits(monkeypatch):
    monkeypatch.setattr(remote, "LONGEST_WAIT_SECONDS", 0.0)


def ndjson(records):
    return b"".join(orjson.dumps(record) + b"\n" for record in records)


def packed(desk, records, name="tasks.ndjson.gz", pack=gzip.compress):
    path = desk.folder / name
    path.write_bytes(pack(ndjson(records)))
    return path


def spooled(desk, job="j"):
    return sorted(path.name for path in (desk.folder / "state" / job).iterdir() if intake.SPOOLED.fullmatch(path.name))


async def test_packed_plain_and_fetched_sources_are_one_input_in_the_order_in_which_they_are_named(desk, server):
    desk = await desk()
    rows = [{"id": str(number)} for number in range(60)]
    server.content = gzip.compress(b"id\n" + b"".join(b"%d\n" % number for number in range(60, 90)))
    sources = [
        packed(desk, rows[:30]),
        desk.source(rows[30:45]),
        packed(desk, rows[45:], "more.zst", zstd.compress),
        server.url("rows.csv.gz?token=not-to-be-shown"),
    ]
    result = await desk.submit(sources, desk.config(more='[mapping]\nwrap = "data"'))
    assert counts(result) == (90, 0, 0, 0, 0)
    assert desk.created() == once(90)
    outcomes = lines(result.outcomes)
    named = [*map(str, sources[:3]), server.url("rows.csv.gz?***")]
    assert [outcomes[at]["source"] for at in (0, 30, 45, 60)] == named
    assert [outcomes[at]["offset"] for at in (1, 61)] == [len(ndjson(rows[:1])), len(b"id\n60\n")]
    assert (await desk.audit()).holds
    assert spooled(desk) == ["spooled-0.ndjson", "spooled-2", "spooled-3.csv"]
    written = [path.read_bytes() for path in (desk.folder / "state").rglob("*") if path.is_file()]
    assert b"not-to-be-shown" not in b"".join([*written, repr(desk.events).encode()])


async def test_a_job_from_packed_sources_is_resumed_without_the_original(desk):
    desk = await desk(creation=CreationPace(tasks_per_second=1000.0))
    source = packed(desk, tasks(100))
    desk.stop_at = 2
    result = await desk.submit(str(source), desk.config(send="max_in_flight = 1"))
    assert result.exit_code == 128 + signal.SIGTERM
    source.unlink()
    desk.stop_at = None
    assert counts(await desk.resume()) == (100, 0, 0, 0, 0)
    assert desk.created() == once(100)
    assert (await desk.audit()).holds


async def test_what_a_job_has_taken_is_not_taken_again_however_it_is_packed_or_named(desk, server):
    desk = await desk()
    await desk.submit(str(packed(desk, tasks(20))))
    server.content = zstd.compress(ndjson(tasks(20)))
    for source in (server.url("other.zst"), str(desk.source(tasks(20)))):
        with pytest.raises(AlreadyTaken):
            await desk.submit(source, job="again")
    assert spooled(desk, "again") == []
    assert desk.created() == once(20)


@pytest.mark.parametrize("damage", [lambda data: data[:-3], lambda data: data + b"more"])
async def test_a_damaged_source_is_no_job_and_leaves_no_copy(desk, damage):
    desk = await desk()
    source = packed(desk, tasks(20))
    source.write_bytes(damage(source.read_bytes()))
    with pytest.raises(SourceError, match="Get the file again"):
        await desk.submit([str(desk.source(tasks(5))), str(source)])
    assert spooled(desk) == []
    assert not desk.created()


async def test_a_source_that_breaks_off_is_gone_on_with_by_the_same_command(desk, server, no_waits):
    desk = await desk()
    server.content = ndjson(tasks(2000))
    server.breaks_after = [20_000, *[0] * 9]
    source = server.url("tasks.ndjson")

    async def submit():
        return await engine.submit(source, desk.config(), desk.ledger, desk.emit, desk.new_stop())

    with pytest.raises(SourceUnreachable, match="are kept in"):
        await submit()
    server.breaks_after, before = [], len(server.asked)
    result = await submit()
    assert counts(result) == (2000, 0, 0, 0, 0)
    assert [asked["Range"] for asked in server.asked[before:]] == ["bytes=20000-"]
    assert [path.name for path in (desk.folder / "state").glob("engine-*") if path.is_dir()] == [result.job]
    assert spooled(desk, result.job) == ["spooled-0.ndjson"]


async def test_a_process_that_was_killed_while_it_unpacked_leaves_nothing_to_the_next(desk):
    desk = await desk()
    source, folder = packed(desk, tasks(5)), desk.folder / "state" / "engine-of-old"
    folder.mkdir(parents=True, mode=0o700)
    (folder / "spooled-0.ndjson.part").write_bytes(bytes(5000))
    (folder / "spooled.json").write_bytes(orjson.dumps([str(source)]))
    result = await engine.submit(source, desk.config(), desk.ledger, desk.emit, desk.new_stop())
    assert (result.job, counts(result)) == (folder.name, (5, 0, 0, 0, 0))
    assert spooled(desk, folder.name) == ["spooled-0.ndjson"]


async def test_what_was_fetched_is_kept_when_a_person_interrupts(desk, server):
    desk = await desk()
    server.content = ndjson(tasks(2000))
    events = []

    def emit(event):
        events.append(event)
        if isinstance(event, SourceCopied) and event.done_bytes:
            desk.stop.request(Interrupted(signal.SIGINT))

    server.breaks_after = [20_000]
    with pytest.raises(Interrupted):
        await engine.submit(server.url("t.ndjson"), desk.config(), desk.ledger, emit, desk.new_stop(), job="j")
    assert "spooled-0.download" in spooled(desk)
    with pytest.raises(JobError, match=r"not made yet.*Run its submit again"):
        await desk.resume()
    assert counts(await desk.submit(server.url("t.ndjson"))) == (2000, 0, 0, 0, 0)
    assert server.asked[-1]["Range"] == "bytes=20000-"


async def test_each_night_fetches_anew_and_sends_what_is_new(desk, server):
    desk = await desk()

    async def night():
        return await engine.nightly(server.url("t.ndjson.gz"), desk.config(), desk.ledger, desk.emit, desk.new_stop())

    server.content = gzip.compress(ndjson(tasks(20)))
    first = await night()
    assert counts(first) == (20, 0, 0, 0, 0)
    before = len(server.asked)
    same = await night()
    assert (same.job, same.exit_code) == (first.job, Exit.ALL_CREATED)
    assert "there is nothing new" in same.message
    assert [asked["method"] for asked in server.asked[before:]] == ["HEAD"]
    server.content, server.tag = gzip.compress(ndjson(tasks(25))), '"v2"'
    later = await night()
    assert (later.tally.created, later.tally.skipped) == (5, 20)
    server.tag = ""  # nobody says whether it is another file: its content does
    assert (await night()).tally.created == 0
    assert desk.created() == once(25)


async def test_the_copy_goes_with_its_job_and_no_sooner(desk):
    desk = await desk()
    await desk.submit(str(packed(desk, tasks(5))), job="old")
    await desk.submit(str(packed(desk, tasks(5, 5))), job="new")
    await engine.prune(desk.ledger, keep_last=1)
    assert not (desk.folder / "state" / "old").exists()
    assert spooled(desk, "new") == ["spooled-0.ndjson"]


async def test_validate_reads_packed_and_fetched_sources_and_keeps_nothing(desk, server):
    desk = await desk()
    server.content = gzip.compress(ndjson([*tasks(9), {"data": 5}]))
    found = await engine.validate([str(packed(desk, tasks(5))), server.url("t.jsonl.gz?sig=abcdefgh")], desk.config())
    assert (found.records, found.rejected) == (15, 1)
    assert found.rejects[0][0] == server.url("t.jsonl.gz?***")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("ftp://files.example/x.csv", "ftp:// is not read. Name a file, https://host/path or s3://bucket/key"),
        ("s3://bucket/prefix/", "names no object"),
        ("s3://bucket/*.csv", "know no globs"),
        ("http://files.example/x.csv", "plain_http_hosts"),
    ],
)
async def test_a_source_that_cannot_be_fetched_is_refused_before_others_are(desk, source, said):
    desk = await desk()
    with pytest.raises(SourceError, match=said):
        await desk.submit([str(packed(desk, tasks(5))), source])
    assert spooled(desk) == []
