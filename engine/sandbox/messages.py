"""A request and its answer as values, and the routes from one to the handler that makes the other.

The services and what stands before them (`traffic.py`) work on these. Nothing here knows a connection: a transport
makes the request, and treats the connection as the answer says.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal
from urllib.parse import unquote

import orjson
from msgspec import Struct, to_builtins
from multidict import MultiMapping
from yarl import URL

from engine.model.record import loads

_HTML = b"<!DOCTYPE html><html><head><title>Error</title></head><body><h1>Something went wrong</h1></body></html>"
_PARAMETER = re.compile(r"\{(\w+)(?::((?:[^{}]|\{[^{}]*\})+))?\}")


class SandboxRequest(Struct, frozen=True):
    """One request. `body` is None if it is larger than allowed; `params` are the parts of the path that have a name.

    `headers` are found in any case of their names.
    """

    method: str
    url: URL
    headers: Mapping[str, str]
    body: bytes | None = b""
    params: Mapping[str, str] = {}

    @property
    def query(self) -> MultiMapping[str]:
        """What stands behind the question mark."""
        return self.url.query

    def json_object(self) -> dict[str, Any]:
        """Return the body's object; nothing and null, also of a field, count as absent: the vendors' clients send them.

        Raise WrongInput.
        """
        try:
            body = loads(self.body) if self.body and not self.body.isspace() else None
        except orjson.JSONDecodeError as error:
            raise WrongInput(f"The body is not JSON: {error}.", is_json=False) from error
        if not isinstance(body, dict | None):
            raise WrongInput("The body must be an object.")
        return {key: value for key, value in (body or {}).items() if value is not None}


class SandboxAnswer(Struct):
    """One answer, to be sent `after_seconds`: whole, half of it, or nothing, which breaks the connection."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = {}
    sent: Literal["whole", "half", "nothing"] = "whole"
    after_seconds: float = 0.0


Handler = Callable[[SandboxRequest], SandboxAnswer]


class SandboxCall(Struct, frozen=True):
    """A request, what kind of call it is, and the handler that does its work."""

    kind: str
    request: SandboxRequest
    handler: Handler


class SandboxRefusal(Exception):
    """Ends a handler: the request is answered with an error in the vendor's form."""

    def __init__(self, answer: SandboxAnswer) -> None:
        super().__init__(answer.status)
        self.answer = answer


class WrongInput(Exception):
    """Ends a handler: a body or a parameter cannot be used. Each service has its own form of that error."""

    def __init__(self, message: str, *, is_json: bool = True) -> None:
        super().__init__(message)
        self.is_json = is_json


class Route(Struct, frozen=True):
    """One path of a service, such as `/tasks/{task_id}` or `/files/{n:[0-9]+}`, for one method."""

    method: str
    path: str
    kind: str
    handler: Handler


class Routes:
    """All paths of a service; where several fit, the first one counts."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes = [(re.compile(_PARAMETER.sub(_group, route.path)), route) for route in routes]

    def find(self, request: SandboxRequest) -> SandboxCall | int:
        """Return the call that a request makes; 404 or 405 if it makes none."""
        status = 404
        for pattern, route in self._routes:
            if (found := pattern.fullmatch(request.url.raw_path)) is None:
                continue
            if route.method == request.method:
                params = {name: unquote(value) for name, value in found.groupdict().items()}
                made = SandboxRequest(request.method, request.url, request.headers, request.body, params)
                return SandboxCall(route.kind, made, route.handler)
            status = 405
        return status


def _group(parameter: re.Match[str]) -> str:
    return f"(?P<{parameter[1]}>{parameter[2] or '[^/]+'})"


def int_of(values: Mapping[str, object], name: str, default: int, low: int, high: int) -> int:
    """Read a whole number from `low` to `high` from a query or a body. Raise WrongInput."""
    text = str(values.get(name, default))
    if not text.removeprefix("-").isdecimal() or not low <= int(text) <= high:
        raise WrongInput(f"{name} must be a whole number from {low} to {high}.")
    return int(text)


def flag_of(values: Mapping[str, object], name: str) -> bool | None:
    """Read true or false in any case; None if it is not given. Raise WrongInput."""
    text = str(values.get(name, "")).lower()
    if text not in ("", "true", "false"):
        raise WrongInput(f"{name} must be true or false.")
    return text == "true" if text else None


def json_answer(body: object, status: int = 200) -> SandboxAnswer:
    """Answer with JSON."""
    return SandboxAnswer(status, orjson.dumps(body, default=to_builtins), {"Content-Type": "application/json"})


def html_answer(status: int) -> SandboxAnswer:
    """Answer with a page such as something between client and service would send."""
    return SandboxAnswer(status, _HTML, {"Content-Type": "text/html; charset=utf-8"})
