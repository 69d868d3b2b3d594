"""Elasticsearch and OpenSearch: documents by `_bulk`, each with its own status in a 200.

Written from: elastic.co, "Bulk index or delete documents" (operations bulk, bulk-1, and docs-bulk of 7.17 to 8.12);
docs.opensearch.org, "Bulk API" (an `_id` may have 512 bytes); the parsers and `IndexingPressure` in the repositories
elastic/elasticsearch and opensearch-project/OpenSearch for the words of errors; "HTTP 429" pages of Elastic and AWS.

Guesses: which items of a request are rejected when the write queue is full (here each so-many-th, at its first tries);
that a `filter_path` keeps the order of items; the reason of a document whose `_id` is too long.

The vendors' clients, elasticsearch 9.5.1 and opensearch-py 3.2.0, load documents into it.
"""

from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Literal
from uuid import uuid4

import orjson

from engine.model.settings import Section
from engine.sandbox.behaviour import Behaviour
from engine.sandbox.journal import Journal
from engine.sandbox.messages import SandboxAnswer, SandboxRequest, WrongInput, json_answer
from engine.sandbox.traffic import CallKinds, ReadBody, Sleep
from engine.sandbox.vendors.standin import VendorService

CALLS = CallKinds(frozenset({"bulk", "count", "document", "info"}), deferrable=frozenset({"bulk"}))
MOST_ID_BYTES = 512  # the vendors' limit
FieldType = Literal["boolean", "double", "keyword", "long"]
_PYTHON: Mapping[str, tuple[type, ...]] = {"boolean": (bool,), "double": (int, float), "long": (int,)}
_ERRORS = {400: "illegal_argument_exception", 401: "security_exception", 413: "content_too_long_exception"}
_ERRORS |= {429: "es_rejected_execution_exception", 503: "unavailable_shards_exception"}


class ElasticsearchSwitches(Section, frozen=True):
    """What is there, and how it behaves.

    fields         a mapping of the index: a value of another type is told off
    strict         a field that the mapping lacks is told off, too (`dynamic: strict`)
    indices        those that exist; (): each that is named is made
    busy_every     each so-many-th document is turned away with 429; 0: none
    busy_tries     how often that happens to it
    open_search    errors have OpenSearch's names
    """

    fields: Mapping[str, FieldType] = {}
    strict: bool = False
    indices: tuple[str, ...] = ()
    busy_every: int = 0
    busy_tries: int = 1
    open_search: bool = False


class ElasticsearchStandIn(VendorService):
    """Serves `_bulk`, `_count` and single documents."""

    name = "Elasticsearch"

    def __init__(
        self,
        behaviour: Behaviour,
        journal: Journal,
        clock: Callable[[], float],
        switches: ElasticsearchSwitches = ElasticsearchSwitches(),  # noqa: B008 - a value
    ) -> None:
        """Raise BehaviourError for what cannot be served."""
        rows = [
            ("GET", "/", "info", self._info),
            ("POST", "/_bulk", "bulk", self._bulk),
            ("PUT", "/_bulk", "bulk", self._bulk),
            ("POST", "/{index}/_bulk", "bulk", self._bulk),
            ("PUT", "/{index}/_bulk", "bulk", self._bulk),
            ("GET", "/{index}/_count", "count", self._count),
            ("GET", "/{index}/_doc/{id}", "document", self._document),
        ]
        super().__init__(behaviour, journal, clock, CALLS, rows)
        self._switches = switches
        self.documents: dict[tuple[str, str], Any] = {}
        self._turned_away: dict[tuple[str, str], int] = {}
        self._seen = 0

    async def answer(self, request: SandboxRequest, read: ReadBody, sleep: Sleep) -> SandboxAnswer:
        """Answer a request, with the header by which Elastic's clients know that it is Elasticsearch."""
        answer = await super().answer(request, read, sleep)
        if not self._switches.open_search:
            answer.headers["X-Elastic-Product"] = "Elasticsearch"
        return answer

    def error(self, kind: str, status: int, message: str) -> SandboxAnswer:
        """Word an error as `{"error": {"root_cause", "type", "reason"}, "status"}`."""
        del kind
        cause = {"type": self._type(_ERRORS.get(status, "exception")), "reason": message}
        return json_answer({"error": {"root_cause": [cause], **cause}, "status": status}, status)

    def refused(self, request: SandboxRequest) -> SandboxAnswer | None:
        """Take `Authorization: ApiKey KEY`, or HTTP basic with the key as the password."""
        given = request.headers.get("Authorization", "")
        if any(given == f"ApiKey {key}" or _is_basic(given, key) for key in self.behaviour.access_keys):
            return None
        return self.error(
            "", 401, f"unable to authenticate with provided credentials for REST request [{request.url.path}]"
        )

    def _type(self, name: str) -> str:
        if not self._switches.open_search:
            return name
        return {"document_parsing_exception": "mapper_parsing_exception"}.get(name, name.replace("es_", "", 1))

    def _info(self, _: SandboxRequest) -> SandboxAnswer:
        return json_answer({"name": "sandbox", "cluster_name": "sandbox", "tagline": "You Know, for Search"})

    def _count(self, request: SandboxRequest) -> SandboxAnswer:
        index = request.params["index"]
        return json_answer({"count": sum(one == index for one, _ in self.documents)})

    def _document(self, request: SandboxRequest) -> SandboxAnswer:
        index, key = request.params["index"], request.params["id"]
        found = {"_index": index, "_id": key}
        if (index, key) not in self.documents:
            return json_answer({**found, "found": False}, 404)
        return json_answer({**found, "found": True, "_source": self.documents[index, key]})

    def _bulk(self, request: SandboxRequest) -> SandboxAnswer:
        actions = _actions(request)
        done: list[dict[str, Any]] = []

        def work(_: float) -> None:
            done.extend({action: self._do(action, *rest)} for action, *rest in actions)

        self.traffic.agenda.do(request.url.path, work)
        body = {"took": 1, "errors": any("error" in item for one in done for item in one.values()), "items": done}
        paths = request.query.get("filter_path")
        return json_answer(_filtered(body, [path.split(".") for path in paths.split(",")]) if paths else body)

    def _do(self, action: str, index: str, key: str, source: Any) -> dict[str, Any]:
        named = {"_index": index, "_id": key}
        status, kind, reason = self._judged(action, index, key, source)
        if kind:
            error = {"type": self._type(kind), "reason": reason, "index": index, "shard": "0"}
            return {**named, "status": status, "error": error}
        self.documents[index, key] = source
        self.write(source, index, key, len(self.documents) - 1, "task" if status == HTTPStatus.CREATED else "run")
        result = "created" if status == 201 else "updated"  # noqa: PLR2004 - HTTP: created
        return {
            **named,
            "_version": 1,
            "result": result,
            "_seq_no": self.number(),
            "_primary_term": 1,
            "status": status,
        }

    def _judged(self, action: str, index: str, key: str, source: Any) -> tuple[int, str, str]:
        """Return the status of an item, the type of its error ("": none) and the reason."""
        if self._switches.indices and index not in self._switches.indices:
            return 404, "index_not_found_exception", f"no such index [{index}]"
        if len(key.encode()) > MOST_ID_BYTES:
            return 400, "illegal_argument_exception", f"id is too long, must be no longer than {MOST_ID_BYTES} bytes"
        if self._is_busy(index, key):
            return 429, "es_rejected_execution_exception", "rejected execution of coordinating operation"
        known = (index, key) in self.documents
        if known and action == "create":
            reason = f"[{key}]: version conflict, document already exists (current version [1])"
            return 409, "version_conflict_engine_exception", reason
        wrong = self.failure(source) or self._misfit(key, source)
        return (400, *wrong) if wrong is not None else (200 if known else 201, "", "")

    def _is_busy(self, index: str, key: str) -> bool:
        if not self._switches.busy_every:
            return False
        if (index, key) not in self._turned_away:
            self._seen += 1
            tries = 0 if self._seen % self._switches.busy_every else self._switches.busy_tries
            self._turned_away[index, key] = tries
        left = self._turned_away[index, key]
        self._turned_away[index, key] = max(0, left - 1)
        return left > 0

    def _misfit(self, key: str, source: Any) -> tuple[str, str] | None:
        for name, value in source.items():
            kind = self._switches.fields.get(name)
            if kind is None and self._switches.strict:
                reason = f"[1:1] mapping set to strict, dynamic introduction of [{name}] within [_doc] is not allowed"
                return "strict_dynamic_mapping_exception", reason
            if kind is not None and value is not None and not _fits(kind, value):
                reason = f"[1:1] failed to parse field [{name}] of type [{kind}] in document with id '{key}'"
                return "document_parsing_exception", reason
        return None


def _is_basic(given: str, key: str) -> bool:
    return given == "Basic " + b64encode(f"elastic:{key}".encode()).decode()


def _fits(kind: FieldType, value: Any) -> bool:
    if kind == "keyword":
        return not isinstance(value, dict)
    return isinstance(value, _PYTHON[kind]) and (kind == "boolean" or not isinstance(value, bool))


def _actions(request: SandboxRequest) -> Sequence[tuple[str, str, str, Any]]:
    """Return action, index, id and source of each pair of lines. Raise WrongInput, by which nothing is done."""
    body = request.body or b""
    if not body.endswith(b"\n"):
        raise WrongInput("The bulk request must be terminated by a newline [\\n]")
    lines = [line for line in body.split(b"\n") if line]
    actions = []
    for number in range(0, len(lines), 2):
        try:
            head = orjson.loads(lines[number])
            ((action, named),) = head.items()
            source = orjson.loads(lines[number + 1])
        except (orjson.JSONDecodeError, AttributeError, ValueError, IndexError):
            raise WrongInput(f"Malformed action/metadata line [{number + 1}]") from None
        if action not in ("create", "index") or not isinstance(source, dict):
            raise WrongInput(f"Malformed action/metadata line [{number + 1}], expected [create] or [index]")
        index = named.get("_index") or request.params.get("index")
        if not index:
            raise WrongInput("Validation Failed: 1: index is missing;")
        actions.append((action, index, named.get("_id") or uuid4().hex, source))
    return actions


def _filtered(value: Any, paths: Sequence[Sequence[str]]) -> Any:
    """Keep what some path leads to; a list is looked through, `*` is any name."""
    if isinstance(value, list):
        return [_filtered(one, paths) for one in value]
    if not isinstance(value, dict) or any(not path for path in paths):
        return value
    kept = {}
    for name, below in value.items():
        deeper = [path[1:] for path in paths if path[0] in ("*", name)]
        if deeper:
            kept[name] = _filtered(below, deeper)
    return kept
