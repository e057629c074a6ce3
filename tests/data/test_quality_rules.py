"""Each rule drops its target and keeps technical prose; new and stored scores give the same decision."""

import math
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice.data.config import RefineConfig
from sluice.data.quality.rules import LANGUAGE, RULES, _comparison, breaches, score
from sluice.data.quality.stopwords import stop_words

SCORES = sorted({rule.score for rule in RULES if rule is not LANGUAGE})
THRESHOLDS = [rule.setting for rule in RULES if rule.setting and rule is not LANGUAGE]
COUNTS = frozenset(name for name in THRESHOLDS if "int" in str(RefineConfig.model_fields[name].annotation))
PROSE = (
    "# Making queries\n\nOnce you have created your models, the library gives you an interface that lets you create, "
    "retrieve, update and delete objects. This document explains how to use it, and what it costs.\n\n"
    "    for entry in Entry.objects.all():\n        print(entry.headline)\n        print(entry.headline)\n\n"
    "- The first argument is `#id` or `...`, and the second is a callable that returns the value to be stored.\n"
    "- Returns: the number of rows that have been changed by the statement."
)
TOP_OFF = dict.fromkeys(f"max_top_{n}gram_fraction" for n in (2, 3, 4))
LINE = "The same line of boilerplate stands here again and again."


def first_breach(scores: Mapping[str, float], language: str, config: RefineConfig) -> tuple[str, str] | None:
    """Return the `breaches` of one document."""
    for rule in RULES:
        if rule is LANGUAGE:
            if config.languages is not None and language not in {*config.languages, "code"}:
                return rule.reason, _comparison(rule, language, config)
        elif (bound := rule.bound(config)) is not None:
            value, limit = np.float32(scores[rule.score]), np.float32(bound)
            applies = (rule.languages is None or language in rule.languages) and language not in rule.exempt
            if applies and not (value >= limit if rule.is_minimum else value <= limit):
                return rule.reason, _comparison(rule, float(value), config)
    return None


def breach(text: str, **settings: object) -> tuple[str, str] | None:
    scored = score(text)
    return first_breach(scored.scores, scored.language, RefineConfig.model_validate(settings))


def reason(text: str, **settings: object) -> str | None:
    found = breach(text, **settings)
    return found[0] if found else None


def test_technical_prose_passes_every_rule():
    assert breach(PROSE) is None


@pytest.mark.parametrize(
    ("text", "expected", "settings"),
    [
        ("", "empty", {}),
        ("Only a few words here.", "too_few_words", {}),
        (PROSE + "\x00\x01" * 20, "control_characters", {}),
        ("a b c d to of " * 20, "short_words", {}),
        ("the and internationalisation_of_subsystems " * 30, "long_words", {}),
        (PROSE + " # # # # # # # # # #", "symbols", {}),
        ("- The first of the words to be in a list, and the second\n" * 9, "bullet_lines", {}),
        ("Read on to see the rest of what you have with it...\n" * 9, "ellipsis_lines", {}),
        ("the of " + "125 | 1039 " * 40 + "words", "few_alphabetic_words", {}),
        ("Click home shop blog login price offer newsletter today cheap online " * 6, "few_stop_words", {}),
        (f"{PROSE}\n\n{LINE * 12}\n{LINE * 12}", "duplicate_lines", {}),
        (f"{PROSE}\n\n{LINE}\n{PROSE}\n\n{LINE}\n{PROSE}", "duplicate_paragraphs", {"max_duplicate_line_fraction": 1}),
        ("the value of " * 3 + "and ".join(["some words to read "] * 30), "repeated_2gram", {}),
        (PROSE + " " + LINE * 9, "repeated_5gram", {**TOP_OFF, "max_duplicate_5gram_fraction": 0.15}),
        (PROSE + " " + LINE * 9, "repeated_10gram", {**TOP_OFF, "max_duplicate_10gram_fraction": 0.1}),
        (PROSE, "few_sentences", {"min_sentences": 5}),
        (PROSE + " {x}", "curly_brackets", {"max_curly_brackets": 0}),
        (PROSE + " Lorem ipsum.", "placeholder_text", {}),
        (PROSE + "\n\nPlease enable Javascript", "javascript_lines", {"max_javascript_lines": 0}),
        (PROSE + "\n\nOur terms of use", "policy_lines", {"max_policy_lines": 0}),
        (PROSE.replace(".", ""), "unpunctuated_lines", {"min_punctuated_line_fraction": 0.12}),
        (PROSE + "".join(f"\n\nItem {n}" for n in range(20)), "short_lines", {"max_short_line_fraction": 0.67}),
        (PROSE + "\n" * 50, "list_of_lines", {"max_newline_word_ratio": 0.3}),
        (PROSE, "language", {"languages": ["de", "fr"]}),
        ("The quick brown fox. " * 30, "uncertain_language", {"min_language_probability": 0.5}),
    ],
)
def test_each_rule_drops_what_it_is_for(text: str, expected: str, settings: dict[str, object]):
    assert reason(text, **settings) == expected


RUNNING_TEXT = {
    "cs": "Tento dokument popisuje, jak se modul používá a které funkce jsou pro něj na výběr, protože to není zřejmé.",
    "da": "Dette dokument beskriver, hvordan man bruger modulet, og det viser, at funktionen ikke er for alle.",
    "de": "Dieses Dokument beschreibt, wie man die Bibliothek verwendet, und sagt, was das Modul mit der Datei macht.",
    "es": "Este documento describe cómo se usa la biblioteca y explica lo que hace el módulo con los datos de entrada.",
    "fi": "Tämä asiakirja kertoo, miten kirjastoa käytetään ja mitä se tekee, kun tiedosto on olemassa tai ei ole.",
    "fr": "Ce document décrit comment utiliser la bibliothèque et explique ce que le module fait dans les fichiers.",
    "it": "Questo documento descrive come si usa la libreria e spiega che cosa fa il modulo con i dati di prova.",
    "nl": "Dit document beschrijft hoe de bibliotheek wordt gebruikt en wat het met een bestand van de gebruiker doet.",
    "pl": "Ten dokument opisuje, jak używać biblioteki i co się dzieje, gdy plik nie jest dostępny na dysku.",
    "pt": "Este documento descreve como usar a biblioteca e explica o que o módulo faz com os dados que não conhece.",
    "ru": "Этот документ описывает, как использовать библиотеку, и говорит, что она делает с файлом, если его нет.",
    "sv": "Detta dokument beskriver hur man använder biblioteket och vad det gör med en fil som inte är till för alla.",
    "tr": "Bu belge, kitaplığın nasıl kullanıldığını ve bir dosya ile ne yaptığını anlatır; bilgi için okuyun.",
    "uk": "Цей документ описує, як використовувати бібліотеку, і каже, що вона робить з файлом, якщо його немає.",
}
OTHERS_OFF = dict.fromkeys(name for name in THRESHOLDS if name != "min_stop_words")


@pytest.mark.parametrize("language", sorted(RUNNING_TEXT))
def test_running_text_of_another_language_has_its_own_stop_words(language: str):
    scored = score(RUNNING_TEXT[language])
    assert scored.language == language
    assert breach(RUNNING_TEXT[language], **OTHERS_OFF) is None
    listed = " ".join(word for word in RUNNING_TEXT[language].split() if len(word) > 6)
    scores = {"characters": len(listed), "stop_words": stop_words(listed.split(), language)}
    found = first_breach(scores, language, RefineConfig.model_validate(OTHERS_OFF))
    assert found == ("few_stop_words", "stop_words 0 < 2"), "a list of its long words is no running text"


def test_a_language_without_a_list_passes_and_no_language_fails():
    swahili = "Hati hii inaeleza jinsi ya kutumia maktaba na kile ambacho moduli inafanya kwa faili za mtumiaji wake."
    assert score(swahili).language == "sw"
    assert breach(swahili, **OTHERS_OFF) is None
    for language in ("en", "de", "undetermined"):
        assert (
            first_breach({"characters": 1, "stop_words": 0}, language, RefineConfig.model_validate(OTHERS_OFF))
            is not None
        )


def test_english_that_is_taken_for_another_language_keeps_its_own_stop_words():
    assert stop_words(["the", "of", "ikke"], "da") == 2
    assert stop_words(["the", "og", "det"], "da") == 2
    assert stop_words([], "da") == 0


def test_thresholds_come_from_the_settings_and_null_is_off():
    assert breach(PROSE, min_words=1000) == ("too_few_words", "words 66 < 1000")
    assert breach(PROSE, max_words=10) == ("too_many_words", "words 66 > 10")
    assert breach(PROSE, languages=["de", "fr"]) == ("language", "language en not in de, fr")
    assert breach(PROSE, languages=["en"]) is None
    assert reason("Few words of the text.", min_words=None, min_stop_words=None, max_top_2gram_fraction=None) is None


def test_every_setting_of_a_rule_exists_and_reasons_are_distinct():
    RefineConfig.model_validate(dict.fromkeys(rule.setting for rule in RULES if rule.setting))
    assert len({rule.reason for rule in RULES}) == len(RULES)
    assert set(score(PROSE).scores) | {"quality"} == set(SCORES)


@pytest.mark.parametrize("name", THRESHOLDS)
def test_the_threshold_itself_passes_and_nan_never_does(name: str):
    rule = next(rule for rule in RULES if rule.setting == name)
    bound = 7 if name in COUNTS else 0.3
    off: dict[str, object] = dict.fromkeys(THRESHOLDS)
    config = RefineConfig.model_validate(off | {"quality_model": "quality.safetensors", name: bound})
    # 0.3 has no exact binary form: in 32 bits it is larger than in 64.
    for exact in (bound, float(np.float32(bound))):
        assert first_breach({"characters": 1, rule.score: exact}, "en", config) is None
    beyond = bound - 0.001 if rule.is_minimum else bound + 0.001
    for value in (beyond, math.nan):
        found = first_breach({"characters": 1, rule.score: value}, "en", config)
        assert found is not None
        assert found[0] == rule.reason
        # The comparison shows two different numbers.
        assert found[1].split()[1] != found[1].split()[-1]


def test_a_threshold_whose_score_is_missing_is_refused():
    config = RefineConfig(min_quality=0.5, quality_model="quality.safetensors")
    columns = {name: [value] for name, value in score(PROSE).scores.items()}
    with pytest.raises(ValueError, match=r"min_quality is set.* no score quality: score the documents again"):
        breaches(columns, ["en"], config)


def test_scores_fit_the_stored_column_exactly():
    values = list(score(PROSE * 3).scores.values())
    assert np.array(values, np.float32).tolist() == values


any_value = st.one_of(
    st.sampled_from([0.0, 0.1, 0.3, float(np.float32(0.3)), 1.0, 2.0, 40.0]), st.floats(0, 1), st.just(math.nan)
)
documents = st.lists(
    st.tuples(
        st.fixed_dictionaries(dict.fromkeys(SCORES, any_value)),
        st.sampled_from(["en", "de", "sw", "undetermined", "zh", "code"]),
    ),
    max_size=6,
)
configs = st.fixed_dictionaries(
    {name: st.sampled_from([None, 0, 1] if name in COUNTS - {"max_words"} else [None, 1]) for name in sorted(COUNTS)}
    | {name: st.sampled_from([None, 0.1, 0.3, 1.0]) for name in THRESHOLDS if name not in COUNTS}
    | {"languages": st.sampled_from([None, [], ["en"], ["en", "de"]]), "quality_model": st.just("quality.safetensors")}
).map(RefineConfig.model_validate)


@settings(deadline=None)
@given(documents, configs)
def test_many_documents_at_once_fall_as_each_does_alone(rows: list[tuple[dict[str, float], str]], config: RefineConfig):
    columns = {name: np.array([scores[name] for scores, _ in rows], np.float32) for name in SCORES}
    found = breaches(columns, [language for _, language in rows], config)
    assert found.first == [first_breach(scores, language, config) for scores, language in rows]
    for number, first in enumerate(found.first):
        alone = [name for name, drops in found.alone.items() if drops[number]]
        assert alone[:1] == ([first[0]] if first else [])
    assert set(found.alone) == {rule.reason for rule in RULES if rule.bound(config) is not None}
