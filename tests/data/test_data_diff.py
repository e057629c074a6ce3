"""Two refined folders side by side: what came, went, changed and moved across a threshold."""

import json
from pathlib import Path

import pytest
from refined_folder import PACK_INDEX, texts, write_json, write_refined

from sluice.data.card.diff import DataDiff, SourceDiff, diff, differing
from sluice.data.card.difftext import render_text
from sluice.data.config import RefineConfig
from sluice.data.document import content_id

EDITED = frozenset({1, 40, 52})
LEFT_OUT = frozenset({0, 60})


def edited(place: int, text: str) -> str:
    return f"{text} And one sentence more, so that it is another text." if place in EDITED else text


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("diff")
    config = RefineConfig(min_words=80, max_symbol_word_ratio=None)
    return write_refined(root / "a"), write_refined(root / "b", config, edit=edited, leave_out=LEFT_OUT, parts=3)


@pytest.fixture(scope="module")
def found(folders: tuple[Path, Path]) -> DataDiff:
    return diff(*folders)


def decisions(folder: Path) -> list[dict]:
    import pyarrow.parquet as pq

    return pq.read_table(folder / "evidence" / "decisions.parquet").to_pylist()


def test_a_folder_beside_itself_differs_in_nothing(folders: tuple[Path, Path], tmp_path: Path):
    same = diff(folders[0], write_refined(tmp_path / "again", parts=4))
    assert same.same and same.both == same.a.documents_kept
    assert not (same.changed or same.parameters or same.kept_to_dropped.documents or same.dropped_to_kept.documents)
    text = render_text(same)
    assert f"The same {same.both} documents are kept." in text
    assert len(text.splitlines()) == 9


def test_counts_are_those_of_the_sets(folders: tuple[Path, Path], found: DataDiff):
    a, b = ({row["final_id"] for row in decisions(folder) if row["kept"]} for folder in folders)
    assert (found.only_a, found.only_b, found.both) == (len(a - b), len(b - a), len(a & b))
    assert found.only_a > 5
    for name in ("only_a", "only_b", "both"):
        assert sum(getattr(each, name) for each in found.by_source.values()) == getattr(found, name)
    assert (found.a.documents_kept, found.b.documents_kept) == (len(a), len(b))


def test_documents_that_moved_are_counted_by_the_rule(folders: tuple[Path, Path], found: DataDiff):
    fate = [{}, {}]
    for side, folder in enumerate(folders):
        for row in decisions(folder):
            if row["rule"] != "exact_duplicate":
                fate[side][row["id"]] = row["rule"]
    lost = [fate[1][name] for name, rule in fate[0].items() if rule is None and fate[1].get(name)]
    won = [rule for name, rule in fate[0].items() if rule and fate[1].get(name, "") is None]
    assert found.kept_to_dropped.rules == {rule: lost.count(rule) for rule in sorted(set(lost))}
    assert found.dropped_to_kept.rules == {rule: won.count(rule) for rule in sorted(set(won))}
    assert found.kept_to_dropped.rules["too_few_words"] > 3
    assert found.dropped_to_kept.rules["symbols"] >= 1


def test_changed_texts_are_paired_by_source_and_path(found: DataDiff):
    ids = {content_id(text): content_id(edited(place, text)) for place, (_, text) in enumerate(texts())}
    assert found.changed == len(EDITED)
    assert {each.path for each in found.changed_examples} == {f"topics/{place:03d}.rst" for place in EDITED}
    assert all(ids[each.id_a] == each.id_b for each in found.changed_examples)


def test_settings_and_rules_side_by_side(found: DataDiff):
    assert found.parameters == {"refine.min_words": (40, 80), "refine.max_symbol_word_ratio": (0.1, None)}
    assert found.dropped["too_few_words"][0] < found.dropped["too_few_words"][1]
    assert found.dropped["symbols"][1] == 0
    assert differing({"a": {"b": 1}}, {"a": {}, "c": None}) == {"a.b": (1, "absent"), "c": ("absent", None)}


def test_the_text_is_short_and_has_the_figures(found: DataDiff):
    text = render_text(found)
    assert len(text.splitlines()) < 60
    assert max(map(len, text.splitlines())) <= 120
    for part in ("documents kept", "only in A", "refine.min_words", "too_few_words", "3 changed", "0.1  off"):
        assert part in text
    assert json.loads(json.dumps(found.model_dump(mode="json")))["only_a"] == found.only_a


def test_sides_swap(folders: tuple[Path, Path], found: DataDiff):
    back = diff(folders[1], folders[0])
    assert (back.only_a, back.only_b, back.both) == (found.only_b, found.only_a, found.both)
    assert back.kept_to_dropped == found.dropped_to_kept and back.dropped_to_kept == found.kept_to_dropped
    assert back.changed == found.changed
    assert back.by_source == {
        name: SourceDiff(only_a=each.only_b, only_b=each.only_a, both=each.both)
        for name, each in found.by_source.items()
    }


def test_tokens_are_compared_where_packed_folders_are_given(folders: tuple[Path, Path], tmp_path: Path):
    for name in ("a", "b"):
        write_json(tmp_path / name / "index.json", PACK_INDEX)
    found = diff(*folders, packed_a=tmp_path / "a", packed_b=tmp_path / "b")
    assert found.a.tokens == found.b.tokens == 91_234 + 2_345
    assert "tokens" in render_text(found)
    with pytest.raises(ValueError, match="run the pack step first"):
        diff(*folders, packed_a=tmp_path)


def test_what_is_no_refined_folder_is_refused(folders: tuple[Path, Path], tmp_path: Path):
    with pytest.raises(ValueError, match=r"has no evidence/report\.json"):
        diff(folders[0], tmp_path)


def test_a_copy_that_is_dropped_does_not_count_as_lost(tmp_path: Path):
    """A text that is kept once is kept, however many of its copies are dropped."""
    a = write_refined(tmp_path / "a")
    assert any(row["rule"] == "exact_duplicate" for row in decisions(a))
    b = write_refined(tmp_path / "b", parts=1)
    assert diff(a, b).kept_to_dropped.documents == 0
