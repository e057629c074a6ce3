"""The whole way on the tiny profile, for real: undisturbed, again, killed and resumed, rejected, forced and rolled back.

One checkout goes through its life from test to test, in the order of the file: a run costs minutes, so each is used for all it shows.
"""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from components.workspace import CONTENT_STEPS, STEPS

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def checkout(new_checkout):
    """The undisturbed run, finished."""
    checkout = new_checkout("undisturbed")
    checkout.run()
    return checkout


def test_one_command_takes_text_to_a_served_and_watched_champion(checkout) -> None:
    status = checkout.status()
    assert [step["name"] for step in status["steps"]] == list(STEPS)
    assert all(step["state"] == "done" and not step["cached"] and step["seconds"] >= 0 for step in status["steps"])
    assert status["verdict"] == "promote"
    assert (status["champion"], status["challenger"]) == ("1", None)
    assert status["ledger_ok"] is True
    assert status["metrics"]["monitor"]["outcome"] == "ok", status["metrics"]["monitor"]
    assert status["metrics"]["refine"]["dropped"]
    assert 0 < status["metrics"]["evaluate"]["bits_per_byte"] < 4


def test_version_carries_its_lineage(checkout) -> None:
    from components.release import open_registry

    version = open_registry(checkout.workspace).versions()[-1]
    assert version.aliases == ("champion",)
    assert {"git_commit", "dvc_lock", "data", "tokenizer", "verdict", "model_hash"} <= set(version.tags)
    assert len(version.tags["git_commit"]) == 40


def test_model_directory_is_loadable_by_transformers_as_it_stands(checkout) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = checkout.workspace.artifact("tune")
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    ids = tokenizer.apply_chat_template([{"role": "user", "content": "argparse"}], add_generation_prompt=True, return_tensors="pt")
    ids = ids["input_ids"] if hasattr(ids, "keys") else ids
    assert model(ids).logits.isfinite().all()


def test_second_run_repeats_nothing_and_releases_nothing(checkout) -> None:
    before = checkout.artifact_hashes()
    checkout.run()
    status = checkout.status()
    cached = {step["name"] for step in status["steps"] if step["cached"]}
    assert cached == set(CONTENT_STEPS)
    assert status["verdict"] == "hold"
    assert "already the champion" in status["metrics"]["gate"]["reason"]
    assert status["champion"] == "1"
    assert checkout.artifact_hashes() == before
