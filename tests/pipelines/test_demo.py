"""`sluice demo canary`: its table and its refusals; the demo itself runs for minutes."""

import subprocess
import sys
from pathlib import Path

import pytest
from ports import free_port

from sluice.pipelines.cli import main
from sluice.pipelines.demo import CAPITALS, DemoResult, challengers, passage, replayed_prompts, summary


def test_the_table_has_a_row_for_each_challenger() -> None:
    results = [
        DemoResult("2", "fails", "dropped", "dropped", "errors", 12.4, 40, 0, 0),
        DemoResult("3", "good", "promoted", "promoted", "better", 61.0, 220, 1, 57),
    ]
    assert summary(results) == [
        "version  challenger  outcome   expected  seconds  users answered  failed  by challenger",
        "v2       fails       dropped   dropped   12       40              0       0",
        "v3       good        promoted  promoted  61       220             1       57",
    ]


def test_every_fact_has_a_passage_and_a_prompt_that_begins_it() -> None:
    assert [each.expected for each in challengers()].count("promoted") == 1
    for prompt, (country, capital) in zip(replayed_prompts(), CAPITALS.items(), strict=True):
        assert passage(country).startswith(f"{prompt} is {capital}.")


def test_a_folder_with_files_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("kept")
    assert main(["demo", "canary", "--keep", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"sluice demo canary: {tmp_path} is not empty: name an empty folder for --keep\n"


@pytest.mark.matrix
def test_the_good_version_wins_and_the_bad_ones_lose(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sluice.pipelines.cli", "demo", "canary", "--port", str(free_port())]
    done = subprocess.run([*command, "--keep", str(tmp_path / "demo")], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "as expected: the good version serves, and no user's request failed" in done.stdout
