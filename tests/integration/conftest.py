import contextlib

import pytest
from fakes.served import served

from .commands.desk import CONFIG


@pytest.fixture
def serving(tmp_path, monkeypatch):
    """Serve a sandbox in a process of its own, that behaves as told; return the configuration for it, as a file."""
    monkeypatch.setenv("SAMA_ACCESS_KEY", "sandbox-key")
    monkeypatch.chdir(tmp_path)
    with contextlib.ExitStack() as stack:

        def starting(behaviour="", *, send="", name="sama"):
            folder = tmp_path / f"{name}-sandbox"
            folder.mkdir()
            url, _ = stack.enter_context(served(folder, behaviour))
            path = tmp_path / f"{name}.toml"
            path.write_text(CONFIG.format(url=url, service="", send=send, more=""))
            return path

        yield starting
