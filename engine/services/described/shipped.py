"""Descriptions that are shipped, `shipped/NAME.toml`, and what a user's own table makes of one.

`kind = "NAME"` is that file with the user's `[service]` laid over it, key by key; lists, steps and free-form tables are
taken whole. The text that a job keeps has both as one table
with `kind = "http"`: so a newer file changes no job that has begun.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from engine.model.settings import Question

KIND = "http"
"""Of every service that a description makes."""

_FOLDER = Path(__file__).parent / "shipped"

_NO_HOST = re.compile(r"[./]example\.|MYDOMAIN|YOUR")
_VARIABLE = re.compile(r"\$\{env:([^}]+)\}")

_LAID_OVER = frozenset(
    {"auth", "exchange", "limit", "window", "record", "body", "results", "failures", "values", "headers"}
)
"""Tables of which a user's keys stand beside those that are shipped. Any other, a step or a template say, is taken
whole: half of one call and half of another make none."""


@cache
def shipped_kinds() -> Sequence[str]:
    """Return the names of the descriptions that are shipped."""
    return tuple(sorted(file.stem for file in _FOLDER.glob("*.toml")))


def shipped_text(name: str) -> str:
    """Return the text of a description that is shipped, with its comments."""
    return (_FOLDER / f"{name}.toml").read_text(encoding="utf-8")


def is_shipped(kind: object) -> bool:
    """Return whether a kind is that of a description that is shipped."""
    return isinstance(kind, str) and kind in shipped_kinds()


def whole(service: Mapping[str, Any]) -> dict[str, Any]:
    """Return `[service]` with the description that its kind names below it, if one is shipped; else as it is."""
    name = service.get("kind")
    if not isinstance(name, str) or not is_shipped(name):
        return dict(service)
    base = tomllib.loads(shipped_text(name))["service"]
    return {**_laid_over(base, service), "kind": KIND, "name": name}


def open_questions(name: str) -> Sequence[Question]:
    """Return what a user has to say beside a description that is shipped: what it leaves out, or leaves empty."""
    text = shipped_text(name)
    base = tomllib.loads(text)["service"]
    asked = []
    url = base.get("base_url", "")
    if not url or _NO_HOST.search(url):
        asked.append(Question("base_url", "Address of the API, as in " + (url or "https://api.example.com")))
    auth = base.get("auth", {})
    if auth.get("kind", "none") != "none":
        found = _VARIABLE.fullmatch(auth.get("secret", ""))
        proposal = found[1] if found else re.sub(r"\W", "_", f"{name}_secret").upper()
        asked.append(Question("auth.secret", "Variable of the environment that holds the key or token", proposal))
    for key, value in base.get("values", {}).items():
        comment = re.search(rf"^\s*{re.escape(key)}\s*=[^#\n]*#\s*(.+)$", text, re.MULTILINE)
        asked.append(Question(f"values.{key}", comment[1] if comment else f"{key}, as the calls name it", value))
    return asked


def _laid_over(base: Mapping[str, Any], table: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in table.items():
        below = merged.get(key)
        beside = key in _LAID_OVER and isinstance(value, dict) and isinstance(below, dict)
        merged[key] = _laid_over(below, value) if beside and below is not None else value
    return merged
