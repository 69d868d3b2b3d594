"""Sources that are packed, or behind a URL, through whole jobs."""

import asyncio
import gzip
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import orjson
import pyarrow as pa
import pytest
from backports import zstd
from fakes.files_server import serving_files
from pyarrow import parquet

import engine
from engine.commands import intake
from engine.http import remote
from engine.model.errors import (
    AlreadyTaken,
    Exit,
    Interrupted,
    JobError,
    SourceChanged,
    SourceError,
    SourceUnreachable,
)
from engine.model.job import Job
from engine.model.settings import RunLimits, SourceSettings
from engine.progress.events import SourceCopied, unheard
from engine.run.context import Stop
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
    return sorted(path.name for path in (desk.folder / "state" / job).glob("*") if intake.SPOOLED.fullmatch(path.name))


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
    assert found.rejects[0][0].shown == server.url("t.jsonl.gz?***")


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


# Parquet, and text in another encoding


def parquet_file(desk, rows, name="tasks.parquet", group=40):
    path = desk.folder / name
    parquet.write_table(pa.Table.from_pylist(rows), path, row_group_size=group)
    return path


async def test_rows_of_parquet_are_found_again_by_group_and_row(desk, server):
    desk = await desk(creation=CreationPace(tasks_per_second=1000.0))
    rows = [{"id": str(number), "price": float("nan") if number == 57 else number / 4} for number in range(100)]
    first = parquet_file(desk, rows)
    server.content = parquet_file(desk, [{"id": "100", "price": 1.0}], "more.parquet").read_bytes()
    config = desk.config(more='[mapping]\nwrap = "data"', send="max_in_flight = 1")
    desk.stop_at = 2
    await desk.submit([first, desk.source([{"id": "x", "price": 0}]), server.url("more.parquet")], config)
    desk.stop_at = None
    first.unlink()
    result = await desk.resume()
    assert counts(result) == (101, 0, 1, 0, 0)
    outcomes = lines(result.outcomes)
    assert [(line["index"], line["row_group"], line["row"]) for line in outcomes if "row" in line] == [
        *((number, number // 40, number % 40) for number in range(100)),
        (101, 0, 0),
    ]
    (bad,) = lines(result.rejects)
    assert (bad["source"], bad["row_group"], bad["row"], bad["line"]) == (str(first), 1, 17, 58)
    assert "NaN is no value that JSON has" in bad["error"]
    assert (await desk.audit()).holds
    story = await engine.tell_story("j", desk.ledger, record=57)
    assert (story.asked.outcome.details["row_group"], story.asked.outcome.details["row"]) == (1, 17)


async def test_parquet_is_known_by_its_content_to_delta_and_retry(desk):
    desk = await desk()
    rows = [{"id": str(number), "n": None if number == 3 else number} for number in range(10)]
    config = desk.config(more='[mapping]\nwrap = "data"')
    await desk.submit(parquet_file(desk, rows), config, family="f")
    later = parquet_file(desk, [*rows, {"id": "new", "n": 1}], "later.parquet", group=3)
    result = await desk.submit(later, config, job="k", family="f", delta=True)
    assert (result.tally.created, result.tally.skipped) == (1, 10)
    assert (await engine.audit("k", desk.ledger)).holds
    with pytest.raises(AlreadyTaken):
        await desk.submit(parquet_file(desk, rows, "same.parquet", group=5), config, job="again")


@pytest.mark.parametrize(
    ("name", "content", "settings"),
    [
        ("a.csv", "\ufeffid;né\r\n1;é\r\n2;€\r\n".encode("utf-16-le"), 'delimiter = "auto"'),
        ("a.csv.gz", gzip.compress("\ufeffid|né\n1|é\n2|€\n".encode("utf-16-be"), mtime=0), 'delimiter = "auto"'),
        ("a.csv", "id,né\n1,é\n2,€\n".encode("windows-1252"), 'encoding = "windows-1252"'),
        ("a.ndjson", '\ufeff{"id":"1","né":"é"}\n{"id":"2","né":"€"}\n'.encode("utf-16-le"), ""),
        ("a.json", '[{"id":"1","né":"é"},\n{"id":"2","né":"€"}]'.encode("utf-16-be"), 'encoding = "utf-16-be"'),
    ],
    ids=["utf-16-le", "packed", "windows-1252", "ndjson", "json"],
)
async def test_text_of_another_encoding_goes_up_as_utf8(desk, name, content, settings):
    desk = await desk()
    (desk.folder / name).write_bytes(content)
    config = desk.config(more=f'[mapping]\nwrap = "data"\n[source]\n{settings}')
    result = await desk.submit(desk.folder / name, config)
    assert counts(result) == (2, 0, 0, 0, 0)
    assert (await desk.audit()).holds
    shown = await engine.preview(desk.folder / name, config)
    assert [orjson.loads(record.task or "")["data"] for record in shown.records] == [
        {"id": "1", "né": "é"},
        {"id": "2", "né": "€"},
    ]


async def test_a_byte_that_is_not_of_the_encoding_is_a_reject_at_its_line(desk):
    desk = await desk()
    source = desk.folder / "a.csv"
    source.write_bytes(b"id,t\n1,\xe9\n2,\x81\n3,x\n")
    config = desk.config(more='[mapping]\nwrap = "data"\n[source]\nencoding = "windows-1252"')
    result = await desk.submit(source, config)
    assert counts(result) == (2, 0, 1, 0, 0)
    (bad,) = lines(result.rejects)
    assert (bad["line"], bad["record"]) == (3, "2,\ufffd")
    assert "not of the encoding" in bad["error"]
    found = await engine.validate(source, config)
    assert [source.place(reject.line) for source, reject in found.rejects] == [f"{source}:3"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", b"id,t\n", "has a header and no rows"),
        ("a.ndjson", b"", "is empty"),
        ("a.json", b"[]", "has no records"),
    ],
)
async def test_a_source_without_records_says_so_and_may_be_an_error(desk, name, content, said):
    desk = await desk()
    source = desk.folder / name
    source.write_bytes(content)
    result = await desk.submit(source, limits=RunLimits(fail_if_empty=True))
    assert (result.exit_code, result.message) == (Exit.NOTHING, f"{source} {said}")
    assert (await engine.validate(source, desk.config())).nothing == f"{source} {said}"


def test_a_process_killed_while_it_writes_the_rows_of_parquet_leaves_a_job_that_is_made_again(tmp_path):
    rows = [{"data": {"id": str(number), "text": "x" * 2000}} for number in range(20_000)]
    path = tmp_path / "t.parquet"
    parquet.write_table(pa.Table.from_pylist(rows), path, row_group_size=7000)
    (tmp_path / "c.toml").write_text(
        '[service]\nkind = "sama"\nbase_url = "http://127.0.0.1:9/v2"\nproject_id = 1\n'
        'access_key = "${env:SAMA_ACCESS_KEY}"\n'
        "[send]\ngive_up_seconds = 1\n"
    )
    command = [sys.executable, "-m", "engine", "submit", str(path), "--config", "c.toml", "--ledger", "s/ledger.db"]
    environment = {**os.environ, "SAMA_ACCESS_KEY": "k"}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
    while not any(part.stat().st_size for part in tmp_path.glob("s/*/spooled-0.rows.part")):
        assert process.poll() is None
        time.sleep(0.001)
    process.kill()
    process.wait()
    subprocess.run(command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL, check=False, timeout=60)
    (copy,) = tmp_path.glob("s/*/spooled*")
    assert copy.name == "spooled-0.rows"
    assert [orjson.loads(line) for line in copy.read_bytes().splitlines()] == rows


async def taken_in(server, folder):
    """Return a job whose one source another machine has fetched: the file that it names is not here."""
    server.content = gzip.compress(ndjson(tasks(20)))
    settings = SourceSettings(plain_http_hosts=["127.0.0.1"])
    folder.mkdir()
    found = await intake.take_in([server.url("tasks.ndjson.gz")], settings, folder, unheard, Stop())
    text = text_of(found[0])
    intake.remove_copies(found, folder)
    return Job("j", "sama", "", found, str(folder)), settings, text


def text_of(source):
    return Path(source.path).read_bytes()


async def test_a_worker_fetches_what_another_machine_has_fetched(tmp_path, server):
    job, settings, text = await taken_in(server, tmp_path / "there")
    here = await intake.copied_here(job, settings, tmp_path / "here", unheard)
    (source,) = here.sources
    assert text_of(source) == text
    assert (source.name, source.version, source.size) == tuple(
        getattr(job.sources[0], name) for name in ("name", "version", "size")
    )
    asked = len(server.asked)
    assert await intake.copied_here(here, settings, tmp_path / "here", unheard) == here
    assert len(server.asked) == asked, "what can be read here is not fetched again"


async def test_workers_of_one_machine_fetch_a_source_once_whoever_comes_first(tmp_path, server):
    job, settings, text = await taken_in(server, tmp_path / "there")
    asked = len(server.asked)
    await intake.copied_here(job, settings, tmp_path / "alone", unheard)
    alone = len(server.asked) - asked
    fetched = (intake.copied_here(job, settings, tmp_path / "here", unheard) for _ in range(3))
    here = await asyncio.gather(*fetched)
    assert [text_of(source) for one in here for source in one.sources] == [text] * 3
    assert here[0] == here[1] == here[2] == await intake.copied_here(job, settings, tmp_path / "here", unheard)
    assert len(server.asked) - asked == 2 * alone


async def test_a_worker_takes_no_source_that_has_changed_since(tmp_path, server):
    job, settings, _ = await taken_in(server, tmp_path / "there")
    server.tag = '"v2"'
    with pytest.raises(SourceChanged, match=r"tasks\.ndjson\.gz is not what job 'j' has read"):
        await intake.copied_here(job, settings, tmp_path / "here", unheard)
