"""The one place where secrets are taken out of a text, and where words of others are made fit to be kept and shown.

`http` uses it for all that a service says, displays, log and screens for all that leaves. A text may be from anywhere,
a traceback of a library, too. So it is judged by its values: what a configuration, a proxy or the environment has named
a secret, in every form in which it may be echoed. And by its looks: the query of a URL (presigned URLs carry their
signature there) and the name before its host, and what is assigned to the name of a credential: in a query, a header,
an element of XML.

Invariant: the time is linear in the length of the text, whoever wrote it. No pattern here has a beginning that may
match in many ways: each begins with a fixed word, or with a bounded number of letters.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cache, lru_cache
from urllib.parse import quote, quote_plus, unquote

HIDDEN = "***"
SHORTEST_SECRET = 6
"""A shorter value would also be found where it is none: `API_KEY=test`."""
MOST_FOREIGN = 300
"""Letters of others that are kept: a sentence or two, no stack trace and no document."""
_MOST_READ = 2_000
"""Letters of others that are looked at: a page may hold a thousand errors of 64 KB."""

_SECRET_NAME = re.compile(r"(?:^|_)(?:KEY|TOKEN|SECRET|(?:PG)?PASSWORD|PASSWD|CREDENTIALS?)(?:_|$)")
"""In capitals. PGPASSWORD is how PostgreSQL takes one."""
# These are compiled when a text first needs them, by `re`, which keeps them: at the start they would take 3 ms.
_URL = (
    r"\b(?P<scheme>[a-z][a-z0-9+.-]{0,15}:(?:\\?/){2})"
    r"(?P<rest>[^\s'\"<>?]*(?:\?(?:[^\s'\"<>]|(?!['\"]>)['\"<>]{1,3}(?=[\w%&=+.-]))*)?)"
)
"""A quote or bracket that more of a query follows at once is part of it: `?a='b'&c=1`."""
_LEDGERS = frozenset({"postgresql://", "postgres://"})
_LOGIN = r"(?P<kept>(?<![:/\\])\\?/\\?/)[^\s/@'\"<>\\]{1,256}(?=@)"
"""Of a URL without a scheme."""
_QUERY_BEGINS = r"\?|%(?:25){0,3}3f|\\u003f|&#(?:0{0,7}63|x0{0,7}3f);"
_NAMES = (
    r"(?:access_?-?key(?:id|_id)?|api_?-?key|account_?-?key|key-pair-id|token|secret|password|passwd|signature|credential"
    r"|(?:(?<![a-z])|(?<=3f))sig)"
)
"""Also those of presigned URLs at S3, GCS (`X-Goog-Signature`), CloudFront (`Key-Pair-Id`), Azure (`sig`, also behind
an encoded `?`), and how vendors call their keys."""
_EQUALS = r"%(?:25){0,3}3d|\\{1,4}u003d|&#(?:0{0,7}61|x0{0,7}3d);|&equals;"
_ASSIGNED = (
    rf"(?P<kept>{_NAMES}(?:\s*=\s*['\"]?|{_EQUALS}|\\?['\"]\s*:\s*\\?['\"]))"
    r"(?:[^\s'\",;&}{)(<>\\]|\\/|\\u00(?:2[bf]|3d)|&#x?[0-9a-f]{1,6};)+"
)
"""Not `access_key: …` without quotes: that is how a message about the key begins. Escapes within the value belong to
it."""
_HEADER = (
    r"(?P<kept>(?:(?:authorization|auth-token|x-api-key)['\"]?\s*[:=]"
    r"|-(?:signature|token|secret|password|credential|api-key|key-id)['\"]?\s*:)"
    r"\s*['\"]?(?:(?:bearer|basic)\s+)?)[^\s'\",;]+"
)
"""A hyphen before the name is what tells `x-amz-security-token: …` from a sentence about a token."""
_BEARER = (
    r"(?P<kept>\bbearer(?:\s|%20){1,4})"
    r"(?!(?:auth[a-z]{0,20}|tokens?|realm|scheme|credentials?|error|header|format|methods?|required)\b)[\w.~+/=-]{6,}"
)
_COOKIE = r"(?P<kept>cookie['\"]?\s*[:=]\s*['\"]?)(?:[^\n'\"<>]|(?<==)['\"]|(?<==\\)['\"])+"
"""All that stands behind it: each part may be one."""
_ELEMENT = (
    r"(?P<kept>(?:<|&lt;)[a-z0-9:_-]{0,40}?(?:signature|access_?-?key|secret|token|password|credential|cookie)"
    r"[^<>&]{0,80}(?:>|&gt;)(?:<!\[CDATA\[)?)[^<>&]+"
)
"""Of XML: S3 tells what was signed, and by whom."""
_CREDENTIALS = ("key", "token", "secret", "passw", "sig", "cred")
_LOOKS = (
    (_LOGIN, ("@",)),
    (_ASSIGNED, _CREDENTIALS),
    (_HEADER, ("auth", *_CREDENTIALS)),
    (_BEARER, ("bearer",)),
    (_COOKIE, ("cookie",)),
    (_ELEMENT, ("<", "&lt;")),
)
"""Patterns, and words of which a text that one fits holds one: to look for those takes a tenth of the time."""

_TOKEN = re.compile(r"[\w.~+/=-]{65,}", re.ASCII)
_KNOWN_BY = 64
"""A longer token is known by so many letters, and then goes on for as long as it may: a JWT has 1,500 of them, and a
pattern for each of those took half a second to make, anew with each token that is renewed."""
_THE_REST = r"(?:[\w.~+/=-]|%(?:25){0,3}[0-9A-Fa-f]{2}|\\u00[0-9A-Fa-f]{2}|\\/|&#[xX]?[0-9A-Fa-f]{1,9};)*"
"""Plain or escaped, as `_escapes` has it. No two of the ways fit the same letters."""

_remembered: set[str] = set()
"""The secrets that a configuration or a proxy has named. The process's own, as its environment is."""

Redact = Callable[[str], str]


def remember_secret(secret: str) -> None:
    """Hide `secret` from now on, wherever a redactor is used that is made afterwards or was made before."""
    if len(secret) >= SHORTEST_SECRET:
        _remembered.add(secret)


def forget_secret(secret: str) -> None:
    """Hide it no more: a token that has ended. Each that is hidden makes every text dearer."""
    _remembered.discard(secret)


def url_passwords(text: str) -> Sequence[str]:
    """Return the passwords of the URLs in a text, as they stand there and as they are meant."""
    if "@" not in text:
        return ()
    logins = (found["rest"].partition("/")[0].rpartition("@")[0] for found in re.finditer(_URL, text, re.IGNORECASE))
    passwords = [login.partition(":")[2] for login in logins]
    return [form for password in passwords if password for form in {password, unquote(password)}]


def redactor(environment: Mapping[str, str], *, looks: bool = True) -> Redact:
    """Return a function that hides what looks like a secret; `environment` is where secrets are usually kept.

    Without `looks`, only known secrets are hidden: for a person who wants to see what exactly would be sent.
    """
    named = [value for name, value in environment.items() if _SECRET_NAME.search(name.upper())]
    in_urls = [password for value in environment.values() for password in url_passwords(value)]
    return redacting((), {*named, *in_urls}, looks=looks)


def redacting(secrets: Collection[str], values: Collection[str] = (), *, looks: bool = True) -> Redact:
    """Return a function that hides secrets, those that are remembered, and, by its `looks`, what may be one.

    `secrets` are found in any mix of escapes. `values`, of which there may be many, in the usual forms only: a pattern
    for any mix takes 3 ms to make.
    """
    ours = frozenset(secrets)
    # One that holds another one goes first.
    plain = sorted({form for value in values for form in forms(value)}, key=len, reverse=True)

    def redact(text: str) -> str:
        if known := _pattern(ours.union(_remembered)):
            text = known.sub(HIDDEN, text)
        for form in plain:
            text = text.replace(form, HIDDEN)
        if not looks:
            return text
        folded = text.casefold()
        if "/" in folded:
            text = re.sub(_URL, _without_secrets, text, flags=re.IGNORECASE)
        for pattern, needed in _LOOKS:
            # A letter that is none of ASCII may match one that is: a dotless i an i.
            if any(word in folded for word in needed) or not folded.isascii():
                text = re.sub(pattern, rf"\g<kept>{HIDDEN}", text, flags=re.IGNORECASE)
        return text

    return redact


_BREAKS = dict.fromkeys("\t\n\v\f\r\x85\u2028\u2029", " ")


def foreign_words(text: str, redact: Redact | None = None) -> str:
    """Return words of others as they may be kept and shown: without secrets, on one line, `MOST_FOREIGN` letters."""
    begun = text[:_MOST_READ]
    if len(text) > _MOST_READ:
        begun = begun.rpartition(" ")[0] or begun  # half a secret would not be known any more
    # What nobody sees is left out and no blank, or it would cut a URL in two of which only one is known as such.
    plain = begun if begun.isprintable() else "".join(a if a.isprintable() else _BREAKS.get(a, "") for a in begun)
    line = " ".join((redact or _by_environment())(plain).split())
    return line if len(line) <= MOST_FOREIGN else line[: MOST_FOREIGN - 1] + "…"


def all_foreign_words(texts: Sequence[str]) -> Sequence[str]:
    """Return `foreign_words` of each text: mostly the texts as they are, which one look at all of them shows."""
    different = dict.fromkeys(texts)
    if max(map(len, different), default=0) <= MOST_FOREIGN and _are_plain(different):
        return texts
    kept = {text: foreign_words(text) for text in different}
    return [kept[text] for text in texts]


def _are_plain(texts: Collection[str]) -> bool:
    """Return whether nothing of some short texts is changed; what a pattern finds in one it finds in the line of it."""
    lines = "\n".join(["", *texts, ""])
    return (
        lines.count("\n") == len(texts) + 1
        and lines.replace("\n", "").isprintable()
        and not any(blanks in lines for blanks in ("  ", " \n", "\n "))
        and _by_environment()(lines) == lines
    )


@cache
def _by_environment() -> Redact:
    return redactor(os.environ)


def _without_secrets(found: re.Match[str]) -> str:
    """Return a URL without its query, and without the name and password before its host.

    That of a ledger in PostgreSQL stays as it is: it stands in commands that people paste, and has no password.
    """
    rest = found["rest"]
    if found["scheme"] in _LEDGERS and ":" not in rest.rpartition("@")[0] and "password" not in rest:
        return found[0]
    begins = re.search(_QUERY_BEGINS, rest, re.IGNORECASE)
    address, mark, query = (rest[: begins.start()], begins[0], rest[begins.end() :]) if begins else (rest, "", "")
    authority, slash, path = address.partition("/")
    user, at, host = authority.rpartition("@")
    place = f"{HIDDEN if user else ''}{at}{host}{slash}{path}{mark}"
    return f"{found['scheme']}{place}{HIDDEN if query else ''}"


def forms(secret: str) -> frozenset[str]:
    """Return the usual forms in which `secret` may be echoed; none if it is so short that it is found by chance."""
    if len(secret) < SHORTEST_SECRET:
        return frozenset()
    percent = {quote(secret, safe=""), quote(secret), quote_plus(secret)}
    return frozenset(
        {secret, json.dumps(secret)[1:-1], secret.translate(_HTML_ESCAPED), *percent, *_base64_forms(secret)}
    )


def _base64_forms(secret: str) -> Iterator[str]:
    """Yield the letters by which `secret` is known within base64, in each of the three places where it may begin."""
    content = secret.encode("utf-8", "surrogatepass")
    for before in range(3):
        known = slice(-(-before * 8 // 6), (before + len(content)) * 8 // 6)  # letters that nothing else has a part in
        yield base64.b64encode(bytes(before) + content).decode()[known]
        yield base64.urlsafe_b64encode(bytes(before) + content).decode()[known]


@lru_cache(maxsize=8)
def _pattern(secrets: frozenset[str]) -> re.Pattern[str] | None:
    """Return a pattern for secrets, in all forms in which servers echo what they were sent.

    Each letter is plain or escaped (percent-encoding, doubled or not, JSON, HTML), in any mix, or all is in base64.
    """
    if not secrets:
        return None
    ordered = sorted(secrets, key=lambda secret: (-len(secret), secret))  # one that holds another one goes first
    encoded = {form for secret in ordered if len(secret) >= SHORTEST_SECRET for form in _base64_forms(secret)}
    return re.compile("|".join([*map(_in_any_mix, ordered), *map(re.escape, encoded)]))


def _in_any_mix(secret: str) -> str:
    """Return a pattern for a secret each letter of which is plain or escaped."""
    if _TOKEN.fullmatch(secret):
        return "".join(map(_escapes, secret[:_KNOWN_BY])) + _THE_REST
    return "".join(map(_escapes, secret))


_HTML_NAMES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&apos;"}
_HTML_ESCAPED = str.maketrans({**_HTML_NAMES, "'": "&#x27;"})
"""As `html.escape` has it, which takes 2 ms to load."""


def _escapes(character: str) -> str:
    """Return a pattern for one character, plain or escaped."""
    octets, units = character.encode("utf-8", "surrogatepass"), character.encode("utf-16-be", "surrogatepass").hex()
    point = ord(character)
    written = [
        re.escape(character),
        "".join(f"%(?:25){{0,3}}{_either_case(f'{octet:02x}')}" for octet in octets),  # %41, %2541 (encoded twice), …
        "".join(rf"\\u{_either_case(units[start : start + 4])}" for start in range(0, len(units), 4)),
        rf"&#0{{0,7}}{point};",
        rf"&#[xX]0{{0,7}}{_either_case(f'{point:x}')};",
    ]
    if character in '"\\/':
        written.append(rf"\\{re.escape(character)}")
    if character in _HTML_NAMES:
        written.append(_HTML_NAMES[character])
    if character == " ":
        written.append(r"\+")
    return f"(?:{'|'.join(written)})"


def _either_case(digits: str) -> str:
    """Return a pattern for hexadecimal digits, small or large; `(?i:…)` would take three times as long to make."""
    return "".join(f"[{digit}{digit.upper()}]" if digit.isalpha() else digit for digit in digits)
