import pytest

from .command import Place


@pytest.fixture
def place(tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    return Place(folder, {"SAMA_ACCESS_KEY": "sandbox-key", "PYTHONDONTWRITEBYTECODE": "1"})
