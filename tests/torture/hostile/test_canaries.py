"""Secrets that can be known again, in every place where one can stand; then everything written is searched for them."""

import base64
import html
import json
import os
import random
from urllib.parse import quote

import pytest
from msgspec.structs import asdict

from engine.commands.wiring import load
from engine.sandbox.behaviour import Behaviour
from engine.sandbox.server import running_sandbox
from torture.faults.catalogue import sama_kind
from torture.faults.proxy import Fault, Strike, Work, fault_proxy, made_up

from .command import files, port_of

TORTURE = os.environ.get("BULKSUBMIT_TORTURE") == "1"
_draw = random.Random(1)


class Canary:
    """A secret with characters that are escaped; known again by either half of it."""

    def __init__(self) -> None:
        self.halves = [f"{_draw.getrandbits(64):016x}" for _ in range(2)]
        self.text = '/+="&'.join(self.halves)

    def found_in(self, content: bytes) -> bool:
        return any(form in content for half in self.halves for form in _forms(half))


def _forms(half: str) -> set[bytes]:
    escaped = {half, "".join(f"%{ord(letter):02x}" for letter in half), "".join(f"\\u{ord(one):04x}" for one in half)}
    for before in range(3):  # two letters at either end may belong to what stands beside it
        escaped.add(base64.b64encode(b" " * before + half.encode()).decode()[4:-4])
    return {form.encode() for form in escaped} | {half.encode().hex().encode()}


def echo(status: int, name: str, secret: str, *headers: str) -> bytes:
    """Return an answer that tells what it has heard, in every way that it can, one error each."""
    encoded = base64.b64encode(secret.encode()).decode()
    told = [secret, quote(secret, safe=""), encoded, f"{name}={quote(secret, safe='')}"]
    # The first three errors are shown, and of anything else the beginning.
    text = json.dumps({"errors": [{"type": "Echo", "message": words} for words in told]})
    page = f"<html>{quote(secret)} {html.escape(secret)}</html>" if status in {200, 403} else text
    return made_up(status, page.encode(), *headers, "X-Echo: " + quote(json.dumps(told))).wire


def strikes(kind: str, wire: bytes, upload_url: str) -> list[Strike]:
    async def tell(exchange) -> bool:
        await exchange.say(wire)
        return True

    async def name_store(exchange) -> bool:
        await exchange.say(made_up(200, json.dumps({"batch_id": 1, "tasks_put_url": upload_url}).encode()).wire)
        return True

    struck = [Strike(kind, Fault("echo", tell), Work.NEVER, lambda number: True)]
    if kind == "put":
        struck.append(Strike("create", Fault("store", name_store), Work.NEVER, lambda number: True))
    return struck


SERVICES = {
    "sama": 'kind = "sama"\nproject_id = 42\naccess_key = "{secret}"\nmode = "{mode}"',
    "sevenbridges": 'kind = "sevenbridges"\nauth_token = "{secret}"\nproject = "me/p"\napp = "me/p/a"',
}
CONFIG = """
[service]
base_url = "{url}"
{service}
[send]
retry_base_seconds = 0.01
retry_cap_seconds = 0.01
give_up_seconds = 0.05
poll_seconds = 0.01
"""
KEPT = {"environment": "${env:HOUSE_NUMBER}", "file": "${file:../secret}"}
"""Where the service's secret is kept; neither name says that it is one."""


class Cage:
    """A place whose every canary is known."""

    def __init__(self, place) -> None:
        self.place = place
        self.key, self.other, self.signature = Canary(), Canary(), Canary()
        self.signed = quote(self.signature.text, safe="")
        (place.folder.parent / "secret").write_text(self.key.text + "\n")
        self.variables = {"HOUSE_NUMBER": self.key.text, "AWS_SECRET_ACCESS_KEY": self.other.text, "DIE_AT": ""}

    def configure(self, url: str, kept: str, *, service: str = "sama", mode: str = "presigned"):
        config = self.place.folder / "engine.toml"
        table = SERVICES[service].format(secret=KEPT[kept], mode=mode)
        config.write_text(CONFIG.format(url=url, service=table))
        return config

    def search(self, *said: str) -> None:
        """Look for every canary in what was said and in everything below the folder."""
        written = {str(path): path.read_bytes() for path in files(self.place.folder)}
        written |= {f"stream {number}": text.encode() for number, text in enumerate(said)}
        assert len(written) > 2, "nothing was written"
        for name, content in written.items():
            for secret, canary in [("key", self.key), ("other", self.other), ("signature", self.signature)]:
                assert not canary.found_in(content), f"the {secret} stands in {name}: {content[-2000:]}"


@pytest.fixture
def cage(place):
    return Cage(place)


LOUD = ("--log-level", "debug", "--log-format")
MORE = [
    ("sama", "presigned", "create", 400),
    ("sevenbridges", "", "any", 200),  # asks again for seconds
]
TOLD = [
    ("sama", "presigned", "create", 401),
    ("sama", "presigned", "create", 500),
    ("sama", "presigned", "create", 302),
    ("sama", "presigned", "put", 403),
    ("sama", "presigned", "put", 400),
    ("sama", "inline", "post", 200),
    ("sama", "inline", "post", 500),
    ("sevenbridges", "", "any", 400),
    ("sevenbridges", "", "any", 401),
    *(MORE if TORTURE else []),
]


@pytest.mark.parametrize(("service", "mode", "kind", "status"), TOLD)
async def test_what_a_server_tells_of_our_secrets_is_written_nowhere(cage, service, mode, kind, status):
    kept, form = ("file", "json") if status % 2 else ("environment", "text")
    kind_of = sama_kind if service == "sama" else (lambda request: "any")
    location = f"Location: http://127.0.0.1:9/?access_key={quote(cage.key.text, safe='')}"
    heard = ("X-Amz-Signature", cage.signature.text) if kind == "put" else ("access_key", cage.key.text)
    wire = echo(status, *heard, location)
    async with running_sandbox(Behaviour(service=service, access_keys=(cage.key.text,))) as sandbox:
        struck: list[Strike] = []
        async with fault_proxy(port_of(sandbox.url), kind_of, struck) as proxy:
            url = f"http://127.0.0.1:{proxy.port}"
            struck += strikes(kind, wire, f"{url}/bucket/key?X-Amz-Signature={cage.signed}")
            config = cage.configure(f"{url}/v2", kept, service=service, mode=mode)
            source = cage.place.folder / "tasks.ndjson"
            task = {"data": {"id": "0"}} if service == "sama" else {"name": "0", "inputs": {}}
            source.write_text(json.dumps(task) + "\n")
            done = await cage.place.run("submit", source, "--config", config, *LOUD, form, **cage.variables)
            assert proxy.struck["echo"], done.err
    assert "call" in done.err, "it was not loud"
    cage.search(done.out, done.err)


NOBODY = 9
"""A port where nobody answers: every call is struck."""


def status_with(said: str, *tasks: str) -> str:
    """Return the status of a batch that failed, and why: as a whole, and each of its tasks."""
    failed = [
        {"state": "failed", "errors": [{"type": "Fetch", "message": words}], "data": {"id": "0"}} for words in tasks
    ]
    counts = {"total": len(failed), "created": 0}
    return json.dumps({"batch_id": 1, "state": "failed", **counts, "messages": [said], "tasks": failed})


async def test_a_presigned_url_in_any_answer_is_written_nowhere(cage):
    """In one that cannot be read, in a page from the store, in what is said of a batch and of its tasks."""
    path = f"/bucket/key?X-Amz-Credential=AKIA&X-Amz-Signature={cage.signed}"
    url = f"https://bucket.s3.amazonaws.com{path}"
    failed = status_with(f"cannot read {url}", f"cannot fetch {url} nor {quote(url, safe='')}")
    answers = {
        "create": [f'{{"batch_id": 1, "tasks_put_url": "{url}"'],
        "put": [f"<html><title>{url}</title>{url}</html>", ""],
        "continue": ['{"batch_id": 1}'],
        "status": [failed],
        "settlement": [failed],
    }

    def saying(kind: str) -> Strike:
        left = answers[kind]

        async def act(exchange) -> bool:
            await exchange.say(made_up(200, (left.pop(0) if len(left) > 1 else left[0]).encode()).wire)
            return True

        return Strike(kind, Fault(kind, act), Work.NEVER, lambda number: True)

    said = []
    async with fault_proxy(NOBODY, sama_kind, list(map(saying, answers))) as proxy:
        service = f"http://127.0.0.1:{proxy.port}"
        answers["create"].append(json.dumps({"batch_id": 1, "tasks_put_url": service + path}))
        config = cage.configure(f"{service}/v2", "file")
        for command in (["submit", cage.place.write_tasks(1), "--job", "j", "--config", config], ["report", "j"]):
            done = await cage.place.run(*command, *LOUD, "json", **cage.variables)
            said += [done.out, done.err]
        assert set(proxy.struck) == set(answers), said
    told = (cage.place.folder / ".bulksubmit" / "j" / "outcomes.ndjson").read_text()
    assert "cannot fetch https://bucket.s3.amazonaws.com/bucket/key?***" in told, said
    cage.search(*said)


@pytest.mark.parametrize(("kept", "form"), [("environment", "json"), ("file", "text")])
async def test_a_stack_trace_that_shows_the_request_shows_no_secret(cage, kept, form):
    config = cage.configure("http://127.0.0.1:9/v2", kept)
    source = cage.place.write_tasks(1)
    arguments = ("submit", source, "--config", config, *LOUD, form)
    done = await cage.place.run(*arguments, accident="raise", **cage.variables)
    assert done.code == 1
    assert "RuntimeError: cannot POST" in done.err
    assert "Traceback" in done.err
    cage.search(done.out, done.err)


@pytest.mark.parametrize("at", ["create", "put"])
async def test_a_process_that_dies_amid_a_call_leaves_no_secret_in_the_wal(cage, at):
    cage.variables["DIE_AT"] = at
    async with running_sandbox(Behaviour(access_keys=(cage.key.text,))) as sandbox:
        config = cage.configure(sandbox.url, "file")
        arguments = ("submit", cage.place.write_tasks(3), "--config", config, *LOUD, "text")
        done = await cage.place.run(*arguments, accident="kill", **cage.variables)
        assert done.code == -9
        wal = cage.place.folder / ".bulksubmit" / "ledger.db-wal"
        assert b"${file:../secret}" in wal.read_bytes(), "the configuration is not where it was thought to be"
        cage.search(done.out, done.err)


async def test_a_password_in_the_address_is_refused_and_kept_nowhere(cage):
    async with running_sandbox(Behaviour(access_keys=(cage.key.text,))) as sandbox:
        source = cage.place.write_tasks(1)
        good = cage.configure(sandbox.url, "file")
        first = await cage.place.run("submit", source, "--config", good, "--job", "j", **cage.variables)
        assert first.code == 0, first.err
        bad = cage.configure(sandbox.url.replace("//", f"//user:{cage.signed}@"), "file")
        said = []
        for command in (["submit", source], ["resume", "j"]):
            done = await cage.place.run(*command, "--config", bad, *LOUD, "text", **cage.variables)
            assert done.code == 2
            assert "base_url must not contain a user name or password" in done.err
            said += [done.out, done.err]
        bad.unlink()
        cage.search(*said)


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("kept", KEPT)
def test_settings_do_not_show_their_secrets(cage, monkeypatch, service, kept):
    monkeypatch.chdir(cage.place.folder)
    monkeypatch.setenv("HOUSE_NUMBER", cage.key.text)
    setup = load(cage.configure("https://api.example.com", kept, service=service).read_text())
    shown = f"{setup!r} {setup.service} {asdict(setup.service)}"
    assert "********" in shown
    assert not cage.key.found_in(shown.encode())
