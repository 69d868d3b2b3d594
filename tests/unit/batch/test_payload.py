import hashlib
from pathlib import Path

import orjson
import pytest
from fakes.inputs import CONTENTS, WINDOWS, read, sources_of
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.batch.chunker import no_reference
from engine.batch.mapping import Mapper
from engine.batch.payload import PayloadReader
from engine.batch.planning import plan_batches
from engine.model.batch import ClientReference, Limits, good_indexes
from engine.model.errors import SourceChanged, SourceError
from engine.model.payload import Payload
from engine.model.record import Format, Position, source_at
from engine.model.settings import MappingSettings, SourceSettings

PLAIN = MappingSettings()
MAPPINGS = [PLAIN, MappingSettings(wrap="data"), MappingSettings(wrap="data", fields={"id": "a"}, rename={"b": "c"})]


def planned(sources, settings=PLAIN, limits=Limits(3, 200), check=lambda task: None, **options):  # noqa: B008
    mapper = Mapper(settings, check)
    plans = list(plan_batches(sources, options.pop("source", SourceSettings()), mapper, limits, **options))
    return mapper, [batch for plan in plans for batch in plan.batches], plans


@given(st.data(), st.sampled_from(list(CONTENTS)), st.sampled_from(MAPPINGS), WINDOWS)
@settings(max_examples=200)
def test_a_payload_read_back_is_what_was_frozen_and_planning_goes_on_from_any_batch(data, kind, mapping, window_bytes):
    sources = sources_of(*(data.draw(CONTENTS[kind]) for _ in range(2)), kind=kind)
    limits = data.draw(st.builds(Limits, records=st.integers(1, 4), bytes=st.integers(1, 100)))
    try:
        mapper, batches, plans = planned(sources, mapping, limits, window_bytes=window_bytes)
    except SourceError:
        reject()  # a header is refused
    reader = PayloadReader(sources, SourceSettings(), mapper)
    read_back = [reader.read(batch) for batch in batches]
    assert not batches or reader.read_each(batches) == read_back
    payloads = list(map(orjson.loads, [payload.array for payload in read_back]))
    assert [list(map(orjson.loads, payload.tasks)) for payload in read_back] == payloads
    assert [len(payload) for payload in payloads] == [batch.count for batch in batches]
    assert [plan.last for plan in plans] == [False] * (len(plans) - 1) + [True]
    assert plans[-1].reached.offset == sources[-1].end
    if batches:
        assert batches[-1].end == plans[-1].reached

    for done, batch in enumerate(batches, 1):
        _, rest, _ = planned(
            sources, mapping, limits, window_bytes=window_bytes, start=batch.end, sequence=batch.sequence + 1
        )
        tasks = [task for each in rest for task in orjson.loads(reader.read(each).array)]
        assert tasks == [task for payload in payloads[done:] for task in payload]


@given(st.data(), st.sampled_from(list(CONTENTS)), st.booleans())
@settings(max_examples=100)
def test_halves_hold_the_records_of_the_whole_and_are_read_back_as_they_were_frozen(data, kind, reference):
    sources = sources_of(*(data.draw(CONTENTS[kind]) for _ in range(2)), kind=kind)
    referencing = (lambda sequence: ClientReference("data", "mark", str(sequence))) if reference else no_reference
    try:
        mapper, batches, plans = planned(
            sources, MappingSettings(wrap="data"), Limits(8, 10_000), reference=referencing
        )
    except SourceError:
        reject()  # a header is refused
    rejects = [bad.index for plan in plans for bad in plan.rejects]
    reader = PayloadReader(sources, SourceSettings(), mapper, referencing)
    for batch in batches:
        if batch.count < 2:
            continue
        within = [index for index in rejects if batch.start.index <= index < batch.end.index]
        parts = reader.halves(batch, within)
        first, second = parts
        assert (first.start, first.end, second.end) == (batch.start, second.start, batch.end)
        assert first.rejected + second.rejected == batch.rejected
        source = source_at(sources, second.start.offset)
        before = Path(source.path).read_bytes()[: second.start.offset - source.base]
        assert second.start.line == before.count(b"\n") + 1
        assert [first.count, second.count] == [batch.count // 2, batch.count - batch.count // 2]
        whole, *halves = [orjson.loads(reader.read(each).array) for each in (batch, *parts)]
        marks = [task["data"].pop("mark", None) for task in [*whole, *halves[0], *halves[1]]]
        assert whole == [*halves[0], *halves[1]]
        sequences = [each.sequence for each in (batch, *parts) for _ in range(each.count)]
        assert marks == [str(sequence) if reference else None for sequence in sequences]


@given(st.integers(1, 5), st.integers(60, 200))
def test_a_mark_counts_as_bytes_of_its_batch(records, most_bytes):
    sources = sources_of(b"".join(b'{"a":%d}\n' % number for number in range(9)))
    referencing = lambda sequence: ClientReference("data", "mark", f"{sequence:>20}")  # noqa: E731 - said where it is used
    _, batches, _ = planned(sources, MappingSettings(wrap="data"), Limits(records, most_bytes), reference=referencing)
    assert sum(batch.count for batch in batches) == 9
    assert all(batch.size_bytes <= most_bytes or batch.count == 1 for batch in batches)


def test_a_batch_may_run_across_files():
    sources = sources_of(b'{"a":1}\n', b"", b'{"a":2}')
    mapper, (batch,), _ = planned(sources)
    assert PayloadReader(sources, SourceSettings(), mapper).read(batch).array == b'[{"a":1},{"a":2}]'


def test_a_gap_that_was_skipped_is_not_read_again():
    long = b'{"a":"' + b"x" * 3_000_000 + b'"}\n'
    sources = sources_of(b'{"a":1}\n' + long + b'{"a":2}\n')
    mapper, (batch,), _ = planned(sources, source=SourceSettings(max_record_bytes=100))
    with Path(sources[0].path).open("r+b") as file:  # what stands in the gap does not matter
        file.seek(1000)
        file.write(b"y" * 1000)
    assert PayloadReader(sources, SourceSettings(), mapper).read(batch).array == b'[{"a":1},{"a":2}]'


class Uncut(Mapper):
    """Fails where records are cut out of the source one by one."""

    def render(self, raws):
        raise AssertionError


@pytest.mark.parametrize("last", [b"\n", b""], ids=["ended", "unended"])
def test_plain_lines_are_read_back_in_one_piece(last):
    sources = sources_of(b'\n{"a":0}', b'{"a":1}\n{"a":"x\\n"}\n{"a":3}' + last)
    _, batches, _ = planned(sources, limits=Limits(1, 1 << 20))
    _, (_, batch), _ = planned(sources, limits=Limits(3, 22))
    reader = PayloadReader(sources, SourceSettings(), Uncut(PLAIN, lambda task: None))
    assert reader.read(batch).array == b'[{"a":"x\\n"},{"a":3}]'
    assert [reader.read(one).array for one in batches[:2]] == [b'[{"a":0}]', b'[{"a":1}]']


@pytest.mark.parametrize("mapping", [PLAIN, MAPPINGS[2]], ids=["plain", "mapped"])
@pytest.mark.parametrize("content", [b'{"a":1}\n{"a":3}\n', b'{"a":1}\n{"a"', b'{"a":1}\n{"a":2x\n'])
def test_a_source_that_changed_is_named_with_its_batch(content, mapping):
    sources = sources_of(b'{"a":1}\n{"a":2}\n')
    mapper, (batch,), _ = planned(sources, mapping)
    path = Path(sources[0].path)
    path.write_bytes(content)
    with pytest.raises(SourceChanged, match=f"{path} changed after batch 0 was frozen"):
        PayloadReader(sources, SourceSettings(), mapper).read(batch)


@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: (path.unlink(), path.mkdir())])
def test_a_source_that_cannot_be_read_is_not_called_a_changed_one(spoil):
    sources = sources_of(b'{"a":1}\n')
    mapper, (batch,), _ = planned(sources)
    spoil(Path(sources[0].path))
    with pytest.raises(SourceChanged, match=r"read from it again: then run `bulksubmit resume`") as caught:
        PayloadReader(sources, SourceSettings(), mapper).read(batch)
    assert "changed" not in str(caught.value)


def test_a_file_in_the_place_of_a_source_is_not_said_to_be_submitted_whole():
    said = SourceChanged.PUT_BACK
    assert said.startswith("Put the old file back and run `bulksubmit resume`.")
    assert "only those of it that outcomes.ndjson does not call created" in said


def test_of_payloads_read_together_the_one_that_changed_is_named():
    sources = sources_of(b'{"a":1}\n{"a":2}\n{"a":3}\n')
    mapper, batches, _ = planned(sources, limits=Limits(1, 100))
    Path(sources[0].path).write_bytes(b'{"a":1}\n{"a":2}\n{"a":4}\n')
    with pytest.raises(SourceChanged, match="changed after batch 2 was frozen"):
        PayloadReader(sources, SourceSettings(), mapper).read_each(batches)


def test_a_csv_that_changed_is_named_too():
    sources = sources_of(b"a,b\n1,2\n3,4\n", kind=Format.CSV)
    mapper, (batch,), _ = planned(sources)
    Path(sources[0].path).write_bytes(b'a,b\n1,2\n"",,\n')
    with pytest.raises(SourceChanged, match="changed after batch 0"):
        PayloadReader(sources, SourceSettings(), mapper).read(batch)


def test_several_files_are_named_by_the_first_and_the_last():
    sources = sources_of(b'{"a":1}\n', b'{"a":2}\n')
    mapper, (batch,), _ = planned(sources)
    reader = PayloadReader(sources, SourceSettings(), mapper)
    with pytest.raises(SourceChanged, match=f"{sources[0].path} to {sources[1].path}"):
        reader.read(replace(batch, sha256=b""))


def test_a_record_of_any_fate_can_be_shown():
    content = b'{"a":1}\n[2]\n'
    sources = sources_of(content)
    reader = PayloadReader(sources, SourceSettings(), Mapper(PLAIN, lambda task: None))
    assert reader.raw(8, 3) == b"[2]"
    assert [reader.as_json(0, 7), reader.as_json(8, 3), reader.as_json(8, 2)] == [b'{"a":1}', b"[2]", b'"[2"']


def test_a_csv_row_is_shown_as_json_and_a_bad_one_as_its_text():
    sources = sources_of(b"a,b\n1,2\n3\n\xff,\n", kind=Format.CSV)
    reader = PayloadReader(sources, SourceSettings(), Mapper(PLAIN, lambda task: None))
    shown = [reader.as_json(4, 3), reader.as_json(8, 1), reader.as_json(10, 2)]
    assert shown == [b'{"a":"1","b":"2"}', b'"3"', '"\ufffd,"'.encode()]


def test_rejects_come_with_the_batch_that_covers_them():
    sources = sources_of(b'{"a":1}\nx\n{"a":2}\n{"a":3}\n5\n')
    _, batches, plans = planned(sources, limits=Limits(2, 1000), check=lambda task: None)
    assert [batch.rejected for batch in batches] == [1, 1]
    assert [each.index for plan in plans for each in plan.rejects] == [1, 4]


def test_a_step_without_a_batch_ends_after_some_blocks():
    sources = sources_of(b'{"a":1}\n' * 1000)
    _, _, plans = planned(sources, limits=Limits(1000, 1 << 20), window_bytes=16)
    assert 10 < len(plans) < 20


def test_reading_takes_a_position_of_the_ledger():
    found = read(b'{"a":1}\n{"a":2}\n', start=Position(8, 1, 2))
    assert [(record.index, record.line) for record in found.records] == [(1, 2)]


def tasks_of(reader, batch, indexes=None):
    """Return the tasks and the indexes of a batch; its array is the one that was frozen."""
    payload = reader.read(batch, indexes)
    assert payload == Payload(b"[" + b",".join(payload.tasks) + b"]", payload.lengths, payload.indexes)
    assert len(payload.tasks) == batch.count
    assert hashlib.sha256(payload.array).digest() == batch.sha256
    return payload.tasks, payload.indexes


@pytest.mark.parametrize(
    ("kind", "content", "tasks"),
    [
        (Format.NDJSON, b'{"a":1}\n{"a":"22"}\n{"a":{}}\n', [b'{"a":1}', b'{"a":"22"}', b'{"a":{}}']),
        (Format.NDJSON, b'{"a":1}\r\n\r\n {"a":"22"} \r\n', [b'{"a":1}', b'{"a":"22"}']),
        (Format.JSON, b'[{"a":1},{"a":"22"}]', [b'{"a":1}', b'{"a":"22"}']),
        (Format.JSON, b'[{"a":1},\n\n{"a" :"22"}]', [b'{"a":1}', b'{"a" :"22"}']),
        (Format.CSV, b"a\n1\n22\n", [b'{"a":"1"}', b'{"a":"22"}']),
    ],
    ids=["lines", "lines of Windows", "an array", "an array in lines", "a table"],
)
def test_each_task_of_a_payload_can_be_had_by_itself(kind, content, tasks):
    sources = sources_of(content, kind=kind)
    mapper, batches, _ = planned(sources, limits=Limits(9, 1 << 20))
    reader = PayloadReader(sources, SourceSettings(), mapper)
    (batch,) = [batch for batch in batches if batch.count]
    assert tasks_of(reader, batch) == (tasks, range(len(tasks)))
    assert reader.read_each([batch]) == [reader.read(batch)]


def test_the_tasks_of_a_marked_batch_are_as_they_go_up():
    sources = sources_of(b'{"id":1}\n{"mark":"its own"}\n')
    referencing = lambda sequence: ClientReference("data", "mark", f"m{sequence}")  # noqa: E731 - said where it is used
    mapper, (batch,), _ = planned(sources, MappingSettings(wrap="data"), reference=referencing)
    reader = PayloadReader(sources, SourceSettings(), mapper, referencing)
    assert tasks_of(reader, batch)[0] == [b'{"data":{"mark":"m0","id":1}}', b'{"data":{"mark":"its own"}}']


def test_tasks_that_come_marked_are_cut_out_of_the_source_in_one_piece():
    sources = sources_of(b'{"data":{"mark":"a"}}\n{"data":{"mark":"bb"}}\n')
    referencing = lambda sequence: ClientReference("data", "mark", "m")  # noqa: E731 - said where it is used
    _, (batch,), _ = planned(sources, reference=referencing)
    reader = PayloadReader(sources, SourceSettings(), Uncut(PLAIN, lambda task: None), referencing)
    assert tasks_of(reader, batch)[0] == [b'{"data":{"mark":"a"}}', b'{"data":{"mark":"bb"}}']


def test_indexes_count_what_does_not_go_up():
    sources = sources_of(b'{"a":1}\nx\n{"a":2}\n{"a":3}\n5\n{"a":4}\n')
    mapper, batches, plans = planned(sources, limits=Limits(2, 1000))
    rejects = [each.index for plan in plans for each in plan.rejects]
    reader = PayloadReader(sources, SourceSettings(), mapper)
    indexes = [good_indexes(batch, rejects) for batch in batches]
    assert [tasks_of(reader, *pair) for pair in zip(batches, indexes, strict=True)] == [
        ([b'{"a":1}', b'{"a":2}'], [0, 2]),
        ([b'{"a":3}', b'{"a":4}'], [3, 5]),
    ]
    assert [payload.indexes for payload in reader.read_each(batches, indexes)] == [[0, 2], [3, 5]]
    assert reader.read(batches[0]).indexes == (), "they are left out rather than wrong"


def test_indexes_go_on_from_batch_to_batch():
    sources = sources_of(b'{"a":1}\n{"a":2}\n', b'{"a":3}\n{"a":4}\n')
    mapper, batches, _ = planned(sources, limits=Limits(3, 1000))
    reader = PayloadReader(sources, SourceSettings(), mapper)
    assert [payload.indexes for payload in reader.read_each(batches)] == [range(3), range(3, 4)]
