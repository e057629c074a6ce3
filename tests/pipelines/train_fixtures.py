"""A tiny model on a plain text, for the tests of `sluice train` and its neighbours."""

import json
from typing import Any

import pytest

from sluice.pipelines.cli import main

TEXT = "To be, or not to be: that is the question.\nWhether 'tis nobler in the mind to suffer\n" * 60
TINY = (
    *("experiment=shakespeare-char-cpu", "model.hidden_size=16", "model.layers=1", "model.heads=2", "model.kv_heads=2"),
    *("model.pattern=null", "model.state_space=null", "model.state_space_feedforward=false"),
    *("model.intermediate_size=null", "model.intermediate_multiple=1"),
    *("model.context=16", "pretrain.optimizer=adamw", "pretrain.steps=6", "pretrain.batch_size=4"),
    *("pretrain.micro_batch_size=4", "pretrain.warmup_steps=2", "pretrain.validate_every=3"),
    *("pretrain.validation_batches=4", "pretrain.checkpoint_every=3"),
)


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main([*arguments, "--json"]) == 0, capsys.readouterr().err
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found
