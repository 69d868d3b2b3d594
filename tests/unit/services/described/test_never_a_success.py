"""Whatever stands in results: a record is created only if an item says so of it, and none says otherwise."""

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.services.described.results import ListReader, RecordFates
from engine.services.described.settings import ResultsTable

KEYS = st.lists(st.sampled_from("abcdef"), min_size=1, max_size=5)
ITEMS = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "k": st.sampled_from([*"abcdefxy", None, 7]),
            "id": st.sampled_from(["1", "2", "3", "4", 5, None, "", True]),
            "why": st.sampled_from(["no", None, ""]),
            "s": st.sampled_from([200, 409, 429, 500]),
        },
    ),
    max_size=7,
)
BY_KEY = ResultsTable(match="key", key="k", error=("why",), missing="not made")
BY_STATUS = ResultsTable(match="key", key="k", error=("why",), ok={"s": 200}, exists={"s": 409}, busy={"s": 429})


def fates_of(table, keys, items, *, earlier=False):
    gathered = RecordFates(len(keys), lambda: keys)
    ListReader(table).add_value(items, gathered)
    return gathered, gathered.settlement("not made", earlier=earlier)


def says_yes(item, task_id):
    return str(item.get("id")) == task_id and not item.get("why")


@settings(deadline=None)
@given(KEYS, ITEMS)
def test_by_key(keys, items):
    _, found = fates_of(BY_KEY, keys, items)
    assert not found.unclear()
    created = [task_id for task_id in found.task_ids if task_id is not None]
    assert len(set(created)) == len(created) == found.created
    for key, task_id in zip(keys, found.task_ids, strict=True):
        if task_id is not None:
            about = [item for item in items if item.get("k") == key]
            assert about
            assert all(not item.get("why") for item in about)
            assert any(says_yes(item, task_id) for item in about)
    strays = [item for item in items if item.get("k") not in keys]
    if strays:  # what nobody named may be one of them
        assert found.note
        assert "not made" not in found.errors.values()


@settings(deadline=None)
@given(KEYS, ITEMS, st.booleans())
def test_by_status(keys, items, earlier):
    gathered, found = fates_of(BY_STATUS, keys, items, earlier=earlier)
    assert not found.unclear()
    good = {200, 409} if earlier else {200}
    for key, task_id in zip(keys, found.task_ids, strict=True):
        if task_id is not None:
            assert {item.get("s") for item in items if item.get("k") == key} <= good
    for position in gathered.busy:  # they go up again: no item may say that they are there
        assert {item.get("s") for item in items if item.get("k") == keys[position]} == {429}


@settings(deadline=None)
@given(st.integers(1, 4), st.lists(st.lists(st.integers(0, 9), max_size=3), max_size=3))
def test_lists_in_order_are_as_long_as_the_batch_or_nothing(count, lists):
    gathered = RecordFates(count, list, unique_ids=False)
    reader = ListReader(ResultsTable(format="ids"))
    for ids in lists:
        reader.add_value(ids, gathered)
    told = [str(one) for ids in lists for one in ids]
    try:
        found = gathered.settlement("error", earlier=False)
    except Exception as error:  # noqa: BLE001 - its type is asserted
        assert type(error).__name__ == "UnexpectedAnswer"  # noqa: PT017 - both ends are right
        assert len(told) != count
    else:
        assert found.task_ids == told
