"""Every family against transformers at random weights: logits in both directions, and a round trip to the bit."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.model.parity import (
    BOUND,
    CASES,
    Parity,
    config_of,
    enliven,
    logits_of,
    logits_of_ours,
    make_ours,
    make_theirs,
    measure,
    tables,
)
from sluice.model.directory import load_transformer, read_stored
from sluice.model.huggingface import FAMILIES, family_fields, family_of, read_config


def test_every_family_has_a_case() -> None:
    assert {family for family, _ in CASES.values()} == set(FAMILIES)


@pytest.mark.parametrize("case", CASES)
def test_logits_agree_in_both_directions_and_the_way_back_is_exact(case: str, tmp_path: Path) -> None:
    found = measure(case, tmp_path)
    # Logits that say nothing would agree too.
    assert found.largest > 0.5
    assert found.initial_largest > 0.1
    assert found.imported <= BOUND
    assert found.exported <= BOUND
    assert found.initial <= BOUND * max(1.0, found.initial_largest)
    assert found.bit_equal
    assert found.config_equal
    assert found.is_met


@pytest.mark.parametrize("case", CASES)
def test_the_fields_written_here_read_as_theirs_do(case: str, tmp_path: Path) -> None:
    """Not the source's own spelling, but the writer's."""
    family, fields = CASES[case]
    make_theirs(family, fields).save_pretrained(tmp_path / "theirs")
    stored = read_stored(tmp_path / "theirs")
    written = {**family_fields(stored.config, FAMILIES[family]), "dtype": "float32"}
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "config.json").write_text(json.dumps(written))
    theirs, ours = config_of(tmp_path / "theirs"), config_of(tmp_path / "ours")
    without_effect = {"bos_token_id", "eos_token_id", "pad_token_id"}
    # Where layer_types and no_rope_layers are given, as they are here.
    without_effect |= {"max_window_layers", "sliding_window_pattern", "_sliding_window_pattern"}
    without_effect.add("no_rope_layer_interval")
    if "YaRN" in case:  # defaults that this writer spells out
        assert ours["rope_parameters"].pop("beta_fast") == 32
        assert ours["rope_parameters"].pop("beta_slow") == 1
    assert {name: theirs[name] for name in theirs.keys() - without_effect} == {
        name: ours[name] for name in ours.keys() - without_effect
    }


SHARED = {"Phi-3, window": "mistral"}
"""Cases of a model that an earlier family computes too -> that family."""


@pytest.mark.parametrize("case", CASES)
def test_a_family_is_the_one_that_it_came_from(case: str, tmp_path: Path) -> None:
    family, fields = CASES[case]
    make_theirs(family, fields).save_pretrained(tmp_path)
    stored = read_stored(tmp_path)
    assert family_of(stored.config) is FAMILIES[SHARED.get(case, family)]
    assert stored.left_out == ()


@pytest.mark.parametrize("case", ["Mistral, window", "Qwen2, windows in the last layer", "Llama, MQA, YaRN"])
def test_what_a_case_is_for_changes_its_logits(case: str) -> None:
    family, fields = CASES[case]
    config, _ = read_config(json.loads(make_theirs(family, fields).config.to_json_string()))
    plain = config.model_copy(update={"window": None, "pattern": None, "rope_scaling": None})
    assert plain != config
    first, second = make_ours(config), make_ours(plain)
    second.load_state_dict(first.state_dict())
    assert float((logits_of_ours(first) - logits_of_ours(second)).abs().max()) > 100 * BOUND


def test_t5_is_untied_where_its_weights_say_so(tmp_path: Path) -> None:
    """transformers calls every T5 tied in config.json, and unties one that has two different matrices."""
    family, fields = CASES["T5 1.1, untied, 3 decoder layers"]
    make_theirs(family, fields).save_pretrained(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    assert content["tie_word_embeddings"] is True
    assert not read_stored(tmp_path).config.tie_embeddings
    weights = load_file(tmp_path / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    tied = read_stored(tmp_path).config
    assert tied.tie_embeddings
    assert tied.logit_scale == 1.0


def test_the_published_gpt2_has_no_prefix_and_masks_as_buffers(tmp_path: Path) -> None:
    family, fields = CASES["GPT-2"]
    theirs = make_theirs(family, fields)
    enliven(theirs, seed=1)
    theirs.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    older = {name.removeprefix("transformer."): weight for name, weight in weights.items()}
    older |= {f"h.{layer}.attn.bias": torch.ones(1, 1, 64, 64, dtype=torch.uint8) for layer in range(3)}
    save_file(older, tmp_path / "model.safetensors")
    assert len(read_stored(tmp_path).left_out) == 3
    assert float((logits_of_ours(load_transformer(tmp_path)) - logits_of(theirs)).abs().max()) <= BOUND


def test_the_published_pythia_has_masks_and_frequencies_as_buffers(tmp_path: Path) -> None:
    family, fields = CASES["GPT-NeoX"]
    theirs = make_theirs(family, fields)
    enliven(theirs, seed=1)
    theirs.save_pretrained(tmp_path)
    older = load_file(tmp_path / "model.safetensors")
    for layer in range(3):
        attention = f"gpt_neox.layers.{layer}.attention"
        older[f"{attention}.bias"] = torch.ones(1, 1, 64, 64, dtype=torch.bool)
        older[f"{attention}.masked_bias"] = torch.tensor(-1e9)
        older[f"{attention}.rotary_emb.inv_freq"] = torch.ones(1)
    save_file(older, tmp_path / "model.safetensors")
    assert len(read_stored(tmp_path).left_out) == 9
    assert float((logits_of_ours(load_transformer(tmp_path)) - logits_of(theirs)).abs().max()) <= BOUND


def test_a_head_under_the_name_of_newer_versions_is_read(tmp_path: Path) -> None:
    """transformers calls GPT-NeoX's head embed_out on disk and lm_head in memory."""
    family, fields = CASES["GPT-NeoX"]
    make_theirs(family, fields).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["lm_head.weight"] = weights.pop("embed_out.weight")
    save_file(weights, tmp_path / "model.safetensors")
    assert not read_stored(tmp_path).config.tie_embeddings


def test_the_published_bert_has_older_names_and_a_second_task(tmp_path: Path) -> None:
    family, fields = CASES["BERT"]
    theirs = make_theirs(family, fields)
    enliven(theirs, seed=1)
    theirs.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    older = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): weight
        for name, weight in weights.items()
    }
    older["bert.pooler.dense.weight"] = torch.zeros(32, 32)
    older["cls.seq_relationship.bias"] = torch.zeros(2)
    older["cls.predictions.decoder.weight"] = weights["bert.embeddings.word_embeddings.weight"].clone()
    save_file(older, tmp_path / "model.safetensors")
    assert read_stored(tmp_path).left_out == (
        "bert.pooler.dense.weight",
        "cls.predictions.decoder.weight",
        "cls.seq_relationship.bias",
    )
    assert float((logits_of_ours(load_transformer(tmp_path)) - logits_of(theirs)).abs().max()) <= BOUND


def test_the_table_marks_what_is_out_of_bounds() -> None:
    good = Parity("a", "llama", 1e-6, 1.0, 1e-6, 1e-6, 1.0, bit_equal=True, config_equal=True)
    bad = Parity("b", "llama", 1e-6, 1.0, 3e-5, 1e-6, 1.0, bit_equal=True, config_equal=False)
    assert good.is_met
    assert not bad.is_met
    rows = tables([good, bad])["parity"].splitlines()
    assert len(rows) == 4
    assert "**" not in rows[2]
    assert rows[3].count("**") == 4
