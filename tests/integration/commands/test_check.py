"""`check` against sandboxes in which one thing at a time is wrong: that line fails, with its cure; and its probe."""

import asyncio
import contextlib
import shutil
import socket

import aiohttp
import orjson
import pytest
from msgspec.structs import replace
from unit.http.raw_server import plain, raw_server
from yarl import URL

import engine
from engine.cli.output.check import check_screen, probe_screen
from engine.cli.output.screen import text_of
from engine.commands import check as checks
from engine.commands import wiring
from engine.http.client import tls_context
from engine.ledger.database import STEPS, examine, open_writer
from engine.model.errors import ConfigError, Interrupted
from engine.progress.events import BatchMoved
from engine.run.context import Stop
from engine.sandbox.behaviour import Behaviour, Fault, JournalSettings, Project, Tls
from engine.sandbox.journal import count_markers, read_journal
from engine.sandbox.server import running_sandbox
from engine.sandbox.settings import (
    App,
    AppInput,
    Rate,
    SamaUnwritten,
    SandboxPlatform,
    SandboxSama,
    SevenBridgesUnwritten,
)
from engine.services.checks import CheckVerdict, Finding

SAMA = """
[service]
kind = "sama"
base_url = "{url}"
project_id = 42
access_key = "${{env:CHECKED_KEY}}"
{service}
{more}
"""
SEVENBRIDGES = """
[service]
kind = "sevenbridges"
base_url = "{url}"
auth_token = "${{env:CHECKED_KEY}}"
project = "me/cohort"
app = "me/cohort/align"
{service}
{more}
"""
CONFIGS = {"sama": SAMA, "sevenbridges": SEVENBRIDGES}
APP = App("me/cohort/align", inputs=(AppInput("reads", required=True), AppInput("reference")))
PLATFORM = SandboxPlatform(projects=("me/cohort",), apps=(APP,))
RECORDS = {
    "sama": [{"data": {"id": str(number)}} for number in range(5)],
    "sevenbridges": [{"name": f"t{number}", "inputs": {"reads": str(number)}} for number in range(5)],
}
KINDS = pytest.mark.parametrize("kind", ["sama", "sevenbridges"])


@pytest.fixture
async def place(tmp_path, monkeypatch):
    """Start sandboxes, write configurations for them, and check."""
    monkeypatch.setenv("CHECKED_KEY", "sandbox-key")
    async with contextlib.AsyncExitStack() as stack:
        yield Place(tmp_path, stack)


@pytest.fixture
def trust(monkeypatch):
    """Have an authority trusted for the time of a test; what is trusted is read once and kept."""
    tls_context.cache_clear()
    yield lambda authority: monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    tls_context.cache_clear()


class Place:
    def __init__(self, folder, stack):
        self.folder, self._stack = folder, stack
        self.ledger = folder / "state" / "ledger.db"
        self.journal = folder / "journal.ndjson"
        self.kind = ""
        self.url = "http://127.0.0.1:9/v2"

    async def serve(self, kind, **behaviour):
        more = {"sevenbridges": PLATFORM} if kind == "sevenbridges" else {}
        told = Behaviour(service=kind, **{**more, **behaviour})
        told = replace(told, journal=JournalSettings(self.journal, ("data.id", "name")))
        sandbox = await self._stack.enter_async_context(running_sandbox(told))
        self.kind, self.url = kind, sandbox.url
        return sandbox

    def config(self, service="", more="", kind=None):
        path = self.folder / "checked.toml"
        path.write_text(CONFIGS[kind or self.kind].format(url=self.url, service=service, more=more))
        return path

    def source(self, records=None):
        path = self.folder / "records.ndjson"
        path.write_bytes(b"".join(orjson.dumps(one) + b"\n" for one in records or RECORDS[self.kind]))
        return path

    async def lines(self, config=None, sources=None, **options):
        named = [self.source()] if sources is None else sources
        report = await engine.check(config or self.config(), named, self.ledger, **options)
        return {one.name: one for one in report.lines}


def verdicts(lines, *names):
    return [str(lines[name].verdict) for name in names]


@KINDS
async def test_where_all_is_well_nothing_fails_and_nothing_is_made(place, kind):
    sandbox = await place.serve(kind)
    lines = await place.lines()
    wrong = {one.name: one for one in lines.values() if one.verdict in {CheckVerdict.FAILED, CheckVerdict.WARNING}}
    assert wrong == {}
    unknown = {one.name for one in lines.values() if one.verdict is CheckVerdict.UNCHECKED}
    assert unknown == ({"upload host", "limits"} if kind == "sama" else set())
    assert sandbox.stats.tasks_created == sandbox.stats.requests["create"] == 0
    assert not place.ledger.parent.exists()


@KINDS
async def test_a_wrong_key_fails_alone_and_what_needs_it_is_not_checked(place, kind, monkeypatch):
    await place.serve(kind)
    monkeypatch.setenv("CHECKED_KEY", "not-the-sandbox-key")
    lines = await place.lines()
    assert verdicts(lines, "key", "project", "tasks") == ["failed", "not checked", "not checked"]
    assert "401" in lines["key"].found
    assert "service." in lines["key"].cure
    assert lines["project"].found == "since key failed"
    assert not any("not-the-sandbox-key" in one.found + one.cure for one in lines.values())
    assert verdicts(lines, "clock", "records", "ledger") == ["ok", "ok", "ok"]


async def test_missing_variables_are_all_named_and_the_way_is_checked_all_the_same(place, monkeypatch):
    await place.serve("sama")
    monkeypatch.delenv("CHECKED_KEY")
    more = '[[hooks]]\nping = "${env:CHECKED_PING}"\n'
    lines = await place.lines(place.config(more=more))
    assert "CHECKED_KEY is not set" in lines["variables"].found
    assert "CHECKED_PING is not set" in lines["variables"].found
    assert verdicts(lines, "variables", "clock", "key", "records") == ["failed", "ok", "not checked", "ok"]


async def test_what_a_missing_variable_stands_for_is_not_taken_for_a_mistake(place, monkeypatch):
    await place.serve("sama")
    monkeypatch.delenv("CHECKED_PROJECT", raising=False)
    config = place.config()
    config.write_text(config.read_text().replace("project_id = 42", 'project_id = "${env:CHECKED_PROJECT}"'))
    lines = await place.lines(config)
    assert verdicts(lines, "variables", "configuration", "dns", "source") == ["failed", *["not checked"] * 3]
    config.write_text(config.read_text().replace(place.url, "https://${env:CHECKED_PROJECT}/v2"))
    assert verdicts(await place.lines(config), "configuration", "dns") == ["not checked"] * 2
    config.write_text(config.read_text() + "retries = 5\n")
    line = (await place.lines(config))["configuration"]
    assert (line.verdict, "retries" in line.found) == ("failed", True)


async def test_a_proxy_that_cannot_be_spoken_to_fails_alone(place, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "socks5://proxy.example:1080")
    monkeypatch.delenv("https_proxy", raising=False)
    place.url, place.kind = "https://api.sama.com/v2", "sama"
    lines = await place.lines()
    assert verdicts(lines, "configuration", "proxy", "dns", "key", "records") == [
        "ok",
        "failed",
        "not checked",
        "not checked",
        "ok",
    ]
    assert "HTTPS_PROXY names a proxy that is not spoken to" in lines["proxy"].found


async def test_a_configuration_that_says_nonsense_fails_and_nothing_is_asked(place):
    await place.serve("sama")
    lines = await place.lines(place.config(service='mode = "upload"'))
    assert verdicts(lines, "configuration", "dns", "key", "source") == ["failed", *["not checked"] * 3]
    assert "service.mode" in lines["configuration"].found


async def test_a_configuration_that_is_not_there_is_wrong_usage(place):
    with pytest.raises(ConfigError, match="cannot be read"):
        await engine.check(place.folder / "none.toml", [], place.ledger)


@KINDS
async def test_a_wrong_project_fails(place, kind):
    behaviour = {"projects": (Project(1),)} if kind == "sama" else {}
    if kind == "sevenbridges":
        behaviour["sevenbridges"] = replace(PLATFORM, projects=("me/other",))
    await place.serve(kind, **behaviour)
    lines = await place.lines()
    assert verdicts(lines, "key", "project", "tasks") == ["ok", "failed", "not checked"]
    assert "service.project" in lines["project"].cure


async def test_an_unknown_app_fails(place):
    await place.serve("sevenbridges", sevenbridges=replace(PLATFORM, apps=(replace(APP, id="me/cohort/other"),)))
    lines = await place.lines()
    assert verdicts(lines, "project", "app") == ["ok", "failed"]
    assert "me/cohort/align" in lines["app"].cure


async def test_a_misspelt_input_of_the_configuration_fails_by_the_app(place):
    await place.serve("sevenbridges")
    lines = await place.lines(place.config(service='inputs = { refrence = "x" }'))
    assert lines["app"].verdict is CheckVerdict.FAILED
    assert "service.inputs.refrence" in lines["app"].found
    assert "did you mean 'reference'?" in lines["app"].found


async def test_inputs_that_records_misspell_or_lack_fail_by_the_app(place):
    await place.serve("sevenbridges")
    misspelt = place.source([{"name": "a", "inputs": {"reads": "1", "refrence": "x"}}, *RECORDS["sevenbridges"]])
    lines = await place.lines(sources=[misspelt])
    assert lines["tasks"].verdict is CheckVerdict.WARNING
    assert "1 of the first 6 tasks do not fit; record 0: inputs.refrence: no input of app" in lines["tasks"].found
    assert (await engine.check(place.config(), [misspelt], place.ledger)).good == [1, 2]
    lacking = place.source([{"name": "a", "inputs": {}}, {"name": "b"}])
    lines = await place.lines(place.config(service="run = true"), [lacking])
    assert lines["tasks"].verdict is CheckVerdict.FAILED
    assert "inputs.reads: missing; app me/cohort/align needs it (1 more like it)" in lines["tasks"].found
    assert (await place.lines(sources=[lacking]))["tasks"].verdict is CheckVerdict.OK  # of a draft, people fill it in


async def test_records_that_do_not_fit_the_project_s_schema_fail(place):
    schema = {"properties": {"data": {"properties": {"id": {"type": "string"}, "url": {}}, "required": ["url"]}}}
    file = place.folder / "schema.json"
    file.write_bytes(orjson.dumps(schema))
    await place.serve("sama", projects=(Project(42, file),))
    lines = await place.lines()
    assert lines["schema"].found == "2 inputs: id, url"
    assert lines["tasks"].verdict is CheckVerdict.FAILED
    assert '"url" is a required property' in lines["tasks"].found
    fitting = place.source([{"data": {"url": "x"}}])
    assert (await place.lines(sources=[fitting]))["tasks"].verdict is CheckVerdict.OK


@KINDS
@pytest.mark.parametrize(("skew", "verdict"), [(45, "warning"), (-45, "warning"), (2000, "failed"), (10, "ok")])
async def test_a_clock_that_differs_is_told(place, kind, skew, verdict):
    await place.serve(kind, clock_skew_seconds=skew)
    line = (await place.lines(sources=[]))["clock"]
    assert line.verdict == verdict
    assert verdict == "ok" or "NTP" in line.cure
    assert ("behind" if skew > 0 else "ahead of") in line.found


async def test_without_a_route_the_connection_fails_and_nothing_is_asked(place):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place.url, place.kind = f"http://127.0.0.1:{free.getsockname()[1]}/v2", "sama"
        lines = await place.lines()
    assert verdicts(lines, "dns", "connection", "tls", "clock", "key") == ["ok", "failed", *["not checked"] * 3]
    assert "Connection refused" in lines["connection"].found
    assert {one.found for one in lines.values() if one.name in {"tls", "clock", "key"}} == {"since connection failed"}


async def test_a_name_that_nobody_has_fails_at_dns(place, monkeypatch):
    async def nobody(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr("asyncio.base_events.BaseEventLoop.getaddrinfo", nobody)
    monkeypatch.delenv("HTTPS_PROXY", raising=False)
    monkeypatch.delenv("https_proxy", raising=False)
    place.url, place.kind = "https://nobody.invalid/v2", "sama"
    lines = await place.lines()
    assert verdicts(lines, "proxy", "dns", "connection") == ["ok", "failed", "not checked"]
    assert "DNS knows no address of it" in lines["dns"].found


async def test_what_does_not_speak_http_is_not_taken_for_the_service(place):
    async def mumble(_, writer):
        writer.write(b"220 mail.example ESMTP\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(mumble, "127.0.0.1", 0)
    async with server:
        place.url, place.kind = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v2", "sama"
        lines = await place.lines(sources=[])
    assert verdicts(lines, "connection", "clock", "key") == ["ok", "failed", "not checked"]
    assert "does not speak HTTP" in lines["clock"].found


@pytest.mark.skipif(not shutil.which("openssl"), reason="makes certificates with openssl")
class TestTls:
    @KINDS
    @pytest.mark.parametrize(
        ("certificate", "words"),
        [("expired", "has expired"), ("self_signed", "self-signed"), ("other_host", "mismatch")],
    )
    async def test_a_certificate_that_cannot_be_believed_fails(self, place, trust, kind, certificate, words):
        authority = place.folder / "authority.pem"
        await place.serve(kind, tls=Tls(certificate=certificate, authority=authority))
        trust(authority)
        lines = await place.lines(sources=[])
        assert verdicts(lines, "connection", "tls", "key") == ["ok", "failed", "not checked"]
        assert words in lines["tls"].found

    async def test_one_that_ends_soon_is_a_warning(self, place, trust, monkeypatch):
        monkeypatch.setattr(checks, "EXPIRES_SECONDS", 400 * 86_400.0)
        authority = place.folder / "authority.pem"
        await place.serve("sama", tls=Tls(authority=authority))
        trust(authority)
        line = (await place.lines(sources=[]))["tls"]
        assert (line.verdict, line.cure) == (CheckVerdict.WARNING, "the server's owner must renew it")

    async def test_the_host_of_uploads_is_reached_by_tls_or_fails(self, place, trust):
        authority = place.folder / "authority.pem"
        store = await place.serve("sama", tls=Tls(authority=authority))
        trust(authority)
        port = URL(store.url).port
        await place.serve("sama")
        lines = await place.lines(place.config(f'upload_hosts = ["localhost:{port}"]'), [])
        assert "localhost can be reached by TLS; the service names the host" in lines["upload host"].found
        lines = await place.lines(place.config(f'upload_hosts = ["localhost:{URL(place.url).port}"]'), [])
        assert lines["upload host"].verdict is CheckVerdict.FAILED
        assert "does not speak TLS at this port" in lines["upload host"].found

    async def test_one_that_is_trusted_is_told_with_who_signed_it(self, place, trust):
        authority = place.folder / "authority.pem"
        await place.serve("sama", tls=Tls(authority=authority))
        trust(authority)
        lines = await place.lines(sources=[])
        assert verdicts(lines, "tls", "clock", "key", "project") == ["ok"] * 4
        assert "signed by Sandbox, valid until 20" in lines["tls"].found


@pytest.mark.parametrize(
    ("hosts", "verdict", "tried"),
    [('["*.amazonaws.com"]', "ok", ["s3.amazonaws.com"]), ('["*.example.com"]', "not checked", [])],
)
async def test_of_hosts_that_only_the_service_can_name_it_says_what_it_cannot_know(monkeypatch, hosts, verdict, tried):
    reached = []

    async def certificate_of(way):
        reached.append(way.url.host)

    monkeypatch.setattr("engine.http.reach.certificate_of", certificate_of)
    monkeypatch.setenv("CHECKED_KEY", "sandbox-key")
    text = SAMA.format(url="https://api.sama.com/v2", service=f"upload_hosts = {hosts}", more="")
    (one,) = checks.upload_checks(wiring.load(text))
    found = await one.look()
    assert (found.verdict, reached) == (verdict, tried)
    assert "the service names the host of a batch only when it makes one" in found.found


async def test_a_window_of_requests_that_is_nearly_used_up_is_a_warning(place):
    await place.serve("sevenbridges", sevenbridges=replace(PLATFORM, rate=Rate(requests=60)))
    async with aiohttp.ClientSession(headers={"X-SBG-Auth-Token": "sandbox-key"}) as session:
        for _ in range(52):
            async with session.get(f"{place.url}/user") as answer:
                assert answer.status == 200
    line = (await place.lines())["limits"]
    assert line.verdict is CheckVerdict.WARNING
    assert line.found == "5 of 60 requests are left in this window; 100 of 100 instances"


async def test_a_service_that_cannot_be_asked_is_called_once(place, monkeypatch):
    monkeypatch.setitem(wiring.SERVICES, "toy", "fakes.toy_service.bulksubmit_toy")
    async with raw_server(plain(200), plain(200), plain(401), plain(401)) as server:
        config = place.folder / "toy.toml"
        config.write_text(f'[service]\nkind = "toy"\nbase_url = "{server.url}"\napi_key = "${{env:CHECKED_KEY}}"\n')
        lines = await place.lines(config, [])
    assert (lines["key"].verdict, lines["key"].found) == ("ok", "the service itself answers")
    assert "project" not in lines


async def test_an_older_ledger_is_a_warning_and_stays_old(place):
    await place.serve("sama")
    place.ledger.parent.mkdir()
    open_writer(place.ledger, steps=STEPS[:1]).close()
    assert (await place.lines())["ledger"].verdict is CheckVerdict.WARNING
    assert examine(place.ledger)[0] == 1


async def test_a_column_that_no_record_has_is_a_warning(place):
    await place.serve("sama")
    line = (await place.lines(place.config(more='[mapping]\ndrop = ["colour"]')))["records"]
    assert line.verdict is CheckVerdict.WARNING
    assert "mapping.drop names column 'colour'" in line.found


@KINDS
async def test_a_service_that_hangs_is_given_up_in_time(place, kind, monkeypatch):
    monkeypatch.setattr(checks, "CHECK_SECONDS", 0.3)
    call = "project" if kind == "sama" else "user"
    await place.serve(kind, faults=(Fault(call, "hang", every=1, seconds=20.0),))
    lines = await place.lines()
    assert verdicts(lines, "clock", "key", "project", "ledger") == ["ok", "failed", "not checked", "ok"]


async def test_a_wrong_ledger_fails(place):
    await place.serve("sama")
    place.ledger.parent.mkdir()
    place.ledger.write_text("this is a letter to somebody, and no database at all" * 20)
    lines = await place.lines()
    assert lines["ledger"].verdict is CheckVerdict.FAILED
    assert "not a ledger" in lines["ledger"].found


async def test_a_ledger_that_is_there_is_looked_at_and_left_as_it_was(place):
    await place.serve("sama")
    await engine.submit(place.source(), place.config(), place.ledger, job="before")
    lines = await place.lines()
    assert "1 job, none at work" in lines["ledger"].found
    assert (await engine.audit("before", place.ledger)).holds


async def test_folders_that_cannot_be_written_fail(place):
    await place.serve("sama")
    blocked = place.folder / "file"
    blocked.write_text("")
    lines = await place.lines(output="/proc/reports")
    assert lines["output"].verdict is CheckVerdict.FAILED
    assert "cannot be written" in lines["output"].found


async def test_a_disk_that_is_too_full_fails(place, monkeypatch):
    await place.serve("sama")
    monkeypatch.setattr("engine.commands.checks_here.DISK_ROOM_BYTES", 1 << 62)
    lines = await place.lines()
    assert lines["disk"].verdict is CheckVerdict.FAILED
    assert "make room" in lines["disk"].cure


async def test_sources_that_are_missing_empty_or_bad_are_told(place):
    await place.serve("sama")
    lines = await place.lines(sources=[place.folder / "none.ndjson"])
    assert verdicts(lines, "source", "records", "tasks") == ["failed", "not checked", "not checked"]
    lines = await place.lines(sources=[])
    assert verdicts(lines, "source", "records", "tasks") == ["not checked"] * 3
    bad = place.source([{"dta": {}}])
    lines = await place.lines(sources=[bad])
    assert lines["records"].verdict is CheckVerdict.FAILED
    assert "did you mean 'data'?" in lines["records"].found
    some = place.source([*RECORDS["sama"], {"dta": {}}])
    lines = await place.lines(sources=[some])
    assert lines["records"].verdict is CheckVerdict.WARNING
    assert "5 of the first 6 records can be sent; line 6" in lines["records"].found


async def test_the_checks_end_in_time_together(monkeypatch):
    made = checks._Checks()
    monkeypatch.setattr(made, "_ends_at", 0.0)

    async def look():
        return Finding("all is well")

    await made.make(checks.ServiceCheck("late", look))
    assert (made.lines[0].verdict, made.lines[0].found) == ("not checked", "since the checks before it took 60 s")


@KINDS
async def test_its_screen_fits_80_columns_and_its_exit_code_says_whether_one_failed(place, kind, monkeypatch):
    await place.serve(kind)
    good = check_screen(await engine.check(place.config(), [place.source()], place.ledger))
    assert (good.exit_code, good.data["exit_code"]) == (0, 0)
    monkeypatch.setenv("CHECKED_KEY", "wrong-sandbox-key")
    bad = check_screen(await engine.check(place.config(), [place.source()], place.ledger))
    assert bad.exit_code == 9
    assert {"name", "verdict", "found", "cure", "seconds"} == set(bad.data["checks"][0])
    shown = text_of(bad, colours=False, width=80)
    assert "To mend it:" in shown
    folder = str(place.folder)
    assert max(len(line) for line in shown.splitlines() if folder not in line) <= 80


# The probe


async def probed(place, **behaviour):
    kind = behaviour.pop("kind")
    sandbox = await place.serve(kind, **behaviour)
    config, source = place.config(behaviour.pop("service", "")), place.source()
    report = await engine.check(config, [source], place.ledger)
    assert report.failed == []
    return sandbox, report, await engine.probe(config, [source], place.ledger, records=report.good)


def judged(done):
    return {one.name: one.holds for one in done.guesses}


@KINDS
async def test_a_probe_creates_two_tasks_as_a_job_of_its_own_and_judges_the_guesses(place, kind):
    sandbox, report, done = await probed(place, kind=kind)
    assert report.good == [0, 1]
    assert (done.result.job, done.result.exit_code, done.result.tally.created) == ("checked-probe", 0, 2)
    assert sum(count_markers(place.journal).values()) == sandbox.stats.tasks_created == 2
    seen = judged(done)
    assert False not in seen.values()
    held = {"sama.order", "sama.etag", "sama.zones"} if kind == "sama" else {"sevenbridges.bulk-order", "any.waits"}
    assert {seen[name] for name in held} == {True}
    assert (await engine.audit("checked-probe", place.ledger)).holds
    undone = await engine.undo("checked-probe", place.ledger)
    assert undone.message == "2 tasks taken back"
    shown = text_of(probe_screen(report, done, undone.message), colours=False, width=80)
    assert "2 tasks taken back" in shown
    assert max(map(len, shown.splitlines())) <= 80
    # The load itself does not know of the probe.
    result = await engine.submit(place.source(), place.config(), place.ledger, job="load")
    assert result.tally.created == 5


async def test_a_probe_that_is_stopped_is_a_job_that_goes_on_and_creates_nothing_twice(place):
    await place.serve("sama")
    config, source, stop = place.config(), place.source(), Stop()

    def emit(event):
        if isinstance(event, BatchMoved):
            stop.request(Interrupted(15))

    done = await engine.probe(config, [source], place.ledger, emit, stop, records=[0, 1])
    assert (done.result.state, done.result.tally.created) == ("open", 0)
    assert {one.holds for one in done.guesses} <= {True, None}
    result = await engine.resume("checked-probe", place.ledger)
    assert (result.state, result.tally.created) == ("finished", 2)
    assert count_markers(place.journal) == {"0": 1, "1": 1}


async def test_an_inline_probe_sees_ids_that_are_told_and_whether_a_search_finds_its_tasks(place):
    file = place.folder / "schema.json"
    inputs = {"id": {"type": "string"}, "client_batch_id": {"type": "string"}}
    file.write_bytes(orjson.dumps({"properties": {"data": {"properties": inputs}}}))
    told = SandboxSama(task_lists_per_second=0, unwritten=SamaUnwritten(told_ids="task_ids"))
    await place.serve("sama", projects=(Project(42, file),), sama=told)
    config = place.config('mode = "inline"')
    lines = await place.lines(config)
    assert "upload host" not in lines
    done = await engine.probe(config, [place.source()], place.ledger, records=[0, 1])
    seen = judged(done)
    assert (seen["sama.search"], seen["sama.told-ids"], seen["sama.etag"]) == (True, True, None)


async def test_records_that_are_gone_since_the_check_are_not_replaced_by_others(place):
    sandbox = await place.serve("sama")
    with pytest.raises(ConfigError, match="not in the source any more"):
        await engine.probe(place.config(), [place.source()], place.ledger, records=[0, 99])
    assert sandbox.stats.requests["create"] == 0


async def test_a_probe_of_a_csv_sends_what_the_load_would(place):
    await place.serve("sama")
    table = place.folder / "records.csv"
    table.write_text("id,size,urgency\na,1,5\nb,2,\n")
    more = '[mapping]\nwrap = "data"\nfields = { priority = "urgency" }\n'
    more += '[source.types]\nsize = "integer"\nurgency = "integer"\n'
    config = place.config(more=more)
    report = await engine.check(config, [table], place.ledger)
    assert (report.failed, report.good) == ([], [0, 1])
    await engine.probe(config, [table], place.ledger, records=report.good)
    sent = {one.marker: one.sha256 for one in read_journal(place.journal)}
    await engine.submit(table, config, place.ledger, job="load", again=True)
    entries = [one for one in read_journal(place.journal) if one.kind == "task"]
    assert len(entries) == 4
    assert {one.marker: one.sha256 for one in entries} == sent


@pytest.mark.parametrize(
    ("kind", "behaviour", "wrong"),
    [
        ("sama", {"sama": SandboxSama(unwritten=SamaUnwritten(task_order="shifted"))}, {"sama.order"}),
        ("sama", {"sama": SandboxSama(unwritten=SamaUnwritten(zones=False, etag=False))}, {"sama.zones", "sama.etag"}),
        (
            "sevenbridges",
            {"sevenbridges": replace(PLATFORM, unwritten=SevenBridgesUnwritten(bulk_order="reversed"))},
            {"sevenbridges.bulk-order"},
        ),
        (
            "sevenbridges",
            {"sevenbridges": replace(PLATFORM, unwritten=SevenBridgesUnwritten(total_header=False))},
            {"sevenbridges.total"},
        ),
    ],
)
async def test_a_probe_says_which_guess_is_wrong(place, kind, behaviour, wrong):
    _, report, done = await probed(place, kind=kind, **behaviour)
    assert {name for name, holds in judged(done).items() if holds is False} == wrong
    screen = probe_screen(report, done)
    assert "wrong" in text_of(screen, colours=False)
    assert "`bulksubmit undo checked-probe` deletes them" in screen.headline


# What the app says, asked by `submit`


async def test_inputs_that_every_record_misspells_stop_a_submit_before_any_draft(place):
    sandbox = await place.serve("sevenbridges")
    source = place.source([{"name": "a", "inputs": {"reeds": "1"}}] * 3)
    with pytest.raises(ConfigError, match=r"none of the first 3 records .* did you mean 'reads'\?"):
        await engine.submit(source, place.config(), place.ledger, job="j")
    assert sandbox.stats.requests["create"] == 0
    assert await engine.status(None, place.ledger) == []


async def test_one_that_single_records_misspell_is_told_or_stops_a_strict_submit(place):
    sandbox = await place.serve("sevenbridges")
    source, said = place.source([{"name": "a", "inputs": {"reeds": "1"}}, *RECORDS["sevenbridges"]]), []
    with pytest.raises(ConfigError, match="not each one"):
        await engine.submit(source, place.config(), place.ledger, job="j", strict=True)
    assert sandbox.stats.requests["create"] == 0
    result = await engine.submit(source, place.config(), place.ledger, lambda event: said.append(str(event)), job="j")
    assert result.tally.created == 6
    assert any("1 of the first 6 records do not fit. 0: inputs.reeds" in one for one in said)


async def test_an_app_that_does_not_answer_holds_up_no_submit(place):
    await place.serve("sevenbridges", faults=(Fault("app", "refuse", every=1, status=404),))
    result = await engine.submit(place.source(), place.config(), place.ledger, job="j")
    assert result.tally.created == 5
