from fakes.inputs import sources_of
from hypothesis import given
from hypothesis import strategies as st

from engine.model.record import Format
from engine.source.files import SourceFile
from engine.source.segments import segment_stops


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
        assert stop - start >= segment_bytes or stop == len(text) or stop in ends


def test_arrays_are_never_cut():
    sources = sources_of(b"[1,\n2]", b"[3,\n4]", kind=Format.JSON)
    assert list(segment_stops(sources, 0, 1)) == [6, 12]


def test_small_files_share_a_segment():
    assert list(segment_stops(sources_of(*[b"12\n"] * 7), 0, 8)) == [9, 18, 21]


def test_a_resumed_job_begins_amid_its_files():
    assert list(segment_stops(sources_of(*[b"12\n34\n"] * 3), 9, 4)) == [15, 18]


def test_a_line_without_an_end_is_looked_through_once(monkeypatch):
    read = []

    def count(self, offset, length, real=SourceFile.read):
        read.append(length)
        return real(self, offset, length)

    monkeypatch.setattr(SourceFile, "read", count)
    (source,) = sources_of(b"x" * 300_000)
    assert list(segment_stops([source], 0, 10)) == [300_000]
    assert sum(read) <= 300_000
