"""Suites on disk: what is read, and what is refused with file, line and reason."""

from pathlib import Path

import pytest
import yaml
from suites.suite_fixtures import sums, write_suite

from sluice.model.evaluation.suites.suite import load_suite

CHOICE = {"id": 1, "question": "?", "choices": ["x", "y"], "answer": "B"}


def test_a_suite_is_its_settings_and_samples(tmp_path: Path) -> None:
    rows = [{"id": 7, "question": "2?", "target": [2, "two"], "topic": "sums", "level": 3, "long": "x" * 500}]
    suite = load_suite(write_suite(tmp_path, rows, cluster="topic", metadata=["topic"]))
    (sample,) = suite.samples
    assert (sample.id, sample.targets, sample.cluster) == ("7", ("2", "two"), "sums")
    assert sample.metadata == {"topic": "sums", "level": "3"}
    assert suite.settings.metric("numeric") == "sums"


@pytest.mark.parametrize(
    ("choices", "answer", "key"),
    [(["x", "y"], 1, 1), (["x", "y"], "B", 1), ({"1": "x", "2": "y"}, "2", 1), ([1, 2.5], 0, 0)],
)
def test_a_key_is_an_index_a_letter_or_a_label(tmp_path: Path, choices: object, answer: object, key: int) -> None:
    row = {**CHOICE, "choices": choices, "answer": answer}
    assert load_suite(write_suite(tmp_path, [row], scorers=["choice_byte"])).samples[0].key == key


@pytest.mark.parametrize(
    ("content", "line", "reason"),
    [
        (b'{"id": 1, "question": "a", "target": 1}\n\n{"id": 1, "question": "b", "target": 1}', 3, "also in line 1"),
        (b'{"id": 1, "question": "a", "target": 1}\n{"id": "1", "question": "b", "target": 1}', 2, "also in line 1"),
        (b'{"id": 1, "question": "a"}', 1, "has no target"),
        (b'{"id": 1, "target": 1}', 1, "has no question"),
        (b'{"question": "a", "target": 1}', 1, "has no id"),
        (b'{"id": 1, "question": "a", "target": null}', 1, "has no target"),
        (b'{"id": " ", "question": "a", "target": 1}', 1, "id ' ' is no text"),
        (b'{"id": [1], "question": "a", "target": 1}', 1, "is no text"),
        (b'{"id": 1, "question": {"a": 1}, "target": 1}', 1, "question is in the prompt"),
        (b'{"id": 1, "question": "a", "target": []}', 1, "target is []"),
        (b'{"id": 1, "question": "a", "target": {"b": 1}}', 1, "target is"),
        (b'\xef\xbb\xbf{"id": 1, "question": "a", "target": NaN}', 1, "NaN is no JSON"),
        (b'{"id": 1, "question": "a", "target": 1}\n{"id": 2,', 2, "not JSON"),
        (b'{"id": 1, "question": "\xff", "target": 1}', 1, "not UTF-8"),
        (b'{"id": 1, "question": "\\ud800", "target": 1}', 1, "surrogate"),
        (b"[1]", 1, "not a JSON object"),
    ],
)
def test_a_line_that_cannot_be_used_is_named(tmp_path: Path, content: bytes, line: int, reason: str) -> None:
    path = write_suite(tmp_path, content)
    with pytest.raises(ValueError) as refused:
        load_suite(path)
    assert str(refused.value).startswith(f"{tmp_path / 'suite.jsonl'}, line {line}: ")
    assert reason in str(refused.value)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"answer": 2}, "outside the choices: use 0 to 1, or A to B"),
        ({"answer": -1}, "outside the choices"),
        ({"answer": "C"}, "outside the choices"),
        ({"answer": True}, "outside the choices"),
        ({"answer": None}, "has no answer"),
        ({"choices": {"a": "x", "b": "y"}, "answer": "c"}, "outside the choices: use a, b"),
        ({"choices": {"a": "x", "b": "y"}, "answer": 0}, "outside the choices"),
        ({"choices": ["x"]}, "at least two"),
        ({"choices": "xy"}, "at least two"),
        ({"choices": ["x", "x"]}, "twice"),
        ({"choices": ["x", ""]}, "empty"),
    ],
)
def test_a_choice_that_cannot_be_scored_is_named(tmp_path: Path, change: dict, reason: str) -> None:
    path = write_suite(tmp_path, [CHOICE, {**CHOICE, "id": 2, **change}], scorers=["choice_byte"])
    with pytest.raises(ValueError, match=f"suite.jsonl, line 2: .*{reason}"):
        load_suite(path)


def test_what_a_scorer_reads_is_in_every_sample(tmp_path: Path) -> None:
    row = {"id": 1, "question": "q", "prompt": "def f():\n", "test": "def check(f): pass", "entry_point": "f"}
    for wrong, reason in (({"entry_point": None}, "has no entry_point"), ({"test": 3}, "test is 3: give a text")):
        path = write_suite(tmp_path, [row, {**row, "id": 2, **wrong}], scorers=["code"])
        with pytest.raises(ValueError, match=rf"suite\.jsonl, line 2: {reason}"):
            load_suite(path)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"scorers": ["bleu"]}, "scorer bleu is not known: use some of"),
        ({"scorers": []}, "scorers"),
        ({"scorers": ["numeric", "numeric"]}, "once"),
        ({"name": "a.b"}, "name=a.b"),
        ({"shots": 2}, "unknown key 'shots'"),
        ({"refresh_by": "2025-01-01"}, "before created"),
        ({"refresh_by": "soon"}, "refresh_by=soon"),
        ({"prompt": "no field"}, "names no field"),
        ({"prompt": "{question.__class__}"}, "is no field"),
        ({"prompt": "{question!r}"}, "is no field"),
        ({"prompt": "{question"}, "for a brace"),
        ({"stop": [""]}, "empty stop string"),
        ({"scorers": ["choice_sum"], "stop": ["x"]}, "for scorers of text"),
        ({"sampling": {"pass_at": [0]}}, "each k is at least 1"),
        ({"perturbations": ["noise"]}, "perturbations"),
        ({"metadata": ["topic"]}, "line 1: has no topic"),
        ({"cluster": "topic"}, "line 1: has no topic"),
        ({"data": "other.jsonl"}, "is no file"),
        ({"sha256": "0" * 64}, "raise the suite's version and pin the new hash"),
    ],
)
def test_a_suite_that_cannot_be_used_is_one_line(tmp_path: Path, settings: dict, reason: str) -> None:
    path = write_suite(tmp_path, sums(), **settings)
    with pytest.raises(ValueError, match=reason) as refused:
        load_suite(path)
    assert str(tmp_path) in str(refused.value) and "\n" not in str(refused.value)


def test_a_suite_without_its_hash_is_told_the_value(tmp_path: Path) -> None:
    path = write_suite(tmp_path, sums())
    pinned = yaml.safe_load(path.read_text())
    sha256 = pinned.pop("sha256")
    path.write_text(yaml.safe_dump(pinned))
    with pytest.raises(ValueError, match=f"sha256 is missing, which pins .*: add `sha256: {sha256}`"):
        load_suite(path)
    del pinned["licence"]
    path.write_text(yaml.safe_dump(pinned | {"sha256": sha256}))
    with pytest.raises(ValueError) as refused:
        load_suite(path)
    assert str(refused.value) == f"{path}: licence is missing"


def test_an_edited_file_is_not_the_one_that_is_pinned(tmp_path: Path) -> None:
    path = write_suite(tmp_path, sums())
    data = tmp_path / "suite.jsonl"
    data.write_bytes(data.read_bytes().replace(b'"target": 2', b'"target": 3'))
    with pytest.raises(ValueError, match="restore the file"):
        load_suite(path)


@pytest.mark.parametrize("content", [b"\xff", b"a: [", b"- 1", b""])
def test_what_is_no_suite_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "suite.yaml").write_bytes(content)
    with pytest.raises(ValueError, match=r"suite\.yaml"):
        load_suite(tmp_path / "suite.yaml")
    with pytest.raises(ValueError, match="cannot be read"):
        load_suite(tmp_path / "absent.yaml")


def test_an_empty_suite_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no samples"):
        load_suite(write_suite(tmp_path, b"\n\n"))
