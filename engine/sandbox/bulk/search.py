"""An answer without ids: an array goes in, a word for each comes back, and a list finds records by what they carry.

    POST /search/tasks                  [{"tag": MARK, "ref": ANY, "data": {...}}]
    202                                 {"accepted": 1, "results": [{"status": "accepted"},
                                                                    {"status": "rejected", "message"}]}
    GET  /search/tasks?tag=MARK&page=1  {"items": [{"id", "tag", "ref", "data", "created_at"}], "next": URL or null}

The list is late by `reads.list_seconds`, and the newest records come first. A repeated call creates all again. The
journal calls a record by its `ref`, where it has one: it is all that the answer leaves to call it by. Credentials:
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
        rows = [self._told(one) for one in told(items, fates, self.unwritten, len(items))]
        return json_answer({"accepted": sum(fate.word == "created" for fate in fates), "results": rows}, 202)

    def _told(self, one: ToldItem) -> dict[str, object]:
        if one.fate.word == "created":
            return {"status": self.word("accepted")}
        return {"status": self.word("busy" if one.fate.word == "busy" else "rejected"), "message": one.fate.reason}

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
        unsaid = request.url.without_query_params("api_key")  # a link is no place for a secret
        following = str(unsaid.update_query(page=page + 1)) if last < len(shown) else None
        return json_answer({"items": rows, "page": page, "next": following})


def _item(one: object) -> SentItem:
    if not isinstance(one, dict):
        raise WrongInput("Each task must be an object.")
    ref = one.get("ref")
    return SentItem(one.get("data", one), ref if isinstance(ref, str) else "", one)


def _passes(record: BulkRecord, tag: str | None, ref: str | None) -> bool:
    sent = record.item.sent
    return tag in (None, sent.get("tag")) and ref in (None, sent.get("ref"))


def _row(one: ToldItem, found: list[BulkRecord]) -> dict[str, object]:
    named = {} if one.fate.id is None else {"id": one.fate.id}
    created_at = found[one.position].at if one.position >= 0 else 0.0
    return {**named, **(one.item.sent or {}), "created_at": created_at}
