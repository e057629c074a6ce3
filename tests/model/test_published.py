"""Published config.json field sets at tiny sizes: each imports with the logits and greedy tokens of transformers."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from transformers import AutoConfig

from benchmarks.model.parity import BOUND
from benchmarks.model.published import GREEDY, NOT_COMPUTED, PUBLISHED, measure_published, tiny
from sluice.model.huggingface import FAMILIES, read_config
from sluice.model.planner.parameters import count_parameters

COVER = (
    *("Llama 3.1 8B Instruct", "DeepSeek Coder 6.7B", "SmolLM2 360M Instruct", "Mistral 7B v0.1", "Qwen3 30B A3B"),
    *("SmolLM3 3B", "Gemma 2B", "Gemma 2 2B", "Gemma 3 1B", "Phi-3 mini 128k", "Phi-4 mini", "OLMo 2 1B"),
    *("Granite 3.1 2B", "Pythia 160M", "StableLM 2 1.6B", "Falcon 7B", "Falcon 40B", "BERT base uncased"),
)
"""Models in `make test`, of what each family adds; the matrix has all."""
IMPORTED = [
    name if name in COVER else pytest.param(name, marks=pytest.mark.matrix)
    for name in PUBLISHED
    if name not in NOT_COMPUTED
]


def test_every_family_has_a_published_model() -> None:
    assert {fields["model_type"] for fields in PUBLISHED.values()} >= set(FAMILIES)
    assert len(PUBLISHED) - len(NOT_COMPUTED) >= 30


@pytest.mark.parametrize("name", IMPORTED)
def test_a_published_model_computes_what_transformers_computes(name: str, tmp_path: Path) -> None:
    found = measure_published(name, tmp_path)
    assert found.refused is None
    assert found.largest > 0.3
    assert found.error <= BOUND
    assert found.greedy in {None, GREEDY}


@pytest.mark.parametrize("name", NOT_COMPUTED)
def test_what_is_not_computed_is_refused_in_one_line_that_names_the_field(name: str, tmp_path: Path) -> None:
    found = measure_published(name, tmp_path)
    assert found.refused is not None
    assert found.refused.startswith(f"config.json: {NOT_COMPUTED[name]} is ")
    assert "\n" not in found.refused


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name not in NOT_COMPUTED])
def test_the_planner_counts_the_parameters_of_the_published_sizes(name: str, tmp_path: Path) -> None:
    fields = PUBLISHED[name]
    (tmp_path / "config.json").write_text(json.dumps(fields))
    with torch.device("meta"):
        theirs = getattr(transformers, fields["architectures"][0])(AutoConfig.from_pretrained(tmp_path))
    expected = sum(weight.numel() for weight in theirs.parameters())
    if name == "Flan-T5 small":
        # transformers ties every T5 until it reads a checkpoint with a head of its own, as this one is.
        expected += fields["vocab_size"] * fields["d_model"]
    assert count_parameters(read_config(fields)[0]).total == expected


def test_a_tiny_model_keeps_what_is_no_size() -> None:
    fields = PUBLISHED["Phi-4 mini"]
    small = tiny(fields)
    changed = {name for name in fields if small[name] != fields[name]}
    assert changed == {
        *("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "num_hidden_layers"),
        *("vocab_size", "max_position_embeddings", "original_max_position_embeddings", "sliding_window"),
        *("bos_token_id", "eos_token_id", "pad_token_id", "rope_scaling"),
    }
    assert small["rope_scaling"]["type"] == "longrope"
    assert len(small["rope_scaling"]["long_factor"]) == 6
