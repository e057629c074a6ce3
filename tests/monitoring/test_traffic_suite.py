"""`sluice suite sample`: prompts of live traffic, masked and each once, become a suite."""

import json
from pathlib import Path
from typing import Any

import pytest

from sluice.model.evaluation.suites.suite import load_suite
from sluice.monitoring.traffic.files import write_records
from sluice.pipelines.cli import main


@pytest.fixture
def traffic(tmp_path: Path, make_traffic: Any) -> Path:
    """Twenty prompts, each sent five times; replayed, failed and empty ones; and one with an address."""
    folder = tmp_path / "traffic"
    prompts = [f"How does part {number} work?" for number in range(20)] + ["Mail jane.roe@company.com now."]
    records = [
        record
        for seed, text in enumerate(prompts)
        for record in make_traffic(5, seed=seed, prefix=f"p{seed}", prompt_text=text)
    ]
    records += make_traffic(3, seed=90, prefix="replay", prompt_text="replayed", source="replay")
    records += make_traffic(3, seed=91, prefix="failed", prompt_text="failed", error_share=1.0)
    records += make_traffic(3, seed=92, prefix="empty", prompt_text=" ")
    assert write_records(folder, "2026092110", "7", records) == ""
    return folder


def questions(path: Path) -> list[str]:
    return [sample.fields["question"] for sample in load_suite(path).samples]


def test_distinct_live_prompts_are_drawn_masked(
    traffic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "suites" / "traffic.yaml"
    assert main(["suite", "sample", "--traffic", str(traffic), "--out", str(out), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["samples"], said["distinct"], said["records"]) == (21, 21, 114)
    drawn = questions(out)
    assert "Mail <EMAIL> now." in drawn and len(set(drawn)) == 21
    assert not {"replayed", "failed"} & set(drawn)
    assert load_suite(out).settings.scorers == ["reviewed"]


def test_a_folder_that_is_not_there_is_said_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["suite", "sample", "--traffic", "nothere", "--out", str(tmp_path / "s.yaml")]) == 1
    assert "--traffic nothere is no folder: a server's traffic lies in .sluice/traffic" in capsys.readouterr().err


def test_the_draw_follows_the_texts_and_the_seed_alone(traffic: Path, tmp_path: Path, make_traffic: Any) -> None:
    def draw(name: str, *more: str) -> list[str]:
        out = tmp_path / f"{name}.yaml"
        assert main(["suite", "sample", "--traffic", str(traffic), "--out", str(out), "--samples", "8", *more]) == 0
        return questions(out)

    first = draw("one")
    assert len(first) == 8 and draw("two") == first != draw("three", "--seed", "5")
    write_records(traffic, "2026092111", "8", make_traffic(9, seed=99, prefix="new", prompt_text=first[0]))
    assert draw("one") == first
    write_records(traffic, "2026092112", "8", make_traffic(1, seed=100, prefix="newer", prompt_text="Another?"))
    assert len(set(draw("one")) & set(first)) >= 7


@pytest.mark.parametrize("content", ["name: own\nsource: written for this project\n", "- a\n", "{", ""])
def test_a_suite_that_was_not_drawn_from_traffic_is_kept(
    traffic: Path, tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "arithmetic.yaml"
    out.write_text(content)
    assert main(["suite", "sample", "--traffic", str(traffic), "--out", str(out)]) == 1
    assert "was not drawn from traffic: name another file by --out, or remove it" in capsys.readouterr().err
    assert out.read_text() == content and not list(tmp_path.glob("arithmetic-*.jsonl"))


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--traffic", "empty", "--out", "a.yaml"], "no prompt among 0 answered live requests"),
        (["--traffic", "empty", "--out", "a.txt"], "name a .yaml file"),
        (["--traffic", "empty", "--out", "My suite.yaml"], "name a .yaml file"),
        (["--traffic", "empty", "--out", "a.yaml", "--samples", "0"], "draw at least one"),
    ],
)
def test_a_mistake_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    reason: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert main(["suite", "sample", *arguments]) == 1
    assert reason in (said := capsys.readouterr().err) and said.count("\n") == 1
    assert list(tmp_path.iterdir()) == [tmp_path / "empty"]
