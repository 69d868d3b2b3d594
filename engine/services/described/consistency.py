"""What goes together in a description: each check names the dotted key, what is wrong, and what to do.

`settings` calls `check` for every description that is read, so nothing of it may call anybody.

What a text may name depends on when it is filled. Of what steps take, `id` alone is kept over a restart: so a release
and all that follows it, days later maybe, may name nothing else, but for what the last status took.

The module is a long one: it has a sentence for each thing that does not go together.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from engine.model.settings import SecretText, SecretTree
from engine.services.described.paths import compiled
from engine.services.described.texts import (
    BATCH_NAMES,
    GIVEN_NAMES,
    NAME,
    RECORD_NAMES,
    TASK,
    check_names,
    clear,
    names_in,
)

if TYPE_CHECKING:
    from engine.services.described.settings import (
        DescribedSettings,
        ExchangeTable,
        FailuresTable,
        FetchTable,
        PagesTable,
        ResultsTable,
        RuleTable,
        SearchTable,
        StepTable,
    )

_CALL = re.compile(r"(GET|POST|PUT|PATCH|DELETE) (/\S*|https?://\S+|\$\{[^}]+\}\S*)")
_OWN_URL = re.compile(r"http://(localhost|127\.[0-9.]+|\[::1\])[:/]")
_HOST = re.compile(r"(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*(:[0-9]{1,5})?")
_OPTIONAL = "?"
_HEADER = "header."
"""So a path begins that names a header of the answer."""

_MISSING = ("error", "created")
"""Words that `results.missing` has, besides a reason."""
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""RFC 9110."""

_CREDENTIALS = frozenset({"authorization", "proxy-authorization", "cookie", "api-key", "apikey", "x-auth-token"})
_ENDS_OF_CREDENTIALS = ("-token", "-secret", "-key")
_NO_CREDENTIAL = "idempotency-key"
"""Names of headers and parameters that hold secrets: in small letters, and with `-` for `_`."""

_FILLED_IN = re.compile(r"\$\{[^}]*\}?")
_STEPS = ("stage", "upload", "release")
"""Those that bring a batch up, in this order."""


def check(one: DescribedSettings) -> None:
    """Check a description.

    Raises:
        ValueError: something is missing, or does not go together; begins with the dotted key below `service`.
    """
    for key, value in one.values.items():
        if key in GIVEN_NAMES or key == "id" or not NAME.fullmatch(key):
            raise ValueError(
                f"values.{key}: no name for a value of your own; take letters, digits and _, and none of "
                f"{', '.join(sorted({*GIVEN_NAMES, 'id'}))}"
            )
        if not value:
            raise ValueError(f"values.{key}: must be filled in: it stands in the calls as ${{{key}}}")
    if found := _FILLED_IN.search(one.base_url):
        raise ValueError(f"base_url: {found[0]} is not filled in here; write it out, or put it into each call")
    own = dict.fromkeys(one.values, "")
    check_names(one.task_page, {"id": "", **own}, "task_page")
    if one.task_page and not one.task_page.startswith(("https://", "http://", "/")):
        raise ValueError("task_page: must be a whole URL, or a path that begins with /")
    _check_table(clear(one.headers), "headers")
    _check_flat(clear(one.headers), "headers")
    _check_literals(one.headers, "headers")
    check_names(clear(one.headers), own, "headers")
    _check_auth(one)
    _check_window(one)
    _check_hosts(one)
    _check_steps(one)
    _check_record(one)
    _check_body(one)
    _check_again(one)
    _check_status(one)
    _check_search(one)
    _check_results(one)
    for at, rule in enumerate(one.rules):
        _check_rule(rule, f"rules[{at}]")
    if one.stage is not None and one.release.payload:
        raise ValueError(
            "release.payload: what was staged is released by a call without records; put payload = true into "
            "[service.upload] or [service.stage], or leave [service.stage] out"
        )


def needs_token(one: DescribedSettings) -> bool:
    """Return whether something that is sent holds the token of the job."""
    if one.release.key_header or (one.search is not None and one.search.mark):
        return True
    texts: list[Any] = [one.record.key, one.record.add, one.record.template, one.record.head]
    texts += [clear(one.body.with_), clear(one.body.fields)]
    for _, step in steps_of(one):
        texts += [step.call, *map(clear, (step.query, step.headers, step.json, step.form))]
    return any(name in {"token", "mark"} for name, _ in names_in(texts, ""))


def steps_of(one: DescribedSettings) -> Iterator[tuple[str, StepTable]]:
    """Yield each step of a description, and its dotted key."""
    for name in (*_STEPS, "status", "cancel", "search", "look"):
        step = getattr(one, name)
        if step is not None:
            yield name, step
    for at, fetch in enumerate(one.results.fetch):
        yield f"results.fetch[{at}]", fetch


def has_source_keys(one: DescribedSettings) -> bool:
    """Return whether records have keys that are different only if the source has no value twice."""
    return bool(one.record.key) and "index" not in names_in_text(one.record.key)


def payload_step(one: DescribedSettings) -> tuple[str, StepTable]:
    """Return the step that carries the records, and its key.

    Raises:
        ValueError: there is none, or more than one.
    """
    carrying = [(name, step) for name, step in steps_of(one) if step.payload]
    for name, _ in carrying:
        if name not in _STEPS:
            raise ValueError(f"{name}.payload: only stage, upload or release carries the records")
    if not carrying:
        has = " or ".join(name for name in _STEPS if getattr(one, name) is not None)
        raise ValueError(f"release.payload: no step carries the records; set payload = true in {has}")
    if len(carrying) > 1:
        raise ValueError(f"{carrying[1][0]}.payload: {carrying[0][0]} carries the records already; set it in one step")
    return carrying[0]


# --- who we are, and whom we call -------------------------------------------------------------------------------------


def _check_auth(one: DescribedSettings) -> None:
    auth = one.auth
    if auth.kind != "none" and auth.secret is None:
        raise ValueError(f'auth.secret: missing, and auth.kind is "{auth.kind}"; write "${{env:NAME}}"')
    if auth.kind == "none" and auth.secret is not None:
        raise ValueError(
            'auth.kind: missing; say how auth.secret travels: "bearer", "header", "basic", "query" or "exchange"'
        )
    if auth.kind == "query" and not auth.name:
        raise ValueError("auth.name: missing; it is the query parameter that holds the secret")
    if (auth.kind == "exchange") != (auth.exchange is not None):
        key = "exchange" if auth.exchange is None else "kind"
        raise ValueError(f'auth.{key}: kind = "exchange" and [service.auth.exchange] go together')
    if auth.kind in {"header", "exchange"}:
        _check_header(auth.header, "auth.name")
    if auth.exchange is not None:
        _check_exchange(one, auth.exchange)


def _check_exchange(one: DescribedSettings, exchange: ExchangeTable) -> None:
    place = "auth.exchange"
    _check_call(exchange.call, f"{place}.call")
    if "${" in exchange.call.partition(" ")[2][:2]:
        raise ValueError(f"{place}.call: nothing is taken before it; write a path or a whole URL")
    if clear(exchange.form) and clear(exchange.json):
        raise ValueError(f"{place}.json: the call has either a form or JSON")
    known = {"secret": "", **dict.fromkeys(one.values, "")}
    for key in ("form", "json", "headers", "user"):
        value = clear(getattr(exchange, key))
        _check_table(value, f"{place}.{key}", list if key == "json" else str if key == "user" else dict)
        if key == "headers":
            _check_flat(value, f"{place}.{key}")
            _check_literals(exchange.headers, f"{place}.{key}")
        check_names(value, known, f"{place}.{key}")
    _check_paths(place, take=exchange.take, expires_in=exchange.expires_in)


def _check_window(one: DescribedSettings) -> None:
    if one.window_table is not None and not one.window_table.reset and one.window_table.every is None:
        raise ValueError("window.every: missing; say when a window ends: by a header (reset), or every so many seconds")


def _check_hosts(one: DescribedSettings) -> None:
    for host in one.uploads_to:
        if not _HOST.fullmatch(host):
            raise ValueError(f'uploads_to: {host!r} is no host; write it as "*.amazonaws.com", without https://')
    own = _host_of(one.base_url)
    for place, step in steps_of(one):
        _check_call(step.call, f"{place}.call")
        url = step.call.partition(" ")[2]
        if url.startswith("http") and not step.without_credentials and _host_of(url) != own:
            raise ValueError(
                f"{place}.call: {_host_of(url)} is not the host of base_url, and credentials go nowhere else; "
                "set without_credentials = true, or base_url to that host"
            )
        is_foreign = url.startswith(("http", "${")) and _host_of(url) != own
        if step.without_credentials and is_foreign and not one.uploads_to and not _is_here(one.base_url):
            raise ValueError(
                f"{place}.call: it may lead to any host; name those that it may in uploads_to, as in "
                'uploads_to = ["*.amazonaws.com"]'
            )


def _host_of(url: str) -> str:
    """Return host and port of a URL; "" of what is none, which is told elsewhere."""
    try:
        return urlsplit(url).netloc
    except ValueError:
        return ""


def _is_here(url: str) -> bool:
    return _OWN_URL.match(f"{url}/") is not None


# --- steps ------------------------------------------------------------------------------------------------------------


def _check_call(call: str, place: str) -> None:
    found = _CALL.fullmatch(call)
    if found is None:
        raise ValueError(f'{place}: {call!r} is no call; write "POST /path", "PUT https://…" or "PUT ${{taken}}"')
    if found[2].startswith("http://") and not _is_here(found[2]):
        raise ValueError(f"{place}: plain http is for this machine only; write https://")


def _check_steps(one: DescribedSettings) -> None:
    if one.upload is not None and one.stage is None:
        raise ValueError(
            "upload: there is nothing that it brings records to; add [service.stage], or put payload = true into "
            "[service.release]"
        )
    payload_step(one)
    if one.stage is not None and "id" not in one.stage.take:
        raise ValueError(
            'stage.take.id: missing; say where the answer has the name of what was staged: take = { id = "id" }'
        )
    always = dict.fromkeys([*sorted(BATCH_NAMES), *one.values], "")
    record = dict.fromkeys(sorted(RECORD_NAMES), "it is different for each record, and the call is for a batch of them")
    _check_first_steps(one, always, record)
    has_id = one.stage is not None or "id" in one.release.take
    _check_later_steps(one, {**record, **always, **_lost(one), **({"id": ""} if has_id else {})})
    for name in ("status", "cancel"):
        if getattr(one, name) is not None and not has_id:
            raise ValueError(
                f'{name}.call: a batch has no name to be asked about; add take = {{ id = "id" }} to [service.stage] or '
                "[service.release]"
            )


def _check_first_steps(one: DescribedSettings, always: Mapping[str, str], record: Mapping[str, str]) -> None:
    """Check the steps that bring a batch up, each with what those before it take."""
    known: dict[str, str] = {**record, **_not_yet(one), **always}
    for name in _STEPS:
        step = getattr(one, name)
        if step is None:
            continue
        if name == "release":
            lost = "it is not known any more after a restart, where id alone is; take it as id, or ask for it again"
            known = {key: lost if not why and key not in {*always, "id"} else why for key, why in known.items()}
        carries_one = step.payload and one.body.framing in {"single", "form"}
        of_record = {"index": "", TASK: "", **({"key": ""} if one.record.key else {})}
        _check_step(step, name, {**known, **of_record} if carries_one else known)
        if step.payload:
            for key, tree in (("with", one.body.with_), ("fields", one.body.fields)):
                _check_table(clear(tree), f"body.{key}")
                check_names(clear(tree), known, f"body.{key}")
        known |= dict.fromkeys(_taken(step, name, known, one), "")


def _check_later_steps(one: DescribedSettings, known: Mapping[str, str]) -> None:
    """Check the steps that come when a batch is up, or without one."""
    for name in ("status", "cancel", "search"):
        step = getattr(one, name)
        if step is not None:
            _check_step(step, name, known)
            _taken(step, name, {}, one)
    if one.look is not None:
        no_batch = dict.fromkeys(GIVEN_NAMES | {"id"}, "there is no batch yet")
        _check_step(one.look, "look", {**no_batch, **dict.fromkeys(one.values, "")})
    from_status = dict.fromkeys(one.status.take, "") if one.status is not None else {}
    for at, fetch in enumerate(one.results.fetch):
        _check_step(fetch, f"results.fetch[{at}]", {**known, **from_status})


def _check_table(value: Any, place: str, kind: type = dict) -> None:
    """Check that a free-form value is a table; a `list` may be one, too, and a `str` must be a text."""
    if not isinstance(value, (kind, dict) if kind is list else kind):
        shape = "text" if kind is str else 'table, as in { name = "value" }'
        raise ValueError(f"{place}: must be a {shape}")  # noqa: TRY004 - a configuration's errors are ValueErrors


def _check_flat(table: Mapping[str, Any], place: str) -> None:
    """Check that a table of headers, or of parameters, holds single values; and names and values that a header has."""
    for name, value in table.items():
        if isinstance(value, dict | list):
            raise ValueError(f"{place}.{name}: must be a single value")  # noqa: TRY004 - as above
        if place.endswith("headers"):
            _check_header(name, f"{place}.{name}")
            if isinstance(value, str) and not value.isprintable():
                raise ValueError(f"{place}.{name}: must be plain text without line breaks")


def _check_literals(table: SecretTree, place: str) -> None:
    """Check that no secret is written out in a table of headers, or of parameters: by its name, and no `${…}` in it."""
    for name, value in table.tree.items():
        plain = name.lower().replace("_", "-")
        is_secret = plain in _CREDENTIALS or plain.endswith(_ENDS_OF_CREDENTIALS)
        if is_secret and not plain.endswith(_NO_CREDENTIAL) and not isinstance(value, SecretText):
            if isinstance(value, str) and "${" in value:  # what a step took, or a value of the user's own
                continue
            variable = plain.replace("-", "_").upper()
            raise ValueError(
                f"{place}.{name}: a secret does not belong into the file; "
                f'write "${{env:{variable}}}" or "${{file:/path}}" and keep it there. What is no secret may stand in '
                "[service.values]"
            )


def _check_header(name: str, place: str) -> None:
    if not _HEADER_NAME.fullmatch(name):
        raise ValueError(f'{place}: {name!r} is no name of a header; write it as in "X-Api-Key"')


def _not_yet(one: DescribedSettings) -> dict[str, str]:
    """Return the names that steps take, with why a step before them cannot name them."""
    steps = [(name, getattr(one, name)) for name in _STEPS]
    return {
        key: f"{name} takes it, which comes later"
        for name, step in reversed(steps)
        for key in (step.take if step is not None else ())
    }


def _lost(one: DescribedSettings) -> dict[str, str]:
    """Return the names that steps take before a batch is under way, with why nothing later can name them."""
    why = "it is not known any more after a restart, where id alone is; take it in [service.status]"
    steps = [step for step in (one.stage, one.upload, one.release) if step is not None]
    return {key: why for step in steps for key in step.take if key != "id"}


def _check_step(step: StepTable, place: str, known: Mapping[str, str]) -> None:
    for key in ("call", "query", "headers", "json", "form"):
        value = clear(getattr(step, key))
        _check_table(value, f"{place}.{key}", str if key == "call" else list if key == "json" else dict)
        if key in {"query", "headers"}:
            _check_flat(value, f"{place}.{key}")
            _check_literals(getattr(step, key), f"{place}.{key}")
        check_names(value, known, f"{place}.{key}")
    if sum((step.json is not None, bool(clear(step.form)), step.payload)) > 1:
        key = "json" if step.json is not None else "form"
        raise ValueError(
            f"{place}.{key}: a call has one body: json, form, or payload = true. What stands beside the "
            "records goes into body.with or body.fields"
        )
    method = step.call.partition(" ")[0]
    if method == "GET" and (step.json is not None or clear(step.form) or step.payload):
        raise ValueError(f"{place}.call: a GET carries no body; write POST, or use query")


def _taken(step: StepTable, place: str, known: Mapping[str, str], one: DescribedSettings) -> Sequence[str]:
    """Return the names that a step takes, checked."""
    for name, path in step.take.items():
        where = f"{place}.take.{name}"
        if not NAME.fullmatch(name) or name in GIVEN_NAMES or name in one.values:
            raise ValueError(
                f"{where}: no name for what is taken; take letters, digits and _, and none of "
                f"{', '.join(sorted({*GIVEN_NAMES, *one.values}))}"
            )
        if name != "id" and not known.get(name, "not taken") and place in _STEPS:
            raise ValueError(f"{where}: an earlier step takes {name} already; call it otherwise")
        if name == "id" and path.endswith(_OPTIONAL):
            raise ValueError(f"{where}: a batch without a name is lost; leave the ? out")
        bare = path.removesuffix(_OPTIONAL)
        if not bare.startswith(_HEADER):
            _check_paths(f"{place}.take", **{name: bare})
    return tuple(step.take)


# --- records and the body ---------------------------------------------------------------------------------------------


def _check_record(one: DescribedSettings) -> None:
    record = one.record
    own = dict.fromkeys(one.values, "")
    other_batch = "another batch may carry the record later, and its key must stay the same; use ${index}"
    in_key = {"job": "", "token": "", "index": "", TASK: "", **own}
    in_key |= {"batch": other_batch, "mark": other_batch, "id": other_batch, "key": "a key cannot hold itself"}
    check_names(record.key, in_key, "record.key")
    if record.key and not names_in_text(record.key) & {"index", TASK}:
        raise ValueError("record.key: it is the same for every record; add ${index}, or ${task.…}")
    named = names_in_text(record.key)
    if one.release.again in {"safe", "exists"} and "index" in named and not named & {"job", "token", TASK}:
        raise ValueError(
            "record.key: another job's records, or those of a retry, would have the same keys, for ${index} begins "
            'anew in each; write "${job}-${token}-${index}", or name a value of the task'
        )
    if record.key == "${task}":
        raise ValueError("record.key: a whole task is no key; name a value of it, as in ${task.id}")
    place, _ = payload_step(one)
    has_id = one.stage is not None and place != "stage"
    in_record = dict.fromkeys((*sorted(BATCH_NAMES | RECORD_NAMES), *one.values), "")
    in_record |= {"id": "" if has_id else "the batch has no name yet when its records are sent"}
    if not record.key:
        in_record["key"] = "records have no key; set record.key"
    for key in ("template", "head", "add"):
        allowed = in_record
        if key == "add":
            allowed = {**in_record, TASK: ""}
        check_names(getattr(record, key), allowed, f"record.{key}")
    if "task" in {name for name, _ in names_in(record.add, "record.add")}:
        raise ValueError("record.add: ${task} cannot be put into itself; use record.template")
    mark = one.search.mark if one.search is not None else ""
    if mark and mark in record.add:
        raise ValueError(f"record.add.{mark}: search.mark puts the mark there already; leave it out here")


def names_in_text(text: str) -> frozenset[str]:
    """Return the first part of each name in a text: `task` for `${task.id}`."""
    return frozenset(name.partition(".")[0] for name, _ in names_in(text, ""))


def _check_body(one: DescribedSettings) -> None:
    body, framing = one.body, one.body.framing
    beside, fields = clear(body.with_), clear(body.fields)
    own = {"head": "ndjson", "columns": "csv", "delimiter": "csv", "line_ending": "csv"}
    said = {
        "record.head": bool(one.record.head),
        "body.columns": bool(body.columns),
        "body.delimiter": body.delimiter != ",",
        "body.line_ending": body.line_ending != "lf",
    }
    for key, is_said in said.items():
        wanted = own[key.partition(".")[2]]
        if is_said and framing != wanted:
            raise ValueError(f'{key}: goes with body.framing = "{wanted}" only, and it is "{framing}"')
    if (body.under or beside) and framing not in {"array", "single"}:
        key = "under" if body.under else "with"
        raise ValueError(
            f'body.{key}: an object around the records goes with body.framing = "array" or "single" only, and it is '
            f'"{framing}"'
        )
    if beside and not body.under:
        raise ValueError("body.under: missing; say which member holds the records, beside those of body.with")
    if body.under:
        _check_under(body.under, beside)
    if framing in {"single", "form"} and one.limit.records not in {None, 1}:
        raise ValueError(f'limit.records: must be 1, since body.framing = "{framing}" sends one record a batch')
    _check_part(one, fields)
    _check_columns(one)


def _check_part(one: DescribedSettings, fields: Mapping[str, Any]) -> None:
    if (fields or one.body.file) and not one.body.part:
        raise ValueError(
            "body.part: missing; fields and file go with multipart/form-data, where the records are a part: "
            'part = "file"'
        )


def _check_columns(one: DescribedSettings) -> None:
    columns = one.body.columns
    if len(set(columns)) < len(columns):
        raise ValueError("body.columns: a column stands there twice")
    for column in one.record.template if columns else ():
        if column not in columns:
            raise ValueError(
                f"body.columns: record.template makes {column}, which would not be sent; add it, or leave columns out"
            )


def _check_under(under: str, beside: Mapping[str, Any]) -> None:
    """Check that the path of the records can be made in an object that has the members of `with`."""
    _check_paths("body", under=under)
    parts = under.split(".")
    if not all(re.fullmatch(r"[^.*\"=]+", part) for part in parts):
        raise ValueError(f'body.under: {under!r} must be names and dots only, as in "variables.input"')
    level: Any = beside
    for at, part in enumerate(parts):
        if not isinstance(level, dict):
            where = ".".join(parts[:at])
            words = f"body.with: {where} is no table, and body.under goes through it"
            raise ValueError(words)  # noqa: TRY004 - as above
        if part not in level:
            return
        level = level[part]
    raise ValueError(f"body.with: it has {under} already, which body.under fills")


# --- safe after a lost answer -----------------------------------------------------------------------------------------


def _check_again(one: DescribedSettings) -> None:
    release, again = one.release, one.release.again
    needs = {"ask": _needs_of_ask, "search": _needs_of_search, "key": _needs_of_key, "exists": _needs_of_exists}
    if again in needs and (lack := needs[again](one)):
        raise ValueError(lack)
    if release.key_header and again != "key":
        raise ValueError(
            'release.key_header: an idempotency key makes a repeat harmless; write again = "key", not '
            f'"{again}", or leave it out'
        )


def _needs_of_ask(one: DescribedSettings) -> str:
    if one.stage is None:
        return (
            'release.again: "ask" asks whether a batch that was staged has been released; add [service.stage], or use '
            "another one"
        )
    if "id" in one.release.take:
        return (
            'release.take.id: with again = "ask" a batch is asked about by the name that stage took, and that is all '
            "that is known of it after a lost answer; leave it out"
        )
    if one.status is None or not one.status.waiting:
        return 'release.again: "ask" needs [service.status] with waiting = [words of a batch that was not released]'
    return ""


def _needs_of_search(one: DescribedSettings) -> str:
    if one.search is None:
        return 'release.again: "search" needs [service.search]'
    if one.search.where or one.search.mark or one.search.by_results or _carries_mark(one):
        return ""
    return (
        "search.mark: missing; say which member of each task carries ${mark}, or put ${mark} into the records or the "
        "release, or compare in search.where"
    )


def _needs_of_key(one: DescribedSettings) -> str:
    if one.release.key_header or _carries_mark(one):
        return ""
    return (
        'release.key_header: missing; with again = "key" a header carries the idempotency key, or query or json does, '
        "as ${mark}"
    )


def rules_on_success(rule: RuleTable) -> bool:
    """Return whether a rule is about answers of a 2xx, too."""
    return any(HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES for status in rule.status)


def rules_on_conflict(one: DescribedSettings) -> bool:
    """Return whether the description says what a 409 means, by any rule that is about it."""
    return any(HTTPStatus.CONFLICT in rule.status for rule in one.rules)


def _needs_of_exists(one: DescribedSettings) -> str:
    if _sees_what_exists(one):
        return ""
    return (
        'results.exists: missing; with again = "exists" the answer must say of a record that it is there already: '
        'results.exists = { "error.code" = "…" }, or a rule that means "exists"'
    )


def _carries_mark(one: DescribedSettings) -> bool:
    release, record, body = one.release, one.record, one.body
    texts = [release.call, record.template, record.head, record.add]
    trees = (release.query, release.headers, release.json, release.form, body.with_, body.fields)
    texts += map(clear, trees)
    names = {name for name, _ in names_in(texts, "")}
    return "mark" in names or {"token", "batch"} <= names


def _sees_what_exists(one: DescribedSettings) -> bool:
    results = one.results
    tables = [results.exists, *(fetch.exists for fetch in results.fetch)]
    tables.append(results.failures.exists if results.failures is not None else {})
    return any(tables) or any(rule.means == "exists" for rule in one.rules)


def _check_status(one: DescribedSettings) -> None:
    status = one.status
    if status is None:
        return
    _check_paths("status", state=status.state, created=status.created, error=status.error)
    if not status.finished:
        raise ValueError('status.finished: missing; list the words of a batch that has ended, as in ["done"]')
    users: dict[str, str] = {}
    for key in ("waiting", "running", "finished", "failed"):
        for word in getattr(status, key):
            if users.setdefault(str(word), key) != key:
                raise ValueError(f"status.{key}: {word!r} stands under status.{users[str(word)]}, too; keep one")


def _check_search(one: DescribedSettings) -> None:
    search = one.search
    if search is None:
        return
    _check_paths("search", items=search.items, id=search.id, key=search.key, index=search.index)
    _check_paths("search", stop_before=search.stop_before)
    for path, wanted in search.where.items():
        _check_paths("search", where=path)
        known = {**dict.fromkeys([*BATCH_NAMES, "id", *one.values], "")}
        check_names(wanted, known, f"search.where.{path}")
    if search.mark:
        _check_mark(search.mark)
    if search.pages is not None:
        _check_pages(search.pages, "search.pages")
    told = one.results.of == "fetch" and one.results.match == "key" and not finds_records(one, search)
    if search.by_results and not told:
        raise ValueError(
            "search.by_results: tells batches by the keys in their results, so it goes with [service.status], "
            'results.of = "fetch" and results.match = "key"'
        )
    if search.by_results and "token" not in names_in_text(one.record.key):
        raise ValueError(
            "record.key: with search.by_results a batch is ours if its results name a key of ours, so no other job may "
            'have the same ones; write "${token}-${index}"'
        )
    if one.release.again == "search" and finds_records(one, search):
        if not (search.key or one.results.key or search.index or one.results.index):
            raise ValueError(
                "search.key: missing; say where a task that is found carries record.key, so that it is "
                "known whose it is"
            )
        if (search.key or one.results.key) and not one.record.key:
            raise ValueError("record.key: missing; by it a task that is found is known to be a record's")


def finds_records(one: DescribedSettings, search: SearchTable) -> bool:
    """Return whether a search lists records, not batches."""
    return search.finds == "records" or (search.finds is None and one.status is None)


def _check_mark(mark: str) -> None:
    if not re.fullmatch(r"[^.*\"=]+(\.[^.*\"=]+)?", mark):
        raise ValueError(
            f'search.mark: {mark!r} must be a member of the task, or of an object in it: "data.bulksubmit"'
        )


# --- results ----------------------------------------------------------------------------------------------------------


def _check_results(one: DescribedSettings) -> None:
    results = one.results
    _check_source(one)
    is_word = results.missing not in _MISSING and " " not in results.missing
    if is_word and (near := get_close_matches(results.missing.lower(), _MISSING, 1)):
        raise ValueError(
            f'results.missing: {results.missing!r} would be told as the reason of a failure; did you mean "{near[0]}"?'
        )
    if results.of != "release" and one.stage is None and "id" not in one.release.take:
        raise ValueError(
            'release.take.id: missing; a batch that is asked about later needs a name: take = { id = "id" }'
        )
    _check_items(one, results, "results")
    for at, fetch in enumerate(results.fetch):
        _check_items(one, fetch, f"results.fetch[{at}]")
        if fetch.pages is not None:
            _check_pages(fetch.pages, f"results.fetch[{at}].pages")
    if results.pages is not None:
        _check_pages(results.pages, "results.pages")
    if results.failures is not None:
        _check_failures(one, results.failures)


def _check_source(one: DescribedSettings) -> None:
    """Check that there is what brings the results, and nothing that would not be looked at."""
    results, of = one.results, one.results.of
    if of == "status" and one.status is None:
        raise ValueError('results.of: "status" needs [service.status]')
    if of == "fetch" and not results.fetch:
        raise ValueError('results.of: "fetch" needs [[service.results.fetch]], the calls that bring results')
    if of == "fetch" and one.status is None:
        raise ValueError('results.of: "fetch" needs [service.status], which says when there are results')
    if of != "fetch" and results.fetch:
        raise ValueError(f'results.fetch: is called only with results.of = "fetch", and it is "{of}"')
    if of != "fetch" and results.pages is not None:
        raise ValueError(f'results.pages: only what is fetched has pages, and results.of is "{of}"')


def _check_failures(one: DescribedSettings, failures: FailuresTable) -> None:
    place = "results.failures"
    _check_paths(place, items=failures.items, key=failures.key, index=failures.index, error=failures.error)
    _check_paths(place, id=failures.id)
    _check_conditions(place, exists=failures.exists, busy=failures.busy)
    if not failures.key and not failures.index and one.results.match != "index":
        raise ValueError(f"{place}.key: missing; say by what an item is known to be a record's: key or index")
    if failures.key and not one.record.key:
        raise ValueError("record.key: missing; results.failures.key names it")


def _check_items(one: DescribedSettings, table: ResultsTable | FetchTable, place: str) -> None:
    """Check how items are read: those of a table, or of a fetch, which has what it lacks from the table."""
    base = one.results

    def of(key: str) -> Any:
        value = getattr(table, key)
        return getattr(base, key) if value is None else value

    _check_paths(place, items=of("items"), key=of("key"), index=of("index"), id=of("id"), error=of("error"))
    _check_conditions(place, ok=of("ok"), exists=of("exists"), busy=of("busy"))
    match, format_ = of("match"), of("format")
    is_fetched = base.of == "fetch" and table is base
    if format_ in {"ids", "count"} and match != "order":
        raise ValueError(f'{place}.match: goes with items only, and {place}.format is "{format_}"')
    if format_ == "count" and not of("items"):
        raise ValueError(f"{place}.items: missing; it is the path of the number")
    if is_fetched:  # each fetch is checked with what it has of its own
        return
    if match == "key" and not of("key"):  # without an index, the items are those of an object, place -> item
        raise ValueError(f'{place}.key: missing; with match = "key" it is the path of the record\'s key in an item')
    if match == "key" and not one.record.key:
        raise ValueError('record.key: missing; with results.match = "key" records are known by it')
    if not of("id") and not one.record.key:
        raise ValueError(f"{place}.id: empty, so the record's key is its id; set record.key")
    if (format_ == "count" or base.missing == "created") and not one.record.key:
        says = f'{place}.format = "count"' if format_ == "count" else 'results.missing = "created"'
        raise ValueError(f"record.key: missing; with {says} nothing names a task, so the record's key is its id")


def _check_pages(pages: PagesTable, place: str) -> None:
    _check_paths(place, next=pages.next, cursor=pages.cursor, more=pages.more)
    ways = [name for name in ("next", "next_header", "page", "offset") if getattr(pages, name)]
    if pages.cursor or pages.cursor_header or pages.cursor_query:
        ways.append("cursor")
        if not pages.cursor_query or bool(pages.cursor) == bool(pages.cursor_header):
            raise ValueError(
                f"{place}.cursor_query: a cursor needs where it stands, cursor (path) or cursor_header, and "
                "cursor_query, the parameter that it goes into"
            )
    if len(ways) != 1:
        has = f"it has {' and '.join(ways)}" if ways else "it has none"
        raise ValueError(
            f"{place}: a further page is asked for by one of next, next_header, page, offset and a cursor; {has}"
        )


def _check_rule(rule: RuleTable, place: str) -> None:
    _check_paths(place, path=rule.path, at=rule.at, index=rule.index, error=rule.error)
    if rule.equals and not rule.path:
        raise ValueError(f"{place}.path: missing; say where in the answer equals is looked for")
    if not (rule.status or rule.path or rule.contains):
        raise ValueError(f"{place}.status: missing; a rule is about a status, or about what the answer says, or both")
    if rule.means == "by_index" and not rule.at:
        raise ValueError(f'{place}.at: missing; with means = "by_index" it is the path of the errors')
    _check_paths(place, id=rule.id)
    if rule.id and (rule.means != "exists" or rule.at):
        raise ValueError(
            f'{place}.id: goes with means = "exists" and without at: it is the id of the one that is there'
        )
    if rule.means not in {"by_index", "exists"} and (rule.at or rule.index):
        raise ValueError(f'{place}.{"at" if rule.at else "index"}: goes with means = "by_index" or "exists" only')
    if rules_on_success(rule) and not (rule.path or rule.at or rule.contains):
        raise ValueError(f"{place}.path: missing; a success that is none must say so somewhere in the answer")


def _check_paths(place: str, **paths: str | Sequence[str]) -> None:
    """Check that paths can be read; the place of each is below `place`."""
    for key, value in paths.items():
        for path in [value] if isinstance(value, str) else value:
            try:
                compiled(path)
            except ValueError as error:
                raise ValueError(f"{place}.{key}: {error}") from None


def _check_conditions(place: str, **tables: Mapping[str, Any]) -> None:
    for key, table in tables.items():
        for path in table:
            _check_paths(place, **{key: path})
