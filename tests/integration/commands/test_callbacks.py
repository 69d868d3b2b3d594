"""Callbacks from the sandbox to the engine, with all that can be wrong with them: the fates are the service's."""

import pytest

from engine.model.errors import ConfigError
from engine.progress.events import Noticed
from engine.sandbox.behaviour import Callbacks, CreationPace, FailureRule

from .desk import counts, once, stopped, tasks

SECRET = "callback-secret-123"
PACE = CreationPace(tasks_per_second=100.0)
ALL_FAULTS = {"lost": 0.2, "twice": 0.2, "late": 0.5, "late_seconds": 0.3, "forged": 0.3, "untrue": 0.3}


@pytest.fixture
def called_back(desk, unused_tcp_port, monkeypatch):
    """Start a sandbox that calls back, and return a desk with a configuration that listens."""
    monkeypatch.setenv("CALLBACK_SECRET", SECRET)

    async def starting(auth="token", key="token", *, secret=SECRET, behaviour=None, **callbacks):
        told = Callbacks(
            f"http://127.0.0.1:{unused_tcp_port}/sama", auth, "sama", secret, retry_seconds=0.05, **callbacks
        )
        begun = await desk(callbacks=told, **({"creation": PACE} | (behaviour or {})))
        more = f'[callback]\nlisten = "127.0.0.1:{unused_tcp_port}"\n{key} = "${{env:CALLBACK_SECRET}}"\n'
        return begun, begun.config(more=more)

    return starting


def noticed(desk):
    return [event.text for event in desk.events if isinstance(event, Noticed)]


@pytest.mark.parametrize(
    ("auth", "key"), [("token", "token"), ("access_key", "access_key"), ("basic", "basic"), ("hmac", "hmac_key")]
)
async def test_callbacks_with_each_proof_are_taken(called_back, monkeypatch, auth, key):
    desk, config = await called_back(auth, key)
    if auth == "basic":
        monkeypatch.setenv("CALLBACK_SECRET", f"sama:{SECRET}")
    result = await desk.submit(desk.source(tasks(50)), config)
    assert counts(result) == (50, 0, 0, 0, 0)
    assert not noticed(desk)
    assert desk.created() == once(50)


@pytest.mark.parametrize("names", [True, False])
async def test_lost_late_doubled_forged_and_untrue_ones_do_no_harm(called_back, names):
    failures = (FailureRule("data.id", matches="7$"),)
    desk, config = await called_back(
        behaviour={"failures": failures}, names=names, tasks_per_call=3, seed=3, **ALL_FAULTS
    )
    result = await desk.submit(desk.source(tasks(100)), config)
    assert counts(result) == (90, 10, 0, 0, 0)
    assert set(desk.created().values()) == {1}
    assert (await desk.audit()).holds
    assert any("without the proof" in text for text in noticed(desk))


async def test_with_a_wrong_secret_the_service_is_asked_as_ever(called_back):
    desk, config = await called_back(secret="another one")
    result = await desk.submit(desk.source(tasks(30)), config)
    assert counts(result) == (30, 0, 0, 0, 0)
    assert noticed(desk) == ["a callback came without the proof that [callback] asks for: such ones are refused (401)"]


async def test_a_job_that_was_stopped_goes_on_with_callbacks(called_back, desk):
    begun, config = await called_back()
    await stopped(begun)
    table = "".join(config.read_text().partition("[callback]")[1:])
    await begun.resume(config=begun.config(send="max_in_flight = 1", more=table))
    assert begun.created() == once(100)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("", "callback.token: callbacks are proven by one of basic, token, access_key and hmac_key"),
        (
            'token = "${env:CALLBACK_SECRET}"\nbasic = "${env:CALLBACK_SECRET}"',
            "callback.token: callbacks are proven by",
        ),
        ('token = "plain"', "callback.token: a secret does not belong into the file"),
        ('token = "${env:CALLBACK_SECRET}"\nlisten = "8899"', "callback.listen: '8899' is no address with a port"),
        ('token = "${env:CALLBACK_SECRET}"\nurl = "https://x"', "callback.url: unknown key; known: listen"),
    ],
)
async def test_a_table_that_cannot_be_is_an_error_before_anything_is_sent(desk, monkeypatch, table, said):
    monkeypatch.setenv("CALLBACK_SECRET", SECRET)
    desk = await desk()
    with pytest.raises(ConfigError) as caught:
        await desk.submit(desk.source(tasks(1)), desk.config(more=f"[callback]\n{table}\n"))
    assert str(caught.value).startswith(said)


async def test_a_service_that_does_not_call_back_has_no_such_table(desk, monkeypatch, tmp_path):
    monkeypatch.setenv("CALLBACK_SECRET", SECRET)
    begun = await desk()
    config = tmp_path / "bridges.toml"
    service = f'[service]\nkind = "sevenbridges"\nbase_url = "{begun.sandbox.url}"\n'
    config.write_text(
        service + 'auth_token = "${env:CALLBACK_SECRET}"\nproject = "o/p"\napp = "o/p/a"\n'
        '[callback]\ntoken = "${env:CALLBACK_SECRET}"\n'
    )
    with pytest.raises(ConfigError, match="callback: service 'sevenbridges' sends no callbacks"):
        await begun.submit(begun.source([{"name": "x"}]), config)
