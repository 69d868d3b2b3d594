import tomllib
from pathlib import Path

import pytest

from engine.commands import wiring
from engine.commands.configuration import hide_secret, parse_toml
from engine.model.errors import ConfigError
from engine.services.described import shipped

MOST_LINES = 80
FILLED = """
[service]
kind = "elasticsearch"
base_url = "https://search.example.com:9200"
auth = { secret = "${env:ES_API_KEY}" }
values = { index_name = "tasks" }
"""


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("ES_API_KEY", "of-tests")


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Ship a description of our own."""
    (tmp_path / "own.toml").write_text(
        """
        [service]
        kind = "http"
        base_url = "https://a.example"
        limit = { records = 10, open = 5 }
        values = { project = "", group = "g" }
        release = { call = "POST /${project}", payload = true, query = { a = "1" } }
        results = { ok = { "status" = 200 }, error = ["a", "b"] }
        rules = [ { status = 429, means = "pause" } ]
        """
    )
    monkeypatch.setattr(shipped, "_FOLDER", tmp_path)
    shipped.shipped_kinds.cache_clear()
    yield
    shipped.shipped_kinds.cache_clear()


def test_each_says_what_it_was_run_against_and_is_short():
    for name in shipped.shipped_kinds():
        text = shipped.shipped_text(name)
        assert len(text.splitlines()) <= MOST_LINES, name
        assert text.startswith("# "), name


def test_a_users_table_lies_over_the_one_that_is_shipped(own):
    service = {
        "kind": "own",
        "limit": {"records": 3},
        "values": {"project": "p"},
        "results": {"error": ["c"], "ok": {"done": True}},
    }
    assert shipped.whole(service) == {
        "kind": "http",
        "name": "own",
        "base_url": "https://a.example",
        "limit": {"records": 3, "open": 5},
        "values": {"project": "p", "group": "g"},
        "release": {"call": "POST /${project}", "payload": True, "query": {"a": "1"}},
        "results": {"ok": {"done": True}, "error": ["c"]},
        "rules": [{"status": 429, "means": "pause"}],
    }


def test_steps_and_free_form_tables_are_taken_whole(own):
    assert shipped.whole({"kind": "own", "results": {"ok": {}}})["results"]["ok"] == {}
    assert shipped.whole({"kind": "own", "rules": []})["rules"] == []
    service = shipped.whole({"kind": "own", "release": {"call": "PUT /x", "payload": True}})
    assert service["release"] == {"call": "PUT /x", "payload": True}


def test_so_is_what_a_record_gets_or_a_user_could_not_leave_it_out():
    base, own_ids = tomllib.loads(shipped.shipped_text("couchdb"))["service"], {"key": "${task._id}", "add": {}}
    assert base["record"]["add"] == {"_id": "${key}"}
    assert shipped.whole({"kind": "couchdb", "record": own_ids})["record"] == own_ids


@pytest.mark.parametrize("kind", ["sama", "http", "nothing", 7, None])
def test_other_kinds_stay_as_they_are(kind):
    assert shipped.whole({"kind": kind, "a": 1}) == {"kind": kind, "a": 1}


# As every command reads it


def test_the_text_that_a_job_keeps_has_the_whole_description(tmp_path, monkeypatch):
    monkeypatch.setenv("ES_API_KEY", "search-key-9f2c")
    path = tmp_path / "nightly.toml"
    path.write_text(FILLED + '\n[mapping]\nwrap = "doc"\n[[hooks]]\ncommand = ["true"]\n')
    text = wiring.read_config(path)
    tables = tomllib.loads(text)
    assert (tables["service"]["kind"], tables["service"]["name"]) == ("http", "elasticsearch")
    assert tables["service"]["release"] == parse_toml(shipped.shipped_text("elasticsearch"))["service"]["release"]
    assert tables["service"]["auth"]["secret"] == "${env:ES_API_KEY}"
    assert (tables["mapping"], tables["hooks"]) == ({"wrap": "doc"}, [{"command": ["true"]}])
    setup = wiring.load(text, hide_secret)
    assert (setup.service.title, setup.service.place) == ("elasticsearch", "/tasks/_bulk")
    assert wiring.config_name(path, text) == "nightly"
    assert wiring.config_name(parse_toml(FILLED), text) == "elasticsearch"
    assert wiring.check_replacement(text, text) is False
    assert wiring.makes_same_tasks(text, text)


def test_what_is_to_be_filled_in_is_told(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text('[service]\nkind = "elasticsearch"\nbase_url = "https://search.example.com"\n')
    with pytest.raises(ConfigError, match=r"service\.values\.index_name: must be filled in"):
        wiring.load(wiring.read_config(path), hide_secret)


def test_a_kind_that_is_nearly_called_so_is_told():
    with pytest.raises(ConfigError, match="'elasticsearch_' is not a service; did you mean 'elasticsearch'"):
        wiring.load('[service]\nkind = "elasticsearch_"\n', hide_secret)
    assert {"sama", "http", "elasticsearch"} <= set(wiring.service_kinds())


def test_how_answers_are_read_may_change_while_a_job_goes_on_and_what_is_sent_may_not(monkeypatch):
    monkeypatch.setenv("ES_API_KEY", "search-key-9f2c")
    text = wiring.read_config(parse_toml(FILLED))
    service = tomllib.loads(text)["service"]

    def changed(**tables):
        return wiring.read_config({"service": {**service, **tables}})

    mended = changed(results={**service["results"], "error": ["*.error.type"]}, rules=[], limit={"records": 7})
    assert wiring.check_replacement(text, mended) is False
    with pytest.raises(ConfigError, match=r"service\.record: cannot change .* its batches are frozen"):
        wiring.check_replacement(text, changed(record={"key": "${task.id}"}), unsent=True)
    elsewhere = changed(values={"index_name": "others"})
    assert wiring.check_replacement(text, elsewhere, unsent=True) is True
    with pytest.raises(ConfigError, match=r"service\.values: cannot change .* something was created or released"):
        wiring.check_replacement(text, elsewhere)
    assert wiring.destination(text) != wiring.destination(elsewhere)


def test_shipped_files_are_part_of_the_package():
    assert Path(shipped.__file__).parent.joinpath("shipped", "elasticsearch.toml").is_file()
