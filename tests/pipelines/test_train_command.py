"""`sluice train` and its neighbours: what they refuse, what they read, and runs of a tiny model on a plain text."""

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

from sluice.components.events import EventProgress, read_events
from sluice.components.workspace import Workspace
from sluice.core.progress import Note
from sluice.model.architecture.config import TransformerConfig
from sluice.model.planner.parameters import count_parameters
from sluice.model.training.checkpointing import lock
from sluice.pipelines.cli import main
from sluice.pipelines.progress_view import Followed
from sluice.pipelines.terminal import BarView, LineView, NoteView
from sluice.pipelines.train_request import open_tokens, read_request, read_trial, restore_request
from sluice.pipelines.train_run import how_to_go_on

TEXT = "To be, or not to be: that is the question.\nWhether 'tis nobler in the mind to suffer\n" * 60
TINY = (
    *("experiment=shakespeare-char-cpu", "model.hidden_size=16", "model.layers=1", "model.heads=2", "model.kv_heads=2"),
    *("model.pattern=null", "model.state_space=null", "model.state_space_feedforward=false"),
    *("model.intermediate_size=null", "model.intermediate_multiple=1"),
    *("model.context=16", "pretrain.optimizer=adamw", "pretrain.steps=6", "pretrain.batch_size=4"),
    *("pretrain.micro_batch_size=4", "pretrain.warmup_steps=2", "pretrain.validate_every=3"),
    *("pretrain.validation_batches=4", "pretrain.checkpoint_every=3"),
)


@pytest.fixture(autouse=True)
def workspace(empty_workspace: Workspace) -> Workspace:
    return empty_workspace


@pytest.fixture
def text(tmp_path: Path) -> Path:
    # A name that Hydra's grammar would take apart.
    path = tmp_path / "my text, [1]=a.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def run(*arguments: str) -> str:
        assert main(list(arguments)) == 1
        said = capsys.readouterr().err
        assert said.startswith(f"sluice {arguments[0]}: ") and said.count("\n") == 1
        return said

    return run


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
    found = _json(capsys, "train", *TINY, f"data.path={text}", "--out", str(out))
    assert found["tokens"] == 6 * 4 * 16
    # A character is a byte here.
    assert found["bits_per_byte"] == pytest.approx(found["validation_loss"] / 0.6931471805599453, rel=1e-3)
    assert 0 < found["train_loss"] < 5
    assert 0 < found["mfu"] < 1 and found["tokens_per_second"] > 0 and found["seconds"] > 0
    assert (out / "loss.svg").is_file() and (out / "model" / "model.safetensors").is_file()
    assert json.loads((out / "report.json").read_text()) == found
    assert found["sample"] and (out / "sample.txt").read_text() == found["sample"]
    assert "other settings" in refused("train", *TINY, "pretrain.seed=9", f"data.path={text}", "--out", str(out))
    # The text is no longer needed; the last checkpoint is the end of the run.
    text.unlink()
    # What was measured stays.
    written = (out / "report.json").read_bytes()
    described = (out / "train.json").read_bytes()
    assert _json(capsys, "train", "--resume", str(out), "pretrain.zero_stage=3") == found
    assert (out / "report.json").read_bytes() == written
    # A layout that trained nothing is not what made the model.
    assert (out / "train.json").read_bytes() == described
    (out / "model" / "model.safetensors").unlink()
    again = _json(capsys, "train", "--resume", str(out))
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
    other = _json(capsys, "train", "--resume", str(out), "pretrain.zero_stage=3", "pretrain.micro_batch_size=2")
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
    found = _json(capsys, *arguments, "pretrain.metrics_every=2", "--out", str(out))
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

    for name in ("loss.svg", "sample.txt", "train.json"):
        kept = Path(client.download_artifacts(done.info.run_id, name, str(elsewhere)))
        assert kept.read_bytes() == (out / name).read_bytes()
        kept.unlink()
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
    assert [line for line in shown.out.splitlines() if " in " not in line] == ["train      resumes from step 3"]
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
    assert _json(capsys, "train", "--resume", str(out))["timings"]["resumed_step"] == 2


def test_a_profile_and_a_law_of_a_text(capsys: pytest.CaptureFixture[str], text: Path, tmp_path: Path) -> None:
    found = _json(capsys, "profile", *TINY, f"data.path={text}", "--steps", "1", "--out", str(tmp_path / "profile"))
    assert Path(found["trace"]).is_file() and found["operators"]
    wider = [each for each in TINY if "hidden_size" not in each and "heads" not in each]
    sizes = ("model.hidden_size=32", "model.heads=8", "model.kv_heads=8")
    found = _json(
        capsys,
        *("scaling", *wider, *sizes, f"data.path={text}", "--rungs", "3", "--lengths", "2"),
        *("--budget", "1e9", "--out", str(tmp_path / "scaling")),
    )
    assert len(found["runs"]) == 6
    assert found["next"]["flops"] == 1e9
    assert found["next"]["parameters"]["low"] <= found["next"]["parameters"]["high"]
    assert (tmp_path / "scaling" / "scaling.svg").is_file()


def test_a_trial_cuts_its_batches_for_one_process(workspace: Workspace, text: Path) -> None:
    batch = ("pretrain.batch_size=2", "pretrain.micro_batch_size=2")
    two = ("profile=tiny", "pretrain.workers=2", *batch)
    with pytest.raises(ValueError, match="batch_size 2 must be a multiple"):
        read_request(workspace, [*two, f"data.path={text}"])
    request = read_trial(workspace, ["profile=tiny", *batch, f"data.path={text}"])
    assert (request.pretrain.workers, request.pretrain.micro_batch_size) == (1, 2)


def test_numbers_out_of_range_are_refused(refused: Callable[..., str], text: Path, tmp_path: Path) -> None:
    place = (f"data.path={text}", "--out", str(tmp_path / "out"))
    assert "--steps 0" in refused("profile", *TINY, *place, "--steps", "0")
    assert "1 trials compare nothing" in refused("sweep", *TINY, *place, "--trials", "1")
    assert "--at-once 0" in refused("sweep", *TINY, *place, "--at-once", "0")
    assert "trials are plain fp32 runs" in refused("sweep", *TINY, *place, "pretrain.dtype=bf16")
    assert "objective masked is not supported with model.kind decoder" in refused(
        "sweep", *TINY, *place, "pretrain.objective=masked"
    )
    assert "is no file" in refused("sweep", *TINY, "data.path=nowhere.txt", "--out", str(tmp_path / "out"))
    assert "fewer than the 6 runs" in refused("scaling", *TINY, *place, "--rungs", "2", "--lengths", "1")
    assert "above 0 FLOPs" in refused("scaling", *TINY, *place, "--budget", "-1")


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


def test_a_folder_of_another_run_is_not_overwritten(refused: Callable[..., str], text: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    again = ("train", *TINY, f"data.path={text}", "--out", str(out))
    assert main(list(again)) == 0
    model = (out / "model" / "model.safetensors").read_bytes()
    text.write_text(TEXT.replace("be", "Be"))
    assert "holds a run on another text" in refused(*again)
    text.write_text(TEXT)
    [state] = out.glob("checkpoints/*")
    # As another version of the program names it.
    state.rename(state.with_name(f"{'0' * 16}-{'0' * 8}"))
    (out / "report.json").unlink()
    assert f"--out {out}: its checkpoints were made by another version" in refused(*again)
    assert f"--resume {out}: its checkpoints were made by another version" in refused("train", "--resume", str(out))
    assert (out / "model" / "model.safetensors").read_bytes() == model


def test_a_finished_run_is_extended_where_its_schedule_allows_it(
    capsys: pytest.CaptureFixture[str], refused: Callable[..., str], text: Path, tmp_path: Path
) -> None:
    # 6 steps of a constant rate, then 3 more: what 9 at once would have been.
    constant = (*TINY, "pretrain.min_learning_rate_ratio=1", f"data.path={text}")
    out, whole = tmp_path / "out", tmp_path / "whole"
    _json(capsys, "train", *constant, "--out", str(out))
    first = _losses(out)
    found = _json(capsys, "train", "--resume", str(out), "pretrain.steps=9")
    assert (found["steps"], found["timings"]["resumed_step"]) == (9, 6)
    nine = [each for each in constant if each != "pretrain.steps=6"]
    _json(capsys, "train", *nine, "pretrain.steps=9", "--out", str(whole))
    assert _losses(out) == _losses(whole)
    assert _losses(out)[:6] == first
    weights = [(folder / "model" / "model.safetensors").read_bytes() for folder in (out, whole)]
    assert weights[0] == weights[1]
    assert json.loads((out / "train.json").read_text())["pretrain"]["steps"] == 9
    # Once extended it is a run of 9 steps.
    assert _json(capsys, "train", "--resume", str(out)) == found
    said = refused("train", "--resume", str(out), "pretrain.steps=7")
    assert "pretrain.steps=7 does not extend the run, which has 9 steps" in said


def test_a_run_that_fell_is_extended_from_its_plateau_alone(
    capsys: pytest.CaptureFixture[str], refused: Callable[..., str], text: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    _json(capsys, "train", *TINY, "pretrain.schedule=cosine", f"data.path={text}", "--out", str(out))
    model = (out / "model" / "model.safetensors").read_bytes()
    said = refused("train", "--resume", str(out), "pretrain.steps=9")
    assert "pretrain.steps=9 cannot extend this run: with schedule cosine its steps from 3 on depend on their" in said
    assert (out / "model" / "model.safetensors").read_bytes() == model
    assert json.loads((out / "train.json").read_text())["pretrain"]["steps"] == 6
    plateau = tmp_path / "plateau"
    _json(capsys, "train", *TINY, "pretrain.decay_fraction=0.34", f"data.path={text}", "--out", str(plateau))
    found = _json(capsys, "train", "--resume", str(plateau), "pretrain.steps=9")
    assert found["timings"]["resumed_step"] == 3


def test_a_run_gets_a_folder_of_its_own(refused: Callable[..., str], text: Path, tmp_path: Path) -> None:
    others = tmp_path / "others"
    others.mkdir()
    (others / "thesis.tex").write_text("years of work")
    train = ("train", *TINY, f"data.path={text}", "--out")
    assert "holds other files, such as thesis.tex: name a new or an empty folder" in refused(*train, str(others))
    assert [path.name for path in others.iterdir()] == ["thesis.tex"]
    out = tmp_path / "out"
    # Of a train that failed before it wrote anything nothing is left, and an empty folder or a lone lock is free.
    (tmp_path / "latin").write_bytes(b"\xe4" * 900)
    for place in (out, others.parent / "new"):
        assert "no UTF-8" in refused("train", *TINY, f"data.path={tmp_path / 'latin'}", "--out", str(place))
        assert not place.exists()
    out.mkdir()
    (out / "lock").touch()
    assert "no UTF-8" in refused("train", *TINY, f"data.path={tmp_path / 'latin'}", "--out", str(out))
    assert out.is_dir()
    assert main([*train, str(out)]) == 0
    for inside in ("model", "deeper/still"):
        assert f"lies in the run {out}" in refused(*train, str(out / inside))
    assert not (out / "deeper").exists()


def test_a_finished_model_without_checkpoints_is_not_replaced(
    capsys: pytest.CaptureFixture[str], refused: Callable[..., str], text: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    found = _json(capsys, "train", *TINY, f"data.path={text}", "--out", str(out))
    shutil.rmtree(out / "checkpoints")
    again = ("train", *TINY, f"data.path={text}", "--out", str(out))
    assert _json(capsys, *again) == found
    report = json.loads((out / "report.json").read_text())
    # As another version of the program names the run.
    (out / "report.json").write_text(json.dumps({**report, "fingerprint": f"{'0' * 16}-{'0' * 8}"}))
    for arguments in (again, ("train", "--resume", str(out))):
        assert "holds a finished model without checkpoints" in refused(*arguments)


def test_how_to_go_on_counts_this_runs_whole_checkpoints_alone(tmp_path: Path) -> None:
    for folder in (
        "aaaa-1/step-00000003",
        "aaaa-2/step-00000006",
        "aaaa-2/step-00000009.partial",
        "bbbb-1/step-00000900",
    ):
        (tmp_path / "checkpoints" / folder).mkdir(parents=True)
    assert how_to_go_on(tmp_path, "aaaa").endswith("goes on from the checkpoint of step 6")
    assert "no checkpoint was written yet" in how_to_go_on(tmp_path, "cccc")


def test_torchrun_has_a_command_of_its_own(
    refused: Callable[..., str], text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    said = refused("train", *TINY, f"data.path={text}", "--out", str(tmp_path / "out"))
    assert "-m sluice.model.training.pretrain" in said


def test_one_run_at_a_time_in_a_folder(
    refused: Callable[..., str], text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "_PATIENCE_S", 0.0)
    out = tmp_path / "out"
    with lock.locked(out):
        said = refused("train", *TINY, f"data.path={text}", "--out", str(out))
    assert (
        said == f"sluice train: another process trains in {out}: end it, or wait until it has ended, and start again\n"
    )
    assert "cannot be written to" in refused("train", *TINY, f"data.path={text}", "--out", str(text / "below"))


def test_a_checkpoint_set_aside_is_told_of_and_so_is_where_it_goes_on(
    capsys: pytest.CaptureFixture[str], text: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    _json(capsys, "train", *TINY, f"data.path={text}", "--out", str(out))
    (out / "report.json").unlink()
    for step, last in ((6, "resumes from step 3"), (3, "no intact checkpoint is left: the run starts over")):
        for newest in out.glob(f"checkpoints/*/step-{step:08d}"):
            (newest / "log.jsonl").write_text("")
        if step == 3:
            shutil.rmtree(next(out.glob("checkpoints/*/step-00000006")))
            (out / "report.json").unlink()
        assert main(["train", "--resume", str(out)]) == 0
        notes = [line for line in capsys.readouterr().out.splitlines() if "checkpoint" in line or "resumes" in line]
        assert f"checkpoint of step {step} is damaged (log.jsonl has changed since it was written)" in notes[0]
        assert notes[1] == f"train      {last}"


def _losses(out: Path) -> list[float]:
    rows = [json.loads(line) for line in (out / "model" / "training.jsonl").read_text().splitlines()]
    found = [row["loss"] for row in rows if "loss" in row]
    assert len(found) in {6, 9}
    return found


def _json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main([*arguments, "--json"]) == 0, capsys.readouterr().err
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found
