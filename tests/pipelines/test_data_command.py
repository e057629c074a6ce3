"""`sluice data ..` as a user calls it: what it prints, what it leaves in the folder, what it refuses."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from data_fixtures import ONE, article, documents, refusal, said

import sluice.data.refining.score
from sluice.core.manifest import file_hash
from sluice.data.document import content_id
from sluice.pipelines.cli import main

EVALUATION = "Which of the seven seas did the very old captain of the wooden ship cross first in spring"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten good documents, a copy, a near copy, a leak, a short one, a private one, and a line that is no JSON."""
    texts = [article("garden", number) for number in range(10)]
    texts.append(texts[0])
    texts.append(" ".join([*[article("kitchen", n) for n in range(6)], "The end of it."]))
    texts.append(" ".join(article("kitchen", n) for n in range(6)))
    texts.append(f"{article('harbour', 1)} {EVALUATION}?")
    texts.append("Too short.")
    texts.append(f"{article('office', 1)} Write to jane.doe@corp.example about the key of it.")
    path = tmp_path_factory.mktemp("source") / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts) + "{broken\n")
    return path


@pytest.fixture(scope="module")
def against(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("against") / "quiz.jsonl"
    path.write_text(json.dumps({"question": EVALUATION, "answer": "the black sea"}) + "\n")
    return path


@pytest.fixture(scope="module")
def built(source: Path, against: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("built") / "out"
    assert main(["data", "build", "--source", str(source), "--against", str(against), "--out", str(out), *ONE]) == 0
    return out


@pytest.fixture
def copy(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "copy"))


def test_build_counts_every_document_once(
    source: Path, against: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    report = said(capsys, "build", "--source", str(source), "--against", str(against), "--out", str(out), *ONE)
    assert report["in"] == 16
    assert report["dropped"] == {"contaminated": 1, "exact_duplicate": 1, "near_duplicate": 1, "too_few_words": 1}
    assert report["kept"] == 12 == report["in"] - sum(report["dropped"].values())
    assert sum(report["rejects"].values()) == 1
    assert report["contaminated"]["quiz"] == 1
    kept = documents(out)
    assert len(kept) == 12
    assert all(set(row) == {"id", "text", "metadata"} and row["id"] == content_id(row["text"]) for row in kept)
    assert not any("corp.example" in row["text"] or EVALUATION in row["text"] for row in kept)
    assert any("<EMAIL>" in row["text"] for row in kept)
    assert [path.name for path in tmp_path.iterdir()] == ["out"], "nothing half-made is left behind"


def test_an_evaluation_set_that_is_the_source_itself_is_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = [article("garden", number) for number in range(5)]
    files = [tmp_path / "texts.jsonl", tmp_path / "quiz.jsonl"]
    for path, some in zip(files, (texts, texts[:3]), strict=True):
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in some))
    command = ["data", "build", "--source", str(files[0]), "--against", str(files[1]), "--out", str(tmp_path / "out")]
    assert main([*command, *ONE]) == 0
    warning = (
        "warning: the evaluation sets (quiz) dropped 3 of 5 documents: check that none of them is made of the sources"
    )
    assert warning in capsys.readouterr().err


def test_a_second_build_replaces_the_first_with_the_same_bytes(built: Path, source: Path, against: Path) -> None:
    before = json.loads((built / "manifest.json").read_text())
    assert main(["data", "build", "--source", str(source), "--against", str(against), "--out", str(built), *ONE]) == 0
    assert json.loads((built / "manifest.json").read_text()) == before


def test_sources_and_evaluation_sets_can_be_named_several_times(
    source: Path, against: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more, other = tmp_path / "more.jsonl", tmp_path / "other.jsonl"
    texts = [article("harbour", number) for number in range(100, 104)]
    more.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    other.write_text(json.dumps({"question": texts[0]}) + "\n")
    sources = ["--source", str(source), "--source", str(more)]
    sets = ["--against", str(against), "--against", str(other)]
    alone = said(capsys, "build", *sources[:2], *sets[:2], "--out", str(tmp_path / "alone"), *ONE)
    both = said(capsys, "build", *sources, *sets, "--out", str(tmp_path / "both"), *ONE)
    assert sorted(both["sources"].values()) == sorted([alone["in"], len(texts)])
    assert both["in"] == alone["in"] + len(texts)
    assert alone["contaminated"].keys() == {"quiz"}
    assert both["contaminated"] == alone["contaminated"] | {"other": 1}


def test_paths_are_from_the_folder_of_the_call_and_those_of_conf_from_the_workspace(
    source: Path, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(source, tmp_path / "here.jsonl")
    (tmp_path / "quiz.jsonl").write_text(json.dumps(article("garden", 3)) + "\n")
    by_key = ["--out", "out0", "data.sources=here.jsonl", "refine.evaluation_sets=[quiz.jsonl]"]
    by_option = ["--source", "here.jsonl", "--against", "quiz.jsonl", "--out", "out1"]
    for named in (by_key, by_option):
        report = said(capsys, "build", *named, *ONE)
        assert (report["in"], report["contaminated"]) == (16, {"quiz": 1})
    manifest = json.loads((tmp_path / "out1" / "manifest.json").read_text())
    golden, quiz = manifest["parameters"]["refine"]["evaluation_sets"]
    assert golden["sha256"] == file_hash(root / "conf/golden.yaml")
    assert (quiz["path"], quiz["sha256"]) == ("quiz.jsonl", file_hash(tmp_path / "quiz.jsonl"))
    (short,) = said(capsys, "why", str(tmp_path / "here.jsonl:15"), "--in", "out1")
    assert short["rule"] == "too_few_words"


def test_why_names_the_rule_or_the_twin(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (short,) = said(capsys, "why", content_id("Too short."), "--in", str(built))
    assert (short["rule"], short["comparison"]) == ("too_few_words", "words 2 < 40")
    near = content_id(" ".join(article("kitchen", n) for n in range(6)))
    (near_copy,) = said(capsys, "why", near, "--in", str(built))
    assert near_copy["rule"] == "near_duplicate"
    assert 0.7 <= near_copy["jaccard"] < 1
    assert near_copy["twin"] in {row["id"] for row in documents(built)}
    assert near_copy["twin_path"] == "texts.jsonl:12"
    copies = said(capsys, "why", content_id(article("garden", 0)), "--in", str(built))
    assert sorted(row["rule"] or "kept" for row in copies) == ["exact_duplicate", "kept"]
    (leak,) = said(capsys, "why", "texts.jsonl:14", "--in", str(built))
    assert "words with quiz" in leak["comparison"]
    assert main(["data", "why", "texts.jsonl:15", "--in", str(built)]) == 0
    assert "dropped by too_few_words: words 2 < 40" in capsys.readouterr().out
    assert "no document of" in refusal(capsys, "why", "0000000000", "--in", str(built))
    assert "not a refined folder" in refusal(capsys, "why", "0000000000", "--in", str(built.parent))


def test_refilter_applies_new_thresholds_without_scoring(
    copy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sluice.data.quality.rules.score", None)
    before = documents(copy)
    scores = (copy / "evidence" / "scores-0000.parquet").read_bytes()
    report = said(capsys, "refilter", "--in", str(copy), "refine.min_words=1", "min_stop_words=0", "min_jaccard=1.0")
    assert (report["kept_before"], report["kept"]) == (12, 14)
    assert report["dropped"] == {"contaminated": 1, "exact_duplicate": 1}
    assert len(documents(copy)) == 14
    assert (copy / "evidence" / "scores-0000.parquet").read_bytes() == scores
    said(capsys, "recut", "--in", str(copy), "min_words=40", "min_stop_words=2", "min_jaccard=0.7")  # the former name
    assert documents(copy) == before, "the old thresholds give the old documents"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("min_wrods=1", "unknown key 'min_wrods': did you mean 'min_words'?"),
        ("languages=en", "languages=en: input should be a valid list, such as [en]"),
        ("max_symbol_word_ratio=-1", "max_symbol_word_ratio=-1: input should be greater than or equal to 0"),
        ("minhash_ngram=3", "build again with refine.minhash_ngram="),
        ("min_words=many", "min_words=many: input should be a valid integer"),
        ("min_words=100000", "refine kept none of 16 documents"),
        ("min_words", "is not key=value"),
    ],
)
def test_refilter_refuses_and_leaves_the_build_alone(
    copy: Path, capsys: pytest.CaptureFixture[str], change: str, says: str
) -> None:
    before = documents(copy)
    assert says in refusal(capsys, "refilter", "--in", str(copy), change)
    assert documents(copy) == before
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]


def test_diff_and_card(built: Path, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    same = said(capsys, "diff", str(built), str(copy))
    said(capsys, "refilter", "--in", str(copy), "min_jaccard=1.0")
    assert main(["data", "diff", str(built), str(copy)]) == 0
    assert "near_duplicate" in capsys.readouterr().out
    assert same != said(capsys, "diff", str(built), str(copy))
    assert main(["data", "card", str(copy)]) == 0
    card = Path(capsys.readouterr().out.strip())
    assert card.parent == copy
    assert "few stop words" in card.read_text()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--source", "/no/such/place"], "/no/such/place"),
        (["--source", "{source}", "refine.min_wrods=1"], "did you mean 'refine.min_words'?"),
        (["--source", "{source}", "min_wrods=1"], "'min_wrods' has no effect here: did you mean 'refine.min_words'?"),
        (["--source", "{source}", "attemts=1"], "did you mean 'data.attempts'?"),
        (["--source", "{source}", "markup=docx"], "markup=docx: input should be 'raw', 'txt', 'wrapped', 'md', 'rst'"),
        (
            ["--source", "{source}", "languages=[english]"],
            "english is no language that is identified: give codes such as en",
        ),
        (["--source", "{source}", "refine.languages=en"], "languages=en: input should be a valid list, such as [en]"),
        (["--source", "{source}", "refine.index={source}"], "is a file: name an empty or a new folder for the index"),
        (["--source", "{source}", "refine.index={out}/index"], "name a folder beside it for the index"),
        (["--source", "{source}", "model.layers=3"], "has no effect here"),
        (["--source", "{source}", "data.sources_sha256=abc"], "filled in from the files themselves"),
        (["--source", "{source}", "--against", "/no/such/set.jsonl"], "/no/such/set.jsonl"),
    ],
)
def test_build_refuses_in_one_line(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    filled = [each.format(source=source, out=tmp_path / "out") for each in arguments]
    assert says in refusal(capsys, "build", *filled, "--out", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_an_index_is_never_written_into_an_earlier_build(
    built: Path, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sluice.data.build.ingest", None)  # Refused before anything is read.
    before = sorted(built.rglob("*"))
    refused = refusal(
        capsys, "build", "--source", str(source), "--out", str(tmp_path / "out"), f"refine.index={built}", *ONE
    )
    assert "holds something that is not an index: name an empty or a new folder for the index" in refused
    assert sorted(built.rglob("*")) == before


def test_what_an_earlier_run_kept_is_named_as_that(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = tmp_path / "index"
    options = [f"refine.index={index}", *ONE]
    texts = [article("garden", 0), " ".join(article("kitchen", n) for n in range(6)), article("attic", 5)]
    (tmp_path / "more.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    said(capsys, "build", "--source", str(source), "--out", str(tmp_path / "one"), *options)
    said(capsys, "build", "--source", str(tmp_path / "more.jsonl"), "--out", str(tmp_path / "two"), *options)
    (exact,) = said(capsys, "why", "more.jsonl:1", "--in", str(tmp_path / "two"))
    assert (exact["rule"], exact["index"]) == ("earlier_duplicate", str(index))
    assert main(["data", "why", "more.jsonl:1", "--in", str(tmp_path / "two")]) == 0
    line = capsys.readouterr().out
    assert f"the same text was kept by an earlier run (index {index})" in line
    assert "Jaccard" not in line
    assert main(["data", "why", "more.jsonl:2", "--in", str(tmp_path / "two")]) == 0
    assert "kept by an earlier run" in capsys.readouterr().out


def test_refilter_says_values_as_they_are_typed(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "refilter", "--in", str(copy), "languages=[en]"]) == 0
    assert "languages: null -> [en]" in capsys.readouterr().out


def test_an_interrupted_build_says_what_is_kept(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    command = ["data", "build", "--source", str(source), "--out", str(tmp_path / "out"), *ONE]
    monkeypatch.setattr("sluice.data.build.ingest", interrupt)
    assert main(command) == 130
    assert capsys.readouterr().err.strip() == "sluice data build: interrupted"
    monkeypatch.undo()
    monkeypatch.setattr("sluice.data.refining.refine.similar_pairs", interrupt)
    assert main(command) == 130
    told = capsys.readouterr().err
    assert (
        f"what is read and scored is kept in {tmp_path / '.out.partial'}, and the same command goes on from it" in told
    )
    assert list((tmp_path / ".out.partial").glob("work/*/summary-*.json"))


def test_build_never_overwrites_what_is_not_a_build(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    assert "not a build" in refusal(capsys, "build", "--source", str(source), "--out", str(tmp_path))
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


DIES_AFTER_ONE_PART = """
import os, signal, sys
import sluice.data.refining.refine
from sluice.pipelines.cli import main

score_part = sluice.data.refining.refine.score_part

def score_and_die(task):
    score_part(task)
    os.kill(os.getpid(), signal.SIGKILL)

sluice.data.refining.refine.score_part = score_and_die
main(sys.argv[1:])
"""


@pytest.mark.process
def test_killed_in_the_middle_the_next_build_goes_on_and_ends_with_the_same_bytes(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "many.jsonl"
    texts = (" ".join(article(f"t{n}", place) for place in range(40)) for n in range(600))
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    out, half = tmp_path / "out", tmp_path / ".out.partial"
    died = subprocess.run(
        [sys.executable, "-c", DIES_AFTER_ONE_PART, "data", "build", "--source", str(source), "--out", str(out), *ONE],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.DEVNULL,
        timeout=600,
    )
    assert died.returncode == -signal.SIGKILL
    finished = list(half.glob("work/*/summary-*.json"))
    assert len(finished) == 1
    assert not out.exists()
    before = {path.name.replace("summary", "scores").replace("json", "parquet") for path in finished}
    written: list[str] = []

    def writing(rows: Any, schema: Any, path: Path) -> None:
        written.append(path.name)
        write_rows(rows, schema, path)

    write_rows = sluice.data.refining.score.write_rows
    monkeypatch.setattr(sluice.data.refining.score, "write_rows", writing)
    assert main(["data", "build", "--source", str(source), "--out", str(out), *ONE]) == 0
    assert written, "nothing was left to be done"
    assert not before & set(written), "a finished part was scored again"
    assert main(["data", "build", "--source", str(source), "--out", str(tmp_path / "undisturbed"), *ONE]) == 0
    assert documents(out) == documents(tmp_path / "undisturbed")
    assert len(documents(out)) == 600


def test_a_build_that_fails_before_anything_is_scored_leaves_nothing(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model").write_text("no classifier")
    wrong = ["refine.quality_model=" + str(tmp_path / "model"), "refine.min_quality=0.5"]
    refusal(capsys, "build", "--source", str(source), "--out", str(tmp_path / "out"), *wrong, *ONE)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
