"""A disk whose power goes keeps what was synced, and of the rest what its tail says."""

import pytest

from .power import Image, Tail, Write


@pytest.mark.parametrize(
    ("tail", "synced", "found"),
    [
        (Tail.DROPPED, True, b"old."),
        (Tail.TORN, True, b"abcdef"),
        (Tail.REORDERED, True, b"old.\0\0\0\0ijkl"),
        (Tail.WHOLE, True, b"abcdefghijkl"),
        (Tail.STRAY, True, b"old."),
        (Tail.WHOLE, False, b"old."),
        (Tail.TORN, False, b"old."),
        (Tail.STRAY, False, b"abcdefghijkl"),
    ],
)
def test_what_is_found_after_a_power_cut(tail, synced, found):
    image = Image(bytearray(b"old."), [Write(0, b"abcd"), Write(4, b"efgh"), Write(8, b"ijkl")])
    assert image.keep(image.surviving(tail, synced=synced)) == found


def test_what_was_synced_is_kept_whatever_comes_after():
    image = Image(bytearray(), [Write(0, b"abcd"), Write(2, None)])
    image.sync()
    image.pending.append(Write(0, b"zz"))
    assert image.keep(image.surviving(Tail.DROPPED, synced=True)) == b"ab"
