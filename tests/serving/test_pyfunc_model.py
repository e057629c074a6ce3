"""Registered versions as MLflow models, loaded by a process that knows nothing but the tracking URI."""

# ruff: noqa: F811  (pytest finds the imported fixtures by name)

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from release_fixtures import Workspace as RegistryWorkspace
from release_fixtures import empty_database, postgresql, workspace  # noqa: F401
from s3_server import s3_server

from sluice.model.evaluation.evaluated import AnswerRequest
from sluice.model.evaluation.model_folder import ModelFolder
from sluice.serving.registry import Evidence, Registry

LOAD = """
import json, mlflow
loaded = mlflow.pyfunc.load_model("models:/sluice/1")
found = loaded.predict({"prompt": ["the", "a model"]}, params={"max_tokens": 5})
print(json.dumps({"text": list(found["text"]), "example": len(loaded.predict(loaded.input_example)),
    "inputs": loaded.metadata.signature.inputs.input_names(), "params": loaded.metadata.signature.params.to_dict()}))
"""


def predicted(tracking_uri: str, folder: Path) -> dict[str, Any]:
    """Return what a fresh process in an empty folder gets from version 1."""
    variables = {**os.environ, "MLFLOW_TRACKING_URI": tracking_uri, "MLFLOW_DISABLE_TELEMETRY": "true"}
    done = subprocess.run(
        [sys.executable, "-c", LOAD], env=variables, cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def answers(folder: Path) -> list[str]:
    model = ModelFolder(folder)
    return [answer.text for answer in model.generate([AnswerRequest(prompt, 5) for prompt in ("the", "a model")])]


def register(registry: Registry, model: Path, folder: Path) -> None:
    verdict, card = folder / "verdict.json", folder / "README.md"
    verdict.write_text("{}")
    card.write_text("# the card")
    assert registry.register(model, verdict, Evidence(files={"": [card]})) == "1"


@pytest.mark.process
def test_a_fresh_process_predicts_from_a_moved_workspace(
    workspace: RegistryWorkspace,
    make_model: Callable[..., Path],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    model = make_model(1)
    register(workspace.registry, model, tmp_path)
    weights = list((workspace.root / "mlartifacts").rglob("*.safetensors"))
    assert len(weights) == 1, "a second copy of the weights"
    (root,) = (path.parent for path in (workspace.root / "mlartifacts").rglob("MLmodel"))
    assert (root / "README.md").read_text() == "# the card" and not list(root.rglob("*.pkl"))
    copy = shutil.copytree(workspace.root, tmp_path_factory.mktemp("copy") / ".sluice")
    (tmp_path / "empty").mkdir()
    found = predicted(f"sqlite:///{copy}/mlflow.db", tmp_path / "empty")
    assert found["text"] == answers(model)
    assert found["example"] == 1 and found["inputs"] == ["prompt"]
    assert [each["name"] for each in found["params"]] == ["max_tokens", "temperature", "seed"]


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """URI of a bucket of a server that speaks S3."""
    with s3_server(monkeypatch, tmp_path, "models"):
        yield "s3://models/some/prefix"


@pytest.mark.process
def test_a_fresh_process_predicts_from_postgresql_and_s3(
    postgresql: str, bucket: str, make_model: Callable[..., Path], tmp_path: Path
) -> None:
    model = make_model(2)
    registry = Registry(postgresql, bucket, downloads=tmp_path / "downloads")
    register(registry, model, tmp_path)
    registry.note_anchor(7, "a" * 64)
    (tmp_path / "empty").mkdir()
    assert predicted(postgresql, tmp_path / "empty")["text"] == answers(model)
    other = Registry(postgresql, bucket, downloads=tmp_path / "others")
    assert other.check_model("1") == registry.check_model("1")
    assert other.verdict_path("1").read_text() == "{}" and other.parity_path("1") is None
    anchor = other.anchor()
    assert anchor is not None and anchor.sequence == 7
