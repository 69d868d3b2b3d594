"""The service `toy`, in a package of its own: one POST creates items, and its answer lists them in the order sent."""

from typing import Literal

import msgspec

from engine.model.outcome import Settlement
from engine.model.settings import SecretStr, ServiceSettings
from engine.services.base import JSON_HEADERS, Call
from engine.services.decoding import Name, decode
from engine.services.one_call import OneCall


class Item(msgspec.Struct):
    id: Name | None = None
    error: str | None = None


class Items(msgspec.Struct):
    items: list[Item]


class ToySettings(ServiceSettings, frozen=True, kw_only=True):
    kind: Literal["toy"]
    api_key: SecretStr

    def secret_headers(self):
        return {"X-Api-Key": self.api_key}


class Toy(OneCall):
    def check(self, task):
        return None if isinstance(task.get("title"), str) else "title: must be a text"

    def request(self, batch, payload):
        return Call("create", "POST", f"{self.settings.base_url}/items", headers=JSON_HEADERS, body=payload)

    def settle(self, payload, answer):
        items = decode(answer, Items).items
        errors = {at: item.error for at, item in enumerate(items) if item.error is not None}
        return Settlement([item.id for item in items], errors)


SETTINGS = ToySettings
build = Toy
