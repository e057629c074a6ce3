"""`sluice evaluate`: a signed folder from a model directory, the same bytes every time, and nothing measured twice."""

# ruff: noqa: F811  (pytest finds the imported fixtures by name)

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from evaluation_fixtures import SPLIT, corpus, document_text, saved_model, side_of, tiny_model  # noqa: F401
from suites.suite_fixtures import sums, write_suite
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from sluice.components.workspace import Workspace
from sluice.data.tokenization import END_OF_TEXT
from sluice.data.tokenization.folder import load_tokenizer
from sluice.model.directory import save_model
from sluice.model.evaluation import open_model
from sluice.model.evaluation.evidence import verify_folder
from sluice.model.evaluation.keys import trusted_keys
from sluice.model.evaluation.results import load_evaluation
from sluice.model.evaluation.suites import cache
from sluice.pipelines.cli import main
from sluice.pipelines.evaluation import make_plan

SMALL = [
    f"pack.test_fraction={SPLIT.test_fraction}",
    f"pack.valid_fraction={SPLIT.valid_fraction}",
    "evaluate.documents=12",
    "evaluate.max_document_bytes=400",
    "evaluate.multiple_choice_items=12",
    "evaluate.max_passage_bytes=150",
    "evaluate.golden_max_tokens=4",
    "evaluate.latency_prompts=2",
    "evaluate.latency_max_tokens=2",
    "evaluate.latency_rounds=1",
]
CONTENT = ("answers.jsonl", "evaluation.html", "golden.json", "items.jsonl", "results.json")


@pytest.fixture(scope="module")
def model(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_model(corpus, tmp_path_factory.mktemp("evaluated") / "model", steps=5)


@pytest.fixture(autouse=True)
def no_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder outside every workspace, with a cache of its own."""
    monkeypatch.delenv("SLUICE_WORKSPACE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def contents(folder: Path, *names: str) -> dict[str, str]:
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names or CONTENT}


def test_ratings_of_people_are_not_replaced(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rated = tmp_path / "rated"
    rated.mkdir()
    for name in ("results.json", "review.json"):
        (rated / name).write_text("{}")
    assert main(["evaluate", str(model), "--suite", "arithmetic", "--out", "rated"]) == 1
    assert "people's ratings in review.json, which a new evaluation would remove: name" in capsys.readouterr().err
    assert {path.name: path.read_text() for path in rated.iterdir()} == {"results.json": "{}", "review.json": "{}"}


def test_the_default_suite_repeats_to_the_byte_and_asks_nothing_again(
    corpus: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", str(model), "--data", str(corpus / "refine"), "--out", "one"]
    assert main([*command, *SMALL]) == 0
    shown = capsys.readouterr().out
    for name in ("bits_per_byte", "choice_accuracy", "golden_pass_rate", "arithmetic", "facts.choice_byte"):
        assert name in shown
    verify_folder(tmp_path / "one", trusted_keys(tmp_path / "cache" / "sluice" / "keys"), redo="evaluate again")
    evaluation = load_evaluation(tmp_path / "one", {})
    assert evaluation.planned("arithmetic") == len(evaluation.items["arithmetic"]) == 40
    suite = evaluation.results["suites"]["arithmetic"]
    assert {
        "sha256",
        "version",
        "source",
        "licence",
        "refresh_by",
        "prompts",
        "planned",
        "contamination",
    } <= suite.keys()
    first = contents(tmp_path / "one")
    page = (tmp_path / "one" / "evaluation.html").read_text()
    assert "<span>never" in page and "9999" not in page  # retrieval's questions do not age

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the model is opened again")

    with monkeypatch.context() as patched:
        patched.setattr(open_model, "open_model", refuse)
        assert main([*command, *SMALL, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["results"]["planned"] == evaluation.results["planned"]
    assert contents(tmp_path / "one") == first
    # Neither are the batches part of the result.
    monkeypatch.setattr(cache, "_GENERATIONS_AT_ONCE", 3)
    monkeypatch.setattr(cache, "_CONTINUATIONS_AT_ONCE", 7)
    assert main([*command[:-1], "two", *SMALL, "--no-cache"]) == 0
    assert contents(tmp_path / "two") == first


def test_a_suite_alone_needs_no_data_and_has_a_baseline(corpus: Path, model: Path, tmp_path: Path) -> None:
    suite = write_suite(tmp_path / "suite", sums(), max_tokens=3, stop=["\n"])
    other = saved_model(corpus, tmp_path / "other", seed=1, steps=1)
    command = ["evaluate", str(model), "--baseline", str(other), "--suite", str(suite), "--suite", "facts"]
    assert main([*command, "--out", "out"]) == 0
    found = {name: load_evaluation(tmp_path / "out" / name, {}) for name in (".", "baseline")}
    assert found["."].hashes["model"] != found["baseline"].hashes["model"]
    for evaluation in found.values():
        assert set(evaluation.results["suites"]) == {"sums", "facts"} and evaluation.planned("sums") == 4
    pairs = [{(i.metric, i.item, i.weight) for rows in each.items.values() for i in rows} for each in found.values()]
    assert pairs[0] == pairs[1]


def test_items_that_stand_in_the_training_text_are_scored_apart(
    corpus: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copied = side_of(corpus, "train")[0].split("\n\n")[3]
    rows = [
        {"id": "copied", "question": copied, "target": "1"},
        {"id": "own", "question": "How many sides has a regular heptagon that somebody drew on a wall?", "target": "7"},
    ]
    suite = write_suite(tmp_path / "suite", rows, max_tokens=2)
    command = ["evaluate", str(model), "--suite", str(suite), "--data", str(corpus / "refine"), "--out", "out"]
    assert main([*command, *SMALL[:2]]) == 0
    evaluation = load_evaluation(tmp_path / "out", {})
    assert [item.metadata["contaminated"] for item in evaluation.items["sums"]] == ["yes", "no"]
    entry = evaluation.results["metrics"]["sums"]
    assert (entry["n"], entry["contaminated_items"], entry["without_contaminated"]["n"]) == (2, 1, 1)
    assert "without contaminated items" in capsys.readouterr().out


@pytest.mark.parametrize("form", ["folder", "file"])
def test_text_is_measured_by_half_of_it(model: Path, tmp_path: Path, form: str) -> None:
    texts = [document_text(number) for number in range(100, 112)]
    data = tmp_path / "notes"
    if form == "folder":
        data.mkdir()
        for place, text in enumerate(texts):
            (data / f"{place}.md").write_text(text)
    else:
        data.write_text("\n\n".join(texts))
    assert main(["evaluate", str(model), "--data", str(data), "--out", "out", *SMALL[2:]]) == 0
    documents = load_evaluation(tmp_path / "out", {}).items["bits_per_byte"]
    assert len(documents) >= 2 and {item.metadata["source"] for item in documents} == {"notes"}


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "name it by --data"),
        (["--suite", "nonsense"], "no suite is named nonsense: use arithmetic, "),
        (["--suite", "no/suite.yaml"], "cannot be read"),
        (["--suite", "lm-eval:arc_easy"], "laid out as the hub's names"),
        (["--suite", "facts", "--suite", "facts"], "one name"),
        (["--data", "nowhere"], "no such file or folder"),
        (["--data", "empty"], "0 texts"),
        (["--data", "notes", "--baseline", "http://127.0.0.1:9"], "http://127.0.0.1:9"),
        (["--suite", "facts", "--out", "full"], "is there and no evaluation"),
        (["--suite", "facts", "evaluate.document=1"], "evaluate.document"),
    ],
)
def test_a_mistake_is_one_line(
    model: Path, tmp_path: Path, arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "notes").mkdir()
    for number in range(2):
        (tmp_path / "notes" / f"{number}.txt").write_text(document_text(number))
    (tmp_path / "full" / "notes.txt").write_text("mine")
    out = [] if "--out" in arguments else ["--out", "out"]
    assert main(["evaluate", str(model), *out, *arguments]) == 1
    assert reason in (said := capsys.readouterr().err) and said.count("\n") == 1
    assert (tmp_path / "full" / "notes.txt").read_text() == "mine" and not (tmp_path / "out").exists()


def test_documents_that_the_model_gives_away_are_counted_on_both_sides(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = load_tokenizer(corpus / "tokenizer")
    save_model(tmp_path / "model", tiny_model(tokenizer, context=128), corpus / "tokenizer", {})
    command = ["evaluate", "model", "--suite", "extraction", "--suite", "bias-pairs", "--out", "out"]
    assert main(command) == 1 and "name the refined folder" in capsys.readouterr().err
    assert main([*command, "--data", str(corpus / "refine"), *SMALL[:2]]) == 0
    evaluation = load_evaluation(tmp_path / "out", {})
    sides = len(side_of(corpus, "train")), len(side_of(corpus, "test"))
    assert (evaluation.planned("extraction"), evaluation.planned("extraction.held_out")) == sides
    entry = evaluation.results["suites"]["extraction"]
    assert entry["train"]["value"] == 0 and entry["difference"]["interval"][0] < 0 < entry["difference"]["interval"][1]
    assert "contamination" not in entry and len(evaluation.items["bias-pairs"]) == 60


@pytest.fixture(scope="module")
def no_chat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of a tokenizer without chat template and tokens of chats, and with a context of 128 bytes."""
    folder = tmp_path_factory.mktemp("plain")
    tokenizer = Tokenizer(
        BPE({text: place for place, text in enumerate((END_OF_TEXT, *sorted(ByteLevel.alphabet())))}, [])
    )
    tokenizer.pre_tokenizer, tokenizer.decoder = ByteLevel(add_prefix_space=False), ByteLevelDecoder()
    tokenizer.add_special_tokens([END_OF_TEXT])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": END_OF_TEXT}))
    save_model(folder / "model", tiny_model(tokenizer, context=128), folder, {})
    return folder / "model"


def test_a_model_without_a_chat_is_asked_as_plain_text_unless_the_suite_insists(
    no_chat: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "notes.txt").write_text("\n\n".join(document_text(number) for number in range(100, 112)))
    assert main(["evaluate", str(no_chat), "--data", "notes.txt", "--out", "out", *SMALL[2:]]) == 0
    shown = capsys.readouterr().out
    assert "facts: asked as plain text: the model has no chat template" in shown and "bits_per_byte" in shown
    suites = load_evaluation(tmp_path / "out", {}).results["suites"]
    assert [suites[name]["settings"]["chat"] for name in ("arithmetic", "facts")] == [False, False]
    own = write_suite(tmp_path / "own", sums(), chat=True)
    monkeypatch.setattr(open_model, "open_model", None)  # refused before the model is opened
    assert main(["evaluate", str(no_chat), "--suite", str(own), "--out", "own-out"]) == 1
    said = capsys.readouterr().err
    assert "suite sums says chat: true" in said and "chat: false" in said and "chat_template.jinja" in said


def test_prompts_that_the_model_cannot_be_asked_are_no_wrong_answers(
    no_chat: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"id": str(n), "question": f"{n} + {n} is what? " * 20, "target": 2 * n} for n in range(4)]
    long = write_suite(tmp_path / "long", rows, max_tokens=2, chat=False, judge={"rubric": "answer"})
    monkeypatch.setenv("SLUICE_JUDGE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("SLUICE_JUDGE_MODEL", "judge")  # is not asked
    assert main(["evaluate", str(no_chat), "--suite", str(long), "--out", "out"]) == 0
    assert "sums: no prompt can be asked: the prompt has " in capsys.readouterr().out
    found = load_evaluation(tmp_path / "out", {}).results["metrics"]
    assert [(found[name]["n"], found[name]["value"]) for name in ("sums", "sums.answer")] == [(0, None)] * 2
    rows[0]["question"] = "0 + 0 ="
    some = write_suite(tmp_path / "some", rows[:2], max_tokens=2, chat=False)
    assert main(["evaluate", str(no_chat), "--suite", str(some), "--out", "out"]) == 0
    shown = capsys.readouterr().out
    assert "sums: 1 answer failed, and counts as wrong; 1 of 1: the prompt has " in shown and "(see answers" in shown
    assert load_evaluation(tmp_path / "out", {}).results["metrics"]["sums"]["n"] == 2


def test_the_default_is_measured_beside_a_suite_by_name(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "notes.txt"
    data.write_text("\n\n".join(document_text(number) for number in range(100, 112)))
    suite = write_suite(tmp_path / "suite", sums(), max_tokens=2)
    command = ["evaluate", str(model), "--suite", str(suite), "--data", str(data), *SMALL[2:], "--out", "out"]
    assert main(command) == 0
    assert "has no effect: add --suite default" in capsys.readouterr().err
    plan = make_plan(Workspace.find_or_default(), [str(suite), "default"], data, SMALL[2:], is_served=False)
    assert plan.held_out is not None and plan.reads_data
    assert [each.settings.name for each in plan.suites][:4] == ["sums", "arithmetic", "instructions", "facts"]


def test_a_model_that_is_not_there_is_said_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "nomodel", "--suite", "facts", "--out", "out"]) == 1
    assert "nomodel does not exist" in capsys.readouterr().err


def found_in(folder: Path) -> dict[str, Any]:
    suite: dict[str, Any] = load_evaluation(folder, {}).results["suites"]["sums"]
    return suite


class _Judge(BaseHTTPRequestHandler):
    """Gives 5 to an answer with `good` in it, and 1 to any other; of two answers it prefers the first."""

    asked: list[str] = []

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        asked = body["messages"][-1]["content"]
        self.asked.append(asked)
        said = asked.rpartition(" answer\n")[2]
        reply = json.dumps({"reason": "so", "score": 5 if "good" in said else 1, "better": "first"})
        content = json.dumps({"choices": [{"message": {"content": reply}, "finish_reason": "stop"}]}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def test_a_judge_scores_a_suite_over_http_and_is_asked_once(
    corpus: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = tmp_path / "suite" / "labels.jsonl"
    labels.parent.mkdir()
    rows = [
        {"prompt": f"Q{n}", "answer": f"{'good' if n % 2 else 'poor'} {n}", "passed": n % 2 == 1} for n in range(60)
    ]
    labels.write_text("".join(json.dumps(row) + "\n" for row in rows))
    pin = hashlib.sha256(labels.read_bytes()).hexdigest()
    judge = {"rubric": "answer", "labels": labels.name, "labels_sha256": pin, "compare": "better"}
    suite = write_suite(labels.parent, sums(), max_tokens=3, judge=judge)
    other = saved_model(corpus, tmp_path / "other", seed=1, steps=1)
    command = ["evaluate", str(model), "--baseline", str(other), "--suite", str(suite), "--out", "out"]
    assert main(command) == 0
    assert "no judge: set SLUICE_JUDGE_URL" in capsys.readouterr().out
    with ThreadingHTTPServer(("127.0.0.1", 0), _Judge) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        monkeypatch.setenv("SLUICE_JUDGE_URL", f"http://127.0.0.1:{server.server_port}/v1")
        monkeypatch.setenv("SLUICE_JUDGE_MODEL", "judge-1")
        try:
            assert main(command) == 0
            first = contents(tmp_path / "out", "answers.jsonl", "items.jsonl", "results.json")
            asked = len(_Judge.asked)
            assert main(command) == 0
        finally:
            server.shutdown()
            thread.join()
    compared = found_in(tmp_path / "out")["compared"]
    different = compared["flipped"]
    assert compared["pairs"] == 4 and different > 0 and compared["decided"] == 0 and compared["win_rate"] == 0.5
    # The labelled answers once, four answers of each model, and each pair of different answers in both orders.
    assert len(_Judge.asked) == asked and asked <= 60 + 8 + 2 * different
    assert contents(tmp_path / "out", "answers.jsonl", "items.jsonl", "results.json") == first
    found = load_evaluation(tmp_path / "out", {})
    assert "compared" not in found_in(tmp_path / "out" / "baseline")
    assert found.planned("sums.answer") == len(found.items["sums.answer"]) == 4
    assert found.results["scorers"]["judge-answer"]["kappa_low"] >= 0.6
    assert found.results["suites"]["sums"]["judged"] == {"sums.answer": "judge-answer"}
    assert "rubric-answer" in found.results["suites"]["sums"]["prompts"]
    assert "sums.answer" in capsys.readouterr().out


def test_an_incident_is_among_what_is_measured_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_WORKSPACE", str(tmp_path))
    (tmp_path / "conf").mkdir()
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    (tmp_path / "conf" / "config.yaml").write_text("defaults: []\n")
    assert main(["incident", "add", "--prompt", "Q", "--expected", "a", "--reason", "r"]) == 0
    plan = make_plan(Workspace(tmp_path), [], None, ["data.sources=[text]"], is_served=True)
    assert [suite.settings.name for suite in plan.suites] == ["arithmetic", "instructions", "incidents"]
