"""Values enter, HTTP answers in Sama's shapes leave; query parameters enter, checked values leave.

Sama documents `{"errors": [{"type", "message"}]}`, where `type` is a number or a name. The names other than
InvalidInputSchema are this sandbox's choice.
"""

from collections.abc import Mapping

import orjson
from aiohttp import web


class SamaError(Exception):
    """A request that Sama refuses."""

    def __init__(self, status: int, message: str, type: int | str | None = None) -> None:  # noqa: A002 - the wire's name
        """Without a `type` the status stands in its place, as the vendor does for 401."""
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = status if type is None else type

    def answer(self) -> web.Response:
        """Return the error as the vendor words it."""
        return error_answer(self.status, self.message, self.type)


def json_answer(body: object, status: int = 200) -> web.Response:
    """Answer with JSON."""
    return web.Response(body=orjson.dumps(body), status=status, content_type="application/json")


def error_answer(status: int, message: str, type: int | str) -> web.Response:  # noqa: A002 - the wire's name
    """Answer with one error in the vendor's shape."""
    return json_answer({"errors": [{"type": type, "message": message}]}, status)


def s3_error_answer(status: int, code: str, message: str) -> web.Response:
    """Answer with an error in the shape of S3."""
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>'
    return web.Response(text=body, status=status, content_type="application/xml")


async def json_body(request: web.Request) -> dict[str, object]:
    """Read an object; no body at all is an empty one. Raise ApiError."""
    raw = await request.read()
    if not raw.strip():
        return {}
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise SamaError(400, f"The body is not JSON: {error}.", "InvalidJson") from error
    if not isinstance(body, dict):
        raise SamaError(400, "The body must be an object.", "InvalidParameter")
    return {key: value for key, value in body.items() if value is not None}  # the vendor's client sends nulls


def int_parameter(values: Mapping[str, object], name: str, default: int, low: int, high: int) -> int:
    """Read a whole number between `low` and `high` from a query or a body. Raise ApiError."""
    value = values.get(name, default)
    try:
        number = int(str(value))
    except ValueError:
        number = low - 1
    if not low <= number <= high:
        raise SamaError(400, f"{name} must be a whole number from {low} to {high}.", "InvalidParameter")
    return number


def flag_parameter(values: Mapping[str, object], name: str, *, default: bool = False) -> bool:
    """Read true or false in any case. Raise ApiError."""
    value = str(values.get(name, default)).lower()
    if value not in ("true", "false"):
        raise SamaError(400, f"{name} must be true or false.", "InvalidParameter")
    return value == "true"


def text_parameter(values: Mapping[str, object], name: str) -> str | None:
    """Read a text; empty or absent is None."""
    value = values.get(name)
    return None if value in (None, "") else str(value)
