"""Makes a configuration: what it asks, what is wrong with an answer, the file, and what to do next.

A service says by its settings what is asked (`QUESTIONS`), and may propose how rows become tasks (`propose_mapping`). A
secret is never asked for: only which variable of the environment holds it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args, get_origin

import anyio
from msgspec import Struct
from msgspec.structs import fields, replace

from engine.commands import wiring
from engine.commands.configuration import check, hide_secret, rooted
from engine.commands.inspection import Inspected, look_into
from engine.files import sync_folder
from engine.model.errors import ConfigError
from engine.model.job import Job
from engine.model.record import Position
from engine.model.settings import Question, SecretStr, Section, ServiceSettings
from engine.model.tables import section_in
from engine.services.base import MappingProposal, ServiceModule
from engine.services.described.shipped import is_shipped, open_questions, whole

IGNORED = ".bulksubmit/"
"""Where jobs leave their reports and ledgers, in a working folder; nothing for a repository."""
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
_SECRET_LIKE = re.compile(r"(?=[^_]*[0-9])(?=[^_]*[A-Za-z])[A-Za-z0-9]{20,}")
"""Long, with letters and digits and nothing to part its words: no variable is called so, and keys look so."""


_TAKEN = frozenset({"--from", "--format", "--output", "--overwrite", "--yes", "--json", "--log-level", "--log-format"})
"""Options that `init` has for itself."""


class AskedQuestion(Struct, frozen=True):
    """A question, and what its answer is."""

    question: Question
    option: str
    """Of the command line, as `--project-id`."""
    secret: bool
    """The answer is the name of a variable."""
    yes_no: bool
    """The answer is yes or no."""

    @property
    def parameter(self) -> str:
        """Its name among the parameters of a function."""
        return self.question.key.replace(".", "_")


class Made(Struct, frozen=True):
    """A configuration that was written."""

    file: Path
    kind: str
    variables: Sequence[str]
    """Of the environment, that have to be set."""
    inspected: Inspected | None
    proposal: MappingProposal
    fit: int
    """Of the records that were looked at, those that can be sent as it is."""
    flaw: str
    """Why the first one that is not fit is not; "" if all are."""
    ignoring: Path | None
    """The .gitignore that was made or has one line more."""


def questions(kind: str) -> Sequence[AskedQuestion]:
    """Return what to ask for a service: what it declares, then its other keys without a default.

    Raises:
        ConfigError: there is no such service.
    """
    settings = wiring.service_module(kind).SETTINGS
    if is_shipped(kind):
        return [_asked(kind, question, _type_of(settings, question.key)) for question in open_questions(kind)]
    declared = {question.key: question for question in settings.QUESTIONS}
    if strangers := [key for key in declared if key == "kind" or _type_of(settings, key) is None]:
        raise ConfigError(
            f"service {kind!r} has questions about {', '.join(strangers)}, which is no key of its settings"
        )
    required = [one for one in fields(settings) if one.required and one.name != "kind" and not section_in(one.type)]
    others = [Question(one.name, f"{one.name} of [service]") for one in required if one.name not in declared]
    return [_asked(kind, question, _type_of(settings, question.key)) for question in [*declared.values(), *others]]


def _type_of(settings: type[Section], key: str) -> Any:
    """Return the type of a dotted key; None if there is no such key."""
    name, dot, rest = key.partition(".")
    type_ = next((one.type for one in fields(settings) if one.encode_name == name), None)
    if not dot or type_ is None:
        return type_
    inner = section_in(type_)
    if inner is not None:
        return _type_of(inner, rest)
    return get_args(type_)[1] if get_origin(type_) is dict else None


def _asked(kind: str, question: Question, type_: Any) -> AskedQuestion:
    secret = SecretStr in {type_, *get_args(type_)}
    if secret and not question.proposal:
        question = replace(question, proposal=re.sub(r"\W", "_", f"{kind}_{question.key}").upper())
    option = f"--{re.sub('[._]', '-', question.key)}{'-variable' if secret else ''}"
    option = f"--service{option[1:]}" if option in _TAKEN else option
    return AskedQuestion(question, option, secret, bool in {type_, *get_args(type_)})


def answer_flaw(kind: str, asked: AskedQuestion, answer: str, others: Mapping[str, str]) -> str:
    """Return what is wrong with an answer, "" if nothing is; `others`: the answers so far, by key.

    A secret that was typed in place of a name is not shown.
    """
    if asked.secret:
        if not _VARIABLE.fullmatch(answer):
            return "that is no name of a variable; it has letters, digits and _ only. The secret itself stays outside"
        if _SECRET_LIKE.fullmatch(answer) and answer not in os.environ:
            return "that looks like a secret itself; give the name of the variable that holds it"
        return ""
    begin = f"service.{asked.question.key}"
    values = _with(_values(kind, others), asked.question.key, answer)
    try:
        _build(kind, values)
    except ConfigError as error:
        for line in str(error).splitlines():
            place, _, words = line.partition(": ")
            if place == begin and words != "missing":
                return words
    return ""


def _build(kind: str, values: Mapping[str, Any]) -> None:
    """Check a table of the service, and let the service have its say.

    Raises:
        ConfigError: something is wrong with it, or missing.
    """
    module = wiring.service_module(kind)
    settings = _settings(kind, values)
    wiring.check_service(module, settings)


def _settings(kind: str, values: Mapping[str, Any]) -> ServiceSettings:
    """Return a table of the service, checked."""
    return check(wiring.service_module(kind).SETTINGS, whole({**values, "kind": kind}), "service", hide_secret)


def _values(kind: str, answers: Mapping[str, str]) -> Mapping[str, Any]:
    """Return the table of the service that answers make, without its kind."""
    table: Mapping[str, Any] = {}
    for key, value in ({} if is_shipped(kind) else wiring.service_module(kind).SETTINGS.UNASKED).items():
        table = _with(table, key, value)
    for asked in questions(kind):
        answer = answers.get(asked.question.key, "")
        if answer:
            table = _with(table, asked.question.key, f"${{env:{answer}}}" if asked.secret else answer)
    return table


def _with(table: Mapping[str, Any], key: str, value: Any) -> Mapping[str, Any]:
    """Return a table with a value at a dotted key."""
    name, dot, rest = key.partition(".")
    return {**table, name: _with(table.get(name, {}), rest, value) if dot else value}


def make(
    kind: str,
    answers: Mapping[str, str],
    file: Path,
    *,
    source: Path | str | None = None,
    format: str | None = None,  # noqa: A002 - as the option is called
    overwrite: bool = False,
) -> Made:
    """Look at a source, write the configuration, and check it as `validate` does. Blocks.

    Args:
        kind: of the service.
        answers: what was answered, by key.
        file: where the configuration goes.
        source: file, URL or S3 object whose rows shall become tasks; what is no plain file is copied for a while.
        format: how it is written; told by its name or content where left out.
        overwrite: there may be such a file.

    Raises:
        ConfigError: there is such a file, it cannot be written, or what was answered cannot be used.
        SourceError: the source cannot be read.
    """
    check_free(file, overwrite=overwrite)
    module = wiring.service_module(kind)
    try:
        _build(kind, _values(kind, answers))
    except ConfigError as error:
        if str(error).partition(": ")[0] in {f"service.{one.question.key}" for one in questions(kind)}:
            raise
        raise ConfigError(
            f"{error}. `init` does not ask for it: answer otherwise, and write it into the file"
        ) from error
    settings = _settings(kind, _values(kind, answers))
    with TemporaryDirectory(prefix="bulksubmit-") as copies:
        inspected = None
        if source is not None:
            inspected = anyio.run(look_into, str(source), format, Path(copies))
        return _made(kind, answers, file, module, settings, inspected)


def _made(
    kind: str,
    answers: Mapping[str, str],
    file: Path,
    module: ServiceModule,
    settings: ServiceSettings,
    inspected: Inspected | None,
) -> Made:
    from engine.commands.drafting import draft  # noqa: PLC0415 - tomlkit: 0.04 s, only where a file is written

    proposal = _proposed(module, settings, inspected)
    folder = _folder(file)
    rows = [
        (one.question, answer if one.secret else _plain(settings, one, answer, folder), one.secret)
        for one in questions(kind)
        if (answer := answers.get(one.question.key, ""))
    ]
    if not is_shipped(kind):
        rows += [(Question(key, ""), value, False) for key, value in settings.UNASKED.items()]
    text = draft(kind, rows, inspected, proposal, () if is_shipped(kind) else settings.NOTES)
    fit, flaw = _tried(rooted(text, settings.PATHS, folder), inspected)
    _write(file, text)
    variables = [answers[one.question.key] for one in questions(kind) if one.secret and answers.get(one.question.key)]
    return Made(file, kind, variables, inspected, proposal, fit, flaw, _ignore(folder))


def check_free(file: Path, *, overwrite: bool) -> None:
    """Refuse to write over a file, unless that is wanted.

    Raises:
        ConfigError: there is one.
    """
    if not overwrite and os.path.lexists(file):
        raise ConfigError(f"{file} exists: name another --output, or say --overwrite")


def _plain(settings: ServiceSettings, asked: AskedQuestion, answer: str, folder: Path) -> Any:
    """Return an answer as the file has it: numbers and truth values as such, a path as it is meant from its folder."""
    value: Any = settings
    for name in asked.question.key.split("."):
        value = value.get(name) if isinstance(value, Mapping) else getattr(value, name)
    if asked.question.key in settings.PATHS:
        return os.path.relpath(answer, folder)
    return value if isinstance(value, bool | int | float) else answer


def _proposed(module: ServiceModule, settings: ServiceSettings, inspected: Inspected | None) -> MappingProposal:
    if inspected is None or not inspected.columns:
        return MappingProposal()
    propose = getattr(module, "propose_mapping", None)
    if propose is None:
        types = {one.name: one.type for one in inspected.columns if one.textual and one.type != "string"}
        return MappingProposal(types=types, notes=["Each row goes up as it is. [mapping] would change that."])
    proposed: MappingProposal = propose(inspected.columns, settings)
    return proposed


def _tried(text: str, inspected: Inspected | None) -> tuple[int, str]:
    """Read the configuration as every command does, and make tasks of the records that were looked at.

    Raises:
        ConfigError: it cannot be used.
    """
    setup = wiring.load(text, hide_secret, processes=0)
    job = Job("init", setup.service.kind, "", (inspected.source,) if inspected else (), "")
    offline = wiring.offline(setup, job)
    fit, flaw = 0, ""
    if inspected is None or not inspected.records:
        return 0, ""
    for block in offline.tasks(job, Position()):
        fit += sum(index < inspected.records for index in block.indexes)
        flaw = flaw or next((bad.reason for bad in block.rejects if bad.index < inspected.records), "")
        if block.end.index >= inspected.records:
            break
    return fit, flaw


def _folder(file: Path) -> Path:
    """Return the folder of a file, made if it is missing: paths in the configuration are meant from there."""
    folder = file.absolute().parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be made: {error.strerror or error}; name another --output") from error
    return folder


def _write(file: Path, text: str) -> None:
    """Write a file whole, or not at all."""
    growing = file.with_name(f"{file.name}.{os.getpid()}.part")
    try:
        with growing.open("x", encoding="utf-8") as opened:
            opened.write(text)
        growing.replace(file)
        sync_folder(file.absolute().parent)
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror or error}; name another --output") from error
    finally:
        with suppress(OSError):
            growing.unlink()


def _ignore(folder: Path) -> Path | None:
    """Have git ignore what jobs leave in a folder, if it is in a repository and nothing there says so already."""
    within = [folder, *folder.parents]
    root = next((one for one in within if (one / ".git").exists()), None)
    if root is None:
        return None
    files = [one / ".gitignore" for one in within[: within.index(root) + 1]] + [root / ".git" / "info" / "exclude"]
    patterns = {f"{begin}.bulksubmit{end}" for begin in ("", "/", "**/") for end in ("", "/", "/*", "/**")}
    if any(not patterns.isdisjoint(_lines(one)) for one in files):
        return None
    file = files[0]
    try:
        with file.open("a+b") as opened:
            opened.seek(0)
            before = opened.read()
            opened.write((b"\n" if before and not before.endswith(b"\n") else b"") + f"{IGNORED}\n".encode())
    except OSError:  # a matter of comfort: the configuration is there
        return None
    return file


def _lines(file: Path) -> list[str]:
    try:
        return [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError):
        return []
