"""The parts of the pages that are written from the code: `make docs` writes them, and nobody else."""

import importlib.util
import sys

import msgspec
import pytest

from .pages import ROOT


def _loaded():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


generate = _loaded()


@pytest.mark.parametrize("page", generate.pages(), ids=lambda page: page.name)
def test_a_page_says_what_the_code_says(page):
    text = page.read_text()
    assert generate.generated(text) == text, f"{page.name} is not what the code says: run `make docs`"


class Undocumented(msgspec.Struct):
    told: int = 0
    """It is told."""
    silent: int = 0


def test_a_key_without_a_sentence_is_an_error_that_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "somewhere", sys.modules[__name__])
    with pytest.raises(generate.UndocumentedError, match="silent has no docstring"):
        generate.keys("somewhere.Undocumented")


def test_a_changed_default_shows_on_its_page(monkeypatch):
    """The comparison is not one of a text with itself."""
    page = ROOT / "docs" / "configuration.md"
    monkeypatch.setattr(generate, "_default", lambda field: "another")
    assert generate.generated(page.read_text()) != page.read_text()
