"""Every vendor's stand-in, by the name of the shipped description that is run against it."""

from collections.abc import Mapping

from engine.sandbox.behaviour import VendorKind
from engine.sandbox.vendors.anthropic_batches import AnthropicStandIn
from engine.sandbox.vendors.elasticsearch import ElasticsearchStandIn
from engine.sandbox.vendors.hubspot import HubSpotStandIn
from engine.sandbox.vendors.openai_batch import OpenAiStandIn
from engine.sandbox.vendors.salesforce_bulk2 import SalesforceStandIn
from engine.sandbox.vendors.standin import MakeVendor

VENDORS: Mapping[VendorKind, MakeVendor] = {
    "elasticsearch": ElasticsearchStandIn,
    "openai-batch": OpenAiStandIn,
    "anthropic-batches": AnthropicStandIn,
    "salesforce-bulk2": SalesforceStandIn,
    "hubspot": HubSpotStandIn,
}
