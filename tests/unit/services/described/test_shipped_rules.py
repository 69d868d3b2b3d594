"""What the rules of the shipped descriptions make of answers, as the vendors' stand-ins word them."""

import tomllib

import orjson
import pytest

from engine.model.error_hints import Blame, Pause, Refusal
from engine.model.tables import table_of
from engine.sandbox.behaviour import Behaviour, JournalSettings
from engine.sandbox.journal import Journal
from engine.sandbox.vendors.anthropic_batches import AnthropicStandIn
from engine.sandbox.vendors.elasticsearch import ElasticsearchStandIn
from engine.sandbox.vendors.hubspot import HubSpotStandIn, HubSpotSwitches
from engine.sandbox.vendors.openai_batch import OpenAiStandIn
from engine.sandbox.vendors.salesforce_bulk2 import SalesforceStandIn
from engine.services.described.settings import DescribedSettings
from engine.services.described.shipped import whole

FILLED_IN = {
    "elasticsearch": 'base_url = "https://es.example.com"\nvalues = { index_name = "t" }',
    "openai-batch": "",
    "anthropic-batches": "",
    "salesforce-bulk2": (
        'base_url = "https://x.my.salesforce.com"\n'
        'values = { client_id = "c", object = "Contact", key_field = "K__c" }\n'
        'record = { key = "${task.K__c}" }\nresults = { key = "K__c" }'
    ),
    "hubspot": 'values = { object = "contacts" }',
}


def settings_of(kind):
    table = tomllib.loads(f'[service]\nkind = "{kind}"\n{FILLED_IN[kind]}')["service"]
    complaints = []
    settings = table_of(DescribedSettings, whole(table), "service", complaints)
    assert not complaints
    return settings


def said(stand_in, status, *switches):
    service = stand_in(Behaviour(), Journal(JournalSettings()), lambda: 0.0, *switches)
    return service.error("", status, "Its words.").body


@pytest.mark.parametrize(
    ("kind", "stand_in", "status", "seconds"),
    [
        ("elasticsearch", (ElasticsearchStandIn,), 429, 5),
        ("anthropic-batches", (AnthropicStandIn,), 529, 10),
        ("salesforce-bulk2", (SalesforceStandIn,), 403, 900),
        ("hubspot", (HubSpotStandIn, HubSpotSwitches(daily=True)), 429, 3600),
        ("hubspot", (HubSpotStandIn,), 423, 2),
        ("hubspot", (HubSpotStandIn,), 477, 2),
    ],
)
def test_what_asks_for_a_pause_gets_it(kind, stand_in, status, seconds):
    hint = settings_of(kind).error_hint(status, said(stand_in[0], status, *stand_in[1:]))
    assert isinstance(hint, Pause)
    assert hint.seconds == seconds


@pytest.mark.parametrize(
    ("kind", "stand_in"),
    [("elasticsearch", ElasticsearchStandIn), ("anthropic-batches", AnthropicStandIn), ("hubspot", HubSpotStandIn)],
)
def test_a_batch_that_is_refused_as_a_whole_is_halved_and_the_words_are_told(kind, stand_in):
    hint = settings_of(kind).error_hint(400, said(stand_in, 400))
    assert isinstance(hint, Refusal)
    assert (hint.blame, hint.reason) == (Blame.PAYLOAD, "status 400: Its words.")


@pytest.mark.parametrize(
    ("kind", "stand_in", "status"),
    [
        ("elasticsearch", ElasticsearchStandIn, 404),
        ("openai-batch", OpenAiStandIn, 400),
        ("openai-batch", OpenAiStandIn, 429),
        ("anthropic-batches", AnthropicStandIn, 401),
        ("salesforce-bulk2", SalesforceStandIn, 400),
        ("hubspot", HubSpotStandIn, 429),
    ],
)
def test_the_rest_is_judged_by_its_status(kind, stand_in, status):
    assert settings_of(kind).error_hint(status, said(stand_in, status)) is None


@pytest.mark.parametrize("kind", FILLED_IN)
def test_what_a_person_has_to_fill_in_is_asked_for(kind):
    if not FILLED_IN[kind]:
        return
    complaints = []
    table_of(DescribedSettings, whole({"kind": kind}), "service", complaints)
    assert len(complaints) == 1
    assert "missing" in complaints[0] or "must be filled in" in complaints[0] or "base_url" in complaints[0]


def test_the_secret_stands_in_the_environment():
    for kind in FILLED_IN:
        secret = whole({"kind": kind})["auth"]["secret"]
        assert secret.startswith("${env:"), orjson.dumps(secret)
