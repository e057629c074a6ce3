"""evaluation.html: one page without outside assets, the same bytes for the same evidence."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from sluice.model.evaluation.evidence import BITS_PER_BYTE
from sluice.model.evaluation.verdict import Verdict

REPORT_FILE = "evaluation.html"

_LABELS = {
    "bits_per_byte": "Bits per byte",
    "choice_accuracy": "Multiple choice",
    "golden_pass_rate": "Golden prompts",
    "first_token_p95_ms": "First token, p95",
    "bits_per_byte_difference": "Bits per byte, candidate − champion",
    "choice_accuracy_difference": "Multiple choice, candidate − champion",
    "model": "this model",
    "ngram_order_5": "byte n-gram, order 5",
    "xz_9": "xz -9",
}
_SHARES = ("choice_accuracy", "golden_pass_rate", "choice_accuracy_difference")

_STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --soft: #5c636b; --line: #d9dde2; --page: #fff; --bar: #b5bcc5;
  --own: #2f6fde; --good: #1a7f4b; --bad: #c0362c; --open: #9a6700; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8ea; --soft: #9aa3ad; --line: #353b42; --page: #16191d;
  --bar: #525b66; --own: #6ea0ff; --good: #4cc38a; --bad: #ff8078; --open: #e3b341; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); margin: 2.5rem auto;
  max-width: 56rem; padding: 0 1.25rem; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; } h2 { font-size: 1.05rem; margin: 2.25rem 0 .5rem; }
p, figcaption { color: var(--soft); margin: .25rem 0; } figure { margin: 0; }
table { border-collapse: collapse; width: 100%; } th { color: var(--soft); font-weight: 500; }
th, td { text-align: left; vertical-align: top; padding: .4rem .75rem .4rem 0; border-bottom: 1px solid var(--line); }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
code, pre { font: 13px/1.45 ui-monospace, monospace; overflow-wrap: anywhere; white-space: pre-wrap; margin: 0; }
.pass, .promote { color: var(--good); } .fail, .reject { color: var(--bad); }
.inconclusive, .hold { color: var(--open); }
svg text { font: 13px system-ui, sans-serif; fill: var(--ink); } svg { width: 100%; height: auto; }
.own { fill: var(--own); } .other { fill: var(--bar); } .whisker { stroke: var(--ink); stroke-width: 1.5; }
"""


def render(results: Mapping[str, Any], golden: Sequence[Mapping[str, Any]], verdict: Verdict | None = None) -> str:
    """The page for results.json and golden.json, with the gate's checks where there is a verdict."""
    parts = [
        "<h1>Evaluation</h1>",
        f"<p>Model <code>{escape(results['hashes']['model'][:12])}</code> on held-out documents. "
        f"Intervals at {results['confidence']:.0%}.</p>",
        _verdict(verdict) if verdict else "",
        "<h2>Metrics</h2>",
        _metrics(results),
        "<h2>Bits per byte beside baselines</h2>",
        _bars(results),
        "<h2>Bits per byte by source</h2>",
        _by_source(results),
        "<h2>Golden prompts</h2>",
        _golden(golden),
    ]
    body = "\n".join(part for part in parts if part)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n<title>Evaluation</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _number(value: float | None, metric: str = "") -> str:
    if value is None:
        return "none"
    if metric.endswith("_ms"):
        return f"{value:.0f} ms"
    return f"{value:.1%}" if metric in _SHARES else f"{value:.3f}"


def _range(interval: Sequence[float | None] | None, metric: str = "") -> str:
    return f"{_number(interval[0], metric)} to {_number(interval[1], metric)}" if interval else "exact"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: frozenset[int]) -> str:
    """`head` and `rows` hold HTML; the columns in `numbers` stand to the right."""
    mark = [' class="number"' if column in numbers else "" for column in range(len(head))]
    lines = ["<tr>" + "".join(f"<th{m}>{cell}</th>" for m, cell in zip(mark, head, strict=True)) + "</tr>"]
    lines += [
        "<tr>" + "".join(f"<td{m}>{cell}</td>" for m, cell in zip(mark, row, strict=True)) + "</tr>" for row in rows
    ]
    return "<table>\n" + "\n".join(lines) + "\n</table>"


def _metrics(results: Mapping[str, Any]) -> str:
    rows = []
    for name, metric in results["metrics"].items():
        chance = f"chance {_number(metric['chance'], name)}" if "chance" in metric else ""
        value, interval = _number(metric["value"], name), _range(metric["interval"], name)
        rows.append([_LABELS[name], value, interval, str(metric["n"]), chance])
    return _table(["Metric", "Value", "Interval", "n", ""], rows, frozenset({1, 2, 3}))


def _by_source(results: Mapping[str, Any]) -> str:
    rows = [
        [escape(name), _number(found["value"]), _range(found["interval"]), str(found["n"])]
        for name, found in results["bits_per_byte_by_source"].items()
    ]
    return _table(["Source", "Bits per byte", "Interval", "Documents"], rows, frozenset({1, 2, 3}))


def _verdict(verdict: Verdict) -> str:
    rows = []
    for check in verdict.checks:
        name = check.metric
        rows.append(
            [
                _LABELS[check.metric],
                _number(check.candidate, name),
                _number(check.baseline, name) if check.baseline is not None else "",
                _range(check.interval, name) if check.interval else "",
                _number(check.bound, name),
                str(check.n),
                f'<span class="{check.outcome}">{check.outcome}</span>',
            ]
        )
    head = ["Check", "Candidate", "Champion", "Interval", "Bound", "n", "Outcome"]
    table = _table(head, rows, frozenset({1, 2, 3, 4, 5}))
    return (
        f'<h2>Verdict: <span class="{verdict.outcome}">{verdict.outcome}</span></h2>\n'
        f"<p>{escape(verdict.reason)}</p>\n{table}\n<p>{escape(verdict.correction)}.</p>"
    )


def _bars(results: Mapping[str, Any]) -> str:
    """Horizontal bars from zero, the model's with its interval: shorter is better."""
    own = results["metrics"][BITS_PER_BYTE]
    entries = [("model", own["value"], own["interval"])]
    entries += [(name, baseline["bits_per_byte"], None) for name, baseline in results["baselines"].items()]
    known = [end for _, value, interval in entries for end in (value, *(interval or ())) if end is not None]
    left, width, row, top = 170, 480, 34, max(known, default=1.0)
    shapes = []
    for index, (name, value, interval) in enumerate(entries):
        y = index * row + 6
        shapes.append(f'<text x="0" y="{y + 16}">{_LABELS.get(name, escape(name))}</text>')
        if value is None:
            shapes.append(f'<text x="{left}" y="{y + 16}">no number</text>')
            continue
        length = width * value / top
        kind = "own" if name == "model" else "other"
        shapes.append(f'<rect class="{kind}" x="{left}" y="{y}" width="{length:.1f}" height="22" rx="2"/>')
        label = length
        if interval and None not in interval:
            low, high = (width * end / top for end in interval)
            label = max(length, high)
            shapes.append(
                f'<path class="whisker" fill="none" d="M{left + low:.1f} {y + 11}H{left + high:.1f}'
                f'M{left + low:.1f} {y + 6}v10M{left + high:.1f} {y + 6}v10"/>'
            )
        shapes.append(f'<text x="{left + label + 8:.1f}" y="{y + 16}">{value:.3f}</text>')
    height = row * len(entries) + 6
    frame = f'viewBox="0 0 {left + width + 70} {height}" role="img" aria-label="bits per byte"'
    picture = "\n".join(shapes)
    return (
        f"<figure><svg {frame}>\n{picture}\n</svg>"
        f"<figcaption>Fewer is better. Same bytes for all, n={own['n']} documents."
        f"{_paired(results)}</figcaption></figure>"
    )


def _paired(results: Mapping[str, Any]) -> str:
    found = [
        f" Model minus {_LABELS.get(name, escape(name))}, paired: {_range(baseline['model_minus_baseline'])}."
        for name, baseline in results["baselines"].items()
        if "model_minus_baseline" in baseline
    ]
    return "".join(found)


def _golden(golden: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for entry in golden:
        outcome = "fail" if entry["failed"] else "pass"
        said = escape(", ".join(entry["failed"])) or "pass"
        rows.append(
            [
                f"<pre>{escape(entry['prompt'])}</pre>",
                f"<pre>{escape(entry['answer'])}</pre>",
                f'<span class="{outcome}">{said}</span>',
            ]
        )
    return _table(["Prompt", "Answer at temperature 0", "Checks"], rows, frozenset())
