import pytest

from engine.model.errors import SourceError
from engine.source.delimiters import SAMPLE_BYTES, find_delimiter


@pytest.mark.parametrize(
    ("text", "delimiter"),
    [
        ("a;b\n1,5;2\n", ";"),
        ("a\tb\n1\t2\n", "\t"),
        ("a|b\n1|2\n", "|"),
        ("a,b\n1,2\n", ","),
        ("one\n1\n", ","),
        ("", ","),
        ('name;"a,b,c"\n"x;y\nz";2\n', ";"),
        ("\ufeffa;b, c\n1;2\n3;4\n", ";"),
        ("a;b\r\n\r\n1;2\r\n", ";"),
        ('a;b\n"never closed;2\n', ";"),
        ("a;b,c\n1;2\n1;2,3\n4;5\n", ";"),
    ],
)
def test_the_delimiter_is_the_one_by_which_the_rows_fit_the_header(text, delimiter):
    assert find_delimiter(text.encode(), "x.csv") == delimiter


@pytest.mark.parametrize("text", ["a;b,c\n", "a;b,c\n1;2,3\n4;5,6\n"])
def test_two_that_fit_equally_are_an_error_that_names_both_and_the_cure(text):
    with pytest.raises(SourceError, match=r"';' \(2 columns\)") as raised:
        find_delimiter(text.encode(), "x.csv")
    assert "',' (2 columns)" in str(raised.value)
    assert "delimiter = " in str(raised.value)


def test_a_row_that_the_sample_cuts_does_not_count():
    rows = b"a;b\n" + b"1;2\n" * (SAMPLE_BYTES // 4)
    assert find_delimiter(rows[: SAMPLE_BYTES - 2], "x.csv") == ";"
