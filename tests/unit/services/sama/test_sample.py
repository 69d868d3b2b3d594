import random

from engine.services.sama.sample import sample

from .scripted import service


def test_a_sample_is_a_task_that_the_service_takes_and_the_same_draws_make_the_same():
    tasks = [sample(random.Random(seed), "bench-1") for seed in (1, 1, 2)]
    assert [service().check(task) for task in tasks] == [None] * 3
    assert tasks[0] == tasks[1] != tasks[2]
