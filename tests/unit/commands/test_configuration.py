import os
import pickle
import re
import tomllib
from contextvars import copy_context
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import field

from engine.batch.planning import without_secrets
from engine.commands import wiring
from engine.commands.configuration import (
    check,
    expand_secret,
    hide_secret,
    lacking,
    parse_toml,
    read_text,
    rooted,
    secret_variables,
    text_of,
)
from engine.model.errors import ConfigError, Exit
from engine.model.settings import SecretStr, SecretText, SecretTree, Section, ServiceSettings, secrets_in
from engine.progress.redaction import redactor

CONFIGS = [
    path
    for path in sorted((Path(__file__).parents[3] / "configs").rglob("*.toml"))
    if isinstance(parse_toml(path.read_text()).get("service"), dict)  # the others are behaviours of a sandbox
]
MINIMAL = """
[service]
kind = "sama"
project_id = 42
access_key = "${env:SAMA_ACCESS_KEY}"
"""
SECRET = "s3cr3t-0123456789"


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("SAMA_ACCESS_KEY", SECRET)
    monkeypatch.setenv("BULK_KEY", SECRET)


def complaint(text, expand=expand_secret):
    """Return what is wrong with a configuration."""
    with pytest.raises(ConfigError) as raised:
        wiring.load(text, expand)
    assert raised.value.exit_status == Exit.USAGE
    return str(raised.value)


# What is needed and what is not


def test_the_least_configuration_works_and_the_rest_has_defaults():
    setup = wiring.load(MINIMAL)
    assert setup.service.base_url == "https://api.sama.com/v2"
    assert setup.service.mode == "presigned"
    assert (setup.settings.batch.max_records, setup.settings.send.max_in_flight) == (1000, "auto")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_a_configuration_that_we_ship_can_be_used(path, monkeypatch):
    text = wiring.read_config(path)
    for name in re.findall(r"\$\{env:(\w+)\}", text):
        monkeypatch.setenv(name, "8800")
    wiring.load(text)


# How long a service may take until it shows what a call did


def settle_seconds(lines):
    return wiring.load(f"{MINIMAL}[send]\n{lines}").settings.send.settle_seconds


def test_the_settle_time_is_the_services_own_unless_it_is_configured():
    assert settle_seconds("") is None
    assert settle_seconds("settle_seconds = 0.5") == 0.5
    assert "send.settle_seconds" in complaint(f"{MINIMAL}[send]\nsettle_seconds = 0")


@pytest.mark.parametrize(
    ("lines", "seconds"),
    [
        ("search_seconds = 30", 210),
        ("search_seconds = 0.5", 3.5),
        ('search_seconds = "${env:SECONDS}"', 84),
        ("search_seconds = 30\nsettle_seconds = 60", 60),
        ("search_seconds = 0", None),
        ("search_seconds = -1", None),
        ("search_seconds = nan", None),
        ('search_seconds = "long"', None),
        ("search_seconds = []", None),
        ('search_seconds = "long"\nsettle_seconds = 60', 60),
    ],
)
def test_a_search_time_of_an_older_file_is_read_as_all_of_its_searches_and_is_never_an_error(
    lines, seconds, monkeypatch
):
    monkeypatch.setenv("SECONDS", "12")
    assert settle_seconds(lines) == seconds


def test_a_search_time_anywhere_else_is_an_unknown_key():
    assert complaint(f"{MINIMAL}[batch]\nsearch_seconds = 30").startswith("batch.search_seconds: unknown key")


# Where it is read


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.toml cannot be read"):
        wiring.read_config(tmp_path / "nowhere.toml")


def test_a_file_that_is_no_text_is_named(tmp_path):
    path = tmp_path / "binary.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"binary\.toml cannot be read"):
        wiring.read_config(path)


def test_a_mistake_in_the_toml_is_shown_with_its_line():
    assert "at line 3" in complaint('[service]\nkind = "sama"\nproject_id = = 42\n')


def test_without_a_service_it_says_how_one_begins():
    assert complaint("[send]\n") == '[service] is missing; it begins with kind = "sama"'
    assert complaint('service = "sama"\n') == '[service] is missing; it begins with kind = "sama"'


@pytest.mark.parametrize("missing", ["project_id", "access_key"])
def test_a_missing_key_is_named(missing):
    text = "\n".join(line for line in MINIMAL.splitlines() if not line.startswith(missing))
    assert complaint(text) == f"service.{missing}: missing"


# Keys that nobody knows


@pytest.mark.parametrize(
    ("written", "place", "meant"),
    [
        ("[sned]", "sned", "send"),
        ("[bacth]\nmax_records = 5", "bacth", "batch"),
        ("[send]\nmax_inflight = 3", "send.max_inflight", "max_in_flight"),
        ("[send]\npoll_second = 3", "send.poll_second", "poll_seconds"),
        ("[batch]\nmax_record = 5", "batch.max_record", "max_records"),
        ("[source]\nformt = 'csv'", "source.formt", "format"),
        ("[mapping]\nwarp = 'data'", "mapping.warp", "wrap"),
        (
            "[service]\nkind = 'sama'\nprojectid = 4\naccess_key = '${env:SAMA_ACCESS_KEY}'",
            "service.projectid",
            "project_id",
        ),
    ],
)
def test_an_unknown_key_is_an_error_that_names_the_nearest(written, place, meant):
    text = written if "[service]" in written else MINIMAL + written
    assert f"{place}: unknown key; did you mean {meant!r}?" in complaint(text)


def test_an_unknown_key_like_no_other_is_answered_with_those_there_are():
    assert complaint(MINIMAL + "[batch]\nzzz = 1") == "batch.zzz: unknown key; known: max_records, max_bytes"


def test_every_mistake_is_named_at_once():
    said = complaint(MINIMAL + "[batch]\nmax_record = 5\n[send]\nmax_in_flight = 0")
    assert [line.partition(":")[0] for line in said.splitlines()] == ["batch.max_record", "send.max_in_flight"]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ('"smaa"', "service.kind: 'smaa' is not a service; did you mean 'sama'?"),
        ('"jira"', f"service.kind: 'jira' is not a service; known: {', '.join(wiring.service_kinds())}"),
        ('["sama"]', "service.kind: ['sama'] is not a service; did you mean 'sama'?"),
    ],
)
def test_a_service_that_we_do_not_know_is_answered_with_the_nearest(kind, said):
    assert complaint(f"[service]\nkind = {kind}") == said


# Values of the wrong kind


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ('[send]\nmax_in_flight = "many"', "send.max_in_flight: must be 'auto' or a whole number from 1 to 1000"),
        ("[send]\nmax_in_flight = 0", "send.max_in_flight: must be 'auto' or a whole number from 1 to 1000"),
        ("[send]\nmax_in_flight = 1001", "send.max_in_flight: must be 'auto' or a whole number from 1 to 1000"),
        ("[send]\npoll_seconds = 0", "send.poll_seconds: must be a number above 0"),
        ("[batch]\nmax_records = 1.5", "batch.max_records: must be a whole number from 1 on"),
        ('[source]\nformat = "xml"', "source.format: must be 'ndjson', 'json', 'csv' or 'parquet'"),
        (
            '[source.types]\nlat = "float"',
            "source.types.lat: must be 'boolean', 'integer', 'json', 'number' or 'string'",
        ),
        ('[source]\ndelimiter = ";;"', 'source.delimiter: must be one letter, or "auto"'),
        ('[mapping]\ndrop = "lid"', "mapping.drop: must be a list"),
        ("[[send]]\nmax_in_flight = 1", "send: must be a table, [send]"),
    ],
)
def test_a_value_of_the_wrong_kind_is_explained_at_its_place(written, said):
    assert complaint(MINIMAL + written).startswith(said)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('project_id = "forty-two"', "service.project_id: must be a whole number from 0 to 9223372036854775807"),
        ("project_id = -1", "service.project_id: must be a whole number from 0 to "),
        ('project_id = 1\nmode = "fast"', "service.mode: must be 'inline' or 'presigned'"),
        ("project_id = 1\nmax_tasks_per_batch = 0", "service.max_tasks_per_batch: must be a whole number from 1 on"),
    ],
)
def test_a_service_explains_its_own_keys_likewise(line, said):
    assert complaint(MINIMAL.replace("project_id = 42", line)).startswith(said)


@pytest.mark.parametrize(("said", "run"), [("yes", True), ("ON", True), ("1", True), (" false", False), ("n", False)])
def test_a_variable_may_hold_a_number_or_a_yes(monkeypatch, said, run):
    monkeypatch.setenv("SAID", said)
    monkeypatch.setenv("NUMBER", " 43 ")
    text = """[service]\nkind = "sevenbridges"\nauth_token = "${env:SAMA_ACCESS_KEY}"\nrun = "${env:SAID}"\n"""
    setup = wiring.load(text + '[batch]\nmax_records = "${env:NUMBER}"')
    assert (setup.service.run, setup.settings.batch.max_records) == (run, 43)


# Secrets


def test_a_secret_is_taken_from_the_environment():
    assert wiring.load(MINIMAL).service.access_key.get_secret_value() == SECRET


def test_a_secret_is_taken_from_a_file_without_the_newline_at_its_end(tmp_path):
    (tmp_path / "key").write_text("from-a-file\n")
    setup = wiring.load(MINIMAL.replace("${env:SAMA_ACCESS_KEY}", f"${{file:{tmp_path}/key}}"))
    assert setup.service.access_key.get_secret_value() == "from-a-file"


def test_references_stand_anywhere_in_a_value_that_is_no_secret(monkeypatch):
    monkeypatch.setenv("PORT", "8801")
    monkeypatch.setenv("COLOUR", "red")
    text = MINIMAL + 'base_url = "http://127.0.0.1:${env:PORT}/v2"\n[mapping.defaults]\ntags = ["${env:COLOUR}", "x"]\n'
    setup = wiring.load(text)
    assert setup.service.base_url == "http://127.0.0.1:8801/v2"
    assert setup.settings.mapping.defaults == {"tags": ["red", "x"]}


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ('tasks_file_name = "${file:KEY}"', "service.tasks_file_name"),
        ('base_url = "https://host/${file:KEY}"', "service.base_url"),
        ('upload_hosts = ["a", "${file:KEY}"]', "service.upload_hosts"),
        ('[mapping.defaults]\ntags = ["x", { y = "${file:KEY}" }]', "mapping.defaults.tags.y"),
    ],
)
@pytest.mark.parametrize("expand", [expand_secret, hide_secret])
def test_a_file_is_read_for_a_secret_only(tmp_path, line, place, expand):
    (tmp_path / "key").write_text("private")
    with pytest.raises(ConfigError) as caught:
        wiring.load(MINIMAL + line.replace("KEY", f"{tmp_path}/key"), expand)
    assert str(caught.value) == f"{place}: ${{file:…}} is for secrets only; write the value itself, or ${{env:NAME}}"


def test_the_password_in_a_url_is_a_secret_from_then_on(monkeypatch):
    monkeypatch.setenv("NAME", "https://me:over%2Dthe-wire@example.com")
    wiring.load(MINIMAL + 'tasks_file_name = "${env:NAME}"')
    assert redactor({})("over%2Dthe-wire, over-the-wire") == "***, ***"


@pytest.mark.parametrize("value", [None, ""])
def test_a_variable_that_is_not_set_is_named_with_its_key(monkeypatch, value):
    monkeypatch.delenv("SAMA_ACCESS_KEY")
    if value is not None:
        monkeypatch.setenv("SAMA_ACCESS_KEY", value)
    assert complaint(MINIMAL) == "service.access_key: environment variable SAMA_ACCESS_KEY is not set"


def test_a_variable_that_is_not_set_is_named_with_its_key_wherever_it_stands():
    said = complaint(MINIMAL + '[mapping.defaults]\ntags = ["${env:NOBODY_SET_THIS}"]')
    assert said == "mapping.defaults.tags: environment variable NOBODY_SET_THIS is not set"


def test_a_file_of_a_secret_that_cannot_be_read_is_named_with_its_key(tmp_path):
    text = MINIMAL.replace("${env:SAMA_ACCESS_KEY}", f"${{file:{tmp_path}/none}}")
    assert complaint(text) == f"service.access_key: {tmp_path}/none cannot be read: No such file or directory"


def test_a_pipe_or_a_device_holds_no_secret_and_holds_nobody(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        said = complaint(MINIMAL.replace("${env:SAMA_ACCESS_KEY}", f"${{file:{path}}}"))
        why = "it is no regular file: move it away, or name another path"
        assert said == f"service.access_key: {path} cannot be read: {why}"


def test_a_configuration_may_come_through_a_pipe():
    read_end, write_end = os.pipe()
    os.write(write_end, MINIMAL.encode())
    os.close(write_end)
    try:
        assert read_text(Path(f"/dev/fd/{read_end}")) == MINIMAL
    finally:
        os.close(read_end)


@pytest.mark.parametrize("written", ["literal-key-123", "", "prefix-${env:SAMA_ACCESS_KEY}", "$SAMA_ACCESS_KEY"])
def test_a_secret_written_into_the_file_is_refused_and_not_repeated(written):
    said = complaint(MINIMAL.replace("${env:SAMA_ACCESS_KEY}", written))
    assert said.startswith("service.access_key: a secret does not belong into the file")
    assert "${env:SAMA_ACCESS_KEY}" in said
    assert "literal-key" not in said


def test_a_secret_of_the_wrong_type_is_refused_and_not_repeated():
    said = complaint(MINIMAL.replace('"${env:SAMA_ACCESS_KEY}"', "123456789"))
    assert said.startswith("service.access_key: ")
    assert "123456789" not in said


def test_a_secret_is_not_shown_by_what_holds_it():
    assert SECRET not in repr(wiring.load(MINIMAL))


def what_is_said_of(text):
    """Return the error of a configuration with its cause, or what the checked one shows of its secret."""
    try:
        return repr(wiring.load(text).service.access_key)
    except ConfigError as error:
        return f"{error} {error.__cause__}"


KEYS = [
    "kind",
    "base_url",
    "project_id",
    "mode",
    "notification_email",
    "upload_hosts",
    "max_tasks_per_batch",
    "acess_key",
]
PLACES = ["send.max_in_flight", "batch.max_bytes", "source.format", "source.types", "mapping.drop", "mapping.wrap"]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    # No words of our own, which a message may hold: none has a digit at its end, and 12 letters are "sevenbridges".
    secret=st.from_regex(r"[A-Za-z0-9+/=_ -]{12,39}[0-9]", fullmatch=True),
    key=st.sampled_from([*KEYS, *PLACES]),
    listed=st.booleans(),
)
def test_no_error_ever_shows_a_secret_wherever_it_was_put_by_mistake(secret, key, listed):
    before = os.environ.get("SAMA_ACCESS_KEY")
    os.environ["SAMA_ACCESS_KEY"] = secret
    try:
        value = '["${env:SAMA_ACCESS_KEY}"]' if listed else '"${env:SAMA_ACCESS_KEY}"'
        table, _, name = key.rpartition(".")
        lines = [line for line in MINIMAL.splitlines() if not line.startswith(key)]
        mistake = [f"[{table}]", f"{name} = {value}"] if table else [f"{name} = {value}"]
        assert secret not in what_is_said_of("\n".join([*lines, *mistake]))
    finally:
        os.environ["SAMA_ACCESS_KEY"] = before or ""


# Where no secret is needed


def test_what_needs_no_secret_works_without_any(monkeypatch):
    monkeypatch.delenv("SAMA_ACCESS_KEY")
    assert wiring.load(MINIMAL, hide_secret).service.project_id == 42


def test_what_needs_no_secret_still_learns_what_is_none(monkeypatch):
    monkeypatch.delenv("SAMA_ACCESS_KEY")
    monkeypatch.setenv("PROJECT", "4711")
    setup = wiring.load(MINIMAL.replace("42", '"${env:PROJECT}"'), hide_secret)
    assert setup.service.project_id == 4711


@pytest.mark.parametrize("quote", ['"', "'"])
def test_a_path_is_meant_from_the_folder_of_the_file_wherever_it_is_read_again(tmp_path, monkeypatch, quote):
    folder = tmp_path / "a folder"
    folder.mkdir()
    config = folder / "c.toml"
    config.write_text(f'[service]\nkind = "sama"\n task_schema = {quote}sub/schema.json{quote} # mine\n')
    monkeypatch.chdir(tmp_path)
    text = wiring.read_config(Path("a folder/c.toml"))
    assert tomllib.loads(text)["service"]["task_schema"] == str(folder / "sub" / "schema.json")
    config.write_text(text)
    assert wiring.read_config(config) == text


# deep, long and oddly named


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 100_000 + "]" * 100_000,
        "a = " + "{a = " * 50_000 + "1" + "}" * 50_000,
        "a." * 100_000 + "b = 1",
        '"a b".' * 100_000 + "b = 1",
        "[" + "a." * 3_000 + "b]",
        "a = " + "[" * 70 + "]" * 70,
    ],
    ids=["arrays", "inline tables", "dotted key", "quoted key", "header", "just too deep"],
)
def test_a_configuration_that_is_nested_without_end_is_refused_at_once(text):
    with pytest.raises(ConfigError, match="nested deeper than 64 levels: make it flatter"):
        parse_toml(text)


def test_a_template_may_be_nested_as_deep_as_anybody_needs():
    assert parse_toml("a = " + "[" * 60 + "1" + "]" * 60)


def test_blank_lines_cost_no_time():
    text = "\n" * 1_000_000
    assert rooted(text, ["task_schema"], Path("/")) == text


def test_ten_megabytes_are_no_configuration(tmp_path):
    (tmp_path / "c.toml").write_bytes(b"# " + bytes(10_000_000).replace(b"\0", b"x"))
    with pytest.raises(ConfigError, match=r"c\.toml cannot be read: longer than 1024 KiB"):
        read_text(tmp_path / "c.toml")


@pytest.mark.parametrize("folder", ["it's", 'a"b', "a\\b", "a#b = 1", "ü\x7f"])
@pytest.mark.parametrize("quoted", ['"s.json"', "'s.json'", '"\\u0073.json"'])
def test_a_path_is_rooted_in_a_folder_of_any_name(folder, quoted):
    text = rooted(f"[service]\ntask_schema = {quoted} # here\n", ["task_schema"], Path("/") / folder)
    assert parse_toml(text)["service"]["task_schema"] == f"/{folder}/s.json"


def test_all_references_that_stand_for_nothing_are_named_at_once(monkeypatch, tmp_path):
    monkeypatch.setenv("IS_THERE", "x")
    monkeypatch.delenv("IS_NOT_THERE", raising=False)
    tables = {
        "service": {"access_key": "${env:IS_NOT_THERE}", "name": "${env:IS_THERE}"},
        "hooks": [{"ping": f"${{file:{tmp_path}/none}}"}],
    }
    assert dict(lacking(tables)) == {
        "env:IS_NOT_THERE": "service.access_key: environment variable IS_NOT_THERE is not set",
        f"file:{tmp_path}/none": f"hooks.0.ping: {tmp_path}/none cannot be read: No such file or directory",
    }


def test_tables_are_a_configuration_whose_secrets_no_text_shows():
    copy_context().run(_tables_with_a_secret)


def _tables_with_a_secret():
    tables = {
        "service": {"kind": "sama", "project_id": 42, "access_key": SecretStr("given-secret-987")},
        "source": {"processes": 0},
        "hooks": [{"command": ["true"]}],
    }
    text = wiring.read_config(tables)
    assert "given-secret-987" not in text
    assert 'access_key = "${given:service.access_key}"' in text
    setup = wiring.load(text)
    assert setup.service.access_key == SecretStr("given-secret-987")
    assert redactor({})("it was given-secret-987") == "it was ***"
    assert wiring.load(wiring.read_config({**tables, "source": {"processes": 1}})).settings.source.processes == 1
    with pytest.raises(ConfigError, match="a secret does not belong into"):
        wiring.load(wiring.read_config({"service": {**tables["service"], "access_key": "plain"}}))


def test_a_secret_that_a_program_gave_is_known_to_its_operation_only():
    text = copy_context().run(wiring.read_config, {"service": {"kind": "sama", "access_key": SecretStr("of-another")}})
    assert "service.access_key: its value was given by a program" in complaint(f"{text}project_id = 42\n")
    assert wiring.load(f"{text}project_id = 42\n", hide_secret).service.access_key == SecretStr("********")


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({"send": {"poll_seconds": None}}, "send.poll_seconds: None is no value"),
        ({"send": {"poll_seconds": object()}}, "cannot be written as TOML"),
        ({"source": {"format": SecretStr("csv")}}, "source.format: this is no secret"),
        ({"send": {"poll_secunds": 1}}, "did you mean 'poll_seconds'"),
    ],
)
def test_tables_that_are_no_configuration_are_refused_as_a_file_is(tables, said):
    def load():
        return wiring.load(wiring.read_config({**parse_toml(MINIMAL), **tables}))

    with pytest.raises(ConfigError, match=said):
        copy_context().run(load)


def test_what_tables_name_is_meant_from_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tables = {**parse_toml(MINIMAL), "ledger": "state/ledger.db"}
    assert wiring.configured_ledger(tables, wiring.read_config(tables)).absolute() == tmp_path / "state" / "ledger.db"
    assert wiring.config_name(tables, wiring.read_config(tables)) == "sama"
    with pytest.raises(ConfigError, match="say which load comes back"):
        wiring.family_name(tables, None)
    assert wiring.family_name(tables, "images") == "images"


# Secrets at any depth


class InnerTable(Section, frozen=True, kw_only=True):
    secret: SecretStr | None = None
    form: dict[str, SecretText] = field(default_factory=dict)
    json: SecretTree | None = None
    under: "InnerTable | None" = None
    text: str = ""


class DeepSettings(ServiceSettings, frozen=True, kw_only=True):
    auth: InnerTable | None = None
    steps: dict[str, InnerTable] = field(default_factory=dict)
    rules: tuple[InnerTable, ...] = ()
    keys: list[SecretStr] = field(default_factory=list)
    named: dict[str, dict[str, SecretStr]] = field(default_factory=dict)
    template: dict[str, Any] = field(default_factory=dict)


DEEP = """
kind = "deep"
base_url = "https://${env:HOST}/v2"
keys = ["${env:FIRST_ONE}"]
template = { key = "${job}-${index}", host = "${env:HOST}", list = ["${key}"] }
[auth]
secret = "${env:SECOND_ONE}"
form = { grant_type = "client_credentials", client_secret = "Key ${env:THIRD_ONE} of ${file:KEPT}${name}" }
[auth.under]
json = { auth = { password = "${env:FOURTH_ONE}", methods = ["password", "${env:FIFTH_ONE}"], fresh = true } }
[steps.release]
secret = "${env:SIXTH_ONE}"
[named.a]
b = "${env:SEVENTH_ONE}"
[[rules]]
secret = "${env:EIGHTH_ONE}"
"""
ONES = ["FIRST_ONE", "SECOND_ONE", "THIRD_ONE", "FOURTH_ONE", "FIFTH_ONE", "SIXTH_ONE", "SEVENTH_ONE", "EIGHTH_ONE"]


@pytest.fixture
def deep(monkeypatch, tmp_path):
    """Tables with a secret in each of its places, and how each is known."""
    (tmp_path / "kept").write_text("value-of-the-file\n")
    monkeypatch.setenv("HOST", "example.com")
    for name in ONES:
        monkeypatch.setenv(name, f"value-of-{name.lower()}")
    return parse_toml(DEEP.replace("KEPT", str(tmp_path / "kept")))


VALUES = [*(f"value-of-{name.lower()}" for name in ONES), "value-of-the-file"]


def test_secrets_are_found_at_any_depth_and_shown_at_none(deep):
    checked = check(DeepSettings, deep, "service", expand_secret)
    assert not any(value in repr(checked) for value in VALUES)
    assert checked.auth.form["client_secret"].get_secret_value() == "Key value-of-third_one of value-of-the-file${name}"
    assert checked.auth.under.json.get_secret_value() == {
        "auth": {"password": "value-of-fourth_one", "methods": ["password", "value-of-fifth_one"], "fresh": True}
    }
    assert checked.keys == [SecretStr("value-of-first_one")]
    assert checked.named == {"a": {"b": SecretStr("value-of-seventh_one")}}
    assert checked.rules[0].secret == SecretStr("value-of-eighth_one")
    assert checked.template == {"key": "${job}-${index}", "host": "example.com", "list": ["${key}"]}
    assert sorted(secrets_in(checked)) == sorted(
        [
            "Key value-of-third_one of value-of-the-file${name}",
            "client_credentials",
            *(f"value-of-{name.lower()}" for name in ONES if name != "THIRD_ONE"),
        ]
    )


def test_they_are_hidden_from_then_on_and_what_stands_beside_them_is_not(deep):
    check(DeepSettings, deep, "service", expand_secret)
    for value in VALUES:
        assert redactor({}, looks=False)(f"it said {value}.") == "it said ***."
    kept = "client_credentials password example.com"
    assert redactor({}, looks=False)(kept) == kept


def test_their_variables_are_known_and_no_others(deep):
    assert secret_variables(DeepSettings, deep) == set(ONES)


def test_other_processes_get_stars_in_their_place(deep):
    checked = check(DeepSettings, deep, "service", expand_secret)
    hidden = without_secrets(checked)
    sent = pickle.dumps(hidden)
    assert not any(value.encode() in sent for value in VALUES)
    assert (hidden.template, hidden.base_url) == (checked.template, "https://example.com/v2")
    assert hidden.auth.form["grant_type"] == SecretText("********")
    assert hidden.auth.under.json.get_secret_value() == {
        "auth": {"password": "********", "methods": ["password", "********"], "fresh": True}
    }
    assert without_secrets(hidden.steps["release"]).secret == SecretStr("********")
    assert without_secrets(hidden.steps["release"].__class__(secret=SecretStr(""))).secret == SecretStr("")


def test_where_no_secret_is_needed_stars_stand_for_those_that_are_not_there(deep, monkeypatch):
    for name in ONES:
        monkeypatch.delenv(name)
    checked = check(DeepSettings, deep, "service", hide_secret)
    assert checked.auth.form["client_secret"].get_secret_value() == "Key ******** of value-of-the-file${name}"
    assert checked.named["a"]["b"] == SecretStr("********")
    with pytest.raises(ConfigError, match=r"environment variable \w+_ONE is not set"):
        check(DeepSettings, deep, "service", expand_secret)


@pytest.mark.parametrize(
    ("line", "place", "variable"),
    [
        ('keys = ["literal-key"]', "service.keys[0]", "DEEP_KEYS_0"),
        ('auth = { secret = "literal-key" }', "service.auth.secret", "DEEP_SECRET"),
        ('auth = { under = { secret = "literal-key" } }', "service.auth.under.secret", "DEEP_SECRET"),
        ('named = { a = { b = "literal-key" } }', "service.named.a.b", "DEEP_B"),
        ('steps = { release = { secret = "literal-key" } }', "service.steps.release.secret", "DEEP_SECRET"),
        ('rules = [{ secret = "Key ${env:HOST}" }]', "service.rules[0].secret", "DEEP_SECRET"),
    ],
)
def test_a_literal_where_a_secret_stands_is_refused_at_any_depth(line, place, variable):
    tables = parse_toml(f'kind = "deep"\nbase_url = "https://example.com"\n{line}')
    with pytest.raises(ConfigError) as raised:
        check(DeepSettings, tables, "service", expand_secret)
    assert str(raised.value).startswith(f"{place}: a secret does not belong into the file")
    assert f"${{env:{variable}}}" in str(raised.value)
    assert "literal-key" not in str(raised.value)


def test_a_tree_that_is_one_text_is_hidden_as_a_whole(monkeypatch):
    monkeypatch.setenv("FIRST_ONE", "value-of-first_one")
    tables = parse_toml('kind = "deep"\nbase_url = "https://example.com"\nauth = { json = "a ${env:FIRST_ONE}" }')
    checked = check(DeepSettings, tables, "service", expand_secret)
    assert checked.auth.json.get_secret_value() == "a value-of-first_one"
    assert [*secrets_in(checked)] == ["a value-of-first_one"]
    assert without_secrets(checked).auth.json == SecretTree("********")


@pytest.mark.parametrize("line", ['auth = { text = "${file:/p}" }', 'template = { a = ["${file:/p}"] }'])
def test_a_file_is_read_for_a_secret_only_at_any_depth(line):
    tables = parse_toml(f'kind = "deep"\nbase_url = "https://example.com"\n{line}')
    with pytest.raises(ConfigError, match="is for secrets only"):
        check(DeepSettings, tables, "service", expand_secret)


def test_the_password_in_a_url_is_a_secret_at_any_depth(monkeypatch):
    monkeypatch.setenv("DATABASE", "https://me:deep-passw0rd@example.com")
    tables = parse_toml('kind = "deep"\nbase_url = "https://example.com"\nauth = { text = "${env:DATABASE}" }')
    check(DeepSettings, tables, "service", expand_secret)
    assert redactor({})("deep-passw0rd") == "***"


def test_a_program_gives_secrets_at_any_depth():
    copy_context().run(_deep_tables)


def _deep_tables():
    tables = {
        "service": {
            "kind": "deep",
            "base_url": "https://example.com",
            "auth": {"secret": SecretStr("given-one"), "json": {"a}b": [SecretStr("given-two")]}},
        }
    }
    text = text_of(tables)
    assert "given-one" not in text
    assert "given-two" not in text
    checked = check(DeepSettings, parse_toml(text)["service"], "service", expand_secret)
    assert checked.auth.secret == SecretStr("given-one")
    assert checked.auth.json == SecretTree({"a}b": ["given-two"]})
