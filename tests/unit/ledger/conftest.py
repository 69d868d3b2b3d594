import pytest

from .values import ManualClock


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledgers" / "ledger.db"
