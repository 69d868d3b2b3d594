"""Nothing to ask by: one record or an array of them goes in, and the answer is all that is ever said of it.

    POST /never/messages   [{...}, {...}]   201   [{"id", "status"}, {"status", "error": {"message"}}], in their order
    POST /never/messages   {...}            201   {"id", "status"}; 422 where the record is bad

A repeated call creates all again, and there is no list. Credentials: basic, with the key as the password.
"""

from collections.abc import Iterator
from typing import Any

from engine.sandbox.bulk.face import BulkFace, basic_password, json_value
from engine.sandbox.bulk.records import SentItem, ToldItem, told
from engine.sandbox.messages import Handler, SandboxAnswer, SandboxRequest, WrongInput, json_answer


class NeverFace(BulkFace):
    """Creates, and forgets who asked for it."""

    name = "never"
    calls = frozenset({"send"})
    deferrable = frozenset({"send"})

    def paths(self) -> Iterator[tuple[str, str, str, Handler]]:
        """Yield the paths of the head of this module."""
        yield "POST", "/messages", "send", self._send

    def key_of(self, request: SandboxRequest) -> str | None:
        """Return the access key that a request brings."""
        return basic_password(request)

    def _send(self, request: SandboxRequest) -> SandboxAnswer:
        body = json_value(request)
        if isinstance(body, list):
            if not body:
                raise WrongInput("There must be a message.")
            rows = [self._row(one) for one in self._taken(body)]
            return json_answer(rows, 201)
        one = next(iter(self._taken([body])), None)
        if one is None:
            return json_answer({}, 201)
        if one.fate.word == "created":
            return json_answer(self._row(one), 201)
        if self.unwritten.errors_inside:
            return json_answer(self._row(one))
        status = 429 if one.fate.word == "busy" else 422
        return self.error(status, one.fate.reason)

    def _taken(self, contents: list[Any]) -> list[ToldItem]:
        items = [SentItem(one) for one in contents]
        return told(items, self.records.take(items), self.unwritten, len(items))

    def _row(self, one: ToldItem) -> dict[str, object]:
        if one.fate.word == "created":
            named = {} if one.fate.id is None else {"id": one.fate.id}
            return {**named, "status": self.word("created")}
        return {"status": self.word(one.fate.word), "error": {"message": one.fate.reason}}
