"""Charts say what they show in numbers, escape what they are given, and draw nothing outside themselves."""

import math
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.data.card import numbers
from sluice.data.card.cascade import cascade
from sluice.data.card.charts import WIDTH, Bar, Series, Threshold, bars, histogram, shorten, wrap
from sluice.data.card.overlaps import OverlapRow, overlap_rows
from sluice.data.card.passes import passing, spread_of
from sluice.data.card.sankey import Flow, Gate, fold, sankey
from sluice.data.report import Overlap, RefineReport


def texts(svg: str) -> list[str]:
    return ["".join(each.itertext()) for each in ElementTree.fromstring(svg).iter("text")]


def rectangles(svg: str, kind: str) -> list[dict[str, float]]:
    found = [each for each in ElementTree.fromstring(svg).iter("rect") if each.get("class") == kind]
    return [{name: float(each.get(name, 0)) for name in ("x", "y", "width", "height")} for each in found]


def test_every_chart_has_a_title_and_a_description():
    chart = bars([Bar("en", 12)], title="Languages", description="Documents kept")
    root = ElementTree.fromstring(chart)
    assert (root.get("role"), root.get("aria-label")) == ("img", "Languages. Documents kept")
    assert (root.findtext("title"), root.findtext("desc")) == ("Languages", "Documents kept")


def test_bars_are_as_long_as_their_values():
    chart = bars([Bar("a", 1000), Bar("b", 250), Bar("c", 0), Bar("d", 1e-9)], title="t", description="d")
    assert [each["width"] for each in rectangles(chart, "kept")] == [WIDTH, WIDTH / 4, 0, 1.5]
    assert texts(chart)[:4] == ["a", "1,000", "b", "250"]


def test_a_long_label_wraps_and_is_not_cut():
    reason = "line is not a JSON object with a string under `text`, as every line of such a file has to be"
    chart = bars([Bar(reason, 2), Bar("empty", 1)], title="t", description="d")
    assert texts(chart)[0] == reason
    first, second = rectangles(chart, "kept")
    lines = list(ElementTree.fromstring(chart).iter("tspan"))
    assert len(lines) == 1 and second["y"] - first["y"] == 32
    assert first["y"] == 18 + 16 and second["y"] + 7 < float(
        ElementTree.fromstring(chart).get("viewBox", "").split()[3]
    )


@given(st.text(max_size=300), st.integers(10, 50))
def test_lines_of_a_label_fit_and_only_its_end_is_cut(text: str, characters: int):
    lines = wrap(text, characters)
    assert 1 <= len(lines) <= 4 and all(len(line) <= characters for line in lines)
    said, whole = "".join("".join(lines).split()), "".join(text.split())
    assert said == whole or (said.endswith("…") and whole.startswith(said[:-1]))


@given(st.text(max_size=60), st.text(max_size=60))
def test_no_label_can_break_out_of_a_chart(label: str, note: str):
    # XML has no control characters at all, but a page shows them as nothing.
    control = re.compile(r"[\x00-\x08\x0b-\x1f\ud800-\udfff\ufffe\uffff]")
    label, note = control.sub("", label), control.sub("", note)
    assert "<script" not in bars([Bar(f"<script>{label}", 1, note)], title=label, description=note)
    ElementTree.fromstring(bars([Bar(label, 1, note)], title=label, description=note))
    ElementTree.fromstring(
        sankey([Flow(label, 3)], [Gate(note, [Flow(f"<b>{label}", 1)])], title=label, description=note)
    )
    ElementTree.fromstring(
        cascade([Flow(label, 3)], [Gate(note, [Flow(f"<b>{label}", 1)])], title=label, description=note)
    )
    ElementTree.fromstring(histogram([0, 1], [Series(label, [1])], title=label, description=note))


def test_a_histogram_shades_the_side_that_does_not_pass():
    edges, series = [0.0, 10.0, 20.0, 30.0, 40.0], [Series("documents", [4, 0, 1, 16])]
    least = histogram(edges, series, title="t", description="d", thresholds=[Threshold(10, is_minimum=True)])
    most = histogram(edges, series, title="t", description="d", thresholds=[Threshold(30, is_minimum=False)])
    (low,), (high,) = rectangles(least, "dropped-side"), rectangles(most, "dropped-side")
    assert low["x"] == pytest.approx(4) and low["width"] == pytest.approx((WIDTH - 8) / 4)
    assert high["x"] + high["width"] == pytest.approx(WIDTH - 4) and high["width"] == pytest.approx((WIDTH - 8) / 4)
    assert "min 10" in texts(least) and "max 30" in texts(most)
    (first,), (third, last) = ([each["height"] for each in rectangles(least, kind)] for kind in ("quality", "kept"))
    # By the square root of the count; an empty bin has no bar, and one that does not pass another colour.
    assert [first, third] == pytest.approx([last / 2, last / 4], abs=0.1)


@given(
    st.lists(st.floats(width=32, allow_nan=True), max_size=60),
    st.lists(st.floats(-1e6, 1e6, width=32), max_size=2),
)
def test_a_spread_counts_every_document_once(values: list[float], thresholds: list[float]):
    spread = spread_of(np.array(values, np.float32), thresholds)
    assert sum(spread.counts) + spread.unknown == len(values)
    assert all(low < high for low, high in zip(spread.edges, spread.edges[1:], strict=False))
    assert spread.edges[0] > 0 or not spread.log
    chart = histogram(spread.edges, [Series("all", spread.counts)], title="t", description="d", log=spread.log)
    for each in rectangles(chart, "kept"):
        assert each["x"] >= 0 and each["x"] + each["width"] <= WIDTH and each["y"] >= 0


@given(st.lists(st.floats(0, 100, width=32), min_size=1, max_size=60), st.floats(1, 99, width=32), st.booleans())
def test_no_bar_is_on_both_sides_of_a_threshold(values: list[float], limit: float, is_minimum: bool):
    scores = np.array(values, np.float32)
    edge = limit if is_minimum else float(np.nextafter(np.float32(limit), np.float32(np.inf)))
    spread = spread_of(scores, [edge])
    bound = Threshold(limit, is_minimum)
    failing = sum(
        amount
        for low, high, amount in zip(spread.edges, spread.edges[1:], spread.counts, strict=False)
        if bound.fails(low, high)
    )
    if spread.edges[0] < edge < spread.edges[-1]:
        assert failing == len(values) - int(passing(scores, limit, is_minimum).sum())


def test_a_score_that_is_no_number_never_passes():
    values = np.array([math.nan, 1.0, 2.0], np.float32)
    assert passing(values, 1.0, True).tolist() == [False, True, True]
    assert passing(values, 1.0, False).tolist() == [False, True, False]


def test_a_sankey_shows_every_flow_and_what_is_left():
    gates = [Gate("pass", [Flow("too short", 30, "quality"), Flow("symbols", 5, "quality")]), Gate("kept", [])]
    chart = sankey([Flow("docs", 80), Flow("web", 20)], gates, title="t", description="d")
    shown = texts(chart)
    assert {"docs 80", "web 20", "too short 30", "symbols 5"} <= set(shown)
    assert shown.count("65") == 2 and "100" in shown
    scale = 300 / 100
    assert [each["height"] for each in rectangles(chart, "quality")] == [30 * scale, 5 * scale]
    assert [each["height"] for each in rectangles(chart, "kept")] == [65 * scale]


def test_a_sankey_of_nothing_and_one_that_contradicts_itself():
    ElementTree.fromstring(sankey([], [Gate("kept", [])], title="t", description="d"))
    with pytest.raises(ValueError, match="3 dropped of 2"):
        sankey([Flow("a", 2)], [Gate("kept", [Flow("rule", 3)])], title="t", description="d")


@given(
    st.lists(st.integers(1, 500), min_size=1, max_size=6),
    st.lists(st.lists(st.floats(0, 0.4), max_size=3), min_size=1, max_size=3),
)
def test_a_cascade_lets_what_is_left_end_where_the_drops_begin(sources: list[int], shares: list[list[float]]):
    left, gates = sum(sources), []
    for number, some in enumerate(shares):
        drops = []
        for share in some:
            drops.append(Flow("a rule", int(left * share), "quality"))
            left -= drops[-1].value
        gates.append(Gate(f"gate {number}", drops))
    chart = cascade([Flow("docs", value) for value in sources], gates, title="t", description="d")
    drawn = [each for kind in ("source", "quality", "kept") for each in rectangles(chart, kind)]
    assert all(each["x"] >= -0.1 and each["x"] + each["width"] <= WIDTH + 0.1 for each in drawn)
    assert len({each["y"] for each in drawn}) == len(drawn) == len(sources) + 1 + sum(map(len, shares)) + len(shares)
    (kept,) = rectangles(chart, "kept")
    dropped = [each["x"] for each in rectangles(chart, "quality") if each["width"] > 1.5]
    assert kept["width"] == pytest.approx(max(WIDTH * left / sum(sources), 1.5 * bool(left)), abs=0.1)
    assert all(each >= kept["width"] - 1.6 for each in dropped)
    assert texts(chart)[-2:] == [gates[-1].label, f"{left:,}"]


def test_a_cascade_that_contradicts_itself_is_refused():
    with pytest.raises(ValueError, match="3 dropped of 2"):
        cascade([Flow("a", 2)], [Gate("kept", [Flow("rule", 1), Flow("other", 2)])], title="t", description="d")
    ElementTree.fromstring(cascade([], [Gate("kept", [])], title="t", description="d"))


def test_a_set_of_which_nothing_was_found_shows_its_zeros():
    found = {13: Overlap(documents=1, spans=2), 8: Overlap(documents=5, spans=9), 6: Overlap(documents=3, spans=3)}
    sets = {"quiz": 10, "exam": 7}
    report = RefineReport(evaluation_sets=sets, short_items={"quiz": 2}, shared_ngrams={"quiz": found})
    assert overlap_rows(report, [13, 8]) == [
        OverlapRow("exam", 7, 0, 13, 0, 0),
        OverlapRow("exam", 7, 0, 8, 0, 0),
        OverlapRow("quiz", 10, 2, 13, 1, 2),
        OverlapRow("quiz", 10, 2, 8, 5, 9),
        OverlapRow("quiz", 10, 2, 6, 3, 3),
    ]
    assert overlap_rows(RefineReport(), [13, 8]) == []


@given(st.lists(st.integers(0, 1000), max_size=40), st.integers(1, 12))
def test_folding_loses_nothing(values: list[int], most: int):
    folded = fold([Flow(f"f{n}", value) for n, value in enumerate(values)], most, "others")
    assert len(folded) <= most
    assert sum(flow.value for flow in folded) == sum(values)


@given(st.text(max_size=80), st.integers(3, 40))
def test_a_shortened_label_keeps_both_ends(text: str, characters: int):
    short = shorten(text, characters)
    assert len(short) <= characters
    assert short == text or (text.startswith(short[: short.index("…")]) and text.endswith(short[-1]))


def test_numbers_never_round_to_all_or_none():
    assert [numbers.share(*each) for each in ((0, 9), (1, 99_999), (1, 3), (99_999, 100_000), (9, 9), (0, 0))] == [
        "0 %",
        "< 0.1 %",
        "33.3 %",
        "> 99.9 %",
        "100 %",
        "none",
    ]
    assert [numbers.size(each) for each in (0, 999, 1_000, 6_200_000, 999_950, 123_456_789_000)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "6.2 MB",
        "1.0 MB",
        "123 GB",
    ]
    assert [numbers.number(each) for each in (0.12345, 40.0, 100_000, math.nan, 1234.5)] == [
        "0.1235",
        "40",
        "100,000",
        "NaN",
        "1,234",
    ]
