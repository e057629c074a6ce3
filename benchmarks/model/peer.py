"""transformers' LlamaForCausalLM as a candidate, as its documentation uses it: no setting of ours."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from benchmarks.model.case import Case

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM


def build(case: Case, state: Mapping[str, Tensor] | None) -> "LlamaForCausalLM":
    """The model on the case's device in its precision, with the weights of `state` or random ones."""
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = case.model
    config = LlamaConfig(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=case.sequence,
        rms_norm_eps=1e-5,
        tie_word_embeddings=shape.tie_embeddings,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    if state is not None:
        # A tied head is not in the file.
        missing, unknown = model.load_state_dict(state, strict=False)
        assert not unknown, unknown
        assert set(missing) <= {"lm_head.weight"}, missing
    # transformers wraps `to`, whose types are lost.
    moved: Any = model
    moved.to(case.device, torch.bfloat16 if case.precision == "bf16" else torch.float32)
    return model


def trainer(model: "LlamaForCausalLM", case: Case) -> Callable[[Tensor], Tensor]:
    """The loss of ids [rows, sequence], by `labels`."""
    model.train()
    called = torch.compile(model) if case.compiled else model

    def loss(ids: Tensor) -> Tensor:
        # A cache of keys and values is of no use to training, and asking for none is what its Trainer does.
        found: Tensor = called(input_ids=ids, labels=ids, use_cache=False).loss
        return found

    return loss


@torch.no_grad()
def common_loss(model: "LlamaForCausalLM", ids: Tensor) -> float:
    """Mean loss of predicting each token of ids [rows, sequence] but the first."""
    return float(model(input_ids=ids, labels=ids, use_cache=False).loss)


def generator(model: Any, case: Case, new_tokens: int) -> Callable[[Tensor], list[int]]:
    """Greedy continuation of ids [1, prompt] by `generate()`, whose cache is on by default.

    Compiled it is by its own setting, over the cache of one size that this needs.
    """
    from transformers import CompileConfig

    model.eval()
    settings: dict[str, Any] = {"max_new_tokens": new_tokens, "do_sample": False}
    if case.compiled:
        compiling = CompileConfig()
        # Elsewhere than on a GPU it compiles only when told so.
        compiling._compile_all_devices = True  # type: ignore[assignment]
        settings |= {"cache_implementation": "static", "compile_config": compiling}

    def continued(ids: Tensor) -> list[int]:
        mask = torch.ones_like(ids)
        out = model.generate(ids, attention_mask=mask, **settings)
        return [int(token) for token in out[0, ids.shape[1] :]]

    return continued


def write_weights(case: Case, path: str) -> None:
    """A safetensors file of random weights, larger than the usual so that an error would show in the loss."""
    from safetensors.torch import save_file

    state = build(case, None).state_dict()
    if case.model.tie_embeddings:
        del state["lm_head.weight"]
    lively = {name: (weight * 3 if weight.ndim > 1 else weight).contiguous() for name, weight in state.items()}
    save_file(lively, path)
