"""`sluice model generate` as a user calls it: sampling, types, chat, stop texts and streaming, beside transformers."""

import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizer_fixtures import TOKENIZERS
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from sluice.model.directory import load_model, load_transformer, read_json
from sluice.pipelines.cli import main

CHAT = "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[assistant]"


def make(folder: Path, name: str = "llama", **fields: Any) -> Path:
    tokenizer = TOKENIZERS[name]()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size() + 3,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=96,
        initializer_range=0.5,
        **{"bos_token_id": 1, "eos_token_id": 2, **fields},
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": CHAT}))
    return folder


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("llama") / "llama")


def said(capsys: pytest.CaptureFixture[str], folder: Path, *more: str, prompt: str = "the quick fox") -> dict[str, Any]:
    capsys.readouterr()
    assert main(["model", "generate", str(folder), "--prompt", prompt, "--json", "--max-tokens", "24", *more]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def greedy(folder: Path, ids: list[int], **options: Any) -> list[int]:
    """Return the text that transformers generates."""
    theirs = LlamaForCausalLM.from_pretrained(folder)
    given = torch.tensor([ids])
    options |= {"attention_mask": torch.ones_like(given), "pad_token_id": 0}
    found = theirs.generate(given, max_new_tokens=24, do_sample=False, **options)
    return [token for token in found[0, len(ids) :].tolist() if token != 2]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_every_kind_of_tokenizer_writes_what_transformers_does(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make(tmp_path / "model", name, bos_token_id=None, eos_token_id=None)
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    found = said(capsys, folder, "--temperature", "0")
    ids = AutoTokenizer.from_pretrained(folder).encode("the quick fox")
    if name == "wordpiece":
        assert ids.pop() == 3  # [SEP] would end the prompt
    expected = greedy(folder, ids)
    # Ids of our own end tokens end an answer here.
    assert expected[: len(found["tokens"])] == found["tokens"]
    assert found["text"] == TOKENIZERS[name]().decode(found["tokens"])


def test_bos_that_the_prompt_spells_is_not_doubled(llama: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = [said(capsys, llama, "--temperature", "0", prompt=prompt) for prompt in ("the fox", "<s>the fox")]
    assert found[0] == found[1]


def test_a_chat_is_that_of_the_models_template(llama: Path, capsys: pytest.CaptureFixture[str]) -> None:
    messages = [{"role": "user", "content": "the fox"}]
    ids = AutoTokenizer.from_pretrained(llama).apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    found = said(capsys, llama, "--chat", "--temperature", "0", "--dtype", "fp32", prompt="the fox")
    assert found["tokens"] == greedy(llama, ids)
    assert said(capsys, llama, "--chat", prompt="the fox") != said(capsys, llama, prompt="the fox")


def test_the_repetition_penalty_is_that_of_transformers(llama: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ids = AutoTokenizer.from_pretrained(llama).encode("the quick fox")
    plain = said(capsys, llama, "--temperature", "0")["tokens"]
    for penalty in ("1.3", "0.8"):
        found = said(capsys, llama, "--temperature", "0", "--repetition-penalty", penalty)["tokens"]
        assert found == greedy(llama, ids, repetition_penalty=float(penalty))
        assert found != plain


def test_one_of_the_k_likeliest_is_drawn(llama: Path, capsys: pytest.CaptureFixture[str]) -> None:
    likeliest = said(capsys, llama, "--temperature", "0")
    assert said(capsys, llama, "--top-k", "1", "--temperature", "5")["tokens"] == likeliest["tokens"]
    drawn = {str(said(capsys, llama, "--top-k", "2", "--seed", str(seed))["tokens"]) for seed in range(4)}
    assert len(drawn) > 1


def test_an_answer_ends_before_a_stop_text(llama: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = said(capsys, llama, "--temperature", "0")["text"]
    middle = whole[len(whole) // 2 : len(whole) // 2 + 2]
    found = said(capsys, llama, "--temperature", "0", "--stop", "never there", "--stop", middle)
    assert found["text"] == whole[: whole.index(middle)]


def test_text_is_written_as_it_comes(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []

    class Out(io.StringIO):
        def write(self, text: str) -> int:
            written.append(text)
            return len(text)

    monkeypatch.setattr(sys, "stdout", Out())
    assert main(["model", "generate", str(llama), "--prompt", "the", "--temperature", "0", "--max-tokens", "24"]) == 0
    assert sum(bool(piece.strip()) for piece in written) > 5


def test_weights_in_bf16_are_computed_in_bf16_unless_told_otherwise(
    llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    half = shutil.copytree(llama, tmp_path / "half")
    weights = {name: weight.bfloat16() for name, weight in load_file(llama / "model.safetensors").items()}
    save_file(weights, half / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "ids").write_text("[[1, 2, 3, 4]]")

    def logits(folder: Path, dtype: str) -> bytes:
        out = tmp_path / f"{folder.name}-{dtype}.npy"
        arguments = ["model", "logits", str(folder), "--ids", str(tmp_path / "ids"), "--out", str(out)]
        assert main([*arguments, "--dtype", dtype]) == 0
        return out.read_bytes()

    assert logits(half, "auto") == logits(half, "bf16") != logits(half, "fp32")
    assert logits(llama, "auto") == logits(llama, "fp32") != logits(llama, "bf16")
    assert load_transformer(half, None).embedding.weight.dtype == torch.bfloat16
    assert load_model(half)[0].embedding.weight.dtype == torch.float32
    one = said(capsys, half, "--temperature", "0")
    assert one == said(capsys, half, "--temperature", "0", "--dtype", "bf16")


def test_a_token_beyond_the_embedding_is_refused_when_it_occurs(
    llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    larger = shutil.copytree(llama, tmp_path / "larger")
    tokenizer = TOKENIZERS["llama"]()
    tokenizer.add_tokens([f"[extra{number}]" for number in range(5)])
    tokenizer.save(str(larger / "tokenizer.json"))
    ours = tmp_path / "ours"
    assert main(["model", "import", str(larger), str(ours)]) == 0
    assert (
        "tokenizer.json has 2 tokens more than the model: text with one of them is refused" in capsys.readouterr().out
    )
    assert said(capsys, ours, "--temperature", "0") == said(capsys, llama, "--temperature", "0")
    assert main(["model", "generate", str(ours), "--prompt", "the [extra4] fox"]) == 1
    size = read_json(ours / "config.json")["vocab_size"]
    error = capsys.readouterr().err
    assert f"of id {size + 1}, which is outside the model's vocabulary of 0 to {size - 1}" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--top-k", "0"], "--top-k 0 must be at least 1"),
        (["--repetition-penalty", "0"], "--repetition-penalty 0.0 must be above 0"),
        (["--stop", ""], "--stop '' would end every answer at once"),
    ],
)
def test_settings_out_of_range(llama: Path, options: list[str], error: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model", "generate", str(llama), "--prompt", "the", *options]) == 1
    assert error in capsys.readouterr().err
