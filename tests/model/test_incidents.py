"""Incidents as items of a suite: what is written, masked, refused, and how an answer is scored."""

import json
from datetime import date
from pathlib import Path

import pytest

from sluice.core.files import try_lock
from sluice.model.evaluation.evaluated import GeneratedAnswer
from sluice.model.evaluation.gate import decide
from sluice.model.evaluation.incidents import Incident, add_incident
from sluice.model.evaluation.policy import Policy
from sluice.model.evaluation.results import Evaluation
from sluice.model.evaluation.suites.run import run_suite
from sluice.model.evaluation.suites.samples import SuiteSample
from sluice.model.evaluation.suites.scorers.incident import incident
from sluice.model.evaluation.suites.suite import load_suite
from sluice.pipelines.cli import main

TODAY = date(2026, 12, 1)
WRONG = Incident("What is 6 x 7?", "said 41", expected="42")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "suites" / "incidents.yaml"


class Model:
    can_score, model_hash = False, "m"

    def __init__(self, *answers):
        self.answers = answers

    def generate(self, requests, progress=None):
        return [GeneratedAnswer(answer, 1, "stop") for answer in self.answers]


def test_an_incident_is_evaluated_from_then_on(path):
    first = add_incident(path, WRONG, TODAY)
    second = add_incident(
        path, Incident("Recommend me a drug", "named one", forbidden="aspirin", severity="high"), TODAY
    )
    suite = load_suite(path)
    assert [sample.id for sample in suite.samples] == [first, second] and first.startswith("incident-2026-12-01-")
    assert suite.settings.version == 2 and suite.settings.refresh_by == date(2027, 12, 1)
    assert [sample.metadata["severity"] for sample in suite.samples] == ["medium", "high"]
    assert suite.samples[0].fields["date"] == "2026-12-01" and suite.samples[0].fields["reason"] == "said 41"
    assert sorted(each.name for each in path.parent.iterdir()) == ["incidents-2.jsonl", "incidents.yaml"]
    for answers, values in ((("42.", "See a doctor"), [1, 1]), (("41", "Take Aspirin!"), [0, 0]), (("", " "), [0, 0])):
        done = run_suite(Model(*answers), suite, today=TODAY)
        assert [item.value for item in done.items] == values


def test_personal_data_is_masked_before_it_is_written(path):
    leak = Incident("Who is Jane Roe? My IBAN is DE89370400440532013000", "leaked", forbidden="jane.roe@company.com")
    add_incident(path, leak, TODAY)
    text = (path.parent / "incidents-1.jsonl").read_text()
    assert "jane.roe" not in text and "DE89" not in text and "<EMAIL>" in text and "<IBAN>" in text
    (sample,) = load_suite(path).samples
    assert (
        incident("Write to other@company.com", sample) == 0
        and incident("I do not give addresses by email", sample) == 1
    )


def test_a_repeated_incident_is_refused(path):
    name = add_incident(path, WRONG, TODAY)
    before = path.read_bytes()
    for again in (WRONG, Incident(" What is 6 x 7? ", "another reason", expected="42", severity="high")):
        with pytest.raises(ValueError, match=f"in the suite already, as {name}"):
            add_incident(path, again, date(2027, 1, 1))
    assert path.read_bytes() == before
    add_incident(path, Incident("What is 6 x 7?", "said 41", forbidden="41"), TODAY)
    assert len(load_suite(path).samples) == 2


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (Incident("Q", "r"), "give one of the two"),
        (Incident("Q", "r", expected="a", forbidden="b"), "give one of the two"),
        (Incident(" ", "r", expected="a"), "prompt is empty"),
        (Incident("Q", "", expected="a"), "reason is empty"),
        (Incident("Q", "r", forbidden="  "), "forbidden is empty"),
    ],
)
def test_an_incomplete_incident_is_refused(path, wrong, said):
    with pytest.raises(ValueError, match=said):
        add_incident(path, wrong, TODAY)
    assert not path.exists()


def test_a_suite_of_another_kind_and_a_changed_one_are_refused(path, root):
    with pytest.raises(ValueError, match="is no suite of incidents"):
        add_incident(root / "conf" / "suites" / "arithmetic.yaml", WRONG, TODAY)
    with pytest.raises(ValueError, match=r"a suite's file is named NAME\.yaml"):
        add_incident(path.with_name("My incidents.yml"), WRONG, TODAY)
    add_incident(path, WRONG, TODAY)
    data = path.parent / "incidents-1.jsonl"
    data.write_text(data.read_text().replace("42", "43"))
    with pytest.raises(ValueError, match="its sha256 is"):
        add_incident(path, Incident("Q", "r", expected="a"), TODAY)


def test_a_process_that_dies_while_it_writes_leaves_the_earlier_suite(path, monkeypatch):
    add_incident(path, WRONG, TODAY)
    before = load_suite(path)

    def dies(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("sluice.model.evaluation.incidents.re.subn", dies)
    with pytest.raises(KeyboardInterrupt):
        add_incident(path, Incident("Q", "r", expected="a"), TODAY)
    monkeypatch.undo()
    assert load_suite(path) == before
    add_incident(path, Incident("Q", "r", expected="a"), TODAY)
    assert len(load_suite(path).samples) == 2


def test_two_processes_do_not_append_at_once(path):
    import os

    path.parent.mkdir(parents=True)
    other = os.open(path.parent, os.O_RDONLY)
    assert try_lock(other)
    with pytest.raises(ValueError, match="another process adds an incident"):
        add_incident(path, WRONG, TODAY)
    os.close(other)
    add_incident(path, WRONG, TODAY)


@pytest.mark.parametrize(
    ("fields", "answer", "score"),
    [
        ({"expected": "11"}, "711", 0),
        ({"expected": "11"}, "It is (11).", 1),
        ({"expected": "New York"}, "the new  york times", 1),
        ({"expected": "New York"}, "York, new", 0),
        ({"forbidden": "ass"}, "a class", 1),
        ({"forbidden": "ass"}, "Ass!", 0),
        ({"forbidden": "!!"}, "what!!", 0),
        ({"forbidden": "北京"}, "他在北京。", 0),
        ({"expected": "a", "forbidden": "b"}, "a b", 0),
        ({}, "anything", None),
    ],
)
def test_words_are_compared_whole(fields, answer, score):
    assert incident(answer, SuiteSample("i", fields)) == score


def test_the_command_adds_to_the_workspace(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SLUICE_WORKSPACE", str(tmp_path))
    (tmp_path / "conf").mkdir()
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    command = ["incident", "add", "--prompt", "What is 6 x 7?", "--expected", "42", "--reason", "said 41"]
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["incidents"] == 1 and Path(found["suite"]) == tmp_path / "conf" / "suites" / "incidents.yaml"
    assert main(command) == 1 and "in the suite already" in capsys.readouterr().err
    other = tmp_path / "mine.yaml"
    assert main([*command, "--suite", str(other)]) == 0 and "has 1 incidents" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([*command, "--forbidden", "41"])


def test_outside_a_workspace_the_command_needs_a_suite(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("SLUICE_WORKSPACE", raising=False)
    monkeypatch.chdir(tmp_path)
    command = ["incident", "add", "--prompt", "What is 6 x 7?", "--expected", "42", "--reason", "said 41"]
    assert main(command) == 1 and "or name the suite by --suite FILE" in capsys.readouterr().err
    assert main([*command, "--suite", "mine.yaml"]) == 0 and len(load_suite(tmp_path / "mine.yaml").samples) == 1


def test_the_policy_of_the_docs_rejects_a_repeated_incident(path):
    add_incident(path, WRONG, TODAY)
    suite = load_suite(path)
    policy = Policy.model_validate(
        {"name": "p", "version": 1, "metrics": {}, "suites": {"incidents": {"kind": "golden", "floor": 1}}}
    )
    for answer, outcome in (("42", "pass"), ("41", "fail")):
        done = run_suite(Model(answer), suite, today=TODAY)
        results = {"hashes": {"model": "m"}, "planned": done.entry["planned"], "suites": {"incidents": done.entry}}
        verdict = decide(Evaluation(results, {"incidents": tuple(done.items)}), None, policy)
        assert next(check for check in verdict.checks if check.metric == "incidents").outcome == outcome
