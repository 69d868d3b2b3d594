"""Calls that fail together -> whether they go out freely, or one at a time as probes. Pure. Used by `http.throttle`."""

from __future__ import annotations

from msgspec import Struct, field

from engine.http.retry import RetryRules, probe_spacing

BUDGET_TOKENS = 500
RETRY_COST = 5
TIMEOUT_COST = 10
CLEAN_REWARD = 1
"""These four are the AWS SDKs' standard retry mode (botocore `retries/quota.py`, `retries/standard.py`)."""
REOPEN_TOKENS = 50
"""At least so many after an outage, a tenth of the budget: else the next hiccup would close the gate again."""


class Outage(Struct):
    """Whether the calls of one lane go out freely, or one at a time as probes.

    A retry budget as in the AWS SDKs keeps a dead service from being hammered: retries cost tokens, successes earn
    them. Theirs fails a call once the budget is spent. A bulk load has nothing better to do than wait, so here the
    calls wait instead, and one at a time probes; the first that gets through opens the gate for all:

        FREE ── budget spent, or a call's fate unknown ──> PROBING ── an answer ──> FREE
                                                             └ failed: next probe later, up to the cap

    An outage therefore costs a few probes a minute however many calls wait, and its end is noticed within one spacing.
    A call that must not be repeated closes the gate with its first lost answer: each further one would be one more
    batch that nobody knows the fate of.
    """

    rules: RetryRules = field(default_factory=RetryRules)
    tokens: int = BUDGET_TOKENS
    """What is left of the retry budget."""
    probing: bool = False
    turn_taken: bool = False
    """A call has the turn to probe."""
    probe_at: float = 0.0
    """Monotonic seconds of the next probe."""
    _probes: int = 0
    _first_failure_at: float | None = None
    _last_failure_at: float = 0.0

    def failed(self, now: float, draw: float, *, timed_out: bool, fate_unknown: bool, probe: bool) -> int:
        """Note a failed attempt; return what its retry costs. `probe`: it was made alone while the gate was closed."""
        if self._first_failure_at is None:
            self._first_failure_at = now
        self._last_failure_at = now
        if probe:
            self._probes += 1
            self.probe_at = now + probe_spacing(self.rules, self._probes, draw)
            return 0
        price = TIMEOUT_COST if timed_out else RETRY_COST
        spent = price > self.tokens
        if not spent:
            self.tokens -= price
        if not self.probing and (fate_unknown or spent):
            self.probing = True
            self._probes = 0
            self.probe_at = now + probe_spacing(self.rules, self._probes, draw)
        return 0 if spent else price

    def answered(self, refund: int = 0) -> None:
        """Note an answer, be it a refusal: the service is there. `refund`: what the call's last retry cost."""
        self.tokens = min(BUDGET_TOKENS, self.tokens + (refund or CLEAN_REWARD))
        self._first_failure_at = None
        if self.probing:
            self.probing = False
            self.tokens = max(self.tokens, REOPEN_TOKENS)

    def failing_seconds(self, now: float) -> float:
        """Return how long nothing has got through, by attempts made; 0 once the last of them is old news."""
        if self._first_failure_at is None or now - self._last_failure_at > self.rules.cap_seconds:
            return 0.0
        return self._last_failure_at - self._first_failure_at
