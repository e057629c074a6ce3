"""`sluice evaluate`: measure a model directory or a served model, alone or beside a baseline."""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

from sluice.pipelines.options import add_json, add_overrides

_SECONDS_BETWEEN = 10.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", metavar="MODEL_DIR|URL", help="a model directory, or the URL of an OpenAI-style server"
    )
    parser.add_argument("--baseline", metavar="DIR|URL", help="a second model, measured the same way into OUT/baseline")
    parser.add_argument(
        "--suite",
        action="append",
        default=[],
        metavar="FILE|NAME|lm-eval:TASK",
        help="a suite's YAML file, the name of one of conf/suites, a set in a pinned wheel (humaneval), or a task of "
        "lm-eval (repeatable; `default`, also without --suite: the metrics of the lifecycle on --data, and our own "
        "small suites)",
    )
    parser.add_argument(
        "--data",
        metavar="DIR|FILE",
        help="held-out text: a refined folder, a folder of texts or a text file; for lm-eval: the tasks' data",
    )
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="folder to write; an earlier evaluation there is replaced"
    )
    parser.add_argument("--no-cache", action="store_true", help="ask and measure everything again, and keep nothing")
    add_overrides(parser, "evaluate.key=value, and pack.key=value for the split of a refined folder")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    from sluice.components.workspace import Workspace
    from sluice.model.evaluation.plan import EvaluatedCandidate
    from sluice.pipelines.evaluation import DEFAULT, EVALUATION_CACHE, evaluate_into, make_plan

    workspace = Workspace.find_or_default()
    data = Path(arguments.data) if arguments.data else None
    for name in (arguments.model, arguments.baseline):
        if name and not name.startswith(("http://", "https://")) and not Path(name).exists():
            raise ValueError(f"{name} does not exist: name a model directory, or the URL of a server")
    candidate = EvaluatedCandidate(arguments.model)
    baseline = EvaluatedCandidate(arguments.baseline) if arguments.baseline else None
    is_served = any(each.is_served for each in (candidate, baseline) if each is not None)
    plan = make_plan(workspace, arguments.suite, data, arguments.overrides, is_served=is_served)
    if data is not None and arguments.suite and DEFAULT not in arguments.suite and not plan.reads_data:
        use = "serves only to find items of the suites in its training text" if plan.training_texts else "has no effect"
        print(f"--data {data} {use}: add --suite default to measure the held-out text too", file=sys.stderr)
    found = evaluate_into(
        Path(arguments.out),
        workspace,
        plan,
        candidate,
        baseline,
        today=date.today(),
        cache=None if arguments.no_cache else workspace.state / EVALUATION_CACHE,
        progress=_EvaluationProgress(),
    )
    if arguments.json:
        print(json.dumps({"results": found.results, "baseline": found.baseline}, sort_keys=True))
        return 0
    for line in table(found.results, found.baseline):
        print(line)
    print(f"evaluation in {arguments.out}")
    return 0


class _EvaluationProgress:
    """Prints a line to stderr every ten seconds: standard output is for the result."""

    def __init__(self) -> None:
        self._shown = time.monotonic()

    def __call__(self, done: int, total: int, note: str) -> None:
        if time.monotonic() - self._shown >= _SECONDS_BETWEEN:
            self._shown = time.monotonic()
            print(f"{note} {done}/{total}", file=sys.stderr, flush=True)


def table(results: Mapping[str, Any], baseline: Mapping[str, Any] | None) -> Iterator[str]:
    """Yield a line for each metric: value, interval, items, independent clusters, and the baseline's value."""
    head = ("metric", "value", f"{results['confidence']:.0%} interval", "items", "clusters")
    rows: list[tuple[str, ...]] = [(*head, "baseline") if baseline else head]
    for name, metric in results["metrics"].items():
        rows.append(_row(name, metric, results["planned"][name]))
        if baseline:
            rows[-1] = (*rows[-1], _number(baseline["metrics"].get(name, {}).get("value")))
        if clean := metric.get("without_contaminated"):
            planned = results["planned"][name] - metric["contaminated_items"]
            if metric["contaminated_items"]:
                rows.append(_row("  without contaminated items", clean, planned) + (("",) if baseline else ()))
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    for row in rows:
        cells = (f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()
    for name, suite in results["suites"].items():
        if suite.get("overdue"):
            yield f"{name}: due for renewal since {suite['refresh_by']}, so its checks are inconclusive"
        if suite.get("note"):
            yield f"{name}: {suite['note']}"
        for metric, reason in suite.get("unscored", {}).items():
            yield f"{metric}: {reason}"
        if failed := suite.get("failed"):
            yield _failed(name, failed, suite)


def _failed(name: str, failed: int, suite: Mapping[str, Any]) -> str:
    """How many answers failed, and why most of them did."""
    from sluice.model.evaluation.lost_items import ANSWERS_FILE

    is_counted = bool(suite["planned"].keys() - suite.get("unscored", {}).keys())
    said = f"{name}: {failed} {'answer' if failed == 1 else 'answers'} failed"
    if is_counted:
        said += f", and {'counts' if failed == 1 else 'count'} as wrong"
    if most := suite.get("most_failed"):
        said += f"; {most['count']} of {failed}: {most['reason']}"
    return f"{said} (see {ANSWERS_FILE})"


def _row(name: str, metric: Mapping[str, Any], planned: int) -> tuple[str, ...]:
    ends = metric["interval"]
    interval = "" if not ends or None in ends else f"{_number(ends[0])} to {_number(ends[1])}"
    items = str(metric["n"]) if metric["n"] == planned else f"{metric['n']} of {planned}"
    return name, _number(metric["value"]), interval, items, str(metric.get("clusters", ""))


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"
