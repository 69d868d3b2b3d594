import pytest

from engine.bench.page import page
from engine.bench.plots import ticks

from .benches import Page, bench


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


@pytest.mark.parametrize(("most", "found"), [(10.0, [0, 2, 4, 6, 8, 10]), (0.35, [0, 0.1, 0.2, 0.3]), (1, None)])
def test_ticks_are_round_numbers_from_0(most, found):
    shown = ticks(most)
    assert shown[0] == 0
    assert shown[-1] <= most
    assert 3 <= len(shown) <= 8
    if found:
        assert shown == pytest.approx(found)
