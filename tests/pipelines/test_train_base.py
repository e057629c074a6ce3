"""`sluice train base.path=DIR`: a run that begins at an imported model, and what it writes."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tokenizer_fixtures import TEXT, TOKENIZERS
from transformers import LlamaConfig, LlamaForCausalLM

from sluice.components.workspace import Workspace
from sluice.data.packing import PackedTokens
from sluice.model.directory import load_model, model_hash, read_json
from sluice.model.text.prompt import start_ids
from sluice.pipelines.cli import main
from sluice.pipelines.train_request import read_request, restore_request

SHORT = (
    *("pretrain.steps=4", "pretrain.batch_size=4", "pretrain.micro_batch_size=4", "pretrain.warmup_steps=1"),
    *("pretrain.validate_every=2", "pretrain.validation_batches=2", "pretrain.checkpoint_every=2", "base.context=16"),
    *("pretrain.workers=1", "pretrain.zero_stage=0"),
)


@pytest.fixture(autouse=True)
def workspace(empty_workspace: Workspace) -> Workspace:
    return empty_workspace


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    path = tmp_path / "notes.txt"
    path.write_text(TEXT * 60)
    return path


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An imported model in bf16 with everything that one comes with."""
    folder = tmp_path_factory.mktemp("base")
    return make(folder / "theirs", folder / "ours")


def make(theirs: Path, ours: Path, name: str = "llama", **fields: Any) -> Path:
    tokenizer = TOKENIZERS[name]()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size() + fields.pop("extra", 3),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=48,
        max_position_embeddings=96,
        unsloth_version="1",
        **{"bos_token_id": 1, "eos_token_id": [2, 0], "pad_token_id": 0, **fields},
    )
    LlamaForCausalLM(config).bfloat16().save_pretrained(theirs)
    tokenizer.save(str(theirs / "tokenizer.json"))
    (theirs / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    (theirs / "chat_template.jinja").write_text("{{ messages[0].content }}")
    assert main(["model", "import", str(theirs), str(ours)]) == 0
    return ours


@pytest.fixture
def train(capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    def run(*arguments: str) -> dict[str, Any]:
        capsys.readouterr()
        assert main(["train", *arguments, "--json"]) == 0, capsys.readouterr().err
        found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
        return found

    return run


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def run(*arguments: str) -> str:
        capsys.readouterr()
        assert main(list(arguments)) == 1
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        return said

    return run


def test_a_run_begins_at_the_base_and_keeps_what_came_with_it(
    train: Callable[..., dict[str, Any]], base: Path, notes: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    still = train(*SHORT, f"base.path={base}", f"data.path={notes}", "pretrain.learning_rate=1e-30", "--out", str(out))
    _, tokenizer = load_model(base)
    # The tokens are the base's, with bos before the text.
    ids = PackedTokens(out / "pack", "train").tokens.read(0, 400).tolist()
    assert ids[:1] == start_ids(tokenizer) == [1]
    assert (TEXT * 60).startswith(tokenizer.decode(ids))
    written = load_file(out / "model" / "model.safetensors")
    before = load_file(base / "model.safetensors")
    assert {weight.dtype for weight in written.values()} == {torch.bfloat16}
    assert [name for name in before if not torch.equal(written[name], before[name])] == []
    assert read_json(out / "model" / "config.json") == read_json(base / "config.json")
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja"):
        assert (out / "model" / name).read_bytes() == (base / name).read_bytes()
    assert read_json(out / "model" / "lineage.json")["base"] == model_hash(base)
    learned = train(*SHORT, f"base.path={base}", f"data.path={notes}", "--out", str(tmp_path / "learned"))
    assert learned["validation_loss"] < still["validation_loss"]
    assert learned["fingerprint"] != still["fingerprint"]
    assert still["tokens"] == 4 * 4 * 16
    request = restore_request(read_json(tmp_path / "learned" / "train.json"))
    assert (request.pretrain.learning_rate, request.context, request.model.context) == (1e-4, 16, 96)


@pytest.mark.parametrize("name", [name for name in TOKENIZERS if name != "llama"])
def test_every_kind_of_tokenizer_is_packed_for(
    train: Callable[..., dict[str, Any]], notes: Path, tmp_path: Path, name: str
) -> None:
    base = make(tmp_path / "theirs", tmp_path / "ours", name)
    assert train(*SHORT, f"base.path={base}", f"data.path={notes}", "--out", str(tmp_path / "run"))["steps"] == 4


def test_a_run_with_a_base_is_resumed_extended_and_read_as_packed(
    train: Callable[..., dict[str, Any]], refused: Callable[..., str], base: Path, notes: Path, tmp_path: Path
) -> None:
    mine, out = shutil.copytree(base, tmp_path / "mine"), tmp_path / "run"
    constant = (*SHORT, f"base.path={mine}", "pretrain.min_learning_rate_ratio=1")
    train(*constant, f"data.path={notes}", "--out", str(out))
    weights = (out / "model" / "model.safetensors").read_bytes()
    (out / "model" / "model.safetensors").unlink()
    assert train("--resume", str(out))["timings"]["resumed_step"] == 4
    assert (out / "model" / "model.safetensors").read_bytes() == weights
    assert train("--resume", str(out), "pretrain.steps=6")["timings"]["resumed_step"] == 4
    # A packed folder needs the base's tokenizer beside it.
    place = (f"data.path={out / 'pack'}", "--out", str(tmp_path / "second"))
    assert "was not packed with the tokenizer of base.path" in refused("train", *constant, *place)
    shutil.copy(mine / "tokenizer.json", out / "pack" / "tokenizer.json")
    assert train(*constant, *place)["steps"] == 4
    (mine / "lineage.json").unlink()
    config = read_json(mine / "config.json")
    (mine / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-3}))
    assert f"the model in base.path={mine} has changed since the run began" in refused("train", "--resume", str(out))


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        (
            "model.layers=3",
            "no effect beside base.path: shape and tokenizer are those of the base",
        ),
        ("model=tiny", "'model=tiny' has no effect beside base.path"),
        ("text.tokenizer=byte", "'text.tokenizer=byte' has no effect beside base.path"),
        ("base.context=97", "base.context=97 is more than the 96 tokens of the model"),
        ("base.sha256=abc", "'base.sha256=abc' is filled in from the files"),
        ("pretrain.objective=masked", "objective masked is not supported with model.kind decoder"),
    ],
)
def test_settings_that_a_base_has_itself_are_refused(
    refused: Callable[..., str], base: Path, notes: Path, tmp_path: Path, override: str, reason: str
) -> None:
    short = [each for each in SHORT if each.partition("=")[0] != override.partition("=")[0]]
    out = tmp_path / "run"
    assert reason in refused("train", *short, f"base.path={base}", override, f"data.path={notes}", "--out", str(out))
    assert not out.exists()


def test_a_base_that_cannot_be_is_one_line(
    refused: Callable[..., str], base: Path, notes: Path, tmp_path: Path
) -> None:
    place = (f"data.path={notes}", "--out", str(tmp_path / "run"))
    assert "is not a folder: name a model directory" in refused("train", f"base.path={tmp_path / 'no'}", *place)
    assert "config.json does not exist" in refused("train", f"base.path={tmp_path}", *place)
    assert "'base.context=16' has no effect without base.path" in refused("train", "base.context=16", *place)
    small = make(tmp_path / "theirs", tmp_path / "small", extra=-4)
    said = refused("train", *SHORT, f"base.path={small}", *place)
    assert "which is outside the vocabulary of 0 to" in said
    for command in ("sweep", "profile"):
        assert "these runs begin at random weights" in refused(command, f"base.path={base}", *place)
    (small / "tokenizer.json").unlink()
    (small / "lineage.json").unlink()
    assert "tokenizer.json does not exist" in refused("train", *SHORT, f"base.path={small}", *place)


def test_a_relative_base_is_found_from_the_current_folder(
    workspace: Workspace, base: Path, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(base.parent)
    request = read_request(workspace, ["base.path=ours", f"data.path={notes}"])
    assert request.base.path == str(base.resolve())
    assert restore_request(json.loads(json.dumps(request.settings()))) == request
