"""A task as it was sent enters, whether a failure was planned for it leaves; knows no service."""

import re
import zlib

import orjson

from engine.sandbox.behaviour import FailureRule
from engine.sandbox.errors import BehaviourError
from engine.sandbox.journal import value_at


class PlannedFailure:
    """One rule, ready to be asked."""

    def __init__(self, rule: FailureRule) -> None:
        """Raise BehaviourError for a pattern that is none."""
        self.rule = rule
        self._path = tuple(rule.path.split("."))
        try:
            self._pattern = re.compile(rule.matches) if rule.matches else None
        except re.error as error:
            raise BehaviourError(f"matches: {rule.matches!r} is no regular expression: {error}") from error

    def hits(self, task: object) -> bool:
        """Say whether this task is to fail."""
        if self.rule.share > 0 and _draw(task, self.rule.seed) >= self.rule.share:
            return False
        if not self.rule.path:
            return self.rule.share > 0
        value = value_at(task, self._path)
        if self._pattern is not None:
            return isinstance(value, str) and self._pattern.search(value) is not None
        return value == self.rule.equals


def _draw(task: object, seed: int) -> float:
    """Draw from the task itself: the same tasks fail in every order of batches, and again when they are retried."""
    return zlib.crc32(orjson.dumps(task), seed) / 2**32
