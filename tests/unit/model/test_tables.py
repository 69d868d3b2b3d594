"""A table of TOML becomes a value of its type, or every mistake in it is named with its place."""

from typing import Annotated, Literal

import pytest
from msgspec import Meta, field

from engine.model.settings import Section
from engine.model.tables import ONE_OR_MORE, section_in, table_of


class Inner(Section, frozen=True):
    name: str
    size: Annotated[int, Meta(ge=1, le=9)] = 1


class Outer(Section, frozen=True):
    inner: Inner
    many: tuple[Inner, ...] = ()
    maybe: Inner | None = None
    rates: dict[str, float] = field(default_factory=dict)
    mode: Literal["fast", "slow"] = "fast"
    wait: Annotated[float, Meta(gt=0)] = 1.0
    on: bool = False


def read(table):
    complaints = []
    return table_of(Outer, table, "", complaints), complaints


def test_a_whole_table_becomes_its_value():
    table = {
        "inner": {"name": "a", "size": 2},
        "many": [{"name": "b"}, {"name": "c"}],
        "maybe": {"name": "d"},
        "rates": {"x": 1},
        "mode": "slow",
    }
    value = Outer(Inner("a", 2), (Inner("b"), Inner("c")), Inner("d"), {"x": 1.0}, "slow")
    assert read(table) == (value, [])


@pytest.mark.parametrize(("written", "meant"), [("yes", True), (" Off ", False), ("1", True), ("false", False)])
def test_what_a_variable_says_counts_as_it_is_meant(written, meant):
    assert read({"inner": {"name": "a"}, "on": written})[0].on is meant


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ({"inner": 1}, "inner: must be a table, [inner]"),
        ({}, "inner: missing"),
        ({"inner": {}}, "inner.name: missing"),
        ({"inner": {"name": "a"}, "inne": {}}, "inne: unknown key; did you mean 'inner'?"),
        ({"inner": {"name": "a", "zzz": 1}}, "inner.zzz: unknown key; known: name, size"),
        ({"inner": {"name": "a", "size": 10}}, "inner.size: must be a whole number from 1 to 9"),
        ({"inner": {"name": "a"}, "many": [{"name": "b"}, {"name": 1}]}, "many[1].name: must be a text"),
        ({"inner": {"name": "a"}, "many": {}}, "many: must be a list"),
        ({"inner": {"name": "a"}, "rates": {"x": "much"}}, "rates.x: must be a number"),
        ({"inner": {"name": "a"}, "mode": "quick"}, "mode: must be 'fast' or 'slow'"),
        ({"inner": {"name": "a"}, "wait": 0}, "wait: must be a number above 0"),
        ({"inner": {"name": "a"}, "on": "perhaps"}, "on: must be true or false"),
    ],
)
def test_a_mistake_is_named_with_its_place_and_there_is_no_value(table, complaint):
    assert read(table) == (None, [complaint])


def test_all_mistakes_are_named_in_one_walk():
    _, complaints = read({"inner": {"size": 0}, "mode": "quick", "more": 1})
    assert [one.partition(":")[0] for one in complaints] == ["more", "inner.name", "inner.size", "mode"] or sorted(
        one.partition(":")[0] for one in complaints
    ) == ["inner.name", "inner.size", "mode", "more"]


def test_the_tables_of_a_key_are_found_in_one_in_none_and_in_a_list():
    assert [section_in(kind) for kind in (Inner, Inner | None, tuple[Inner, ...], int, dict[str, float])] == [
        Inner,
        Inner,
        Inner,
        None,
        None,
    ]


# Keys that are no names in Python, and lists of one


class Around(Section, frozen=True, kw_only=True, rename={"with_": "with"}):
    with_: dict[str, int] = field(default_factory=dict)
    words: Annotated[tuple[str, ...], ONE_OR_MORE] = ()
    perhaps: Annotated[tuple[int, ...], ONE_OR_MORE] | None = None
    strict: tuple[str, ...] = ()


def around(**table):
    complaints = []
    return table_of(Around, table, "around", complaints) or complaints


def test_a_key_is_called_as_it_is_written_in_the_file():
    assert around(**{"with": {"a": 1}}).with_ == {"a": 1}
    assert around(with_={"a": 1}) == ["around.with_: unknown key; did you mean 'with'?"]
    assert around(**{"with": 1}) == ["around.with: must be a table"]


@pytest.mark.parametrize(("said", "meant"), [("a", ("a",)), (["a", "b"], ("a", "b")), ([], ())])
def test_a_single_value_may_stand_for_a_list_of_one_where_that_is_said(said, meant):
    assert around(words=said).words == meant
    assert around(strict="a") == ["around.strict: must be a list"]


def test_it_may_so_where_the_list_may_be_left_out():
    assert around(perhaps=7).perhaps == (7,)
    assert around().perhaps is None
