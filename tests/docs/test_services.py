"""The page about services names each description that is shipped; what was never run is checked all the same."""

import re
import tomllib

import pytest

from engine.commands import wiring
from engine.commands.configuration import hide_secret
from engine.services.described.shipped import shipped_kinds, shipped_text
from engine.testing import DESCRIPTION_CHECKS, made_of

from .pages import ROOT, blocks_of

PAGE = ROOT / "docs" / "services.md"
NEVER_RUN = [block for block in blocks_of(PAGE) if not block.run]
VARIABLE = re.compile(r"\$\{env:(\w+)\}")


def test_each_kind_that_is_shipped_stands_in_the_table():
    head, *rows = re.findall(r"^\| `([a-z0-9-]+)` \|", PAGE.read_text(), re.MULTILINE)
    assert (head, sorted(rows)) == ("kind", sorted(shipped_kinds()))


@pytest.mark.parametrize("kind", shipped_kinds())
def test_a_description_is_short_and_says_what_it_was_run_against_and_when(kind):
    lines = shipped_text(kind).splitlines()
    head = " ".join(lines[: next(at for at, line in enumerate(lines) if not line.startswith("#"))])
    assert len(lines) <= 80
    assert re.search(r"\b2026-11-(29|30)\b", head)
    assert re.search(r"\brun\b.* against\b", head, re.IGNORECASE)
    assert max(map(len, lines)) <= 160


@pytest.mark.parametrize("block", NEVER_RUN, ids=lambda block: block.place)
def test_an_example_that_was_never_run_is_a_configuration(block, monkeypatch):
    for name in VARIABLE.findall(block.text):
        monkeypatch.setenv(name, "never-run-key-9f2c")
    assert wiring.load(block.text, hide_secret).service.kind == "http"
    one = made_of(tomllib.loads(block.text)["service"])
    for check in DESCRIPTION_CHECKS:
        check(one)
