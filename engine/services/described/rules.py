"""What an answer means beyond its status, as `[[service.rules]]` says it: the first rule that fits.

Compiled once. A body is read only where a rule that is about its status looks into it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeAlias

import orjson

from engine.model.error_hints import Blame, Pause, Refusal
from engine.model.settings import json_of
from engine.progress.redaction import foreign_words
from engine.services.described.paths import MISSING, compiled, text_of_value, words_at

if TYPE_CHECKING:
    from engine.services.described.settings import RuleTable

Hint: TypeAlias = Callable[[int, bytes], Pause | Refusal | None]
"""(status, body) → what the answer means; None where its status says it."""

WORDS = (
    "message",
    "error.message",
    "errors.0.message",
    "0.message",
    "error",
    "detail",
    "title",
    "reason",
    "description",
)
"""Where most services word an error."""
_EACH_WORDS = ("message", "error.message", "response.message", "reason", "error", "detail")
"""Likewise, of one record."""

_LONGEST_TEXT_BYTES = 65_536
"""Of an answer that is searched for words: who has more to say is not saying what is wrong."""

_NOTHING: tuple[Any, ...] = ("", [], {}, False)
"""Where a rule asks only whether something is there, these say that nothing is."""

_BLAME = {
    "refused": Blame.RECORDS,
    "unauthorized": Blame.KEY,
    "whole": Blame.PAYLOAD,
    "by_index": Blame.RECORDS,
    "gone": Blame.RECORDS,
    "exists": Blame.RECORDS,
    "busy": Blame.NOT_NOW,
    "stop": Blame.JOB,
}
"""`rules.means` → whose fault it is; a pause is nobody's."""


@lru_cache(64)
def compiled_rules(rules: Sequence[RuleTable]) -> Hint:
    """Return what judges an answer by some rules."""
    compiled_ones = [_Rule(rule) for rule in rules]
    about = {status for rule in rules for status in rule.status}
    has_open = any(not rule.status for rule in rules)

    def hint(status: int, body: bytes) -> Pause | Refusal | None:
        is_success = HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES
        if status not in about and (is_success or not has_open):
            return None
        said = _Body(body, is_success=is_success)
        return next((rule.meaning(status, said) for rule in compiled_ones if rule.fits(status, said)), None)

    return hint


class _Body:
    """The value of a body, read when it is first asked for."""

    def __init__(self, body: bytes, *, is_success: bool) -> None:
        self._body = body
        self._is_success = is_success
        self._value: Any = MISSING

    @property
    def value(self) -> Any:
        if self._value is MISSING:
            self._value = self._read()
        return self._value

    @cached_property
    def text(self) -> str:
        """The body as it came, in small letters."""
        return self._body[:_LONGEST_TEXT_BYTES].decode(errors="replace").lower()

    @property
    def plain_words(self) -> str:
        """The body, if it is a text; "" if it is JSON, or a page."""
        body = self._body.strip()
        is_text = self.value is None and body[:1] not in {b"<", b"{", b"["}
        return body[:_LONGEST_TEXT_BYTES].decode(errors="replace") if is_text else ""

    def _read(self) -> Any:
        if not self._is_success:
            return json_of(self._body)
        try:
            return orjson.loads(self._body)
        except orjson.JSONDecodeError:  # a file of results, say
            return None


class _Rule:
    def __init__(self, rule: RuleTable) -> None:
        self._rule = rule
        self._statuses = frozenset(rule.status)
        self._path = compiled(rule.path) if rule.path else None
        self._equals = frozenset(map(text_of_value, rule.equals))
        self._contains = tuple(text.lower() for text in rule.contains)
        self._words = words_at((() if rule.at else rule.error) or WORDS)
        self._flaws = _flaws_at(rule) if rule.at else None
        self._id = words_at(rule.id)

    def fits(self, status: int, said: _Body) -> bool:
        if self._statuses and status not in self._statuses:
            return False
        if not self._statuses and HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            return False
        return self._says_so(said) and (self._flaws is None or bool(self._flaws(said.value)))

    def _says_so(self, said: _Body) -> bool:
        """Return whether what stands at the path is what the rule wants."""
        if self._path is None:
            return not self._contains or any(part in said.text for part in self._contains)
        found = self._path(said.value)
        if found is MISSING or found is None:
            return False
        if not self._equals and not self._contains:
            return found not in _NOTHING
        text = text_of_value(found)
        return text in self._equals or any(part in text.lower() for part in self._contains)

    def meaning(self, status: int, said: _Body) -> Pause | Refusal:
        rule = self._rule
        words = foreign_words(said.plain_words if said.value is None else self._words(said.value))
        reason = f"status {status}" + (f": {words}" if words else "")
        if rule.means == "pause":
            return Pause(rule.seconds, reason)
        flaws = self._flaws(said.value) if self._flaws is not None else {}
        return Refusal(
            reason,
            _BLAME[rule.means],
            flaws=flaws,
            gone=rule.means == "gone",
            exists=rule.means == "exists",
            task_id=self._id(said.value) if rule.id else "",
        )


def _flaws_at(rule: RuleTable) -> Callable[[Any], Mapping[int, str]]:
    """Return what finds which records are at fault, by their place in the batch, and why."""
    at, index, words = (
        compiled(rule.at),
        compiled(rule.index) if rule.index else None,
        words_at(rule.error or _EACH_WORDS),
    )

    def flaws(value: Any) -> Mapping[int, str]:
        found = at(value)
        if isinstance(found, dict):
            pairs = [(_place(key), one) for key, one in found.items()]
        elif isinstance(found, list):
            # By their own place, there is one for each record: of one that is fine it is null, {}, [] or "".
            listed = [(place, one) for place, one in enumerate(found) if one is not None and one not in _NOTHING]
            pairs = [(_place(index(one)) if index else place, one) for place, one in listed]
        else:
            return {}
        named: dict[int, str] = {}
        for place, one in pairs:
            if one is None or one is False:
                continue
            if place is None:  # an error of nobody: it is not known which record is at fault
                return {}
            said = one if isinstance(one, str) else words(one) or text_of_value(one)
            named.setdefault(place - rule.first_index, foreign_words(said) or "refused")
        return named

    return flaws


def _place(value: Any) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 10:  # noqa: PLR2004 - an int
        return int(value)
    return value if type(value) is int else None
