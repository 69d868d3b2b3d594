"""Pages whose blocks are run, and what the reader of blocks can see."""

from contextlib import ExitStack

import pytest
from fakes.served import served

from .pages import ROOT, Block, Reader, blocks_of, commands_of

PAGES = ["docs/python.md"]


@pytest.fixture
def reader(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with ExitStack() as stack:
        (tmp_path / "sandbox").mkdir()
        url, _ = stack.enter_context(served(tmp_path / "sandbox", ""))
        yield Reader(tmp_path, url, monkeypatch.setenv)


@pytest.mark.parametrize("page", PAGES)
def test_every_block_of_a_page_does_what_it_says(page, reader):
    blocks = blocks_of(ROOT / page)
    assert blocks
    for block in blocks:
        reader.follow(block)


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

<!-- not run: it needs an account -->
```console
$ bulksubmit status
```
"""


def test_blocks_are_found_with_their_place_and_without_their_indent(tmp_path):
    (tmp_path / "page.md").write_text(PAGE)
    found = blocks_of(tmp_path / "page.md")
    assert [(block.place, block.language) for block in found] == [("page.md:5", "toml"), ("page.md:12", "python")]
    assert found[1].text == "value = 1\nprint(value)  # 1\n"


@pytest.mark.parametrize(
    ("language", "text", "fails"),
    [
        ("toml", "[send]\nmax_in_flihgt = 1\n", "max_in_flihgt"),
        ("python", "print(1 + 1)  # 3\n", "expected"),
        ("python", "await missing()\n", "missing"),
        ("console", "$ bulksubmit status nothing\n", "no ledger"),
        ("console", "$ rm -r x\n", "nobody knows how to run"),
    ],
)
def test_a_block_that_does_not_hold_fails_its_page(language, text, fails, tmp_path, monkeypatch):
    reader = Reader(tmp_path, "http://127.0.0.1:1", monkeypatch.setenv)
    with pytest.raises((AssertionError, NameError), match=fails):
        reader.follow(Block("page.md", 1, language, text))


def test_a_console_block_is_commands_with_their_output():
    assert commands_of("$ export A=1\n$ bulksubmit submit x \\\n  --job j   # as it was\njob j is finished\n") == [
        ("export A=1", []),
        ("bulksubmit submit x    --job j   # as it was", ["job j is finished"]),
    ]
