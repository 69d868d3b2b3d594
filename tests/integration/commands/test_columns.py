"""A column that `[mapping]` names and no record has: told before anything is sent, never passed over in silence."""

import pytest

import engine
from engine.model.errors import ConfigError
from engine.progress.events import Noticed

from .desk import counts

WRAP = '[mapping]\nwrap = "data"\n'
NAMED = {
    "rename": ('rename = { img_ulr = "image" }', "mapping.rename"),
    "fields": ('fields = { priority = "img_ulr" }', "mapping.fields.priority"),
    "drop": ('drop = ["img_ulr"]', "mapping.drop"),
}


def table(desk, rows=3):
    path = desk.folder / "rows.csv"
    path.write_text("id,img_url\n" + "".join(f"{number},x\n" for number in range(rows)))
    return path


def rows(count, **more):
    return [{"id": str(number), "img_url": "x", **more} for number in range(count)]


def warnings(desk):
    return [event.text for event in desk.events if isinstance(event, Noticed)]


@pytest.mark.parametrize("key", NAMED)
async def test_a_header_that_lacks_it_is_an_error_before_there_is_a_job(desk, key):
    desk = await desk()
    line, place = NAMED[key]
    config = desk.config(more=WRAP + line)
    said = rf"{place} names column 'img_ulr', which the header of .*rows\.csv lacks; did you mean 'img_url'\?"
    with pytest.raises(ConfigError, match=said):
        await desk.submit(table(desk), config)
    with pytest.raises(ConfigError, match=said):
        await engine.validate(table(desk), config)
    assert await engine.status(None, desk.ledger) == []
    assert not desk.sandbox.stats.requests


async def test_a_template_names_columns_anywhere_in_it(desk):
    desk = await desk()
    config = desk.config(more='[mapping.template.data]\nid = "${row.id}"\nnote = ["at ${row.site} and ${row.img_url}"]')
    with pytest.raises(ConfigError, match=r"mapping.template names column 'site'.*; there are 'id', 'img_url'"):
        await desk.submit(table(desk), config)


@pytest.mark.parametrize("key", NAMED)
async def test_records_that_never_have_it_are_a_warning_and_go_up(desk, key):
    desk = await desk()
    line, place = NAMED[key]
    config = desk.config(more=WRAP + line)
    result = await desk.submit(desk.source(rows(3)), config)
    assert counts(result) == (3, 0, 0, 0, 0)
    assert warnings(desk) == [
        f"{place} names column 'img_ulr', which none of the first 3 records has; did you mean 'img_url'?"
    ]


async def test_only_the_first_thousand_records_are_looked_at_before_the_warning(desk):
    desk = await desk()
    config = desk.config(more=WRAP + NAMED["drop"][0])
    await desk.submit(desk.source([*rows(999), *rows(20, img_ulr="x")]), config, job="within")
    assert not warnings(desk)
    await desk.submit(desk.source([*rows(1000), *rows(20, img_ulr="x")], "beyond.ndjson"), config, job="beyond")
    assert "none of the first 1,000 records has" in warnings(desk)[0]


async def test_it_is_an_error_of_validate_and_with_strict(desk):
    desk = await desk()
    config = desk.config(more=WRAP + NAMED["rename"][0])
    source = desk.source(rows(1500))
    said = "mapping.rename names column 'img_ulr', which none of the 1,500 records has; did you mean 'img_url'"
    with pytest.raises(ConfigError, match=said):
        await engine.validate(source, config)
    with pytest.raises(ConfigError, match=said):
        await desk.submit(source, config, strict=True)
    assert await engine.status(None, desk.ledger) == []
    assert not desk.sandbox.stats.requests


async def test_a_column_that_few_records_have_is_no_error(desk):
    desk = await desk()
    source = desk.source([*rows(1500), *rows(1, img_ulr="x")])
    result = await engine.validate(source, desk.config(more=WRAP + NAMED["rename"][0]))
    assert result.records == 1501


async def test_several_files_are_looked_at_together_and_each_header_for_itself(desk):
    desk = await desk()
    config = desk.config(more=WRAP + 'drop = ["img_url"]')
    lines = desk.source([{"id": "1"}]), desk.source(rows(1), "more.ndjson")
    assert (await engine.validate([*lines, table(desk)], config)).records == 5
    (desk.folder / "rows2.csv").write_text("id\n1\n")
    with pytest.raises(ConfigError, match=r"the header of .*rows2\.csv lacks"):
        await engine.validate([*lines, table(desk), desk.folder / "rows2.csv"], config)


async def test_sources_without_a_record_miss_no_column(desk):
    desk = await desk()
    result = await engine.validate(desk.source([]), desk.config(more=WRAP + NAMED["drop"][0]))
    assert result.records == 0


async def test_what_was_spooled_for_it_does_not_stay(desk, monkeypatch):
    desk = await desk()
    with table(desk).open() as standard_input:
        monkeypatch.setattr("sys.stdin", standard_input)
        with pytest.raises(ConfigError):
            await desk.submit("-", desk.config(more=WRAP + NAMED["drop"][0]))
    assert not list(desk.folder.rglob("standard-input*"))
