"""`sluice model ..` as a user calls it: what it prints, what it leaves on disk, what it refuses."""

import json
import resource
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertForMaskedLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)

from sluice.model.architecture.config import TransformerConfig
from sluice.model.architecture.initialization import initialize
from sluice.model.architecture.transformer import Transformer
from sluice.model.directory import load_transformer, save_transformer
from sluice.pipelines.cli import build_parser, main

WORDS = ("<pad>", "</s>", "the", "gate", "opens", "and", "water", "flows")
SHAPE: dict[str, Any] = {
    "vocab_size": len(WORDS),
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 32,
}
T5_SHAPE = {"vocab_size": len(WORDS), "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2}


@pytest.fixture(scope="module")
def mistral(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of transformers with a tokenizer."""
    folder = tmp_path_factory.mktemp("theirs") / "mistral"
    torch.manual_seed(0)
    save(MistralForCausalLM(MistralConfig(**SHAPE, num_key_value_heads=1, sliding_window=4)), folder)
    return folder


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("theirs") / "t5"
    torch.manual_seed(0)
    save(T5ForConditionalGeneration(T5Config(**T5_SHAPE)), folder)
    return folder


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("theirs") / "bert"
    torch.manual_seed(0)
    save(BertForMaskedLM(BertConfig(**SHAPE)), folder)
    return folder


def save(model: PreTrainedModel, folder: Path) -> None:
    model.save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="the"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))


def write(path: Path, content: object) -> str:
    path.write_text(json.dumps(content))
    return str(path)


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a failing command says."""
    assert main(arguments) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"sluice model {arguments[1]}: ")
    assert said.err.count("\n") == 1
    return said.err


def test_import_logits_and_export_are_transformers(
    mistral: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, back = tmp_path / "ours", tmp_path / "back"
    assert main(["model", "import", str(mistral), str(ours)]) == 0
    assert capsys.readouterr().out.startswith("imported mistral, ")
    ids = [[2, 3, 4, 5, 6, 7, 2, 3], [7, 6, 5, 4, 3, 2, 1, 0]]
    out = tmp_path / "deep" / "logits.npy"
    assert main(["model", "logits", str(ours), "--ids", write(tmp_path / "ids", ids), "--out", str(out)]) == 0
    found = np.load(out, allow_pickle=False)
    assert found.dtype == np.float32
    assert found.shape == (2, 8, len(WORDS))
    with torch.no_grad():
        expected = MistralForCausalLM.from_pretrained(mistral)(torch.tensor(ids)).logits
    torch.testing.assert_close(torch.from_numpy(found), expected, atol=1e-5, rtol=0)
    capsys.readouterr()
    assert main(["model", "export", str(ours), str(back), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["family"], said["left_out"], said["unwritten"]) == ("mistral", [], [])
    before, after = load_file(mistral / "model.safetensors"), load_file(back / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert json.loads((back / "config.json").read_text()) == json.loads((mistral / "config.json").read_text())
    assert (back / "tokenizer.json").read_bytes() == (mistral / "tokenizer.json").read_bytes()
    assert not list(tmp_path.glob(".*"))


def test_the_models_of_two_stacks_and_of_both_sides(t5: Path, bert: Path, tmp_path: Path) -> None:
    ids, source = [[0, 2, 3], [0, 4, 5]], [[2, 3, 4, 5], [7, 6, 5, 4]]
    files = write(tmp_path / "ids", ids), write(tmp_path / "source", source)
    out = tmp_path / "t5.npy"
    assert main(["model", "logits", str(t5), "--ids", files[0], "--source", files[1], "--out", str(out)]) == 0
    with torch.no_grad():
        model = T5ForConditionalGeneration.from_pretrained(t5)
        expected = model(input_ids=torch.tensor(source), decoder_input_ids=torch.tensor(ids)).logits
    torch.testing.assert_close(torch.from_numpy(np.load(out)), expected, atol=1e-5, rtol=1e-5)
    out = tmp_path / "bert.npy"
    assert main(["model", "logits", str(bert), "--ids", files[0], "--out", str(out)]) == 0
    with torch.no_grad():
        expected = BertForMaskedLM.from_pretrained(bert)(torch.tensor(ids)).logits
    torch.testing.assert_close(torch.from_numpy(np.load(out)), expected, atol=1e-5, rtol=1e-5)


def test_a_seed_gives_one_text_and_temperature_zero_the_likeliest(
    mistral: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def text(*more: str) -> str:
        asked = ["model", "generate", str(mistral), "--prompt", "the gate", "--max-tokens", "12", *more]
        assert main(asked) == 0
        return capsys.readouterr().out

    assert text("--seed", "1") == text("--seed", "1")
    assert len({text("--seed", str(seed)) for seed in range(4)}) > 1
    assert text("--temperature", "0", "--seed", "1") == text("--temperature", "0", "--seed", "2")
    said = json.loads(text("--temperature", "0", "--json"))
    greedy = MistralForCausalLM.from_pretrained(mistral).generate(
        torch.tensor([[2, 3]]), max_new_tokens=12, do_sample=False, eos_token_id=2, pad_token_id=0
    )
    # Token 2 ends the text here: the id in the model's own generation_config.json.
    assert json.loads((mistral / "generation_config.json").read_text())["eos_token_id"] == 2
    assert said["tokens"] == [token for token in greedy[0, 2:].tolist() if token != 2]
    assert said["text"].split() == [WORDS[token] for token in said["tokens"]]


def test_a_t5_generates_from_its_source(t5: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [
        "model",
        "generate",
        str(t5),
        "--prompt",
        "water flows",
        "--max-tokens",
        "5",
        "--temperature",
        "0",
        "--json",
    ]
    assert main(asked) == 0
    expected = T5ForConditionalGeneration.from_pretrained(t5).generate(
        torch.tensor([[6, 7]]), max_new_tokens=5, do_sample=False, decoder_start_token_id=0
    )
    tokens = json.loads(capsys.readouterr().out)["tokens"]
    assert tokens == [token for token in expected[0, 1:].tolist() if token != 1]


@pytest.mark.process
def test_a_compiled_step_writes_the_same_text(mistral: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["model", "generate", str(mistral), "--prompt", "the gate", "--max-tokens", "12", "--temperature", "1"]
    assert main(asked) == 0
    text = capsys.readouterr().out
    assert main([*asked, "--compile"]) == 0
    said = capsys.readouterr()
    assert said.out == text
    assert said.err == "compiling a step of decoding, which takes half a minute or more\n"


def test_help_says_what_the_default_temperature_does(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build_parser().parse_args(["model", "generate", "--help"])
    assert "0 takes the likeliest token (default: 0.8)" in " ".join(capsys.readouterr().out.split())


def test_the_kernel_can_be_named_and_is_told(mistral: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ids = write(tmp_path / "ids", [[2, 3, 4, 5, 6, 7]])
    found = {}
    for kernel in ("reference", "sdpa"):
        out = tmp_path / f"{kernel}.npy"
        arguments = ["model", "logits", str(mistral), "--ids", ids, "--out", str(out), "--kernel", kernel, "--json"]
        assert main(arguments) == 0
        assert json.loads(capsys.readouterr().out)["kernels"] == [kernel]
        found[kernel] = np.load(out)
    np.testing.assert_allclose(found["sdpa"], found["reference"], atol=1e-5)


def test_logits_that_cannot_be_written_leave_nothing_behind(
    mistral: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["model", "logits", str(mistral), "--ids", write(tmp_path / "ids", [[2, 3, 4, 5] * 8])]
    folder = tmp_path / "out"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, before[1]))
    try:
        said = refused([*asked, "--out", str(folder / "logits.npy")], capsys)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "logits.npy cannot be written: File too large" in said
    assert list(folder.iterdir()) == []


def test_two_runs_that_write_one_file_at_once_both_end(
    mistral: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, replace = tmp_path / "logits.npy", Path.replace
    asked = ["model", "logits", str(mistral), "--ids", write(tmp_path / "ids", [[2, 3]]), "--out", str(out)]

    def after_another_run(partial: Path, to: Path) -> Path:
        monkeypatch.setattr(Path, "replace", replace)
        assert main(asked) == 0
        return replace(partial, to)

    monkeypatch.setattr(Path, "replace", after_another_run)
    assert main(asked) == 0
    assert np.load(out).shape == (1, 2, len(WORDS))
    assert not list(tmp_path.glob(".*"))


def test_a_model_of_no_family_has_logits_and_no_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shape = TransformerConfig(vocab_size=8, hidden_size=16, layers=1, heads=2, context=8, positions="alibi")
    model = Transformer(shape)
    initialize(model, 0)
    save_transformer(tmp_path / "ours", model)
    ids, out = write(tmp_path / "ids", [[1, 2, 3]]), tmp_path / "out.npy"
    assert main(["model", "logits", str(tmp_path / "ours"), "--ids", ids, "--out", str(out)]) == 0
    with torch.no_grad():
        assert torch.equal(torch.from_numpy(np.load(out)), model.eval()(torch.tensor([[1, 2, 3]])))
    capsys.readouterr()
    said = refused(["model", "export", str(tmp_path / "ours"), str(tmp_path / "theirs")], capsys)
    assert "(llama, mistral, phi3, smollm3, granite: positions 'alibi', not 'rope')" in said
    assert not (tmp_path / "theirs").exists()
    assert "in our own fields already" in refused(
        ["model", "import", str(tmp_path / "ours"), str(tmp_path / "theirs")], capsys
    )


def test_a_setting_that_transformers_has_no_field_for_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shape = TransformerConfig(
        vocab_size=8, hidden_size=16, head_size=8, layers=1, heads=2, intermediate_size=24, context=8, dropout=0.25
    )
    model = Transformer(shape)
    initialize(model, 0)
    save_transformer(tmp_path / "ours", model)
    assert load_transformer(tmp_path / "ours").config.dropout == 0.25
    assert main(["model", "export", str(tmp_path / "ours"), str(tmp_path / "theirs")]) == 0
    assert "left out, without effect on the logits: settings dropout" in capsys.readouterr().out
    assert "sluice" not in json.loads((tmp_path / "theirs" / "config.json").read_text())
    assert load_transformer(tmp_path / "theirs").config.dropout == 0


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([[1, 2], [3]], "row 1 has 1 ids and row 0 has 2"),
        ([[1, 2], [3, 8]], "row 1 holds token 8, which is outside the vocabulary of 0 to 7"),
        ([[1, -1]], "row 0 holds token -1"),
        ([list(range(8)) * 5], "row 0 has 40 tokens, more than the context 32"),
        ([[1, 2.5]], "row 0 holds '2.5', which is no token id"),
        ([[True]], "row 0 holds 'True'"),
        ([[]], "row 0 is [], not a list of at least one token id"),
        ([], "a list of lists of token ids"),
        ({"ids": [[1]]}, "a list of lists of token ids"),
        ([1, 2], "row 0 is 1, not a list"),
    ],
)
def test_ids_that_are_none_are_refused_by_row(
    mistral: Path, tmp_path: Path, content: object, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ids, out = write(tmp_path / "ids", content), tmp_path / "out.npy"
    assert said in refused(["model", "logits", str(mistral), "--ids", ids, "--out", str(out)], capsys)
    assert not out.exists()


def test_a_source_goes_with_an_encoder_decoder_and_nothing_else(
    mistral: Path, t5: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ids, two = write(tmp_path / "one", [[1, 2]]), write(tmp_path / "two", [[1, 2], [3, 4]])
    asked = ["--ids", ids, "--out", str(tmp_path / "out")]
    assert "--source would be ignored" in refused(["model", "logits", str(mistral), *asked, "--source", ids], capsys)
    assert "needs --source" in refused(["model", "logits", str(t5), *asked], capsys)
    assert "2 rows and --ids 1" in refused(["model", "logits", str(t5), *asked, "--source", two], capsys)
    (tmp_path / "broken").write_text("[[1, 2")
    asked[1] = str(tmp_path / "broken")
    assert "is not JSON" in refused(["model", "logits", str(t5), *asked], capsys)
    asked[1] = str(tmp_path / "absent")
    assert "cannot be read" in refused(["model", "logits", str(t5), *asked], capsys)


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--max-tokens", "0", "--max-tokens 0 must be at least 1"),
        ("--temperature", "-1", "--temperature -1.0 must be at least 0"),
        ("--temperature", "nan", "--temperature nan"),
        ("--top-p", "0", "--top-p 0.0 must be above 0"),
        ("--top-p", "1.5", "--top-p 1.5"),
        ("--seed", "-1", "--seed -1"),
        ("--prompt", "", "--prompt '' has no token"),
        ("--prompt", "the " * 40, "prompt of 40 tokens must have at least 1 and at most 31"),
    ],
)
def test_settings_of_generation_out_of_range(
    mistral: Path, option: str, value: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refused(["model", "generate", str(mistral), "--prompt", "the", option, value], capsys)


def test_room_for_fewer_tokens_is_said_before_they_come(mistral: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompt = " ".join(["gate"] * 29)
    arguments = ["model", "generate", str(mistral), "--prompt", prompt, "--temperature", "5", "--max-tokens"]
    assert main([*arguments, "3"]) == 0
    assert capsys.readouterr().err == ""
    assert main([*arguments, "4"]) == 0
    said = capsys.readouterr().err
    assert said == "--max-tokens 4 exceeds the 3 tokens that fit beside the 29 of the prompt, in a context of 32\n"


def test_what_does_not_generate_says_so(bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "generates none" in refused(["model", "generate", str(bert), "--prompt", "the"], capsys)
    assert main(["model", "import", str(bert), str(tmp_path / "ours")]) == 0
    (tmp_path / "ours" / "tokenizer.json").unlink()
    capsys.readouterr()
    said = refused(["model", "generate", str(tmp_path / "ours"), "--prompt", "the"], capsys)
    assert "tokenizer.json does not exist" in said


def test_what_is_in_the_way_is_replaced_only_where_that_is_meant(
    mistral: Path, bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    assert main(["model", "import", str(mistral), str(out)]) == 0
    assert main(["model", "import", str(bert), str(out)]) == 0
    assert load_transformer(out).config.kind == "encoder"
    (out / "lineage.json").unlink()
    capsys.readouterr()
    assert "add --force" in refused(["model", "import", str(mistral), str(out)], capsys)
    assert load_transformer(out).config.kind == "encoder"
    assert main(["model", "import", str(mistral), str(out), "--force"]) == 0
    assert load_transformer(out).config.kind == "decoder"
    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / "thesis.tex").write_text("years of work")
    capsys.readouterr()
    said = refused(["model", "import", str(mistral), str(strange), "--force"], capsys)
    assert "not a model directory: name an empty or a new folder" in said
    assert (strange / "thesis.tex").is_file()
    assert "is a file" in refused(["model", "import", str(mistral), str(strange / "thesis.tex" / "out")], capsys)
    assert "lie in one another" in refused(["model", "export", str(out), str(out / "deeper")], capsys)
    assert "lie in one another" in refused(["model", "export", str(out), str(out)], capsys)
    assert "/proc/out cannot be written: " in refused(["model", "import", str(mistral), "/proc/out"], capsys)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_fault_leaves_nothing_behind(
    mistral: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    assert main(["model", "import", str(mistral), str(source)]) == 0
    path = source / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    capsys.readouterr()
    # By its checksum where there is one, and without.
    assert f"{name} is not the file that was saved" in refused(["model", "export", str(source), str(out)], capsys)
    (source / "lineage.json").unlink()
    assert f"{name} is damaged" in refused(["model", "import", str(source), str(out)], capsys)
    assert {path.name for path in tmp_path.iterdir()} == {"source"}


def test_a_field_that_could_matter_is_imported_only_where_it_is_ignored(
    mistral: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "source"
    shutil.copytree(mistral, source)
    content = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**content, "tokenizer_class": "X", "block_kind": "new"}))
    ours = ["model", "import", str(source), str(tmp_path / "ours")]
    assert "unknown field block_kind = 'new' could change the logits: import with --ignore block_kind" in refused(
        ours, capsys
    )
    assert main([*ours, "--ignore", "block_kind"]) == 0
    assert json.loads((tmp_path / "ours" / "lineage.json").read_text())["ignored"] == {"block_kind": "new"}
    assert json.loads((tmp_path / "ours" / "config.json").read_text())["tokenizer_class"] == "X"


def test_a_name_of_a_hub_is_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(["model", "import", "owner/name", str(tmp_path / "out")], capsys)
    assert "owner/name is not a folder" in said


def test_a_tokenizer_that_was_put_there_stays_when_the_model_comes_again(
    mistral: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare, ours = tmp_path / "bare", tmp_path / "ours"
    shutil.copytree(mistral, bare)
    (bare / "tokenizer.json").unlink()
    assert main(["model", "import", str(bare), str(ours)]) == 0
    assert "no tokenizer.json came with it" in capsys.readouterr().out
    shutil.copy2(mistral / "tokenizer.json", ours / "tokenizer.json")
    assert main(["model", "import", str(bare), str(ours)]) == 0
    assert capsys.readouterr().out.endswith("kept, having been put there: tokenizer.json\n")
    assert (ours / "tokenizer.json").read_bytes() == (mistral / "tokenizer.json").read_bytes()
    # Still theirs who put it: it may be replaced by one that comes with the model.
    assert main(["model", "generate", str(ours), "--prompt", "the gate", "--max-tokens", "2"]) == 0
    assert main(["model", "import", str(mistral), str(ours)]) == 0
    assert "kept" not in capsys.readouterr().out


@pytest.mark.parametrize("content", ["{}", "nope"])
def test_a_damaged_tokenizer_is_refused_as_it_comes(
    mistral: Path, content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(mistral, damaged)
    (damaged / "tokenizer.json").write_text(content)
    assert "tokenizer.json is damaged" in refused(["model", "import", str(damaged), str(tmp_path / "ours")], capsys)
    assert not (tmp_path / "ours").exists()


def test_surprisal_prints_sums_and_colours_a_page(mistral: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["model", "import", str(mistral), str(tmp_path / "ours")]) == 0
    text, page = tmp_path / "text.txt", tmp_path / "page.html"
    text.write_text("the gate opens and the gate opens")
    capsys.readouterr()
    assert main(["model", "surprisal", str(tmp_path / "ours"), str(text), "--out", str(page), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["tokens"]) == 7
    assert found["nats"] == pytest.approx(sum(token["nats"] for token in found["tokens"]))
    assert found["bits"] == pytest.approx(found["nats"] / np.log(2))
    assert page.read_text().count('title="') == 7
    text.write_bytes(b"\xff")
    assert main(["model", "surprisal", str(tmp_path / "ours"), str(text)]) == 1
    assert "is no UTF-8 text" in capsys.readouterr().err
    for wrong, reason in ((tmp_path / "none.txt", "does not exist"), (tmp_path, "is a folder")):
        assert main(["model", "surprisal", str(tmp_path / "ours"), str(wrong)]) == 1
        assert f"{wrong} {reason}: name a text file" in (said := capsys.readouterr().err) and "Errno" not in said
