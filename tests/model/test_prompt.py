"""Prompts as token ids: bos once, the model's own chat template as transformers applies it, ids outside refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizer_fixtures import TOKENIZERS, byte_level, llama
from transformers import AutoTokenizer

from sluice.data.tokenization import CHAT_TEMPLATE
from sluice.model.directory import load_tokenizer
from sluice.model.evaluation.prompts import chat_prompt, completion_prompt
from sluice.model.text.chat_template import ChatTemplate, PromptMessage, chat_template
from sluice.model.text.prompt import PromptEncoder, load_prompt_encoder, special_ids, start_ids

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}"
    "{% set system = '<<SYS>>\\n' + messages[0]['content'] + '\\n<</SYS>>\\n' %}"
    "{% set rest = messages[1:] %}{% else %}{% set system = '' %}{% set rest = messages %}{% endif %}\n"
    "{% for m in rest %}\n    {% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}\n"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}\n"
    "    {%- if m['role'] == 'user' %}{{ bos_token + '[INST] ' + (system if loop.index0 == 0 else '') }}"
    "{{ m['content'].strip() + ' [/INST]' }}\n    {%- else %}{% generation %}{{ ' ' + m['content'] + eos_token }}"
    "{% endgeneration %}{% endif %}{% endfor %}"
)
MACROS = (
    "{%- macro line(m) -%}{{ m.role | upper }}: {{ m.content | trim }}{%- endmacro -%}"
    "{%- set ns = namespace(count=0) -%}{%- for m in messages -%}{%- if m.role == 'system' -%}{%- continue -%}"
    "{%- endif -%}{%- set ns.count = ns.count + 1 -%}{{ line(m) }} {{ {'n': ns.count, 'ü': '<'} | tojson }}\n"
    "{%- endfor -%}{%- if tools is not none -%}tools{%- endif -%}{{ dict(a=1).a }}{{ strftime_now('%Y') | length }}"
)
MESSAGES = (
    PromptMessage("system", "Be brief."),
    PromptMessage("user", "Who <b>is</b> 'it'?"),
    PromptMessage("assistant", "The champion"),
    PromptMessage("user", "Why?  "),
)


def saved(folder: Path, name: str, **settings: Any) -> Path:
    TOKENIZERS[name]().save(str(folder / "tokenizer.json"))
    content = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", **settings}
    (folder / "tokenizer_config.json").write_text(json.dumps(content))
    (folder / "config.json").write_text(json.dumps({"eos_token_id": 2}))
    return folder


@pytest.mark.parametrize("template", [CHATML, LLAMA2, MACROS], ids=["chatml", "llama 2", "macros"])
@pytest.mark.parametrize("place", ["field", "file"])
def test_a_chat_is_rendered_and_encoded_as_transformers_does(tmp_path: Path, template: str, place: str) -> None:
    saved(tmp_path, "llama", **({"chat_template": template} if place == "field" else {}))
    if place == "file":
        (tmp_path / "chat_template.jinja").write_text(template)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    ours = load_prompt_encoder(tmp_path, llama(), 400)
    messages = [{"role": each.role, "content": each.content} for each in MESSAGES]
    expected = theirs.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    source = chat_template({"chat_template": template, "bos_token": "<s>", "eos_token": {"content": "</s>"}}, None)
    assert source is not None
    assert source.render(MESSAGES) == expected
    assert ours.encode(MESSAGES) == theirs.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]


def test_a_named_list_of_templates_has_a_default() -> None:
    found = chat_template(
        {"chat_template": [{"name": "rag", "template": "r"}, {"name": "default", "template": "d"}]}, None
    )
    assert found is not None
    assert found.render(MESSAGES) == "d"
    assert chat_template({}, None) is None
    assert chat_template({"chat_template": ["d", {"name": "default"}]}, None) is None


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (LLAMA2, "Conversation roles must alternate"),
        ("{{ messages.__class__.__mro__ }}", "unsafe"),
        ("{{ namespace(__init__=1) }}", "a namespace has no attribute '__init__'"),
        ("{% for i in range(10**9) %}{% endfor %}", "Range too big"),
        ("{% if %}", "Expected an expression"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ messages.append(1) }}", "unsafe|not safe|has no attribute"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "it does not end"),
    ],
)
def test_a_template_that_fails_or_reaches_out_is_one_line(template: str, said: str) -> None:
    with pytest.raises(ValueError, match=f"the model's chat template refuses this conversation: .*(?:{said})") as no:
        ChatTemplate(template, {"bos_token": "", "eos_token": ""}).render([*MESSAGES, MESSAGES[-1]])
    assert "\n" not in str(no.value)


def test_a_special_token_in_a_message_stays_text(tmp_path: Path) -> None:
    saved(tmp_path, "llama", chat_template=CHATML)
    encoder = load_prompt_encoder(tmp_path, llama(), 400)
    ids = encoder.encode([PromptMessage("user", "a</s>b<s>")])
    assert {1, 2}.isdisjoint(ids)
    assert llama().decode(ids).replace("\u200b", "").startswith("<|im_start|>user\na</s>b<s>")


@pytest.mark.parametrize(("name", "start"), [("byte-level", []), ("llama", [1]), ("unigram", [0]), ("wordpiece", [2])])
def test_what_begins_a_text_is_there_once(name: str, start: list[int]) -> None:
    tokenizer = TOKENIZERS[name]()
    assert start_ids(tokenizer) == start
    encoder = PromptEncoder(tokenizer)
    plain = tokenizer.encode("the fox", add_special_tokens=False).ids
    assert encoder.encode("the fox") == encoder.encode_marked("the fox") == [*start, *plain]
    begun = encoder.encode_marked("".join(map(tokenizer.id_to_token, start)) + "the fox")
    assert begun[: len(start) + 1].count(start[0]) == 1 if start else begun == plain


def test_models_trained_here_keep_their_layout(tmp_path: Path) -> None:
    saved(tmp_path, "byte-level", chat_template=CHAT_TEMPLATE, eos_token="<|endoftext|>")
    encoder = load_prompt_encoder(tmp_path, byte_level(), 400)
    assert encoder.stop_ids == {0, 2, 3}
    ids = encoder.encode(MESSAGES)
    assert byte_level().decode(ids, skip_special_tokens=False) == (
        "<|user|>Be brief.\n\nWho <b>is</b> 'it'?<|end|><|assistant|>The champion<|end|>"
        "<|user|>Why?  <|end|><|assistant|>"
    )


def test_every_end_that_the_files_name_ends_an_answer(tmp_path: Path) -> None:
    saved(tmp_path, "llama", eos_token={"content": "<unk>"})
    assert load_prompt_encoder(tmp_path, llama(), 400).stop_ids == {0, 2}
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 8], "pad_token_id": None}))
    assert load_prompt_encoder(tmp_path, llama(), 400).stop_ids == {0, 7, 8}
    assert special_ids(tmp_path, "pad_token_id") == []


def test_a_token_outside_the_vocabulary_is_refused_when_it_occurs(tmp_path: Path) -> None:
    tokenizer = llama()
    tokenizer.add_tokens(["[PAD]"])
    size = tokenizer.get_vocab_size() - 1
    encoder = PromptEncoder(tokenizer, vocab_size=size)
    assert encoder.encode("the fox")[0] == 1
    for encode in (encoder.encode, encoder.encode_marked, encoder.encode_text):
        with pytest.raises(ValueError, match=rf"token '▁?\[PAD\]' of id {size}, which is outside"):
            encode("the [PAD] fox")


def test_truncation_and_padding_of_a_tokenizer_lose_no_text(tmp_path: Path) -> None:
    tokenizer = llama()
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=8, pad_id=0)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    loaded = load_tokenizer(tmp_path / "tokenizer.json")
    text = "the quick fox and the lazy dogs"
    assert PromptEncoder(loaded).encode(text) == llama().encode(text).ids
    assert start_ids(loaded) == [1]
    assert loaded.encode("a").ids == llama().encode("a").ids


def test_a_chat_without_a_template_or_our_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the model has no chat template, and its tokenizer no <\|user\|>"):
        PromptEncoder(llama()).encode([PromptMessage("user", "hi")])


def test_a_question_of_the_evaluation_is_in_the_model_s_own_template_and_cut_to_fit(tmp_path: Path) -> None:
    saved(tmp_path, "llama", chat_template="{{ bos_token }}Q: {{ messages[0].content }}\nA:")
    encoder = load_prompt_encoder(tmp_path, llama(), 400)
    assert chat_prompt(encoder, "the fox") == encoder.encode([PromptMessage("user", "the fox")])
    cut = chat_prompt(encoder, "the lazy dog " * 30, max_tokens=40)
    assert len(cut) <= 40
    text = llama().decode(cut, skip_special_tokens=False)
    assert text.startswith("<s> Q: the lazy dog")
    assert text.endswith("A:")
    assert cut.count(1) == 1, "bos once"
    with pytest.raises(ValueError, match="the chat template alone"):
        chat_prompt(encoder, "the fox", max_tokens=2)


def test_a_document_begins_with_the_token_that_the_files_name(tmp_path: Path) -> None:
    """A tokenizer that puts nothing before a text, and has no end-of-text token of ours."""
    tokenizer = llama()
    tokenizer.post_processor = None
    saved(tmp_path, "llama")
    assert completion_prompt(load_prompt_encoder(tmp_path, tokenizer, 400), "fox")[0] == tokenizer.token_to_id("<s>")
    with pytest.raises(ValueError, match="no bos_token"):
        completion_prompt(PromptEncoder(tokenizer), "fox")
