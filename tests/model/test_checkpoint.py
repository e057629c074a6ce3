"""The model directory: what is saved comes back, and what was changed since is refused by name."""

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from model.architecture.config import TransformerConfig
from model.architecture.transformer import Transformer, initialize
from model.checkpoint import load_model, load_transformer, model_hash, save_model
from model.config import ModelConfig

LINEAGE = {"data": "abc", "steps": 3}


@pytest.fixture
def tokenizer_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    vocabulary = {token: index for index, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>", "<|user|>", "<|assistant|>", "<|end|>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    fields = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(fields))
    return folder


def tiny(seed: int = 0) -> Transformer:
    shape = ModelConfig(hidden_size=32, layers=2, heads=4, kv_heads=2, context=16)
    model = Transformer(TransformerConfig.from_settings(shape, 260))
    initialize(model, seed)
    return model


@pytest.fixture
def saved(tmp_path: Path, tokenizer_folder: Path) -> Path:
    save_model(tmp_path / "model", tiny(), tokenizer_folder, LINEAGE)
    return tmp_path / "model"


def test_what_is_saved_comes_back(saved: Path) -> None:
    model, tokenizer = load_model(saved)
    assert not model.training
    assert model.config == tiny().config
    for name, weight in tiny().state_dict().items():
        assert torch.equal(model.state_dict()[name], weight), name
    assert tokenizer.decode(tokenizer.encode("Grüße, 世界\n").ids) == "Grüße, 世界\n"
    assert json.loads((saved / "lineage.json").read_text())["data"] == "abc"


def test_a_loaded_model_trains(saved: Path) -> None:
    model, _ = load_model(saved)
    model(torch.tensor([[1, 2, 3]])).sum().backward()
    assert all(weight.grad is not None for weight in model.parameters())


def test_generation_stops_at_the_end_of_text_and_of_a_turn(saved: Path) -> None:
    assert json.loads((saved / "generation_config.json").read_text())["eos_token_id"] == [256, 259]
    assert json.loads((saved / "config.json").read_text())["eos_token_id"] == 256


def test_saving_twice_gives_the_same_bytes(tmp_path: Path, tokenizer_folder: Path, saved: Path) -> None:
    save_model(tmp_path / "again", tiny(), tokenizer_folder, LINEAGE)
    names = sorted(path.name for path in saved.iterdir())
    assert names == sorted(path.name for path in (tmp_path / "again").iterdir())
    assert all((saved / name).read_bytes() == (tmp_path / "again" / name).read_bytes() for name in names)


def test_bfloat16_weights_keep_their_type_on_disk(tmp_path: Path, tokenizer_folder: Path) -> None:
    save_model(tmp_path / "half", tiny().to(torch.bfloat16), tokenizer_folder, {})
    assert json.loads((tmp_path / "half" / "config.json").read_text())["dtype"] == "bfloat16"
    model, _ = load_model(tmp_path / "half", torch.bfloat16)
    assert model.embedding.weight.dtype == torch.bfloat16
    assert load_model(tmp_path / "half")[0].embedding.weight.dtype == torch.float32


def test_the_hash_is_of_what_decides_the_answers(tmp_path: Path, tokenizer_folder: Path, saved: Path) -> None:
    before = model_hash(saved)
    (saved / "lineage.json").unlink()
    assert model_hash(saved) == before
    save_model(tmp_path / "other", tiny(seed=1), tokenizer_folder, LINEAGE)
    assert model_hash(tmp_path / "other") != before
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        content = (saved / name).read_text()
        (saved / name).write_text(content + " ")
        assert model_hash(saved) != before, name
        (saved / name).write_text(content)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "generation_config.json"])
def test_a_changed_truncated_or_missing_file_is_named(saved: Path, name: str) -> None:
    path = saved / name
    content = path.read_bytes()
    middle = len(content) // 2
    for damaged in (content[:middle], content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=name):
            load_model(saved)
    path.unlink()
    with pytest.raises(ValueError, match=f"{name} does not exist"):
        load_model(saved)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "lineage.json"])
def test_a_truncated_file_is_named_without_the_checksums_too(saved: Path, name: str) -> None:
    if name != "lineage.json":
        (saved / "lineage.json").unlink()
    path = saved / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=name):
        load_model(saved)


def test_weights_that_do_not_fit_the_config_are_named(saved: Path) -> None:
    fields = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps({**fields, "vocab_size": 300}))
    with pytest.raises(ValueError, match=r"embedding.weight has shape \(260, 32\).*\(300, 32\)"):
        load_transformer(saved)
    (saved / "config.json").write_text(json.dumps({**fields, "num_hidden_layers": 3}))
    with pytest.raises(ValueError, match=r"model.layers.2.* is missing"):
        load_transformer(saved)
    (saved / "config.json").write_text(json.dumps({**fields, "num_hidden_layers": 1}))
    with pytest.raises(ValueError, match=r"unknown weights.*model.layers.1"):
        load_transformer(saved)


def test_a_vocabulary_that_is_not_the_models_is_refused(tmp_path: Path, tokenizer_folder: Path) -> None:
    small = Transformer(tiny().config.model_copy(update={"vocab_size": 100}))
    with pytest.raises(ValueError, match=r"260 tokens .* 100"):
        save_model(tmp_path / "small", small, tokenizer_folder, {})


def test_no_tokenizer_no_model(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"tokenizer.json does not exist"):
        save_model(tmp_path / "model", tiny(), tmp_path, {})
