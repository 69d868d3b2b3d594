import pytest
from fakes.bench import a_bench

from engine.model.errors import UnexpectedAnswer
from engine.model.submissions import State
from engine.naming import NamedOnce
from engine.ports import Released, Staged


class Repeating:
    """A service that gives the names that a test lays ready."""

    kind = "repeating"

    def __init__(self, *names):
        self.names = list(names)

    async def stage(self, batch, payload, *, known=None):
        return Staged(self.names.pop(0))

    async def release(self, batch, remote_id, payload, intent=None):
        return Released(remote_id or self.names.pop(0))


@pytest.fixture
async def bench(tmp_path):
    async with a_bench(tmp_path, records=30) as opened:
        yield opened


async def test_a_name_is_given_to_one_batch_only(bench):
    first, second, *_ = await bench.freeze()
    named = NamedOnce(Repeating("7", "7", "8", "7"), bench.ledger, "j")
    assert (await named.stage(first, b"")).remote_id == "7"
    with pytest.raises(UnexpectedAnswer, match="batch 1 the name 7"):
        await named.stage(second, b"")
    assert (await named.stage(second, b"")).remote_id == "8"
    assert (await named.stage(first, b"")).remote_id == "7", "its own, again"


async def test_names_of_earlier_runs_are_taken_but_for_the_one_that_is_gone_on_with(bench):
    first, second, *_ = await bench.freeze()
    await bench.bring(first, State.STAGED, remote_id="7")
    named = NamedOnce(Repeating("7", "7"), bench.ledger, "j")
    with pytest.raises(UnexpectedAnswer):
        await named.stage(second, b"")
    assert (await named.stage(first, b"", known="7")).remote_id == "7"


async def test_a_batch_sent_inline_is_named_once_too_and_a_staged_one_keeps_its_name(bench):
    first, second, *_ = await bench.freeze()
    named = NamedOnce(Repeating("7", "7"), bench.ledger, "j")
    await named.release(first, None, b"")
    with pytest.raises(UnexpectedAnswer):
        await named.release(second, None, b"")
    assert (await named.release(second, "7", None)).remote_id == "7"
    assert named.kind == "repeating"
