"""An upsert: an array of inputs goes in, each with its key, and what became of it comes back under that key.

    POST /safe/records/batch/upsert   {"inputs": [{"id": KEY, "properties": {...}}]}
    200, or 207 where some failed     {"status": "complete",
                                       "results": [{"id", "key", "new", "properties"}],
                                       "errors": [{"category", "message", "context": {"key": [KEY]}}]}
    GET  /safe/records/{key}          the record, 404 where there is none

A call may be repeated: a record that is there is written over with the same. The order of results is nobody's promise.
Credentials: `Authorization: Bearer KEY`.
"""

from collections.abc import Iterator, Mapping

from engine.sandbox.bulk.face import BulkFace, list_under
from engine.sandbox.bulk.records import SentItem, ToldItem, told
from engine.sandbox.messages import Handler, SandboxAnswer, SandboxRequest, WrongInput, json_answer

_CATEGORIES = {400: "VALIDATION_ERROR", 401: "INVALID_AUTHENTICATION", 404: "OBJECT_NOT_FOUND", 429: "RATE_LIMITS"}


class SafeFace(BulkFace):
    """Upserts by key."""

    name = "safe"
    keys = "upsert"
    calls = frozenset({"upsert", "record"})
    deferrable = frozenset({"upsert"})

    def paths(self) -> Iterator[tuple[str, str, str, Handler]]:
        """Yield the paths of the head of this module."""
        yield "POST", "/records/batch/upsert", "upsert", self._upsert
        yield "GET", "/records/{key}", "record", self._record

    def error(self, status: int, message: str, records: Mapping[int, str] | None = None) -> SandboxAnswer:
        """Word a refusal."""
        body: dict[str, object] = {
            "status": "error",
            "category": _CATEGORIES.get(status, "ERROR"),
            "message": message,
        }
        if records:
            body["inputs"] = {str(at): {"message": words} for at, words in records.items()}
        return json_answer(body, status)

    def _upsert(self, request: SandboxRequest) -> SandboxAnswer:
        items = [_item(one) for one in list_under(request.json_object(), "inputs")]
        shown = told(items, self.records.take(items), self.unwritten, len(items))
        good = [one for one in shown if one.fate.word in {"created", "updated"}]
        errors = [self._error(one) for one in shown if one.fate.word in {"failed", "busy"}]
        body: dict[str, object] = {"status": self.word("complete"), "results": [self._result(one) for one in good]}
        if errors:
            body |= {"numErrors": len(errors), "errors": errors}
        return json_answer(body, 207 if errors else 200)

    def _result(self, one: ToldItem) -> dict[str, object]:
        named = {} if one.fate.id is None else {"id": one.fate.id}
        return {**named, "key": one.item.key, "new": one.fate.word == "created", "properties": one.item.content}

    def _error(self, one: ToldItem) -> dict[str, object]:
        category = "BUSY" if one.fate.word == "busy" else "VALIDATION_ERROR"
        return {
            "status": "error",
            "category": self.word(category),
            "message": one.fate.reason,
            "context": {"key": [one.item.key]},
        }

    def _record(self, request: SandboxRequest) -> SandboxAnswer:
        found = self.records.by_key(request.params["key"], self.clock() - self.reads.single_seconds)
        if found is None:
            raise self.refusal(404, "There is no such record.")
        return json_answer({"id": found.id, "key": found.item.key, "properties": found.item.content})


def _item(one: object) -> SentItem:
    if not isinstance(one, dict) or not isinstance(one.get("id"), str) or not one["id"]:
        raise WrongInput("Each input must be an object with an id, its key.")
    return SentItem(one.get("properties"), one["id"], one)
