"""The vendor's client for Sama in a loop of 1,000 records, as its page shows.

    python -m benchmarks.contenders.sama_loop ORIGIN SOURCE PROJECT

It knows one host only, so `requests.Session.request` is replaced by a function that swaps the host. Three calls a
batch, one after the other, each over a new connection: that is how the client is made.
"""
# mypy: disable-error-code="import-not-found,import-untyped,method-assign,assignment"

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import orjson
import requests
import sama


def point_at(origin: str) -> None:
    """Send what is for the vendor's host to `origin`."""
    real = requests.Session.request

    def swapped(self: Any, method: str, url: str, **options: Any) -> Any:
        parts = urlsplit(url)
        if parts.netloc == "api.sama.com":
            url = urlunsplit((*urlsplit(origin)[:2], *parts[2:]))
        return real(self, method, url, **options)

    requests.Session.request = swapped


def main() -> None:
    """Create the tasks of a file."""
    origin, source, project = sys.argv[1:]
    point_at(origin)
    client = sama.Client("key", silent=True)
    with Path(source).open("rb") as file:
        while lines := list(islice(file, 1000)):
            client.create_task_batch(project, [orjson.loads(line)["data"] for line in lines])


if __name__ == "__main__":
    main()
