"""What is needed of an answer must be right; what can be done without is dropped where it is odd; nothing breaks."""

import msgspec
import orjson
import pytest

from engine.model.errors import UnexpectedAnswer
from engine.services.base import Answer
from engine.services.decoding import Count, Extra, Id, Name, Word, are_names, decode, path_part, told, words

SIGNED = "https://bucket.s3.amazonaws.com/k?X-Amz-Signature=5ec7e75ec7e7"


class Part(msgspec.Struct):
    message: Extra[str] = ""
    number: Extra[Count | None] = None


class Thing(msgspec.Struct):
    id: Id
    state: Extra[Word] = ""
    parts: Extra[list[Part]] = []
    raw: Extra[msgspec.Raw] = msgspec.Raw()
    needed: list[Part] | None = None


def short(value):
    """Return the name of a test whose value may be long."""
    return repr(value[:20] if isinstance(value, str | bytes) else value)


def read(body, **ways):
    return decode(Answer(200, {}, body if isinstance(body, bytes) else orjson.dumps(body)), Thing, **ways)


@pytest.mark.parametrize(
    "odd", [5, True, {}, [], "a state that is a whole sentence, and so none", "https://x", "\n", None]
)
def test_what_can_be_done_without_counts_as_not_there_where_it_is_odd(odd):
    assert read({"id": "a", "state": odd, "parts": odd}) == read({"id": "a"})


def test_one_odd_part_costs_no_other_part_anything():
    parts = [{"message": "no"}, {"message": 5, "number": 3}, {"number": -1}, {"number": 2**63}]
    assert read({"id": 7, "parts": parts}).parts == [Part("no"), Part(number=3), Part(), Part()]


@pytest.mark.parametrize("odd", [5, "x", {}, [5], [[]]])
def test_what_is_needed_if_it_is_there_must_be_right(odd):
    assert read({"id": "a"}).needed is None
    with pytest.raises(UnexpectedAnswer, match=r"the answer is not a JSON object as it should be \(needed"):
        read({"id": "a", "needed": odd})


@pytest.mark.parametrize(
    "odd",
    [
        *(None, True, 1.5, {}, [], "", -1, 2**63),
        *("..", ".", "../x", "a/b", "a?b", "a#b", "a b", "a\n", "\x00", "é", "%2e%2e", "a\\b", SIGNED),
        "x" * 201,
        "x" * 30_000_000,
    ],
    ids=short,
)
def test_a_name_is_short_and_can_be_a_part_of_a_path(odd):
    with pytest.raises(UnexpectedAnswer):
        read({"id": odd})


@pytest.mark.parametrize(
    "fine", ["48f79ccf-12b3-45b6-789c-b1e8d88dabcd", "5f0c0ffee0c0ffee0c0ffee0", 0, 7, "x" * 200, "a.b:c=d@e~f+g"]
)
def test_names_as_services_give_them_are_taken(fine):
    assert read({"id": fine}).id == fine


@pytest.mark.parametrize(
    "body",
    [
        b'\xef\xbb\xbf{"id":"a","state":"done"}',
        b'{"id":"a","state":"done","raw":"\\ud83d"}',
        b'{"id":"a","state":"done","parts":[{"number":NaN}]}',
        b'{"id":"a","state":"done","parts":[{"number":' + b"9" * 400 + b"}]}",
        b'{"id":"a","state":"done","raw":-' + b"9" * 5000 + b"}",
        b'{"id":"a","state":"done","raw":"\xff\xc3","x":Infinity}',
        b'{"id":"a","state":"done","raw":1e999}',
        b'{"id":"a","state":"done","raw":"a\nb"}',
    ],
    ids=short,
)
def test_what_is_nearly_json_is_read_once_more(body):
    thing = read(body)
    assert (thing.id, thing.state) == ("a", "done")


def test_half_a_letter_is_replaced_and_nothing_else():
    assert read(b'{"id":"a","parts":[{"message":"late \\ud83d"},{"message":"\\ud83d\\ude00"}]}').parts == [
        Part("late ?"),
        Part("\N{GRINNING FACE}"),
    ]


def test_a_search_takes_no_mended_text():
    with pytest.raises(UnexpectedAnswer):
        read(b'{"id":"a","parts":[{"message":"\\ud83d"}]}', mend=False)


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"null", b"[]", b'"x"', b"<html>", b"[" * 10**6, b'{"id":' * 10**6, b'{"id":"a"', b'{"id":"a"}x'),
        b'{"id":"a","x":' + b"[" * 10**5 + b"]" * 10**5 + b"}",
        '{"id":"a"}'.encode("utf-16"),
        b'{"id":"a\xff"}',
        b'{"id":"a","x":NaN' + b" " * 9_000_000 + b"}",
    ],
    ids=short,
)
def test_what_cannot_be_read_is_named_as_such_and_nothing_of_it_is_shown(body):
    with pytest.raises(UnexpectedAnswer, match="the answer is not a JSON object") as raised:
        read(body)
    assert len(str(raised.value)) < 200


def test_what_stands_in_an_odd_answer_is_not_shown():
    with pytest.raises(UnexpectedAnswer) as raised:
        read({"id": SIGNED, "state": SIGNED}, call="status")
    assert "5ec7e7" not in str(raised.value)
    assert str(raised.value).startswith("status: ")
    assert raised.value.call == "status"


@pytest.mark.parametrize("odd", ["", "..", "a/b", "x" * 201, "a b", "a?b"])
def test_what_is_no_name_is_not_put_into_a_url(odd):
    with pytest.raises(UnexpectedAnswer):
        path_part(odd)
    assert path_part("a.b:c") == "a.b%3Ac"


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("no such  image", "no such image"),
        ("two\nlines\x1b[31m\u202e", "two lines[31m"),
        (SIGNED.replace("Sig", "Sig\x1f"), "https://bucket.s3.amazonaws.com/k?***"),
        ("see " + SIGNED, "see https://bucket.s3.amazonaws.com/k?***"),
        ("x" * 30_000_000, "x" * 299 + "…"),
    ],
    ids=short,
)
def test_a_sentence_of_a_service_is_kept_on_one_line_short_and_without_secrets(said, kept):
    assert words(said) == kept


def test_what_is_said_of_a_task_besides_is_kept_within_bounds():
    deep = nested = []
    for _ in range(1000):
        nested.append([])
        nested = nested[0]
    said = {
        "amount": 1.5,
        "url": SIGNED,
        SIGNED: 1,
        "deep": deep,
        "many": [1] * 10**6,
        "huge": 2**70,
        "nan": float("nan"),
    }
    kept = told(said)
    assert kept["amount"] == 1.5
    assert kept["many"] == [1] * 100
    assert (kept["huge"], kept["nan"]) == (None, None)
    text = orjson.dumps(kept)
    assert len(text) < 1000
    assert b"5ec7e7" not in text


@pytest.mark.parametrize(
    "odd", ["", ".", "..", ".a", "a/b", "a b", "a\n", "\na", "a\nb", "é", "\x00", "x" * 201, SIGNED], ids=short
)
def test_one_that_is_no_name_is_seen_among_many(odd):
    names = ["48f79ccf-12b3-45b6-789c-b1e8d88dabcd", "x" * 200, "a.b:c=d@e~f+g", "7"]
    assert are_names(names)
    assert are_names([])
    for at in range(len(names) + 1):
        assert not are_names([*names[:at], odd, *names[at:]])


def test_a_name_is_a_text():
    with pytest.raises(UnexpectedAnswer):
        decode(Answer(200, {}, b"7"), Name)
