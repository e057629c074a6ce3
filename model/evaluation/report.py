"""evaluation.html: one page without outside assets, the same bytes for the same results."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sluice.model.evaluation.metrics import METRICS
from sluice.model.evaluation.verdict import Verdict

REPORT_FILE = "evaluation.html"

BASELINE_TITLES = {"ngram_order_5": "byte n-gram, order 5", "xz_9": "xz -9"}
LEFT, WIDTH, ROW = 170, 480, 34  # of the bars, in pixels


def render(results: Mapping[str, Any], golden: Sequence[Mapping[str, Any]], verdict: Verdict | None = None) -> str:
    """Render the page for results.json and golden.json, with the gate's checks where there is a verdict."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    titles = dict(BASELINE_TITLES)
    shows: dict[str, Callable[[float], str]] = {}
    for metric in METRICS:
        difference = f"{metric.name}_difference"
        titles |= {metric.name: metric.title, difference: f"{metric.title}, candidate − champion"}
        shows |= {metric.name: metric.show, difference: metric.show}

    def number(value: float | None, metric: str = "") -> str:
        return "none" if value is None else shows.get(metric, "{:.3f}".format)(value)

    def interval(ends: Sequence[float | None] | None, metric: str = "") -> str:
        return f"{number(ends[0], metric)} to {number(ends[1], metric)}" if ends else "exact"

    # Prompts and answers are text of strangers and of a model: everything is escaped.
    page = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    page.filters |= {"number": number, "interval": interval, "title": lambda name: titles.get(name, name)}
    return page.get_template("evaluation.html.j2").render(
        results=results, golden=golden, verdict=verdict, bars=_bars(results), left=LEFT, width=WIDTH, row=ROW
    )


def _bars(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the bars of bits per byte in pixels from the left edge of the chart, the model's with its interval."""
    own = results["metrics"]["bits_per_byte"]
    entries = [("this model", own["value"], own["interval"])]
    entries += [(name, baseline["bits_per_byte"], None) for name, baseline in results["baselines"].items()]
    known = [end for _, value, ends in entries for end in (value, *(ends or ())) if end is not None]
    scale = WIDTH / max(known, default=1.0)
    bars = []
    for name, value, ends in entries:
        length = None if value is None else scale * value
        whisker = None if ends is None or None in ends else [scale * end for end in ends]
        reach = None if length is None else max([length, *(whisker or [])[1:]])
        bars.append({"name": name, "value": value, "length": length, "whisker": whisker, "reach": reach})
    return bars
