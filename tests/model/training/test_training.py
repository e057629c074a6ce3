"""The loop and `pretrain` in this process, and one run through Ray Train."""

import math
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_fixtures import MODEL, training_rows

from sluice.core.progress import no_progress
from sluice.model.architecture.config import ModelConfig, TransformerConfig
from sluice.model.architecture.initialization import initialize
from sluice.model.architecture.transformer import Transformer
from sluice.model.config import PretrainConfig
from sluice.model.directory import load_model
from sluice.model.training import worker
from sluice.model.training.batches.batch import Batch
from sluice.model.training.engines.engine import StepOutcome
from sluice.model.training.engines.local import LocalEngine
from sluice.model.training.errors import TrainingFailed
from sluice.model.training.faults.watchdog import Watchdog
from sluice.model.training.loop import LoopClock, LoopHooks, optimizer_step, train
from sluice.model.training.optimization.optimizer import build_optimizer
from sluice.model.training.pretrain import PretrainReport, pretrain, run_fingerprint, same_runs

SMALL: dict[str, Any] = {
    "workers": 1,
    "steps": 30,
    "batch_size": 8,
    "micro_batch_size": 8,
    "learning_rate": 0.01,
    "warmup_steps": 3,
    "checkpoint_every": 10,
    "keep_checkpoints": 1,
    "keep_every": 20,
    "validate_every": 15,
    "validation_batches": 2,
}
SHAPE = TransformerConfig(
    vocab_size=50, hidden_size=32, layers=2, heads=2, kv_heads=1, intermediate_size=64, context=16
)


GOLDEN_LOSSES = [3.921025, 3.628255, 3.467835, 3.282859, 3.05515]


def local_engine(seed: int = 0, learning_rate: float = 0.01) -> LocalEngine:
    model = Transformer(SHAPE)
    initialize(model, seed)
    return LocalEngine(model, build_optimizer(model, PretrainConfig(learning_rate=learning_rate)))


def random_batch(seed: int = 0, rows: int = 4) -> Batch:
    ids = torch.randint(50, (rows, 17), generator=torch.Generator().manual_seed(seed))
    return Batch(ids[:, :-1], ids[:, 1:])


def loop_over(batch: Batch, steps: int, rows: int = 4) -> LoopHooks:
    return LoopHooks(steps=steps, micro_batch_size=rows, learning_rate_scale=lambda _: 1.0, batch=lambda _: batch)


def losses_of(rows: list[dict[str, Any]]) -> list[float]:
    return [row["loss"] for row in rows if "loss" in row]


def test_one_batch_can_be_learned_by_heart() -> None:
    log = train(local_engine(), loop_over(random_batch(), 60), done=0, log=[], progress=no_progress, clock=LoopClock())
    losses = losses_of(log)
    assert losses[0] == pytest.approx(3.9, abs=0.1)  # ln 50: before training every token is as likely
    assert losses[-1] < 0.1


def test_golden_run() -> None:
    """A change here is a change of what is computed: a refactoring must not make one."""
    log = train(local_engine(), loop_over(random_batch(), 5), done=0, log=[], progress=no_progress, clock=LoopClock())
    assert losses_of(log) == pytest.approx(GOLDEN_LOSSES, abs=2e-5)


def test_masked_targets_change_nothing() -> None:
    batch = random_batch()
    mask = torch.rand(batch.ids.shape, generator=torch.Generator().manual_seed(1)) < 0.5
    other = batch.targets.masked_fill(~mask, 7)
    results = []
    for targets in (batch.targets, other):
        engine = local_engine()
        record = optimizer_step(engine, loop_over(Batch(batch.ids, targets, mask), 1, rows=4), 0)
        assert record.tokens == int(mask.sum())
        results.append((record.loss, [parameter.detach().clone() for parameter in engine.model.parameters()]))
    assert results[0][0] == results[1][0]
    assert all(torch.equal(a, b) for a, b in zip(results[0][1], results[1][1], strict=True))


def test_micro_batches_add_up_to_the_batch() -> None:
    batch = random_batch(rows=8)
    mask = torch.rand(8, 16, generator=torch.Generator().manual_seed(1)) < torch.linspace(0.05, 0.9, 8)[:, None]
    whole = Batch(batch.ids, batch.targets, mask)
    results = [optimizer_step(local_engine(), loop_over(whole, 1, rows=rows), 0).loss for rows in (8, 2, 3)]
    assert results[1:] == pytest.approx([results[0]] * 2, abs=1e-6)


def test_a_loss_that_is_not_finite_ends_the_run_before_it_reaches_the_weights() -> None:
    engine = local_engine()
    bad, good = random_batch(1), random_batch(0)

    def batch(step: int) -> Batch:
        if step == 3:
            with torch.no_grad():
                engine.model.layers[0].attention_norm.weight[0] = float("nan")  # type: ignore[union-attr, index]
        return bad if step == 3 else good

    hooks = LoopHooks(steps=9, micro_batch_size=4, learning_rate_scale=lambda _: 1.0, batch=batch)
    with pytest.raises(TrainingFailed, match="the loss is nan at step 4"):
        train(engine, hooks, done=0, log=[], progress=no_progress, clock=LoopClock())
    assert torch.isfinite(engine.model.layers[1].feedforward.down.weight).all()  # type: ignore[union-attr, index]


class Overflowing(LocalEngine):
    """As with fp16: the first step is left out, since the loss scale is too large."""

    left_out = False

    def gradient_norm(self) -> float:
        return super().gradient_norm() if self.left_out else math.inf

    def step(self) -> StepOutcome:
        if self.left_out:
            return super().step()
        self.left_out = True
        self.discard()
        return StepOutcome.SCALED_DOWN


def test_a_loss_scale_that_is_lowered_leaves_a_step_out_and_says_so() -> None:
    plain = local_engine()
    engine = Overflowing(plain.model, plain.optimizer)
    hooks = replace(loop_over(random_batch(), 3), observe=lambda record: {"norm_asked": record.gradient_norm})
    first, second, _ = log = train(engine, hooks, done=0, log=[], progress=no_progress, clock=LoopClock())
    assert first["skipped"] == "the gradient overflowed: the loss scale is lowered"
    assert first["norm_asked"] is None and second["gradient_norm"] > 0
    # Nothing moved.
    assert second["loss"] == first["loss"] > log[2]["loss"]
    assert not any("skipped" in row for row in log[1:])


def test_speed_counts_what_is_read_and_the_loss_what_counts() -> None:
    whole = random_batch()
    half = replace(whole, mask=torch.arange(16).expand(4, -1) < 4)
    record = optimizer_step(local_engine(), loop_over(half, 1), 0)
    assert (record.tokens, record.read) == (16, 64)
    clock = LoopClock()
    train(local_engine(), loop_over(half, 2), done=0, log=[], progress=no_progress, clock=clock)
    assert clock.tokens == 128


def pretrain_in(
    folder: Path, corpus: Path, settings: dict[str, Any], model: dict[str, Any] | None = None, **kwargs: Any
) -> PretrainReport:
    (folder / "out").mkdir(parents=True, exist_ok=True)
    return pretrain(
        PretrainConfig(**settings),
        ModelConfig(**{**MODEL, **(model or {})}),
        corpus / "pack",
        corpus / "tokenizer",
        folder / "out",
        folder / "checkpoints",
        **kwargs,
    )


@pytest.fixture(scope="module")
def trained(packed_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PretrainReport]:
    folder = tmp_path_factory.mktemp("pretrain")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        return folder, pretrain_in(folder, packed_corpus, SMALL)


def test_pretrain_writes_a_model_that_learned(trained: tuple[Path, PretrainReport]) -> None:
    folder, report = trained
    model, tokenizer = load_model(folder / "out")
    assert report.parameters == sum(each.numel() for each in model.parameters())
    assert report.tokens == 30 * 8 * 32
    assert model.config.vocab_size == tokenizer.get_vocab_size()
    losses = losses_of(training_rows(folder))
    assert report.final_loss == losses[-1] < losses[0] - 1
    assert 0 < report.validation_bits_per_byte < 4
    assert report.timings["tokens_per_second"] > 0


def test_milestones_stay_beside_the_newest_checkpoints(trained: tuple[Path, PretrainReport]) -> None:
    folder, _ = trained
    assert sorted(path.name for path in folder.glob("checkpoints/*/step-*")) == ["step-00000020", "step-00000030"]


def test_a_finished_run_is_not_trained_again(
    trained: tuple[Path, PretrainReport],
    packed_corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    folder, report = trained
    shutil.copytree(folder / "checkpoints", tmp_path / "checkpoints")
    again = pretrain_in(tmp_path, packed_corpus, SMALL)
    assert again.model_dump(exclude={"timings"}) == report.model_dump(exclude={"timings"})
    assert again.timings["resumed_step"] == 30
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (folder / "out" / "model.safetensors").read_bytes()
    assert (tmp_path / "out" / "training.jsonl").read_bytes() == (folder / "out" / "training.jsonl").read_bytes()


def test_a_run_with_dropout_repeats_itself(
    packed_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    short = {**SMALL, "steps": 3, "validate_every": 3}
    logs = []
    for name in ("one", "two"):
        pretrain_in(tmp_path / name, packed_corpus, short, {"dropout": 0.3})
        logs.append((tmp_path / name / "out" / "training.jsonl").read_bytes())
    assert logs[0] == logs[1]


def test_a_long_validation_is_no_hang(packed_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    beats, batches = [0], []
    beat, validate = Watchdog.beat, worker.validate

    def counted(watchdog: Watchdog) -> None:
        beats[0] += 1
        beat(watchdog)

    def watched(engine: Any, held_out: Iterable[Batch], sources: int) -> Any:
        before = beats[0]
        found = validate(engine, (batch for batch in held_out if not batches.append(batch)), sources)
        assert beats[0] - before == len(batches) > 1
        return found

    monkeypatch.setattr(Watchdog, "beat", counted)
    monkeypatch.setattr(worker, "validate", watched)
    pretrain_in(tmp_path, packed_corpus, {**SMALL, "steps": 1, "warmup_steps": 0, "validate_every": 1})
    assert batches


def test_a_decay_branch_starts_from_a_plateau(
    trained: tuple[Path, PretrainReport], packed_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    folder, _ = trained
    [plateau] = folder.glob("checkpoints/*/step-00000020")
    report = pretrain_in(tmp_path, packed_corpus, {**SMALL, "steps": 24, "decay_from": str(plateau)})
    assert report.timings["resumed_step"] == 20
    rows = [row for row in training_rows(tmp_path) if "loss" in row]
    assert rows[:20] == [row for row in training_rows(folder) if "loss" in row][:20]
    assert [row["learning_rate"] for row in rows[20:]] == pytest.approx([0.0075, 0.005, 0.0025, 0.0])
    # The checkpoint has the moments and the data's place too: the first loss of the branch is the plateau's next.
    assert rows[20]["loss"] == pytest.approx(losses_of(training_rows(folder))[20], abs=1e-6)


def test_a_branch_under_way_needs_its_plateau_no_more(
    trained: tuple[Path, PretrainReport], packed_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    [plateau] = trained[0].glob("checkpoints/*/step-00000020")
    (tmp_path / "plateau").mkdir()
    shutil.copytree(plateau, tmp_path / "plateau" / plateau.name)
    # Named from the folder that the command is called in.
    monkeypatch.chdir(tmp_path)
    branch = {
        **SMALL,
        "steps": 24,
        "checkpoint_every": 2,
        "keep_checkpoints": 2,
        "decay_from": f"plateau/{plateau.name}",
    }
    first = pretrain_in(tmp_path, packed_corpus, branch)
    shutil.rmtree(tmp_path / "plateau")
    for last in tmp_path.glob("checkpoints/*/step-00000024"):
        shutil.rmtree(last)
    whole = (tmp_path / "out" / "training.jsonl").read_bytes()
    again = pretrain_in(tmp_path, packed_corpus, branch)
    assert (first.timings["resumed_step"], again.timings["resumed_step"]) == (20, 22)
    assert (tmp_path / "out" / "training.jsonl").read_bytes() == whole
    assert str(tmp_path) not in (tmp_path / "out" / "lineage.json").read_text(), "its lineage names no place"


@pytest.mark.parametrize(
    ("settings", "model", "reason"),
    [
        ({}, {"hidden_size": 64}, r"step-00000020 is of another model: .* is \[.*\] there and \[.*\] here"),
        ({}, {"layers": 1}, r"is of another model: layers\.1\..* there and not here"),
        ({}, {"layers": 3}, r"is of another model: layers\.2\..* is not there"),
        ({"optimizer": "lion"}, {}, "was trained by adamw, and this run by lion: set pretrain.optimizer to adamw"),
        ({"optimizer": "muon"}, {}, "was trained by adamw, and this run by muon"),
    ],
)
def test_a_branch_of_another_model_or_optimizer_is_refused(
    trained: tuple[Path, PretrainReport],
    packed_corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    model: dict[str, Any],
    reason: str,
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    [plateau] = trained[0].glob("checkpoints/*/step-00000020")
    branch = {**SMALL, "gradient_clip": None, "steps": 24, "decay_from": str(plateau), **settings}
    with pytest.raises(ValueError, match=reason):
        pretrain_in(tmp_path, packed_corpus, branch, model)


def test_another_run_has_another_fingerprint(packed_corpus: Path, tmp_path: Path) -> None:
    packed = packed_corpus / "pack"
    prints = {run_fingerprint(PretrainConfig(), ModelConfig(), packed)}
    prints.add(run_fingerprint(PretrainConfig(seed=1), ModelConfig(), packed))
    prints.add(run_fingerprint(PretrainConfig(workers=4, batch_size=64), ModelConfig(), packed))
    prints.add(run_fingerprint(PretrainConfig(), ModelConfig(layers=3), packed))
    shutil.copytree(packed, tmp_path / "pack")
    shard = tmp_path / "pack" / "train-0000.bin"
    shard.write_bytes(shard.read_bytes()[::-1])
    prints.add(run_fingerprint(PretrainConfig(), ModelConfig(), tmp_path / "pack"))
    np.save(tmp_path / "pack" / "valid.sources.npy", np.zeros(3, dtype=np.int64))
    prints.add(run_fingerprint(PretrainConfig(), ModelConfig(), tmp_path / "pack"))
    assert len(prints) == 6 == len({each.partition("-")[0] for each in prints})


def test_another_layout_is_the_same_run(packed_corpus: Path, tmp_path: Path) -> None:
    packed = packed_corpus / "pack"

    def named(**settings: Any) -> str:
        return run_fingerprint(PretrainConfig(**{"batch_size": 32, **settings}), ModelConfig(), packed)

    layouts = [{}, {"workers": 1}, {"zero_stage": 3}, {"compile": True}, {"workers": 4, "pipeline_stages": 2}]
    prints = [named(**layout) for layout in layouts]
    assert len({*prints}) == len(layouts)
    for each in (*prints, named(seed=1)):
        (tmp_path / each).mkdir()
    assert same_runs(tmp_path, prints[0]) == sorted(tmp_path / each for each in prints[1:])
    # A batch that grows by what the workers take at once reads other text with other workers.
    growing = {"batch_schedule": {"start": 8, "stages": 4}, "micro_batch_size": 1}
    assert named(**growing, workers=1).partition("-")[0] != named(**growing, workers=8).partition("-")[0]


def test_missing_tokens_are_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="run the pack step first"):
        pretrain_in(tmp_path, tmp_path, SMALL)


def test_a_run_that_cannot_go_well_under_ray_train_names_the_worker_and_the_step(
    ray_head: str,
    packed_corpus: Path,
    tmp_path: Path,
) -> None:
    settings = {**SMALL, "workers": 2, "micro_batch_size": 4, "learning_rate": 1e30, "gradient_clip": 1.0}
    with pytest.raises(TrainingFailed, match=r"worker \d: the (loss|gradient) is .* at step \d+") as failure:
        pretrain_in(tmp_path, packed_corpus, settings)
    assert "\n" not in str(failure.value)
