"""An answer without ids: an array goes in, a number comes back, and a list finds the records by what they carry.

    POST /search/tasks                      [{"tag": MARK, "ref": ANY, "data": {...}}]
    202                                     {"accepted": 2, "rejected": [{"index", "ref", "message"}]}
    GET  /search/tasks?tag=MARK&page=1      {"items": [{"id", "tag", "ref", "data", "created_at"}], "next": URL or null}

The list is late by `reads.list_seconds`; the newest records come first. A repeated call creates all again. Credentials:
`api_key=KEY` in the query.
"""

from collections.abc import Iterator

from engine.sandbox.bulk.face import BulkFace, json_list
from engine.sandbox.bulk.records import BulkRecord, SentItem, ToldItem, told
from engine.sandbox.messages import Handler, SandboxAnswer, SandboxRequest, WrongInput, int_of, json_answer


class SearchFace(BulkFace):
    """Creates without a word of ids; lists by tag."""

    name = "search"
    calls = frozenset({"post", "list"})
    deferrable = frozenset({"post"})

    def paths(self) -> Iterator[tuple[str, str, str, Handler]]:
        """Yield the paths of the head of this module."""
        yield "POST", "/tasks", "post", self._post
        yield "GET", "/tasks", "list", self._list

    def key_of(self, request: SandboxRequest) -> str | None:
        """Return the access key that a request brings."""
        return request.query.get("api_key")

    def _post(self, request: SandboxRequest) -> SandboxAnswer:
        items = [_item(one) for one in json_list(request)]
        fates = self.records.take(items)
        rejected = [_rejected(one) for one in told(items, fates, self.unwritten) if one.fate.word != "created"]
        body: dict[str, object] = {"accepted": sum(fate.word == "created" for fate in fates)}
        return json_answer(body | ({"rejected": rejected} if rejected else {}), 202)

    def _list(self, request: SandboxRequest) -> SandboxAnswer:
        query, at = request.query, self.clock() - self.reads.list_seconds
        tag, ref = query.get("tag"), query.get("ref")
        page = int_of(query, "page", 1, 1, 10**9)
        size = int_of(query, "page_size", self.bulk.page, 1, self.bulk.page)
        found = [record for record in self.records if record.at <= at and _passes(record, tag, ref)][::-1]
        items = [one.item for one in found]
        fates = self.records.fates_of(found)
        shown = told(items, fates, self.unwritten, len(items))
        first, last = (page - 1) * size, page * size
        rows = [_row(one, found) for one in shown[first:last]]
        following = str(request.url.update_query(page=page + 1)) if last < len(shown) else None
        return json_answer({"items": rows, "page": page, "next": following})


def _item(one: object) -> SentItem:
    if not isinstance(one, dict):
        raise WrongInput("Each task must be an object.")
    return SentItem(one.get("data", one), sent=one)


def _passes(record: BulkRecord, tag: str | None, ref: str | None) -> bool:
    sent = record.item.sent
    return tag in (None, sent.get("tag")) and ref in (None, sent.get("ref"))


def _rejected(one: ToldItem) -> dict[str, object]:
    sent = one.item.sent or {}
    return {"index": one.position, "ref": sent.get("ref"), "message": one.fate.reason}


def _row(one: ToldItem, found: list[BulkRecord]) -> dict[str, object]:
    named = {} if one.fate.id is None else {"id": one.fate.id}
    created_at = found[one.position].at if one.position >= 0 else 0.0
    return {**named, **(one.item.sent or {}), "created_at": created_at}
