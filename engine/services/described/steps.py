"""One step of a description: values in, a call out; an answer in, the values that the step takes out. And pages.

A value in the path of a URL is one part of it, whatever it holds; only where a URL begins with a value, that value is
the address itself. What a step takes is another's: it is bounded here, before it goes into a URL, a header or the
ledger.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit

import orjson
from msgspec.structs import replace

from engine.model.errors import UnexpectedAnswer
from engine.services.base import JSON_HEADERS, Answer, Call
from engine.services.decoding import MOST_ID_CHARACTERS, decode
from engine.services.described.paths import MISSING, compiled, text_of_value
from engine.services.described.settings import DescribedSettings, PagesTable, StepTable
from engine.services.described.texts import JsonText, Text, clear, form_of

FORM_HEADERS = {"Content-Type": "application/x-www-form-urlencoded"}

MOST_PAGES = 100_000
"""Of one list; a service that always has one more shows the same ones again."""

_MOST_CHARACTERS = 8_000
"""Of a value that a step takes: a presigned URL has up to two thousand."""
_HEADER = "header."
_LEADS_ELSEWHERE = frozenset({"", ".", ".."})
_NO_CURSOR = (MISSING, None, "", "null", False)
"""`null` as a text is how a header says it."""
_LINK = re.compile(r"<([^<>]{1,8000})>([^<>]{0,500})")
_NEXT = re.compile(r"rel\s*=\s*\"?[^\";,]{0,100}\bnext\b", re.IGNORECASE)


class Step:
    """A step, compiled. `kind` is its name in the description, and that of its calls.

    Raises:
        ValueError: a text of it cannot be read.
    """

    def __init__(self, kind: str, table: StepTable, settings: DescribedSettings) -> None:
        self.kind = kind
        self.payload = table.payload
        self.method, _, address = table.call.strip().partition(" ")
        self._base_url = settings.base_url.rstrip("/")
        self._leading, self._address = _address(address.strip(), f"{kind}.call")
        self._query = {
            name: Text(text_of_value(value), f"{kind}.query.{name}") for name, value in clear(table.query).items()
        }
        # Headers of every call to the service go nowhere else: one may be a key.
        usual = {} if table.without_credentials else clear(settings.headers)
        headers = without_case({**usual, **clear(table.headers)})
        self._headers = {name: Text(value, f"{kind}.headers.{name}") for name, value in headers.items()}
        self._json = None if table.json is None else JsonText(clear(table.json), f"{kind}.json")
        form = clear(table.form)
        self._form = JsonText(form, f"{kind}.form") if form else None
        self._take = [(name, path.removesuffix("?").strip(), path.endswith("?")) for name, path in table.take.items()]
        self.authenticated = not table.without_credentials
        texts = [self._address, *self._query.values(), *self._headers.values()]
        self.needs = frozenset().union(
            {self._leading} if self._leading else (), *(text.names for text in texts), *self._bodies_need()
        )
        """Names whose values it needs."""

    def _bodies_need(self) -> list[frozenset[str]]:
        return [body.names for body in (self._json, self._form) if body is not None]

    @property
    def takes(self) -> frozenset[str]:
        """Names of the values that it takes."""
        return frozenset(name for name, _, _ in self._take)

    def call(self, values: Mapping[str, str]) -> Call:
        """Return its call; what makes it repeatable, and the payload, is up to whoever makes it.

        Raises:
            UnexpectedAnswer: a value that was taken cannot stand where it is wanted, or there is none.
        """
        try:
            headers = {name: _for_header(text.fill(values), name) for name, text in self._headers.items()}
            body: bytes | None = None
            if self._json is not None:
                body, headers = orjson.dumps(self._json.fill(values)), without_case({**JSON_HEADERS, **headers})
            elif self._form is not None:
                body, headers = form_of(self._form.fill(values)), without_case({**FORM_HEADERS, **headers})
            query = {name: text.fill(values) for name, text in self._query.items()}
            url = self._url(values)
        except KeyError as error:
            words = f"{self.kind} needs ${{{error.args[0]}}}, which no answer has brought"
            raise UnexpectedAnswer(words, call=self.kind) from None
        return Call(
            self.kind, self.method, url, query=query, headers=headers, body=body, authenticated=self.authenticated
        )

    def _url(self, values: Mapping[str, str]) -> str:
        rest = self._address.fill(values, _path_part)
        if self._leading:
            return linked(self._base_url, values[self._leading]) + rest
        return joined(self._base_url, rest)

    def taken(self, answer: Answer) -> dict[str, str]:
        """Return the values that the step takes out of an answer, by name; optional ones may be left out.

        Raises:
            UnexpectedAnswer: another one is not there, or it is no text, number or truth value.
        """
        body: Any = MISSING
        found: dict[str, str] = {}
        for name, path, optional in self._take:
            if path.startswith(_HEADER):
                value: Any = answer.headers.get(path.removeprefix(_HEADER), MISSING)
            elif not path:
                value = _whole_text(answer)
            else:
                body = decode(answer, Any, call=self.kind) if body is MISSING else body
                value = compiled(path)(body)
            if value in (MISSING, None, ""):
                if optional:
                    continue
                raise UnexpectedAnswer(f"the answer has no {path!r}", call=self.kind, status=answer.status)
            if not isinstance(value, str | int | float):
                raise UnexpectedAnswer(f"what stands at {path!r} is no single value", call=self.kind)
            text = text_of_value(value)
            most = MOST_ID_CHARACTERS if name == "id" else _MOST_CHARACTERS
            if len(text) > most or not text.isprintable():
                raise UnexpectedAnswer(f"what stands at {path!r} is too long, or no plain text", call=self.kind)
            found[name] = text
        return found


def _whole_text(answer: Answer) -> str:
    """Return an answer as a text: what a JSON text holds, else what came, for a name may look like a number."""
    text = answer.body.decode("utf-8", "replace").strip()
    return decode(answer, str) if text.startswith('"') else text


def without_case(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers, of those that differ only in the case of letters the last one."""
    last = {name.lower(): name for name in headers}
    return {name: value for name, value in headers.items() if last[name.lower()] == name}


def _address(text: str, place: str) -> tuple[str, Text]:
    """Return the name that a URL begins with, "" if it begins otherwise, and the rest."""
    if text.startswith("${"):
        name, _, rest = text.removeprefix("${").partition("}")
        return name, Text(rest, place)
    return "", Text(text, place)


def joined(base_url: str, address: str) -> str:
    """Return an address as a URL: a whole one as it is, a path from `base_url` on."""
    if address.startswith(("https://", "http://")):
        return address
    return f"{base_url.rstrip('/')}/{address.lstrip('/')}" if address else base_url


def linked(base_url: str, address: str) -> str:
    """Return an address that a service gives: a path that has the path of `base_url` already gets it once."""
    base = urlsplit(base_url)
    if base.path.strip("/") and address.startswith(f"{base.path.rstrip('/')}/"):
        return f"{base.scheme}://{base.netloc}{address}"
    return joined(base_url, address)


def _path_part(value: str) -> str:
    """Return how a value stands in the path of a URL, as one part.

    Raises:
        UnexpectedAnswer: it would lead elsewhere.
    """
    if value in _LEADS_ELSEWHERE:
        raise UnexpectedAnswer(f"{value!r} is not the name of anything that can be asked about")
    return quote(value, safe="")


def _for_header(value: str, name: str) -> str:
    """Return a value that may stand in a header.

    Raises:
        UnexpectedAnswer: it would end the header.
    """
    if not value.isprintable():
        raise UnexpectedAnswer(f"the value for the header {name} is no plain text")
    return value


class PageWalk:
    """The calls that bring a list page by page: `first`, then what `next_call` returns."""

    def __init__(self, table: PagesTable | None, call: Call, base_url: str) -> None:
        self._table = table
        self._base_url = base_url
        self._call = call
        self._pages = self._items = 0
        self._cursors: set[str] = set()
        """Those that were followed: a second time, one leads round in a circle."""
        self.first = call
        if table is not None and (table.page or table.offset):
            self.first = self._with(table.page or table.offset, str(table.first_page if table.page else 0))

    @property
    def stop_status(self) -> tuple[int, ...]:
        """Status of a refusal that says that there is no further page."""
        return self._table.stop_status if self._table else ()

    def next_call(self, answer: Answer, body: Any, items: int) -> Call | None:
        """Return the call for the page behind one that had so many items; None if that was the last.

        Raises:
            UnexpectedAnswer: the pages have no end.
        """
        table = self._table
        if table is None or (table.more and compiled(table.more)(body) in (MISSING, None, False, "", "false", 0)):
            return None
        self._pages += 1
        self._items += items
        if self._pages >= MOST_PAGES:
            raise UnexpectedAnswer("its pages have no end", call=self._call.kind)
        if table.next or table.next_header:
            return self._linked(answer, body)
        if table.page or table.offset:
            if not items or (table.size is not None and items < table.size):
                return None
            number = table.first_page + self._pages if table.page else self._items
            return self._with(table.page or table.offset, str(number))
        return self._behind_cursor(answer, body, items)

    def _linked(self, answer: Answer, body: Any) -> Call | None:
        assert self._table is not None  # noqa: S101 - whoever calls has asked
        if self._table.next:
            url = compiled(self._table.next)(body)
        else:
            url = _next_link(answer.headers.get(self._table.next_header, ""))
        if url in _NO_CURSOR:
            return None
        if not isinstance(url, str) or url in self._cursors:
            raise UnexpectedAnswer("its link to the next page leads nowhere", call=self._call.kind)
        self._cursors.add(url)
        return replace(self._call, url=linked(self._base_url, url), query={})

    def _behind_cursor(self, answer: Answer, body: Any, items: int) -> Call | None:
        assert self._table is not None  # noqa: S101 - whoever calls has asked
        if self._table.cursor_header:
            cursor: Any = answer.headers.get(self._table.cursor_header, "")
        else:
            cursor = compiled(self._table.cursor)(body) if self._table.cursor else MISSING
        if cursor in _NO_CURSOR:
            return None
        text = text_of_value(cursor)
        if text in self._cursors and not items:
            return None
        if text in self._cursors or len(text) > _MOST_CHARACTERS or not text.isprintable():
            raise UnexpectedAnswer("what leads to its next page leads nowhere", call=self._call.kind)
        self._cursors.add(text)
        return self._with(self._table.cursor_query, text)

    def _with(self, name: str, value: str) -> Call:
        return replace(self._call, query={**self._call.query, name: value})


def _next_link(header: str) -> str:
    """Return the URL of the next page by a `Link` header (RFC 8288); "" if it names none."""
    return next((url for url, rest in _LINK.findall(header) if _NEXT.search(rest)), "")
