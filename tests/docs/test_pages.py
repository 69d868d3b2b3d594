"""Every command and configuration in README and docs is run, page by page; what cannot be is named, with its reason."""

import re
from contextlib import ExitStack

import pytest

from engine.cli.app import parser_of, root

from .pages import CHANGED, ROOT, Block, Reader, blocks_of, commands_of, today

EVERY = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES = [page for page in EVERY if blocks_of(page)]
ELSEWHERE = {"many-machines.md": "tests/system/test_many_machines.py runs it: it needs PostgreSQL and Dask"}
"""Page → who runs it."""
HTTP = '[service]\nkind = "http"\nbase_url = "https://'
NEVER_RUN = "nobody has such a server here; test_services.py checks it as a configuration"
NOT_RUN = {
    ("README.md", "$ make demo"): "installs; the demo and the tests are commands of their own",
    ("README.md", "$ pip install ."): "installs",
    ("extending.md", "[build-system]"): "a pyproject.toml; tests/integration/cli/test_own_package.py holds it",
    ("extending.md", "def build"): "a signature",
    ("many-machines.md", "$ docker"): "Docker and Kubernetes; tests/system runs what the pods run",
    ("nightly.md", "- alert"): "Prometheus' own file",
    ("nightly.md", "# install"): "cron, as root; tests/system runs its script",
    ("nightly.md", "# useradd"): "systemd, as root; tests/system has systemd verify the units",
    ("nightly.md", "$ docker"): "Docker and Kubernetes; tests/system reads the manifest",
    ("services.md", f"{HTTP}api.airtable.com"): NEVER_RUN,
    ("services.md", f"{HTTP}a.klaviyo.com"): NEVER_RUN,
    ("services.md", f"{HTTP}toloka.dev"): NEVER_RUN,
    ("services.md", f"{HTTP}api.stripe.com"): NEVER_RUN,
    ("services.md", f"{HTTP}search.example.com"): NEVER_RUN,
    ("services.md", f"{HTTP}movies.example.com"): NEVER_RUN,
    ("services.md", f"{HTTP}vectors.example.com"): NEVER_RUN,
    ("services.md", f"{HTTP}api.scale.com"): NEVER_RUN,
}
"""(page, how a block begins) → why it is marked `not-run`."""

SAMA = """
[service]
kind = "sama"
base_url = "{}"
project_id = 42
access_key = "${{env:SAMA_ACCESS_KEY}}"

[source.types]
data = "json"

[send]
poll_seconds = 0.05
"""
TASKS = "".join(
    f'{{"data": {{"id": "a{number}", "image": "https://example.com/{number}.png"}}}}\n' for number in range(5)
)
BAD = '{"data": "no table"}\n'
SUBMIT = "$ bulksubmit submit tasks.ndjson --config sama.toml --job images-1"
GIVEN = {
    "benchmarking.md": [
        r"$ printf 'sample\nS1\nS2\nS3\nS4\nS5\nS6\nS7\nS8\n' > manifest.csv",
        "$ export SB_AUTH_TOKEN=sandbox-key",
        (
            "$ bulksubmit init sevenbridges --from manifest.csv --base-url http://127.0.0.1:8801/v2 --yes --no-run"
            " --project owner/project --app owner/project/align -o align.toml"
        ),
    ],
    "check.md": [],
    "configuration.md": [],
    "dashboard.md": [SUBMIT],
    "failing-night.md": [
        "$ export SAMA_ACCESS_KEY=expired",
        "$ bulksubmit submit tasks.ndjson --config sama.toml --job images-2026-11-28  # exit code 9",
    ],
    "nightly.md": [],
    "report.md": [SUBMIT],
    "retry.md": [
        "$ bulksubmit submit mixed.ndjson --config sama.toml --job images-1  # exit code 3",
        """$ sed -i 's/"no table"/{"id": "a5"}/' .bulksubmit/images-1/rejects.ndjson""",
    ],
}
"""Page about something that is there already → what has made it; `tasks.ndjson` and `sama.toml` are there, too."""


@pytest.fixture
def reader(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BULKSUBMIT_LEDGER", str(tmp_path / ".bulksubmit" / "ledger.db"))
    monkeypatch.setenv("TZ", "UTC")
    with ExitStack() as stack:
        yield Reader(tmp_path, monkeypatch.setenv, capfd.readouterr, stack)


def _give(reader, page):
    """Make what a page begins with."""
    folder = reader.folder
    sama = SAMA.format(reader.sama())
    for name in ("sama.toml", "nightly.toml"):
        (folder / name).write_text(sama)
    (folder / "tasks.ndjson").write_text(TASKS)
    (folder / "mixed.ndjson").write_text(TASKS + BAD)
    (folder / "export").mkdir()
    (folder / "export" / "a.ndjson").write_text(TASKS)
    (folder / "export.csv").write_text('data\n"{""id"": ""b1""}"\n')
    reader.setenv("SAMA_ACCESS_KEY", "sandbox-key")
    reader.follow(Block("given", 1, "console", "\n".join(GIVEN[page])))
    reader.setenv("SAMA_ACCESS_KEY", "sandbox-key")


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in ELSEWHERE], ids=lambda page: page.name)
def test_every_block_of_a_page_does_what_it_says(page, reader, monkeypatch):
    monkeypatch.setitem(CHANGED, r"nightly-2026-11-28", f"nightly-{today()}")
    blocks = [block for block in blocks_of(page) if block.run]
    if page.name in GIVEN:
        _give(reader, page.name)
    for block in blocks:
        reader.follow(block)


def test_what_is_not_run_has_its_reason_here():
    marked = [(block.page, block.text) for page in PAGES for block in blocks_of(page) if not block.run]
    assert len(marked) == len(NOT_RUN)
    for page, text in marked:
        assert any(page == known and text.startswith(begins) for known, begins in NOT_RUN), f"{page}: {text}"


HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
LINK = re.compile(r"\]\((?P<path>[^)#:\s]*)(?:#(?P<anchor>[^)\s]+))?\)")


def _anchors(page):
    words = (
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in HEADING.findall(page.read_text())
    )
    return set(words)


@pytest.mark.parametrize("page", EVERY, ids=lambda page: page.name)
def test_links_lead_to_something_that_is_there(page):
    for found in LINK.finditer(re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)):
        there = (page.parent / found["path"]) if found["path"] else page
        assert there.exists(), f"{page.name}: {found[0]}"
        if found["anchor"]:
            assert found["anchor"] in _anchors(there), f"{page.name}: {found[0]}"


COMMANDS = root().commands
SAID = re.compile(r"`(?P<words>[^`\n]+)`|^ *\$ (?P<line>bulksubmit .*)$", re.MULTILINE)
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")


def _known_options(name):
    kind = COMMANDS[name]
    kinds = [kind, *(parser_of(name, [service]) for service in ("sama", "sevenbridges", "http") if name == "init")]
    return {option for one in kinds for param in one.params for option in (*param.opts, *param.secondary_opts)} | {
        "--help"
    }


@pytest.mark.parametrize("page", EVERY, ids=lambda page: page.name)
def test_options_that_a_page_names_are_those_of_their_command(page):
    for found in SAID.finditer(page.read_text()):
        said = (found["words"] or found["line"]).split("  ")[0].split("#")[0]
        words = said.split()
        if words[:1] == ["bulksubmit"] and len(words) > 1 and words[1].islower():
            del words[0]
            assert words[0] in COMMANDS, f"{page.name}: {said}: there is no such command"
        if words and words[0] in COMMANDS:
            unknown = set(OPTION.findall(said)) - _known_options(words[0])
            assert not unknown, f"{page.name}: {said}: there is no {unknown}"


def test_every_page_is_named_by_the_way_in():
    named = (ROOT / "docs" / "README.md").read_text()
    assert [page.name for page in (ROOT / "docs").glob("*.md") if f"({page.name})" not in named] == ["README.md"]


PAGE = """
# A page

```toml
# nightly.toml
[send]
max_in_flight = 0
```

1. a list:
   ```python
   value = 1
   print(value)  # 1
   ```

```console not-run
$ bulksubmit status
```
"""


def test_blocks_are_found_with_their_place_and_without_their_indent(tmp_path):
    (tmp_path / "page.md").write_text(PAGE)
    found = blocks_of(tmp_path / "page.md")
    assert [(block.place, block.language, block.run) for block in found] == [
        ("page.md:5", "toml", True),
        ("page.md:12", "python", True),
        ("page.md:17", "console", False),
    ]
    assert found[1].text == "value = 1\nprint(value)  # 1\n"


@pytest.mark.parametrize(
    ("language", "text", "fails"),
    [
        ("toml", "[send]\nmax_in_flihgt = 1\n", "max_in_flihgt"),
        ("python", "print(1 + 1)  # 3\n", "expected"),
        ("python", "await missing()\n", "missing"),
        ("console", "$ bulksubmit status nothing\n", "no ledger"),
        ("console", "$ echo 1\n2\n", "expected"),
        ("console", "$ echo 1  # exit code 3\n", "echo"),
        ("console", "$ rm -r x\n", "nobody knows how to run"),
        ("yaml", "a: 1\n", "nobody knows how to run"),
    ],
)
def test_a_block_that_does_not_hold_fails_its_page(language, text, fails, reader):
    with pytest.raises((AssertionError, NameError), match=fails):
        reader.follow(Block("page.md", 1, language, text))


def test_a_console_block_is_commands_with_their_output():
    text = "$ export A=1\n$ cat > x <<'END'\na = 1\nEND\n$ bulksubmit submit x \\\n  --job j   # as it was\nfinished\n"
    assert commands_of(text) == [
        ("export A=1", []),
        ("cat > x <<'END'\na = 1\nEND\n", []),
        ("bulksubmit submit x    --job j   # as it was", ["finished"]),
    ]
