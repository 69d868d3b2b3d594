"""What a behaviour file says of one service alone, as checked values: the tables `[sama]`, `[sevenbridges]`, `[bulk]`.

`behaviour.py` makes them part of a `Behaviour`. Each default is what the engine believes of the service. Times are
seconds.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from msgspec import Meta

from engine.model.settings import Section

SecondCall = Literal["error", "noop", "duplicate", "html"]
"""What becomes of a second call that releases the same: refused, answered, obeyed, or refused by an HTML page (409)."""
InputType = Literal["any", "File", "File[]", "string", "string[]", "int", "int[]", "float", "float[]", "boolean"]

_PROJECT = re.compile(r"[^/]+/[^/]+")
_APP = re.compile(r"[^/]+/[^/]+/[^/]+")


class SamaUnwritten(Section, frozen=True):
    """What no page of the vendor's says; each value but the default is the opposite of what the engine believes.

    batch_words             words of a batch's states that are other ones
    case                    how all words of states are written
    counts                  a creation status counts the tasks, in all and created
    deletes                 what becomes of tasks that shall be deleted and are not new: all are refused, or only those
                            that are new are deleted ("some"), or each is ("any")
    etag                    the store answers an upload with an ETag
    failed_data             a creation status shows the data of failed tasks
    known_batch_every       each so many-th empty batch is answered with name and URL of the one before it; 0: none
    no_id_every             each so many-th created task has no id in a creation status; 0: none
    same_id_every           ... has the id of the task before it
    searches                tasks are found by their client_batch_id
    task_order              in which order a creation status lists the tasks; "shifted": the second one first
    task_words              words of a task's creation states that are other ones
    told_ids                under which key the answer to inline tasks names their ids; "": it does not
    zones                   times have a zone
    """

    batch_words: Mapping[str, str] = {}
    case: Literal["lower", "title", "upper"] = "lower"
    counts: bool = True
    deletes: Literal["new", "some", "any"] = "new"
    etag: bool = True
    failed_data: bool = True
    known_batch_every: int = 0
    no_id_every: int = 0
    same_id_every: int = 0
    searches: bool = True
    task_order: Literal["sent", "shuffled", "shifted"] = "sent"
    task_words: Mapping[str, str] = {}
    told_ids: Literal["", "task_ids", "tasks", "ids"] = ""
    zones: bool = True


class SandboxSama(Section, frozen=True):
    """Keys of Sama alone that stand in a table of their own; 0 lists of tasks a second: as many as are asked for."""

    task_lists_per_second: float = 1.0  # the vendor's limit
    unwritten: SamaUnwritten = SamaUnwritten()


class Rate(Section, frozen=True):
    """Admit `requests` in a window of `seconds`, 429 after that; 0 requests: no limit, and no headers about it."""

    requests: int = 1000  # the vendor's limit
    seconds: float = 300.0  # the vendor's window


class Life(Section, frozen=True):
    """How long a task stays in each state once it is run, and how many tasks run at once (0: all)."""

    creating_seconds: float = 0.0
    queued_seconds: float = 0.0
    running_seconds: float = 0.0
    aborting_seconds: float = 0.0
    parallel: int = 0


class AppInput(Section, frozen=True):
    """One input of an app."""

    id: str
    type: InputType = "any"
    required: bool = False


class App(Section, frozen=True):
    """An app that exists: `id` is owner/project/app. With a `batch_input` its tasks are batches unless told otherwise.

    `batch_by` holds the criteria of that default; empty means by ITEM.
    """

    id: str
    revision: int = 0
    inputs: tuple[AppInput, ...] = ()
    batch_input: str = ""
    batch_by: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not _APP.fullmatch(self.id):
            raise ValueError(f"id: an app's id is owner/project/app, not {self.id!r}")


class FileRule(Section, frozen=True):
    """`count` files of a project, whose `name` and `metadata` may use {n}, the file's number from 0, and {group}.

    A name such as "sub/folder/reads.fastq" puts them into folders.
    `group_size` files in a row have the same {group}.
    `id` names a single file's id; without it ids are made up.
    """

    project: str
    name: str
    count: Annotated[int, Meta(ge=1)] = 1
    group_size: Annotated[int, Meta(ge=1)] = 1
    metadata: Mapping[str, str] = {}
    id: str = ""

    def __post_init__(self) -> None:
        if self.id and self.count != 1:
            raise ValueError("id: goes with one file only")
        for template in (self.name, *self.metadata.values()):
            try:
                template.format(n=0, group=0)
            except (LookupError, ValueError, AttributeError) as error:
                raise ValueError(f"name and metadata: {template!r} may use {{n}} and {{group}} only") from error


class SevenBridgesUnwritten(Section, frozen=True):
    """What no page of the vendor's says; each value but the default is the opposite of what the engine believes.

    bare_bulk_fields    what a bulk call brings whose `fields` lack the keyword `resource`: {"resource": {}}, {}, or all
    bulk_errors         an error among a bulk call's items is shown also where `fields` names only resources
    bulk_order          in which order a bulk call's items stand
    descriptions        how a task's description is stored
    file_types          how the types `file` and `folder` are written
    list_order          tasks are listed as asked, or always with the newest first
    most_names          more names in one call for files are answered 503 with code 0; 0: any number is taken
    run_lag_seconds     how long it takes until a task that was made can be run, changed, aborted or deleted
    status_words        statuses that have another word
    total_header        lists have x-total-matching-query; if not, their links alone tell that more follows
    z_times             times in a query may end in Z
    """

    bare_bulk_fields: Literal["empty", "nothing", "all"] = "empty"
    bulk_errors: bool = True
    bulk_order: Literal["asked", "reversed"] = "asked"
    descriptions: Literal["kept", "trimmed", "one_line", "cut"] = "kept"
    file_types: Literal["lower", "upper"] = "lower"
    list_order: Literal["asked", "newest"] = "asked"
    most_names: int = 0
    run_lag_seconds: float = 0.0
    status_words: Mapping[str, str] = {}
    total_header: bool = True
    z_times: bool = True


class SandboxPlatform(Section, frozen=True):
    """What exists. With no `projects` every project does, with no `apps` every app, with no `files` every file id."""

    user: str = "sandbox"
    run_again: SecondCall = "error"
    projects: tuple[str, ...] = ()
    rate: Rate = Rate()
    life: Life = Life()
    apps: tuple[App, ...] = ()
    files: tuple[FileRule, ...] = ()
    unwritten: SevenBridgesUnwritten = SevenBridgesUnwritten()

    def __post_init__(self) -> None:
        for project in (*self.projects, *(rule.project for rule in self.files)):
            if not _PROJECT.fullmatch(project):
                raise ValueError(f"projects: a project's id is owner/project, not {project!r}")


class BulkUnwritten(Section, frozen=True):
    """How the six bulk faces lie: each value but the default is something that their documents do not say.

    errors_inside       a batch that is refused as a whole is answered 200, with the error in the answer
    exists_every        each so many-th item is answered as if its key were there already, and is not kept; 0: none
    forgets_keys_after  an idempotency key is remembered so long only, not `key_seconds`; 0: as long as that
    ids                 what an id is in answers: a text, or a number
    no_id_every         each so many-th created item has no id in results; 0: none
    omits_every         each so many-th item is left out of results; 0: none
    order               in which order results stand: as sent, shuffled, or reversed
    same_id_every       each so many-th created item has the id of the item before it; 0: none
    strangers           results tell of records besides that nobody sent
    words               status words of items and jobs that are other ones
    """

    errors_inside: bool = False
    exists_every: int = 0
    forgets_keys_after: float = 0.0
    ids: Literal["texts", "numbers"] = "texts"
    no_id_every: int = 0
    omits_every: int = 0
    order: Literal["sent", "shuffled", "reversed"] = "sent"
    same_id_every: int = 0
    strangers: bool = False
    words: Mapping[str, str] = {}


class SandboxBulk(Section, frozen=True):
    """Keys of the bulk faces alone. `bad` names the field by which a record says how it is to be refused.

    busy_every      each so many-th item of a call to `exists` is busy, and not done; 0: none
    key_seconds     how long an idempotency key is remembered
    keys_keep_noes  refusals are remembered under an idempotency key, too, not only what was done
    most_records    records that one call, or one upload, may bring
    page            records on a page of results, or of a list, at most
    start_again     what becomes of a second start of a job
    token_seconds   how long a token that was exchanged is good
    """

    bad: str = "bad"
    busy_every: int = 0
    key_seconds: float = 24 * 3600
    keys_keep_noes: bool = False
    most_records: int = 1000
    page: int = 100
    start_again: SecondCall = "error"
    token_seconds: float = 300.0
    unwritten: BulkUnwritten = BulkUnwritten()
