"""The page about descriptions: its table of mistakes has what is really said, and its tables have every key."""

import re
from pathlib import Path

import msgspec
import pytest

from engine.commands import wiring
from engine.commands.configuration import hide_secret
from engine.model.errors import ConfigError
from engine.services.described import settings
from engine.services.described.results import THERE_ALREADY

from .pages import ROOT

PAGE = (ROOT / "docs" / "describing.md").read_text()
HEAD = '[service]\nkind = "http"\nbase_url = "https://api.example.com"\n'
RELEASE = 'release = { call = "POST /a", payload = true }\n'
MISTAKES = {
    "service.relaese: unknown key; did you mean 'release'?": 'relaese = { call = "POST /a" }\n' + RELEASE,
    "auth.secret: a secret does not belong into the file": 'auth = { kind = "bearer", secret = "abc" }\n' + RELEASE,
    "base_url must be https": "",
    "release.payload: no step carries the records": 'release = { call = "POST /a" }\n',
    "'tasks' is no call": 'release = { call = "tasks", payload = true }\n',
    "record.key: it is the same for every record": 'record = { key = "${job}" }\n' + RELEASE,
    "${identifier}: nothing fills it": (
        'stage = { call = "POST /a", take = { id = "id" } }\n'
        'release = { call = "POST /a/${identifier}", payload = true }\n'
    ),
    "it is not known any more after a restart": (
        'stage = { call = "POST /a", take = { id = "id", url = "url" } }\n'
        'release = { call = "POST ${url}", payload = true }\n'
    ),
    "results.exists: missing": 'release = { call = "POST /a", payload = true, again = "exists" }\n',
    "limit.records: must be 1": 'body = { framing = "single" }\nlimit = { records = 5 }\n' + RELEASE,
}


def _checked(text):
    setup = wiring.load(text, hide_secret)
    wiring.check_service(setup.module, setup.service)


@pytest.mark.parametrize("said", MISTAKES)
def test_a_mistake_is_told_in_the_words_of_the_page(said):
    text = HEAD + MISTAKES[said] if MISTAKES[said] else HEAD.replace("https:", "http:") + RELEASE
    with pytest.raises(ConfigError, match=re.escape(said)):
        _checked(text)
    assert f"| `{said}` |" in PAGE


def test_each_error_of_a_description_on_the_page_is_tried_here():
    part = PAGE[PAGE.index("## Mistakes, and what one sees") : PAGE.index("## Every key")]
    assert re.findall(r"^\| `(.+?)` \|", part, re.MULTILINE) == list(MISTAKES)


WORDS = (
    THERE_ALREADY,
    "the answer has no list of results",
    "no item of the results is about a record of the batch",
    "its item in the results says neither yes nor no",
    "records went up, and the answer has",
)


@pytest.mark.parametrize("words", WORDS)
def test_what_is_said_of_records_is_what_the_code_says(words):
    code = "".join(path.read_text() for path in Path(settings.__file__).parent.glob("*.py"))
    assert words in code
    assert words in PAGE


def test_every_table_of_a_description_is_on_the_page():
    tables = {
        name
        for name, kind in vars(settings).items()
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and kind.__module__ == settings.__name__
    }
    assert {name for name in tables if f"settings.{name} -->" not in PAGE} == set()
