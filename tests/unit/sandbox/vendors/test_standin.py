"""What all stand-ins share: who calls, and the parts of a form."""

import pytest

from engine.sandbox.messages import WrongInput
from engine.sandbox.vendors.standin import bearer, parts_of


class Request:
    def __init__(self, headers, body=b""):
        self.headers, self.body = headers, body


@pytest.mark.parametrize(
    ("sent", "token"),
    [("Bearer abc", "abc"), ("bearer  abc ", "abc"), ("Basic abc", ""), ("abc", ""), ("", "")],
)
def test_a_bearer_token_is_what_stands_behind_the_word(sent, token):
    assert bearer(Request({"Authorization": sent})) == token


FORM = (
    b'--xyz\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    b'--xyz\r\nContent-Disposition: form-data; name="file"; filename="batch.jsonl"\r\n'
    b"Content-Type: application/jsonl\r\n\r\n{}\n{}\n\r\n--xyz--\r\n"
)


def test_the_parts_of_a_form_are_told_by_their_names():
    parts = parts_of(Request({"Content-Type": "multipart/form-data; boundary=xyz"}, FORM))
    assert {name: (part.content, part.file) for name, part in parts.items()} == {
        "purpose": (b"batch", ""),
        "file": (b"{}\n{}\n", "batch.jsonl"),
    }


@pytest.mark.parametrize(
    ("kind", "body", "said"),
    [
        ("application/json", FORM, "must be multipart/form-data"),
        ("multipart/form-data", FORM, "must be multipart/form-data"),
        ("multipart/form-data; boundary=xyz", FORM.replace(b"; name", b"; nome"), "has no name"),
    ],
)
def test_what_is_no_form_is_refused(kind, body, said):
    with pytest.raises(WrongInput, match=said):
        parts_of(Request({"Content-Type": kind}, body))
