"""HubSpot's CRM objects: an upsert of a hundred by a unique property, answered 200, or 207 with those that failed.

Written from: developers.hubspot.com, "Upsert contacts" (batch; shapes of input and answer), "Error handling" (207 where
each input has an `objectWriteTraceId`; 401, 403, 414, 423, 429, 477, 502 to 504) and "API usage guidelines" (the body
of a 429 with `policyName`; the headers X-HubSpot-RateLimit-*); `SimplePublicObjectBatchInputUpsert` of HubSpot's
clients; rudderlabs/rudder-transformer, which reads an upsert's 207: `errors[].context.objectWriteTraceId` is a list.

Guesses: that an error may name several inputs at once (that is what a list is for; a switch); that two inputs with one
id refuse the whole batch (Segment says so in segmentio/action-destinations#3969), and with which words.

The vendor's client, hubspot-api-client 12.0.0, works with it.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import orjson
from msgspec import field

from engine.model.settings import Section
from engine.sandbox.behaviour import Behaviour
from engine.sandbox.journal import Journal
from engine.sandbox.messages import SandboxAnswer, SandboxRequest, WrongInput, json_answer
from engine.sandbox.traffic import CallKinds, ReadBody, Sleep
from engine.sandbox.vendors.standin import VendorService, bearer

CALLS = CallKinds(frozenset({"upsert", "list"}), deferrable=frozenset({"upsert"}))
MOST_INPUTS = 100  # the vendor's limit
_CATEGORIES = {400: "VALIDATION_ERROR", 401: "INVALID_AUTHENTICATION", 403: "MISSING_SCOPES", 429: "RATE_LIMITS"}
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_LOCKED = 423
_PROPERTIES = {"email": "email", "firstname": "", "lifecyclestage": "lead;customer"}


class HubSpotSwitches(Section, frozen=True):
    """What is there, and how it behaves.

    properties      those that a record may have -> what they take: "" any text, "email", or options as "a;b;c"
    unique          those that an `idProperty` may be
    multi_status    whether a bad record fails alone, by a 207; if not, its batch is refused as a whole, by a 400
    joined          whether one error names all the records that have it
    daily           whether a 429 is about the day
    locked_every    each so-many-th call is answered 423, and nothing is done; 0: none
    expired_after   calls for which the token holds; then it is told to be expired; 0: any number
    """

    properties: Mapping[str, str] = field(default_factory=lambda: dict(_PROPERTIES))
    unique: tuple[str, ...] = ("bulksubmit_key", "email")
    multi_status: bool = True
    joined: bool = False
    daily: bool = False
    locked_every: int = 0
    expired_after: int = 0


class HubSpotStandIn(VendorService):
    """Serves the batch upsert of any object type. `records` has each by its type and key."""

    name = "HubSpot"

    def __init__(
        self,
        behaviour: Behaviour,
        journal: Journal,
        clock: Callable[[], float],
        switches: HubSpotSwitches = HubSpotSwitches(),  # noqa: B008 - a value
    ) -> None:
        """Raise BehaviourError for what cannot be served."""
        places = ("/crm/v3/objects/{type}", "/crm/objects/2026-03/{type}")
        rows = [("POST", place + "/batch/upsert", "upsert", self._upsert) for place in places]
        rows += [("GET", place, "list", self._list) for place in places]
        super().__init__(behaviour, journal, clock, CALLS, rows)
        self._switches = switches
        self.records: dict[tuple[str, str], dict[str, Any]] = {}
        self._calls = self._used = 0

    def switch(self, switches: HubSpotSwitches) -> None:
        """Behave otherwise from now on; the token holds anew."""
        self._switches, self._used = switches, 0

    async def answer(self, request: SandboxRequest, read: ReadBody, sleep: Sleep) -> SandboxAnswer:
        """Answer a request, with the headers about the window of requests."""
        answer = await super().answer(request, read, sleep)
        if (window := self.window) is not None:
            answer.headers["X-HubSpot-RateLimit-Max"] = str(window.limit.requests)
            answer.headers["X-HubSpot-RateLimit-Remaining"] = str(window.remaining(self.clock()))
            answer.headers["X-HubSpot-RateLimit-Interval-Milliseconds"] = str(math.ceil(window.limit.seconds * 1000))
        return answer

    def error(self, kind: str, status: int, message: str) -> SandboxAnswer:
        """Word an error as `{"status": "error", "message", "correlationId", "category"}`, one of a limit otherwise."""
        del kind
        named = {"status": "error", "correlationId": f"{self.number():032x}"}
        if status == 429:  # noqa: PLR2004 - HTTP: too many requests
            policy = "DAILY" if self._switches.daily else "TEN_SECONDLY_ROLLING"
            words = f"You have reached your {policy.lower()} limit."
            return json_answer({**named, "message": words, "errorType": "RATE_LIMIT", "policyName": policy}, status)
        return json_answer({**named, "message": message, "category": _CATEGORIES.get(status, "ERROR")}, status)

    def refused(self, request: SandboxRequest) -> SandboxAnswer | None:
        """Take a bearer token."""
        if bearer(request) not in self.behaviour.access_keys:
            return self.error(
                "", 401, "Authentication credentials not found. This API supports OAuth 2.0 authentication"
            )
        self._used += 1
        if 0 < self._switches.expired_after < self._used:
            answer = orjson.loads(self.error("", 401, "The OAuth token used to make this call expired.").body)
            return json_answer({**answer, "category": "EXPIRED_AUTHENTICATION"}, 401)
        return None

    def _list(self, request: SandboxRequest) -> SandboxAnswer:
        found = [record for (kind, _), record in self.records.items() if kind == request.params["type"]]
        return json_answer({"results": found[:10]})

    def _upsert(self, request: SandboxRequest) -> SandboxAnswer:
        self._calls += 1
        if self._switches.locked_every and self._calls % self._switches.locked_every == 0:
            return self.error("", _LOCKED, "The resource is temporarily locked.")
        inputs = request.json_object().get("inputs")
        if not isinstance(inputs, list) or not inputs:
            raise WrongInput("Invalid input JSON: inputs must be a list that is not empty")
        if len(inputs) > MOST_INPUTS:
            raise WrongInput(f"The maximum number of inputs supported in a batch request is {MOST_INPUTS}")
        wrong_ids = [one["idProperty"] for one in inputs if one.get("idProperty") not in self._switches.unique]
        if wrong_ids:
            raise WrongInput("Unable to perform update/upsert by non-unique 0-1 property")
        if twice := [key for key, count in Counter(one["id"] for one in inputs).items() if count > 1]:
            raise WrongInput(f"Duplicate IDs found in batch input: {twice}. IDs must be unique")
        judged = [(one, self._misfit(one)) for one in inputs]
        bad = [(one, words) for one, words in judged if words is not None]
        traced = all(one.get("objectWriteTraceId") for one in inputs)
        if bad and not (self._switches.multi_status and traced):
            raise WrongInput(bad[0][1])
        done: list[dict[str, Any]] = []
        good = [one for one, words in judged if words is None]
        kind = request.params["type"]
        self.traffic.agenda.do(kind, lambda _: done.extend(self._write(kind, one) for one in good))
        now = datetime.fromtimestamp(self.clock(), UTC).isoformat()
        body: dict[str, Any] = {"status": "COMPLETE", "results": done, "startedAt": now, "completedAt": now}
        if bad:
            self.traffic.stats.tasks_failed += len(bad)
            body |= {"numErrors": len(bad), "errors": self._errors(bad)}
        return json_answer(body, 207 if bad else 200)

    def _misfit(self, one: Mapping[str, Any]) -> str | None:
        properties = one["properties"]
        if (failure := self.failure(properties)) is not None:
            return failure[1]
        for name, value in properties.items():
            takes = self._switches.properties.get(name)
            if takes is None and name not in self._switches.unique:
                return _words(name, "PROPERTY_DOESNT_EXIST", f'Property "{name}" does not exist')
            if takes == "email" and not _EMAIL.fullmatch(str(value)):
                return _words(name, "INVALID_EMAIL", f"Email address {value} is invalid")
            if takes and takes != "email" and str(value) not in takes.split(";"):
                return _words(name, "INVALID_OPTION", f"{value} was not one of the allowed options: {takes.split(';')}")
        return None

    def _write(self, kind: str, one: Mapping[str, Any]) -> dict[str, Any]:
        key = (kind, one["id"])
        is_new = key not in self.records
        now = datetime.fromtimestamp(self.clock(), UTC).isoformat()
        new: dict[str, Any] = {"id": str(self.number()), "createdAt": now, "archived": False}
        before = self.records.get(key, new)
        properties = {**before.get("properties", {}), **one["properties"], one["idProperty"]: one["id"]}
        self.records[key] = {**before, "properties": properties, "updatedAt": now}
        self.write(one["properties"], kind, self.records[key]["id"], len(self.records) - 1, "task" if is_new else "run")
        trace = {"objectWriteTraceId": one["objectWriteTraceId"]} if one.get("objectWriteTraceId") else {}
        return {**self.records[key], "new": is_new, **trace}

    def _errors(self, bad: list[tuple[Mapping[str, Any], str]]) -> list[dict[str, Any]]:
        traces: dict[str, list[str]] = {}
        for one, words in bad:
            key = words if self._switches.joined else f"{words}\0{one['objectWriteTraceId']}"
            traces.setdefault(key, []).append(one["objectWriteTraceId"])
        common = {"status": "error", "category": "VALIDATION_ERROR"}
        return [
            {**common, "message": key.partition("\0")[0], "context": {"objectWriteTraceId": names}}
            for key, names in traces.items()
        ]


def _words(name: str, error: str, message: str) -> str:
    told = orjson.dumps([{"isValid": False, "message": message, "error": error, "name": name}]).decode()
    return f"Property values were not valid: {told}"
