"""`sluice train`: what it refuses, what it reads, what it tells, and runs of a tiny model on a plain text."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from train_fixtures import TINY, run_json

from sluice.components.events import EventProgress, read_events
from sluice.components.workspace import Workspace
from sluice.core.mlflow_artifacts import artifact_files
from sluice.core.progress import Note
from sluice.model.architecture.config import TransformerConfig
from sluice.model.planner.parameters import count_parameters
from sluice.pipelines.cli import main
from sluice.pipelines.progress_view import Followed
from sluice.pipelines.terminal import BarView, LineView, NoteView
from sluice.pipelines.train_request import open_tokens, read_request, restore_request


@pytest.fixture(autouse=True)
def workspace(empty_workspace: Workspace) -> Workspace:
    return empty_workspace


def test_the_preset_is_the_public_recipes_size(workspace: Workspace, text: Path) -> None:
    request = read_request(workspace, ["experiment=shakespeare-char-cpu", f"data.path={text}"])
    config = request.pretrain
    # nanoGPT's: 2000 iterations of 12 x 64 characters, 4 layers of 128.
    assert config.steps * config.batch_size * request.model.context == 2000 * 12 * 64
    assert (request.model.layers, request.model.hidden_size, request.model.dropout) == (4, 128, 0)
    # Over its 65 characters nanoGPT's model has 804,096; ours has the end of text besides.
    parameters = count_parameters(TransformerConfig.from_settings(request.model, 66)).total
    assert 0.98 * 804_096 < parameters <= 804_096
    assert (request.text.tokenizer, request.text.valid_fraction) == ("character", 0.1)
    assert request.text.path == str(text)
    # The whole held-out tenth, of tiny Shakespeare at least.
    assert config.validation_batches * config.batch_size * request.model.context > 1_115_394 // 10


def test_a_request_survives_its_file(workspace: Workspace, text: Path) -> None:
    request = read_request(workspace, [*TINY, f"data.path={text}"])
    assert restore_request(json.loads(json.dumps(request.settings()))) == request


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("refine.min_words=3", "'refine.min_words=3' has no effect on training alone"),
        ("tokenizer.vocab_size=500", "no tokenizer is trained here but for text.tokenizer=bpe"),
        ("text.path=x", "name what to train on by data.path"),
        ("text.tokenizer=words", "text.tokenizer"),
        ("experiment=nope", "experiment=nope: allowed are"),
        ("pretrain.stepz=1", "did you mean 'pretrain.steps'"),
        ("pretrain.steps=0", "pretrain.steps"),
    ],
)
def test_a_setting_without_effect_is_refused(
    refused: Callable[..., str], text: Path, tmp_path: Path, override: str, reason: str
) -> None:
    said = refused("train", *TINY, f"data.path={text}", override, "--out", str(tmp_path / "out"))
    assert reason in said
    assert not (tmp_path / "out").exists()


def test_what_is_missing_is_named(refused: Callable[..., str], text: Path, tmp_path: Path) -> None:
    assert "--out DIR" in refused("train", f"data.path={text}")
    assert "nothing to train on" in refused("train", "--out", str(tmp_path / "out"))
    assert "is no file" in refused("train", *TINY, "data.path=nowhere.txt", "--out", str(tmp_path / "out"))
    assert "without index.json" in refused("train", f"data.path={tmp_path}", "--out", str(tmp_path / "out"))
    assert "is given 2 times" in refused("train", "data.path=a", "data.path=b", "--out", str(tmp_path / "out"))
    assert "there is no train.json" in refused("train", "--resume", str(tmp_path))
    assert "leave out --out" in refused("train", "--resume", str(tmp_path), "--out", str(tmp_path / "out"))
    assert "no effect on packed tokens" in refused(
        "train", "text.tokenizer=byte", f"data.path={tmp_path}", "--out", str(tmp_path / "out")
    )


def test_a_preset_of_training_alone_is_no_lifecycle(refused: Callable[..., str]) -> None:
    assert "unknown key 'text'" in refused("run", "experiment=shakespeare-char-cpu")


def test_a_packed_folder_is_read_with_the_tokenizer_beside_it(workspace: Workspace, text: Path, tmp_path: Path) -> None:
    made = open_tokens(workspace, read_request(workspace, [*TINY, f"data.path={text}"]), tmp_path / "first")
    overrides = [each for each in TINY if not each.startswith("experiment")]
    request = read_request(workspace, ["profile=tiny", *overrides, "pretrain.workers=1", f"data.path={made.tokens}"])
    assert open_tokens(workspace, request, tmp_path / "second") == made
    (made.tokenizer / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"no tokenizer\.json"):
        open_tokens(workspace, request, tmp_path / "second")


@pytest.mark.process
def test_a_text_is_trained_on_and_the_run_can_be_taken_up(
    capsys: pytest.CaptureFixture[str], refused: Callable[..., str], text: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    found = run_json(capsys, "train", *TINY, f"data.path={text}", "--out", str(out))
    assert found["tokens"] == 6 * 4 * 16
    # A character is a byte here.
    assert found["bits_per_byte"] == pytest.approx(found["validation_loss"] / 0.6931471805599453, rel=1e-3)
    assert 0 < found["train_loss"] < 5
    assert 0 < found["mfu"] < 1 and found["tokens_per_second"] > 0 and found["seconds"] > 0
    assert (out / "loss.svg").is_file() and (out / "model" / "model.safetensors").is_file()
    assert json.loads((out / "report.json").read_text()) == found
    assert found["sample"] and (out / "sample.txt").read_text() == found["sample"]
    other = refused("train", *TINY, "pretrain.seed=9", f"data.path={text}", "--out", str(out))
    assert "other settings, pretrain.seed 1234 there and 9 here: name another folder" in other
    # The text is no longer needed; the last checkpoint is the end of the run.
    text.unlink()
    # What was measured stays.
    written = (out / "report.json").read_bytes()
    described = (out / "train.json").read_bytes()
    assert run_json(capsys, "train", "--resume", str(out), "pretrain.zero_stage=3") == found
    assert (out / "report.json").read_bytes() == written
    # A layout that trained nothing is not what made the model.
    assert (out / "train.json").read_bytes() == described
    (out / "model" / "model.safetensors").unlink()
    again = run_json(capsys, "train", "--resume", str(out))
    assert again["timings"]["resumed_step"] == 6
    assert (again["train_loss"], again["validation_loss"]) == (found["train_loss"], found["validation_loss"])

    said = refused("train", "--resume", str(out), "pretrain.seed=9")
    assert "'pretrain.seed=9' would make the resumed run another one: what may change are pretrain.steps, " in said
    assert "--resume" not in refused("train", "--resume", str(out), "pretrain.dtype=bf16")
    assert "zero_stage=7" in refused("train", "--resume", str(out), "pretrain.zero_stage=7")
    assert "offload all is not supported with zero_stage 0" in refused(
        "train", "--resume", str(out), "pretrain.offload=all"
    )
    whole = _losses(out)
    [last] = out.glob("checkpoints/*/step-00000006")
    shutil.rmtree(last)
    (out / "report.json").unlink()
    other = run_json(capsys, "train", "--resume", str(out), "pretrain.zero_stage=3", "pretrain.micro_batch_size=2")
    assert other["timings"]["resumed_step"] == 3
    assert _losses(out) == pytest.approx(whole, abs=1e-5)
    assert json.loads((out / "train.json").read_text())["pretrain"]["zero_stage"] == 3


@pytest.mark.process
def test_mlflow_has_the_whole_run_and_how_it_ended(
    capsys: pytest.CaptureFixture[str],
    refused: Callable[..., str],
    workspace: Workspace,
    text: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from mlflow.tracking import MlflowClient

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    out = tmp_path / "out"
    arguments = ("train", *TINY, f"data.path={text}", "--mlflow")
    found = run_json(capsys, *arguments, "pretrain.metrics_every=2", "--out", str(out))
    too_fast = ("pretrain.learning_rate=1e30", "pretrain.gradient_clip=1", "--out", str(tmp_path / "broken"))
    assert "lower the learning rate" in refused(*arguments, *too_fast)

    client = MlflowClient(workspace.database_url)
    experiment = client.get_experiment_by_name("training")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert {name: run.info.status for name, run in runs.items()} == {"out": "FINISHED", "broken": "FAILED"}
    assert runs["broken"].data.params["pretrain.learning_rate"] == "1e+30"
    done = runs["out"]
    assert (done.data.params["pretrain.steps"], done.data.params["model.hidden_size"]) == ("6", "16")
    assert done.data.metrics["bits_per_byte"] == pytest.approx(found["bits_per_byte"])

    rows = [json.loads(line) for line in (out / "model" / "training.jsonl").read_text().splitlines()]
    for name in ("loss", "learning_rate", "gradient_norm", "gradient_norms/embedding", "speed/tokens_per_second"):
        # The last value of a name that the result has too stands at step 0.
        logged = {each.step: each.value for each in client.get_metric_history(done.info.run_id, name)}
        assert set(logged) == set(range(2, 7, 2) if "/" in name else range(1, 7)), name
        if "/" not in name:
            assert logged == {row["step"]: row[name] for row in rows if name in row}
    held = {each.step: each.value for each in client.get_metric_history(done.info.run_id, "validation_loss")}
    assert held.items() >= {row["step"]: row["validation_loss"] for row in rows if "validation_loss" in row}.items()
    assert {3, 6} <= set(held)
    for run in runs.values():
        # Shorter than an interval of MLflow's sampling.
        machine = {name: value for name, value in run.data.metrics.items() if name.startswith("system/")}
        assert machine["system/system_memory_usage_megabytes"] > 0
        assert {"system/cpu_utilization_percentage", "system/disk_usage_percentage"} <= set(machine)

    assert done.info.artifact_uri == f"mlflow-artifacts:/training/{done.info.run_id}/artifacts", "no absolute path"
    files = artifact_files(done.info.artifact_uri, workspace.registry_artifacts, workspace.database_url)
    for name in ("loss.svg", "sample.txt", "train.json"):
        kept = Path(files.download_artifacts(name))
        assert kept.is_relative_to(workspace.state) and kept.read_bytes() == (out / name).read_bytes()
    assert not list(elsewhere.iterdir()), "no store is begun where the user happens to stand"


def test_progress_of_training_has_the_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # A progress of the same moment is told from the one before by the pace of events.
    monkeypatch.setattr("sluice.components.events._SECONDS_BETWEEN", 0.0)
    times = iter([50.0, 60.0, 70.0])
    monkeypatch.setattr(
        "sluice.components.events.time", SimpleNamespace(time=lambda: next(times), monotonic=lambda: 0.0)
    )
    ends = iter([0.0, 100.0])
    monkeypatch.setattr("sluice.pipelines.progress_view.time", SimpleNamespace(time=lambda: next(ends)))
    with Followed("train", tmp_path / "events.jsonl", LineView()) as progress:
        for done in (0, 10, 20):
            progress(done, 50, f"loss {done}")
    assert capsys.readouterr().out.splitlines() == [
        "train      started",
        "train      0/50 loss 0",
        "train      10/50 loss 10, about 40 s left",
        "train      20/50 loss 20, about 30 s left",
        "train      done in 100.0 s",
    ]


_TELLS = """
import pickle, sys
progress, note = pickle.loads(bytes.fromhex(sys.argv[1]))
progress(1, 9, "loss 3.0")
progress(1, 9, note)
"""


@pytest.mark.process
def test_what_another_process_says_is_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, root: Path
) -> None:
    """Ray's workers print into a log of their own."""
    monkeypatch.setattr(LineView, "seconds_between", 3600.0)
    events = tmp_path / "events.jsonl"
    events.write_text('{"step": "train", "kind": "note", "time": 0, "message": "of an earlier run"}\n')
    for view in (LineView(), NoteView()):
        with Followed("train", events, view) as progress:
            said = pickle.dumps((progress, Note("resumes from step 3"))).hex()
            subprocess.run([sys.executable, "-c", _TELLS, said], cwd=root, timeout=600, check=True)
        assert not events.exists()
    shown = capsys.readouterr()
    assert [line for line in shown.out.splitlines() if " in " not in line] == [
        "train      started",
        "train      resumes from step 3",
    ]
    assert shown.err == "train      resumes from step 3\n"


def test_a_note_is_said_whatever_has_just_been_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sluice.components.events.time", SimpleNamespace(time=lambda: 0.0, monotonic=lambda: 1000.0))
    progress = EventProgress("train", str(tmp_path / "events.jsonl"))
    for note in ("loss 3", Note("one"), Note("two"), "loss 2"):
        progress(1, 9, note)
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [each.get("message", each.get("note")) for each in events] == ["loss 3", "one", "two"]


def test_notes_stay_above_the_bar(capsys: pytest.CaptureFixture[str]) -> None:
    view, event = BarView(("train",)), {"step": "train", "time": 0.0}
    for message in ("checkpoint of step [18] is damaged", "resumes from step 15"):
        view.show({**event, "kind": "note", "message": message})
    view.show({**event, "kind": "progress", "done": 16, "total": 30, "note": "loss 3"})
    view.close()
    shown = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert {"train checkpoint of step [18] is damaged", "train resumes from step 15"} <= set(shown)


class _Gone:
    """A view whose reader has gone."""

    closed = False

    def show(self, event: dict[str, Any]) -> None:
        if event["kind"] != "start":
            raise BrokenPipeError

    def close(self) -> None:
        self.closed = True


def test_a_reader_that_goes_away_costs_a_step_nothing(tmp_path: Path) -> None:
    events = tmp_path / "events.jsonl"
    view = _Gone()
    with Followed("train", events, view) as progress:
        progress(1, 9, Note("resumes from step 3"))
    assert view.closed and not events.exists()
    with pytest.raises(KeyError), Followed("train", events, _Gone()):
        raise KeyError


def test_what_cannot_be_told_ends_nothing(tmp_path: Path) -> None:
    events = tmp_path / "folder" / "events.jsonl"
    progress = EventProgress("train", str(events))
    progress(1, 9, Note("lost"))
    progress(9, 9, "lost")
    events.parent.mkdir()
    # .. and what can be again is told.
    progress(9, 9, Note("told"))
    assert [each["message"] for each in read_events(events)] == ["told"]


_ENDED_AFTER_A_STEP = """
import os, signal, sys
from sluice.components.events import EventProgress
from sluice.pipelines.cli import main

def tell(self, done, total, note):
    if done == 1:
        os.kill(os.getpid(), signal.SIGTERM)

EventProgress.__call__ = tell
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.process
def test_sigterm_saves_the_step_in_hand_and_says_how_to_go_on(
    capsys: pytest.CaptureFixture[str], text: Path, tmp_path: Path, root: Path
) -> None:
    out = tmp_path / "out"
    rare = "pretrain.checkpoint_every=1000000"
    arguments = [
        "train",
        *(each for each in TINY if "checkpoint_every" not in each),
        rare,
        f"data.path={text}",
        "--out",
        str(out),
    ]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment |= {"PYTHONPATH": str(root)}
    command = [sys.executable, "-c", _ENDED_AFTER_A_STEP, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 130, done.stderr
    assert done.stderr.splitlines()[-1] == (
        "sluice train: interrupted: stopped on request after step 2 of 6; it is saved; "
        f"`sluice train --resume {out}` resumes from there"
    )
    # Checkpoints are due after the end alone.
    assert [path.name for path in out.glob("checkpoints/*/step-*")] == ["step-00000002"]
    assert not (out / "model").exists()
    assert run_json(capsys, "train", "--resume", str(out))["timings"]["resumed_step"] == 2


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("pretrain.dtype=fp16", "dtype fp16 needs CUDA"),
        ("pretrain.max_epochs=0.01", "epochs of the training text, more than pretrain.max_epochs 0.01"),
        ("pretrain.decay_from=nowhere", "nowhere is not a checkpoint to resume from"),
    ],
)
def test_a_run_that_cannot_be_is_refused_with_its_reason(
    refused: Callable[..., str], text: Path, tmp_path: Path, override: str, reason: str
) -> None:
    out = tmp_path / "out"
    assert reason in refused("train", *TINY, f"data.path={text}", override, "--out", str(out))
    assert not list(out.glob("checkpoints/*/step-*"))
    # .. and does not stand in the way of what can be.
    assert main(["train", *TINY, f"data.path={text}", "--out", str(out)]) == 0


def test_torchrun_has_a_command_of_its_own(
    refused: Callable[..., str], text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    said = refused("train", *TINY, f"data.path={text}", "--out", str(tmp_path / "out"))
    assert "-m sluice.model.training.pretrain" in said


def _losses(out: Path) -> list[float]:
    rows = [json.loads(line) for line in (out / "model" / "training.jsonl").read_text().splitlines()]
    found = [row["loss"] for row in rows if "loss" in row]
    assert len(found) in {6, 9}
    return found
