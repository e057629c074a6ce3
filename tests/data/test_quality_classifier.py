"""The trainable classifier tells documentation from spam it has not seen, and is the same whoever trains it."""

import json
import random
from functools import cache
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from sluice.data.extraction.extract import extract
from sluice.data.privacy import mask
from sluice.data.quality.classifier import TrainingReport, features, load, train
from sluice.data.quality.prose import Prose
from sluice.data.quality.rules import score
from sluice.data.train_classifier import train_on_sources

SPAM = (
    "Click here to {verb} your {thing} now and get {number} percent off, limited offer, act today! "
    "Home | About | {thing} | Contact. Subscribe to our newsletter for the best {thing} deals. "
    "Best cheap {thing} online {number} reviews, buy {thing}, free shipping on all {thing}, all rights reserved."
)
THINGS = ("shoes", "loans", "pills", "watches", "casino", "insurance", "hosting", "tickets", "phones", "diets")


def spam(count: int) -> list[str]:
    generator = random.Random(7)
    sentences = SPAM.split(". ")
    return [
        " ".join(generator.choices(sentences, k=6)).format(
            verb=generator.choice(("claim", "win", "order")),
            thing=generator.choice(THINGS),
            number=generator.randrange(1000),
        )
        for _ in range(count)
    ]


@cache
def documentation() -> list[str]:
    from sluice.data.sources.installed import docstrings

    folder = Path(json.__file__).parent.parent
    found = (docstrings(path, path.stem) for path in sorted(folder.glob("[a-z]*.py")))
    return [text[:3000] for text in islice(found, 160) if len(text) > 500]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainingReport]:
    path = tmp_path_factory.mktemp("quality") / "quality.safetensors"
    return path, train(documentation(), spam(120), path, seed=1)


def test_it_separates_documentation_from_spam(trained: tuple[Path, TrainingReport]):
    path, report = trained
    assert report.held_out_good >= 20
    assert report.held_out_bad >= 20
    assert report.held_out_auc >= 0.98
    classifier = load(path)
    assert classifier.report == report
    assert classifier.score(Prose.of("Return the value of the named attribute of object; name must be a string.")) > 0.5
    assert classifier.score(Prose.of("Buy cheap watches online, free shipping, act now and subscribe today!")) < 0.5


def test_the_score_is_a_probability_whatever_the_text(trained: tuple[Path, TrainingReport]):
    classifier = load(trained[0])
    for text in ("", "word", "    code", "\ud800 broken", "shoes " * 5000):
        assert 0 <= classifier.score(Prose.of(text)) <= 1


def test_it_is_a_score_like_the_others(trained: tuple[Path, TrainingReport]):
    assert "quality" not in score("text").scores
    classifier = load(trained[0])
    found = score("Return the value of the attribute.", classifier).scores["quality"]
    assert found == np.float32(classifier.score(Prose.of("Return the value of the attribute.")))


def test_order_and_copies_of_the_documents_change_not_a_byte(trained: tuple[Path, TrainingReport], tmp_path: Path):
    path, report = trained
    good = documentation()
    again = train([*reversed(good), *good[:9]], reversed(spam(120)), tmp_path / "again.safetensors", seed=1)
    assert again == report
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_features_are_every_word_and_every_pair():
    assert len(features(Prose.of("one two three"), 1 << 18)) == 5
    assert len(features(Prose.of("one"), 1 << 18)) == 1
    assert len(features(Prose.of(""), 1 << 18)) == 0
    one, other = features(Prose.of("one two"), 1 << 18), features(Prose.of("Two, one."), 1 << 18)
    assert sorted(one[:2]) == sorted(other[:2])
    assert one[2] != other[2]


def test_too_few_or_ambiguous_documents_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="3 different bad documents: the quality classifier needs at least 20"):
        train(documentation(), ["a", "b", "c", "c"], tmp_path / "out")
    with pytest.raises(ValueError, match="1 documents are both good and bad"):
        train(documentation(), [*spam(60), documentation()[0]], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_no_classifier_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"quality_model .*absent does not exist: train one"):
        load(tmp_path / "absent")
    (tmp_path / "damaged").write_bytes(b"\x00" * 40)
    with pytest.raises(ValueError, match=r"quality_model .*damaged is no quality classifier"):
        load(tmp_path / "damaged")
    save_file({"weights": np.zeros(4, np.float32)}, tmp_path / "other")
    with pytest.raises(ValueError, match=r"quality_model .*other is no quality classifier"):
        load(tmp_path / "other")


def test_weights_that_are_no_numbers_are_refused(trained: tuple[Path, TrainingReport], tmp_path: Path):
    about = {"format": "sluice-quality-1", "report": trained[1].model_dump()}
    tensors = {"weights": np.full(4, np.nan, np.float32), "bias": np.zeros(1)}
    save_file(tensors, tmp_path / "nan", metadata={"quality": json.dumps(about)})
    with pytest.raises(ValueError, match="is no quality classifier of format"):
        load(tmp_path / "nan")


def test_it_is_trained_on_sources_as_scoring_sees_them(tmp_path: Path) -> None:
    sides = {"good": documentation()[:60], "bad": [f"{text} Write to jane@corp-mail.com." for text in spam(60)]}
    for name, texts in sides.items():
        (tmp_path / name).mkdir()
        for number, text in enumerate(texts):
            (tmp_path / name / f"{number:03d}.md").write_text(text)
    out = tmp_path / "deep" / "quality.safetensors"
    report = train_on_sources([str(tmp_path / "good")], [str(tmp_path / "bad")], out, seed=1)
    assert report == load(out).report
    assert report.held_out_auc >= 0.98
    seen = [[mask(extract(text, "md"))[0] for text in texts] for texts in sides.values()]
    train(*seen, tmp_path / "by hand", seed=1)
    assert out.read_bytes() == (tmp_path / "by hand").read_bytes()


def test_of_a_training_that_fails_nothing_is_left(tmp_path: Path) -> None:
    for name in ("good", "bad"):
        (tmp_path / f"{name}.txt").write_text(f"A {name} text.")
    with pytest.raises(ValueError, match="1 different good documents"):
        train_on_sources([str(tmp_path / "good.txt")], [str(tmp_path / "bad.txt")], tmp_path / "q.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.txt", "good.txt"]
