"""The whole way on the tiny profile, for real: undisturbed, again, rejected, forced and rolled back, served.

One checkout goes through its life from test to test, in the order of the file: a run costs a minute or two, so each is
used for all it shows. Killing and resuming has a file of its own.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from lifecycle_checkout import Checkout, free_port

from components.release import open_registry, open_releases
from components.workspace import CONTENT_STEPS, STEPS

pytestmark = pytest.mark.e2e


def test_one_command_takes_text_to_a_served_and_watched_champion(
    undisturbed: Checkout, undisturbed_hashes: dict[str, str]
) -> None:
    status = undisturbed.status()
    assert [step["name"] for step in status["steps"]] == list(STEPS)
    assert all(step["state"] == "done" and not step["cached"] and step["seconds"] >= 0 for step in status["steps"])
    assert status["verdict"] == "promote"
    assert (status["champion"], status["challenger"]) == ("1", None)
    assert status["ledger_ok"] is True
    assert status["metrics"]["monitor"]["outcome"] == "ok", status["metrics"]["monitor"]
    assert status["metrics"]["monitor"]["records"] > 0
    assert status["metrics"]["refine"]["dropped"]
    assert 0 < status["metrics"]["evaluate"]["bits_per_byte"] < 4
    assert set(undisturbed_hashes) == {f"artifacts/{step}" for step in CONTENT_STEPS}


def test_version_carries_its_lineage(undisturbed: Checkout) -> None:
    version = open_registry(undisturbed.workspace).versions()[-1]
    assert version.aliases == ("champion",)
    assert {"git_commit", "dvc_lock", "data", "tokenizer", "verdict", "model_hash"} <= set(version.tags)
    assert len(version.tags["git_commit"]) == 40
    by_source = [value for name, value in version.metrics.items() if name.startswith("bits_per_byte/")]
    assert by_source == [version.metrics["bits_per_byte"]], "this corpus is one source"


def test_model_directory_is_loadable_by_transformers_as_it_stands(undisturbed: Checkout) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = undisturbed.workspace.artifact("tune")
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    question = [{"role": "user", "content": "argparse"}]
    text = tokenizer.apply_chat_template(question, add_generation_prompt=True, tokenize=False)
    assert text == "<|user|>argparse<|end|><|assistant|>"
    assert model(**tokenizer(text, return_tensors="pt")).logits.isfinite().all()


def test_second_run_repeats_nothing_and_releases_nothing(undisturbed: Checkout) -> None:
    before = undisturbed.artifact_hashes()
    undisturbed.run()
    status = undisturbed.status()
    assert {step["name"] for step in status["steps"] if step["cached"]} == set(CONTENT_STEPS)
    assert status["verdict"] == "hold"
    assert "already the champion" in status["metrics"]["gate"]["reason"]
    assert status["champion"] == "1"
    assert undisturbed.artifact_hashes() == before


def test_candidate_trained_for_one_step_is_rejected_with_the_comparison(undisturbed: Checkout) -> None:
    undisturbed.run("pretrain.steps=1", "pretrain.warmup_steps=0", "tune.steps=1", "tune.warmup_steps=0")
    status = undisturbed.status()
    assert {step["name"] for step in status["steps"] if step["cached"]} == {"ingest", "refine", "tokenizer", "pack"}
    assert status["verdict"] == "reject"
    reason = status["metrics"]["gate"]["reason"]
    assert "bits_per_byte_difference" in reason
    assert "> +0.300" in reason
    assert (status["champion"], status["challenger"]) == ("1", None)
    assert status["metrics"]["rollout"]["outcome"] == "skipped"
    refused = undisturbed.sluice("promote")
    assert refused.returncode == 1
    assert "verdict reject" in refused.stderr
    assert undisturbed.sluice("promote", "--force").returncode == 1, "force needs a reason"
    refused = undisturbed.sluice("rollback")
    assert refused.returncode == 1
    assert "no previous champion" in refused.stderr


def test_mlflow_shows_versions_aliases_and_tags(undisturbed: Checkout) -> None:
    port = free_port()
    process = undisturbed.start("mlflow", "--port", str(port))
    try:
        assert process.stdout is not None
        page = next((line.split()[2] for line in process.stdout if line.startswith("registry at ")), None)
        assert page is not None, f"it ended with {process.wait()}"
        assert page == f"http://127.0.0.1:{port}/#/models/sluice"
        with httpx.Client(base_url=page.partition("#")[0], timeout=60, trust_env=False) as browser:
            assert '<div id="root"' in browser.get("/").text
            # What the page itself asks for, and draws.
            asked = "/ajax-api/2.0/mlflow/registered-models/get?name=sluice"
            model = browser.get(asked).json()["registered_model"]
            asked = "/ajax-api/2.0/mlflow/model-versions/get?name=sluice&version=1"
            version = browser.get(asked).json()["model_version"]
        assert {"alias": "champion", "version": "1"} in model["aliases"]
        assert "champion" in version["aliases"]
        assert {"git_commit", "dvc_lock", "data", "tokenizer", "verdict", "model_hash"} <= {
            tag["key"] for tag in version["tags"]
        }
    finally:
        process.terminate()
        said, _ = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, "sluice mlflow: interrupted\n")


@pytest.fixture(scope="module")
def server(undisturbed: Checkout) -> Iterator[str]:
    """`sluice serve` while the tests below last; yields its address."""
    process = undisturbed.start("serve")
    try:
        assert process.stdout is not None
        url = next((line.split()[2] for line in process.stdout if line.startswith("serving at ")), None)
        assert url is not None, f"the server ended with {process.wait()}"
        yield url
    finally:
        process.terminate()
        said, _ = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, "sluice serve: interrupted\n")


def test_forced_candidate_is_promoted_and_rolled_back_in_the_running_server(undisturbed: Checkout, server: str) -> None:
    """The rejected candidate answers badly but without errors, so force makes it champion; the rollback moves the alias
    and the traffic.
    """
    with users(undisturbed, server) as answers:
        forced = undisturbed.sluice("promote", "--force", "--reason", "trying our luck")
        assert forced.returncode == 0, forced.stdout + forced.stderr
        promoted = undisturbed.status()["champion"]
        assert promoted != "1"
        back = undisturbed.sluice("rollback", "--reason", "a drill")
        assert back.returncode == 0, back.stderr
        assert ask(undisturbed, server).headers["x-sluice-version"] == "1"
        chat = undisturbed.sluice("chat", "--message", "argparse", "--max-tokens", "4")
        assert chat.returncode == 0, chat.stderr
        busy = undisturbed.sluice("serve")
        assert busy.returncode == 1
        assert "already answers" in busy.stderr
    assert [answer.status_code for answer in answers if answer.status_code != 200] == []
    assert {answer.headers["x-sluice-version"] for answer in answers} == {"1", promoted}
    assert open_registry(undisturbed.workspace).alias("champion") == "1"
    assert open_releases(undisturbed.workspace).state().rolled_back == (promoted,)


def test_forced_candidate_that_answers_nan_is_dropped_without_one_failed_request(
    undisturbed: Checkout, server: str
) -> None:
    """It goes past the gate by force, into a server under load, and out again; no user notices."""
    poison(undisturbed)
    with users(undisturbed, server) as answers:
        forced = undisturbed.sluice("promote", "--force", "--reason", "against better knowledge")
    assert forced.returncode == 1
    assert "dropped" in forced.stdout
    assert len(answers) >= 20
    assert [answer.status_code for answer in answers if answer.status_code != 200] == []
    assert {answer.headers["x-sluice-version"] for answer in answers} == {"1"}
    status = undisturbed.status()
    assert (status["champion"], status["challenger"]) == ("1", None)
    history = json.loads(undisturbed.sluice("history", "--json").stdout)
    assert history["ok"]
    dropped = history["entries"][-1]
    assert dropped["action"] == "drop"
    assert "error rate 100.0%" in dropped["reason"]
    proposed = [entry for entry in history["entries"] if entry["action"] == "propose"][-1]
    assert (proposed["details"]["forced"], proposed["reason"]) == (True, "against better knowledge")


def poison(checkout: Checkout) -> None:
    """Make the candidate's weights NaN, and have evaluation and gate look at it as at any candidate."""
    from safetensors.numpy import load_file, save_file

    from components.evaluate import work
    from components.gate import gate
    from components.stage import file_hash, run_content_step, write_json

    artifact = checkout.workspace.artifact("tune")
    weights = load_file(artifact / "model.safetensors")
    weights["model.norm.weight"] *= float("nan")
    save_file(weights, artifact / "model.safetensors", metadata={"format": "pt"})
    lineage = json.loads((artifact / "lineage.json").read_text())
    lineage["files"]["model.safetensors"] = file_hash(artifact / "model.safetensors")
    write_json(artifact / "lineage.json", lineage)
    run_content_step(checkout.workspace, "evaluate", work)
    assert gate(checkout.workspace) == "reject"


def ask(checkout: Checkout, url: str) -> httpx.Response:
    body = {"messages": [{"role": "user", "content": "argparse"}], "max_tokens": 4}
    headers = {"authorization": f"Bearer {checkout.workspace.api_key()}"}
    return httpx.post(f"{url}/v1/chat/completions", json=body, headers=headers, timeout=60, trust_env=False)


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
