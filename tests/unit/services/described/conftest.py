import pytest


@pytest.fixture
def secret(monkeypatch):
    monkeypatch.setenv("SECRET", "s3cret-of-ours")
    return "${env:SECRET}"
