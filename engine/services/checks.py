"""What can be asked of a service before it gets work, and what a probe shows: an ability, beside those in `base`.

`commands.check` runs the checks, `commands.probe` judges the guesses. A check asks and makes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

import orjson
from msgspec import Struct

from engine.model.errors import CallFailed
from engine.model.record import Row
from engine.services.base import Answer, Call
from engine.services.decoding import MOST_ID_CHARACTERS, are_names


class CheckVerdict(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    UNCHECKED = "not checked"


class Finding(Struct, frozen=True):
    """What a check has found."""

    found: str
    verdict: CheckVerdict = CheckVerdict.OK
    cure: str = ""
    """What to do about it; "" where nothing is to be done."""


class ServiceCheck(Struct, frozen=True):
    """One question, and how its answer is got."""

    name: str
    look: Callable[[], Awaitable[Finding]]
    """May raise a BulkSubmitError: then the check has failed, in its words."""
    cure: str = ""
    """What to do where it raises."""
    needs: tuple[str, ...] = ()
    """Names of checks before it: if one of them failed, this one is not made."""


class Exchange(Struct, frozen=True):
    """A call of a probe and what came back."""

    call: Call
    answer: Answer | None
    """None: it was refused, or lost."""
    status: int | None = None


class ProbeEvidence(Struct, frozen=True):
    """What a probe has heard, and what it knows of its own tasks."""

    exchanges: Sequence[Exchange]
    sent: Sequence[Row] = ()
    """Its tasks, in the order in which they went up."""
    task_ids: Sequence[str] = ()
    """Of those that were created, in the same order."""
    seconds: float = 0.0
    """From the first call until all were created."""
    settle_seconds: float = 0.0

    def answers(self, *kinds: str) -> Sequence[Answer]:
        """Return the answers to calls of these kinds, in their order."""
        return [one.answer for one in self.exchanges if one.call.kind in kinds and one.answer is not None]

    def refused(self, status: int, *kinds: str) -> Sequence[Exchange]:
        """Return the calls of these kinds (of all, if none is named) that were answered with a status."""
        return [one for one in self.exchanges if one.status == status and (not kinds or one.call.kind in kinds)]


class Sight(Struct, frozen=True):
    """Whether what is believed was seen."""

    holds: bool | None
    """None: nothing of it was seen."""
    seen: str = ""


UNSEEN = Sight(None)


def held(seen: str) -> Sight:
    """Return that what is believed was seen."""
    return Sight(holds=True, seen=seen)


def denied(seen: str) -> Sight:
    """Return that the opposite of what is believed was seen."""
    return Sight(holds=False, seen=seen)


class Guess(Struct, frozen=True):
    """What is believed of a service and no page of its vendor says; docs/guesses.md has a row of the same name."""

    name: str
    believed: str
    see: Callable[[ProbeEvidence], Sight] | None = None
    """Looks for it in what a probe has heard. None: two created tasks cannot show it."""

    def sight(self, evidence: ProbeEvidence) -> Sight:
        """Return whether it was seen; an answer in another form than `see` expects shows nothing."""
        try:
            return self.see(evidence) if self.see else UNSEEN
        except (CallFailed, LookupError, TypeError, ValueError, AttributeError):
            return Sight(None, "the answer has another form than expected")


@runtime_checkable
class Checking(Protocol):
    """The service can be asked whether a load would go well, and nothing is made by that."""

    clock_seconds: float
    """By how much our clock may differ from the service's before searches go wrong."""

    @property
    def guesses(self) -> Sequence[Guess]:
        """What is believed of it, with what is believed of any service."""
        ...

    def checks(self) -> Sequence[ServiceCheck]:
        """Return what can be asked: key, project and so on. One whose key does not hold is named `key`."""

    async def flaws(self, tasks: Sequence[Row]) -> Sequence[str | None]:
        """Return of each task why the service would not take it, by the rules that it tells itself; None if it would.

        Raises:
            CallFailed: it does not tell them.
        """

    def probe_note(self) -> str:
        """Return what people should know before two tasks are created; "" if there is nothing to say."""

    async def look_closer(self, remote_ids: Sequence[str], task_ids: Sequence[str]) -> None:
        """Make the reads that show more of what is believed, about batches and tasks that were just created.

        Only their answers matter, which the probe hears.
        """


def json_body(answer: Answer) -> Any:
    """Return what the body of an answer holds; {} if it is no JSON."""
    try:
        return orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        return {}


def unknown_name(name: str, known: Mapping[str, Any] | Sequence[str]) -> str:
    """Return what a name that is not among those known may mean."""
    from difflib import get_close_matches  # noqa: PLC0415 - only where one is misspelt

    near = get_close_matches(name, list(known), 1)
    return f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(known)) or 'none'}"


_SECONDS = re.compile(r"[0-9]{10}")
"""Unix time."""


def _new_is_found(evidence: ProbeEvidence) -> Sight:
    reads = [one for one in evidence.exchanges if one.call.method == "GET"]
    missing = [one for one in reads if one.status == 404]  # noqa: PLR2004 - HTTP
    if missing:
        return denied(f"{len(missing)} of {len(reads)} reads did not find it (404)")
    return held(f"{len(reads)} reads, none of them 404") if reads else UNSEEN


def _names(evidence: ProbeEvidence) -> Sight:
    if not evidence.task_ids:
        return UNSEEN
    longest = max(map(len, evidence.task_ids))
    holds = are_names(evidence.task_ids) and longest <= MOST_ID_CHARACTERS
    return Sight(holds, f"ids of {longest} characters, as {evidence.task_ids[0]}")


def _is_begun(evidence: ProbeEvidence) -> Sight:
    created, sent = len(evidence.task_ids), len(evidence.sent)
    return held(f"{created} of {sent} tasks were created") if created == sent > 0 else UNSEEN


def _in_time(evidence: ProbeEvidence) -> Sight:
    if not evidence.sent or len(evidence.task_ids) < len(evidence.sent):
        return UNSEEN
    return Sight(evidence.seconds <= evidence.settle_seconds, f"done {evidence.seconds:.1f} s after the first call")


def _reset_is_unix_time(evidence: ProbeEvidence) -> Sight:
    answers = (one.answer for one in evidence.exchanges if one.answer is not None)
    said = next((value for one in answers if (value := _header(one, "X-RateLimit-Reset"))), "")
    return Sight(bool(_SECONDS.fullmatch(said)), f"X-RateLimit-Reset: {said[:40]}") if said else UNSEEN


def _header(answer: Answer, name: str) -> str:
    return next((value for key, value in answer.headers.items() if key.lower() == name.lower()), "")


GENERAL_GUESSES: tuple[Guess, ...] = (
    Guess("any.at-once", "what a call did shows at once"),
    Guess("any.place", "one kind of service, host and project is one place, whatever the port"),
    Guess("any.found", "what is new is found", _new_is_found),
    Guess("any.carried-out", "an answered call was carried out, one without an answer was or was not"),
    Guess(
        "any.names",
        "names of batches, tasks and files have at most 200 letters, digits and `._~@:+=-`, and no dot first",
        _names,
    ),
    Guess("any.begun", "what was accepted is begun", _is_begun),
    Guess("any.continue-again", "a second `continue` is refused"),
    Guess("any.busy", "a batch that is busy says so"),
    Guess("any.cancel", "a cancel that is confirmed holds"),
    Guess(
        "any.waits",
        "`Retry-After` is seconds or a date, `X-RateLimit-Reset` Unix time or what is left",
        _reset_is_unix_time,
    ),
    Guess("any.settle-time", "a service acts within the settle time", _in_time),
)
"""Of every service. Those without a test need a lost answer, a refusal or a second load to be seen."""
