import gzip
import itertools
import random
import struct
import zlib

import pytest
from backports import zstd

from engine.model.errors import SourceError
from engine.model.settings import SourceSettings
from engine.source import packed
from engine.source.packed import Packing, Unpacker, inner_suffix, packing_of

SETTINGS = SourceSettings()
TEXT = b"".join(b'{"n":%d}\n' % n for n in range(20_000))
SKIPPABLE = struct.pack("<II", 0x184D2A53, 4) + b"note"
CHECKED = {zstd.CompressionParameter.checksum_flag: 1}


def unpacked(data, block_bytes=1 << 20, name="tasks", settings=SETTINGS) -> bytes:
    unpacker = Unpacker(name, settings)
    blocks = [data[start : start + block_bytes] for start in range(0, len(data), block_bytes)]
    return b"".join(itertools.chain(*map(unpacker.feed, blocks), unpacker.finish()))


PACKED = {
    "gzip": gzip.compress(TEXT),
    "gzip in members": b"".join(gzip.compress(TEXT[at : at + 9000]) for at in range(0, len(TEXT), 9000)),
    "gzip filled up with zeros": gzip.compress(TEXT) + bytes(2000),
    "gzip with an empty member": gzip.compress(b"") + gzip.compress(TEXT) + gzip.compress(b""),
    "zstd": zstd.compress(TEXT),
    "zstd in frames": b"".join(zstd.compress(TEXT[at : at + 9000]) for at in range(0, len(TEXT), 9000)),
    "zstd with frames to be skipped": SKIPPABLE + zstd.compress(TEXT) + SKIPPABLE,
    "nothing": TEXT,
}


@pytest.mark.parametrize("packing", PACKED)
def test_what_is_packed_comes_out_as_it_was_however_it_is_cut(packing):
    data, chance = PACKED[packing], random.Random(packing)
    for block_bytes in (1, 3, chance.randrange(5, 10_000), len(data)):
        if len(data) < 60_000 or block_bytes > 3:
            assert unpacked(data, block_bytes) == TEXT


@pytest.mark.parametrize("data", [b"", b"{", b"{}\n"])
def test_a_short_source_that_is_not_packed_stays_as_it_is(data):
    assert unpacked(data) == data


@pytest.mark.parametrize("packing", [name for name in PACKED if name in {"gzip", "zstd", "gzip in members"}])
def test_what_is_cut_short_is_told_with_how_far_it_came(packing):
    whole = PACKED[packing]
    for end in (*((2, 3) if packing != "zstd" else ()), 5, len(whole) // 2, len(whole) - 1):
        with pytest.raises(SourceError, match=rf"tasks is cut short: its {end:,} bytes \([\d,]+ unpacked\)"):
            unpacked(whole[:end])


@pytest.mark.parametrize("packing", ["gzip", "zstd", "zstd in frames"])
@pytest.mark.parametrize("junk", [b"junk", b"x", b"{}\n{}\n"])
def test_what_follows_the_end_is_no_record(packing, junk):
    with pytest.raises(SourceError, match=r"tasks: (gzip|zstd) data ends, [\d,]+ bytes unpacked, and then comes"):
        unpacked(PACKED[packing] + junk)


@pytest.mark.parametrize("data", [gzip.compress(TEXT), zstd.compress(TEXT, options=CHECKED)])
def test_what_is_damaged_is_told(data):
    for at in (len(data) // 2, len(data) - 1 if data.startswith(b"\x28") else len(data) - 6):
        broken = bytearray(data)
        broken[at] ^= 0x55
        with pytest.raises(SourceError, match=r"tasks is damaged: .*Get the file again"):
            unpacked(bytes(broken))


def test_a_name_of_a_packed_file_is_no_proof():
    with pytest.raises(SourceError, match=r"tasks\.csv\.gz is called as a packed file and begins with b'a,b\\n'"):
        unpacked(b"a,b\n1,2\n", name="tasks.csv.gz")
    with pytest.raises(SourceError, match="as neither gzip nor"):
        unpacked(b"", name="tasks.csv.gz")


@pytest.mark.parametrize("pack", [gzip.compress, zstd.compress])
def test_a_bomb_is_stopped_by_its_ratio_or_by_its_size(pack, monkeypatch):
    bomb = pack(bytes(8 << 20))
    assert len(unpacked(bomb)) == 8 << 20
    with pytest.raises(SourceError, match=r"max_unpacked_bytes \(1,000\) allows no more"):
        unpacked(bomb, settings=SourceSettings(max_unpacked_bytes=1000))
    monkeypatch.setattr(packed, "JUDGED_BYTES", 1 << 20)
    with pytest.raises(SourceError, match=r"more than max_unpacked_ratio \(100\)"):
        unpacked(bomb, settings=SourceSettings(max_unpacked_ratio=100))


def test_a_bomb_comes_out_in_small_pieces():
    pieces = Unpacker("x", SETTINGS).feed(zstd.compress(bytes(64 << 20)))
    assert max(len(piece) for piece in itertools.islice(pieces, 20)) <= packed.PIECE_BYTES


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("tasks.csv.gz", ".csv"), ("T.NDJSON.ZST", ".ndjson"), ("tasks.gz", ""), ("a.b/c.json", ".json"), ("x.a/b", "")],
)
def test_the_inner_name_tells_the_format(name, suffix):
    assert inner_suffix(name) == suffix


def test_the_first_bytes_tell_the_packing():
    assert packing_of(gzip.compress(b"")) is Packing.GZIP
    assert packing_of(zstd.compress(b"")) is packing_of(SKIPPABLE) is Packing.ZSTD
    assert packing_of(b"") is packing_of(b"{}") is packing_of(zlib.compress(b"")) is None
