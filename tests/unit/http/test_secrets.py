import html
import io
import json
from itertools import pairwise
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.http.secrets import Credentials, HidingFile
from engine.model.errors import ConfigError
from engine.model.settings import SecretStr

KEY = "k3y/with+odd =chars&\"é'<>"

# `*` is left out because the mask is made of it; secrets are at least four characters or they match by chance.
secrets = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S"), exclude_characters="*"), min_size=4)

ESCAPES = {
    "plain": str,
    "percent": lambda text: quote(text, safe=""),
    "percent, slashes kept": quote,
    "form": quote_plus,
    "percent, lower case": lambda text: "".join(f"%{byte:02x}" for byte in text.encode()),
    "percent, twice": lambda text: quote(quote(text, safe=""), safe=""),
    "json": lambda text: json.dumps(text)[1:-1],
    "json, unicode": lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    "json, slashes": lambda text: json.dumps(text)[1:-1].replace("/", "\\/"),
    "html": html.escape,
    "html, numeric": lambda text: "".join(f"&#x{ord(character):X};" for character in text),
}


def of(*values):
    return Credentials(query={f"key{number}": SecretStr(value) for number, value in enumerate(values)})


@pytest.mark.parametrize("escape", ESCAPES.values(), ids=ESCAPES)
@settings(max_examples=25)  # of each form; making a pattern of a secret takes long
@given(secrets, st.text(), st.text())
def test_a_secret_is_found_in_every_form_in_which_a_server_may_echo_it(escape, secret, before, after):
    escaped = escape(secret)
    assert escaped not in of(secret).redact(f"{before} {escaped} {after}".replace("*", ""))


def test_what_is_not_secret_stays():
    assert of(KEY).redact("status 500: the key 'k3y' is fine") == "status 500: the key 'k3y' is fine"
    assert Credentials().redact("anything") == "anything"


def test_a_secret_within_another_leaves_nothing_of_the_longer():
    assert of("abcd", "abcdefgh").redact("x abcdefgh abcd") == "x *** ***"


def test_the_token_behind_a_scheme_is_a_secret_by_itself():
    credentials = Credentials(headers={"Authorization": SecretStr("Bearer t0ken-value")})
    assert credentials.redact("you sent t0ken-value") == "you sent ***"
    assert credentials.redact("you sent Bearer t0ken-value") == "you sent ***"


@pytest.mark.parametrize(
    "parameter",
    [
        "X-Amz-Signature=ab12",
        "X-Amz-Credential=AKIA%2F20260101",
        "X-Amz-Security-Token=ab12",
        "X-Goog-Signature=ab12",
        "AWSAccessKeyId=AKIA",
        "Signature=ab12",
        "sig=ab12",
        "access_key=ab12",
        "auth_token=ab12",
        "api_key=ab12",
        "apikey=ab12",
    ],
)
def test_parameters_of_presigned_urls_are_hidden_without_being_known(parameter):
    name, value = parameter.split("=")
    shown = Credentials().redact(f"PUT /b/k?a=1&{parameter}&z=2 failed")
    assert value not in shown
    assert shown == f"PUT /b/k?a=1&{name}=***&z=2 failed"


def test_nothing_shows_in_repr():
    credentials = Credentials(headers={"X-SBG-Auth-Token": SecretStr(KEY)}, query={"access_key": SecretStr("other")})
    assert KEY not in repr(credentials)
    assert "other" not in repr(credentials)
    assert credentials.headers == {"X-SBG-Auth-Token": KEY}
    assert credentials.query == {"access_key": "other"}


@pytest.mark.parametrize("bad", ["", "key\n", " key", "a\x00b", "a\r\nX-Evil: 1"])
def test_a_secret_that_cannot_be_sent_is_refused_without_being_shown(bad):
    with pytest.raises(ConfigError) as caught:
        of(bad)
    assert "key0" in str(caught.value)
    assert not bad or bad not in str(caught.value)


def test_a_secret_that_is_neither_header_nor_parameter_is_hidden_and_not_sent():
    credentials = Credentials({"Authorization": SecretStr("Basic bWU6cGFzc3dvcmQ=")}, others=[SecretStr("pass word")])
    assert credentials.redact("pass word, word, bWU6cGFzc3dvcmQ=") == "***, word, ***"
    assert credentials.hide(b"pass word, word") == b"***, word"
    assert set(credentials.headers) == {"Authorization"}
    assert "pass" not in repr(credentials)


# On the way into a file


def written(pieces, credentials):
    """Return what a file holds after the pieces were written to it, one after the other."""
    file = io.BytesIO(b"of an earlier attempt, which was longer" * 100)
    hiding = HidingFile(file, credentials)
    hiding.begin()
    hiding.write(b"".join(pieces)[:7])
    hiding.begin()
    for piece in pieces:
        hiding.write(piece)
    hiding.end()
    return file.getvalue()


TWO = of(KEY, "k3y/with")


@given(
    st.lists(st.one_of(st.binary(max_size=9), st.sampled_from([*TWO.forms, KEY.encode(), b"k3y/", b"\\u", b"*"]))),
    st.lists(st.integers(0, 400)),
)
def test_a_secret_is_hidden_in_a_file_wherever_the_pieces_are_cut(parts, cuts):
    body = b"".join(parts)
    ends = sorted({min(cut, len(body)) for cut in cuts} | {0, len(body)})
    pieces = [body[start:end] for start, end in pairwise(ends)]
    found = written(pieces, TWO)
    assert not any(form in found for form in TWO.forms)
    assert found == written([body], TWO)
    if not any(form in body for form in TWO.forms):
        assert found == body


@pytest.mark.parametrize("cut", range(1, len(KEY.encode())))
def test_a_secret_that_stands_across_two_pieces_is_hidden(cut):
    key = KEY.encode()
    assert written([b"a " + key[:cut], key[cut:] + b" b"], of(KEY)) == b"a *** b"


def test_without_a_secret_nothing_is_held_back():
    file = io.BytesIO()
    hiding = HidingFile(file, Credentials())
    hiding.begin()
    hiding.write(b"all of it")
    assert file.getvalue() == b"all of it"
