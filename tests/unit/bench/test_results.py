import json
from html import escape

import orjson
import pytest
from fakes.pages import Page
from msgspec.structs import replace

from engine.bench.page import headline, page
from engine.bench.results import COLUMNS, document, rows

from .benches import bench


def troubled(**measured):
    """Return a bench of one step of which something else was measured."""
    one = bench()
    step = one.steps[0]
    return replace(one, steps=[replace(step, measure=replace(step.measure, **measured))], knee=None)


@pytest.mark.parametrize("rate", [None, 500.0])
def test_the_page_is_whole_and_stands_alone(rate):
    shown = Page(page(bench(rate=rate)))
    assert shown.stands_alone
    assert shown.tags.count("svg") == 3
    assert "http" not in "".join(shown.words)


def test_words_of_foreign_origin_are_no_tags():
    text = page(bench(host="<script>alert(1)</script>", ended='"><img src=x>'))
    assert Page(text).stands_alone
    assert "&lt;script&gt;" in text


def test_the_document_is_json_and_holds_every_step():
    told = json.loads(orjson.dumps(document(bench())))
    assert [step["load"] for step in told["steps"]] == ["1", "2", "4"]
    assert (told["best"], told["knee"]["step"], told["loop"], told["seed"]) == ("4", "2", "closed", 7)
    step = told["steps"][0]
    assert step["time_to_created"]["count"] == 1000
    assert step["time_to_created"]["p50"] == pytest.approx(0.2, rel=0.01)
    assert (step["answers_429"], step["errors"], step["retries"]) == (3, 1, 4)
    assert step["timeline"][1]["created"] == 1000


def test_the_table_has_a_cell_for_each_column_and_names_knee_and_best():
    table = rows(bench())
    assert len({len(row) for row in table}) == 1
    assert [row[-1] for row in table] == ["", "", "knee", "best"]


def test_columns_of_troubles_that_nobody_had_are_left_out():
    assert set(COLUMNS) - set(rows(bench())[0]) == {"failed", "unfinished"}
    assert rows(troubled(unfinished=3))[1][rows(troubled(unfinished=3))[0].index("unfinished")] == "3"


def test_it_says_which_figures_are_not_to_be_relied_on_and_why():
    (hint,) = bench().hints
    assert hint.startswith("Fewer than 24 batches were sent in step 1, 2, 4:")
    assert troubled(batches=24).hints == []
    (hint,) = troubled(batches=24, longest_pause_seconds=293.0, pause_reason="the request budget is used up").hints
    assert hint.startswith("Step 1: calls waited for 4 min 53 s: the request budget is used up.")
    assert troubled(batches=24, longest_pause_seconds=293.0, pause_reason="so", seconds=900.0).hints == []
    assert "a second with one batch at once, in bursts." in headline(
        troubled(batches=24, longest_pause_seconds=293.0, pause_reason="so")
    )
    assert escape(hint) in page(
        troubled(batches=24, longest_pause_seconds=293.0, pause_reason="the request budget is used up")
    )


def test_the_headline_tells_best_and_knee():
    assert headline(bench()) == (
        "Best: 1,950.0 records a second with 4 batches at once. The knee is with 2 batches at once: "
        "the next step changed throughput by +3%."
    )
    assert "at 1000 records a second offered" in headline(bench(rate=500.0))


def test_a_bench_that_was_stopped_at_once_has_its_documents():
    nothing = replace(bench(), steps=[], knee=None)
    assert headline(nothing) == "Nothing was measured."
    assert Page(page(nothing)).tags.count("svg") == 0
    assert document(nothing)["best"] is None


def test_a_bench_that_created_nothing_has_no_best_step():
    nothing = replace(troubled(created=0), knee=None)
    assert headline(nothing) == "Nothing was measured."
    assert "best" not in rows(nothing)[1]
    assert Page(page(nothing)).stands_alone


def test_the_page_fits_a_phone_and_the_dark():
    text = page(bench())
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in text
    assert "prefers-color-scheme:dark" in text
    assert text.count('<div class="wide"') == 1 + 3  # the table and the plots scroll, not the page
    plots = Page(text[text.index("<svg") : text.rindex("</svg>") + len("</svg></div>")].join(["<div>", ""]))
    assert not {"fill", "stroke", "style"} & {name for name, _ in plots.attributes}  # only the style knows colours


def test_plots_have_a_title_and_axes_with_units():
    words = Page(page(bench())).words
    for wanted in ("Throughput by step", "records per second", "batches at once", "Time to created by step", "p99.9"):
        assert wanted in words
    assert {"Time to created over time", "seconds since the first step began", "seconds"} <= set(words)


def test_a_point_that_is_higher_stands_higher():
    text = page(bench())
    throughput = text[text.index("<svg") : text.index("</svg>")]
    places = throughput.split('points="')[1].split('"')[0].split()
    first, second, third = (float(place.split(",")[1]) for place in places)
    assert first > second > third > 0
