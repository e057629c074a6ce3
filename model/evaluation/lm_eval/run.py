"""Run one stock task of lm-eval and return its rows as a suite's."""

import hashlib
import math
from collections.abc import Mapping
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sluice.core.canonical import canonical_json
from sluice.core.check import finite_or_none
from sluice.core.progress import Progress, no_progress
from sluice.model.evaluation.evaluated import EvaluatedModel
from sluice.model.evaluation.results import Item

if TYPE_CHECKING:
    from sluice.model.evaluation.lm_eval.adapter import EvaluatedLM

PREFIX = "lm-eval:"
_SEED = 1234  # of few-shot examples, lm-eval's default
_PASSAGES = ("passage", "context", "article", "paragraph", "story", "document")
"""Fields of a document with the text that a question is about (DROP, SQuAD, RACE, MultiRC, ..), most telling first."""


def run_task(
    model: EvaluatedModel,
    task_name: str,
    data_dir: Path,
    limit: int | None = None,
    *,
    progress: Progress = no_progress,
) -> tuple[list[Item], list[dict[str, Any]], dict[str, Any]]:
    """Return the items of every metric of a task, the answers, and the suite's entry in results.json.

    `data_dir` is laid out as the hub's names (`allenai/ai2_arc/README.md` naming configs, JSONL beside it). The task
    runs as it is in lm-eval; `limit` takes the first documents only. Metrics are named TASK.METRIC, with the filter
    where a task has several; those that are no mean over documents are in the entry's `aggregates`. Questions on one
    passage are one cluster. A failed answer has the value 0, or NaN where 0 is not the worst value. Raises ValueError
    for an unknown task, missing data and a metric that needs the hub.
    """
    from sluice.model.evaluation.lm_eval.offline import offline, task_file

    name = task_name.removeprefix(PREFIX)
    path = task_file(name)
    with offline(name, data_dir):
        from lm_eval.evaluator import evaluate
        from lm_eval.tasks import TaskManager

        from sluice.model.evaluation.lm_eval.adapter import EvaluatedLM

        loaded = TaskManager(include_defaults=False, include_path=path.parent).load([name])
        task = loaded["tasks"][name]
        if task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=_SEED)
        lm = EvaluatedLM(model, progress)
        found = evaluate(lm, loaded, limit=limit, bootstrap_iters=0)
    assert found is not None
    rows = found["samples"][name]
    errors = _errors(lm, task.instances)
    items = _items(name, rows, errors, task.higher_is_better())
    answers = _answers(name, rows, errors)
    planned: dict[str, int] = {}
    for item in items:
        planned[item.metric] = planned.get(item.metric, 0) + 1
    entry = {
        "version": str(task.VERSION),
        "sha256": _digest(sorted((row["doc_id"], row["doc_hash"], row["target_hash"]) for row in rows)),
        "source": str(task.DATASET_PATH),
        "planned": planned,
        "prompts": {"prompt": _digest(sorted((row["doc_id"], row["prompt_hash"]) for row in rows))},
        "settings": {
            "lm_eval": _version(),
            "num_fewshot": task.get_config("num_fewshot"),
            "generation": task.get_config("generation_kwargs") or {},
            "fewshot_seed": _SEED,
            "limit": limit,
        },
        "failed": len(errors),
        "aggregates": {
            key.removesuffix(",none"): finite_or_none(value)
            for key, value in sorted(found["results"][name].items())
            if isinstance(value, float) and "_stderr" not in key
        },
    }
    return items, answers, entry


def _version() -> str:
    from importlib.metadata import version

    return version("lm-eval")


def _digest(content: Any) -> str:
    return hashlib.sha256(canonical_json(content)).hexdigest()


def _errors(lm: "EvaluatedLM", instances: Any) -> dict[int, str]:
    """First error of each document whose answer failed."""
    errors: dict[int, str] = {}
    for instance in instances:
        if id(instance) in lm.errors:
            errors.setdefault(instance.doc_id, lm.errors[id(instance)])
    return errors


def _item_id(name: str, row: Mapping[str, Any]) -> str:
    return _digest([name, row["doc_id"], row["doc_hash"], row["prompt_hash"], row["target_hash"]])[:32]


def _cluster(document: Any) -> str:
    """Hash of the passage that the document asks about; empty where it has none, so that it is a cluster of its own."""
    found = (document.get(field) for field in _PASSAGES) if isinstance(document, Mapping) else ()
    passage = next((text for text in found if isinstance(text, str) and text.strip()), "")
    return hashlib.sha256(passage.encode()).hexdigest()[:16] if passage else ""


def _items(
    name: str, rows: list[dict[str, Any]], errors: Mapping[int, str], higher_is_better: Mapping[str, Any]
) -> list[Item]:
    """Rows of each metric that has one value for a document, or bits over bytes."""
    items = []
    several = len({row["filter"] for row in rows}) > 1
    for row in rows:
        error = errors.get(row["doc_id"])
        metadata = {"task": name} | ({"error": error[:200]} if error else {})
        for metric in row["metrics"]:
            value = row[metric]
            weight = 1.0
            if metric == "bits_per_byte":
                nats, size = value
                value, weight = -nats / math.log(2), float(size)
            elif not isinstance(value, Real | np.number | np.bool_):
                continue
            full = f"{name}.{metric}" + (f".{row['filter']}" if several else "")
            if error:
                # Of a metric of which less is better, 0 would be a perfect answer.
                value = 0.0 if higher_is_better.get(metric) is True else math.nan
            items.append(Item(full, _item_id(name, row), float(value), weight, _cluster(row["doc"]), metadata))
    return sorted(items, key=lambda item: item.metric)


def _answers(name: str, rows: list[dict[str, Any]], errors: Mapping[int, str]) -> list[dict[str, Any]]:
    """Rows of answers.jsonl, one for each document."""
    answers: dict[int, dict[str, Any]] = {}
    for row in rows:
        number = row["doc_id"]
        answer = answers.get(number)
        if answer is None:
            responses = [response[0] for response in row["resps"]]
            is_text = isinstance(responses[0], str)
            answer = answers[number] = {
                "suite": name,
                "id": str(number),
                "item": _item_id(name, row),
                "prompt": row["arguments"][0][0],
                "answer": responses[0] if is_text else _likeliest(row, responses),
                "targets": [str(row["target"])],
                "scores": {},
            }
            if not is_text:
                answer["log_likelihoods"] = [finite_or_none(_number(response)) for response in responses]
            if number in errors:
                answer["error"] = errors[number]
        for metric in row["metrics"]:
            if isinstance(row[metric], Real | np.number | np.bool_):
                answer["scores"][f"{metric}.{row['filter']}".removesuffix(".none")] = finite_or_none(float(row[metric]))
    return list(answers.values())


def _number(response: Any) -> float:
    return float(response[0] if isinstance(response, tuple | list) else response)


def _likeliest(row: Mapping[str, Any], responses: list[Any]) -> str:
    """Continuation with the highest likelihood; of a text that was only read, none."""
    if len(row["arguments"][0]) < 2:
        return ""
    best = max(range(len(responses)), key=lambda index: _number(responses[index]))
    return str(row["arguments"][best][1]).strip()
