import gc

import orjson
import pytest
from fakes.inputs import CONTENTS, WINDOWS, Found, read, records_of, sources_of
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.model.errors import SourceChanged, SourceError
from engine.model.record import Format, Position
from engine.model.settings import SourceSettings
from engine.source.reader import read_blocks, segment_stops
from engine.source.splitter import SourceFile

FORMATS = st.sampled_from(list(CONTENTS))
SEPARATORS = {Format.NDJSON: b" \t\r\n", Format.JSON: b" \t\r\n,[]", Format.CSV: b"\r\n"}


def read_or_refuse(*contents: bytes, **options) -> Found:
    """Read, and pass over files whose header is refused."""
    try:
        return read(*contents, **options)
    except SourceError:
        reject()


def spans(found: Found) -> list[tuple[int, int, int]]:
    return sorted((each.index, each.offset, each.length) for each in (*found.records, *found.rejects))


def bare_spans(found: Found, content: bytes) -> list[tuple[int, bytes]]:
    """Each record's and reject's bytes, without the blanks around it."""
    return [(index, content[offset : offset + length].strip()) for index, offset, length in spans(found)]


@given(st.data(), FORMATS, WINDOWS, st.sampled_from([6, 40, 1 << 24]))
@settings(max_examples=400)
def test_nothing_is_lost_whatever_the_bytes(data, kind, window_bytes, max_record_bytes):
    content = data.draw(CONTENTS[kind])
    found = read_or_refuse(content, kind=kind, window_bytes=window_bytes, max_record_bytes=max_record_bytes)

    assert [index for index, _, _ in spans(found)] == list(range(len(spans(found))))
    assert [end.offset for end in found.ends] == sorted(end.offset for end in found.ends)
    if content:
        assert found.ends[-1] == Position(len(content), len(spans(found)), 1)
    at = 0
    for index, offset, length in spans(found):
        if kind is not Format.CSV or at:  # before the first row stands the header
            gap = content[at:offset].removeprefix(b"\xef\xbb\xbf" if at == 0 else b"")
            assert not gap.strip(SEPARATORS[kind])
        assert offset >= at or "is not closed" in found.reasons[index]  # stands on the last byte
        at = offset + length
    if kind is not Format.CSV or at:
        assert not content[at:].removeprefix(b"\xef\xbb\xbf" if at == 0 else b"").strip(SEPARATORS[kind])
    for record in found.records:
        assert orjson.loads(record.raw) == record.row
        assert record.length <= max_record_bytes
        assert kind is Format.CSV or record.raw == content[record.offset : record.offset + record.length]
    for each in (*found.records, *found.rejects):
        assert each.line == 1 + content.count(b"\n", 0, each.offset)


@given(st.data(), FORMATS, WINDOWS, WINDOWS, st.sampled_from([6, 40, 1 << 24]))
@settings(max_examples=200)
def test_the_windows_do_not_matter(data, kind, one, other, max_record_bytes):
    content = data.draw(CONTENTS[kind])
    first = read_or_refuse(content, kind=kind, window_bytes=one, max_record_bytes=max_record_bytes)
    second = read_or_refuse(content, kind=kind, window_bytes=other, max_record_bytes=max_record_bytes)
    assert first.records == second.records
    assert bare_spans(first, content) == bare_spans(second, content)


@given(st.data(), FORMATS, WINDOWS, st.sampled_from([6, 1 << 24]))
@settings(max_examples=200)
def test_reading_goes_on_from_any_end_and_any_good_record(data, kind, window_bytes, max_record_bytes):
    contents = [data.draw(CONTENTS[kind]) for _ in range(2)]
    options = {"kind": kind, "window_bytes": window_bytes, "max_record_bytes": max_record_bytes}
    whole = read_or_refuse(*contents, **options)
    starts = [Position(record.offset, record.index, record.line) for record in whole.records]
    for start in {*whole.ends, *starts}:
        rest = read(*contents, start=start, **options)
        assert rest.records == [record for record in whole.records if record.index >= start.index]
        assert rest.rejects == [each for each in whole.rejects if each.index >= start.index]


@given(st.lists(st.dictionaries(st.text(max_size=3), st.integers() | st.text(), max_size=4)), st.data())
def test_ndjson_and_arrays_hold_the_same_records(rows, data):
    texts = [orjson.dumps(row) for row in rows if all(abs(v) < 2**63 for v in row.values() if isinstance(v, int))]
    comma = data.draw(st.sampled_from([b",", b", ", b",\n", b"\n ,\r\n"]))
    lines = read(b"\n".join(texts), window_bytes=data.draw(WINDOWS))
    array = read(b"[" + comma.join(texts) + b"]", kind=Format.JSON, window_bytes=data.draw(WINDOWS))
    assert [record.raw for record in lines.records] == [record.raw for record in array.records] == texts
    assert not lines.rejects
    assert not array.rejects


def test_records_of_several_files_are_counted_on_and_their_lines_are_not():
    found = read(b'{"a":1}\n{"a":2}', b"", b'\n{"a":3}\n')
    assert [(record.index, record.offset, record.line) for record in found.records] == [
        (0, 0, 1),
        (1, 8, 2),
        (2, 16, 2),
    ]


def test_blocks_hold_a_thousand_records_at_most():
    sources = sources_of(b'{"a":1}\n' * 2500)
    assert [len(block.rows) for block in read_blocks(sources, Position(), SourceSettings())] == [1000, 1000, 500]


@pytest.mark.parametrize(
    ("kind", "before", "after"),
    [
        (Format.NDJSON, b'{"a":1}\n', b'\n{"a":2}\n'),
        (Format.JSON, b'[{"a":1},\n', b',\n{"a":2}]'),
        (Format.CSV, b"a\n1\n", b"\n2\n"),
    ],
)
def test_a_record_longer_than_any_window_is_passed_over_in_steps(kind, before, after):
    long = b'{"a":"' + b'\\"}],x{[\\\\' * 3000 + b'"}'
    if kind is Format.CSV:
        long = b'"' + b'""\n,x' * 3000 + b'"'
    sources = sources_of(before + long + after, kind=kind)
    blocks = list(read_blocks(sources, Position(), SourceSettings(max_record_bytes=100), window_bytes=512))
    found = records_of(iter(blocks))
    assert [record.index for record in found.records] == [0, 2]
    (long_one,) = found.rejects
    assert (long_one.index, long_one.offset, long_one.length) == (1, len(before), len(long))
    assert long_one.reason == "longer than max_record_bytes (100)"
    assert sum(not block.rows and not block.rejects for block in blocks) > 10  # steps in which nothing is held


@pytest.mark.parametrize(
    ("kind", "content", "reason"),
    [
        (Format.JSON, b'[{"a":1},{"b":[' + b"1," * 5000, "brackets or quotes do not balance"),
        (Format.JSON, b'[{"a":1},{"b":"' + b"\\" * 9001, "brackets or quotes do not balance"),
        (Format.CSV, b'a\n1\n"' + b"1\n" * 5000, "a quote is opened and never closed"),
    ],
)
def test_a_record_without_an_end_takes_the_rest_with_it(kind, content, reason):
    found = read(content, kind=kind, max_record_bytes=100, window_bytes=512)
    assert [record.index for record in found.records] == [0]
    (rest,) = found.rejects
    assert reason in rest.reason
    assert rest.offset + rest.length == len(content)


@pytest.mark.parametrize("switched", [gc.enable, gc.disable])
def test_the_collector_rests_only_while_a_block_is_read(switched, monkeypatch):
    seen = []
    monkeypatch.setattr(orjson, "loads", lambda text, loads=orjson.loads: seen.append(gc.isenabled()) or loads(text))
    switched()
    try:
        between = [gc.isenabled() for _ in read_blocks(sources_of(b"{}\n" * 1500), Position(), SourceSettings())]
        (source,) = sources_of(b'{"a":1}\n' * 100)
        with pytest.raises(SourceChanged):
            list(read_blocks([replace(source, size=source.size + 1)], Position(), SourceSettings()))
        assert seen == [False] * 1500
        assert between == [switched is gc.enable] * 2
        assert gc.isenabled() is (switched is gc.enable)
    finally:
        gc.enable()


def test_a_file_cut_short_while_it_is_read_is_named():
    (source,) = sources_of(b'{"a":1}\n' * 100)
    with open(source.path, "r+b") as file:  # noqa: PTH123
        file.truncate(50)
    with pytest.raises(SourceChanged, match="ends at byte 50"):
        list(read_blocks([source], Position(), SourceSettings()))


# Where several processes may share the work


@given(st.lists(st.lists(st.sampled_from([b"\n", b"x", b"xx\n"])).map(b"".join), min_size=1), st.integers(1, 9))
def test_segments_end_with_lines_and_sources_and_tile_them(contents, segment_bytes):
    sources = sources_of(*contents)
    stops = list(segment_stops(sources, 0, segment_bytes))
    text = b"".join(contents)
    ends = {source.end for source in sources}
    assert stops == sorted(set(stops))
    assert stops[-1] == len(text)
    for stop in stops:
        assert stop in ends or text[stop - 1 : stop] == b"\n"
    for start, stop in zip([0, *stops], stops, strict=False):
        assert start // segment_bytes < stop // segment_bytes or stop == len(text)


@given(st.lists(st.lists(st.sampled_from([b"\n", b"x", b"xx\n"])).map(b"".join), min_size=1), st.integers(1, 9))
def test_cuts_are_the_same_ones_wherever_reading_goes_on(contents, segment_bytes):
    sources = sources_of(*contents)
    end = sources[-1].end
    stops = list(segment_stops(sources, 0, segment_bytes))
    for start in range(end + 1):
        assert list(segment_stops(sources, start, segment_bytes)) == ([stop for stop in stops if stop > start] or [end])


def test_arrays_are_never_cut():
    sources = sources_of(b"[1,\n2]", b"[3,\n4]", kind=Format.JSON)
    assert list(segment_stops(sources, 0, 1)) == [6, 12]


def test_small_files_share_a_segment():
    assert list(segment_stops(sources_of(*[b"12\n"] * 7), 0, 8)) == [9, 18, 21]


def test_a_resumed_job_begins_amid_its_files():
    assert list(segment_stops(sources_of(*[b"12\n34\n"] * 3), 9, 4)) == [12, 18]


def test_a_line_without_an_end_is_looked_through_once(monkeypatch):
    read = []

    def count(self, offset, length, real=SourceFile.read):
        read.append(length)
        return real(self, offset, length)

    monkeypatch.setattr(SourceFile, "read", count)
    (source,) = sources_of(b"x" * 300_000)
    assert list(segment_stops([source], 0, 10)) == [300_000]
    assert sum(read) <= 300_000
