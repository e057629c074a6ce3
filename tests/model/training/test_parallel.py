"""Which settings go together, how processes are arranged, and how layers are shared out."""

import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.model.architecture.config import ModelConfig, TransformerConfig
from sluice.model.architecture.initialization import initialize
from sluice.model.architecture.mixture_config import MixtureConfig
from sluice.model.architecture.state_space_config import StateSpaceConfig
from sluice.model.architecture.transformer import Transformer
from sluice.model.config import PretrainConfig
from sluice.model.parallelism.layout import Layout, layout_of, stage_bounds
from sluice.model.parallelism.rules import RULES, check, table
from sluice.model.parallelism.stages import owners, split_stages

SMALL: dict[str, Any] = {"hidden_size": 16, "heads": 4, "kv_heads": 2, "layers": 4, "context": 16}

REFUSED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"objective": "masked"}, {}, "objective masked"),
    ({"objective": "causal"}, {"kind": "encoder"}, "objective causal"),
    ({"dtype": "fp16", "optimizer": "muon"}, {}, "dtype fp16"),
    ({"offload": "optimizer", "zero_stage": 0}, {}, "offload optimizer"),
    ({"dtype": "bf16", "zero_stage": 0}, {}, "dtype bf16"),
    ({"average_decay": 0.9, "zero_stage": 3}, {}, "average_decay 0.9"),
    ({"offload": "all", "zero_stage": 2}, {}, "offload all"),
    ({"offload": "optimizer", "pipeline_stages": 2}, {}, "offload optimizer"),
    ({"activation_checkpointing": "selective", "zero_stage": 3}, {}, "activation_checkpointing selective"),
    ({"compile": True, "zero_stage": 3}, {}, "compile True"),
    ({"compile": True, "activation_checkpointing": "selective"}, {}, "compile True"),
    ({"pipeline_stages": 2, "zero_stage": 2}, {}, "pipeline_stages 2"),
    ({"pipeline_stages": 4}, {"layers": 3}, "pipeline_stages 4"),
    ({"pipeline_stages": 2}, {"mixture": MixtureConfig(experts=2)}, "pipeline_stages 2"),
    ({"pipeline_stages": 2}, {"positions": "relative"}, "pipeline_stages 2"),
    (
        {"pipeline_stages": 2, "objective": "span"},
        {"kind": "encoder-decoder", "tie_embeddings": True},
        "pipeline_stages 2 is not supported with an encoder-decoder.* use model.kind decoder or encoder",
    ),
    ({"tensor_parallel": 2, "zero_stage": 3}, {}, "tensor_parallel 2"),
    ({"tensor_parallel": 2, "optimizer": "muon"}, {}, "tensor_parallel 2"),
    ({"tensor_parallel": 4}, {}, "tensor_parallel 4"),
    ({"tensor_parallel": 2}, {"mixture": MixtureConfig(experts=2)}, "tensor_parallel 2"),
    (
        {"tensor_parallel": 2},
        {"pattern": ("state_space", "attention"), "state_space": StateSpaceConfig(head_size=8)},
        "tensor_parallel 2",
    ),
    ({"tensor_parallel": 2}, {"qk_norm": True, "qk_norm_over": "all_heads"}, "with model.qk_norm_over all_heads"),
    ({"tensor_parallel": 2}, {"dropout": 0.1}, "tensor_parallel 2"),
    ({"workers": 3, "batch_size": 3, "micro_batch_size": 1, "tensor_parallel": 2}, {}, "workers 3 must be a multiple"),
]


def settings(**changed: Any) -> PretrainConfig:
    return PretrainConfig(**{"workers": 4, "batch_size": 16, "micro_batch_size": 2, **changed})


@pytest.mark.parametrize(("changed", "model", "named"), REFUSED)
def test_what_cannot_be_trained_is_refused_by_name(changed: dict[str, Any], model: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named) as refusal:
        check(settings(**changed), ModelConfig(**SMALL | model), cuda=True)
    assert "\n" not in str(refusal.value)


def test_every_row_of_the_table_refuses_with_its_reason_and_what_is_allowed() -> None:
    """Or it would be a sentence that nothing holds."""
    said = []
    for changed, model, _ in REFUSED:
        with pytest.raises(ValueError) as refusal:
            check(settings(**changed), ModelConfig(**SMALL | model), cuda=True)
        said.append(str(refusal.value))
    for rule in RULES:
        assert any(f"because {rule.reason}: use {rule.needs}" in each for each in said), rule


@pytest.mark.parametrize(
    "changed", [{}, {"zero_stage": 3, "offload": "all"}, {"pipeline_stages": 2, "tensor_parallel": 2}]
)
def test_what_can_be_trained_is_let_through(changed: dict[str, Any]) -> None:
    check(settings(**changed), ModelConfig(**SMALL), cuda=False)


def test_fp16_needs_cuda() -> None:
    with pytest.raises(ValueError, match="fp16 needs CUDA"):
        check(settings(dtype="fp16"), ModelConfig(**SMALL), cuda=False)
    check(settings(dtype="fp16"), ModelConfig(**SMALL), cuda=True)


def test_the_batch_is_divided_by_data_parallel_workers_alone() -> None:
    config = settings(workers=4, batch_size=4, micro_batch_size=1, pipeline_stages=2, tensor_parallel=2)
    assert layout_of(config).data == 1
    check(config, ModelConfig(**SMALL), cuda=False)


def test_the_table_has_every_rule() -> None:
    lines = table().splitlines()
    assert len(lines) == len(RULES) + 2
    assert all(line.count("|") == 4 for line in lines)


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4))
def test_each_rank_has_one_place(pipeline: int, data: int, tensor: int) -> None:
    layout = Layout(pipeline * data * tensor, tensor, pipeline)
    assert layout.data == data
    places = [layout.coordinates(rank) for rank in range(layout.devices)]
    assert places == list(itertools.product(range(pipeline), range(data), range(tensor)))
    for groups, size in (
        (layout.data_groups(), data),
        (layout.tensor_groups(), tensor),
        (layout.pipeline_groups(), pipeline),
    ):
        assert all(len(group) == size for group in groups)
        assert sorted(rank for group in groups for rank in group) == list(range(layout.devices))
    assert [layout.coordinates(layout.first_of_stage(stage)) for stage in range(pipeline)] == [
        (s, 0, 0) for s in range(pipeline)
    ]


@given(st.lists(st.integers(1, 20), min_size=1, max_size=7), st.integers(1, 7))
def test_no_split_has_a_cheaper_dearest_stage(costs: list[int], stages: int) -> None:
    if stages > len(costs):
        with pytest.raises(ValueError, match="lower it"):
            stage_bounds(costs, stages)
        return
    bounds = stage_bounds(costs, stages)
    assert [layer for part in bounds for layer in part] == list(range(len(costs)))
    assert all(len(part) for part in bounds) and len(bounds) == stages

    def dearest(cuts: tuple[int, ...]) -> int:
        edges = (0, *cuts, len(costs))
        return max(sum(costs[a:b]) for a, b in itertools.pairwise(edges))

    best = min(dearest(cuts) for cuts in itertools.combinations(range(1, len(costs)), stages - 1))
    assert max(sum(costs[layer] for layer in part) for part in bounds) == best


@pytest.mark.parametrize("tied", [True, False])
def test_every_parameter_has_one_owner(tied: bool) -> None:
    model = Transformer(TransformerConfig(**SMALL, vocab_size=50, tie_embeddings=tied))
    initialize(model, 0)
    bounds = split_stages(model, 3)
    found = owners(model, bounds)
    assert found.keys() == dict(model.named_parameters()).keys()
    assert found["embedding.weight"] == 0 and found["norm.weight"] == 2
    assert set(found.values()) == {0, 1, 2}
    assert tied or found["head.weight"] == 2


def test_the_page_on_training_shows_the_table_as_it_is(root: Path) -> None:
    assert table() in (root / "docs" / "training.md").read_text(encoding="utf-8")
