"""A Llama made here is a Llama to transformers: logits, gradients, loss, generation and tokenizer."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from sluice.model.architecture.config import TransformerConfig
from sluice.model.architecture.generation import GenerationOptions, generate
from sluice.model.architecture.initialization import initialize
from sluice.model.architecture.loss import cross_entropy_sum
from sluice.model.architecture.transformer import Transformer
from sluice.model.directory import load_transformer, save_model
from sluice.model.huggingface import from_huggingface, to_huggingface, write_config

SHAPES: list[dict[str, Any]] = [
    {"heads": 4, "kv_heads": 2, "tie_embeddings": True},
    {"heads": 4, "kv_heads": 1, "tie_embeddings": False},
    {"heads": 2, "kv_heads": 2, "tie_embeddings": True, "rope_theta": 500_000.0, "norm_eps": 1e-6},
]


def shape_of(options: dict[str, Any]) -> TransformerConfig:
    return TransformerConfig(
        vocab_size=260,
        hidden_size=32,
        layers=3,
        head_size=32 // options["heads"],
        intermediate_size=48,
        context=64,
        **options,
    )


def lively(model: torch.nn.Module) -> None:
    """Weights far from their small start, norms far from one, so that an error in any of them shows."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            noise = torch.randn(weight.shape, generator=generator)
            weight.copy_(noise * 0.2 if weight.ndim == 2 else 1 + noise * 0.3)


def tokens(rows: int, length: int) -> torch.Tensor:
    return torch.randint(0, 260, (rows, length), generator=torch.Generator().manual_seed(2))


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
    template = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    fields = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|endoftext|>",
        "chat_template": template,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(fields))
    return folder


@pytest.mark.parametrize("options", SHAPES)
def test_transformers_loads_our_directory_and_computes_our_logits(
    tmp_path: Path, tokenizer_folder: Path, options: dict[str, Any]
) -> None:
    model = Transformer(shape_of(options))
    initialize(model, 0)
    lively(model)
    save_model(tmp_path / "model", model, tokenizer_folder, {})
    theirs, info = AutoModelForCausalLM.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert isinstance(theirs, LlamaForCausalLM)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    ids = tokens(2, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(ids), theirs(ids).logits, atol=1e-5, rtol=1e-5)
        answer = theirs.generate(ids[:1, :8], max_new_tokens=20, do_sample=False)[0, 8:].tolist()
    ours = generate(model, ids[0, :8].tolist(), 20, GenerationOptions(stop_ids=[256, 259]))
    assert answer[: len(ours)] == ours
    assert len(answer) == len(ours) or answer[len(ours)] in (256, 259)


@pytest.mark.parametrize("options", SHAPES)
def test_we_load_what_transformers_saved(tmp_path: Path, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    theirs = LlamaForCausalLM(LlamaConfig(**write_config(shape_of(options)))).eval()
    lively(theirs)
    theirs.save_pretrained(tmp_path, max_shard_size="40KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    ours = load_transformer(tmp_path)
    ids = tokens(2, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(ids), theirs(ids).logits, atol=1e-5, rtol=1e-5)


def test_gradients_and_loss_agree_too() -> None:
    shape = shape_of(SHAPES[0])
    model, theirs = Transformer(shape), LlamaForCausalLM(LlamaConfig(**write_config(shape)))
    lively(model)
    theirs.load_state_dict(to_huggingface(model.state_dict(), shape), strict=False)
    ids = tokens(2, 33)
    total, count = cross_entropy_sum(model, ids[:, :-1], ids[:, 1:])
    (total / count).backward()
    expected = theirs(ids, labels=ids).loss
    expected.backward()
    torch.testing.assert_close((total / count).detach(), expected.detach())
    gradients = {name: weight.grad for name, weight in theirs.named_parameters()}
    for name, gradient in from_huggingface(gradients, shape).items():
        torch.testing.assert_close(model.get_parameter(name).grad, gradient, atol=1e-5, rtol=1e-4)


def test_the_translation_is_its_own_inverse() -> None:
    for options in SHAPES:
        state = Transformer(shape_of(options)).state_dict()
        back = from_huggingface(to_huggingface(state, shape_of(options)), shape_of(options))
        assert back.keys() == state.keys()
        assert all(torch.equal(back[name], state[name]) for name in state)


def test_transformers_reads_the_tokenizer_as_it_stands(tmp_path: Path, tokenizer_folder: Path) -> None:
    model = Transformer(shape_of(SHAPES[0]))
    initialize(model, 0)
    save_model(tmp_path / "model", model, tokenizer_folder, {})
    theirs = AutoTokenizer.from_pretrained(tmp_path / "model")
    ours = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    text = "def f(x):\n    return x  # 世界"
    assert theirs.encode(text) == ours.encode(text).ids
    assert theirs.decode(theirs.encode(text)) == text
    chat = theirs.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)
    assert chat == "<|user|>hi<|end|>"
