"""One count over all of these tests, shown at the end: what was done to the engine and what came of it."""

from collections import Counter

import pytest

_TALLY: Counter[str] = Counter()


@pytest.fixture
def tally() -> Counter[str]:
    return _TALLY


def pytest_terminal_summary(terminalreporter):
    if _TALLY:
        figures = ", ".join(f"{name} {number:,}" for name, number in _TALLY.items())
        terminalreporter.write_line(f"faults: {figures}")
