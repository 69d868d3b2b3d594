"""A TOML file in, checked settings out; secrets are taken from where they are kept and never from the file itself.

Only `${env:NAME}` and `${file:/path}` are expanded. The text of the file, with its references as they are, is what the
ledger remembers, so a resumed job reads the same settings and today's secrets. A program may give tables instead of a
file: they become such a text, and a `SecretStr` in them the reference `${given:PLACE}`, which stands for it while the
operation lasts that it was given to.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections import abc
from collections.abc import Callable, Collection, Iterator, Mapping
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeAlias, Union, get_args, get_origin

import orjson

from engine.files import regular
from engine.model.errors import ConfigError
from engine.model.settings import SecretStr, SecretText, SecretTree, Section, ServiceSettings, texts_in
from engine.model.tables import Model, fields_of, table_of
from engine.progress.redaction import remember_secret, url_passwords

MAX_FILE_BYTES = 1 << 20
"""Of a configuration, and of a file that holds a secret: whatever is longer is something else, /dev/zero for one."""
MOST_NESTED = 64
"""Levels of tables and arrays; a template needs ten."""
_TOO_DEEP = f"the configuration is nested deeper than {MOST_NESTED} levels: make it flatter"
_LONG_KEY = re.compile(
    r"""(?<![\w"'-])(?:(?:[\w-]++|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){%d}""" % MOST_NESTED  # noqa: UP031
)
"""A key of as many parts: reading one of a megabyte takes tomllib many minutes."""
_REFERENCE = re.compile(r"\$\{(env|file|given):([^}]+)\}")
_given_secrets: ContextVar[Mapping[str, str] | None] = ContextVar("given_secrets", default=None)
"""The secrets that a program has given to the operation under way, by their place in its configuration."""

Config: TypeAlias = Path | str | Mapping[str, Any]
"""A configuration as a program names it: the path of a TOML file, or its tables."""

HIDDEN = "********"
"""Stands for a reference that could not be followed, where none is needed."""

Expand = Callable[[str, str], str]
"""(key, text) → text with its references replaced."""


def read_text(path: Path) -> str:
    """Return the text of a configuration file.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        return _text_of(path)  # a pipe, too, as in --config <(…)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        advice = ": check the path, or make one by `bulksubmit init`" if isinstance(error, FileNotFoundError) else ""
        raise ConfigError(f"configuration {path} cannot be read: {why}{advice}") from error


def text_of(tables: Mapping[str, Any]) -> str:
    """Return the tables that a program gives as the text of a file; their secrets are known to this operation only.

    Raises:
        ConfigError: a value is none that TOML has.
    """
    import tomlkit  # noqa: PLC0415 - slow to load, and only programs need it
    from tomlkit.exceptions import TOMLKitError  # noqa: PLC0415 - likewise

    secrets: dict[str, str] = {}
    try:
        text = tomlkit.dumps(_plain(tables, "", secrets))
    except (TOMLKitError, ValueError, RecursionError) as error:
        raise ConfigError(f"the configuration cannot be written as TOML: {error}") from error
    _given_secrets.set({**(_given_secrets.get() or {}), **secrets})
    return text


def _plain(value: Any, place: str, secrets: dict[str, str]) -> Any:
    """Return a value of a configuration as TOML has it, and add the secrets in it to `secrets`."""
    match value:
        case SecretStr():
            name = place.replace("}", ")")  # which would end the reference
            secrets[name] = value.get_secret_value()
            return f"${{given:{name}}}"
        case Mapping():
            return {
                str(key): _plain(item, f"{place}.{key}" if place else str(key), secrets) for key, item in value.items()
            }
        case list() | tuple():
            return [_plain(item, f"{place}[{at}]", secrets) for at, item in enumerate(value)]
        case Path():
            return str(value)
        case None:
            raise ConfigError(f"{place}: None is no value; leave the key out")
        case _:
            return value


def rooted(text: str, keys: Collection[str], folder: Path) -> str:
    """Return the text of a configuration in which the values of some keys, paths, begin at the root."""
    if not keys:
        return text
    names = "|".join(map(re.escape, sorted(keys)))
    # Blanks of one line only: over many blank lines, each would be tried as far as the last.
    path = re.compile(rf"""^([ \t]*(?:{names})[ \t]*=[ \t]*)("(?:[^"\\\n]|\\.)+"|'[^'\n]+')""", re.MULTILINE)

    def absolute(found: re.Match[str]) -> str:
        return found[1] + orjson.dumps(str(folder / parse_toml(f"path = {found[2]}")["path"])).decode().replace(
            "\x7f", "\\u007f"
        )

    try:
        return path.sub(absolute, text)
    except TypeError as error:  # the folder's name is not UTF-8, and the ledger could not keep it
        raise ConfigError(
            f"{folder} has a name that is not UTF-8: put the configuration into another folder"
        ) from error


def _text_of(path: Path, opener: Callable[[str, int], int] | None = None) -> str:
    """Return what a short file holds; a ValueError if it is none, or not UTF-8."""
    with open(path, "rb", opener=opener) as file:
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(f"longer than {MAX_FILE_BYTES // 1024} KiB")
    return content.decode()


def parse_toml(text: str) -> dict[str, Any]:
    """Return the tables of a configuration.

    Raises:
        ConfigError: it is no TOML, or nested deeper than any use of it.
    """
    if _LONG_KEY.search(text):
        raise ConfigError(_TOO_DEEP)
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"the configuration is not valid TOML: {error}") from error
    except RecursionError:
        raise ConfigError(_TOO_DEEP) from None
    level: list[Any] = [tables]
    for _ in range(MOST_NESTED):
        inner = [list(one.values()) if isinstance(one, dict) else one for one in level]
        level = [one for values in inner for one in values if isinstance(one, dict | list)]
        if not level:
            return tables
    raise ConfigError(_TOO_DEEP)


def expand_secret(key: str, text: str) -> str:
    """Replace each reference in `text` by what it stands for.

    Raises:
        ConfigError: the variable is not set or the file cannot be read; the error names `key`, never a value.
    """
    return _REFERENCE.sub(lambda match: _resolved(key, *match.groups()), text)


def hide_secret(key: str, text: str) -> str:
    """Stand in for `expand_secret` where no secret is needed (reports, audits, validation): hide what is not there.

    What is there is expanded: not every reference is a secret, and a project's number has to be one.
    """

    def resolve(match: re.Match[str]) -> str:
        try:
            return _resolved(key, *match.groups())
        except ConfigError:
            return HIDDEN

    return _REFERENCE.sub(resolve, text)


def _resolved(key: str, kind: str, name: str) -> str:
    """Return what `${kind:name}` stands for."""
    if kind == "env":
        if not os.environ.get(name):
            raise ConfigError(f"{key}: environment variable {name} is not set")
        return os.environ[name]
    if kind == "given":
        given = _given_secrets.get() or {}
        if name not in given:
            raise ConfigError(
                f"{key}: its value was given by a program and is kept nowhere: give the configuration again (config=…, "
                "or --config FILE)"
            )
        return given[name]
    try:
        return _text_of(Path(name), opener=regular).strip()
    except OSError as error:
        raise ConfigError(f"{key}: {name} cannot be read: {error.strerror}") from None
    except ValueError as error:  # of a UnicodeDecodeError the words show what the file holds
        raise ConfigError(f"{key}: {name} cannot be read: {error.__class__.__name__}") from None


def check(model: type[Model], table: dict[str, Any], where: str, expand: Expand) -> Model:
    """Return `table` as a checked `model`; `where` is its place in the file, for errors.

    Raises:
        ConfigError: names the key, what is wrong with it and, for an unknown key, the nearest known one.
    """
    found = [*_values(model, table, where)]
    for place, value, secret in found:
        if secret is SecretStr:
            table_name = table.get("kind") or re.split(r"\W", place)[0]
            _refuse_literal(value, place, f"{table_name}_{place.rpartition('.')[2]}")
        elif secret is None:
            _refuse_references(model, value, place, where)
            _refuse_files(value, place)
    complaints: list[str] = []
    trees = {id(value) for _, value, secret in found if secret is SecretTree and not isinstance(value, str)}
    expanded = _expanded(table, where, expand, trees)
    checked = table_of(model, expanded, where, complaints)
    if checked is None:
        raise ConfigError("\n".join(complaints))
    if expand is expand_secret:
        for place, value, secret in found:
            if secret is not None:
                _remember_secrets(place, value)
        for text in texts_in(expanded):
            for password in url_passwords(text):
                remember_secret(password)
    return checked


def secret_variables(model: type[Section], table: dict[str, Any]) -> frozenset[str]:
    """Return the names of the environment's variables from which the secrets of a table come."""
    secrets = [value for _, value, secret in _values(model, table, "") if secret is not None]
    return frozenset(name for text in texts_in(secrets) for name in variables_in(text))


def variables_in(text: str) -> frozenset[str]:
    """Return the names of all variables of the environment that the text of a configuration names."""
    return frozenset(name for kind, name in _REFERENCE.findall(text) if kind == "env")


_SECRETS = (SecretStr, SecretText, SecretTree)


def _values(kind: Any, value: Any, place: str) -> Iterator[tuple[str, Any, type | None]]:
    """Yield place and value of each known key, at any depth, and their type where secrets may stand in it.

    What holds neither tables of ours nor secrets is one value.
    """
    kinds = [*_alternatives(kind)]
    tables = [one for one in kinds if isinstance(one, type) and issubclass(one, Section)]
    if isinstance(value, dict) and tables:
        for field in fields_of(tables[0]):
            if field.encode_name in value:
                key = f"{place}.{field.encode_name}" if place else field.encode_name
                yield from _values(field.type, value[field.encode_name], key)
        return
    inner = next((one for one in map(partial(_kind_within, value), kinds) if one is not None), None)
    if inner is None:
        yield place, value, next((one for one in kinds if one in _SECRETS), None)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _values(inner, item, f"{place}.{key}")
    else:
        for at, item in enumerate(value):
            yield from _values(inner, item, f"{place}[{at}]")


def _alternatives(kind: Any) -> Iterator[Any]:
    """Yield the types of which a value has one."""
    origin = get_origin(kind)
    if origin is Annotated:
        yield from _alternatives(get_args(kind)[0])
    elif origin in {Union, UnionType}:
        for one in get_args(kind):
            yield from _alternatives(one)
    else:
        yield kind


def _kind_within(value: Any, kind: Any) -> Any:
    """Return the type of the items of a list or a table, if secrets may stand in them; else None."""
    origin = get_origin(kind)
    if not isinstance(value, dict | list) or not isinstance(origin, type):
        return None
    wanted = abc.Mapping if isinstance(value, dict) else abc.Sequence
    inner = get_args(kind)[-1 if isinstance(value, dict) else 0] if issubclass(origin, wanted) else None
    return inner if inner is not None and _may_hide(inner) else None


def _may_hide(kind: Any) -> bool:
    """Return whether secrets may stand in a value of a type."""
    return any(
        one in _SECRETS or (isinstance(one, type) and issubclass(one, Section)) or any(map(_may_hide, get_args(one)))
        for one in _alternatives(kind)
    )


def _remember_secrets(place: str, value: Any) -> None:
    """Have what a secret's references stand for hidden from now on; the letters beside them are no secret."""
    for text in texts_in(value):
        for kind, name in _REFERENCE.findall(text):
            remember_secret(_resolved(place, kind, name))


def _refuse_references(model: type[Section], value: Any, place: str, where: str) -> None:
    """Refuse a reference in a plain text that the settings do not open to one: what it stands for would be shown."""
    if not issubclass(model, ServiceSettings) or model.PLAIN_REFERENCES is None:
        return
    if place.removeprefix(f"{where}.") in model.PLAIN_REFERENCES:
        return
    if isinstance(value, dict):
        for name, item in value.items():
            _refuse_references(model, item, f"{place}.{name}", where)
    elif isinstance(value, list):
        for at, item in enumerate(value):
            _refuse_references(model, item, f"{place}[{at}]", where)
    elif isinstance(value, str) and (found := _REFERENCE.search(value)):
        raise ConfigError(
            f"{place}: ${{{found[1]}:…}} cannot stand here, for this text is shown; secrets may stand in "
            f"{model.SECRETS_STAND}; write what is none as it is"
        )


def _refuse_files(value: Any, where: str) -> None:
    """Refuse a reference to a file where what it holds would be no secret: it would be sent, stored and shown."""
    if isinstance(value, str) and "${file:" in value:
        raise ConfigError(f"{where}: ${{file:…}} is for secrets only; write the value itself, or ${{env:NAME}}")
    if isinstance(value, str) and "${given:" in value:
        raise ConfigError(f"{where}: this is no secret, and a SecretStr is for secrets only; give it as text")
    if isinstance(value, dict):
        for key, item in value.items():
            _refuse_files(item, f"{where}.{key}")
    elif isinstance(value, list):
        for item in value:
            _refuse_files(item, where)


def _refuse_literal(value: Any, where: str, variable: str) -> None:
    if isinstance(value, str) and not _REFERENCE.fullmatch(value):
        raise ConfigError(
            f'{where}: a secret does not belong into the file; write "${{env:{_variable(variable)}}}" or '
            '"${file:/path}" and keep it there (from Python, a SecretStr will do)'
        )


def _variable(name: str) -> str:
    """Return what people may call a variable."""
    return re.sub(r"\W+", "_", name).strip("_").upper()


def _expanded(value: Any, where: str, expand: Expand, trees: Collection[int], *, in_tree: bool = False) -> Any:
    """Return a value with its references replaced; a text with one in a `SecretTree` (`trees`: ids) is a secret."""
    if isinstance(value, str):
        text = expand(where, value)
        return SecretText(text) if in_tree and _REFERENCE.search(value) else text
    within = partial(_expanded, expand=expand, trees=trees, in_tree=in_tree or id(value) in trees)
    if isinstance(value, dict):
        return {key: within(item, f"{where}.{key}" if where else key) for key, item in value.items()}
    if isinstance(value, list):
        return [within(item, where) for item in value]
    return value


def lacking(tables: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Yield each reference that stands for nothing: the key, and what is wrong, as `expand_secret` words it.

    A load stops at the first; whoever sets up a machine wants to know all of them at once.
    """
    if isinstance(tables, dict | list):
        inner = tables.items() if isinstance(tables, dict) else enumerate(tables)
        for key, one in inner:
            yield from lacking(one, f"{place}.{key}" if place else str(key))
    elif isinstance(tables, str):
        for kind, name in _REFERENCE.findall(tables):
            try:
                _resolved(place, kind, name)
            except ConfigError as error:
                yield f"{kind}:{name}", str(error)
