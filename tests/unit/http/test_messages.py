import pytest

from engine.http.classify import Advice, Effect, Verdict
from engine.http.messages import described, failure
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
    verdict = Verdict(Effect.NOT_APPLIED, Advice.REFUSED, "HTTP 307")
    answer = Answer(307, {"Location": location}, b"")
    assert said in str(failure(call("http://127.0.0.1:8800/v2"), verdict, answer, str))
