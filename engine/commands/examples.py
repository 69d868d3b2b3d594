"""The configurations that come with bulksubmit: in the checkout in configs/, in an installed package inside of it."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from msgspec import Struct

from engine.model.errors import ConfigError

_PLACES = (Path(__file__).parents[1] / "configs", Path(__file__).parents[2] / "configs")
"""In an installed package; in a checkout."""


class Example(Struct, frozen=True):
    """A configuration that comes with the package."""

    name: str
    about: str
    """The first sentence of its head."""


def examples() -> Sequence[Example]:
    """Return what there is, by name."""
    return [Example(path.stem, _about(path.read_text(encoding="utf-8"))) for path in sorted(_folder().glob("*.toml"))]


def example_path(name: str) -> Path:
    """Return where an example is, by its name with or without .toml.

    Raises:
        ConfigError: there is none of that name.
    """
    names = sorted(path.stem for path in _folder().glob("*.toml"))
    stem = name.removesuffix(".toml")
    if stem in names:
        return _folder() / f"{stem}.toml"
    near = get_close_matches(stem, names, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}"
    raise ConfigError(f"there is no example {name!r}; {hint}")


def _folder() -> Path:
    return next((place for place in _PLACES if place.is_dir()), _PLACES[0])


def _about(text: str) -> str:
    return text.partition("\n")[0].lstrip("# ").rstrip(":").partition(". ")[0].rstrip(".")
