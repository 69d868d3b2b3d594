"""Writes the parts of the pages that the code knows best: `make docs`. A test compares them with what is committed.

A page has them between `<!-- generated: NAME … -->` and `<!-- end -->`. NAME is a function of `PARTS`; what follows it
are its arguments. What they say comes from the code: types, defaults, docstrings, and the help of options. So a mistake
in such a part is mended in the code.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import msgspec
from msgspec import inspect as types

from engine.cli import app as commands
from engine.model.errors import Exit
from engine.model.job import Job
from engine.model.outcome import Fate, Outcome
from engine.model.record import Format, Source
from engine.model.settings import SecretText, SecretTree, ServiceSettings
from engine.progress.events import Event
from engine.reports.outcomes import Fated, reject_lines
from engine.services.described.settings import StepTable

ROOT = Path(__file__).parents[1]
_PART = re.compile(r"(?P<begin><!-- generated: (?P<words>[^>]+) -->\n).*?(?P<end><!-- end -->)", re.DOTALL)
_UNITS = {"_per_second": "a second", "seconds": "seconds", "_bytes": "bytes"}
"""End of a key's name → its unit."""
_NO_BOUND = 2**31
"""A bound from here on is one of the machine, and says nothing to people."""
_NAMES: Mapping[type[Any], str] = {
    types.StrType: "text",
    types.BoolType: "true or false",
    types.IntType: "integer",
    types.FloatType: "number",
    types.AnyType: "any value",
    types.DictType: "table",
}


_SCALARS = {types.StrType, types.BoolType, types.IntType, types.FloatType}
_CUSTOM = {"SecretStr": "secret", "SecretText": "text", "SecretTree": "table", "Path": "path"}
"""Types of ours → what people call them."""


class UndocumentedError(Exception):
    """Something of the reference has no sentence in the code."""


# --- what the code says of a class ------------------------------------------------------------------------------------


def field_texts(owner: type[Any]) -> dict[str, str]:
    """Return the docstrings of the fields of a class, those of its bases included."""
    texts: dict[str, str] = {}
    for base in reversed(owner.__mro__):
        if issubclass(base, msgspec.Struct | Enum) and base.__module__ not in {"enum", "msgspec"}:
            texts |= {name: text for name, (_, text) in _fields(base).items() if text}
    return texts


def _fields(owner: type[Any]) -> dict[str, tuple[str, str]]:
    """Return each name that the body of a class defines, with its annotation and its docstring."""
    (body,) = ast.parse(inspect.getsource(owner)).body
    if not isinstance(body, ast.ClassDef):
        raise TypeError(f"{owner} is no class")
    found = {}
    for node, after in zip(body.body, [*body.body[1:], None], strict=True):
        target = getattr(node, "target", None) or next(iter(getattr(node, "targets", [])), None)
        if isinstance(target, ast.Name):
            annotation = ast.unparse(node.annotation) if isinstance(node, ast.AnnAssign) else ""
            found[target.id] = annotation, _docstring(after)
    return found


def _docstring(node: ast.stmt | None) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return inspect.cleandoc(node.value.value)
    return ""


def _line(text: str) -> str:
    """Return a text as one cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


# --- the configuration ------------------------------------------------------------------------------------------------


def keys(path: str, *left_out: str) -> list[str]:
    """The keys of a table of the configuration, by the path of its Struct, but for those that are `left_out`."""
    module, _, name = path.rpartition(".")
    struct = getattr(import_module(module), name)
    info, texts = types.type_info(struct), field_texts(struct)
    rows = []
    for field in info.fields:
        if field.name in left_out or (field.name == "kind" and issubclass(struct, ServiceSettings)):
            continue
        if field.name not in texts:
            raise UndocumentedError(f"{path}.{field.name} has no docstring")
        rows.append([f"`{field.encode_name}`", type_words(field), _default(field), _line(texts[field.name])])
    return _table(["key", "type", "default", ""], rows)


def step_keys(path: str) -> list[str]:
    """The keys of a step of a description, but for those that every step has."""
    return keys(path, *(field for field in StepTable.__struct_fields__))


def type_words(field: Any) -> str:
    """Return the type of a key for people, with its bounds and its unit."""
    words = _words_of(field.type)
    unit = next((unit for end, unit in _UNITS.items() if field.name.endswith(end)), "")
    return f"{words}, {unit}" if unit and words.startswith(("number", "integer")) else words


def _words_of(kind: Any) -> str:  # noqa: PLR0911 - a table
    match kind:
        case types.UnionType() if len(kind.types) == len(_SCALARS) and set(map(type, kind.types)) == _SCALARS:
            return "text, number or truth value"
        case types.UnionType():
            return " or ".join(_words_of(one) for one in kind.types if not isinstance(one, types.NoneType))
        case types.LiteralType():
            return ", ".join(f'`"{value}"`' for value in kind.values)
        case types.StructType():
            return "table"
        case types.Metadata():
            item = _words_of(kind.type.item_type)
            return f"{item}, or a list of such" if " or " in item else f"{item} or list of {item}s"
        case types.ListType() | types.VarTupleType():
            item = _words_of(kind.item_type)
            return f"list of {item}s" if " or " not in item else f"list: {item}"
        case types.DictType() if not isinstance(kind.value_type, types.AnyType | types.StrType):
            return f"table of {_words_of(kind.value_type)}"
        case types.CustomType():
            return _CUSTOM.get(kind.cls.__name__, kind.cls.__name__)
    return _bounded(kind)


def _bounded(kind: Any) -> str:
    name, least, most = _NAMES[type(kind)], getattr(kind, "ge", None), getattr(kind, "le", None)
    if getattr(kind, "gt", None) is not None:
        return f"{name} over {kind.gt:g}"
    if least is not None and most is not None and most < _NO_BOUND:
        return f"{name} from {least:g} to {most:g}"
    return name if least is None else f"{name} from {least:g} on"


def _default(field: Any) -> str:
    if field.required:
        return "required"
    value = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
    if value is None or value == "" or isinstance(value, msgspec.Struct | SecretText | SecretTree):
        return "none"
    if isinstance(value, tuple | list):
        return f"`{list(value)}`".replace("'", '"')
    if isinstance(value, str):
        return f'`"{value}"`'
    return f"`{str(value).lower() if isinstance(value, bool) else f'{value:g}' if isinstance(value, float) else value}`"


# --- the commands -----------------------------------------------------------------------------------------------------


def _commands() -> dict[str, Any]:
    return dict(commands.root().commands)


def command_list() -> list[str]:
    """One line for each command, with a link to its part of commands.md."""
    rows = []
    for name, command in _commands().items():
        sentence, _, _ = command.help.partition("\n")
        rows.append([f"[`{name}`](docs/commands.md#{name})", _line(sentence)])
    return _table(["command", "what it does"], rows)


def command_reference() -> list[str]:
    """Each command with its usage, its help, its arguments and its options."""
    lines = []
    for name, command in _commands().items():
        lines += [f"## {name}", "", *_command_part(name, command)]
        if name == "init":
            for kind in ("sama", "sevenbridges", "http"):
                more = _options(commands.parser_of(name, [kind]), name)
                common = _options(command, name)
                rows = [row for row in more if row not in common]
                lines += [f"With `init {kind}` besides:", "", *_table(["option", ""], rows), ""]
    return lines[:-1]


def _command_part(name: str, command: Any) -> Iterator[str]:
    context = command.make_context(name, [], resilient_parsing=True)
    pieces = " ".join(command.collect_usage_pieces(context))
    yield from (f"`bulksubmit {name} {pieces}`", "")
    for paragraph in command.help.split("\n\n"):
        yield from (" ".join(paragraph.split()), "")
    yield from (*_table(["argument or option", ""], _options(command, name)), "")


def _options(command: Any, name: str) -> list[list[str]]:
    context = command.make_context(name, [], resilient_parsing=True)
    rows = []
    for one in command.get_params(context):
        if one.name == "help":
            continue
        words, sentence = one.get_help_record(context)
        if not sentence.strip():
            raise UndocumentedError(f"{name} {words} has no help")
        shown = one.metavar if one.param_type_name == "argument" else words
        rows.append([f"`{shown}`", _line(sentence).replace("<", "&lt;")])
    return rows


# --- events, exit codes, files ----------------------------------------------------------------------------------------


def events() -> list[str]:
    """Each event with its fields."""
    lines = []
    for event in get_args(Event):
        lines += [f"## {event.__name__}", "", " ".join((event.__doc__ or "").split()), ""]
        texts = field_texts(event)
        rows = [
            [f"`{name}`", f"`{_line(annotation)}`".replace("\\|", "or"), _line(texts.get(name, ""))]
            for name, (annotation, _) in _fields(event).items()
            if name in event.__struct_fields__
        ]
        lines += [*_table(["field", "type", ""], rows), ""]
    return lines[:-1]


def exit_codes() -> list[str]:
    """Each exit code: what it means, and what a scheduler does."""
    texts = field_texts(Exit)
    rows = []
    for code in Exit:
        meaning, paragraph, scheduler = texts.get(code.name, "").partition("\n\n")
        if not paragraph:
            raise UndocumentedError(f"Exit.{code.name} does not say, in two paragraphs, what it means and what to do")
        rows.append([str(code.value), _line(meaning), _line(scheduler)])
    signals = [
        "129, 130, 143",
        "Interrupted (SIGHUP, SIGINT, SIGTERM), after what was under way has finished, or ten seconds later.",
        "Tries again later.",
    ]
    return _table(["code", "meaning", "a scheduler"], [*rows[:1], *rows[2:], signals, rows[1]])


def outcome_fields() -> list[str]:
    """The keys of a line of outcomes.ndjson."""
    return _file_rows(Outcome(0, "", 0, Fate.CREATED).as_line(), field_texts(Outcome))


def reject_fields() -> list[str]:
    """The keys of a line of rejects.ndjson."""
    job = Job("job", "sama", "", (Source(0, "a", Format.NDJSON, 2, 0, 0),), "out")
    fated = Fated(Outcome(0, "a", 0, Fate.FAILED), 0, 2, 1)
    (line,) = reject_lines(job, [fated], lambda offset, length: b"{}"[offset : offset + length])
    return _file_rows(msgspec.json.decode(line), {**field_texts(Outcome), **_OF_REJECTS})


_OF_REJECTS = {
    "job": "Whose reject it is: the job, or one of its retries.",
    "line": "Where the record begins in its source, from 1; null only in batches that a ledger before version 5 has "
    "frozen.",
    "attempts": "How often it was tried: 1, and one more for each retry.",
    "record": "The record as it was read. Mend it here; `retry` sends what then stands here.",
}
"""What no docstring of a field says."""


def _file_rows(line: Mapping[str, Any], texts: Mapping[str, str]) -> list[str]:
    if missing := line.keys() - texts.keys():
        raise UndocumentedError(f"nothing says what is in {', '.join(sorted(missing))} of a report's line")
    return _table(["key", ""], [[f"`{key}`", _line(texts[key])] for key in line])


def members(path: str) -> list[str]:
    """The values of an enumeration of texts, with their docstrings."""
    module, _, name = path.rpartition(".")
    kind = getattr(import_module(module), name)
    texts = field_texts(kind)
    return _table(["value", ""], [[f"`{one.value}`", _line(texts.get(one.name, ""))] for one in kind])


# --- pages ------------------------------------------------------------------------------------------------------------

PARTS: Mapping[str, Callable[..., list[str]]] = {
    part.__name__: part
    for part in (
        keys,
        step_keys,
        members,
        command_list,
        command_reference,
        events,
        exit_codes,
        outcome_fields,
        reject_fields,
    )
}


def pages() -> list[Path]:
    """Return the pages that may have such parts."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def generated(text: str) -> str:
    """Return a page with its parts as the code has them now."""

    def part(found: re.Match[str]) -> str:
        name, *arguments = found["words"].split()
        return found["begin"] + "\n".join(PARTS[name](*arguments)) + "\n" + found["end"]

    return _PART.sub(part, text)


def main() -> None:
    """Write all pages anew."""
    for page in pages():
        text = page.read_text(encoding="utf-8")
        page.write_text(generated(text), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
