"""Model directory: what is saved is loaded again, and files changed since are refused by name."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from sluice.model.architecture.config import ModelConfig, TransformerConfig
from sluice.model.architecture.initialization import initialize
from sluice.model.architecture.transformer import Transformer
from sluice.model.directory import (
    load_model,
    load_transformer,
    model_hash,
    save_continued,
    save_model,
    save_transformer,
)
from sluice.model.huggingface.convert import export_model, import_model

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
    with pytest.raises(ValueError, match=r"model.embed_tokens.weight has shape \(260, 32\).*\(300, 32\)"):
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


def test_a_tokenizer_larger_than_the_vocabulary_loads(saved: Path) -> None:
    tokenizer = Tokenizer.from_file(str(saved / "tokenizer.json"))
    tokenizer.add_tokens(["a further token"])
    tokenizer.save(str(saved / "tokenizer.json"))
    (saved / "lineage.json").unlink()
    assert load_model(saved)[1].get_vocab_size() == 261


def test_no_tokenizer_no_model(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"tokenizer.json does not exist"):
        save_model(tmp_path / "model", tiny(), tmp_path, {})


def test_what_no_family_expresses_is_saved_in_our_own_fields(tmp_path: Path, tokenizer_folder: Path) -> None:
    settings = ModelConfig(
        hidden_size=32,
        layers=3,
        heads=4,
        kv_heads=2,
        context=16,
        positions="alibi",
        window=5,
        pattern=("window", "attention"),
        dropout=0.1,
        mixture={"experts": 3, "shared": 1},
    )
    model = Transformer(TransformerConfig.from_settings(settings, 260)).eval()
    initialize(model, 0)
    save_model(tmp_path / "model", model, tokenizer_folder, LINEAGE)
    assert json.loads((tmp_path / "model" / "config.json").read_text())["model_type"] == "sluice"
    loaded, _ = load_model(tmp_path / "model")
    assert loaded.config == model.config
    ids = torch.tensor([[1, 2, 3, 4, 5, 6, 7]])
    with torch.no_grad():
        assert torch.equal(loaded(ids), model(ids))
    weights = load_file(tmp_path / "model" / "model.safetensors")
    assert weights.keys() == model.state_dict().keys()
    del weights["norm.weight"]
    save_file(weights, tmp_path / "model" / "model.safetensors")
    with pytest.raises(ValueError, match=r"weight 'norm.weight' is missing"):
        load_transformer(tmp_path / "model")


def sharded(folder: Path) -> Path:
    """A directory of the tiny model in two files with an index."""
    save_transformer(folder, tiny())
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    files = {"model-00001-of-00002.safetensors": names[:5], "model-00002-of-00002.safetensors": names[5:]}
    for file, held in files.items():
        save_file({name: weights[name] for name in held}, folder / file)
    weight_map = {name: file for file, held in files.items() for name in held}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def test_several_files_are_read_by_their_index(tmp_path: Path) -> None:
    loaded = load_transformer(sharded(tmp_path / "model"))
    assert all(torch.equal(weight, tiny().state_dict()[name]) for name, weight in loaded.state_dict().items())


def only_pickled(folder: Path) -> None:
    for path in folder.glob("*.safetensors"):
        path.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"x")


def test_a_pickle_beside_safetensors_is_left_alone(tmp_path: Path) -> None:
    folder = sharded(tmp_path / "model")
    (folder / "pytorch_model.bin").write_bytes(b"not even a pickle")
    assert load_transformer(folder).config.layers


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda f: (f / "model-00002-of-00002.safetensors").unlink(),
            "model-00002-of-00002.safetensors does not exist",
        ),
        (
            lambda f: (f / "model-00001-of-00002.safetensors").write_bytes(b""),
            "model-00001-of-00002.safetensors is damaged",
        ),
        (lambda f: (f / "model.safetensors.index.json").write_text("{"), "model.safetensors.index.json is damaged"),
        (lambda f: (f / "model.safetensors.index.json").write_text("{}"), "weight_map names no files"),
        (
            lambda f: (f / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../other.safetensors"}}'),
            "no file of this directory",
        ),
        (only_pickled, "pytorch_model.bin may be a pickle"),
        (lambda f: (f / "config.json").write_text("[]"), "config.json is damaged: not a JSON object"),
        (lambda f: (f / "config.json").write_bytes(b"\xff"), "config.json is damaged"),
    ],
)
def test_a_faulty_directory_is_refused_in_one_line(tmp_path: Path, change: object, said: str) -> None:
    folder = sharded(tmp_path / "model")
    assert callable(change)
    change(folder)
    with pytest.raises(ValueError, match=said) as refused:
        load_transformer(folder)
    assert str(refused.value).count(str(folder)) == 1
    assert "\n" not in str(refused.value)


def test_a_weight_in_two_files_and_a_tied_head_that_is_not_are_refused(tmp_path: Path) -> None:
    folder = sharded(tmp_path / "model")
    second = folder / "model-00002-of-00002.safetensors"
    save_file({**load_file(second), **load_file(folder / "model-00001-of-00002.safetensors")}, second)
    with pytest.raises(ValueError, match="and in a file before it"):
        load_transformer(folder)
    save_transformer(tmp_path / "tied", tiny())
    weights = load_file(tmp_path / "tied" / "model.safetensors")
    other = weights["model.embed_tokens.weight"] + 1
    save_file({**weights, "lm_head.weight": other}, tmp_path / "tied" / "model.safetensors")
    with pytest.raises(ValueError, match=r"tie_word_embeddings is True, but lm_head\.weight is not the embedding"):
        load_transformer(tmp_path / "tied")


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="owner/name is not a folder: name a model directory on this machine"):
        load_transformer(tmp_path / "owner/name")


def test_the_folder_of_a_run_names_its_model(tmp_path: Path) -> None:
    save_transformer(tmp_path / "model", tiny())
    with pytest.raises(ValueError, match=r"config\.json does not exist: .*; name .*/model$"):
        load_transformer(tmp_path)


def test_a_directory_in_our_own_names_stays_readable_whatever_families_there_are(tmp_path: Path) -> None:
    model = tiny()
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "sluice", **model.config.model_dump(mode="json")}))
    save_file(
        {name: weight.detach().clone() for name, weight in model.state_dict().items()}, tmp_path / "model.safetensors"
    )
    loaded = load_transformer(tmp_path)
    assert loaded.config == model.config
    assert all(torch.equal(weight, loaded.state_dict()[name]) for name, weight in model.state_dict().items())


def came_with(folder: Path, tokenizer_folder: Path) -> dict[str, bytes]:
    """A bf16 directory as others publish one, and the files that belong to it."""
    save_model(folder, tiny().to(torch.bfloat16), tokenizer_folder, {})
    (folder / "lineage.json").unlink()
    config = json.loads((folder / "config.json").read_text())
    ids = {"bos_token_id": 1, "eos_token_id": [256, 259, 3], "pad_token_id": 4}
    (folder / "config.json").write_text(
        json.dumps({**config, **ids, "unsloth_version": "1", "torch_dtype": "bfloat16"})
    )
    (folder / "generation_config.json").write_text(json.dumps({**ids, "temperature": 0.6, "do_sample": True}))
    (folder / "chat_template.jinja").write_text("{{ bos_token }}{{ messages[0].content }}\n")
    (folder / "special_tokens_map.json").write_text("{}")
    (folder / "tokenizer.model").write_bytes(b"\x00pieces")
    kept = [path for path in folder.iterdir() if path.suffix != ".safetensors" and path.name != "config.json"]
    return {path.name: path.read_bytes() for path in kept}


@pytest.mark.parametrize("way", ["import and export", "continue"])
def test_a_model_keeps_what_it_came_with(tmp_path: Path, tokenizer_folder: Path, way: str) -> None:
    kept = came_with(tmp_path / "theirs", tokenizer_folder)
    import_model(tmp_path / "theirs", tmp_path / "ours")
    if way == "continue":
        model, _ = load_model(tmp_path / "ours")
        with torch.no_grad():
            model.embedding.weight.add_(1.0)
        save_continued(tmp_path / "out", model, tmp_path / "ours", {"parent": "ours"})
        assert json.loads((tmp_path / "out" / "lineage.json").read_text())["parent"] == "ours"
        assert torch.equal(load_model(tmp_path / "out")[0].embedding.weight, model.embedding.weight.bfloat16().float())
    else:
        export_model(tmp_path / "ours", tmp_path / "out")
    for name, content in kept.items():
        assert (tmp_path / "out" / name).read_bytes() == content, name
    fields = [json.loads((tmp_path / each / "config.json").read_text()) for each in ("theirs", "out")]
    assert fields[1] == fields[0]
    weights = [load_file(tmp_path / each / "model.safetensors") for each in ("theirs", "out")]
    assert {weight.dtype for weight in weights[1].values()} == {torch.bfloat16}
    assert weights[0].keys() == weights[1].keys()
    # A changed chat template is another model, and a changed file a damaged one.
    before = model_hash(tmp_path / "out")
    (tmp_path / "out" / "chat_template.jinja").write_text("other")
    assert model_hash(tmp_path / "out") != before
    with pytest.raises(ValueError, match=r"chat_template\.jinja is not the file that was saved"):
        load_model(tmp_path / "out")


def test_a_directory_without_tokenizer_settings_has_a_hash(saved: Path) -> None:
    before = model_hash(saved)
    (saved / "tokenizer_config.json").unlink()
    assert model_hash(saved) != before
    (saved / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"tokenizer\.json does not exist"):
        model_hash(saved)
