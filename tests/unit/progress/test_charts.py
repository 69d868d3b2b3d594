"""Plots tell what they show without a pointer: axes with units, a legend, round numbers; and each colour is a class."""

import re

import pytest
from fakes.pages import Page

from engine.progress.charts import COLOURS, HEIGHT, WIDTH, Line, Plot, Range, bar, ranges, svg, ticks

PLOT = Plot("Rates", "minutes", "tasks/s", [Line("one", [(0.0, 1.0), (5.0, 9.0)]), Line("two", [(0.0, 3.0)])])


@pytest.mark.parametrize(("most", "found"), [(10.0, [0, 2, 4, 6, 8, 10]), (0.35, [0, 0.1, 0.2, 0.3]), (1, None)])
def test_ticks_are_round_numbers_from_0(most, found):
    shown = ticks(most)
    assert shown[0] == 0
    assert shown[-1] <= most
    assert 3 <= len(shown) <= 8
    if found:
        assert shown == pytest.approx(found)


def test_a_plot_says_its_title_its_axes_and_its_lines():
    words = Page(svg(PLOT)).words
    assert {"Rates", "minutes", "tasks/s", "one", "two"} <= set(words)


def test_a_plot_that_has_its_title_elsewhere_says_it_to_those_who_do_not_see_it():
    plain = svg(Plot("Rates", "minutes", "tasks/s", PLOT.lines, headed=False))
    assert "Rates" not in Page(plain).words
    assert 'role="img" aria-label="Rates"' in plain


def test_all_that_is_drawn_stands_within_the_picture():
    drawn = svg(Plot("Rates", "minutes", "tasks/s", PLOT.lines, marks=[(2.0, "run 2")], stretches=[(0, 5, "all")]))
    for name, most in (("x", WIDTH), ("cx", WIDTH), ("x1", WIDTH), ("x2", WIDTH), ("y", HEIGHT), ("y2", HEIGHT)):
        assert all(0 <= float(found) <= most for found in re.findall(rf' {name}="([^"]*)"', drawn)), name


def test_words_in_a_plot_are_escaped_and_only_the_style_knows_colours():
    hostile = "</svg><svg onload=alert(1)>"
    drawn = svg(Plot(hostile, hostile, hostile, [Line(hostile, [(0.0, 1.0)])], marks=[(0.0, hostile)]))
    page = Page(
        drawn + ranges(hostile, hostile, [Range(hostile, [(hostile, 1.0)])]) + bar(hostile, [(hostile, 1, "c0")])
    )
    assert page.tags.count("svg") == 3
    assert not {"fill", "stroke", "style", "onload"} & {name for name, _ in page.attributes}


@pytest.mark.parametrize("values", [[], [0.0, 0.0], [1e-7, 1e9]])
def test_plots_of_nothing_and_of_extremes_can_be_drawn(values):
    points = [(value, value) for value in values]
    assert "nan" not in svg(Plot("t", "x", "y", [Line("one", points)]))
    assert "nan" not in ranges("t", "x", [Range("one", [("p50", value) for value in values])] if values else [])


def test_each_line_of_a_plot_has_a_colour_of_its_own():
    drawn = svg(Plot("t", "x", "y", [Line(str(at), [(0.0, at)]) for at in range(COLOURS)]))
    assert set(re.findall(r'polyline [^>]*class="(c\d)"', drawn)) == {f"c{number}" for number in range(COLOURS)}
