import itertools
import os
import re
import subprocess
import tempfile
from pathlib import Path

import pytest

from engine.model.errors import SourceChanged, SourceError
from engine.model.record import Format
from engine.model.settings import SourceSettings
from engine.source.sources import check_unchanged, find_sources

SETTINGS = SourceSettings()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name in ("b.ndjson", "a.ndjson", "deep/er/c.ndjson", "deep/a.csv"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"{}\n " if path.suffix == ".ndjson" else b"x\n1\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(sources) -> list[str]:
    return [os.path.relpath(source.path) for source in sources]


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["b.ndjson", "a.ndjson"], ["b.ndjson", "a.ndjson"]),
        (["*.ndjson"], ["a.ndjson", "b.ndjson"]),
        (["**/*.ndjson"], ["a.ndjson", "b.ndjson", "deep/er/c.ndjson"]),
        (["b.ndjson", "*.ndjson"], ["b.ndjson", "a.ndjson"]),
        (["deep/**"], ["deep/a.csv", "deep/er/c.ndjson"]),
        (["./a.ndjson", "deep/../a.ndjson"], ["a.ndjson"]),
    ],
)
def test_patterns_name_files_in_a_stable_order_and_each_once(folder, patterns, expected):
    assert names(find_sources(patterns, SETTINGS)) == expected


def test_sources_lie_end_to_end_with_absolute_paths(folder):
    sources = find_sources(["*.ndjson", "deep/a.csv"], SETTINGS)
    assert [(each.number, each.base, each.size) for each in sources] == [(0, 0, 4), (1, 4, 4), (2, 8, 4)]
    assert all(os.path.isabs(each.path) for each in sources)  # noqa: PTH117
    assert sources[0].mtime_ns == (folder / "a.ndjson").stat().st_mtime_ns


def test_a_link_to_a_file_named_already_is_not_read_again(folder):
    (folder / "link.ndjson").symlink_to("a.ndjson")
    assert names(find_sources(["a.ndjson", "link.ndjson"], SETTINGS)) == ["a.ndjson"]


def test_a_file_may_be_named_like_a_glob(folder):
    (folder / "x[1].ndjson").write_bytes(b"")
    assert names(find_sources(["x[1].ndjson"], SETTINGS)) == ["x[1].ndjson"]


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("missing.ndjson", "missing.ndjson does not exist: check the path"),
        ("no*.ndjson", r"no\*.ndjson matches no file"),
        ("deep", r"deep is a folder: name the files in it, for example 'deep/\*.ndjson'"),
        ("pipe", "pipe is no regular file and cannot be read twice"),
    ],
)
def test_what_is_no_file_is_refused_with_advice(folder, pattern, reason):
    os.mkfifo(folder / "pipe")
    with pytest.raises(SourceError, match=reason):
        find_sources(["a.ndjson", pattern], SETTINGS)


def test_no_pattern_is_an_error():
    with pytest.raises(SourceError, match="no source is named"):
        find_sources([], SETTINGS)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(folder):
    (folder / "a.ndjson").chmod(0)
    with pytest.raises(SourceError, match="may not be read by this user"):
        find_sources(["a.ndjson"], SETTINGS)


@pytest.fixture
def as_nobody(monkeypatch):
    """A folder for a user who is not root, who may read everything."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        monkeypatch.chdir(name)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        yield Path(name)
        if root:
            os.seteuid(0)
        for folder in Path(name).rglob("*"):
            folder.chmod(0o700)


@pytest.mark.parametrize(
    ("pattern", "mode"),
    [
        *itertools.product(["*/*.ndjson", "**/*.ndjson", "[cs]*/**/a.ndjson", "shut/*"], [0, 0o300, 0o400]),
        ("open/../*/a.ndjson", 0),
        ("open/../*/a.ndjson", 0o400),
    ],
)
def test_a_folder_that_a_glob_cannot_read_is_an_error_and_its_files_are_not_left_out(as_nobody, pattern, mode):
    root = os.geteuid() != os.getuid()
    os.seteuid(0) if root else None
    for folder in ("open", "shut"):
        (as_nobody / folder).mkdir()
        (as_nobody / folder / "a.ndjson").write_text("{}")
        (as_nobody / folder / "a.ndjson").chmod(0o644)
        os.chown(as_nobody / folder, 65534, 65534) if root else None
    (as_nobody / "open").chmod(0o755)
    os.seteuid(65534) if root else None
    assert find_sources(["open/*.ndjson"], SETTINGS)
    (as_nobody / "shut").chmod(mode)
    with pytest.raises(SourceError, match=r"shut.* may not be read by this user: change its permissions"):
        find_sources([pattern], SETTINGS)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("x.ndjson", b"{", Format.NDJSON),
        ("x.JSONL", b"", Format.NDJSON),
        ("x.csv", b"a,b", Format.CSV),
        ("x.tsv", b"a\tb", Format.CSV),
        ("x.json", b' \n[{"a":1}]', Format.JSON),
        ("x.json", b'\xef\xbb\xbf{"a":1}\n{"a":2}', Format.NDJSON),
        ("x.json", b"", Format.JSON),
        ("x", b'\xef\xbb\xbf [{"a":1}]', Format.JSON),
        ("x", b'{"a":1}', Format.NDJSON),
        ("x.txt", b"a,b\n1,2", Format.CSV),
    ],
)
def test_the_format_is_found_by_extension_or_content(folder, name, content, expected):
    (folder / name).write_bytes(content)
    (source,) = find_sources([name], SETTINGS)
    assert source.format is expected


def test_the_format_in_the_settings_wins(folder):
    (folder / "x.csv").write_bytes(b"{}")
    (source,) = find_sources(["x.csv"], SourceSettings(format=Format.NDJSON))
    assert source.format is Format.NDJSON


def test_a_header_that_cannot_be_used_is_told_before_anything_is_read(folder):
    (folder / "x.csv").write_bytes(b"a,a\n")
    with pytest.raises(SourceError, match="more than once"):
        find_sources(["x.csv"], SETTINGS)


def test_a_source_of_another_size_is_refused_and_one_put_back_is_not(folder):
    sources = find_sources(["*.ndjson"], SETTINGS)
    os.utime(folder / "a.ndjson", (0, 0))
    check_unchanged(sources)
    (folder / "b.ndjson").write_bytes(b"longer than before")
    with pytest.raises(SourceChanged, match=r"b\.ndjson has 18 bytes; it had 4"):
        check_unchanged(sources)
    (folder / "b.ndjson").unlink()
    with pytest.raises(SourceChanged, match=r"b\.ndjson does not exist"):
        check_unchanged(sources)
    (folder / "b.ndjson").mkdir()
    with pytest.raises(SourceChanged, match=r"b\.ndjson is a folder now; it was a file"):
        check_unchanged(sources)
    (folder / "b.ndjson").rmdir()
    os.mkfifo(folder / "b.ndjson")
    with pytest.raises(SourceChanged, match=r"b\.ndjson is no regular file now"):
        check_unchanged(sources)


def test_a_file_that_was_touched_is_told_with_the_time_that_it_had_and_that_brings_it_back(folder):
    sources = find_sources(["a.ndjson"], SETTINGS)
    os.utime("a.ndjson", (2e9, 2e9))
    with pytest.raises(SourceChanged, match="If its content is the same, give it the time that it had") as caught:
        check_unchanged(sources, times=True)
    (command,) = re.findall(r"touch -d .*?ndjson", str(caught.value))
    subprocess.run(command, shell=True, check=True)  # noqa: S602 - as a person would
    check_unchanged(sources, times=True)


def test_a_file_that_is_not_there_is_not_called_a_changed_one(folder):
    sources = find_sources(["a.ndjson"], SETTINGS)
    (folder / "a.ndjson").unlink()
    with pytest.raises(
        SourceChanged, match=r"does not exist.* needs it until it is finished: then run `bulksubmit resume`"
    ) as caught:
        check_unchanged(sources)
    assert "new job" not in str(caught.value)


def test_another_file_in_its_place_is_not_to_be_submitted_whole(folder):
    sources = find_sources(["a.ndjson"], SETTINGS)
    (folder / "a.ndjson").write_bytes(b"{}\n{}\n")
    with pytest.raises(
        SourceChanged, match=r"Put the old file back and run `bulksubmit resume`\. .*does not call created"
    ):
        check_unchanged(sources)
