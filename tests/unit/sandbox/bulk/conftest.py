from contextlib import ExitStack, closing
from itertools import count

import pytest

from .api import BulkApi


@pytest.fixture
def start(tmp_path):
    """Start the six faces in made-up time, each time with a journal of their own; return a client of them."""
    numbers = count()
    with ExitStack() as stack:

        def starting(behaviour=None, unwritten=None, **bulk):
            folder = tmp_path / str(next(numbers))
            return stack.enter_context(closing(BulkApi(folder, unwritten, behaviour, **bulk)))

        yield starting
