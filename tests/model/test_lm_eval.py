"""Stock tasks of lm-eval run unchanged and offline, and agree item by item with its `hf` backend on the same model."""

# ruff: noqa: F811  (pytest finds the imported fixtures by name)

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from evaluation_fixtures import corpus, document_text, tiny_model, tokenizer  # noqa: F401

from sluice.model.directory import save_model
from sluice.model.evaluation.evaluated import GeneratedAnswer
from sluice.model.evaluation.lm_eval import run_task
from sluice.model.evaluation.lm_eval.run import _items
from sluice.model.evaluation.model_folder import ModelFolder
from sluice.pipelines.cli import main

TOPICS = ("cache", "queue", "router", "session", "template", "cursor", "signal", "worker")
HIGHER_IS_BETTER = {"acc": True, "ter": False, "bits_per_byte": False}
LONG = " ".join(map(document_text, range(12)))


def write_rows(folder: Path, config: str, **splits: list[dict[str, Any]]) -> None:
    """A data set as the hub has it: JSONL, and a README that names the config."""
    (folder / config).mkdir(parents=True)
    files = []
    for split, rows in splits.items():
        (folder / config / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        files.append(f"  - split: {split}\n    path: {config}/{split}.jsonl\n")
    head = f"---\nconfigs:\n- config_name: {config}\n  data_files:\n{''.join(files)}---\n"
    (folder / "README.md").write_text(head)


def question(number: int) -> dict[str, Any]:
    words = [TOPICS[(number + step) % len(TOPICS)] for step in range(4)]
    texts = [f"the {word} {'and its ' * place}closes" for place, word in enumerate(words)]
    return {
        "id": str(number),
        "question": f"Which of these stores {number} rows?",
        "choices": {"text": texts, "label": list("ABCD")},
        "answerKey": "ABCD"[number % 4],
    }


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    rows = [question(number) for number in range(12)]
    write_rows(folder / "allenai/ai2_arc", "ARC-Easy", train=rows[:2], validation=rows[:2], test=rows)
    sums = [
        {"question": f"What is {n} and {n}?", "answer": f"{document_text(n)[:400]}\n#### {2 * n}"} for n in range(8)
    ]
    write_rows(folder / "openai/gsm8k", "main", train=sums, test=sums[:3])
    pages = [{"page": text} for text in ("A queue.", document_text(3), LONG)]
    splits = {"train": pages, "validation": pages, "test": pages}
    write_rows(folder / "EleutherAI/wikitext_document_level", "wikitext-2-raw-v1", **splits)
    write_rows(folder / "openai/openai_humaneval", "openai_humaneval", test=[{"task_id": "a", "prompt": "def f():"}])
    return folder


@pytest.fixture(scope="module")
def folder(corpus, tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("lm-eval") / "model"
    model = tiny_model(tokenizer, context=768)
    with torch.no_grad():
        # Sharper than at initialisation, so that answers differ from prompt to prompt.
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(4.0)
    save_model(made, model, corpus / "tokenizer", {})
    return made


@pytest.fixture(scope="module")
def model(folder: Path) -> ModelFolder:
    return ModelFolder(folder)


def reference(folder: Path, data: Path, name: str) -> list[dict[str, Any]]:
    """Samples of lm-eval's own `hf` backend."""
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    from sluice.model.evaluation.lm_eval.offline import offline, task_file

    with offline(name, data):
        lm = HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=4)
        loaded = TaskManager(include_defaults=False, include_path=task_file(name).parent).load([name])
        loaded["tasks"][name].set_fewshot_seed(seed=1234)
        if loaded["tasks"][name].get_config("num_fewshot") is None:
            loaded["tasks"][name].set_config(key="num_fewshot", value=0)
        found = evaluate(lm, loaded, bootstrap_iters=0)
    return found["samples"][name]


def test_choices_have_the_likelihoods_and_accuracy_of_the_hf_backend(
    model: ModelFolder, folder: Path, data: Path
) -> None:
    items, answers, entry = run_task(model, "lm-eval:arc_easy", data)
    theirs = reference(folder, data, "arc_easy")
    for answer, sample in zip(answers, theirs, strict=True):
        expected = [response[0][0] for response in sample["resps"]]
        assert answer["log_likelihoods"] == pytest.approx(expected, abs=1e-3)
        assert answer["scores"] == {name: sample[name] for name in ("acc", "acc_norm")}
    for metric in ("acc", "acc_norm"):
        ours = [item.value for item in items if item.metric == f"arc_easy.{metric}"]
        assert ours == [sample[metric] for sample in theirs]
        assert entry["aggregates"][metric] == pytest.approx(sum(ours) / len(ours))
    assert entry["planned"] == {"arc_easy.acc": 12, "arc_easy.acc_norm": 12}
    assert len({item.item for item in items}) == 12
    assert (entry["source"], entry["version"], entry["failed"]) == ("allenai/ai2_arc", "1.0", 0)


def test_generated_text_is_that_of_the_hf_backend(model: ModelFolder, folder: Path, data: Path) -> None:
    """With five worked examples, prompts are longer than the context leaves beside an answer, and are cut alike."""
    _, answers, entry = run_task(model, "gsm8k", data)
    theirs = [sample for sample in reference(folder, data, "gsm8k") if sample["filter"] == "strict-match"]
    assert [answer["answer"] for answer in answers] == [sample["resps"][0][0] for sample in theirs]
    assert all(answer["answer"] for answer in answers)
    assert all(len(model.encode(answer["prompt"])) > 768 - 256 for answer in answers)
    assert set(entry["planned"]) == {"gsm8k.exact_match.strict-match", "gsm8k.exact_match.flexible-extract"}
    assert entry["settings"]["num_fewshot"] == 5


def test_bits_per_byte_of_short_texts_are_lm_eval_s_and_of_long_ones_by_our_windows(
    model: ModelFolder, folder: Path, data: Path
) -> None:
    """Its windows are disjoint, so that the first tokens of each have little before them; ours overlap."""
    items, _, entry = run_task(model, "wikitext", data)
    bits = {item.item: item for item in items if item.metric == "wikitext.bits_per_byte"}
    theirs = [-sample["bits_per_byte"][0] / math.log(2) for sample in reference(folder, data, "wikitext")]
    ours = [item.value for item in bits.values()]
    assert ours[:2] == pytest.approx(theirs[:2], abs=1e-3)
    assert [item.weight for item in bits.values()] == [8.0, len(document_text(3).encode()), len(LONG.encode())]
    assert model.tokenizer.encode(LONG).ids[768:], "longer than the context"
    assert ours[2] != pytest.approx(theirs[2], abs=1e-3)
    assert entry["aggregates"]["bits_per_byte"] == pytest.approx(sum(ours) / sum(i.weight for i in bits.values()))


def test_metrics_of_the_hub_unknown_tasks_and_missing_data_are_refused_by_name(
    model: ModelFolder, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"lm-eval:humaneval needs the metric code_eval of evaluate\.load"):
        run_task(model, "humaneval", data)
    with pytest.raises(ValueError, match="no task 'arc_medium'"):
        run_task(model, "arc_medium", data)
    with pytest.raises(ValueError, match=f"put it into {tmp_path}/allenai/ai2_arc"):
        run_task(model, "arc_easy", tmp_path)


def test_an_answer_that_failed_stays_in_the_denominator(model: ModelFolder, data: Path) -> None:
    class Failing(ModelFolder):
        def generate(self, requests: Any, progress: Any = None) -> list[GeneratedAnswer]:
            return [GeneratedAnswer("", 0, "error", "time-out"), *super().generate(requests[1:])]

    failing = Failing.__new__(Failing)
    failing.__dict__ |= model.__dict__
    items, answers, entry = run_task(failing, "gsm8k", data, limit=2)
    assert entry["failed"] == 1
    assert answers[0]["error"] == "time-out"
    first, _ = (item for item in items if item.metric == "gsm8k.exact_match.strict-match")
    assert (first.value, first.metadata["error"]) == (0.0, "time-out")


def test_a_failed_answer_is_never_the_best_one() -> None:
    row = {"doc_id": 0, "doc_hash": "d", "prompt_hash": "p", "target_hash": "t", "filter": "none", "doc": {}}
    row |= {"acc": 1.0, "ter": 0.0, "unknown": 0.0, "bits_per_byte": (-1.0, 1)}
    row["metrics"] = [*HIGHER_IS_BETTER, "unknown"]
    found = {item.metric: item.value for item in _items("t", [row], {0: "time-out"}, HIGHER_IS_BETTER)}
    assert found.pop("t.acc") == 0.0
    assert found.keys() == {"t.ter", "t.unknown", "t.bits_per_byte"} and all(map(math.isnan, found.values()))


def test_questions_on_one_passage_are_one_cluster(model: ModelFolder, tmp_path: Path) -> None:
    answer = {"number": "3", "date": {"day": "", "month": "", "year": ""}, "spans": []}
    rows = [
        {
            "query_id": str(number),
            "passage": document_text(number // 2)[:300],
            "question": f"How many of {number}?",
            "answer": answer,
            "validated_answers": {"number": ["4"], "date": [answer["date"]], "spans": [[]]},
        }
        for number in range(4)
    ]
    write_rows(tmp_path / "EleutherAI/drop", "default", train=rows[:1], validation=rows)
    items, _, _ = run_task(model, "drop", tmp_path)
    one, two, three, four = (item.cluster for item in items if item.metric == "drop.em")
    assert one == two != three == four
    assert [item.cluster for item in items if item.metric == "drop.f1"] == [one, two, three, four]


def test_a_question_without_a_passage_is_a_cluster_of_its_own(model: ModelFolder, data: Path) -> None:
    items, _, _ = run_task(model, "arc_easy", data)
    assert {item.cluster for item in items} == {""} and len({item.unit for item in items}) == 12


def test_the_command_runs_a_task_into_a_signed_folder(
    folder: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("SLUICE_WORKSPACE", raising=False)
    command = ["evaluate", str(folder), "--suite", "lm-eval:arc_easy", "--suite", "lm-eval:wikitext"]
    assert main([*command, "--data", str(data), "--out", "out"]) == 0
    assert "arc_easy.acc_norm" in capsys.readouterr().out
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert results["planned"]["arc_easy.acc"] == 12
    bits = results["metrics"]["wikitext.bits_per_byte"]
    assert bits["n"] == 3
    assert bits["value"] == pytest.approx(results["suites"]["wikitext"]["aggregates"]["bits_per_byte"], abs=1e-5)
    assert {"answers.jsonl", "evaluation.html"} <= {each.name for each in (tmp_path / "out").iterdir()}
    assert main([*command, "--data", str(data), "--out", "again"]) == 0
    assert (tmp_path / "again/items.jsonl").read_bytes() == (tmp_path / "out/items.jsonl").read_bytes()
