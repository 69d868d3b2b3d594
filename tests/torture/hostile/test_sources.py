"""Sources made to hurt the reader: what a person is told, and how much memory it takes."""

import gzip
import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.model.errors import SourceError
from engine.model.settings import SourceSettings
from engine.source.sources import find_sources

from .bombs import MEBIBYTE, zstd_bomb

TORTURE = os.environ.get("BULKSUBMIT_TORTURE") == "1"
HUGE = 96 * MEBIBYTE
"""Sparse: the disk holds a few KiB of it."""
BOUND_MIB = 120
"""The command itself takes 55, and 32 more for a record of 16; whoever holds one of these sources takes 96 more."""
WRAP = '[mapping]\nwrap = "data"'
NOWHERE = "http://127.0.0.1:9/v2"
DEEP = 10**6
DEEPER = "nested deeper than 1024 levels"


def sparse(head: bytes, tail: bytes) -> Callable[[Path], None]:
    """Return what writes a file of HUGE bytes, NUL between its two ends."""

    def write(path: Path) -> None:
        with path.open("wb") as file:
            file.write(head)
            file.truncate(HUGE)
            file.seek(HUGE)
            file.write(tail)

    return write


def whole(content: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(content) and None


SOURCES = {
    name: (write, records, reason)
    for name, write, records, reason in [
        ("line.ndjson", sparse(b'{"a":1}\n', b'\n{"a":2}\n'), 3, "longer than max_record_bytes"),
        ("element.json", sparse(b'[{"a":1},{"b":"', b'"},{"a":2}]'), 3, "longer than max_record_bytes"),
        ("never-ending.json", sparse(b'[{"a":1},{"b":"', b""), 2, "longer than max_record_bytes"),
        ("quote.csv", sparse(b'a,b\n1,2\n"', b""), 2, "a quote is opened and never closed"),
        ("no-newline.csv", sparse(b"a,b\n1,2\n3,", b""), 2, "longer than max_record_bytes"),
        ("array.json", whole(b"[" * DEEP + b"]" * DEEP), 1, DEEPER),
        ("open.json", whole(b"[" * DEEP), 1, DEEPER),
        (
            "in.json",
            whole(b'[{"a":1},{"a":' + b"[" * DEEP + b"]" * DEEP + b'},{"a":2}]'),
            3,
            DEEPER,
        ),
        (
            "in.ndjson",
            whole(b'{"a":1}\n' + b'{"a":' * DEEP + b"1" + b"}" * DEEP + b'\n{"a":2}\n'),
            3,
            DEEPER,
        ),
        ("utf-8.ndjson", whole(b'{"a":1}\n{"a":"\xff\xc0\xaf"}\n{"a":2}\n'), 3, "not valid UTF-8 at byte 7"),
        ("half.ndjson", whole(b'{"a":1}\n{"a":"\xed\xa0\x80"}\n{"a":2}\n'), 3, "not valid UTF-8 at byte 7"),
        ("nul.ndjson", whole(b'{"a":1}\n{"a":"\x00"}\n{"a":2}\n'), 3, "not valid JSON"),
        ("utf-8.csv", whole(b"a,b\n1,2\n\xff,1\n3,4\n"), 3, "not valid UTF-8 at byte 1"),
    ]
}
"""File → what it holds, how many records that are, and why one of them is rejected."""
LEFT_OUT = () if TORTURE else ("element.json", "open.json", "in.json", "half.ndjson", "utf-8.csv")
"""Much like another one."""


@pytest.mark.parametrize("name", [name for name in SOURCES if name not in LEFT_OUT])
async def test_one_bad_record_costs_neither_its_neighbours_nor_memory(place, name):
    write, records, reason = SOURCES[name]
    write(place.folder / name)
    done = await place.run("validate", name, "--config", place.configure(NOWHERE, more=WRAP), "--json")
    assert (done.code, done.json["records"], done.json["rejected"]) == (3, records, 1), done.err
    assert reason in done.json["rejects"][0]["reason"]
    assert done.peak_mib < BOUND_MIB


def bomb_of_zip() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("tasks.json", bytes(16 * MEBIBYTE))
    return packed.getvalue()


PACKED = {
    kind: (name, content)
    for name, kind, content in [
        ("tasks.json.gz", "gzip", lambda: gzip.compress(bytes(16 * MEBIBYTE))),
        ("tasks.ndjson", "zip", bomb_of_zip),
        ("tasks.csv.zst", "zstd", zstd_bomb),
    ]
}


@pytest.mark.parametrize("kind", PACKED if TORTURE else ["gzip"])
async def test_what_is_packed_and_unfit_is_refused_within_bounds_and_leaves_nothing(place, kind):
    name, content = PACKED[kind]
    (place.folder / name).write_bytes(content())
    config = place.configure(NOWHERE)
    named = await place.run("submit", name, "--config", config)
    piped = await place.run("submit", "-", "--config", config, stdin=place.folder / name)
    for done in (named, piped):
        assert done.code == 2
        assert done.err.splitlines()[-1].startswith("bulksubmit: "), done.err
        assert done.peak_mib < BOUND_MIB
    assert not list(place.folder.rglob("standard-input*")), "what cannot be read is not kept"
    assert (await place.run("status", "--json")).json["jobs"] == []


@pytest.mark.parametrize("extension", ["ndjson", "json", "csv", "txt"])
def test_a_source_that_is_no_file_is_refused_at_once(place, extension):
    folder = place.folder
    os.mkfifo(folder / "pipe")
    (folder / "folder").mkdir()
    loop = folder / f"loop.{extension}"
    loop.symlink_to(loop)
    for name, target, reason in [
        ("to-pipe", folder / "pipe", "no regular file"),
        ("to-zero", Path("/dev/zero"), "no regular file"),
        ("to-folder", folder / "folder", "is a folder"),
        ("to-nothing", folder / "nothing", "does not exist"),
        ("loop", None, "cannot be read"),
    ]:
        link = folder / f"{name}.{extension}"
        if target is not None:
            link.symlink_to(target)
        with pytest.raises(SourceError, match=reason):
            find_sources([str(link)], SourceSettings())


def test_a_source_with_a_nul_in_its_name_does_not_exist():
    with pytest.raises(SourceError, match="cannot be read"):
        find_sources(["tasks\0.ndjson"], SourceSettings())
