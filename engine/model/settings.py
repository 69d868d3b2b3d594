"""The configuration, read by msgspec: every key with its default and the reason for it. Unknown keys are errors.

`commands.configuration` reads a file into it. The keys of `[service]` stand in the settings of each service. The module
is a long one, since it has a sentence or two for each key.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import msgspec
import orjson
from msgspec import Meta

from engine.model.error_hints import Pause, Refusal
from engine.model.night import DailyWindow, clock_time, deadline_at, most_failed, zone_of
from engine.model.record import Format, known_formats

MEBIBYTE = 1024 * 1024

AUTO = "auto"
_MOST_CHOSEN = 1000
MOST_IN_FLIGHT = 64
"""Batches at once that are ever tried where the number is found out: as many connections as are welcome anywhere."""


_SEARCHES = 7
"""Times `search_seconds` that an older version waited in all: three searches, each wait twice as long as the last."""


_LONGEST_ERROR_BYTES = 64 * 1024
_LAST_PORT = 65_535


class SecretStr:
    """A text that nothing shows: whoever sends it asks for it by name."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def get_secret_value(self) -> str:
        """Return it in the clear."""
        return self._text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretStr) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return f"{type(self).__name__}('**********')"


class SecretText(SecretStr):
    """A text in which secrets stand as references, beside letters that are none: `Token ${env:KEY}`.

    It is hidden as a whole. In a configuration it may be written out: a name of a user, say, is no secret.
    """

    __slots__ = ()


class SecretTree:
    """Tables and lists, in any text of which secrets may stand as references; it is shown as little as a secret.

    A text that was written with a reference is a `SecretText` in it; all others are no secrets, whoever may see them.
    """

    __slots__ = ("tree",)

    def __init__(self, tree: Any) -> None:
        self.tree = tree

    def get_secret_value(self) -> Any:
        """Return it in the clear."""
        return _clear(self.tree)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretTree) and other.get_secret_value() == self.get_secret_value()

    def __hash__(self) -> int:
        return hash(repr(self.get_secret_value()))

    def __repr__(self) -> str:
        return "SecretTree('**********')"


_STARS = "********"


def secrets_in(value: Any) -> Iterator[str]:
    """Yield each secret text of settings, in the clear, wherever in them it stands."""
    match value:
        case SecretStr():
            yield value.get_secret_value()
        case SecretTree():
            yield from [value.tree] if isinstance(value.tree, str) else secrets_in(value.tree)
        case msgspec.Struct():
            for name in value.__struct_fields__:
                yield from secrets_in(getattr(value, name))
        case Mapping():
            for item in value.values():
                yield from secrets_in(item)
        case list() | tuple():
            for item in value:
                yield from secrets_in(item)


def texts_in(value: Any) -> Iterator[str]:
    """Yield each text of a tree of tables and lists; no keys."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from texts_in(item)


def without_secrets_in(value: Any) -> Any:
    """Return settings with stars in place of each secret, wherever in them it stands; what has none is the same."""
    match value:
        case SecretStr():  # an empty one says that there is none
            return type(value)(_STARS) if value.get_secret_value() else value
        case SecretTree():
            return SecretTree(_STARS if isinstance(value.tree, str) else without_secrets_in(value.tree))
        case msgspec.Struct():
            changed = {}
            for name in value.__struct_fields__:
                old = getattr(value, name)
                if (new := without_secrets_in(old)) is not old:
                    changed[name] = new
            return msgspec.structs.replace(value, **changed) if changed else value
        case dict():
            new_items = {key: without_secrets_in(item) for key, item in value.items()}
            return new_items if any(new_items[key] is not item for key, item in value.items()) else value
        case list() | tuple():
            new_list = [without_secrets_in(item) for item in value]
            same = all(new is old for new, old in zip(new_list, value, strict=True))
            return value if same else type(value)(new_list)
        case _:
            return value


def _clear(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _clear(item) for key, item in tree.items()}
    if isinstance(tree, list):
        return [_clear(item) for item in tree]
    return tree.get_secret_value() if isinstance(tree, SecretStr) else tree


def of_text(kind: type[Any], value: object) -> Any:
    """Return what a text stands for: a path, say, or a secret. msgspec asks this about types that it does not know."""
    if isinstance(value, kind):
        return value
    if kind is SecretTree:
        return kind(value)
    if not isinstance(value, str):
        raise ValueError("not a text")  # noqa: TRY004 - msgspec turns this one into an error of its own
    return kind(value)


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the configuration: unknown keys are errors, values cannot change.

    A class on it says `kw_only=True`, too. What no type can say is checked in `__post_init__`, whose ValueError begins
    with the key.
    """


def json_of(body: bytes) -> Any:
    """Return the value of a JSON text; None if it is not JSON.

    One of the length of an error is read tolerantly, too: odd bytes and halves of letters make no proxy of a service.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        if len(body) > _LONGEST_ERROR_BYTES:
            return None
    try:
        return json.loads(body.decode("utf-8-sig", "replace"), strict=False)
    except (ValueError, RecursionError):
        return None


class Question(msgspec.Struct, frozen=True):
    """A key of `[service]` for which `init` asks; of a secret, it asks which variable of the environment holds it."""

    key: str
    """Dotted, where it stands in a table within `[service]`."""
    text: str
    """What is asked, without a question mark; it stands in the file, too, behind the value."""
    proposal: str = ""
    """The answer of whoever has no other one: of a secret, the name of a variable."""
    needed: bool = True
    """False: the key is left out where there is no answer."""
    asked: bool = True
    """False: it is an option of the command line only."""
    where: Mapping[str, Sequence[str]] = {}
    """Key of an earlier question → the answers to it with which this one is asked; others make it needless."""


class TokenExchange(msgspec.Struct, frozen=True, kw_only=True):
    """How a token of a short life is got for credentials of a long one; `http.tokens` gets it and renews it.

    The call carries what stands here and nothing else that proves who we are. It may be made any number of times.
    """

    url: str
    """Absolute: https, or http to this machine. The service's own origin, or another one that the user has named."""
    method: str = "POST"
    headers: Mapping[str, str] = {}
    """That are no secret: Content-Type, say."""
    secret_headers: Mapping[str, SecretStr] = {}
    secret_query: Mapping[str, SecretStr] = {}
    body: SecretStr | None = None
    """As it is sent."""
    secrets: Sequence[SecretStr] = ()
    """What of the body is secret: it is hidden wherever it is shown, as the values of the other keys are."""
    take: Callable[[bytes], tuple[str, float | None]]
    """Body of the answer → the token, and for how many seconds it holds, if that is said. Raises ValueError."""
    header: Callable[[str], Mapping[str, str]]
    """Token → the headers that carry it in calls to the service."""
    seconds: float = 300.0
    """For so long a token holds whose answer does not say it."""

    def __repr__(self) -> str:
        """Return where it is got."""
        return f"TokenExchange({self.method} {self.url.partition('?')[0]})"


class WindowHeaders(msgspec.Struct, frozen=True):
    """The names of the headers by which a service tells how many requests are left in its window; "": there is none."""

    remaining: str = "X-RateLimit-Remaining"
    limit: str = "X-RateLimit-Limit"
    reset: str = "X-RateLimit-Reset"
    """Seconds until the window ends, or a time."""
    every: float = 0.0
    """Length of each window in seconds, where the service does not tell when it ends; 0: not known."""


class ServiceSettings(Section, frozen=True, kw_only=True):
    """`[service]`: what every service has; each adds its own keys in its own file."""

    QUESTIONS: ClassVar[Sequence[Question]] = ()
    """What `init` asks, in this order. It asks for other keys without a default besides. A key of a table within
    `[service]` is a dotted one."""
    UNASKED: ClassVar[Mapping[str, Any]] = {}
    """What `init` writes without asking: dotted key → value."""
    NOTES: ClassVar[Sequence[str]] = ()
    """What `init` says of other keys, a line of comment each."""

    MENDABLE: ClassVar[frozenset[str]] = frozenset({"base_url"})
    """Keys that may change between two runs of a job: none decides what its batches hold or where they go."""
    MENDABLE_UNSENT: ClassVar[frozenset[str]] = frozenset()
    """Keys that say where tasks go: they may change while nothing was created or released."""
    PLAIN_REFERENCES: ClassVar[frozenset[str] | None] = None
    """Keys for no secret in which `${env:NAME}` may stand, and is shown. None: in every one."""
    SECRETS_STAND: ClassVar[str] = ""
    """Where secrets may stand, for the error that refuses a reference elsewhere."""
    PATHS: ClassVar[frozenset[str]] = frozenset()
    """Keys whose values are paths, meant from the file's folder."""
    RULES_ON_SUCCESS: ClassVar[bool] = False
    """`error_hint` is asked about the answers to authenticated calls that say success, too."""

    kind: str
    """Which service it is; each has keys of its own besides."""
    base_url: str
    """Where its API is. Plain http only towards this machine."""

    @property
    def title(self) -> str:
        """What people call the service."""
        return self.kind

    @property
    def place(self) -> str:
        """Where tasks go, as people call it: a project, say; "" if there is only one place, or each task names it."""
        return ""

    def bearing_on_speed(self) -> Mapping[str, Any]:
        """Return the keys that a measurement of the service depends on, with their values."""
        return {}

    def speaks(self, body: bytes) -> bool:
        """Return whether the body of a refusal is worded as the service words its errors: here, a JSON object.

        What is not comes from something in between: a proxy, a firewall.
        """
        return isinstance(json_of(body), dict)

    def secret_headers(self) -> Mapping[str, SecretStr]:
        """Headers that prove who we are; they go to the service's own origin only."""
        return {}

    def secret_query(self) -> Mapping[str, SecretStr]:
        """Query parameters that prove who we are; they go to the service's own origin only."""
        return {}

    def other_secrets(self) -> Sequence[SecretStr]:
        """Secrets that are hidden besides in what the service says: a password, say, that a header has in base64."""
        return ()

    def error_hint(self, status: int, body: bytes) -> Pause | Refusal | None:
        """Return what an answer means here that is no success, or does not mean it; None where its status says it.

        With a hint, nothing was done: also where the status is 2xx (see RULES_ON_SUCCESS).
        """
        del status, body
        return None

    def exchange(self) -> TokenExchange | None:
        """Return how the token is got that proves who we are; None if what proves it does not change."""
        return None

    def window(self) -> WindowHeaders | None:
        """Return which headers tell of the service's window of requests; None: `X-RateLimit-…`."""
        return None

    @property
    def most_requests_per_second(self) -> float | None:
        """What the service takes at most, as far as its settings say; beside `send.requests_per_second`."""
        return None

    def allowed_upload_hosts(self) -> Sequence[str]:
        """Hosts besides the service's own to which payloads may go."""
        return ()


class SourceSettings(Section, frozen=True, kw_only=True):
    """`[source]`: how the input is written down."""

    format: str | None = None
    """`ndjson`, `json` (one top-level array), `csv`, `parquet`, or the name of a format that an installed package
    brings. Left out: told by extension or content. `--format` takes the same names."""
    max_record_bytes: Annotated[int, Meta(ge=1)] = 16 * MEBIBYTE
    """A longer record is rejected unread, so one endless line cannot fill the memory. Sama's longest input is 16 MB."""
    types: dict[str, Literal["string", "integer", "number", "boolean", "json"]] = {}
    """CSV column → type of its values; an empty field becomes null, and columns that are not named stay strings."""
    delimiter: Annotated[str, Meta(min_length=1)] = ","
    """Of CSV, one letter. A header that seems to have another one is an error that names it. `auto`: of `,` `;` tab and
    `|` the one by which the first rows (64 KiB) of each file fit the header; where two fit equally well, that is an
    error."""
    encoding: str = "utf-8"
    """Of text without a byte order mark: any that Python knows, such as `windows-1252` or `utf-16-le`. A mark (UTF-8,
    UTF-16, UTF-32) is believed, whatever stands here."""
    processes: Annotated[int, Meta(ge=0, le=64)] | None = None
    """Processes that read beside this one; `--processes` stands above it. Left out: with two cores or more, one for a
    large input that is sent (from 16 MiB on), or one for each core, at most 4, if it is only read (from 128 MiB on);
    else none. It may change while a job goes on."""
    max_unpacked_bytes: Annotated[int, Meta(ge=1)] = 64 * 1024 * MEBIBYTE
    """Of one gzip, zstd or Parquet source, unpacked; a larger one is an error, since a few bytes can be packed so that
    they fill every disk."""
    max_unpacked_ratio: Annotated[float, Meta(ge=1)] = 500.0
    """Unpacked bytes for each packed one, judged beyond 64 MiB. JSON and CSV have 5 to 50; more may be made to fill the
    disk."""
    plain_http_hosts: list[str] = []
    """Hosts from which sources may come by http, where everybody on the way can read and change them; this machine
    needs no entry."""

    NOT_SHAPING: ClassVar[frozenset[str]] = frozenset(
        {"processes", "max_unpacked_bytes", "max_unpacked_ratio", "plain_http_hosts"}
    )
    """Keys that decide over no record."""

    def __post_init__(self) -> None:
        if len(self.delimiter) > 1 and self.delimiter != AUTO:
            raise ValueError(f'delimiter: must be one letter, or "auto"; it is {self.delimiter!r}')
        _check_encoding(self.encoding)
        if self.format is None or self.format in list(Format):
            return
        known = known_formats()
        if self.format not in known:
            *names, last = map(repr, known)
            raise ValueError(f"format: must be {', '.join(names)} or {last}")


_NO_ENCODINGS_OF_FILES = frozenset({"unicode-escape", "raw-unicode-escape", "idna", "punycode"})


def _check_encoding(name: str) -> None:
    try:
        b"a".decode(name, "replace")  # as a text: Python has other codecs, too
        known = codecs.lookup(name).name.replace("_", "-") not in _NO_ENCODINGS_OF_FILES
    except (LookupError, UnicodeError, ValueError):
        known = False
    if not known:
        raise ValueError(f"encoding: must be one that Python knows, such as utf-8, utf-16 or windows-1252; is {name!r}")


class MappingSettings(Section, frozen=True, kw_only=True):
    """`[mapping]`: how a source row becomes a task. All left out: the row is the task."""

    wrap: str | None = None
    """Put what remains of the row under this key: `wrap = "data"` makes `{"data": row}`."""
    fields: dict[str, str] = {}
    """Task key → column to take its value from; the column leaves the row. Without it, the default holds, if any."""
    defaults: dict[str, Any] = {}
    """Task key → value for tasks that have none."""
    rename: dict[str, str] = {}
    """Column → name under which its value goes up."""
    drop: list[str] = []
    """Columns that are not sent."""
    template: dict[str, Any] = {}
    """The task, with `${row.column}` where a value of the row goes; alone in its string, it keeps its type. It stands
    instead of the other keys."""


class BatchSettings(Section, frozen=True, kw_only=True):
    """`[batch]`: how records are cut into batches; the service's own limits hold in any case."""

    max_records: Annotated[int, Meta(ge=1)] = 1000
    """Most records of a batch; the service's own limit holds in any case."""
    max_bytes: Annotated[int, Meta(ge=1)] = 4 * MEBIBYTE
    """A batch on the wire is held in memory; all of them together are bounded (32 MiB). A single longer record goes
    alone. Batches become smaller by themselves where the service does not take as much."""


class SendSettings(Section, frozen=True, kw_only=True):
    """`[send]`: how hard the service is driven and when we give up."""

    max_in_flight: Literal["auto"] | Annotated[int, Meta(ge=1, le=_MOST_CHOSEN)] = "auto"
    """Batches being staged, uploaded or released at once; `auto` finds out how many the service takes best, up to 64.
    With a number of your own, none of the three limits below moves."""
    max_open_batches: Annotated[int, Meta(ge=1)] | None = None
    """Batches released and not yet settled; the uploader waits at the limit. Left out: the service's own (Sama 500,
    Seven Bridges 100000)."""
    polls_in_flight: Annotated[int, Meta(ge=1, le=1000)] = 4
    """Polls under way at once."""
    requests_per_second: Annotated[float, Meta(gt=0)] | None = None
    """For all calls together; no limit of our own where left out. The service's own push-back is always obeyed."""
    polls_per_second: Annotated[float, Meta(gt=0)] = 1000.0
    """A bound, in case the foretelling goes wrong: a fast service could end a batch with each poll."""
    poll_seconds: Annotated[float, Meta(gt=0)] = 0.5
    """While nothing is known of the service, the oldest released batch is asked about after a tenth of it, because the
    service may be a fast one, and then each time its age has grown by a quarter. Later polls come when a batch should
    be done, which earlier ones foretell. After a poll that failed: twice as long, doubled each time."""
    max_poll_seconds: Annotated[float, Meta(gt=0)] = 30.0
    """Longest wait between two polls of a batch that does not move, or of which nothing can be foretold."""
    settle_seconds: Annotated[float, Meta(gt=0)] | None = None
    """Longest time from a call until everything that the service shows has its effect. After a lost answer nothing is
    released again before that time has passed without a trace of the call; more where starts were seen to take longer
    than half of it. Left out: the service's default (Sama and Seven Bridges: 120)."""
    connect_seconds: Annotated[float, Meta(gt=0)] = 10.0
    """Longest wait for a connection."""
    answer_seconds: Annotated[float, Meta(gt=0)] = 60.0
    """Longest silence while an answer is awaited or read."""
    call_seconds: Annotated[float, Meta(gt=0)] = 300.0
    """Longest whole call, upload included; never longer than `give_up_seconds` and `answer_seconds` both."""
    retry_base_seconds: Annotated[float, Meta(gt=0)] = 0.5
    """A call that is made again waits a random time up to this, doubled with each attempt."""
    retry_cap_seconds: Annotated[float, Meta(gt=0)] = 20.0
    """… and never longer than this."""
    give_up_seconds: Annotated[float, Meta(ge=0)] = 900.0
    """A call that has failed for this long stops the job (exit 5; `resume` goes on), and so does a service that asks to
    wait for longer, or that moves nothing for this long and still says *waiting* of batches that it has accepted. Where
    nothing has answered since the run began, 60 seconds are enough: exit 5, or 9 if nobody has that host name."""
    deadline_seconds: Annotated[float, Meta(gt=0)] | None = None
    """Longest whole run; then the job stops (exit 5). Calls under way may finish, and nothing is waited for."""

    search_seconds: Any = None
    """Of older files and ledgers: seven times its value becomes `settle_seconds`, where that is not given. No value of
    it is an error, since a job that an older version began must go on."""

    def __post_init__(self) -> None:
        if self.search_seconds is None or self.settle_seconds is not None:
            return
        try:
            seconds = _SEARCHES * float(self.search_seconds)
        except (TypeError, ValueError):
            return
        if seconds > 0:
            msgspec.structs.force_setattr(self, "settle_seconds", seconds)

    @property
    def longest_call_seconds(self) -> float:
        """The longest that a call may take: one whose answer drips is waited for no longer than one without any."""
        return min(self.call_seconds, max(self.give_up_seconds, self.answer_seconds))

    @property
    def most_in_flight(self) -> int:
        """Batches that may ever be under way at once."""
        return MOST_IN_FLIGHT if self.max_in_flight == AUTO else int(self.max_in_flight)


class DeltaSettings(Section, frozen=True, kw_only=True):
    """`[delta]`: how the jobs of a family know a record again."""

    key: str | None = None
    """Column of the source whose value names a record; `7` is another key than `"7"`. A record without it is rejected,
    and so is a second one of the same key in one load, with both places. Left out: a record is known by the exact bytes
    of its task, and the same one twice in a load goes twice. `report JOB --key VALUE` looks for a record by this
    column, also after the source was overwritten."""
    changed: Literal["send", "skip", "report"] = "send"
    """What becomes of a record whose key is known and which goes up with other content: it is sent, skipped, or skipped
    and named in the reports."""
    judged_records: Annotated[int, Meta(ge=1)] = 10_000
    """So many records are looked at before there is a job, where the family has created as many. A shorter load is not
    judged."""
    most_new: Annotated[float, Meta(ge=0, le=1)] = 0.2
    """Share of them that may be new, or changed and sent. With more, a changed mapping or export would create
    everything again: nothing is sent (exit 7) unless `--accept-new` is said."""


class WindowSettings(Section, frozen=True, kw_only=True):
    """`[window]`: between which times of the day work may be done; at any time where it is left out."""

    opens: str = ""
    """A time of the day, as in `"22:00"`. Outside of the window nothing is begun: exit 5 at once, and the message says
    when it opens."""
    closes: str = ""
    """On the same day, or on the next one if it is earlier. The option of both is `--window 22:00-06:00`."""
    zone: str = ""
    """IANA name of the zone whose clocks are meant, also by `limits.deadline`; that of this machine if left out. Where
    the machine knows no zones, `pip install tzdata` brings them. The option is `--zone`."""

    def __post_init__(self) -> None:
        _check_key("zone", zone_of, self.zone)
        if bool(self.opens) != bool(self.closes):
            raise ValueError(f"{'closes' if self.opens else 'opens'}: missing; a window has both times")
        if self.opens:
            _check_key("opens", clock_time, self.opens)
            _check_key("closes", clock_time, self.closes)
            if clock_time(self.opens) == clock_time(self.closes):
                raise ValueError("closes: a window that closes when it opens is none; leave both out")

    @property
    def window(self) -> DailyWindow | None:
        """The window; None if work may be done at any time."""
        if not self.opens:
            return None
        return DailyWindow(clock_time(self.opens), clock_time(self.closes), zone_of(self.zone))


class LimitSettings(Section, frozen=True, kw_only=True):
    """`[limits]`: when a run ends before its job does, so that somebody can look at it, or others can work."""

    deadline: str = ""
    """A time of the day (the next one), as in `"05:30"`, a duration from the start of the command, as in `"2h30m"`, or
    a moment, as in `"2026-11-29T05:30:00+01:00"`. It is one moment for all that the command does, retries and the jobs
    of earlier nights included. Exit 5. The next command has a deadline of its own. The option is `--deadline`."""
    max_records: Annotated[int, Meta(ge=1)] | None = None
    """Most records that a run sends, not one more; a batch that has more is cut. Exit 5. Batches whose answer was lost
    before count too, and are left alone where they have more records than are left. The option is `--max-records`."""
    max_failed: str = ""
    """Once more of the job's records have failed or were rejected, earlier runs included, nothing more is sent (exit
    7): a share, as in `"1%"`, is judged from the 1,000th record on whose fate is known, a number, as in `"500"`, at
    once. `resume --max-failed …` goes on."""
    fail_if_empty: bool = False
    """Exit 8 instead of 0 where this command has sent no record: there was none, or none that is new. So it is also 8
    where an earlier command has sent all of them: the second call of a night, `resume` of a finished job, `retry` with
    nothing left to send. The option is `--fail-if-empty`."""

    def __post_init__(self) -> None:
        if self.deadline:
            _check_key("deadline", partial(deadline_at, now=0.0, zone=None), self.deadline)
        if self.max_failed:
            _check_key("max_failed", most_failed, self.max_failed)


def _check_key(key: str, read: Callable[[str], object], value: str) -> None:
    try:
        read(value)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from error


class MetricsSettings(Section, frozen=True, kw_only=True):
    """`[metrics]`: what is told to those who watch loads that come back."""

    textfile: str | None = None
    """Absolute path of a file for the textfile collector of Prometheus' node_exporter, with a name that ends with
    `.prom`; `--metrics-textfile` stands above it. One file tells of one load. It is written at the start, each minute
    and at the end, also where the run fails or never begins; whole each time, and readable for everybody. If it cannot
    be written, that is a warning."""

    def __post_init__(self) -> None:
        if self.textfile is not None and not self.textfile.startswith("/"):
            raise ValueError("textfile: must be an absolute path")


HOOK_STATES = ("start", "finish", "partial", "stop", "fail")
"""When a hook is called: as a run begins, and as it ends, by its exit code; `commands.hooks` says which is which."""


class HookSettings(Section, frozen=True, kw_only=True):
    """`[[hooks]]`: a command, or a URL, that is told how a run goes."""

    states: tuple[str, ...] = HOOK_STATES
    """When it is called. `start`: a run begins. `finish`: exit code 0. `partial`: 3, 4 or 10; it came to its end, and a
    person has something to look at. `stop`: 5 or a signal (129, 130, 143); `resume` goes on. `fail`: all else, 2 and 8
    (nothing to do) too. What keeps a run from beginning (no such file, a missing key, a ledger that cannot be opened)
    is told as its end would be, without a `start`; so is a night that has nothing to do and does not end with 0. Of a
    job on which another process works (6) nobody hears, nor of a command that names a job which cannot be used so:
    that is the answer to whoever has typed it. `cancel`, `undo` and `refresh` are runs, too."""
    command: list[str] = []
    """A program and its arguments; no shell reads them. It gets the facts as one JSON object on standard input, and the
    main ones in the environment: `BULKSUBMIT_COMMAND`, `_JOB`, `_STATE`, `_EXIT_CODE` (not at `start`), `_REPORT` (the
    folder), `_FAMILY`, `_MESSAGE`, `_RUN`. The rest of its environment is ours, without the variables from which this
    file takes secrets. What it prints goes to the log (`--log-level info`), 16 KiB of it. Arguments are no place for
    secrets: every user of the machine sees them."""
    ping: SecretStr | None = None
    """Instead of `command`: the URL of a check at healthchecks.io or a server of that kind. Whoever knows it can say
    that all is well, so it is a secret. A POST with the facts goes to `URL/start`, at the end to `URL/0` or `URL/<exit
    code>`, with `?rid=` in common. A stop goes to `URL/log`: it is no failure, and the alarm comes if nobody resumes in
    time. What a `cancel`, `undo` or `refresh` says goes there, too, unless it went wrong: none of them is a load that
    came in. Redirects are not followed; it is tried three times."""
    partial: Literal["fail", "success"] = "fail"
    """What a ping says of a run that ended as `partial`: a check knows only success and failure. `"success"` sends
    0."""
    seconds: Annotated[float, Meta(gt=0, le=3600)] = 30.0
    """Longest time for one hook. A command is then killed with its process group. After a signal, what is left of the
    ten seconds."""

    def __post_init__(self) -> None:
        for state in self.states:
            if state not in HOOK_STATES:
                near = get_close_matches(state, HOOK_STATES, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(HOOK_STATES)}"
                raise ValueError(f"states: {state!r} is not one; {hint}")
        if bool(self.command) == (self.ping is not None):
            raise ValueError('command: a hook has either a command, as in ["mail", "-s", "done"], or a ping')


class CallbackSettings(Section, frozen=True, kw_only=True):
    """`[callback]`: where the service's callbacks are received, and what proves that they are its own: one of four."""

    listen: str = "127.0.0.1:8899"
    """Address and port, any path. TLS, and the way from outside, are matters of a proxy before it. If it is taken, by a
    second job say, a warning says so, and the service is asked as ever."""
    basic: SecretStr | None = None
    """`name:password` of Basic authentication."""
    token: SecretStr | None = None
    """Of the header X-Auth-Token."""
    access_key: SecretStr | None = None
    """Of the query of the URL."""
    hmac_key: SecretStr | None = None
    """Of an HMAC-SHA-256 signature. The vendor does not say what is signed; our guess: base64 of the digest of
    `X-wsm-date`, a line feed and the body. A signature is good for 15 minutes."""

    def __post_init__(self) -> None:
        if sum(one is not None for one in (self.basic, self.token, self.access_key, self.hmac_key)) != 1:
            raise ValueError("token: callbacks are proven by one of basic, token, access_key and hmac_key")
        host, _, port = self.listen.rpartition(":")
        if not host or not port.isascii() or not port.isdecimal() or int(port) > _LAST_PORT:
            raise ValueError(f"listen: {self.listen!r} is no address with a port; write it as 127.0.0.1:8899")

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)


class Settings(Section, frozen=True, kw_only=True):
    """The whole file. `service` is checked by the service it names."""

    service: dict[str, Any]
    ledger: Annotated[str, Meta(min_length=1)] | None = None
    """Path of the ledger, from this file's folder, or the URL of a database of PostgreSQL, without a password; for the
    commands that take `--config`; a regular file's only, no pipe's. `--ledger` and `BULKSUBMIT_LEDGER` stand above it.
    It stands before the first `[table]`."""
    source: SourceSettings = SourceSettings()
    mapping: MappingSettings = MappingSettings()
    batch: BatchSettings = BatchSettings()
    send: SendSettings = SendSettings()
    metrics: MetricsSettings = MetricsSettings()
    delta: DeltaSettings = DeltaSettings()
    window: WindowSettings = WindowSettings()
    limits: LimitSettings = LimitSettings()
    hooks: tuple[HookSettings, ...] = ()
    callback: CallbackSettings | None = None


class RunLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a person says of one run; what is said here stands above `[window]` and `[limits]`."""

    deadline: str = ""
    window: str = ""
    """As in "22:00-06:00"."""
    zone: str = ""
    max_records: int | None = None
    max_failed: str = ""
    fail_if_empty: bool = False

    def over(self, settings: Settings) -> Settings:
        """Return settings with what is said here.

        Raises:
            ValueError: something of it cannot be read; begins with its name.
        """
        opens, dash, closes = self.window.partition("-")
        if self.window and not dash:
            raise ValueError(f"window: {self.window!r} has no two times; write it as 22:00-06:00")
        said = {"opens": opens.strip(), "closes": closes.strip(), "zone": self.zone}
        window = _laid_over(settings.window, said)
        names = ("deadline", "max_records", "max_failed", "fail_if_empty")
        limits = _laid_over(settings.limits, {name: getattr(self, name) for name in names})
        return msgspec.structs.replace(settings, window=window, limits=limits)


_Table = TypeVar("_Table", bound=Section)


def _laid_over(table: _Table, said: Mapping[str, Any]) -> _Table:
    """Return a table with what is said; what is not said stays."""
    return type(table)(**{**msgspec.structs.asdict(table), **{key: value for key, value in said.items() if value}})
