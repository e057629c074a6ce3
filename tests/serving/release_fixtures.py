"""A registry with versions in it, its ledger, and the verdicts: what the tests of releases and rollouts begin with."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import pgserver
import pytest

from sluice.components.workspace import Workspace as RunWorkspace
from sluice.model.directory import model_hash
from sluice.model.evaluation.verdict import ComparedModel, PolicyIdentity, SuiteIdentity, Verdict, write_verdict
from sluice.serving.ledger import Ledger
from sluice.serving.ledger_trust import LedgerTrust
from sluice.serving.registry import Evidence, Registry
from sluice.serving.releases import Releases

POLICY = PolicyIdentity(name="default", version="1", sha256="d" * 64)
"""The policy in force."""


def write_model(folder: Path, text: str) -> Path:
    """A folder with the files that identify a model; their content is all that a registry looks at."""
    folder.mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_text(f"{name} {text}")
    return folder


@dataclass
class Workspace:
    """One workspace on sqlite with local artifacts."""

    root: Path
    registry: Registry
    ledger: Ledger
    verdicts: dict[str, Path] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)
    """Hash of each version's model."""
    time_s: float = 1000.0

    @property
    def keys(self) -> Path:
        return self.root / "keys"

    @property
    def releases(self) -> Releases:
        return Releases(self.registry, self.ledger, self.keys, actor="test", clock=lambda: self.time_s)

    def register(
        self,
        text: str,
        outcome: Literal["promote", "hold", "reject"] = "promote",
        judged: str | None = None,
        over: str | None = None,
        policy: PolicyIdentity = POLICY,
    ) -> str:
        """Registers the model `text` with a signed verdict, of the model `judged` if that is another one.

        `over` is the model with which the gate compared it, by default the champion.
        """
        folder = write_model(self.root / "models" / text, text)
        champion = self.releases.state().champion
        baseline = model_hash(self.root / "models" / over) if over else self.models.get(champion or "")
        verdict = Verdict(
            outcome=outcome,
            reason=f"the gate says {outcome}",
            checks=[],
            confidence=0.95,
            correction="none",
            hashes={"model": judged or model_hash(folder)},
            is_first_version=baseline is None,
            policy=policy,
            suites={"golden": SuiteIdentity(sha256="a" * 64)},
            time=datetime.fromtimestamp(self.time_s, UTC).isoformat(timespec="seconds"),
            baseline=ComparedModel(model=baseline) if baseline else None,
        )
        path = self.root / f"verdict-{text}.json"
        write_verdict(verdict, path, self.keys)
        version = self.registry.register(folder, path, Evidence({"git_commit": "0" * 40}, {"bits_per_byte": 2.5}))
        self.verdicts[version], self.models[version] = path, model_hash(folder)
        return version

    def propose(self, version: str, forced: bool = False) -> None:
        self.releases.propose(version, self.verdicts[version], "measured", forced, policy=POLICY.sha256)

    def promote(self, *versions: str) -> None:
        for version in versions:
            self.propose(version)
            self.releases.promote("the rollout went well")

    def aliases(self) -> dict[str, str | None]:
        found = self.registry.aliases()
        return {name: found.get(name) for name in ("previous-champion", "champion", "challenger")}


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a PostgreSQL server of our own."""
    server = pgserver.get_server(tmp_path_factory.mktemp("postgresql"), cleanup_mode="delete")
    yield server.get_uri()
    server.cleanup()


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow takes 4 s to make its tables, so they are made once and copied."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    Registry(f"sqlite:///{path}", path.parent).versions()
    return path


def copied(database: Path, folder: Path) -> str:
    """URL of a copy of the SQLite database."""
    return f"sqlite:///{shutil.copyfile(database, folder / 'mlflow.db')}"


def open_workspace(root: Path, url: str, trust: Path | None = None) -> Workspace:
    ledger = Ledger(url, "sluice", LedgerTrust(trust or root / "ledger"))
    return Workspace(root, Registry(url, root / "mlartifacts"), ledger)


def open_copy(root: Path, folder: Path) -> Workspace:
    """A copy of the workspace in `root`, as `cp -r` makes it, below `folder`, by a name that is hard to quote."""
    copy = shutil.copytree(root, folder / "a copy, (v=1)? ü #%20" / ".sluice")
    return open_workspace(copy, RunWorkspace(copy.parent).database_url)


@pytest.fixture
def workspace(empty_database: Path, tmp_path: Path) -> Workspace:
    """Nothing registered yet."""
    return open_workspace(tmp_path, copied(empty_database, tmp_path))


@pytest.fixture(scope="session")
def released_template(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    root = tmp_path_factory.mktemp("released")
    template = open_workspace(root, copied(empty_database, root))
    for text in ("one", "two"):
        template.promote(template.register(text))
    template.register("three")
    with closing(sqlite3.connect(root / "mlflow.db")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return template


@pytest.fixture
def released(released_template: Workspace, tmp_path: Path) -> Workspace:
    """Version 2 is champion, 1 previous champion, 3 registered. A database of its own; the files are shared."""
    root = released_template.root
    trust = shutil.copytree(root / "ledger", tmp_path / "ledger")
    found = open_workspace(root, copied(root / "mlflow.db", tmp_path), trust)
    found.verdicts.update(released_template.verdicts)
    found.models.update(released_template.models)
    return found
