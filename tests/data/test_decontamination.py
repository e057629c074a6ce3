"""Text shared with evaluation sets: what of an item is found, where, in which set, and what is left after a cut."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from script_fixtures import ARTICLES

from sluice.data.decontamination.contaminated import contaminated_items
from sluice.data.decontamination.policy import actionable, count_documents, count_ngrams
from sluice.data.decontamination.sets import EvaluationSets, find
from sluice.data.decontamination.spans import SharedSpan, character_spans
from sluice.data.deduplication.spans import cut
from sluice.data.deduplication.words import word_hashes, word_spans

QUESTION = "Which of the seven bridges of the old town did Euler cross twice before he gave up in despair?"
TITLE = "The seven bridges of old Königsberg by night"


def jsonl(path: Path, *items: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items), encoding="utf-8")
    return path


def load(*paths: Path) -> EvaluationSets:
    return EvaluationSets.load(paths)


def every_span(text: str, sets: EvaluationSets) -> list[SharedSpan]:
    return find(word_hashes(text), sets)


def spans(text: str, sets: EvaluationSets) -> list[SharedSpan]:
    """The spans that a policy applies to."""
    return actionable(every_span(text, sets), "longest")


def found(text: str, sets: EvaluationSets) -> list[str]:
    return [text[start:end] for start, end in character_spans(text, spans(text, sets))]


@pytest.fixture
def bridges(tmp_path: Path) -> EvaluationSets:
    return load(
        jsonl(tmp_path / "bridges.jsonl", {"id": 7, "question": QUESTION, "choices": ["all of the above", "none"]})
    )


def test_an_item_is_found_at_its_position(bridges: EvaluationSets):
    text = f"Some words before it. {QUESTION} And some after, all of the above."
    assert found(text, bridges) == [QUESTION.rstrip("?")]
    assert spans(text, bridges) == [SharedSpan(4, 23, "bridges", 13)]


def test_a_part_of_thirteen_words_is_enough_and_twelve_are_not(bridges: EvaluationSets):
    words = QUESTION.rstrip("?").split()
    assert found("x " + " ".join(words[2:15]) + " y", bridges) == [" ".join(words[2:15])]
    assert found("x " + " ".join(words[2:14]) + " y", bridges) == []


def test_eight_words_of_a_longer_item_are_counted_and_acted_upon_only_where_any_sign_is_enough(bridges: EvaluationSets):
    words = QUESTION.rstrip("?").split()
    edited = " ".join([*words[:8], "really", *words[9:17]])
    found = every_span(edited, bridges)
    assert found == [
        SharedSpan(0, 8, "bridges", 8, is_longest=False),
        SharedSpan(9, 17, "bridges", 8, is_longest=False),
    ]
    assert actionable(found, "longest") == []
    assert actionable(found, "any") == [SharedSpan(0, 8, "bridges", 8), SharedSpan(9, 17, "bridges", 8)]
    assert (count_documents([found], "longest"), count_documents([found], "any")) == ({}, {"bridges": 1})


def test_both_sizes_are_counted_by_set(tmp_path: Path):
    sets = load(
        jsonl(tmp_path / "long.jsonl", QUESTION), jsonl(tmp_path / "short.jsonl", TITLE, "Count the seven seas")
    )
    words = QUESTION.rstrip("?").split()
    texts = [QUESTION, " ".join(words[:8]), f"{TITLE} or {TITLE}", "Count the seven seas", "Nothing of the kind"]
    found = count_ngrams([every_span(text, sets) for text in texts])
    counts = {
        name: {n: (each.documents, each.spans) for n, each in by_length.items()} for name, by_length in found.items()
    }
    assert counts == {"long": {8: (2, 2), 13: (1, 1)}, "short": {4: (1, 1), 8: (1, 2)}}


def test_an_ngram_of_a_short_and_of_a_long_item_is_counted_once_and_acted_upon(tmp_path: Path):
    sets = load(jsonl(tmp_path / "both.jsonl", TITLE, f"{TITLE} when the moon is up"))
    found = every_span(TITLE, sets)
    assert found == [SharedSpan(0, 8, "both", 8, is_longest=False), SharedSpan(0, 8, "both", 8)]
    assert actionable(found, "longest") == actionable(found, "any") == [SharedSpan(0, 8, "both", 8)]
    assert count_ngrams([found])["both"][8].spans == 1


def test_case_spacing_and_punctuation_hide_nothing(bridges: EvaluationSets):
    assert spans(QUESTION.upper().replace(" ", ",\n\t"), bridges) == [SharedSpan(0, 19, "bridges", 13)]
    assert spans(" ".join(reversed(QUESTION.split())), bridges) == []


@pytest.mark.parametrize(
    ("item", "text", "is_found"),
    [
        ({"t": TITLE + " again"}, TITLE, True),  # 9 words: by 8-grams
        ({"t": "Seven bridges of Königsberg"}, "The seven bridges, of Königsberg!", True),  # 4 words: as a whole
        ({"t": "Seven bridges of Königsberg"}, "Seven bridges of Kaliningrad", False),
        ({"id": "q-1", "t": "Count the seven bridges"}, "Please count the seven bridges.", True),
        (
            {"a": "seven bridges", "b": ["of old", {"c": "Königsberg town"}]},
            "seven bridges of old Königsberg town",
            True,
        ),
        ([["deep", ["er still it goes down"]]], "er still it goes down", True),
    ],
)
def test_short_items(tmp_path: Path, item: object, text: str, is_found: bool):
    assert bool(spans(text, load(jsonl(tmp_path / "short.jsonl", item)))) == is_found


def test_items_too_short_to_mean_anything_are_counted(tmp_path: Path):
    sets = load(jsonl(tmp_path / "answers.jsonl", {"t": TITLE}, {"t": "yes"}, {"t": "Paris it is"}, {"n": 4}))
    assert (sets.counts, sets.ignored) == ({"answers": 1}, {"answers": 3})
    assert spans("yes, Paris it is", sets) == []


@pytest.mark.parametrize(
    ("language", "item"),
    [
        ("zh", "下列哪一项不是唐代以前就已经有人在四川一带种植茶树的可靠证据？"),
        ("zh", "下列哪座城市在北方？"),
        ("ja", "明治時代に新橋と横浜のあいだを走った機関車は何色でしたか。"),
        ("th", "ข้อใดต่อไปนี้ไม่ใช่เหตุผลที่ชาวนาในภาคกลางเลือกปลูกข้าวพันธุ์ใหม่เมื่อสิบปีก่อน"),
        ("hi", "निम्नलिखित में से कौन सी नदी हिमालय से नहीं निकलती है और समुद्र में नहीं मिलती"),
    ],
)
def test_an_item_in_another_script_is_found_and_cut(tmp_path: Path, language: str, item: str):
    sets = load(jsonl(tmp_path / "exam.jsonl", {"question": item, "choices": ["是", "नहीं", "ไม่ใช่"]}))
    first, rest = ARTICLES[language].split("\n\n", 1)
    text = f"{first}\n\n{item}\n\n{rest}"
    (place,) = character_spans(text, spans(text, sets))
    assert text[slice(*place)] == item.rstrip("。？")
    assert spans(cut(text, [place]), sets) == spans(ARTICLES[language], sets) == []


def test_the_name_of_an_institution_is_no_item_in_a_script_without_spaces(tmp_path: Path):
    long = "请问中华人民共和国全国人民代表大会常务委员会每两个月举行一次会议的主要依据是哪一部法律的规定？"
    thai = "กระทรวงศึกษาธิการ"
    sets = load(jsonl(tmp_path / "exam.jsonl", long, {"q": "哪一年成立", "a": "北京"}, thai[:12], "以上都不对"))
    assert (sets.counts, sets.ignored) == ({"exam": 1}, {"exam": 3})
    assert spans(long, sets) == [SharedSpan(0, len(long) - 1, "exam", 26)]
    assert every_span("中华人民共和国全国人民代表大会于春天开会。", sets) == []
    assert spans("哪一年成立北京，以上都不对。", sets) == []


def test_every_set_is_named(tmp_path: Path):
    sets = load(
        jsonl(tmp_path / "a" / "test.jsonl", QUESTION),
        jsonl(tmp_path / "b" / "test.jsonl", QUESTION, TITLE),
        jsonl(tmp_path / "b" / "other.jsonl", TITLE),
    )
    assert sets.names == ("a/test.jsonl", "b/test.jsonl", "other")
    shared = spans(f"{QUESTION} {TITLE}", sets)
    assert shared == [
        SharedSpan(0, 19, "a/test.jsonl", 13),
        SharedSpan(0, 27, "b/test.jsonl", 13),  # neighbours are one span
        SharedSpan(19, 27, "other", 8),
    ]


def test_the_order_of_the_sets_does_not_matter(tmp_path: Path):
    paths = [jsonl(tmp_path / f"{name}.jsonl", QUESTION, f"{TITLE} {name}") for name in "abc"]
    first, second = load(*paths), load(*reversed(paths), paths[0])
    assert first.fingerprint == second.fingerprint
    assert spans(f"{TITLE} b {QUESTION}", first) == spans(f"{TITLE} b {QUESTION}", second)
    assert load(*paths[:2]).fingerprint != first.fingerprint


def test_no_set_finds_nothing():
    assert spans(QUESTION, load()) == []


def test_json_and_yaml_hold_items_in_lists(tmp_path: Path):
    items = {"version": 1, "data": [{"q": QUESTION}, {"q": TITLE}]}
    (tmp_path / "j.json").write_text(json.dumps(items), encoding="utf-8")
    (tmp_path / "y.yaml").write_text(f"- &a {{q: '{TITLE}', a: 1}}\n- [*a, *a]\n", encoding="utf-8")
    sets = load(tmp_path / "j.json", tmp_path / "y.yaml")
    assert sets.counts == {"j": 2, "y": 2}
    assert {span.set for span in spans(TITLE, sets)} == {"j", "y"}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b'{"t": "fine"}\n\n{"t": \n', r"a\.jsonl line 3 is not JSON"),
        ("a.jsonl", b'{"t": "fine"}\n{"t": "\xff"}\n', r"a\.jsonl line 2 is not JSON \(not UTF-8\)"),
        ("a.jsonl", b"[" * 200_000 + b"\n", r"a\.jsonl line 1 is not JSON"),
        ("a.json", b'[\n"fine",\n}', r"a\.json line 3 is not JSON"),
        ("a.yaml", b"fine: 1\nbad: [\n", r"a\.yaml line \d is not YAML"),
        ("a.csv", b"text\n", r"a\.csv is none of \.jsonl, \.json"),
        ("a.jsonl", b"", r"a\.jsonl has 0 items, none of 4 words or more"),
        ("a.jsonl", b'{"t": "yes"}\n', r"a\.jsonl has 1 items, none of 4 words or more"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, name: str, content: bytes, said: str):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=said) as raised:
        load(tmp_path / name)
    assert "\n" not in str(raised.value)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match=r"gone\.jsonl cannot be read: No such file"):
        load(tmp_path / "gone.jsonl")


def test_a_small_file_of_yaml_aliases_is_not_endless(tmp_path: Path):
    lines = ["- &a0 four words and more"] + [f"- &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 40)]
    (tmp_path / "laughs.yaml").write_text("\n".join(lines), encoding="utf-8")
    assert load(tmp_path / "laughs.yaml").counts == {"laughs": 40}


def test_policies(bridges: EvaluationSets):
    text = f"Before.\n\n{QUESTION}\n\nAfter."
    shared = spans(text, bridges)
    assert cut(text, character_spans(text, shared)) == "Before.\n\n?\n\nAfter."


WORDS = [f"{letter}{number}" for letter in "abcdefgh" for number in range(40)]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    length=st.integers(13, 60),
    before=st.integers(0, 50),
    after=st.integers(0, 50),
    spaces=st.lists(st.sampled_from([" ", "\n", " \t", ", ", "; ", "\n\n", "-"]), min_size=1, max_size=5),
)
def test_a_planted_item_is_found_at_any_position_and_in_any_form(
    tmp_path_factory: pytest.TempPathFactory, seed: int, length: int, before: int, after: int, spaces: list[str]
):
    draw = random.Random(seed)
    item = draw.choices(WORDS, k=length)
    sets = load(jsonl(tmp_path_factory.mktemp("sets") / "planted.jsonl", {"nested": [{"t": " ".join(item)}]}))
    planted = [draw.choice([str.upper, str.lower, str.title])(word) for word in item]
    parts = [f"x{n}" for n in range(before)] + planted + [f"y{n}" for n in range(after)]
    text = "".join(part + draw.choice(spaces) for part in parts)
    assert spans(text, sets) == [SharedSpan(before, before + length, "planted", 13)]
    assert spans(cut(text, character_spans(text, spans(text, sets))), sets) == []


@settings(max_examples=60, deadline=None)
@given(
    item=st.lists(st.sampled_from("abcd"), min_size=4, max_size=40),
    text=st.lists(st.sampled_from("abcd"), max_size=120),
)
def test_a_span_is_exactly_what_shared_ngrams_cover(
    tmp_path_factory: pytest.TempPathFactory, item: list[str], text: list[str]
):
    sets = load(jsonl(tmp_path_factory.mktemp("sets") / "s.jsonl", " ".join(item)))
    lengths = [length for length in (13, 8) if length <= len(item)] or [len(item)]
    found = every_span(" ".join(text), sets)
    assert {span.ngram for span in found} <= set(lengths)
    assert all(span.is_longest == (span.ngram == lengths[0]) for span in found)
    for length in lengths:
        covered = _covered(item, text, length)
        assert _marked([span for span in found if span.ngram == length], len(text)) == covered
        if length == lengths[0]:
            assert _marked(actionable(found, "longest"), len(text)) == covered
        if length == lengths[-1]:
            assert _marked(actionable(found, "any"), len(text)) == covered


def _covered(item: list[str], text: list[str], length: int) -> list[bool]:
    """[words of text] Whether each lies in an n-gram of the item."""
    grams = {tuple(item[start : start + length]) for start in range(len(item) - length + 1)}
    covered = np.zeros(len(text), dtype=bool)
    for start in range(len(text) - length + 1):
        if tuple(text[start : start + length]) in grams:
            covered[start : start + length] = True
    return covered.tolist()


def _marked(found: list[SharedSpan], words: int) -> list[bool]:
    marked = np.zeros(words, dtype=bool)
    for span in found:
        assert not marked[span.first_word : span.last_word].any(), "spans are disjoint"
        marked[span.first_word : span.last_word] = True
    return marked.tolist()


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> EvaluationSets:
    return load(
        jsonl(tmp_path_factory.mktemp("sets") / "elsewhere.jsonl", *(" ".join(WORDS[at:]) for at in range(300)))
    )


@settings(max_examples=50, deadline=None)
@given(text=st.text(), shared=st.integers(0, 12))
def test_a_text_without_a_shared_ngram_has_no_span(elsewhere: EvaluationSets, text: str, shared: int):
    mixed = f"{text} {' '.join(WORDS[40 : 40 + shared])} {text}"
    assert len(word_spans(mixed)) == len(word_hashes(mixed))
    assert spans(mixed, elsewhere) == []
    assert bool(every_span(mixed, elsewhere)) == (shared >= 8)


def test_items_that_stand_in_documents_are_told_from_those_too_short_to_be_searched() -> None:
    question = "Which of the seven ancient wonders of the world stood in the harbour of Alexandria in Egypt?"
    items = {"copied": [question, "the lighthouse"], "own": ["How many sides has a regular heptagon?"], "short": ["2?"]}
    documents = ["Nothing here.", f"Quiz night. {question.upper()} Answer below."]
    assert contaminated_items(items, documents) == ({"copied"}, {"short"})
    assert contaminated_items({}, documents) == (set(), set())
