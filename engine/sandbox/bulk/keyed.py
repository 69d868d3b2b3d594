"""An idempotency key: a call that brings one may be repeated for as long as the key is remembered.

    POST /key/orders   Idempotency-Key: ANY   {"orders": [{...}]}
    201                {"status": "done", "orders": [{"index", "id", "status"}],
                        "errors": [{"index", "code", "message"}]}

    no key                                     400
    the key again, with the same payload       the first answer, with `Idempotency-Replayed: true`
    the key again, with another payload        422
    the key again, while the first is at work  409

What is no more than refused is not remembered, so that it may be sent mended (`keys_keep_noes`: it is). Credentials:
`X-Api-Key: KEY`.
"""

from collections.abc import Iterator, Mapping

from msgspec import Struct

from engine.sandbox.bulk.face import BulkFace, list_under
from engine.sandbox.bulk.records import BatchRefused, SentItem, ToldItem, fingerprint, told
from engine.sandbox.messages import Handler, SandboxAnswer, SandboxRefusal, SandboxRequest, json_answer

_CODES = {400: "invalid", 401: "unauthorized", 409: "key_in_use", 422: "key_reused", 429: "rate_limited"}


class KeptAnswer(Struct, frozen=True):
    """The first answer under a key, since when, and to which payload."""

    at: float
    fingerprint: str
    answer: SandboxAnswer


class KeyFace(BulkFace):
    """Creates under an idempotency key."""

    name = "key"
    calls = frozenset({"create"})
    deferrable = frozenset({"create"})

    _kept: dict[str, KeptAnswer]

    def paths(self) -> Iterator[tuple[str, str, str, Handler]]:
        """Yield the paths of the head of this module."""
        self._kept = {}
        yield "POST", "/orders", "create", self._create

    def key_of(self, request: SandboxRequest) -> str | None:
        """Return the access key that a request brings."""
        return request.headers.get("X-Api-Key")

    def error(self, status: int, message: str, records: Mapping[int, str] | None = None) -> SandboxAnswer:
        """Word a refusal."""
        error: dict[str, object] = {"code": _CODES.get(status, "error"), "message": message}
        if records:
            error["orders"] = [{"index": at, "message": words} for at, words in records.items()]
        return json_answer({"error": error}, status)

    def _create(self, request: SandboxRequest) -> SandboxAnswer:
        key = request.headers.get("Idempotency-Key", "")
        if not key:
            raise self.refusal(400, "An Idempotency-Key is missing.")
        if self.agenda.awaits((self.name, key)):
            raise self.refusal(409, "A request with this Idempotency-Key is at work.")
        payload, kept = fingerprint(request.body or b""), self._kept.get(key)
        if kept is not None and self.clock() - kept.at < self._seconds:
            if kept.fingerprint != payload:
                raise self.refusal(422, "This Idempotency-Key was used with another payload.")
            return _copy(kept.answer, {"Idempotency-Replayed": "true"})
        try:
            answer = self._created(request, key)
        except BatchRefused as refused:
            answer = self.error(refused.status, refused.message, refused.records)
            if self.unwritten.errors_inside:
                answer.status = 200
            if self.bulk.keys_keep_noes:
                self._keep(key, payload, answer)
            raise SandboxRefusal(answer) from refused
        self._keep(key, payload, answer)
        return answer

    @property
    def _seconds(self) -> float:
        return self.unwritten.forgets_keys_after or self.bulk.key_seconds

    def _keep(self, key: str, payload: str, answer: SandboxAnswer) -> None:
        if not self.agenda.swallows:  # else it is as if it had never arrived
            self._kept[key] = KeptAnswer(self.clock(), payload, _copy(answer))

    def _created(self, request: SandboxRequest, key: str) -> SandboxAnswer:
        items = [SentItem(one) for one in list_under(request.json_object(), "orders")]
        shown = told(items, self.records.take(items, (self.name, key)), self.unwritten, len(items))
        body: dict[str, object] = {
            "status": self.word("done"),
            "orders": [self._order(one) for one in shown if one.fate.word == "created"],
        }
        if errors := [self._error(one) for one in shown if one.fate.word != "created"]:
            body["errors"] = errors
        return json_answer(body, 201)

    def _order(self, one: ToldItem) -> dict[str, object]:
        named = {} if one.fate.id is None else {"id": one.fate.id}
        return {"index": one.position, **named, "status": self.word("created")}

    def _error(self, one: ToldItem) -> dict[str, object]:
        return {"index": one.position, "code": self.word(one.fate.word), "message": one.fate.reason}


def _copy(answer: SandboxAnswer, headers: Mapping[str, str] | None = None) -> SandboxAnswer:
    """Return an answer of its own: what becomes of one on its way must not touch another."""
    return SandboxAnswer(answer.status, answer.body, {**answer.headers, **(headers or {})})
