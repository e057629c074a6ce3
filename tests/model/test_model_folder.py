"""Models under evaluation from a directory: likelihoods, greedy text, context, stop strings, independent rows."""

import json
import math
from pathlib import Path

import pytest
import torch
from evaluation_fixtures import tiny_model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizer_fixtures import byte_level, llama

from sluice.model.architecture.config import ModelConfig, TransformerConfig
from sluice.model.architecture.generation import GenerationOptions, generate
from sluice.model.architecture.initialization import initialize
from sluice.model.architecture.transformer import Transformer
from sluice.model.directory import save_model
from sluice.model.evaluation.evaluated import AnswerRequest, ContinuationRequest, Message
from sluice.model.evaluation.model_folder import ModelFolder
from sluice.model.evaluation.open_model import open_model
from sluice.model.evaluation.perplexity import document_bits
from sluice.model.text.prompt import PromptEncoder

WORDS = ("quick fox", " jumps over", " the lazy", " dog; it leaves", " when its answer", " is complete! 12", " Größe")
CHAT = (Message("user", "Is it naïve?"),)


def sharp(model: Transformer) -> Transformer:
    """Greedy answers differ from prompt to prompt."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(8.0)
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("model")
    byte_level().save(str(made / "tokenizer.json"))
    (made / "tokenizer_config.json").write_text("{}")
    save_model(made / "model", sharp(tiny_model(byte_level())), made, {})
    return made / "model"


@pytest.fixture(scope="module")
def model(folder: Path) -> ModelFolder:
    return ModelFolder(folder)


def foreign(folder: Path, template: str | None = None) -> ModelFolder:
    """A model with another family's tokenizer, which puts <s> before a text and ends an answer with </s>."""
    llama().save(str(folder / "tokenizer.json"))
    content = {"bos_token": "<s>", "eos_token": "</s>"} | ({"chat_template": template} if template else {})
    (folder / "tokenizer_config.json").write_text(json.dumps(content))
    config = ModelConfig(hidden_size=32, layers=2, heads=4, kv_heads=2, context=64)
    made = Transformer(TransformerConfig.from_settings(config, llama().get_vocab_size()))
    initialize(made, 3)
    save_model(folder / "model", sharp(made), folder, {})
    return ModelFolder(folder / "model")


def test_nats_are_those_of_the_tokens_after_the_prompt(model: ModelFolder) -> None:
    (found,) = model.score([ContinuationRequest("The quick", " brown fox")])
    prompt, whole = model.encode("The quick"), model.encode("The quick brown fox")
    with torch.inference_mode():
        log = model.model(torch.tensor([whole[:-1]])).log_softmax(-1)[0]
    expected = [-float(log[at - 1, whole[at]]) for at in range(len(prompt), len(whole))]
    assert found.token_nats == pytest.approx(expected, abs=1e-4)
    assert found.nats == pytest.approx(sum(expected), abs=1e-4)
    assert "".join(found.tokens) == " brown fox"
    assert found.scored_bytes == 10


def test_white_space_at_the_end_of_a_prompt_belongs_to_the_continuation(model: ModelFolder) -> None:
    apart, joined = model.score([ContinuationRequest("The quick ", "fox"), ContinuationRequest("The quick", " fox")])
    assert apart.token_nats == pytest.approx(joined.token_nats, abs=1e-4)


def test_the_greedy_continuation_is_greedy_and_another_is_not(model: ModelFolder) -> None:
    (answer,) = model.generate([AnswerRequest("The quick", 3)])
    ids = model.encode("The quick" + answer.text)
    greedy = generate(model.model, model.encode("The quick"), 3)
    assert ids[-3:] == greedy  # the text is encoded as it was generated
    found = model.score([ContinuationRequest("The quick", answer.text), ContinuationRequest("The quick", " fox")])
    assert [each.is_greedy for each in found] == [True, False]


def test_a_long_continuation_is_cut_and_divided_by_what_was_scored(model: ModelFolder) -> None:
    text = " the lazy dogs" * 60
    (found,) = model.score([ContinuationRequest("The quick", text)])
    assert len(found.token_nats) == model.model.config.context
    assert found.scored_bytes == len("".join(found.tokens).encode()) < len(text)
    assert text.startswith("".join(found.tokens))


def test_a_long_text_can_be_scored_whole_by_overlapping_windows(model: ModelFolder) -> None:
    text = "The quick brown fox doesn't jump. " * 12
    (found,) = model.score([ContinuationRequest("", text, whole=True)])
    (bits,) = document_bits(model.model, PromptEncoder(model.tokenizer), [text])
    assert len(found.token_nats) > model.model.config.context
    assert found.nats == pytest.approx(bits * math.log(2), abs=1e-3)
    assert ("".join(found.tokens), found.scored_bytes) == (text, len(text))


def test_a_prompt_can_be_cut_to_make_space_for_its_answer(model: ModelFolder) -> None:
    prompt = "The quick brown fox. " * 40
    (cut,) = model.generate([AnswerRequest(prompt, 20, cut_prompt=True)])
    tail = model.encode(prompt)[-44:]
    assert cut.text == model.tokenizer.decode(generate(model.model, tail, 20, GenerationOptions(stop_ids=[0, 3])))
    (none,) = model.generate([AnswerRequest("dog", 64, cut_prompt=True)])
    assert "leaves no space" in none.error


def test_a_long_prompt_is_cut_at_its_beginning(model: ModelFolder) -> None:
    prompt = "The quick brown fox. " * 40 + "Its lazy"
    (found,) = model.score([ContinuationRequest(prompt, " dogs")])
    ids = model.encode(prompt + " dogs")[-model.model.config.context - 1 :]
    with torch.inference_mode():
        log = model.model(torch.tensor([ids[:-1]])).log_softmax(-1)[0]
    assert found.token_nats[-1] == pytest.approx(-float(log[-1, ids[-1]]), abs=1e-4)
    assert found.scored_bytes == 5


def test_a_stop_string_holds_for_its_request_alone(model: ModelFolder) -> None:
    (free,) = model.generate([AnswerRequest("The quick", 12)])
    stop = free.text[4:7]
    answers = model.generate([AnswerRequest("The quick", 12, (stop,)), AnswerRequest("The quick", 12)])
    assert answers[0].text == free.text[: free.text.index(stop)]
    assert answers[0].finish_reason == "stop"
    assert answers[1] == free


def test_a_prompt_without_space_for_an_answer_is_an_error_of_its_own(model: ModelFolder) -> None:
    long, short = model.generate([AnswerRequest("dog " * 200, 4), AnswerRequest("dog", 4)])
    assert (long.finish_reason, long.text) == ("error", "")
    assert "context of 64" in long.error
    assert short.finish_reason in ("stop", "length")


def test_a_temperature_draws_by_the_request_s_own_seed(model: ModelFolder) -> None:
    hot = [AnswerRequest("The quick", 12, temperature=5.0, seed=seed) for seed in (1, 2, 1)]
    one, two, again = model.generate(hot)
    assert one == again != two


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.text("ab fox.", max_size=30), st.sampled_from(WORDS)), min_size=1, max_size=6),
    st.randoms(use_true_random=False),
)
def test_batch_size_and_order_change_no_answer_and_no_likelihood(
    model: ModelFolder, pairs: list[tuple[str, str]], shuffle: object
) -> None:
    order = list(range(len(pairs)))
    shuffle.shuffle(order)  # type: ignore[attr-defined]
    scores = [ContinuationRequest(*pair) for pair in pairs]
    prompts = [AnswerRequest(prompt, 6, (word[1],)) for prompt, word in pairs]
    together = model.score([scores[index] for index in order])
    answers = model.generate([prompts[index] for index in order])
    for place, index in enumerate(order):
        (alone,) = model.score([scores[index]])
        assert together[place].token_nats == pytest.approx(alone.token_nats, abs=1e-4)
        assert together[place].is_greedy == alone.is_greedy
        assert answers[place] == model.generate([prompts[index]])[0]


def test_logits_that_are_not_finite_give_no_number(model: ModelFolder, folder: Path) -> None:
    broken = ModelFolder(folder)
    with torch.no_grad():
        broken.model.norm.weight.fill_(math.nan)
    (found,) = broken.score([ContinuationRequest("The", " fox")])
    assert math.isnan(found.nats)
    assert not found.is_greedy


def test_another_family_s_model_begins_with_its_bos_once_and_uses_its_template(tmp_path: Path) -> None:
    template = "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[answer]"
    made = foreign(tmp_path, template)
    bos = made.tokenizer.token_to_id("<s>")
    for prompt in ("The fox", CHAT, ""):
        ids = made.encode(prompt)
        assert ids[0] == bos
        assert ids.count(bos) == 1
    assert made.tokenizer.decode(made.encode(CHAT)).endswith("[answer]")
    (found,) = made.score([ContinuationRequest("dog " * 100, " fox")])
    request = ContinuationRequest("dog " * 100, " fox")
    (cut,) = made._spans(request, made._tokens(request))
    assert cut.ids[0] == bos
    assert len(cut.ids) == 65
    assert found.scored_bytes == 4


def test_a_chat_that_the_template_refuses_is_an_error(tmp_path: Path) -> None:
    made = foreign(tmp_path, "{{ raise_exception('no system role') }}")
    (answer,) = made.generate([AnswerRequest(CHAT, 4)])
    assert answer.finish_reason == "error"
    assert "no system role" in answer.error


def test_a_folder_is_opened_with_its_hash(folder: Path) -> None:
    found = open_model(folder)
    assert found.can_score
    assert len(found.model_hash) == 64
    with pytest.raises(ValueError, match="not a folder"):
        open_model(folder / "nothing")
