import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.http.classify import Verdict
from engine.http.messages import MAX_CHARACTERS, described, failure, service_code, service_words
from engine.model.errors import Refused
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
            "502: Bad Gateway",
        ),
        (b"<TITLE lang=en>\n403 &lt;no&gt;\n</TITLE>Support ID 123", "403 <no>: 403 <no> Support ID 123"),
        (b"<html><body><p>Sorry &amp; bye</p><script>var x;</script></body>", "Sorry & bye"),
        (b"upstream\x1b[31m down\x00", "upstream [31m down"),
        (b"\xff\xfe", "��"),
        (b"[1,2]", "[1,2]"),
        (b'"just a string"', '"just a string"'),
        (b'{"errors":[]}', '{"errors":[]}'),
        (b'{"errors":{"url":"missing"}}', '{"errors":{"url":"missing"}}'),
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
    assert len(words(b"x" * 10_000)) == MAX_CHARACTERS
    assert words(b"x" * 10_000).endswith("…")


def test_secrets_are_taken_out_before_the_text_is_cut():
    body = b"x" * (MAX_CHARACTERS - 5) + b"s3cr3tkey"
    said = service_words(body, lambda text: text.replace("s3cr3tkey", "***"))
    assert "s3c" not in said


@given(st.binary(max_size=400))
def test_no_body_is_too_strange(body):
    said = words(body)
    assert len(said) <= MAX_CHARACTERS
    assert said.isprintable()
    assert isinstance(service_code(body), str)
