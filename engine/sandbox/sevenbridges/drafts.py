"""How bodies become drafts, why a draft cannot be run, and how a parent's draft becomes those of its children.

By ITEM each file is a child. By CRITERIA the files that share their values of all the metadata fields are one; groups
come in the order of their first file, and a value that a file lacks is null in `fields` and "undefined" in `value`.
"""

from collections.abc import Iterator, Mapping
from sys import intern
from typing import Any

import orjson
from msgspec import Struct
from msgspec.structs import replace

from engine.sandbox.messages import WrongInput
from engine.sandbox.settings import App, AppInput
from engine.sandbox.sevenbridges.answers import refusal
from engine.sandbox.sevenbridges.catalog import Catalog, is_project
from engine.sandbox.sevenbridges.tasks import BatchGroup, Batching, Draft, InputError

MISSING_INPUT = "error/task_validation/input/required"  # this and the next: our choice, by analogy with _WRONG_INPUT
_UNKNOWN_FILE = "error/task_validation/input/file"
_WRONG_INPUT = "error/task_validation/input/schema"  # the vendor's
_FILE_CLASSES = ("file", "directory")
_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "any": object,
    "string": str,
    "int": int,
    "float": (int, float),
    "boolean": bool,
}
_OBJECTS = ("inputs", "execution_settings", "output_location", "batch_by")
_TEXTS = ("name", "description", "batch_input")
_UNDEFINED = "undefined"


def new_draft(body: Mapping[str, Any], catalog: Catalog, *, batch: bool | None) -> Draft:
    """Read the body of a create; `batch` is the query's wish, False switches batching off. Raise SandboxRefusal."""
    _check_shapes(body)
    project = body.get("project")
    if not isinstance(project, str) or not is_project(project):
        raise refusal(3012)
    if not catalog.has_project(project):
        raise refusal(3002)
    app = _find_app(body.get("app"), catalog)
    wanted = batch if batch is not None else body.get("batch")
    blank = Draft(intern(project), intern(f"{app.id}/{app.revision}"), "")
    draft = replace(_edited(blank, body), batching=_batching(body, app, wanted=wanted))
    return draft if draft.name else replace(draft, name=f"{app.id} run")


def changed_draft(draft: Draft, body: Mapping[str, Any], catalog: Catalog) -> Draft:
    """Apply the body of a PATCH; inputs that it does not name stay. Raise SandboxRefusal."""
    _check_shapes(body)
    if ("batch_input" in body) != ("batch_by" in body):
        raise refusal(7023)
    app = _find_app(body.get("app", draft.app), catalog)
    draft = replace(_edited(draft, body), app=f"{app.id}/{app.revision}")
    if "batch_by" not in body and "batch" not in body:
        return draft
    return replace(draft, batching=_batching(body, app, wanted=body.get("batch")))


def _edited(draft: Draft, body: Mapping[str, Any]) -> Draft:
    return replace(
        draft,
        name=body.get("name", draft.name),
        description=body.get("description", draft.description),
        inputs=orjson.dumps(orjson.loads(draft.inputs) | body.get("inputs", {})).decode(),
        interruptible=body.get("use_interruptible_instances", draft.interruptible),
        execution_settings=body.get("execution_settings", draft.execution_settings),
        output_location=body.get("output_location", draft.output_location),
    )


def input_errors(draft: Draft, catalog: Catalog) -> tuple[InputError, ...]:
    """Return why the draft could not be run."""
    app, inputs = catalog.app(draft.app), orjson.loads(draft.inputs)
    errors = [error for declared in (app.inputs if app else ()) for error in _against(declared, inputs, draft)]
    if draft.batching and not isinstance(inputs.get(draft.batching.input) or None, list):
        errors.append(InputError(MISSING_INPUT, "The batch input needs a list of files.", draft.batching.input))
    if catalog.checks_files:
        unknown = ((key, path) for key, value in inputs.items() for path in file_ids(value) if not catalog.file(path))
        errors += [InputError(_UNKNOWN_FILE, f"There is no file {path!r}.", key) for key, path in unknown]
    return tuple(errors)


def file_ids(value: Any) -> Iterator[str]:
    """Yield the ids of the files in an input's value, however deep."""
    if isinstance(value, list):
        for item in value:
            yield from file_ids(item)
    elif isinstance(value, dict):
        if is_file(value):
            yield str(value.get("path"))
        else:
            yield from file_ids(list(value.values()))


def is_file(value: Any) -> bool:
    """Say whether a value is a file or a directory."""
    return isinstance(value, dict) and str(value.get("class", "")).lower() in _FILE_CLASSES


def _check_shapes(body: Mapping[str, Any]) -> None:
    for name in _OBJECTS:
        if not isinstance(body.get(name, {}), dict):
            raise WrongInput(f"{name} must be an object.")
    for name in _TEXTS:
        if not isinstance(body.get(name, ""), str):
            raise WrongInput(f"{name} must be a text.")


def _find_app(app_id: object, catalog: Catalog) -> App:
    app = catalog.app(app_id) if isinstance(app_id, str) else None
    if app is None:
        raise refusal(6002)
    return app


def _batching(body: Mapping[str, Any], app: App, *, wanted: object) -> Batching | None:
    """Choose between the body's batching, the app's default and none."""
    if wanted is False:
        return None
    if "batch_by" in body:
        return Batching(_batch_input(body.get("batch_input") or app.batch_input), _criteria(body["batch_by"]))
    if "batch_input" in body:
        return Batching(_batch_input(body["batch_input"]), app.batch_by)
    if wanted is True or app.batch_input:
        return Batching(_batch_input(app.batch_input), app.batch_by)
    return None


def _batch_input(name: str) -> str:
    if not name:
        raise refusal(7018)
    return name


def _criteria(batch_by: Mapping[str, Any]) -> tuple[str, ...]:
    kind = str(batch_by.get("type", "")).upper()
    if kind == "ITEM":
        return ()
    if kind != "CRITERIA":
        raise refusal(7020)
    criteria = batch_by.get("criteria")
    if not isinstance(criteria, list) or not criteria:
        raise refusal(7019)
    if not all(isinstance(one, str) and one.startswith("metadata.") for one in criteria):
        raise refusal(7019)
    return tuple(criteria)


def _against(declared: AppInput, inputs: Mapping[str, Any], draft: Draft) -> Iterator[InputError]:
    value = inputs.get(declared.id)
    if value is None:
        if declared.required:
            yield InputError(MISSING_INPUT, "This input is required.", declared.id)
        return
    batched = draft.batching is not None and draft.batching.input == declared.id
    values = value if batched and isinstance(value, list) and not declared.type.endswith("[]") else [value]
    if not all(_fits(one, declared.type) for one in values):
        yield InputError(_WRONG_INPUT, f"This input must be of type {declared.type}.", declared.id)


def _fits(value: Any, kind: str) -> bool:
    if kind.endswith("[]"):
        return isinstance(value, list) and all(_fits(one, kind.removesuffix("[]")) for one in value)
    if kind == "File":
        return is_file(value)
    return isinstance(value, _TYPES[kind]) and (kind in ("boolean", "any") or not isinstance(value, bool))


class Child(Struct, frozen=True):
    """A child task to be."""

    draft: Draft
    group: BatchGroup


def children(draft: Draft, batching: Batching, catalog: Catalog) -> Iterator[Child]:
    """Divide a parent's inputs."""
    inputs = orjson.loads(draft.inputs)
    groups = _by_criteria if batching.criteria else _by_item
    for group, files in groups(inputs[batching.input], batching, catalog):
        own = orjson.dumps({**inputs, batching.input: files}).decode()
        yield Child(replace(draft, name=f"{draft.name} - {group.value}", inputs=own, batching=None), group)


def _by_item(items: list[Any], batching: Batching, catalog: Catalog) -> Iterator[tuple[BatchGroup, Any]]:  # noqa: ARG001 - one signature
    for item in items:
        yield BatchGroup(_name(item, catalog), {}), item


def _by_criteria(items: list[Any], batching: Batching, catalog: Catalog) -> Iterator[tuple[BatchGroup, Any]]:
    groups: dict[tuple[str | None, ...], list[Any]] = {}
    for item in items:
        groups.setdefault(_values(item, batching.criteria, catalog), []).append(item)
    for values, files in groups.items():
        value = ", ".join(_UNDEFINED if one is None else one for one in values)
        yield BatchGroup(value, dict(zip(batching.criteria, values, strict=True))), files


def _values(item: Any, criteria: tuple[str, ...], catalog: Catalog) -> tuple[str | None, ...]:
    file = catalog.file(_path(item))
    return tuple(file.metadata.get(one.removeprefix("metadata.")) if file else None for one in criteria)


def _name(item: Any, catalog: Catalog) -> str:
    if isinstance(item, dict) and isinstance(name := item.get("name"), str):
        return name
    file = catalog.file(_path(item))
    return file.name if file else _path(item)


def _path(item: Any) -> str:
    return str(item.get("path")) if isinstance(item, dict) else str(item)
