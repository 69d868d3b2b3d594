r"""Keys that are taken once and for all: pairs of lines go in, and a status for each comes back, in their order.

    POST /exists/records/_bulk   {"create": {"_id": KEY}}\n{...}\n ...        (NDJSON, with a line feed at the end)
    200                          {"took": 1, "errors": true, "items": [{"create": {"_id": KEY, "status": 201}}, ...]}

    201  created          409  there is a record with this key: error.type is version_conflict
    400  a bad record     429  too much to do, try this one again: error.type is rejected_execution
    GET /exists/records/_doc/{key}   {"found": true, "_source": {...}}, or 404 and {"found": false}

The key is the record's id. Credentials: `Authorization: ApiKey KEY`.
"""

from collections.abc import Iterator, Mapping

import orjson

from engine.model.record import loads
from engine.sandbox.bulk.face import BulkFace
from engine.sandbox.bulk.records import FateWord, SentItem, ToldItem, told
from engine.sandbox.messages import Handler, SandboxAnswer, SandboxRequest, WrongInput, json_answer

_STATUSES: dict[FateWord, int] = {"created": 201, "exists": 409, "busy": 429, "failed": 400}
_TYPES: dict[FateWord, str] = {"exists": "version_conflict", "busy": "rejected_execution", "failed": "parsing_error"}


class ExistsFace(BulkFace):
    """Creates what is not there yet."""

    name = "exists"
    keys = "unique"
    calls = frozenset({"bulk", "doc"})
    deferrable = frozenset({"bulk"})

    def paths(self) -> Iterator[tuple[str, str, str, Handler]]:
        """Yield the paths of the head of this module."""
        yield "POST", "/records/_bulk", "bulk", self._bulk_create
        yield "GET", "/records/_doc/{key}", "doc", self._doc

    def key_of(self, request: SandboxRequest) -> str | None:
        """Return the access key that a request brings."""
        return request.headers.get("Authorization", "").removeprefix("ApiKey ") or None

    def error(self, status: int, message: str, records: Mapping[int, str] | None = None) -> SandboxAnswer:
        """Word a refusal."""
        error: dict[str, object] = {"type": f"error_{status}", "reason": message}
        if records:
            error["failed_items"] = {str(at): {"reason": words} for at, words in records.items()}
        return json_answer({"error": error, "status": status}, status)

    def _bulk_create(self, request: SandboxRequest) -> SandboxAnswer:
        items = list(_pairs(request.body or b""))
        shown = told(items, self.records.take(items), self.unwritten, len(items))
        errors = any(one.fate.word != "created" for one in shown)
        return json_answer({"took": 1, "errors": errors, "items": [self._told(one) for one in shown]})

    def _told(self, one: ToldItem) -> dict[str, object]:
        fate = one.fate
        body: dict[str, object] = {"_id": one.item.key, "status": _STATUSES[fate.word]}
        if fate.word == "created":
            body |= {"_id": fate.id, "result": self.word("created")}
        else:
            reason = fate.reason or f"[{one.item.key}]: there is a record already"
            body["error"] = {"type": self.word(_TYPES[fate.word]), "reason": reason}
        return {"create": body}

    def _doc(self, request: SandboxRequest) -> SandboxAnswer:
        key = request.params["key"]
        found = self.records.by_key(key, self.clock() - self.reads.single_seconds)
        if found is None:
            return json_answer({"_id": key, "found": False}, 404)
        return json_answer({"_id": key, "found": True, "_source": found.item.content})


def _pairs(body: bytes) -> Iterator[SentItem]:
    if not body.endswith(b"\n"):
        raise WrongInput("The bulk request must be terminated by a newline.")
    lines = body[:-1].split(b"\n")
    if len(lines) % 2:
        raise WrongInput("There is an action without a record.")
    for number in range(0, len(lines), 2):
        try:
            action, record = loads(lines[number]), loads(lines[number + 1])
        except orjson.JSONDecodeError as error:
            raise WrongInput(f"Line {number + 1} or the next one is not JSON: {error}.", is_json=False) from error
        key = action.get("create", {}).get("_id") if isinstance(action, dict) and len(action) == 1 else None
        if not isinstance(key, str) or not key:
            raise WrongInput(f'Line {number + 1} must be {{"create": {{"_id": KEY}}}}.')
        yield SentItem(record, key)
