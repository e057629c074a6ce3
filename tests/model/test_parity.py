"""Greedy answers that are kept of a model, and whether a served one is the same but for ties."""

from pathlib import Path

import pytest
import torch
from evaluation_fixtures import tiny_model
from tokenizer_fixtures import byte_level

from sluice.model.directory import save_model
from sluice.model.evaluation.evaluated import AnswerRequest, Message, Prompt
from sluice.model.evaluation.model_folder import ModelFolder
from sluice.model.evaluation.parity import TIE, KeptAnswer, parity_prompts, read_parity, write_parity

PROMPTS: list[Prompt] = ["The quick", " jumps over", (Message("user", "Is it naïve?"),), "Größe"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    folder = tmp_path_factory.mktemp("model")
    byte_level().save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text("{}")
    made = tiny_model(byte_level())
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim == 2:
                parameter.mul_(8.0)
    save_model(folder / "model", made, folder, {})
    return ModelFolder(folder / "model")


def test_kept_answers_are_the_greedy_ones_with_the_leads_of_their_tokens(model: ModelFolder) -> None:
    kept = model.keep_greedy(PROMPTS, 8)
    generated = model.generate([AnswerRequest(prompt, 8) for prompt in PROMPTS])
    assert [answer.text for answer in kept] == [answer.text for answer in generated]
    assert len({answer.text for answer in kept}) > 1
    for answer in kept:
        assert len(answer.tokens) == len(answer.leads) <= 8 and min(answer.leads) >= 0
        assert answer.is_matched_by(answer.text)
    with torch.inference_mode():
        logits = model.model(torch.tensor([model.encode(PROMPTS[0])]))[0, -1]
    first, second = logits.topk(2).values.tolist()
    assert kept[0].leads[0] == pytest.approx(first - second, abs=1e-4)


def test_prompts_that_leave_no_space_are_left_out(model: ModelFolder) -> None:
    assert model.keep_greedy(["The quick " * 20], 8) == []
    assert model.keep_greedy([], 8) == []


def kept(*leads: float, tokens: tuple[str, ...] = ("a", "b", "c", "")) -> KeptAnswer:
    return KeptAnswer("p", 8, tokens, leads or (1.0, 1.0, 1.0, 1.0))


@pytest.mark.parametrize("text", ["", "ab", "abd", "axc", "abcd"])
def test_another_text_differs_unless_its_first_difference_is_at_a_tie(text: str) -> None:
    place = {"": 0, "ab": 2, "abd": 2, "axc": 1, "abcd": 3}[text]
    leads = [1.0] * 4
    assert not kept(*leads).is_matched_by(text)
    leads[place] = TIE / 2
    assert kept(*leads).is_matched_by(text)
    others = [TIE / 2] * 4
    others[place] = 1.0
    assert not kept(*others).is_matched_by(text)


def test_a_tie_within_a_character_counts_for_the_character() -> None:
    split = kept(1.0, 0.0, 1.0, 1.0, tokens=("a", "", "ß", ""))
    assert split.is_matched_by("aü") and not split.is_matched_by("b")


def test_kept_answers_survive_their_file(tmp_path: Path) -> None:
    answers = [kept(), KeptAnswer((Message("system", "s"), Message("user", "ü")), 3, ("x",), (0.25,))]
    write_parity(answers, tmp_path / "parity.jsonl")
    assert read_parity(tmp_path / "parity.jsonl") == answers
    (tmp_path / "parity.jsonl").write_text('{"prompt": "p"}\n')
    with pytest.raises(ValueError, match="line 1: not a kept answer"):
        read_parity(tmp_path / "parity.jsonl")


def test_prompts_alternate_between_question_and_text_and_do_not_depend_on_the_order_of_documents() -> None:
    texts = [f"# Heading {number}\n\nSome text of this section.\n" for number in range(5)]
    found = parity_prompts(texts, 128, has_chat=True)
    assert found == parity_prompts(texts[::-1], 128, has_chat=True)
    assert len(found) == len(set(found)) == 10, "each both ways, because they are few"
    assert [isinstance(prompt, str) for prompt in found[:4]] == [False, True, False, True]
    plain = parity_prompts(texts, 3, has_chat=False)
    assert len(plain) == 3 and all(isinstance(prompt, str) for prompt in plain)
