"""The servers of the other tests start, know who may write, and are gone afterwards."""

from pathlib import Path

import pytest

from .servers import couchdb, datasette, pocketbase

TABLE = "CREATE TABLE tasks (id TEXT PRIMARY KEY, n INTEGER)"
STARTS = {"pocketbase": pocketbase, "couchdb": couchdb, "datasette": lambda: datasette(TABLE)}
REFUSED = {
    "pocketbase": ("GET", "/api/settings"),
    "couchdb": ("GET", "/_config"),
    "datasette": ("POST", "/tests/-/create"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", STARTS)
def test_a_server_starts_refuses_strangers_and_ends(name):
    with STARTS[name]() as server:
        status, answer = server.ask(*REFUSED[name], headers={})
        assert status in (401, 403), answer
        assert server.secrets
    with pytest.raises(OSError, match="refused"):
        server.ask("GET", "/")
    assert not Path(f"/proc/{server.pid}").exists()
    assert not server.folder.exists()
