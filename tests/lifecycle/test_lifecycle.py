"""The whole way on the tiny profile, for real: to its end, again, rejected, forced and rolled back, served.

One checkout goes through its life from test to test, in the order of the file: a run costs a minute or two, so each is
used for all it shows. It is the one that test_kill_and_resume.py killed before.
"""

import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from lifecycle_checkout import Checkout
from ports import free_port

from sluice.components.stores import open_registry, open_releases
from sluice.components.workspace import CONTENT_STEPS, STEPS
from sluice.core.manifest import file_hash
from sluice.pipelines.commands.run import REJECTED
from sluice.serving.quality.kept import kept_answers


def test_one_command_takes_text_to_a_served_and_watched_champion(resumed: Checkout) -> None:
    status = resumed.status()
    assert [step["name"] for step in status["steps"]] == list(STEPS)
    assert all(step["state"] == "done" and step["seconds"] >= 0 for step in status["steps"])
    assert not any(step["cached"] for step in status["steps"][len(CONTENT_STEPS) :])
    assert status["verdict"] == "promote"
    assert (status["champion"], status["challenger"]) == ("1", None)
    assert status["ledger_ok"] is True
    assert status["metrics"]["monitor"]["outcome"] == "ok", status["metrics"]["monitor"]
    assert status["metrics"]["monitor"]["records"] > 0
    assert status["metrics"]["refine"]["dropped"]
    assert 0 < status["metrics"]["evaluate"]["bits_per_byte"] < 4
    assert set(resumed.artifact_hashes()) == {f"artifacts/{step}" for step in CONTENT_STEPS}


def test_version_carries_its_lineage(resumed: Checkout) -> None:
    version = open_registry(resumed.workspace).versions()[-1]
    assert version.aliases == ("champion",)
    assert {"git_commit", "dvc_lock", "params", "data", "tokenizer", "model_hash"} <= set(version.tags)
    assert len(version.tags["git_commit"]) == 40
    assert "golden/1" in version.tags["prompts"]
    assert version.tags["verdict"] == "promote" and "bits_per_byte" in version.description
    kept = open_registry(resumed.workspace).model_folder(version.version).parent
    for name, tag in (("params.yaml", "params"), ("dvc.lock", "dvc_lock")):
        assert file_hash(kept / "lineage" / name) == version.tags[tag]
    found = kept_answers(open_registry(resumed.workspace), version.version, resumed.workspace.keys)
    assert found.answers and not found.note, "the gate's greedy answers are registered beside the verdict"
    by_source = [value for name, value in version.metrics.items() if name.startswith("bits_per_byte_by_source/")]
    assert by_source == [version.metrics["bits_per_byte"]], "this corpus is one source"


def test_model_directory_is_loadable_by_transformers_as_it_stands(resumed: Checkout) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = resumed.workspace.artifact("tune")
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    question = [{"role": "user", "content": "argparse"}]
    text = tokenizer.apply_chat_template(question, add_generation_prompt=True, tokenize=False)
    assert text == "<|user|>argparse<|end|><|assistant|>"
    assert model(**tokenizer(text, return_tensors="pt")).logits.isfinite().all()


def test_second_run_repeats_nothing_and_releases_nothing(resumed: Checkout) -> None:
    """Even where everything that may go is gone, and DVC's cache too."""
    before = resumed.artifact_hashes()
    done = resumed.sluice("gc", "--older-than", "0", "--max-size", "0")
    assert done.returncode == 0 and "1 champion" in done.stdout, done.stdout + done.stderr
    shutil.rmtree(resumed.workspace.root / ".dvc" / "cache")
    resumed.run()
    status = resumed.status()
    assert {step["name"] for step in status["steps"] if step["cached"]} == set(CONTENT_STEPS)
    assert status["verdict"] == "hold"
    assert "already the champion" in status["metrics"]["gate"]["reason"]
    assert status["champion"] == "1"
    assert resumed.artifact_hashes() == before


def test_candidate_trained_for_one_step_is_rejected_with_the_comparison(resumed: Checkout) -> None:
    short = ("pretrain.workers=1", "pretrain.steps=1", "pretrain.warmup_steps=0", "tune.steps=1", "tune.warmup_steps=0")
    resumed.run(*short, status=REJECTED)
    status = resumed.status()
    assert {step["name"] for step in status["steps"] if step["cached"]} == {"ingest", "refine", "tokenizer", "pack"}
    assert status["verdict"] == "reject"
    reason = status["metrics"]["gate"]["reason"]
    assert "bits_per_byte_difference" in reason
    assert "> +0.300" in reason
    assert (status["champion"], status["challenger"]) == ("1", None)
    assert status["metrics"]["rollout"]["outcome"] == "skipped"
    refused = resumed.sluice("promote")
    assert refused.returncode == 1
    assert "verdict reject" in refused.stderr
    assert resumed.sluice("promote", "--force").returncode == 1, "force needs a reason"
    refused = resumed.sluice("rollback")
    assert refused.returncode == 1
    assert "no previous champion" in refused.stderr


def test_mlflow_shows_versions_aliases_and_tags(resumed: Checkout) -> None:
    port = free_port()
    process = resumed.start("mlflow", "--port", str(port))
    try:
        assert process.stdout is not None
        page = next((line.split()[2] for line in process.stdout if line.startswith("registry at ")), None)
        assert page is not None, f"it ended with {process.wait()}"
        assert page == f"http://127.0.0.1:{port}/#/models/sluice"
        with httpx.Client(base_url=page.partition("#")[0], timeout=600, trust_env=False) as browser:
            assert '<div id="root"' in browser.get("/").text
            # What the page itself asks for, and draws.
            asked = "/ajax-api/2.0/mlflow/registered-models/get?name=sluice"
            model = browser.get(asked).json()["registered_model"]
            asked = "/ajax-api/2.0/mlflow/model-versions/get?name=sluice&version=1"
            version = browser.get(asked).json()["model_version"]
            run = browser.get(f"/ajax-api/2.0/mlflow/runs/get?run_id={version['run_id']}").json()["run"]
            listed = browser.get(f"/ajax-api/2.0/mlflow/artifacts/list?run_id={version['run_id']}").json()["files"]
        assert {"alias": "champion", "version": "1"} in model["aliases"]
        assert "champion" in version["aliases"]
        assert {"key": "verdict", "value": "promote"} in version["tags"]
        assert version["description"].startswith("# sluice")
        assert (
            run["info"]["run_name"] == "sluice v1"
            and {"key": "pretrain.steps", "value": "120"} in run["data"]["params"]
        )
        assert {file["path"] for file in listed} >= {"model", "MLmodel", "verdict", "lineage", "README.md"}
    finally:
        process.terminate()
        said, _ = process.communicate(timeout=600)
    assert (process.returncode, said) == (130, "sluice mlflow: interrupted\n")


@pytest.fixture(scope="module")
def server(resumed: Checkout) -> Iterator[str]:
    """`sluice serve` while the tests below last; yields its address."""
    process = resumed.start("serve")
    try:
        assert process.stdout is not None
        before = []
        for line in process.stdout:
            if line.startswith("serving at "):
                break
            before.append(line)
        else:
            raise AssertionError(f"the server ended with {process.wait()}: {''.join(before)}{resumed.log_tail()}")
        yield line.split()[2]
    finally:
        process.terminate()
        said, _ = process.communicate(timeout=600)
    assert (process.returncode, said) == (130, "sluice serve: interrupted\n")


def test_forced_candidate_is_promoted_and_rolled_back_in_the_running_server(resumed: Checkout, server: str) -> None:
    """The rejected candidate answers badly but without errors, so force makes it champion; the rollback moves the alias
    and the traffic.
    """
    with users(resumed, server) as answers:
        forced = resumed.sluice("promote", "--force", "--reason", "trying our luck")
        assert forced.returncode == 0, forced.stdout + forced.stderr
        promoted = resumed.status()["champion"]
        assert promoted != "1"
        back = resumed.sluice("rollback", "--reason", "a drill")
        assert back.returncode == 0, back.stderr
        assert ask(resumed, server).headers["x-sluice-version"] == "1"
        chat = resumed.sluice("chat", "--message", "argparse", "--max-tokens", "4")
        assert chat.returncode == 0, chat.stderr
        busy = resumed.sluice("serve")
        assert busy.returncode == 1
        assert "already answers" in busy.stderr
    assert [answer.status_code for answer in answers if answer.status_code != 200] == []
    assert {answer.headers["x-sluice-version"] for answer in answers} == {"1", promoted}
    assert open_registry(resumed.workspace).alias("champion") == "1"
    assert open_releases(resumed.workspace).state().rolled_back == (promoted,)


def test_forced_candidate_that_answers_nan_is_dropped_without_one_failed_request(
    resumed: Checkout, server: str
) -> None:
    """It goes past the gate by force, into a server under load, and out again; no user notices."""
    poison(resumed)
    with users(resumed, server) as answers:
        forced = resumed.sluice("promote", "--force", "--reason", "against better knowledge")
    assert forced.returncode == 1
    assert "dropped" in forced.stdout
    assert len(answers) >= 20
    assert [answer.status_code for answer in answers if answer.status_code != 200] == []
    assert {answer.headers["x-sluice-version"] for answer in answers} == {"1"}
    status = resumed.status()
    assert (status["champion"], status["challenger"]) == ("1", None)
    history = json.loads(resumed.sluice("history", "--json").stdout)
    assert history["ok"]
    dropped = history["entries"][-1]
    assert dropped["action"] == "drop"
    assert "error rate 100.0%" in dropped["reason"]
    proposed = [entry for entry in history["entries"] if entry["action"] == "propose"][-1]
    assert (proposed["details"]["forced"], proposed["reason"]) == (True, "against better knowledge")


def poison(checkout: Checkout) -> None:
    """Make the candidate's weights NaN, and have evaluation and gate look at it as at any candidate."""
    from safetensors.numpy import load_file, save_file

    from sluice.components.evaluate import work
    from sluice.components.gate import gate
    from sluice.components.stage import run_content_step
    from sluice.core.files import write_json
    from sluice.core.manifest import read_manifest, write_manifest

    artifact = checkout.workspace.artifact("tune")
    weights = load_file(artifact / "model.safetensors")
    weights["model.norm.weight"] *= float("nan")
    save_file(weights, artifact / "model.safetensors", metadata={"format": "pt"})
    lineage = json.loads((artifact / "lineage.json").read_text())
    lineage["files"]["model.safetensors"] = file_hash(artifact / "model.safetensors")
    write_json(artifact / "lineage.json", lineage)
    made = {name: value for name, value in read_manifest(artifact).items() if name not in ("schema", "files")}
    write_manifest(artifact, **made)
    run_content_step(checkout.workspace, "evaluate", work)
    assert gate(checkout.workspace) == "reject"


def ask(checkout: Checkout, url: str) -> httpx.Response:
    body = {"messages": [{"role": "user", "content": "argparse"}], "max_tokens": 4}
    headers = {"authorization": f"Bearer {checkout.workspace.api_key()}"}
    return httpx.post(f"{url}/v1/chat/completions", json=body, headers=headers, timeout=600, trust_env=False)


@contextmanager
def users(checkout: Checkout, url: str) -> Iterator[list[Any]]:
    """Two users who ask without a pause; what they were answered."""
    answers: list[Any] = []
    done = threading.Event()

    def user() -> None:
        while not done.is_set():
            answers.append(ask(checkout, url))
            done.wait(0.1)

    threads = [threading.Thread(target=user) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        done.set()
        for thread in threads:
            thread.join()
