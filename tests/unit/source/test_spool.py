import gzip
import io
import os
from types import SimpleNamespace

import pytest

from engine import files
from engine.model.errors import SourceError
from engine.model.settings import SourceSettings
from engine.progress.events import SourceCopied
from engine.source.spool import Original, blocks_of_file, blocks_of_stream, packing_at, spool

SETTINGS = SourceSettings()
TEXT = b'{"a":1}\n' * 400_000


async def spooled(content, path, **settings):
    told: list[SourceCopied] = []
    stream = content if isinstance(content, io.BytesIO) else io.BytesIO(content)
    size = None if isinstance(content, io.BytesIO) else len(content)
    original = Original("tasks", size, "unpacked")
    await spool(blocks_of_stream(stream, "tasks"), path, original, SourceSettings(**settings), told.append)
    return told


async def test_a_stream_becomes_a_private_file(tmp_path):
    path = tmp_path / "job" / "copy"
    await spooled(TEXT, path)
    assert path.read_bytes() == TEXT
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["copy"]


async def test_what_is_packed_is_unpacked_and_people_hear_how_far_it_is(tmp_path):
    packed = gzip.compress(TEXT)
    told = await spooled(packed, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == TEXT
    assert told[0].words == f"tasks ({len(packed) / 1000:.3g} KB) is unpacked first, to {tmp_path / 'copy'}"
    assert told[-1].words == f"tasks is unpacked: 3.2 MB in {tmp_path / 'copy'}"
    assert [event.is_news for event in told] == [True, *[False] * (len(told) - 2), True]


async def test_a_file_is_read_as_it_stands(tmp_path):
    (tmp_path / "x.gz").write_bytes(gzip.compress(TEXT))
    await spool(blocks_of_file(tmp_path / "x.gz", "x"), tmp_path / "copy", Original("x"), SETTINGS)
    assert (tmp_path / "copy").read_bytes() == TEXT
    assert packing_at(tmp_path / "x.gz") == "gzip"
    assert packing_at(tmp_path / "copy") is packing_at(tmp_path / "nothing") is None


async def test_an_empty_stream_is_an_empty_file(tmp_path):
    await spooled(io.BytesIO(b""), tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b""


class Broken(io.BytesIO):
    def read(self, size: int | None = -1) -> bytes:
        if self.tell() > 2_000_000:
            raise OSError(5, "Input/output error")
        return super().read(size)


async def test_a_stream_that_fails_leaves_nothing_behind_and_says_why(tmp_path):
    with pytest.raises(SourceError, match="tasks cannot be read: Input/output error"):
        await spooled(Broken(bytes(4_000_000)), tmp_path / "x")
    assert not list(tmp_path.iterdir())


async def test_a_damaged_source_leaves_nothing_behind_not_even_what_stood_there(tmp_path):
    (tmp_path / "x").write_bytes(b"of an attempt before")
    with pytest.raises(SourceError, match="tasks is cut short"):
        await spooled(gzip.compress(TEXT)[:-1], tmp_path / "x")
    assert not list(tmp_path.iterdir())


async def test_a_spool_onto_a_folder_says_so(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SourceError, match="name another folder with --output"):
        await spooled(b"{}", tmp_path / "file" / "x")


@pytest.mark.parametrize("left", [0, files.DISK_ROOM_BYTES + 1_000_000])
async def test_the_ledger_keeps_its_room_on_the_disk_before_and_while_a_source_is_unpacked(tmp_path, monkeypatch, left):
    def disk(folder):
        written = sum(each.stat().st_size for each in tmp_path.iterdir())
        return SimpleNamespace(f_bavail=left - written, f_frsize=1)

    monkeypatch.setattr(os, "statvfs", disk)
    with pytest.raises(
        SourceError, match=r"tasks could not be spooled to .* \(No space left on device for .*make room"
    ):
        await spooled(gzip.compress(TEXT), tmp_path / "x")
    assert not list(tmp_path.iterdir())
