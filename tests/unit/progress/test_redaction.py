import pytest

from engine.progress.redaction import redactor

ENVIRONMENT = {"SAMA_ACCESS_KEY": "k3y-value", "SB_AUTH_TOKEN": "k3y-value-longer", "MY_KEY": "abc", "HOME": "/home/me"}


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("said k3y-value", "said ***"),
        ("said k3y-value-longer.", "said ***."),
        (
            "PUT https://b.s3.amazonaws.com/k?X-Amz-Signature=9f&X-Amz-Expires=5 failed",
            "PUT https://b.s3.amazonaws.com/k?*** failed",
        ),
        ("see https://user:pass@host/x", "see https://***@host/x"),
        ("access_key=hello&x=1", "access_key=***&x=1"),
        ("{'access_key': 'hello', 'a': 1}", "{'access_key': '***', 'a': 1}"),
        ('{"client_secret":"hello"}', '{"client_secret":"***"}'),
        ("X-SBG-Auth-Token: hello", "X-SBG-Auth-Token: ***"),
        ("Authorization: Bearer hello", "Authorization: Bearer ***"),
        ("'Authorization': 'Basic aGk='", "'Authorization': 'Basic ***'"),
    ],
)
def test_what_looks_like_a_secret_is_hidden(text, hidden):
    assert redactor(ENVIRONMENT)(text) == hidden


@pytest.mark.parametrize(
    "text",
    [
        "service.access_key: environment variable SAMA_ACCESS_KEY is not set",
        'access_key = "${env:SAMA_ACCESS_KEY}"'.replace('"${env:SAMA_ACCESS_KEY}"', ""),
        "abc and /home/me stay: too short, or not named like a secret",
        "unexpected token: '}' at line 3",
        "see https://host/path#part",
    ],
)
def test_words_about_secrets_stay(text):
    assert redactor(ENVIRONMENT)(text) == text
