"""`sluice data build` on texts of several kinds: what of them the documents hold, and what the report counts."""

import io
import json
import sys
import textwrap
from pathlib import Path

import pytest
from data_fixtures import ONE, article, documents, refusal, said

from sluice.pipelines.cli import main

LINES = {
    "code": "def f(x):\n    return x\n\nclass A:\n    def g(self):\n        pass\n",
    "chat": "user: hello there, my friend\r\nassistant: hello to you\r\n",
    "verse": "an old silent lock\na boat leaves the open gate\n\n\nwater remembers  \n",
    "numbers": "1) one\n2) two",
    "decomposed": "cafe\u0301 schÃ¶n \ufeff\tx",
    "river": "河边\n小屋",
}


ALL_KEPT = [
    "min_words=1",
    "min_stop_words=null",
    "min_mean_word_length=null",
    "refine.workers=1",
    "min_alphabetic_word_fraction=null",
]


def test_rows_keep_their_text_byte_for_byte(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And again when the build itself is a source."""
    rows = "".join(json.dumps({"text": text}) + "\n" for text in LINES.values())
    (tmp_path / "rows.jsonl").write_text(rows)
    for source, out in (("rows.jsonl", "first"), ("first", "second")):
        report = said(capsys, "build", "--source", str(tmp_path / source), "--out", str(tmp_path / out), *ALL_KEPT)
        assert (report["kept"], report["joined_lines"]) == (len(LINES), {})
        assert {row["text"] for row in documents(tmp_path / out)} == set(LINES.values())


def test_markup_of_all_sources_is_set_by_its_bare_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pages").mkdir()
    page = "<html><body>\n<p>The keeper of the lock,\n  and <b>his</b> boat.</p></body></html>\n"
    (tmp_path / "pages" / "a.html").write_text(page)
    (tmp_path / "pages" / "logo.png").write_bytes(b"\x89PNG")
    (tmp_path / "rows.jsonl").write_text(json.dumps({"text": LINES["verse"]}) + "\n")
    build = ("build", "--source", "pages/", "--source", "rows.jsonl", "--out", "corpus")
    report = said(capsys, *build, "markup=raw", *ALL_KEPT)
    assert {row["text"] for row in documents(tmp_path / "corpus")} == {page, LINES["verse"]}
    assert report["rejects"] == {"unsupported suffix .png": 1}
    said(capsys, *build, "markup=wrapped", *ALL_KEPT)
    texts = {row["text"] for row in documents(tmp_path / "corpus")}
    assert "an old silent lock a boat leaves the open gate\n\n\nwater remembers" in {each.strip() for each in texts}


def test_words_of_pages_beside_the_main_content_are_counted_by_source(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the summary, the report and the card."""
    source, out = tmp_path / "pages", tmp_path / "out"
    source.mkdir()
    for number in range(2):
        text = " ".join(f"{word}{number}" for word in article("the river", number).split())
        (source / f"{number}.html").write_text(
            f"<html><body><nav>Home News</nav><h1>Rivers {number}</h1><p>{text}</p><footer>Imprint</footer></body>"
        )
    assert main(["data", "build", "--source", str(source), "--out", str(out), *ALL_KEPT, "min_jaccard=1"]) == 0
    report = json.loads((out / "evidence" / "report.json").read_text())
    assert (report["words_left_out"], report["by_source"]["local"]["words_left_out"]) == (6, 6)
    assert f"left out  6 of {report['page_words']:,} words of pages of local" in capsys.readouterr().out
    assert "Words of pages left out" in (out / "card.html").read_text()


def test_joined_lines_are_counted_by_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the summary, the report and the card."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        text = f"In the house {name} " + " ".join(article("the river", number) for number in range(6))
        (tmp_path / name / "prose.txt").write_text(textwrap.fill(text, 72))
    joined = {str(tmp_path / name): (tmp_path / name / "prose.txt").read_text().count("\n") for name in "ab"}
    out = tmp_path / "out"
    arguments = ["build", "--source", str(tmp_path / "a"), "--source", str(tmp_path / "b"), "--out", str(out)]
    assert main(["data", *arguments, *ALL_KEPT, "min_jaccard=1"]) == 0
    assert f"joined    lines of {tmp_path / 'a'} {joined[str(tmp_path / 'a')]}, lines of" in capsys.readouterr().out
    report = json.loads((out / "evidence" / "report.json").read_text())
    assert {name: each["joined_lines"] for name, each in report["by_source"].items()} == joined
    assert report["joined_lines"] == sum(joined.values()) > 40
    assert "Lines joined" in (out / "card.html").read_text()
    said(capsys, "refilter", "--in", str(out), "min_words=2")
    assert json.loads((out / "evidence" / "report.json").read_text())["joined_lines"] == report["joined_lines"]


def test_languages_keep_code_and_drop_noise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = {
        "en": "The keeper of the lower lock had lived in the small house beside the water for thirty years.",
        "code": "import json\n\ndef load(path):\n    with open(path) as file:\n        return json.load(file)\n",
        "noise": "Hello",
        "de": "Der Wärter der unteren Schleuse wohnte seit dreißig Jahren in dem kleinen Haus am Wasser.",
    }
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts.values()))
    for languages, kept in (
        ("[en]", {"en", "code"}),
        ("[de,undetermined]", {"de", "code", "noise"}),
        ("[code]", {"code"}),
    ):
        arguments = ["build", "--source", str(path), "--out", str(tmp_path / "out"), f"languages={languages}"]
        said(capsys, *arguments, *ALL_KEPT)
        assert {row["text"] for row in documents(tmp_path / "out")} == {texts[name] for name in kept}
    assert main(["data", "refilter", "--in", str(tmp_path / "out"), "languages=[undetermined]"]) == 0
    assert {row["text"]: row["metadata"]["language"] for row in documents(tmp_path / "out")} == {
        texts["code"]: "code",
        texts["noise"]: "undetermined",
    }


def test_a_classifier_is_trained_and_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = {
        "good": [article("garden", number) for number in range(30)],
        "bad": [f"{article('kitchen', number)} Click here to win cheap deals now." for number in range(30)],
    }
    for name, side in texts.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in side))
    good, bad, model = (str(tmp_path / name) for name in ("good.jsonl", "bad.jsonl", "quality.safetensors"))
    report = said(capsys, "classifier", "--good", good, "--bad", bad, "--out", model)
    assert (report["trained_good"], report["held_out_bad"], report["held_out_auc"]) == (24, 6, 1.0)
    settings = [f"refine.quality_model={model}", "refine.min_quality=0.5"]
    out = str(tmp_path / "out")
    built = said(capsys, "build", "--source", good, "--source", bad, "--out", out, *settings, *ONE)
    assert (built["kept"], built["dropped"]) == (30, {"low_quality": 30})
    assert "are both good and bad" in refusal(capsys, "classifier", "--good", good, "--bad", good, "--out", model)
    assert "is a folder" in refusal(capsys, "classifier", "--good", good, "--bad", bad, "--out", str(tmp_path))


def test_rows_are_read_from_standard_input_and_keep_their_fields(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [json.dumps({"text": article("garden", number), "url": f"https://e.org/{number}"}) for number in range(3)]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\n".join(rows).encode())))
    command = ["data", "build", "--source", "-", "--out", str(tmp_path / "corpus"), "workers=1", "id_field=url"]
    assert main(command) == 0
    assert "kept 3 of 3 documents" in capsys.readouterr().out
    [documents] = (tmp_path / "corpus").glob("documents-*.jsonl")
    urls = {json.loads(line)["metadata"]["id"] for line in documents.read_text().splitlines()}
    parameters = json.loads((tmp_path / "corpus" / "manifest.json").read_text())["parameters"]
    assert (parameters["data"]["workers"], parameters["refine"]["workers"]) == (1, 1)
    assert urls == {f"https://e.org/{number}" for number in range(3)}
