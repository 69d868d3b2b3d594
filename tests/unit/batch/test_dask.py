"""What of reading on a cluster needs no cluster; `tests/system/test_dask.py` has real ones."""

import pickle
from contextlib import suppress
from threading import Barrier, BrokenBarrierError, Thread
from types import SimpleNamespace

import pytest
from fakes.inputs import sources_of

import engine.batch.dask
from engine import __version__
from engine.batch.children import Segment
from engine.batch.dask import DaskCluster, DaskPlanner, check_dask, plan_segment
from engine.model.errors import ConfigError, ReaderLost, SourceChanged
from engine.model.record import Position

from .crews import Broken, Recipe


@pytest.fixture
def installed(monkeypatch):
    """Say which packages there are."""
    packages = {"distributed"}
    monkeypatch.setattr(engine.batch.dask, "find_spec", lambda name: name if name in packages else None)
    return packages


@pytest.mark.parametrize("named", ["local:1", "local:64", "tcp://10.0.0.7:8786", "tls://dask.example:8786"])
def test_a_cluster_is_named_by_its_scheduler_or_by_how_many_processes_it_has_here(installed, named):
    check_dask(named)


@pytest.mark.parametrize("named", ["local", "local:0", "local:-1", "local:1000", "10.0.0.7:8786", "tcp://dask", "2"])
def test_other_names_are_refused(installed, named):
    with pytest.raises(ConfigError, match=r"--dask: .*neither the address of a scheduler .*nor local:N"):
        check_dask(named)


def test_the_extra_is_named_where_the_package_is_missing(installed):
    installed.clear()
    with pytest.raises(ConfigError, match=r"not installed: pip install 'bulksubmit\[dask\]'"):
        check_dask("local:2")


def test_who_plans_and_who_sends_get_one_client_though_a_cluster_of_our_own_tells_its_address_once(monkeypatch):
    both_ask, told, clients = Barrier(2), [], []

    class Own:
        def __init__(self, *_):
            pass

        def address(self):
            with suppress(BrokenBarrierError):
                both_ask.wait(0.2)  # the other one does not come, or it would wait for an address for ever
            told.append("tcp://127.0.0.1:1")
            return told[-1]

    monkeypatch.setattr(engine.batch.dask, "LocalDask", Own)
    monkeypatch.setattr(
        engine.batch.dask, "_distributed", lambda: SimpleNamespace(Client=lambda address, **_: object())
    )
    cluster = DaskCluster("local:2")
    asking = [Thread(target=lambda: clients.append(cluster.client)) for _ in range(2)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert clients[0] is clients[1]
    assert len(told) == 1


def planned(recipe, version=__version__):
    segment = Segment(Position(), 0, recipe.sources[-1].end)
    return plan_segment(pickle.dumps(recipe), segment, version), segment


def test_a_task_plans_its_segment():
    recipe = Recipe(sources_of(b'{"a":1}\n' * 2500))
    answers, segment = planned(recipe)
    assert answers == list(recipe.plan(segment))
    assert pickle.loads(pickle.dumps(answers)) == answers  # noqa: S301 - our own


def test_a_task_returns_the_error_that_ended_it():
    answers, _ = planned(Broken(sources_of(b"{}\n"), way="changed"))
    assert isinstance(pickle.loads(pickle.dumps(answers))[-1], SourceChanged)  # noqa: S301 - our own


def test_a_task_of_another_version_is_refused():
    (answer,), _ = planned(Recipe(sources_of(b"{}\n")), "9.9.9")
    assert isinstance(answer, ConfigError)
    assert "this is 9.9.9" in str(answer)


class Task:
    """A task that is done, and whose result is fetched at the last of these tries."""

    def __init__(self, answers, tries):
        self.answers, self.tries, self.released = answers, tries, False

    def add_done_callback(self, call):
        if self.tries:
            call(self)

    def result(self, timeout):
        self.tries -= 1
        if self.tries:
            raise TimeoutError
        return self.answers

    def release(self):
        self.released = True


@pytest.fixture
def planner(monkeypatch):
    """Make who plans with a cluster of so many workers, and has been told of a segment."""
    distributed = SimpleNamespace(KilledWorker=KeyError, client=SimpleNamespace(ClosedClientError=KeyError))
    monkeypatch.setattr(engine.batch.dask, "_distributed", lambda: distributed)
    monkeypatch.setattr(engine.batch.dask, "_LOOK_SECONDS", 0.001)
    monkeypatch.setattr(engine.batch.dask, "_MOST_ALONE_SECONDS", 0.01)

    def make(task, workers):
        threads = dict.fromkeys(range(workers), 1)
        client = SimpleNamespace(status="running", nthreads=lambda: threads, submit=lambda *_, **__: task)
        planner = DaskPlanner(client)
        planner.tell(Segment(Position(), 0, 10))
        return planner

    return make


def test_plans_that_are_lost_with_their_worker_before_they_are_fetched_are_waited_for_again(planner):
    recipe = Recipe(sources_of(b'{"a":1}\n' * 2500))
    answers, _ = planned(recipe)
    task = Task(answers, tries=3)
    plans = list(planner(task, workers=1).plans())
    assert [plan for plan in plans if plan.batches] == [plan for plan in answers if plan.batches]
    assert len(plans) == len(answers) + 2
    assert task.released


def test_a_cluster_whose_last_worker_is_gone_is_not_waited_for_without_end(planner):
    task = Task([], tries=0)
    with pytest.raises(ReaderLost, match=r"has had no worker for .* s\. Nothing is lost: .*resume"):
        list(planner(task, workers=0).plans())
    assert task.released
