"""The evaluation artifact: repeatable, honest about what is missing, and what the gate can read."""

# ruff: noqa: F811  (pytest finds the imported fixtures by name)

import hashlib
import json
import math
from dataclasses import replace
from datetime import date

import pytest
from evaluation_fixtures import SPLIT, build_corpus, corpus, saved_model, side_of, tokenizer  # noqa: F401
from safetensors.torch import load_file, save_file
from suites.suite_fixtures import sums, write_suite

from sluice.core.manifest import file_hash
from sluice.model.config import EvaluateConfig, SuiteFile
from sluice.model.directory import model_hash
from sluice.model.evaluation.gate import decide
from sluice.model.evaluation.harness import evaluate
from sluice.model.evaluation.metrics import METRICS
from sluice.model.evaluation.policy import Policy
from sluice.model.evaluation.report import render
from sluice.model.evaluation.results import Item, item_lines, load_evaluation

CONFIG = EvaluateConfig(
    documents=40,
    max_document_bytes=600,
    multiple_choice_items=40,
    max_passage_bytes=150,
    golden_max_tokens=8,
    latency_prompts=4,
    latency_max_tokens=3,
    latency_rounds=2,
)
LENIENT = Policy(
    name="lenient",
    version=1,
    metrics={
        "bits_per_byte": {
            "floor": 7.5,
            "margin": 0.1,
            "budget": 0.2,
            "tail": None,
            "beat_reference": False,
            "min_clusters": 8,
        },
        "choice_accuracy": {"floor": -0.25, "margin": 0.9, "budget": 0.9, "min_clusters": 8},
        "golden_pass_rate": {"floor": 0.0, "max_lost": None},
        "first_token_p95_ms": {"min_clusters": 8},
    },
)


@pytest.fixture(scope="module")
def models(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {
        "trained": saved_model(corpus, folder / "trained"),
        "untrained": saved_model(corpus, folder / "untrained", steps=1),
    }


@pytest.fixture(scope="module")
def evaluated(corpus, models, tmp_path_factory):
    found = {}
    for name, model in models.items():
        out = tmp_path_factory.mktemp(name)
        found[name] = (out, evaluate(CONFIG, model, corpus / "refine", SPLIT, out))
    return found


def test_the_artifact_repeats_to_the_byte(corpus, models, evaluated, tmp_path):
    evaluate(CONFIG, models["trained"], corpus / "refine", SPLIT, tmp_path)
    first = evaluated["trained"][0]
    names = sorted(path.name for path in first.iterdir())
    assert names == ["evaluation.html", "golden.json", "items.jsonl", "parity.jsonl", "results.json"]
    assert all((tmp_path / name).read_bytes() == (first / name).read_bytes() for name in names)


def test_every_source_has_its_own_bits_per_byte_which_make_up_the_whole(tmp_path):
    folder = build_corpus(tmp_path, sources=("manual", "wiki"))
    model = saved_model(folder, tmp_path / "model", steps=1)
    out = tmp_path / "out"
    out.mkdir()
    report = evaluate(CONFIG, model, folder / "refine", SPLIT, out)
    found = json.loads((out / "results.json").read_text())["bits_per_byte_by_source"]
    texts = {name: side_of(folder, "test", name) for name in ("manual", "wiki")}
    assert {name: each["n"] for name, each in found.items()} == {name: len(each) for name, each in texts.items()}
    sizes = {name: sum(min(600, len(text.encode())) for text in each) for name, each in texts.items()}
    whole = sum(found[name]["value"] * size for name, size in sizes.items()) / sum(sizes.values())
    assert report.bits_per_byte == pytest.approx(whole, abs=1e-5)
    assert report.bits_per_byte_by_source == {name: each["value"] for name, each in found.items()}
    assert len(set(report.bits_per_byte_by_source.values())) == 2
    page = (out / "evaluation.html").read_text()
    assert ">manual</td>" in page and ">wiki</td>" in page


def test_results_say_what_was_measured(root, corpus, models, evaluated):
    out, report = evaluated["trained"]
    results = json.loads((out / "results.json").read_text())
    assert results["hashes"]["model"] == model_hash(models["trained"])
    held_out = side_of(corpus, "test")
    assert results["planned"] == {
        "bits_per_byte": min(40, len(held_out)),
        "choice_accuracy": report.choice_items,
        "golden_pass_rate": 12,
    }
    assert results["hashes"]["golden_prompts"] == file_hash(root / "conf" / "golden.yaml")
    low, high = results["metrics"]["bits_per_byte"]["interval"]
    assert low < report.bits_per_byte < high
    assert report.bits_per_byte < evaluated["untrained"][1].bits_per_byte - 0.5
    assert 0.3 < report.ngram_bits_per_byte < report.xz_bits_per_byte < 4.0
    assert report.timings["first_token_samples"] == 8 and "bits_per_byte_s" in report.timings
    json.dumps(report.model_dump(), allow_nan=False)


def test_rows_that_are_lost_are_missing_from_what_settings_and_text_plan(corpus, models, tmp_path, monkeypatch):
    for name in ("bits_per_byte", "choice_accuracy", "golden_pass_rate"):
        lost = [
            replace(
                each, measure=lambda subject, each=each: replace(done := each.measure(subject), items=done.items[1:])
            )
            if each.name == name
            else each
            for each in METRICS
        ]
        monkeypatch.setattr("sluice.model.evaluation.harness.METRICS", lost)
        report = evaluate(CONFIG, models["untrained"], corpus / "refine", SPLIT, tmp_path)
        found = load_evaluation(tmp_path, report.timings)
        assert len(found.items[name]) == found.planned(name) - 1
        verdict = decide(found, None, LENIENT)
        assert verdict.outcome == "hold" and f"{name} n={found.planned(name) - 1} of" in verdict.reason


def test_every_model_is_asked_the_same(evaluated):
    hashes = [json.loads((out / "results.json").read_text())["hashes"] for out, _ in evaluated.values()]
    assert hashes[0]["evaluation_set"] == hashes[1]["evaluation_set"]
    assert hashes[0]["items"] != hashes[1]["items"]


def test_the_gate_reads_it_and_keeps_the_better_model(evaluated):
    loaded = {name: load_evaluation(out, report.timings) for name, (out, report) in evaluated.items()}
    assert set(loaded["trained"].items) == {metric.name for metric in METRICS if metric.summarize}
    assert decide(loaded["trained"], loaded["untrained"], LENIENT).outcome == "promote"
    verdict = decide(loaded["untrained"], loaded["trained"], LENIENT)
    assert verdict.outcome == "reject" and "bits_per_byte_difference +" in verdict.reason
    assert decide(loaded["trained"], loaded["trained"], LENIENT).outcome == "hold"
    without_timings = load_evaluation(evaluated["trained"][0], {})
    assert decide(without_timings, None, LENIENT).outcome == "hold"


def test_a_model_with_nan_weights_is_measured_and_rejected(corpus, models, tmp_path):
    broken, out = tmp_path / "broken", tmp_path / "out"
    broken.mkdir()
    out.mkdir()
    for path in models["trained"].iterdir():
        if path.name != "lineage.json":
            (broken / path.name).write_bytes(path.read_bytes())
    weights = load_file(broken / "model.safetensors")
    weights["model.norm.weight"][0] = math.nan
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    report = evaluate(CONFIG, broken, corpus / "refine", SPLIT, out)
    assert report.bits_per_byte is None and report.choice_accuracy is None and report.golden_pass_rate == 0.0
    verdict = decide(load_evaluation(out, report.timings), None, LENIENT)
    assert verdict.outcome == "reject" and "values of bits_per_byte are NaN or infinite" in verdict.reason
    assert "no number" in (out / "evaluation.html").read_text()


def test_a_corpus_without_a_test_document_is_one_clear_line(corpus, models, tmp_path):
    with pytest.raises(ValueError, match=r"0 test and \d+ train documents"):
        evaluate(
            CONFIG, models["trained"], corpus / "refine", SPLIT.model_copy(update={"test_fraction": 1e-9}), tmp_path
        )


def test_tampered_or_missing_evidence_is_refused(evaluated, tmp_path):
    out, report = evaluated["trained"]
    with pytest.raises(ValueError, match=r"no results\.json"):
        load_evaluation(tmp_path, report.timings)
    for path in out.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    rows = (tmp_path / "items.jsonl").read_bytes()
    (tmp_path / "items.jsonl").write_bytes(rows[: rows.rindex(b"\n", 0, -1) + 1])
    with pytest.raises(ValueError, match=r"items\.jsonl: does not match the hash"):
        load_evaluation(tmp_path, report.timings)
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(ValueError, match="not an evaluation result"):
        load_evaluation(tmp_path, report.timings)


def test_nan_is_written_as_null():
    assert b'"value":null' in item_lines([Item("bits_per_byte", "a", math.nan, 3.0)])


def test_the_page_needs_nothing_from_outside_and_escapes_what_a_model_says(evaluated):
    out, report = evaluated["trained"]
    results = json.loads((out / "results.json").read_text())
    verdict = decide(load_evaluation(out, report.timings), None, LENIENT)
    said = [{"prompt": "<script>", "answer": "<img src=x>", "failed": ["not_empty"], "id": "a", "kind": "chat"}]
    page = render(results, said, verdict)
    assert "<script" not in page and "<img" not in page and "http" not in page and "url(" not in page
    assert "&lt;script&gt;" in page and verdict.correction in page
    assert f"{report.bits_per_byte:.3f}" in page and "byte n-gram, order 5" in page


def test_suites_of_the_settings_are_part_of_the_artifact(corpus, models, tmp_path):
    suite = write_suite(tmp_path / "suite", sums(), max_tokens=2)
    config = CONFIG.model_copy(update={"suites": [SuiteFile(path=str(suite))]})
    out = tmp_path / "out"
    out.mkdir()
    report = evaluate(config, models["trained"], corpus / "refine", SPLIT, out, today=date(2026, 6, 1))
    found = load_evaluation(out, {})
    assert found.planned("sums") == len(found.items["sums"]) == 4
    assert (
        found.results["suites"]["sums"]["sha256"]
        == hashlib.sha256((suite.parent / "suite.jsonl").read_bytes()).hexdigest()
    )
    assert report.suites == {"sums": found.results["metrics"]["sums"]["value"]}
    assert len((out / "answers.jsonl").read_text().splitlines()) == 4
    overdue = tmp_path / "overdue"
    overdue.mkdir()
    evaluate(config, models["trained"], corpus / "refine", SPLIT, overdue, today=date(2028, 1, 1))
    assert load_evaluation(overdue, {}).results["suites"]["sums"]["overdue"]
