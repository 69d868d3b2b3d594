from engine.adaptive.poll_batch import PolledBatch


def test_what_is_left_are_the_tasks_that_were_not_seen():
    assert PolledBatch(1, 1, 100, 0.0, 0.0, created=30).left == 70


def test_a_batch_begins_no_earlier_than_it_was_released():
    assert PolledBatch(1, 1, 100, released_at=5.0, looked_at=5.0, begun_at=2.0).earliest == 5.0
    assert PolledBatch(1, 1, 100, released_at=5.0, looked_at=5.0, begun_at=7.0).earliest == 7.0
