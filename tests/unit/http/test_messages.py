import orjson
import pytest
from fakes.timing import cpu_seconds
from hypothesis import given
from hypothesis import strategies as st

from engine.http.classify import Verdict
from engine.http.messages import described, failure, is_of_a_store, names_records, service_code, service_words
from engine.model.error_hints import Blame, Refusal
from engine.model.errors import Refused
from engine.progress.redaction import MOST_FOREIGN
from engine.services.base import Answer, Call


def call(url):
    return Call("start", "POST", url)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:8800/v2/batches", "start (POST 127.0.0.1:8800/v2/batches)"),
        ("https://api.example.com/v2?access_key=s3cr3t", "start (POST api.example.com/v2)"),
        ("https://name:word@api.example.com:8443/v2", "start (POST api.example.com:8443/v2)"),
        ("http://[::1]:8800/v2", "start (POST [::1]:8800/v2)"),
        ("/v2", "start (POST /v2)"),
    ],
)
def test_a_call_is_described_with_its_host_and_port(url, said):
    assert described(call(url)) == said


@pytest.mark.parametrize(
    ("location", "said"),
    [("http://127.0.0.1:8801/v2", "a redirect to 127.0.0.1:8801,"), ("/v3", "a redirect to another path,")],
)
def test_a_redirect_is_described_with_its_host_and_port(location, said):
    verdict = Verdict(Refused, "HTTP 307")
    answer = Answer(307, {"Location": location}, b"")
    assert said in str(failure(call("http://127.0.0.1:8800/v2"), verdict, answer, str))


def test_a_status_that_is_its_own_code_is_said_once():
    answer = Answer(401, {}, b'{"errors":[{"type":401,"message":"Not authorized."}]}')
    said = str(failure(call("http://h/v2"), Verdict(Refused, "status 401", 401), answer, str))
    assert said.count("401") == 1
    assert said.endswith("status 401: Not authorized.")


def test_words_that_a_rule_has_found_in_a_text_are_said_once_and_without_its_kind():
    answer = Answer(500, {}, b"Code: 27. Cannot parse\nat row 2")
    words = "status 500: Code: 27. Cannot parse at row 2"
    verdict = Verdict(Refused, words, 500, hint=Refusal(words, Blame.PAYLOAD))
    assert str(failure(call("http://h/v2"), verdict, answer, str)).endswith(f"was refused: {words}")


# What a service says in the body of a refusal


def words(body):
    return service_words(body, str)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"errors":[{"type":401,"message":"Not authorized."}]}', "401: Not authorized."),
        (b'{"errors":[{"type":"InvalidInputSchema","message":"url: missing"}]}', "InvalidInputSchema: url: missing"),
        (b'{"errors":[{"message":"a"},{"message":"b"},{"message":"c"},{"message":"d"}]}', "a; b; c; and 1 more"),
        (b'{"errors":["plain"]}', "plain"),
        (
            b'{"message":"Rate limit exceeded","code":1000,"more_info":"https://docs/1000"}',
            "1000: Rate limit exceeded (https://docs/1000)",
        ),
        (b'{"message":"no","code":0,"more_info":null}', "0: no"),
        (b'{"error":"nope"}', "nope"),
        (
            b"<?xml?>\n<Error><Code>AccessDenied</Code><Message>Request has expired</Message><Key>AKIA</Key></Error>",
            "AccessDenied: Request has expired",
        ),
        (b"<Error><Code>SlowDown</Code></Error>", "SlowDown"),
        (b"<Error><Message>a &lt;b&gt; &amp; c</Message></Error>", "a <b> & c"),
        (
            b"<html><head><title>502</title><style>x{}</style></head><body><h1>Bad\n Gateway</h1>",
            "502",
        ),
        (b"<TITLE lang=en>\n403 &lt;no&gt;\n</TITLE>Support ID 123", "403 <no>"),
        (
            b"<html><body><p>Sorry &amp; bye</p><script>var x;</script></body>",
            "(a page of 64 B without words for an error)",
        ),
        (b"upstream\x1b[31m down\x00", "(text of 19 B without words for an error)"),
        (b"\xff\xfe", "(text of 2 B without words for an error)"),
        (b"[1,2]", "(JSON of 5 B without words for an error)"),
        (b'"just a string"', "(text of 15 B without words for an error)"),
        (b'{"errors":[]}', "(JSON of 13 B without words for an error)"),
        (b'{"errors":{"url":["missing"],"name":"too long"}}', "url: missing; name: too long"),
        (
            b'\xef\xbb\xbf{"message":"half a letter: \\ud83d, an odd byte: \xff"}',
            "half a letter: , an odd byte: \ufffd",
        ),
        (b'{"error":{"code":404,"message":"no such project"}}', "404: no such project"),
        (b'{"message":"a\\u001b[31m b\\u2028c"}', "a[31m b c"),
        (b'{"message":{"tasks_put_url":"https://b/k"}}', "(JSON of 43 B without words for an error)"),
        (b"", ""),
        (b"   ", ""),
    ],
)
def test_the_words_of_a_service_are_found_in_the_forms_that_vendors_use(body, said):
    assert words(body) == said


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"errors":[{"type":"InvalidBatchState","message":"not waiting"}]}', "InvalidBatchState"),
        (b'{"errors":[{"type":401,"message":"Not authorized."},{"type":"X"}]}', "401"),
        (b'{"message":"not a draft","code":7007,"more_info":"https://docs/7007"}', "7007"),
        (b'{"code":0,"message":"maintenance"}', "0"),
        (b"<?xml?>\n<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>", "AccessDenied"),
        (b"<html><h1>Bad Gateway</h1>", ""),
        (b'{"errors":["plain"]}', ""),
        (b'{"errors":[]}', ""),
        (b'{"code":{"a":1}}', ""),
        (b'{"code":null}', ""),
        (b"[1,2]", ""),
        (b"upstream down", ""),
        (b"", ""),
    ],
)
def test_the_code_of_a_service_is_found_in_the_forms_that_vendors_use(body, code):
    assert service_code(body) == code


def test_long_words_are_cut():
    said = words(orjson.dumps({"message": "x" * 100_000}))
    assert len(said) == MOST_FOREIGN
    assert said.endswith("…")


def test_secrets_are_taken_out_before_the_text_is_cut():
    body = orjson.dumps({"message": "x" * (MOST_FOREIGN - 5) + "s3cr3tkey"})
    said = service_words(body, lambda text: text.replace("s3cr3tkey", "***"))
    assert "s3c" not in said


def test_a_code_that_is_none_is_not_kept():
    assert service_code(orjson.dumps({"code": "x" * 1000})) == ""


@given(st.binary(max_size=400))
def test_no_body_is_too_strange(body):
    said = words(body)
    assert len(said) <= MOST_FOREIGN
    assert said.isprintable()
    assert isinstance(service_code(body), str)


HOSTILE = [
    "<",
    "<title ",
    "<title>",
    "<title><",
    "<Code>",
    "<Code></",
    "<Error><Code>",
    "&lt;",
    "&#",
    "[",
    '{"a":',
    '"',
    "\\u",
]
READERS = [lambda body: service_words(body, str), service_code, names_records, is_of_a_store]


@pytest.mark.parametrize("piece", HOSTILE)
def test_hostile_bodies_take_no_longer_than_plain_ones(piece):
    """22 KB took 41 s. A ratio, since machines differ; 0.3 s are added, for a plain body takes few."""
    bodies = b"<p>plain words</p> " * 3500, piece.encode() * (65_536 // len(piece))
    plain, hostile = (cpu_seconds(lambda body=body: [read(body) for read in READERS]) for body in bodies)
    assert hostile < 20 * plain + 0.3
