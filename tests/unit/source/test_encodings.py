import codecs

import pytest

from engine.model.settings import SourceSettings
from engine.source.encodings import Decoder

TEXT = "name,price\r\nÄrger „x“,1\nplain €,2\n"


def decoded(data, encoding="utf-8", step=1):
    decoder = Decoder(SourceSettings(encoding=encoding))
    blocks = [data[at : at + step] for at in range(0, len(data), step)]
    return b"".join([*(piece for block in blocks for piece in decoder.feed(block)), *decoder.finish()])


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (codecs.BOM_UTF32_LE, "utf-32-le"),
        (codecs.BOM_UTF32_BE, "utf-32-be"),
    ],
)
@pytest.mark.parametrize("step", [1, 3, 1000])
def test_a_byte_order_mark_is_believed_whatever_is_named(mark, encoding, step):
    assert decoded(mark + TEXT.encode(encoding), "windows-1252", step) == TEXT.encode()


@pytest.mark.parametrize("encoding", ["windows-1252", "utf-16-le", "cp1250", "utf-8"])
def test_a_text_without_a_mark_is_read_as_is_named(encoding):
    assert decoded(TEXT.encode(encoding), encoding) == TEXT.encode()


@pytest.mark.parametrize("data", [b"", b"a", b"\xef\xbb\xbfa,b\n", b"\xff", b"caf\xe9\n"])
def test_utf8_and_what_is_none_stays_as_it_stands(data):
    assert decoded(data) == data


def test_what_is_not_of_the_encoding_becomes_a_byte_that_no_utf8_has_and_lines_stay():
    assert decoded(b"a\nb\x81c\n\xc3\xa9\n", "windows-1252") == "a\nb\xff".encode("latin-1") + "c\nÃ©\n".encode()
    assert decoded(b"\xc3\xa9\nx\n", "ascii") == b"\xff\xff\nx\n"
    lone = codecs.BOM_UTF16_LE + "a\n".encode("utf-16-le") + b"\x00\xd8" + "b\n".encode("utf-16-le") + b"x"
    assert decoded(lone) == b"a\n\xffb\n\xff"
    assert decoded(b"+2AA-\n", "utf-7") == b"\xff\n"  # half a pair


@pytest.mark.parametrize("encoding", ["nothing", "rot13", "base64", "unicode_escape", "idna", "undefined", "utf 16 \0"])
def test_an_encoding_that_no_file_has_is_refused(encoding):
    with pytest.raises(ValueError, match="encoding: must be one that Python knows"):
        SourceSettings(encoding=encoding)
