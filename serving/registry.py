"""Model versions in MLflow: files, lineage, verdict and aliases.

A version is an unchanged model directory (Hugging Face layout, no pickle, no MLflow flavour) with its verdict, both
artifacts of one MLflow run that also has the metrics. MLflow takes 6 s to import, so it is imported at first use.
"""

import logging
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlparse
from urllib.request import url2pathname

from sluice.core.manifest import file_hash

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel
    from mlflow.tracking.client import MlflowClient

MODEL_FOLDER, VERDICT_FOLDER = "model", "verdict"
MODEL_HASH, VERDICT_HASH = "model_hash", "verdict"
"""Tags that every version has, computed from its files, besides its lineage (git_commit, dvc_lock, data, ..)."""
_ANCHOR = "sluice_ledger_head"


@dataclass(frozen=True)
class VersionInfo:
    """One registered version."""

    version: str
    aliases: tuple[str, ...]
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    description: str
    created_s: float
    """Seconds since the epoch."""
    run_id: str


class Registry:
    """The registered model `model_name` at an MLflow tracking URI (`sqlite:///..`, `postgresql://..`, `http://..`).

    A new experiment keeps its artifacts below `artifact_root`, a local folder or a URI such as `s3://bucket/prefix`.
    Artifacts of a remote store are copied to `downloads` (unset: a temporary folder of this process). Raises ValueError
    for a version or file that is missing or differs from what was registered.
    """

    def __init__(
        self,
        tracking_uri: str,
        artifact_root: str | Path,
        model_name: str = "sluice",
        *,
        downloads: Path | None = None,
    ) -> None:
        self.model_name = model_name
        self._tracking_uri, self._downloads = tracking_uri, downloads
        root = str(artifact_root)
        self._artifact_root = root if urlparse(root).scheme else Path(root).resolve().as_uri()

    def register(
        self,
        model_dir: Path,
        verdict_path: Path,
        tags: Mapping[str, str],
        metrics: Mapping[str, float],
        description: str = "",
    ) -> str:
        """Register the model directory with its verdict and return the version.

        Idempotent: the same model with the same verdict is the same version, so a killed process may register again.
        """
        if not verdict_path.is_file():
            raise ValueError(f"{verdict_path}: there is no such verdict; run the gate first")
        identity = {MODEL_HASH: _model_hash(model_dir), VERDICT_HASH: file_hash(verdict_path)}
        if computed := sorted(identity.keys() & tags.keys()):
            raise ValueError(f"tags {computed} are computed from the files: leave them out")
        for found in self._search():
            if identity.items() <= found.tags.items():
                return str(found.version)
        artifacts, run_id = self._log_run(model_dir, verdict_path, metrics)
        if self._registered() is None:
            self._client.create_registered_model(self.model_name)
        # Tags are written with the version, in one transaction, so that no version lacks its hashes.
        created = self._client.create_model_version(
            self.model_name,
            source=f"{artifacts}/{MODEL_FOLDER}",
            run_id=run_id,
            tags={**tags, **identity},
            description=description,
        )
        return str(created.version)

    def versions(self) -> list[VersionInfo]:
        """Return all versions, oldest first."""
        aliases = self.aliases()
        return [
            VersionInfo(
                version=str(found.version),
                aliases=tuple(sorted(alias for alias, version in aliases.items() if version == str(found.version))),
                tags=dict(found.tags),
                metrics=dict(self._client.get_run(found.run_id).data.metrics) if found.run_id else {},
                description=found.description or "",
                created_s=found.creation_timestamp / 1000,
                run_id=found.run_id or "",
            )
            for found in self._search()
        ]

    def aliases(self) -> dict[str, str]:
        """Return alias -> version."""
        registered = self._registered()
        return {alias: str(version) for alias, version in registered.aliases.items()} if registered else {}

    def alias(self, name: str) -> str | None:
        """Return the version that the alias points at."""
        return self.aliases().get(name)

    def has(self, version: str) -> bool:
        """Return whether the version is registered."""
        return any(str(found.version) == version for found in self._search())

    def set_alias(self, name: str, version: str) -> None:
        """Point the alias at `version`."""
        self._version(version)
        self._client.set_registered_model_alias(self.model_name, name, version)

    def drop_alias(self, name: str) -> None:
        """Remove the alias."""
        self._client.delete_registered_model_alias(self.model_name, name)

    def model_folder(self, version: str) -> Path:
        """Return the local folder of the version's model (in place for local artifacts), after checking its hash."""
        return self._checked_model(version)[0]

    def check_model(self, version: str) -> str:
        """Hash the version's files again, check the result against the registered hash and return it."""
        return self._checked_model(version)[1]

    def verdict_path(self, version: str) -> Path:
        """Return the local file of the verdict that was registered with the version."""
        found = self._version(version)
        if VERDICT_HASH not in found.tags:
            raise ValueError(f"version {version} of {self.model_name} has no verdict: it was not registered by sluice")
        folder = self._local(found, VERDICT_FOLDER)
        files = sorted(folder.iterdir()) if folder.is_dir() else []
        if len(files) != 1 or file_hash(files[0]) != found.tags[VERDICT_HASH]:
            raise ValueError(f"{folder} does not contain the verdict with which version {version} was registered")
        return files[0]

    def anchor(self) -> tuple[int, str] | None:
        """Return sequence and hash of the ledger entry that the aliases last followed."""
        registered = self._registered()
        note = registered.tags.get(_ANCHOR) if registered else None
        if not note:
            return None
        sequence, _, head = note.partition(" ")
        return int(sequence), head

    def set_anchor(self, sequence: int, head: str) -> None:
        """Note the ledger's head outside of the ledger, to detect a chain that was cut off at its end."""
        self._client.set_registered_model_tag(self.model_name, _ANCHOR, f"{sequence} {head}")

    @cached_property
    def _client(self) -> "MlflowClient":
        # MLflow reads this at import; without it, every process would try to send usage reports.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow.tracking.client import MlflowClient

        for chatty in ("mlflow", "alembic"):
            logging.getLogger(chatty).setLevel(logging.WARNING)
        return MlflowClient(tracking_uri=self._tracking_uri, registry_uri=self._tracking_uri)

    def _log_run(self, model_dir: Path, verdict_path: Path, metrics: Mapping[str, float]) -> tuple[str, str]:
        """Log metrics and artifacts; return the URI of the run's artifacts and its id."""
        from mlflow.entities import Metric

        now_ms = int(time.time() * 1000)
        run = self._client.create_run(self._experiment_id())
        run_id, status = run.info.run_id, "FAILED"
        try:
            self._client.log_batch(run_id, [Metric(name, value, now_ms, 0) for name, value in sorted(metrics.items())])
            self._client.log_artifacts(run_id, str(model_dir), MODEL_FOLDER)
            self._client.log_artifact(run_id, str(verdict_path), VERDICT_FOLDER)
            status = "FINISHED"
        finally:
            self._client.set_terminated(run_id, status)
        return run.info.artifact_uri, run_id

    def _experiment_id(self) -> str:
        found = self._client.get_experiment_by_name(self.model_name)
        if found:
            return found.experiment_id
        return self._client.create_experiment(self.model_name, artifact_location=self._artifact_root)

    def _registered(self) -> "RegisteredModel | None":
        found = self._client.search_registered_models(f"name = '{self.model_name}'")
        return found[0] if found else None

    def _search(self) -> "list[ModelVersion]":
        found: list[ModelVersion] = []
        token: str | None = None
        while token != "":
            page = self._client.search_model_versions(f"name = '{self.model_name}'", page_token=token)
            found.extend(page)
            token = page.token or ""
        return sorted(found, key=lambda version: int(version.version))

    def _version(self, version: str) -> "ModelVersion":
        versions = self._search()
        for found in versions:
            if str(found.version) == version:
                return found
        known = ", ".join(str(found.version) for found in versions) or "none"
        raise ValueError(f"{self.model_name} has no version {version}; registered: {known}")

    def _checked_model(self, version: str) -> tuple[Path, str]:
        found = self._version(version)
        folder = self._local(found, MODEL_FOLDER)
        expected, actual = found.tags.get(MODEL_HASH, ""), _model_hash(folder)
        if actual != expected:
            raise ValueError(
                f"{folder}: model hash {actual[:12]} is not {expected[:12] or None}, with which version {version} "
                "was registered; restore the files or register the model again"
            )
        return folder, actual

    def _local(self, version: "ModelVersion", part: str) -> Path:
        """Return the local folder of the version's artifacts `part` (MODEL_FOLDER or VERDICT_FOLDER)."""
        if not version.source or not version.run_id:
            raise ValueError(f"version {version.version} of {self.model_name} was not registered by sluice")
        uri = urlparse(f"{version.source.removesuffix('/' + MODEL_FOLDER)}/{part}")
        if uri.scheme in ("", "file"):
            return Path(url2pathname(uri.path))
        from mlflow.artifacts import download_artifacts

        if self._downloads is None:
            self._downloads = Path(tempfile.mkdtemp(prefix="sluice-models-"))
        final = self._downloads / f"{self.model_name}-{version.version}" / version.run_id / part
        if not final.exists():
            final.parent.mkdir(parents=True, exist_ok=True)
            partial = Path(tempfile.mkdtemp(prefix=f".{part}-", dir=final.parent))
            fetched = Path(
                download_artifacts(artifact_uri=uri.geturl(), dst_path=str(partial), tracking_uri=self._tracking_uri)
            )
            fetched.replace(final)
        return final


def _model_hash(folder: Path) -> str:
    # Imported here because it imports torch.
    from sluice.model.directory import model_hash

    return model_hash(folder)
