from pathlib import Path

import pytest
import torch
from evaluation_fixtures import SPLIT, saved_model
from tokenizers import Tokenizer

from sluice.data.document import read_documents
from sluice.data.split import split_of
from sluice.data.tokenization import load_tokenizer
from sluice.model.architecture.loss import cross_entropy_sum
from sluice.model.config import TuneConfig
from sluice.model.directory import load_model
from sluice.model.evaluation.prompts import chat_prompt
from sluice.model.text.prompt import PromptEncoder
from sluice.model.training.batches.batch import Batch
from sluice.model.tuning.chat import ChatTurn, collate, padding_id, render, render_pair
from sluice.model.tuning.instruction import PairOrder, QuestionAnswer, make_pairs, tune

CONFIG = TuneConfig(steps=40, batch_size=8, learning_rate=3e-3, warmup_steps=4, seed=3)


@pytest.fixture(scope="module")
def tokenizer(packed_corpus: Path) -> Tokenizer:
    return load_tokenizer(packed_corpus / "tokenizer")


@pytest.fixture(scope="module")
def base(packed_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_model(packed_corpus, tmp_path_factory.mktemp("base") / "model", steps=40)


@pytest.fixture(scope="module")
def tuned(base: Path, packed_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tuned")
    report = tune(CONFIG, base, packed_corpus / "refine", SPLIT, out)
    assert report.validation_loss is not None and report.validation_loss_before is not None
    assert report.validation_loss < report.validation_loss_before - 0.1
    return out


def test_only_the_answer_is_learned(tokenizer: Tokenizer) -> None:
    rendered = render_pair(tokenizer, "What is a gate?", "A check <|end|> of bounds.")
    learned = [token for token, each in zip(rendered.ids, rendered.learned, strict=True) if each]
    assert learned[-1] == tokenizer.token_to_id("<|end|>") and learned.count(learned[-1]) == 1
    assert tokenizer.decode(learned[:-1], skip_special_tokens=False) == "A check <|end|> of bounds."
    given = rendered.ids[: len(rendered.ids) - len(learned)]
    assert given == chat_prompt(PromptEncoder(tokenizer), "What is a gate?"), "as evaluation and serving prompt"


def test_layout_is_that_of_the_chat_template(tokenizer: Tokenizer) -> None:
    messages = [ChatTurn("user", "one"), ChatTurn("assistant", "two"), ChatTurn("user", "three")]
    text = "<|user|>one<|end|><|assistant|>two<|end|><|user|>three<|end|>"
    tokenizer.encode_special_tokens = False
    expected = tokenizer.encode(text, add_special_tokens=False).ids
    assert render(tokenizer, messages).ids == expected
    assert render(tokenizer, messages, max_tokens=4).ids == expected[:4]
    with pytest.raises(ValueError, match="role 'system' must be one of"):
        render(tokenizer, [ChatTurn("system", "no")])


def test_prompt_and_padding_labels_change_nothing(tokenizer: Tokenizer, base: Path) -> None:
    model, _ = load_model(base)
    pairs = [render_pair(tokenizer, "The cache", "It stores keys."), render_pair(tokenizer, "A", "Yes, it does.")]
    batch = collate(pairs, padding_id(tokenizer))
    assert batch.mask is not None and 0 < int(batch.mask.sum()) < batch.mask.numel()

    def gradient(targets: torch.Tensor) -> list[torch.Tensor]:
        model.zero_grad()
        nats, _ = cross_entropy_sum(model, batch.ids, targets, batch.mask)
        nats.backward()
        return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]

    original = gradient(batch.targets)
    unlearned = gradient(batch.targets.masked_fill(~batch.mask, 5))
    assert original and all(torch.equal(a, b) for a, b in zip(original, unlearned, strict=True))
    learned = gradient(torch.where(batch.mask, 5, batch.targets))
    assert not all(torch.equal(a, b) for a, b in zip(original, learned, strict=True))


def test_padding_does_not_change_the_loss(tokenizer: Tokenizer, base: Path) -> None:
    model, _ = load_model(base)
    pairs = [render_pair(tokenizer, "Q", "Short."), render_pair(tokenizer, "Q", "A much longer answer than that one.")]

    def nats(batch: Batch) -> float:
        return float(cross_entropy_sum(model, batch.ids, batch.targets, batch.mask)[0].detach())

    together = nats(collate(pairs, padding_id(tokenizer)))
    alone = sum(nats(collate([pair], padding_id(tokenizer))) for pair in pairs)
    assert together == pytest.approx(alone, rel=1e-5)


def test_pairs_come_from_the_training_side_only(packed_corpus: Path) -> None:
    documents = list(read_documents(packed_corpus / "refine"))
    text = "\n\n".join(document.text for document in documents if split_of(document.id, SPLIT) == "train")
    pairs = make_pairs(documents, SPLIT, "train")
    assert pairs
    for pair in pairs:
        assert f"# {pair.question}" in text and pair.answer in text


def test_a_heading_that_stands_often_is_asked_with_its_parent() -> None:
    from datatrove.data import Document

    body = "This passage is long enough to be an answer, since it has well over eighty bytes in it."
    text = (
        f"# Cache\n\n## Examples\n\n{body}\n\n### Deep\n\n{body}\n\n# Queue\n\n## Examples\n\n{body}\n\n## Short\n\nNo."
    )
    assert make_pairs([Document(text=text, id="0", metadata={})], SPLIT, split_of("0", SPLIT)) == [
        QuestionAnswer("Cache: Examples", body),
        QuestionAnswer("Deep", body),
        QuestionAnswer("Queue: Examples", body),
    ]


def test_a_document_without_headings_gives_its_continuations() -> None:
    from datatrove.data import Document

    lines = [
        f"The {number}. paragraph tells of a river, of a mill beside it, and of the miller's son."
        for number in range(4)
    ]
    pairs = make_pairs([Document(text="\n\n".join(lines), id="0", metadata={})], SPLIT, split_of("0", SPLIT))
    assert pairs == [QuestionAnswer(lines[0], lines[1]), QuestionAnswer(lines[1], "\n\n".join(lines[2:]))]


def test_a_long_question_leaves_room_for_the_answer(tokenizer: Tokenizer) -> None:
    question, answer = "Where does the river end? " * 20, "It ends in a lake. " * 20
    rendered = render_pair(tokenizer, question, answer, max_tokens=40)
    assert len(rendered.ids) == 40 and sum(rendered.learned) == 19
    assert rendered.ids[:20] == chat_prompt(PromptEncoder(tokenizer), question, max_tokens=21)[:20]


def test_without_stages_the_base_model_stays_as_it_is(base: Path, packed_corpus: Path, tmp_path: Path) -> None:
    report = tune(CONFIG.model_copy(update={"stages": []}), base, packed_corpus / "refine", SPLIT, tmp_path)
    assert (report.pairs, report.steps, report.final_loss) == (0, 0, None)
    assert (tmp_path / "model.safetensors").read_bytes() == (base / "model.safetensors").read_bytes()


def test_every_pair_is_seen_once_an_epoch_and_a_share_goes_unasked() -> None:
    order = PairOrder(pairs=500, batch_size=20, unasked_fraction=0.2, seed=1)
    visits = [visit for step in range(50) for visit in order.at(step)]
    assert sorted(index for index, _ in visits[:500]) == sorted(index for index, _ in visits[500:]) == list(range(500))
    assert visits[:500] != visits[500:]
    assert 0.15 < sum(not asked for _, asked in visits) / 1000 < 0.25
    assert all(asked for _, asked in PairOrder(500, 20, 0.0, 1).at(0))


def test_tuning_is_deterministic(tuned: Path, base: Path, packed_corpus: Path, tmp_path: Path) -> None:
    tune(CONFIG, base, packed_corpus / "refine", SPLIT, tmp_path)
    names = sorted(path.name for path in tuned.iterdir())
    assert names == sorted(path.name for path in tmp_path.iterdir())
    for name in names:
        assert (tuned / name).read_bytes() == (tmp_path / name).read_bytes(), name


def test_nothing_to_tune_on(base: Path, tmp_path: Path) -> None:
    from datatrove.data import Document

    from sluice.data.document import write_documents

    text = "No heading here, only a paragraph that goes on for a while and then ends without one."
    write_documents([Document(text=text, id="0", metadata={})], tmp_path, 10)
    with pytest.raises(ValueError, match=r"pair to tune on .* tune\.stages=\[\]"):
        tune(CONFIG, base, tmp_path, SPLIT, tmp_path)
