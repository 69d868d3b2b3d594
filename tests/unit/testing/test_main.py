"""`python -m engine.testing`: what it prints, and its exit codes."""

import json

import pytest
from fakes.served import serving

from engine.testing.__main__ import main

from .described import GOOD, SAFE


def test_the_command_says_what_holds_and_what_is_promised(tmp_path, capsys):
    (tmp_path / "good.toml").write_text(GOOD)
    assert main([str(tmp_path / "good.toml")]) == 0
    said = capsys.readouterr().out
    assert "ok       each fate is read" in said
    assert "promise  after a lost answer it is sent again" in said
    (tmp_path / "bad.toml").write_text(GOOD.replace('key = "id"', 'key = "state"'))
    (tmp_path / "records.ndjson").write_text('{"id": "a"}\n{"id": "b"}\n{"id": "c"}\n')
    assert main([str(tmp_path / "bad.toml"), "--source", str(tmp_path / "records.ndjson")]) == 1
    assert "failed   each fate is read: results: items that are fine" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[send]\n", "has no [service]"),
        ('[service]\nkind = "http"\nrelease = { call = "POST /a", payload = true }', "base_url"),
        (f"{GOOD}\n[service.relaese]\n", "service.relaese: unknown key; did you mean 'release'?"),
        (GOOD.replace("POST /items", "items"), "release.call: 'items' is no call"),
        (None, "No such file"),
    ],
)
def test_what_is_no_description_is_said(tmp_path, capsys, text, words):
    if text is not None:
        (tmp_path / "c.toml").write_text(text)
    assert main([str(tmp_path / "c.toml")]) == 2
    assert words in capsys.readouterr().out


def test_before_a_stand_in_the_checks_of_every_service_are_made(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("BULK_KEY", "sandbox-key")
    (tmp_path / "safe.toml").write_text(SAFE)
    journal = tmp_path / "journal.ndjson"
    arguments = ["sandbox", "--service", "bulk", "--delay", "0", "--port", "0", "--journal", str(journal)]
    with serving([*arguments, "--json"], tmp_path / "said") as line:
        url = json.loads(line)["url"]
        order = [str(tmp_path / "safe.toml"), "--sandbox", f"{url}/safe", "--journal", str(journal)]
        assert main(order) == 0
        assert "ok       a lost release that arrived is known" in capsys.readouterr().out
        (tmp_path / "few.ndjson").write_text('{"id": "a"}\n{"id": "b"}\n{"id": "c"}\n')
        assert main([*order, "--source", str(tmp_path / "few.ndjson")]) == 2
        assert "has too few records: 51 are needed" in capsys.readouterr().out
        (tmp_path / "safe.toml").write_text(SAFE.replace("/batch/", "/nothing/"))
        assert main(order) == 1
        assert "failed   creates each task once" in capsys.readouterr().out
    assert main([str(tmp_path / "safe.toml"), "--sandbox", "http://127.0.0.1:1"]) == 2
    assert "go together" in capsys.readouterr().out
