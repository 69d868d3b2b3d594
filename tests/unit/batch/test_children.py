import os
import pickle
import signal
import subprocess
import sys
from contextlib import closing, suppress
from itertools import islice

import pytest
from fakes.inputs import CONTENTS, WINDOWS, sources_of
from fakes.processes import children
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from engine.batch.children import Segment, Standby, joined, plan_in_children
from engine.batch.payload import PayloadReader
from engine.model.batch import Limits
from engine.model.errors import ReaderLost, SourceChanged, SourceError
from engine.model.record import Format, Position, source_at
from engine.model.settings import SourceSettings
from engine.source.reader import segment_stops

from .crews import Broken, Endless, Here, Recipe, Told

BEGINNING = Position()
LINES = st.lists(
    st.sampled_from(
        [b'{"a":1}\n', b'{"a":"bad"}\n', b"\n", b"oops\n", b'{"b":[1,2]}\r\n', b'{"c":"' + b"y" * 90 + b'"}\n']
    ),
    max_size=60,
).map(b"".join)


def alone(recipe, start=BEGINNING, sequence=0):
    """Return what one process plans."""
    return list(recipe.plan(Segment(start, sequence, recipe.sources[-1].end)))


def in_turns(recipe, workers, start=BEGINNING, sequence=0):
    """Return what several workers plan."""
    stops = segment_stops(recipe.sources, start.offset, recipe.segment_bytes)
    crew = [Here(recipe) for _ in range(workers)]
    return list(joined(crew, recipe.sources, Segment(start, sequence, next(stops)), stops))


def batches(plans):
    return [batch for plan in plans for batch in plan.batches]


def rejects(plans):
    return [each for plan in plans for each in plan.rejects]


def line_at(sources, contents, offset):
    """Return the line of a byte, counted by hand."""
    if offset == sources[-1].end:
        return 1
    source = source_at(sources, offset)
    return 1 + contents[source.number].count(b"\n", 0, offset - source.base)


def assert_valid(plans, recipe, contents, start, sequence):
    """The batches tile the sources, and each holds what its payload holds."""
    reader = PayloadReader(recipe.sources, recipe.settings, recipe.mapper)
    at = start
    for batch in batches(plans):
        assert (batch.start, batch.sequence) == (at, sequence)
        assert batch.start.line == line_at(recipe.sources, contents, batch.start.offset)
        assert len(reader.read(batch).array) == batch.size_bytes
        found = [each for each in rejects(plans) if batch.start.index <= each.index < batch.end.index]
        assert batch.rejected == len(found)
        at, sequence = batch.end, sequence + 1
    assert at.offset == recipe.sources[-1].end
    assert [plan.last for plan in plans] == [False] * (len(plans) - 1) + [True]
    assert plans[-1].reached == at


@given(st.data(), st.sampled_from(list(CONTENTS)), WINDOWS, st.sampled_from([40, 1 << 24]))
@settings(max_examples=300)
def test_any_number_of_workers_freezes_the_same_batches(data, kind, window_bytes, max_record_bytes):
    content = LINES | CONTENTS[kind] if kind is Format.NDJSON else CONTENTS[kind]
    contents = data.draw(st.lists(content, min_size=1, max_size=4))
    limits = Limits(data.draw(st.integers(1, 9)), data.draw(st.integers(1, 200)))
    options = SourceSettings(max_record_bytes=max_record_bytes)
    segment_bytes = data.draw(st.sampled_from([1, 7, 50, 333]))
    recipe = Recipe(sources_of(*contents, kind=kind), options, limits, window_bytes, segment_bytes)
    try:
        plain = alone(recipe)
    except SourceError:  # a header that cannot be used
        reject()
    ends = [batch.end for batch in batches(plain)]
    begun = data.draw(st.integers(0, len(ends)))
    start, rest = (ends[begun - 1], alone(recipe, ends[begun - 1], begun)) if begun else (Position(), plain)

    for workers in (1, 2, 5):
        plans = in_turns(recipe, workers, start, begun)
        assert batches(plans) == batches(rest)
        assert rejects(plans) == rejects(rest)
        assert plans[-1].reached == rest[-1].reached
        assert_valid(plans, recipe, contents, start, begun)


@given(
    st.lists(LINES, min_size=1, max_size=3),
    st.integers(1, 9),
    st.integers(1, 200),
    WINDOWS,
    st.sampled_from([9, 99, 999]),
)
def test_a_job_that_goes_on_after_any_batch_freezes_what_one_run_would(
    contents, records, most_bytes, window_bytes, segment_bytes
):
    limits = Limits(records, most_bytes)
    assert_goes_on(Recipe(sources_of(*contents), SourceSettings(), limits, window_bytes, segment_bytes))


@pytest.mark.parametrize("records", [1, 2, 3])
@pytest.mark.parametrize("window_bytes", [16, 61, 300])
def test_bad_records_without_end_are_cut_alike_wherever_reading_began(records, window_bytes):
    lines = [b'{"a":1}\n' * 2, b"oops\n" * 30, b'\n{"a":1}\n', b'{"a":"bad"}\n\n' * 7]
    recipe = Recipe(sources_of(b"".join(lines * 4)), SourceSettings(), Limits(records, 1 << 20), window_bytes, 500)
    assert_goes_on(recipe)
    assert max(batch.rejected for batch in batches(alone(recipe))) == records


def assert_goes_on(recipe):
    """Whoever goes on after any batch freezes what one process would that had begun at the beginning."""
    whole = batches(alone(recipe))
    for batch in whole:
        rest = whole[batch.sequence + 1 :]
        assert batches(alone(recipe, batch.end, batch.sequence + 1)) == rest
        assert batches(in_turns(recipe, 2, batch.end, batch.sequence + 1)) == rest


def in_children(recipe, children=1, standby=None, **options):
    whole = Segment(Position(), 0, recipe.sources[-1].end)
    standby = standby or Standby()
    return plan_in_children(recipe, recipe.sources, whole, children=children, standby=standby, **options)


@pytest.mark.parametrize("children", [1, 2, 3])
def test_processes_plan_what_this_one_would(children):
    contents = [b'{"a":1}\n' * 3000, b'{"a":"bad"}\n\noops\n' * 300, b'{"b":[]}']
    recipe = Recipe(sources_of(*contents), segment_bytes=5000)
    plans = list(in_children(recipe, children, segment_bytes=5000))
    if children == 1:
        assert plans == alone(recipe)
    assert (batches(plans), rejects(plans)) == (batches(alone(recipe)), rejects(alone(recipe)))
    assert_valid(plans, recipe, contents, Position(), 0)


def test_an_error_of_a_child_arrives_as_it_was_raised():
    plans = in_children(Broken(sources_of(b"{}\n"), way="changed"))
    next(plans)
    with pytest.raises(SourceChanged, match="ends at byte 5"):
        next(plans)


def test_a_mistake_in_a_child_is_told_with_its_place():
    plans = in_children(Broken(sources_of(b"{}\n")))
    next(plans)
    with pytest.raises(RuntimeError, match=r"(?s)crews\.py.*ZeroDivisionError: a mistake"):
        next(plans)


def test_a_child_that_is_killed_is_missed():
    plans = in_children(Broken(sources_of(b"{}\n"), way="killed"))
    next(plans)
    with pytest.raises(ReaderLost, match="status -9"):
        next(plans)


def test_a_child_that_cannot_begin_is_missed(monkeypatch, capfd):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ReaderLost, match="status 1"):
        next(in_children(Recipe(sources_of(b"{}\n"))))


def test_a_child_gets_no_secret_and_no_signal_of_the_terminal(monkeypatch):
    monkeypatch.setenv("SAMA_ACCESS_KEY", "sandbox-key")
    with pytest.raises(SourceChanged) as told:
        next(in_children(Told(sources_of(b"{}\n"))))
    assert "SAMA_ACCESS_KEY" not in str(told.value)
    assert "'PYTHONPATH'] True" in str(told.value).replace("'PATH', ", "")


def test_children_end_when_their_plans_are_not_wanted_any_more():
    before = children()
    with closing(in_children(Endless(sources_of(b"{}\n")), children=2)) as plans:
        assert len(list(islice(plans, 3))) == 3
        begun = children() - before
    assert len(begun) >= 2
    assert not begun & children()


def test_a_child_that_stood_by_plans_what_a_new_one_would():
    recipe = Recipe(sources_of(b'{"a":1}\n' * 2500))
    before = children()
    with Standby(1, ["tests.unit.batch.crews"]) as standby:
        begun = children() - before
        assert len(begun) == 1
        first = in_children(recipe, standby=standby)
        assert [next(first), *first] == alone(recipe)
        assert not begun & children()
        assert list(in_children(recipe, standby=standby)) == alone(recipe)  # begun again: by another one


def test_children_that_stand_by_end_where_fewer_are_wanted():
    before = children()
    with Standby(3) as standby, closing(in_children(Endless(sources_of(b"{}\n")), standby=standby)) as plans:
        assert len(children() - before) == 3
        next(plans)
        assert len(children() - before) == 1


def test_children_that_stand_by_end_with_whoever_wanted_them():
    before = children()
    with suppress(SourceChanged), Standby(2):
        assert len(children() - before) == 2
        raise SourceChanged("before anything was planned")
    assert children() == before


def test_a_child_that_died_while_it_stood_by_is_missed():
    before = children()
    with Standby(1) as standby:
        for child in children() - before:
            os.kill(child, signal.SIGKILL)
        with pytest.raises(ReaderLost, match="status -9"):
            next(in_children(Recipe(sources_of(b"{}\n")), standby=standby))


def test_a_mistake_while_it_stood_by_is_told():
    with Standby(1, ["engine.nowhere"]) as standby, pytest.raises(RuntimeError, match="nowhere"):
        next(in_children(Recipe(sources_of(b"{}\n")), standby=standby))


PARENT = """
import pickle, sys
from engine.model.record import Position
from engine.batch.children import Segment
from engine.batch.children import Standby, plan_in_children
recipe = pickle.loads(bytes.fromhex(sys.argv[1]))
standby = Standby(2)
if sys.argv[2] == "planning":
    whole = Segment(Position(), 0, recipe.sources[-1].end)
    plans = plan_in_children(recipe, recipe.sources, whole, children=2, standby=standby)
    next(plans)
print("begun", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("doing", ["planning", "remote_status by"])
def test_no_child_outlives_its_parent(doing):
    recipe = Endless(sources_of(b"{}\n"))
    command = [sys.executable, "-c", PARENT, pickle.dumps(recipe).hex(), doing]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    # The children inherit standard error, so its end is heard when the last of them is gone.
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as parent:
        assert parent.stdout.readline() == b"begun\n"
        parent.send_signal(signal.SIGKILL)
        assert parent.stderr.read() == b""
    assert parent.returncode == -signal.SIGKILL
