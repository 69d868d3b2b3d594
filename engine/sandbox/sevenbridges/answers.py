"""How Seven Bridges answers: errors, lists, bulk calls, and the parameters of queries. The package's handlers use it.

An error is `{"status", "code", "message", "more_info"}`. Codes and their meaning are the vendor's; which HTTP status
goes with a 7xxx code, and every message, is this sandbox's choice.
"""

import uuid
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import orjson

from engine.sandbox.messages import SandboxAnswer, SandboxRefusal, SandboxRequest, WrongInput, int_of, json_answer
from engine.sandbox.settings import SandboxPlatform

MAX_PAGE = 100  # the vendor's limit, of pages and of bulk calls
DEFAULT_PAGE = 50  # the vendor's
_RESOURCE = "resource."  # a bulk call's `fields` need the keyword
_MORE_INFO = "https://docs.sevenbridges.com/docs/api-status-codes"

_ERRORS: Mapping[int, tuple[int, str]] = {
    0: (503, "The platform is under maintenance."),
    1000: (429, "Rate limit exceeded! Check response headers."),
    3002: (404, "Requested project does not exist."),
    3012: (400, "Malformed project id. Expecting owner/project."),
    5002: (404, "Requested file does not exist."),
    6002: (404, "Requested app does not exist."),
    7000: (503, "Task service is currently unavailable."),
    7002: (404, "Requested task does not exist."),
    7005: (400, "A task id must be a UUID."),
    7006: (400, "Unknown task status."),
    7007: (400, "Only a DRAFT task can be changed or deleted."),
    7010: (400, "Only a DRAFT task can be run."),
    7011: (400, "Only a CREATING, QUEUED or RUNNING task can be aborted."),
    7012: (400, "The task lacks required inputs."),
    7018: (400, "batch_input must name an input."),
    7019: (400, "batch_by of type CRITERIA needs criteria: metadata.<field>."),
    7020: (400, "batch_by.type must be ITEM or CRITERIA."),
    7023: (400, "batch_input and batch_by must be given together."),
    7024: (400, "The task has validation errors and cannot be run."),
    90000: (400, "Bad request."),
    90001: (401, "Unauthorized."),
    90009: (400, "The body cannot be decoded."),
}


def refusal(code: int, message: str = "", status: int = 0) -> SandboxRefusal:
    """Make an error to raise, with the status and the words of the code where none are given."""
    usual_status, usual_message = _ERRORS[code]
    status = status or usual_status
    body = {"status": status, "code": code, "message": message or usual_message, "more_info": _MORE_INFO}
    return SandboxRefusal(json_answer(body, status))


class View:
    """How one request is answered: what it asks for is shown at addresses of its own host, with times up to `now`."""

    def __init__(self, request: SandboxRequest, settings: SandboxPlatform, now: float = 0.0) -> None:
        self.base_url = f"{request.url.origin()}/v2"
        self.settings, self.now = settings, now
        self._request = request

    @property
    def page(self) -> slice:
        """Return which part of a list is asked for, by `offset` and `limit`. Raise SandboxRefusal."""
        offset = int_of(self._request.query, "offset", 0, 0, 10**9)
        return slice(offset, offset + int_of(self._request.query, "limit", DEFAULT_PAGE, 1, MAX_PAGE))

    def one(self, thing: object, fields: "Fields", status: int = 200) -> SandboxAnswer:
        """Answer with a thing; without a selector with all that there is of it."""
        names = _wanted(self._request.query.get("fields", ""), fields, fields)
        return json_answer(self._shown(thing, fields, names), status)

    def listed(self, things: Iterable[object], total: int, fields: "Fields", short: Iterable[str]) -> SandboxAnswer:
        """Answer with one page of a list, the links to its neighbours and the header with the total.

        Without a selector things have only the `short` fields.
        """
        page, url = self.page, self._request.url
        limit = page.stop - page.start
        names = _wanted(self._request.query.get("fields", ""), fields, short)
        neighbours = [("next", page.stop)] if page.stop < total else []
        neighbours += [("prev", max(0, page.start - limit))] if page.start > 0 else []
        links = [
            {"href": str(url.update_query(offset=offset, limit=limit)), "rel": rel, "method": "GET"}
            for rel, offset in neighbours
        ]
        items = [self._shown(thing, fields, names) for thing in things]
        answer = json_answer({"href": str(url), "items": items, "links": links})
        if self.settings.unwritten.total_header:
            answer.headers["X-Total-Matching-Query"] = str(total)
        return answer

    def bulk(self, key: str, find: Callable[[str], object], fields: "Fields") -> SandboxAnswer:
        """Answer with the resource or the error of each id that the body has under a key. Raise SandboxRefusal."""
        ids, unwritten = _ids(self._request, key), self.settings.unwritten
        selector = [part.strip() for part in self._request.query.get("fields", "").split(",") if part.strip()]
        own = ",".join(name.removeprefix(_RESOURCE) for name in selector if name.startswith(_RESOURCE))
        whole = not selector or not {"_all", "resource"}.isdisjoint(selector) or unwritten.bare_bulk_fields == "all"
        names = _wanted(own, fields, fields) if own or whole else []
        nothing: dict[str, object] = {} if unwritten.bare_bulk_fields == "nothing" else {"resource": {}}
        items: list[object] = []
        for one in ids if unwritten.bulk_order == "asked" else ids[::-1]:
            try:
                thing = find(one)
                items.append({"resource": self._shown(thing, fields, names)} if names else nothing)
            except SandboxRefusal as error:
                shows = unwritten.bulk_errors or not selector
                items.append({"error": orjson.Fragment(error.answer.body)} if shows else {})
        return json_answer({"items": items})

    def _shown(self, thing: object, fields: "Fields", names: Iterable[str]) -> dict[str, object]:
        return {name: fields[name](thing, self) for name in names}


Fields = Mapping[str, Callable[[Any, View], object]]
"""What is shown of a thing, by the names of the fields."""


def _wanted(selector: str, known: Iterable[str], default: Iterable[str]) -> list[str]:
    """Read the `fields` selector: `_all`, or names; a nested selection takes the whole of its outer field."""
    if not selector:
        return list(default)
    names = {part.split("(")[0].split(".")[0].strip() for part in selector.split(",")}
    return list(known) if "_all" in names else [name for name in known if name in names]


def _ids(request: SandboxRequest, name: str) -> list[str]:
    """Read the ids of a bulk call. Raise SandboxRefusal."""
    ids = request.json_object().get(name)
    if not isinstance(ids, list) or not ids or not all(isinstance(one, str) for one in ids):
        raise WrongInput(f"{name} must be an array of ids.")
    if len(ids) > MAX_PAGE:
        raise WrongInput(f"{name} may hold {MAX_PAGE} ids at most, not {len(ids)}.")
    return ids


def seconds_of(query: Mapping[str, str], name: str, default: float, *, z_times: bool) -> float:
    """Read a time as epoch seconds: a date, or a time with an offset or in UTC. Raise SandboxRefusal."""
    if not (text := query.get(name, "")):
        return default
    try:
        at = datetime.fromisoformat(text if z_times else text.replace("Z", "?"))
    except ValueError as error:
        raise WrongInput(f"{name} must be a date, or a time with an offset +HH:mm or none.") from error
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def time_text(at: float | None) -> str | None:
    """Write epoch seconds as the vendor does: 2016-01-12T18:39:30Z."""
    return None if at is None else datetime.fromtimestamp(int(at), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def is_uuid(text: str) -> bool:
    """Say whether a text can be a task's id at all."""
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True
