"""`sluice review export` and `import` on an attested evaluation folder."""

import csv
import io
import json
from pathlib import Path

import pytest

from sluice.components.workspace import Workspace
from sluice.core.canonical import canonical_json
from sluice.core.manifest import file_hash
from sluice.model.evaluation.evidence import attest_folder, verify_folder
from sluice.model.evaluation.keys import trusted_keys
from sluice.model.evaluation.results import Item, item_lines, load_evaluation
from sluice.model.evaluation.review.record import reviewed_evaluation, unreviewed
from sluice.model.evaluation.review.selection import REVIEW_FILE
from sluice.pipelines.cli import main

ITEMS = [f"i{number}" for number in range(6)]


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv("SLUICE_WORKSPACE", str(tmp_path / "workspace"))
    (tmp_path / "workspace" / "conf").mkdir(parents=True)
    (tmp_path / "workspace" / "dvc.yaml").write_text("stages: {}\n")
    return Workspace(tmp_path / "workspace")


def measure(folder: Path, keys: Path, answer: str) -> None:
    """Write an attested evaluation of a suite of high risk."""
    import hashlib

    folder.mkdir(parents=True)
    rows = item_lines([Item("risky", item, 1.0) for item in ITEMS])
    answers = [
        {"suite": "risky", "item": item, "prompt": f"Q {item}", "answer": f"{answer} {item}", "scores": {}}
        for item in ITEMS
    ]
    results = {
        "schema_version": 2,
        "hashes": {"items": hashlib.sha256(rows).hexdigest(), "model": answer},
        "planned": {"risky": len(ITEMS)},
        "suites": {"risky": {"high_risk": True}},
    }
    (folder / "items.jsonl").write_bytes(rows)
    (folder / "answers.jsonl").write_bytes(b"".join(canonical_json(row) + b"\n" for row in answers))
    (folder / "results.json").write_bytes(canonical_json(results))
    attest_folder(folder, keys, model=answer, measured_by="m")


@pytest.fixture
def evaluation(tmp_path: Path, workspace: Workspace) -> Path:
    folder = tmp_path / "evaluation"
    measure(folder, workspace.keys, "ours")
    measure(folder / "baseline", workspace.keys, "theirs")
    return folder


def fill(sheet: Path, rater: str, rows: slice = slice(None)) -> Path:
    """Rate every answer of the candidate `pass`, of the baseline `fail`, as somebody who sees the text could."""
    found = list(csv.DictReader(io.StringIO(sheet.read_text(encoding="utf-8-sig"), newline="")))
    for row in found[rows]:
        marks = ["pass" if row[f"answer_{n}"].startswith("ours") else "fail" for n in (1, 2)]
        row |= {
            "rater": rater,
            "rating_1": marks[0],
            "rating_2": marks[1],
            "better": "first" if marks[0] == "pass" else "second",
        }
    path = sheet.with_name(f"{rater}.csv")
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(found[0]))
        writer.writeheader()
        writer.writerows(found)
    return path


def run(capsys: pytest.CaptureFixture[str], *command: object, code: int = 0) -> str:
    assert main(["review", *map(str, command)]) == code
    out = capsys.readouterr()
    return out.err if code else out.out


def test_a_review_goes_out_and_comes_back(
    evaluation: Path, workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet, trusted = tmp_path / "sheet.csv", trusted_keys(workspace.keys)
    assert "6 items" in run(capsys, "export", evaluation, "--out", sheet)
    assert "6 of 6 items of high risk" in unreviewed(
        reviewed_evaluation(evaluation, load_evaluation(evaluation, {}), trusted).results
    )
    said = run(capsys, "import", evaluation, fill(sheet, "r1", slice(0, 4)))
    assert "reviewed by 1 rater: 4 of 6 items of high risk" in said and "too few items with two ratings" in said
    found = json.loads(run(capsys, "import", evaluation, fill(sheet, "r2"), "--json"))
    assert (found["imported"], found["reviewed"], found["raters"], found["alpha"], found["win_rate"]) == (6, 6, 2, 1, 1)
    # The record lies beside the evidence, which stays as it was measured.
    verify_folder(evaluation, trusted, redo="")
    seen = reviewed_evaluation(evaluation, load_evaluation(evaluation, {}), trusted)
    assert seen.hashes["review"] == file_hash(evaluation / REVIEW_FILE)
    baseline = reviewed_evaluation(evaluation, load_evaluation(evaluation / "baseline", {}), trusted, "baseline")
    assert [item.value for item in baseline.items["risky.review"]] == [0] * 6
    assert unreviewed(seen.results) is None and seen.results["review"]["required"] == 6
    assert [item.value for item in seen.items["risky.review"]] == [1] * 6


def test_what_was_changed_is_refused_by_name(
    evaluation: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet = tmp_path / "sheet.csv"
    run(capsys, "export", evaluation, "--out", sheet)
    run(capsys, "import", evaluation, fill(sheet, "r1"))
    record = evaluation / REVIEW_FILE
    signed = record.read_text()
    record.write_text(signed.replace('"passed":{"baseline":false', '"passed":{"baseline":true'))
    assert "the sha256 does not match the review" in run(capsys, "import", evaluation, fill(sheet, "r2"), code=1)
    record.write_text(signed)
    answers = evaluation / "answers.jsonl"
    answers.write_text(answers.read_text().replace("ours i3", "ours, better"))
    assert "answers.jsonl: has sha256" in run(capsys, "export", evaluation, "--out", tmp_path / "b.csv", code=1)


def test_a_review_of_other_answers_does_not_count(
    evaluation: Path, workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet = tmp_path / "sheet.csv"
    run(capsys, "export", evaluation, "--out", sheet)
    run(capsys, "import", evaluation, fill(sheet, "r1"))
    other = tmp_path / "other"
    measure(other, workspace.keys, "another")
    (other / REVIEW_FILE).write_bytes((evaluation / REVIEW_FILE).read_bytes())
    said = run(capsys, "import", other, fill(sheet, "r2"), code=1)
    assert said.count("\n") == 1 and "r2.csv: none of its ids is of this evaluation" in said
    with pytest.raises(ValueError, match="reviews other answers"):
        reviewed_evaluation(other, load_evaluation(other, {}), trusted_keys(workspace.keys))


def test_mistakes_are_one_line(evaluation: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet = tmp_path / "sheet.csv"
    assert "--items 0: export at least 1" in run(capsys, "export", evaluation, "--out", sheet, "--items", 0, code=1)
    assert "a review is .csv or .jsonl" in run(capsys, "export", evaluation, "--out", tmp_path / "a.xlsx", code=1)
    assert "is not a folder" in run(capsys, "export", tmp_path / "none", "--out", sheet, code=1)
    found = json.loads(run(capsys, "export", evaluation, "--out", sheet, "--items", 2, "--json"))
    assert (found["items"], found["high_risk"], found["required"]) == (2, 2, 6)
    assert "may be filled in" in run(capsys, "export", evaluation, "--out", sheet, code=1)
    assert "has no ratings" in run(capsys, "import", evaluation, sheet, code=1)


def test_each_refused_line_is_a_line(evaluation: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet = tmp_path / "sheet.csv"
    run(capsys, "export", evaluation, "--out", sheet)
    sheet = fill(sheet, "r1")
    sheet.write_text(sheet.read_text().replace("pass", "good"))
    said = run(capsys, "import", evaluation, sheet, code=1).splitlines()
    assert len(said) == 6 and said[0].startswith(f"sluice review import: {sheet}:2: rating_")
    assert all(line.startswith(f"{sheet}:") for line in said[1:])
