"""The model directory of a run names what only its objective knows: masks, sentinels, where a decoder begins."""

import json
from pathlib import Path
from typing import Any

import architecture_fixtures as shapes
import pytest
import torch
from tokenizers import Tokenizer

from sluice.data.config import TokenizerConfig
from sluice.data.tokenization import END_OF_TEXT
from sluice.data.tokenization.folder import save_tokenizer
from sluice.model.architecture.generation import GenerationOptions, generate
from sluice.model.architecture.transformer import Transformer
from sluice.model.config import PretrainConfig
from sluice.model.directory import load_model
from sluice.model.training.batches.objectives import Objective
from sluice.model.training.batches.text import octets
from sluice.model.training.checkpointing.export import export_model, tokenizer_with_reserved

KINDS: dict[str, dict[str, Any]] = {
    "causal": shapes.DECODERS["llama"],
    "masked": shapes.ENCODERS["bert"],
    "span": shapes.ENCODER_DECODERS["t5"],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tokenizer of 257 tokens."""
    (tmp_path / "tokenizer").mkdir()
    save_tokenizer(octets("", "", TokenizerConfig()), (END_OF_TEXT,), tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


def saved(name: str, folder: Path, out: Path) -> tuple[Transformer, Tokenizer, Objective]:
    objective = Objective.of(PretrainConfig(objective=name), 257, 0)
    model = Transformer(shapes.shape({**KINDS[name], "vocab_size": objective.model_vocabulary}))
    export_model(out, model, folder, objective, {"seed": 1})
    return *load_model(out), objective


@pytest.mark.parametrize("name", KINDS)
def test_every_entry_of_the_model_has_a_name(name: str, folder: Path, tmp_path: Path) -> None:
    model, tokenizer, objective = saved(name, folder, tmp_path / "out")
    assert tokenizer.get_vocab_size() == model.config.vocab_size == 257 + len(objective.reserved)
    named = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert named["additional_special_tokens"] == list(objective.reserved)
    for place, token in enumerate(objective.reserved, 257):
        assert tokenizer.encode(f"a{token}b").ids[1:-1] == [place]
    if name == "causal":
        assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()


def test_the_mask_and_the_sentinels_are_those_that_training_writes(folder: Path, tmp_path: Path) -> None:
    tokens = torch.full((1, 25), 65).numpy()
    _, tokenizer, objective = saved("masked", folder, tmp_path / "masked")
    ids = objective.batch(tokens, None, torch.arange(1).numpy(), 24).ids
    assert tokenizer.token_to_id("<|mask|>") in ids
    assert json.loads((tmp_path / "masked" / "tokenizer_config.json").read_text())["mask_token"] == "<|mask|>"
    _, tokenizer, objective = saved("span", folder, tmp_path / "span")
    source = objective.batch(tokens, None, torch.arange(1).numpy(), 24).source
    assert source is not None
    first = next(each for each in source[0].tolist() if each > 256)
    assert tokenizer.id_to_token(first) == "<|span_0|>"


def test_an_encoder_decoder_says_where_it_begins(folder: Path, tmp_path: Path) -> None:
    model, _, objective = saved("span", folder, tmp_path / "out")
    for name in ("config.json", "generation_config.json"):
        begins = json.loads((tmp_path / "out" / name).read_text())["decoder_start_token_id"]
        # As in training, where the decoder reads its target behind an end token.
        assert begins == objective.eos == 0
    assert len(generate(model, [begins], 3, GenerationOptions(source=[65, 66]))) <= 3
    saved("causal", folder, tmp_path / "decoder")
    assert "decoder_start_token_id" not in json.loads((tmp_path / "decoder" / "config.json").read_text())


def test_a_tokenizer_that_has_the_name_already_is_refused(folder: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_special_tokens(["<|mask|>", "<|more|>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    with pytest.raises(ValueError, match=r"numbers <\|mask\|> 257, where objective masked needs 259"):
        tokenizer_with_reserved(folder, Objective.of(PretrainConfig(objective="masked"), 259, 0))
