import pytest

from engine.sandbox.behaviour import JournalSettings
from engine.sandbox.journal import Journal, JournalEntry, canonical_sha256, count_markers, read_journal


@pytest.fixture
def journal(tmp_path):
    journal = Journal(JournalSettings(tmp_path / "deep" / "journal.ndjson", ("data.client_batch_id", "data.id")))
    yield journal
    journal.close()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "deep" / "journal.ndjson"


def _entry(journal, task, position=0):
    return journal.entry(task, at=1.5, batch_id=7, task_id="ab", position=position)


def test_an_entry_can_be_read_back_at_once(journal, path):
    task = {"data": {"id": "x"}}
    journal.append([_entry(journal, task)])
    assert list(read_journal(path)) == [JournalEntry(1.5, 7, "ab", "x", 0, canonical_sha256(task))]


def test_the_first_marker_that_is_there_counts(journal):
    assert _entry(journal, {"data": {"client_batch_id": "c", "id": "x"}}).marker == "c"
    assert _entry(journal, {"data": {"client_batch_id": None, "id": 5}}).marker == 5
    assert _entry(journal, {"data": "text"}).marker is None


def test_markers_are_counted(journal, path):
    journal.append(_entry(journal, {"data": {"id": marker}}) for marker in "aba")
    assert count_markers(path) == {"a": 2, "b": 1}


def test_a_journal_is_continued_not_overwritten(journal, path):
    journal.append([_entry(journal, {"data": {"id": "a"}})])
    again = Journal(JournalSettings(path))
    again.append([_entry(again, {"data": {"id": "b"}})])
    again.close()
    assert [entry.marker for entry in read_journal(path)] == ["a", "b"]


def test_the_digest_ignores_key_order():
    assert canonical_sha256({"a": 1, "b": 2}) == canonical_sha256({"b": 2, "a": 1})
    assert canonical_sha256({"a": 1}) != canonical_sha256({"a": 2})


def test_without_a_path_nobody_makes_entries_for_it():
    entries = iter([None])
    Journal(JournalSettings()).append(entries)
    assert list(entries) == [None]


def test_runs_are_counted_apart(journal, path):
    task = {"data": {"id": "a"}}
    run = journal.entry(task, at=2.0, batch_id="", task_id="ab", position=0, kind="run")
    journal.append([_entry(journal, task), run, run])
    assert count_markers(path) == {"a": 1}
    assert count_markers(path, "run") == {"a": 2}


def test_a_line_without_a_kind_is_a_task(path, journal):
    journal.append([_entry(journal, {"data": {"id": "a"}})])
    path.write_bytes(path.read_bytes().replace(b',"kind":"task"', b""))
    assert [entry.kind for entry in read_journal(path)] == ["task"]
