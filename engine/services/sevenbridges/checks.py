"""What Seven Bridges can be asked before a load, and what is believed of it; see `engine.services.checks`.

A draft with a misspelt input is made all the same, and people see it. So the inputs of apps are asked for, and specs
are compared with them before anything is sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeAlias

import msgspec
import orjson

from engine.model.errors import Refused
from engine.model.record import Row
from engine.progress.text import count
from engine.services.base import Answer, Call, Caller
from engine.services.checks import (
    GENERAL_GUESSES,
    UNSEEN,
    CheckVerdict,
    Finding,
    Guess,
    ProbeEvidence,
    ServiceCheck,
    Sight,
    denied,
    held,
    json_body,
    unknown_name,
)
from engine.services.decoding import Extra, decode, words
from engine.services.sevenbridges.calls import KNOWN, TOTAL_HEADER, Calls, time_text
from engine.services.sevenbridges.settings import SevenBridgesSettings
from engine.services.sevenbridges.specs import merged

MOST_APPS = 20
"""Apps whose inputs are asked for; a load names one, as a rule, and each costs a request of the window."""
_SHOWN_INPUTS = 6

Inputs: TypeAlias = Mapping[str, bool]
"""Name of an app's input → whether a task must have it."""


class _User(msgspec.Struct):
    username: Extra[str] = ""


class _NamedThing(msgspec.Struct):
    name: Extra[str] = ""


class _App(msgspec.Struct):
    name: Extra[str] = ""
    raw: Extra[dict[str, Any]] = {}


class _Rate(msgspec.Struct):
    limit: Extra[int] = 0
    remaining: Extra[int] = 0


class _Limits(msgspec.Struct):
    rate: Extra[_Rate | None] = None
    instance_limit: Extra[_Rate | None] = None


def inputs_of(raw: Mapping[str, Any]) -> Inputs | None:
    """Return the inputs of an app by its `raw`, a CWL document; None if it does not tell them.

    CWL writes inputs as a list of objects with an `id` (sbg:draft-2 begins it with `#`), or as an object by name. One
    may be left out if its type has null (`File?`), or if it has a default.
    """
    listed = raw.get("inputs")
    if isinstance(listed, dict):
        listed = [{"id": name, **(one if isinstance(one, dict) else {"type": one})} for name, one in listed.items()]
    if not isinstance(listed, list):
        return None
    found: dict[str, bool] = {}
    for one in listed:
        if not isinstance(one, dict) or not isinstance(one.get("id"), str):
            return None
        name = one["id"].rpartition("#")[2].rpartition("/")[2]
        found[name] = not (_takes_nothing(one.get("type")) or one.get("default") is not None)
    return found


def _takes_nothing(kind: Any) -> bool:
    return (
        kind is None
        or kind == "null"
        or (isinstance(kind, str) and kind.endswith("?"))
        or (isinstance(kind, list) and any(_takes_nothing(one) for one in kind))
    )


def input_flaw(spec: Row, inputs: Inputs, *, whole: bool) -> str | None:
    """Return why the inputs of a spec do not fit its app. One that is `whole` must have all that the app needs."""
    given = spec.get("inputs") or {}
    for name in given:
        if name not in inputs:
            return f"inputs.{name}: no input of app {spec['app']}; {unknown_name(name, inputs)}"
    wanted = spec.get("batch_input")
    if wanted is not None and wanted not in inputs:
        return f"batch_input: {wanted!r} is no input of app {spec['app']}; {unknown_name(wanted, inputs)}"
    missing = [name for name, needed in inputs.items() if whole and needed and given.get(name) is None]
    return f"inputs.{missing[0]}: missing; app {spec['app']} needs it" if missing else None


class SevenBridgesChecks:
    """The ability `checking` of Seven Bridges."""

    def __init__(self, settings: SevenBridgesSettings, calls: Calls, caller: Caller, clock_seconds: float) -> None:
        self.clock_seconds = clock_seconds
        self._settings = settings
        self._calls = calls
        self._caller = caller
        self._apps: dict[str, Inputs | None] = {}

    @property
    def guesses(self) -> Sequence[Guess]:
        """Return what is believed of it."""
        return (*GENERAL_GUESSES, *GUESSES)

    def checks(self) -> Sequence[ServiceCheck]:
        """Return the questions about token, project, app and limits."""
        settings = self._settings
        no_project = f"set service.project: the token's owner sees no {settings.project}"
        no_app = f"set service.app: there is no {settings.app}, or this token may not use it"
        return [
            ServiceCheck(
                "key",
                self._key,
                "put a valid token into what service.auth_token names; its page is Developer → Auth token",
            ),
            ServiceCheck("project", self._project, no_project, ("key",)),
            ServiceCheck("app", self._app, no_app, ("key",)),
            ServiceCheck("limits", self._limits, "wait for the next window of requests, of 5 minutes", ("key",)),
        ]

    def probe_note(self) -> str:
        """Return whether drafts are run: what runs costs, and cannot be deleted."""
        if self._settings.run:
            return "They are run at once: what runs may cost, and only drafts can be deleted."
        return "They stay drafts, which cost nothing."

    async def _get(self, kind: str, path: str, query: Mapping[str, str] | None = None) -> Answer:
        url = f"{self._settings.base_url}/{path}"
        return await self._caller.call(Call(kind, "GET", url, query=query or {}, few_tries=True))

    async def _key(self) -> Finding:
        user = decode(await self._get("user", "user"), _User, call="user").username
        return Finding(f"the token is that of {words(user)!r}" if user else "the service takes the token")

    async def _project(self) -> Finding:
        project = self._settings.project
        if project is None:
            return Finding("each record names its own", CheckVerdict.UNCHECKED)
        named = decode(await self._get("project", f"projects/{project}"), _NamedThing, call="project").name
        return Finding(f"{project} is there{_called(named)}")

    async def _app(self) -> Finding:
        app, settings = self._settings.app, self._settings
        if app is None:
            return Finding("each record names its own", CheckVerdict.UNCHECKED)
        inputs = await self.inputs(app)
        if inputs is None:
            return Finding(f"{app} is there, and does not tell its inputs", CheckVerdict.WARNING, _UNTOLD)
        # What defaults lack, records may bring: only names that no task may have are wrong here.
        wrong = input_flaw({"app": app, "inputs": settings.inputs}, inputs, whole=False)
        if wrong:
            return Finding(f"service.{wrong}", CheckVerdict.FAILED, "mend the name in [service]")
        needed = [name for name, must in inputs.items() if must]
        more = f" and {len(needed) - _SHOWN_INPUTS} more" if len(needed) > _SHOWN_INPUTS else ""
        needs = f", needs {', '.join(needed[:_SHOWN_INPUTS])}{more}" if needed else ""
        return Finding(f"{app} has {count(len(inputs), 'input')}{needs}")

    async def _limits(self) -> Finding:
        told = decode(await self._get("limit", "rate_limit"), _Limits, call="limit")
        if told.rate is None or not told.rate.limit:
            return Finding("the service tells none", CheckVerdict.UNCHECKED)
        said = f"{told.rate.remaining:,} of {told.rate.limit:,} requests are left in this window"
        if told.instance_limit:
            said += f"; {told.instance_limit.remaining:,} of {told.instance_limit.limit:,} instances"
        if told.rate.remaining * 10 < told.rate.limit:
            return Finding(
                said, CheckVerdict.WARNING, "something else uses this token: the load waits for the next window"
            )
        return Finding(said)

    async def inputs(self, app: str) -> Inputs | None:
        """Ask for the inputs of an app, once; None if it does not tell them.

        Raises:
            CallFailed: there is no such app, or nobody answers.
        """
        if app not in self._apps:
            answer = await self._get("app", f"apps/{app}")
            # With no input at all, it is more likely that the answer does not show them.
            self._apps[app] = inputs_of(decode(answer, _App, call="app").raw) or None
        return self._apps[app]

    async def flaws(self, tasks: Sequence[Row]) -> Sequence[str | None]:
        """Return of each spec why its inputs do not fit its app.

        Raises:
            CallFailed: nobody answers.
        """
        flaws: list[str | None] = []
        for task in tasks:
            spec = merged(task, self._settings.defaults())
            app = str(spec.get("app"))
            if app not in self._apps and len(self._apps) >= MOST_APPS:
                flaws.append(None)
                continue
            try:
                inputs = await self.inputs(app)
            except Refused as refusal:
                # Of the configuration's own app, the check of that name tells, and a run, which can be resumed.
                own = app != self._settings.app
                flaws.append(f"app: {app} cannot be used ({refusal})" if own else None)
                continue
            # A draft that is not run may lack an input: people fill it in.
            flaws.append(input_flaw(spec, inputs, whole=self._settings.run) if inputs else None)
        return flaws

    async def look_closer(self, remote_ids: Sequence[str], task_ids: Sequence[str]) -> None:
        """Read the tasks in one call, in the other order, and list those of the project."""
        del remote_ids
        await self._calls.bulk(list(reversed(task_ids)))
        if self._settings.project and task_ids:
            task = await self._calls.get(task_ids[0])
            async for _ in self._calls.created_since(self._settings.project, (task.created_at or 0.0) - 1):
                break


_UNTOLD = "inputs that are misspelt are seen only once drafts are made: try a few records first"


def _called(name: str) -> str:
    return f", and is called {words(name)!r}" if name else ""


def _shown_tasks(evidence: ProbeEvidence) -> Iterator[Row]:
    """Yield each task that an answer has shown."""
    for answer in evidence.answers("create", "run", "get"):
        yield json_body(answer)
    for answer in evidence.answers("bulk"):
        yield from (one["resource"] for one in json_body(answer)["items"] if one.get("resource"))


def _bulk_order(evidence: ProbeEvidence) -> Sight:
    asked = [one for one in evidence.exchanges if one.call.kind == "bulk" and one.answer is not None]
    for one in reversed(asked):
        wanted = orjson.loads(b"".join(one.call.pieces))["task_ids"]
        got = [item.get("resource", {}).get("id") for item in json_body(one.answer)["items"]] if one.answer else []
        if len(wanted) > 1 and None not in got:
            return Sight(got == wanted, f"{len(wanted)} were asked for in one call")
    return UNSEEN


def _descriptions(evidence: ProbeEvidence) -> Sight:
    for one in evidence.exchanges:
        if one.call.kind == "create" and one.answer is not None:
            sent = orjson.loads(b"".join(one.call.pieces)).get("description")
            got = json_body(one.answer).get("description")
            if sent and got is not None:
                return Sight(
                    got == sent, "the draft's answer shows it" if got == sent else f"it came back as {words(got)!r}"
                )
    return UNSEEN


def _file_types(evidence: ProbeEvidence) -> Sight:
    types = {
        str(item["type"]) for one in evidence.answers("files") for item in json_body(one)["items"] if "type" in item
    }
    return Sight(types <= {"file", "folder"}, f"heard: {words(', '.join(sorted(types)))}") if types else UNSEEN


def _shown_soon(evidence: ProbeEvidence) -> Sight:
    reads = [one for one in evidence.exchanges if one.call.kind in {"get", "bulk"}]
    missing = evidence.refused(404, "get")
    return Sight(not missing, f"{len(reads)} reads, {len(missing)} of them 404") if reads else UNSEEN


def _run_soon(evidence: ProbeEvidence) -> Sight:
    runs = [one for one in evidence.exchanges if one.call.kind == "run"]
    missing = evidence.refused(404, "run")
    return Sight(not missing, f"{len(runs)} runs, {len(missing)} of them 404") if runs else UNSEEN


def _lists(evidence: ProbeEvidence) -> Sequence[Answer]:
    return evidence.answers("find", "children", "files")


def _list_order(evidence: ProbeEvidence) -> Sight:
    times = [str(one["created_time"]) for answer in evidence.answers("find") for one in json_body(answer)["items"]]
    if len(set(times)) < 2:  # noqa: PLR2004 - of one time there is no order
        return UNSEEN
    return Sight(times == sorted(times), f"{len(times)} tasks of the project")


def _total_header(evidence: ProbeEvidence) -> Sight:
    answers = _lists(evidence)
    have = sum(any(name.lower() == TOTAL_HEADER for name in one.headers) for one in answers)
    return Sight(have == len(answers), f"{have} of {len(answers)} lists have it") if answers else UNSEEN


def _statuses(evidence: ProbeEvidence) -> Sight:
    heard = sorted({str(task.get("status", "")).upper() for task in _shown_tasks(evidence)})
    unknown = [word for word in heard if word not in KNOWN]
    return Sight(not unknown, f"heard: {words(', '.join(unknown or heard))}") if heard else UNSEEN


def _offset_is_taken(evidence: ProbeEvidence) -> Sight:
    if evidence.refused(400, "find"):
        return denied("the list was refused (400)")
    return held(f"a list from {time_text(0)[-6:]} on was answered") if evidence.answers("find") else UNSEEN


def _zones(evidence: ProbeEvidence) -> Sight:
    times = [str(task["created_time"]) for task in _shown_tasks(evidence) if task.get("created_time")]
    if not times:
        return UNSEEN
    if datetime.fromisoformat(times[0]).tzinfo is not None:
        return held(f"they have a zone: {words(times[0])}")
    return Sight(None, f"{words(times[0])} has none")


def _bad_draft(evidence: ProbeEvidence) -> Sight:
    errors = [one for one in map(json_body, evidence.answers("create")) if one.get("errors")]
    return held(f"{len(errors)} drafts showed errors") if errors else UNSEEN


GUESSES: tuple[Guess, ...] = (
    Guess("sevenbridges.bare-fields", 'bare names in a bulk call\'s `fields` bring `{"resource": {}}`'),
    Guess("sevenbridges.bulk-errors", "an error item is shown though `fields` names only `resource.…`"),
    Guess("sevenbridges.bulk-order", "items of a bulk call come in the order asked for", _bulk_order),
    Guess("sevenbridges.descriptions", "a description is stored as it was sent", _descriptions),
    Guess("sevenbridges.file-types", "types of files are `file` and `folder`", _file_types),
    Guess("sevenbridges.file-names", "a file's name has no slash of its own"),
    Guess("sevenbridges.shown-soon", "what was made is shown soon", _shown_soon),
    Guess("sevenbridges.run-soon", "a draft can be run as soon as it was created", _run_soon),
    Guess("sevenbridges.list-order", "`order_by=created_time&order=asc` is obeyed", _list_order),
    Guess("sevenbridges.total", "lists carry `x-total-matching-query`", _total_header),
    Guess("sevenbridges.names", "50 names fit into one call for files"),
    Guess("sevenbridges.maintenance", "503 with code 0 is maintenance"),
    Guess("sevenbridges.statuses", "statuses are the eight documented words", _statuses),
    Guess("sevenbridges.offset", "`created_from` takes `+00:00` (the page names the form)", _offset_is_taken),
    Guess("sevenbridges.zones", "`created_time` without a zone is UTC", _zones),
    Guess("sevenbridges.run-again", "a second `run` is refused with 7007 or 7010 [documented]"),
    Guess("sevenbridges.deletes", "`DELETE` deletes drafts and nothing else [documented: 7007]"),
    Guess("sevenbridges.parents", "a parent whose children failed has failed"),
    Guess("sevenbridges.draft-errors", "a bad draft shows `errors` when it is created", _bad_draft),
)
"""Of Seven Bridges; docs/guesses.md has a row of each."""
