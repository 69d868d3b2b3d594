"""What the six faces share: who may call, how a refusal is worded, and what stands behind them.

A face is one way in which bulk APIs answer. It knows nothing of any description of it: what it takes and what it says
is written down here and in the modules of the faces alone.
"""

import base64
import binascii
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, ClassVar

import orjson

from engine.model.record import loads
from engine.sandbox.bulk.records import BatchRefused, BulkRecords, FaceParts, KeyUse
from engine.sandbox.messages import (
    Handler,
    Route,
    SandboxAnswer,
    SandboxRefusal,
    SandboxRequest,
    WrongInput,
    json_answer,
)

OK = 200


class BulkFace(ABC):
    """One face; its paths begin with its name."""

    name: ClassVar[str]
    keys: ClassVar[KeyUse] = "none"
    calls: ClassVar[frozenset[str]]
    """Kinds of its calls, besides `look`."""
    deferrable: ClassVar[frozenset[str]]
    """Those that create or release."""
    outside: ClassVar[frozenset[str]] = frozenset()
    """Those that go to a store."""

    def __init__(self, parts: FaceParts) -> None:
        self.behaviour, self.bulk, self.reads = parts.behaviour, parts.behaviour.bulk, parts.behaviour.reads
        self.unwritten = self.bulk.unwritten
        self.agenda, self.clock = parts.agenda, parts.clock
        self.records = BulkRecords(self.name, self.keys, parts)

    @abstractmethod
    def paths(self) -> Iterator[tuple[str, str, str, Handler]]:
        """Yield (method, path below the face, kind of call, handler)."""

    def routes(self) -> Iterator[Route]:
        """Yield all paths of the face, each behind the check of who calls."""
        for method, path, kind, handler in self.paths():
            yield Route(method, f"/{self.name}{path}", kind, partial(self._handle, handler))
        for path in ("", "/"):
            yield Route("GET", f"/{self.name}{path}", "look", partial(self._handle, self._look))

    def advance(self) -> bool:
        """Do what is due; True if more may be due at once."""
        return False

    def word(self, word: str) -> str:
        """Return the status word that stands for one of ours."""
        return self.unwritten.words.get(word, word)

    # What may differ from face to face

    def key_of(self, request: SandboxRequest) -> str | None:
        """Return the access key that a request brings; a bearer token here."""
        return request.headers.get("Authorization", "").removeprefix("Bearer ") or None

    def may_call(self, request: SandboxRequest) -> bool:
        """Say whether whoever sent a request is known."""
        return self.key_of(request) in self.behaviour.access_keys

    def error(self, status: int, message: str, records: Mapping[int, str] | None = None) -> SandboxAnswer:
        """Word a refusal; `records`: position → what is wrong with that record."""
        error: dict[str, Any] = {"code": f"e{status}", "message": message}
        if records:
            error["records"] = {str(at): {"message": words} for at, words in records.items()}
        return json_answer({"error": error}, status)

    # What is the same for all

    def refusal(self, status: int, message: str) -> SandboxRefusal:
        """Make a refusal to raise."""
        return SandboxRefusal(self.error(status, message))

    def _look(self, _: SandboxRequest) -> SandboxAnswer:
        return json_answer({"service": f"bulk sandbox, {self.name}", "records": sum(1 for _ in self.records)})

    def _handle(self, handler: Handler, request: SandboxRequest) -> SandboxAnswer:
        if not self.may_call(request):
            raise self.refusal(401, "Who are you? The credentials are missing or unknown.")
        return self.guarded(handler, request)

    def guarded(self, handler: Handler, request: SandboxRequest) -> SandboxAnswer:
        """Have a request handled, and word what its body lacks."""
        if request.body is None:
            raise self.refusal(413, f"A body may have {self.behaviour.max_body_bytes} bytes at most.")
        try:
            return handler(request)
        except WrongInput as error:
            raise self.refusal(400, str(error)) from error
        except BatchRefused as refused:
            answer = self.error(refused.status, refused.message, refused.records)
            if self.unwritten.errors_inside:
                answer.status = OK
            raise SandboxRefusal(answer) from refused


def json_list(request: SandboxRequest) -> list[Any]:
    """Return the body's array, one that is not empty. Raise WrongInput."""
    found = json_value(request)
    if not isinstance(found, list) or not found:
        raise WrongInput("The body must be an array of records.")
    return found


def list_under(body: Mapping[str, Any], name: str) -> list[Any]:
    """Return the array under a name of a body, one that is not empty. Raise WrongInput."""
    found = body.get(name)
    if not isinstance(found, list) or not found:
        raise WrongInput(f"{name} must be an array of records.")
    return found


def json_value(request: SandboxRequest) -> Any:
    """Return the body as JSON. Raise WrongInput."""
    try:
        return loads(request.body or b"")
    except orjson.JSONDecodeError as error:
        raise WrongInput(f"The body is not JSON: {error}.", is_json=False) from error


def basic_password(request: SandboxRequest) -> str | None:
    """Return the password of basic credentials, whoever's they are."""
    scheme, _, coded = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        return base64.b64decode(coded, validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return None
