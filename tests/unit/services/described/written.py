"""Tables of descriptions, and what reads one: `[service]` with the shortest release, and others beside it."""

from engine.commands.configuration import check, hide_secret
from engine.services.described.settings import DescribedSettings

RELEASE = {"call": "POST /tasks", "payload": True}
STAGED = {
    "stage": {"call": "POST /jobs", "take": {"id": "id"}},
    "release": {"call": "POST /jobs/${id}/start", "payload": True},
}
UPLOADED = {
    "stage": {"call": "POST /jobs", "take": {"id": "id"}},
    "upload": {"call": "PUT /jobs/${id}", "payload": True},
    "release": {"call": "POST /jobs/${id}/start"},
}
STATUS = {"call": "GET /jobs/${id}", "state": "state", "waiting": ["open"], "finished": ["done"]}
KEY = "${job}-${token}-${index}"


def read(expand=hide_secret, **tables):
    base = {"kind": "http", "base_url": "https://api.example.com/v1", "release": RELEASE}
    return check(DescribedSettings, {**base, **tables}, "service", expand)
