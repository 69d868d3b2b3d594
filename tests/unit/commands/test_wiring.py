import ast
import pickle
import re
from contextlib import closing
from importlib import import_module
from pathlib import Path

import orjson
import pytest
from fakes.bench import write_records
from fakes.processes import children
from msgspec.structs import replace

from engine.adaptive.settle_time import SETTLE_SECONDS
from engine.batch import planning as rules
from engine.batch.children import Standby
from engine.batch.chunker import no_reference
from engine.batch.dask import DaskCluster
from engine.batch.mapping import Mapper
from engine.batch.payload import PayloadReader
from engine.batch.planning import plan_batches, planning_recipe
from engine.clock import SystemClock
from engine.commands import wiring
from engine.commands.configuration import hide_secret
from engine.commands.wiring import SERVICES, _InThreads
from engine.ledger.address import PostgresAddress
from engine.ledger.sqlite import SqliteLedger
from engine.model.batch import Batch, Limits
from engine.model.errors import ConfigError, SourceChanged, Unauthorized, Unavailable
from engine.model.job import Job
from engine.model.record import Format, Position, Source
from engine.model.settings import MappingSettings, ServiceSettings, SourceSettings
from engine.run.context import Stop
from engine.sandbox.server import running_sandbox
from engine.source.sources import find_sources

CONFIG = """
[service]
kind = "sama"
base_url = "{url}"
project_id = 42
access_key = "${{env:SAMA_ACCESS_KEY}}"
max_tasks_per_batch = 10

[send]
poll_seconds = 0.01
{more}
"""


JOB = Job("j", "sama", "", (), "")


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("SAMA_ACCESS_KEY", "sandbox-key")


def config(url="http://127.0.0.1:1/v2", more=""):
    return CONFIG.format(url=url, more=more)


def a_job(path, text):
    return Job("j", "sama", text, find_sources([str(path)], SourceSettings()), str(path.parent / "output"))


@pytest.mark.parametrize("kind", SERVICES)
def test_every_service_brings_its_settings_and_a_way_to_build_it(kind):
    module = import_module(SERVICES[kind])
    assert issubclass(module.SETTINGS, ServiceSettings)
    assert callable(module.build)


# Without a network


def test_a_job_is_cut_and_read_again_without_a_network_and_without_secrets(tmp_path, monkeypatch):
    monkeypatch.delenv("SAMA_ACCESS_KEY")
    job = a_job(write_records(tmp_path / "tasks.ndjson", 25), config(more="[mapping]\ndefaults = { priority = 1 }"))
    offline = wiring.load_offline(job)
    batches = [batch for plan in offline.plans(job, None) for batch in plan.batches]
    assert [batch.count for batch in batches] == [10, 10, 5]  # the service's limit
    assert orjson.loads(offline.payloads(job).read(batches[2]).array)[4] == {"data": {"id": "24"}, "priority": 1}


def test_cutting_goes_on_after_the_batch_frozen_last(tmp_path):
    job = a_job(write_records(tmp_path / "tasks.ndjson", 25), config())
    offline = wiring.load_offline(job)
    batches = [batch for plan in offline.plans(job, None) for batch in plan.batches]
    again = [batch for plan in offline.plans(job, batches[0]) for batch in plan.batches]
    assert again == batches[1:]


@pytest.mark.parametrize("processes", [0, 1, 2])
def test_other_processes_cut_a_job_by_the_same_rules(tmp_path, processes):
    path = write_records(tmp_path / "tasks.ndjson", 25)
    path.write_bytes(path.read_bytes() + b'{"data":{},"priority":"high"}\n')
    job = a_job(path, config(more="[mapping]\ndefaults = { priority = 1 }"))
    setup = wiring.load(job.config, processes=processes)
    plans = list(wiring.offline(setup, job).plans(job, None))
    assert [batch.count for plan in plans for batch in plan.batches] == [10, 10, 5]
    assert ["priority" in reject.reason for plan in plans for reject in plan.rejects] == [True]


def test_another_process_gets_no_secret():
    job = replace(JOB, config=config())
    setup = wiring.load(job.config)
    recipe = planning_recipe(job, setup.settings, setup.service, SERVICES["sama"])
    assert setup.service.access_key.get_secret_value() == "sandbox-key"
    assert b"sandbox-key" not in pickle.dumps(recipe)
    assert pickle.loads(pickle.dumps(recipe)) == recipe  # noqa: S301 - our own


@pytest.mark.parametrize(
    ("more", "expected"), [({}, DaskCluster), ({"family": "nightly"}, Standby), ({"read_complete": True}, Standby)]
)
def test_a_cluster_reads_what_does_not_depend_on_what_was_read_before(monkeypatch, more, expected):
    monkeypatch.setattr("engine.batch.dask.find_spec", lambda name: name)
    job = replace(JOB, sources=(Source(0, "/nowhere", Format.NDJSON, 9, 0, 0),), **more)
    with wiring.standby(wiring.load(config(), dask="tcp://127.0.0.1:9"), job, None) as standby:
        assert type(standby) is expected


def a_batch(end):
    return Batch(0, Position(), Position(end), 1, end, b"", b"")


@pytest.mark.parametrize(
    ("cores", "size", "more", "last", "expected"),
    [
        (2, rules.CHILD_BYTES, {}, None, 1),
        (1, rules.CHILD_BYTES, {}, None, 0),
        (2, rules.CHILD_BYTES - 1, {}, None, 0),
        (2, rules.CHILD_BYTES, {}, a_batch(1), 0),
        (2, rules.CHILD_BYTES, {"read_complete": True}, None, 0),
        (2, rules.CHILD_BYTES, {"family": "f"}, None, 1),
    ],
)
def test_a_process_of_its_own_reads_a_large_rest_if_there_is_a_core_for_it(
    monkeypatch, cores, size, more, last, expected
):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)))
    job = replace(JOB, sources=(Source(0, "/nowhere", Format.NDJSON, size, 0, 0),), **more)
    before = children()
    with wiring.standby(wiring.load(config()), job, last):
        assert len(children() - before) == expected
    assert children() == before


def test_only_this_process_asks_a_database_what_a_family_knows(monkeypatch):
    """Another one has none of the variables that may hold the password of the database."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    sources = (Source(0, "/nowhere", Format.NDJSON, rules.CHILD_BYTES, 0, 0),)
    address, before = PostgresAddress("postgresql://loader@host/jobs"), children()
    for family, expected in (("f", 0), ("", 1)):
        job = replace(JOB, sources=sources, family=family)
        for processes in (None, 1):
            with wiring.standby(wiring.load(config(), processes=processes), job, None, address):
                assert len(children() - before) == expected


@pytest.mark.parametrize(
    ("standby", "cores", "kind", "expected"),
    [
        (Standby(), 9, Format.NDJSON, 1),
        (None, 1, Format.NDJSON, 0),
        (None, 2, Format.NDJSON, 2),
        (None, 9, Format.NDJSON, 4),
        (None, 2, Format.JSON, 0),
    ],
)
def test_one_process_reads_beside_the_sending_and_one_a_core_where_nothing_is_sent(
    tmp_path, monkeypatch, standby, cores, kind, expected
):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setattr(rules, "CHILD_BYTES", 1)
    monkeypatch.setattr(rules, "ALONE_BYTES", 1)
    path = write_records(tmp_path / f"tasks.{kind}", 25)
    if kind is Format.JSON:
        path.write_bytes(b"[" + path.read_bytes().strip().replace(b"\n", b",") + b"]")
    job = a_job(path, config())
    before = children()
    with closing(wiring.load_offline(job).plans(job, None, standby)) as plans:
        next(plans)
        assert len(children() - before) == expected
    assert children() == before


def test_the_number_of_processes_may_change_while_a_job_goes_on():
    more = config(more="[source]\nprocesses = 2")
    assert not wiring.check_replacement(config(), more)
    with pytest.raises(ConfigError, match="source: cannot change"):
        wiring.check_replacement(config(), config(more="[source]\nprocesses = 2\nmax_record_bytes = 7"))


def test_records_are_checked_by_the_rules_of_the_service(tmp_path):
    path = tmp_path / "tasks.ndjson"
    path.write_bytes(b'{"data":{},"priority":"high"}\n')
    job = a_job(path, config())
    rejects = [reject for plan in wiring.load_offline(job).plans(job, None) for reject in plan.rejects]
    assert [reject.reason for reject in rejects] == [
        'priority: "high" is not an integer from -2147483648 to 2147483647; source.types gives a CSV column its type'
    ]


async def test_what_works_without_a_network_calls_nobody():
    offline = wiring.offline(wiring.load(config(), hide_secret), JOB)
    with pytest.raises(Unavailable, match="nothing is sent here"):
        await offline.service.cancel("7")


# Before there is a job


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (config("http://api.sama.com/v2"), "base_url must be https"),
        (config("ftp://127.0.0.1/v2"), "base_url must be an absolute https URL"),
        (config(more='[mapping]\nfields = { a = "x" }\ndrop = ["x"]'), "both take column 'x'"),
        (config().replace("max_tasks", 'task_schema = "nowhere.json"\nmax_tasks'), "service.task_schema"),
    ],
)
def test_what_does_not_go_together_is_found_beforehand(text, said):
    with pytest.raises(ConfigError, match=said):
        wiring.check_parts(wiring.load(text), JOB)


def test_a_key_that_no_header_or_query_could_hold_is_found_beforehand(monkeypatch):
    monkeypatch.setenv("SAMA_ACCESS_KEY", "sandbox-key\n")
    with pytest.raises(ConfigError, match="access_key") as raised:
        wiring.check_parts(wiring.load(config()), JOB)
    assert "sandbox-key" not in str(raised.value)


def test_a_configuration_that_can_work_is_rehearsed_without_a_service():
    wiring.check_parts(wiring.load(config()), JOB)


# While a job goes on


@pytest.mark.parametrize(
    "change",
    [
        ("http://127.0.0.1:1/v2", "http://127.0.0.1:2/v2"),
        ("SAMA_ACCESS_KEY", "NEW_KEY"),
        ("poll_seconds = 0.01", "max_in_flight = 50"),
        ("[send]", 'notification_email = "me@example.com"\n[send]'),
    ],
    ids=["address", "key", "pace", "who is told"],
)
def test_a_job_can_go_on_with_other_addresses_secrets_and_pace(monkeypatch, change):
    monkeypatch.setenv("NEW_KEY", "new")
    new = config().replace(*change)
    assert new != config()
    assert not wiring.check_replacement(config(), new)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("project_id = 42", "project_id = 43"), "service.project_id: cannot change .* put 42 back"),
        (("[send]", 'mode = "inline"\n[send]'), "service.mode: cannot change"),
        (("[send]", "[batch]\nmax_records = 5\n[send]"), "batch: cannot change"),
        (("[send]", '[mapping]\nwrap = "data"\n[send]'), "mapping: cannot change"),
        (("[send]", '[source]\nformat = "csv"\n[send]'), "source: cannot change"),
        (("[send]", "[sned]"), "sned: unknown key"),
    ],
)
def test_a_job_cannot_go_on_with_what_would_make_other_batches(change, said):
    with pytest.raises(ConfigError, match=said):
        wiring.check_replacement(config(), config().replace(*change))


def test_where_tasks_go_may_change_while_nothing_was_created():
    new = config().replace("project_id = 42", "project_id = 43")
    assert wiring.check_replacement(config(), new, unsent=True), "they go elsewhere"
    with pytest.raises(ConfigError, match=r"service\.project_id: cannot change .* something was created or released"):
        wiring.check_replacement(config(), new)


def test_what_makes_other_batches_may_not_change_even_then():
    with pytest.raises(ConfigError, match=r"service\.mode: cannot change .* its batches are frozen"):
        wiring.check_replacement(config(), config().replace("[send]", 'mode = "inline"\n[send]'), unsent=True)


def test_a_new_key_or_address_leads_to_the_same_place():
    new = config().replace("http://127.0.0.1:1/v2", "http://127.0.0.1:2/v2")
    assert not wiring.check_replacement(config(), new, unsent=True)


def test_nothing_outside_of_a_service_names_one_of_its_keys():
    """A service declares which of its keys may change, which are paths, which say where tasks go."""
    engine = Path(wiring.__file__).parent
    keys = {
        name
        for module in wiring.SERVICES.values()
        for name in import_module(module).SETTINGS.__struct_fields__
        if "_" in name and name not in ServiceSettings.__struct_fields__
    }
    assert {"access_key", "project_id", "auth_token", "task_schema"} <= keys
    keys -= {"upload_hosts"}  # a word of the transport's own as well: where presigned URLs may lead
    own = [path for path in engine.rglob("*.py") if not {"services", "sandbox"} & set(path.parts)]
    named = {path.name: found for path in own if (found := keys & set(re.findall(r"\w+", code_of(path))))}
    assert named == {}


def code_of(path):
    """Return the code of a file without its comments and docstrings."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value = ast.Constant(None)
    return ast.unparse(tree)


# With one


async def test_calls_carry_the_key_and_are_told_to_who_listens():
    events = []
    async with running_sandbox() as sandbox:
        setup = wiring.load(config(sandbox.url))
        async with wiring.online(setup, JOB, events.append) as service:
            assert await service.count_work("1") == {}
    assert [event.kind for event in events] == ["tasks", "tasks"]


async def test_a_key_that_does_not_hold_is_refused(monkeypatch):
    monkeypatch.setenv("SAMA_ACCESS_KEY", "wrong")
    async with running_sandbox() as sandbox:
        setup = wiring.load(config(sandbox.url))
        async with wiring.online(setup, JOB, lambda _: None) as service:
            with pytest.raises(Unauthorized):
                await service.count_work("1")


@pytest.mark.parametrize(
    ("more", "slowest", "own", "settle_seconds"),
    [
        ("", 0.0, SETTLE_SECONDS, SETTLE_SECONDS),
        ("settle_seconds = 7.0", 0.0, 7.0, 7.0),
        ("settle_seconds = 7.0", 20.0, 7.0, 40.0),
        ("search_seconds = 2.0", 0.0, 14.0, 14.0),
    ],
)
async def test_the_settle_time_is_what_is_configured_or_twice_the_slowest_start_of_the_job(
    tmp_path, more, slowest, own, settle_seconds
):
    setup, job = wiring.load(config(more=more)), replace(JOB, slowest_start=slowest)
    async with (
        SqliteLedger.open(tmp_path / "ledger.db", SystemClock()) as ledger,
        wiring.open_run(setup, job, ledger, lambda _: None, Stop()) as run,
    ):
        assert run.service.settle_seconds == own
        assert run.settle_time.seconds == settle_seconds


async def test_a_settle_time_of_one_job_is_not_that_of_the_next():
    for more, seconds in (("settle_seconds = 7.0", 7.0), ("", SETTLE_SECONDS)):
        async with wiring.online(wiring.load(config(more=more)), JOB, lambda _: None) as service:
            assert service.settle_seconds == seconds


async def test_a_pipeline_joins_all_parts(tmp_path):
    clock = SystemClock()
    async with running_sandbox() as sandbox, SqliteLedger.open(tmp_path / "ledger.db", clock) as ledger:
        text = config(sandbox.url)
        path = write_records(tmp_path / "tasks.ndjson", 25)
        path.write_bytes(path.read_bytes() + b"no json\n")
        setup, job = wiring.load(text), a_job(path, text)
        await ledger.create_job(job)
        async with wiring.open_run(setup, job, ledger, lambda _: None, Stop()) as run:
            assert await wiring.pipeline(setup, run).work() is None
        tally = await ledger.tally("j")
    assert (tally.created, tally.rejected, tally.batches, sandbox.stats.tasks_created) == (25, 1, 3, 25)


class CountedReader(PayloadReader):
    """Notes how many batches each reading was for."""

    def __init__(self, *args):
        super().__init__(*args)
        self.readings = []

    def read(self, batch, indexes=None):
        self.readings.append(1)
        return super().read(batch, indexes)

    def read_each(self, batches, indexes=None):
        self.readings.append(len(batches))
        return super().read_each(batches, indexes)


async def every_index(batch):
    """Return the indexes of the records of a batch in which none was left out."""
    return range(batch.start.index, batch.end.index)


def batches_of_one(path):
    sources = find_sources([str(path)], SourceSettings())
    mapper = Mapper(MappingSettings(), lambda _: None)
    plans = plan_batches(sources, SourceSettings(), mapper, Limits(1, 1 << 20), reference=no_reference)
    return CountedReader(sources, SourceSettings(), mapper), [batch for plan in plans for batch in plan.batches]


async def test_small_payloads_are_read_together_ahead_and_each_kept_until_it_is_wanted(tmp_path):
    path = tmp_path / "tasks.ndjson"
    records = [orjson.dumps({"input": "x" * length}) for length in (1, 20_000, 2, 3)]
    path.write_bytes(b"\n".join(records))
    reader, batches = batches_of_one(path)
    payloads = _InThreads(reader, every_index)
    await payloads.ahead(batches)
    assert [(await payloads.read(batch)).array for batch in batches] == [b"[%b]" % record for record in records]
    assert reader.readings == [3, 1], "the long one is read when it is its turn"
    assert (await payloads.read(batches[0])).array == b"[%b]" % records[0]
    assert reader.readings == [3, 1, 1], "nothing is kept that was taken"


async def test_of_a_source_that_changed_before_it_was_read_ahead_the_good_batches_can_be_read(tmp_path):
    path = tmp_path / "tasks.ndjson"
    path.write_bytes(b'{"a":1}\n{"a":2}\n')
    reader, (first, second) = batches_of_one(path)
    path.write_bytes(b'{"a":1}\n{"a":3}\n')
    payloads = _InThreads(reader, every_index)
    await payloads.ahead([first, second])
    assert (await payloads.read(first)).array == b'[{"a":1}]'
    with pytest.raises(SourceChanged, match="batch 1"):
        await payloads.read(second)


async def test_the_indexes_of_records_are_looked_up_whether_a_payload_is_read_ahead_or_not(tmp_path):
    path = tmp_path / "tasks.ndjson"
    path.write_bytes(b'{"a":1}\nno json\n{"a":2}\n{"a":3}\n')
    reader, batches = batches_of_one(path)

    async def seen_in_the_ledger(batch):
        return [index for index in (0, 2, 3) if batch.start.index <= index < batch.end.index]

    payloads = _InThreads(reader, seen_in_the_ledger)
    alone = [await payloads.read(batch) for batch in batches]
    await payloads.ahead(batches)
    assert [await payloads.read(batch) for batch in batches] == alone
    assert [payload.indexes for payload in alone] == [[0], [2], [3]]
    assert reader.readings == [1, 1, 1, 3]
