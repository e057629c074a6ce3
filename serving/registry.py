"""Model versions in MLflow: files, lineage, verdict and aliases.

A version is an unchanged model directory (Hugging Face layout, no pickle) with its verdict and other evidence, all
artifacts of one MLflow run that also has metrics and settings. An MLflow model beside the directory refers to it
(`sluice.serving.pyfunc_model`), so `mlflow.pyfunc.load_model("models:/NAME/VERSION")` completes prompts. Local
artifacts are found from `artifact_root` and the run's id, so a copied or moved workspace has its own. MLflow takes 6 s
to import, so it is imported at first use.
"""

import hashlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlparse
from urllib.request import url2pathname

import sqlalchemy as sa

from sluice.core.manifest import file_hash
from sluice.core.mlflow_artifacts import artifact_files, local_folder, open_experiment
from sluice.serving.database import Database
from sluice.serving.ledger_trust import Head

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel
    from mlflow.store.artifact.artifact_repo import ArtifactRepository
    from mlflow.tracking.client import MlflowClient

MODEL_FOLDER, VERDICT_FOLDER, PARITY_FOLDER = "model", "verdict", "parity"
MODEL_HASH, VERDICT_HASH = "model_hash", "verdict_sha256"
"""Tags that every version has, computed from its files, besides its lineage (git_commit, dvc_lock, data, ..)."""
_EARLIER_VERDICT_HASH = "verdict"
"""Tag with the hash of the verdict in versions of earlier releases; now the outcome has that name."""
PROMPT_HASH = "sha256"
"""Tag of a prompt's version."""
LEDGER_HEAD = "ledger_head"
"""Tag of the registered model: `SEQUENCE:HASH` of the newest entry of the ledger that was noted."""
_TAGS = sa.table("registered_model_tags", sa.column("name"), sa.column("key"), sa.column("value"))
_AT_ONCE, _LONGEST_DESCRIPTION, _LONGEST_PROMPT = 100, 5000, 100_000
"""The most that MLflow takes in a request, and in its database."""
_RESTORE = "restore it from a backup, or let `sluice promote` register the same model again"
_ABOUT = "Models released by sluice. The ledger decides which version serves (`sluice history`); the aliases follow it."


@dataclass(frozen=True)
class Evidence:
    """Records beside a registered model: why it may serve, and what it was made from."""

    tags: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    description: str = ""
    """Markdown that the registry shows for the version."""
    files: Mapping[str, Sequence[Path]] = field(default_factory=dict)
    """Folder among the run's artifacts ("": at the top) -> further files to keep there."""
    user: str = ""


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

    Artifacts lie below `artifact_root`, a local folder or a URI such as `s3://bucket/prefix`. Those of a remote store
    are copied to `downloads` (unset: a temporary folder of this process). Raises ValueError for a version or file that
    is missing or differs from what was registered.
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
        self._artifact_root = str(artifact_root)
        self._folder = local_folder(self._artifact_root)

    def register(self, model_dir: Path, verdict_path: Path, evidence: Evidence) -> str:
        """Register the model directory with its verdict and return the version.

        Idempotent: the same model with the same verdict is the same version, so a killed process may register again.
        Local files of the model's versions that are missing or have changed are written again.
        """
        if not verdict_path.is_file():
            raise ValueError(f"{verdict_path}: there is no such verdict; run the gate first")
        identity = {MODEL_HASH: _verified_hash(model_dir), VERDICT_HASH: file_hash(verdict_path)}
        if computed := sorted(identity.keys() & evidence.tags.keys()):
            raise ValueError(f"tags {computed} are computed from the files: leave them out")
        for found in self._search():
            if found.tags.get(MODEL_HASH) != identity[MODEL_HASH]:
                continue
            self._restore(found, MODEL_FOLDER, model_dir)
            if _verdict_hash(found) == identity[VERDICT_HASH]:
                self._restore(found, VERDICT_FOLDER, verdict_path)
                return str(found.version)
        run_id, artifact_uri = self._log_run(model_dir, verdict_path, evidence)
        if self._registered() is None:
            self._client.create_registered_model(self.model_name, description=_ABOUT)
        # Tags are written with the version, in one transaction, so that no version lacks its hashes.
        created = self._client.create_model_version(
            self.model_name,
            source=artifact_uri,
            run_id=run_id,
            tags={**evidence.tags, **identity},
            description=evidence.description[:_LONGEST_DESCRIPTION],
        )
        version = str(created.version)
        self._client.update_run(run_id, name=f"{self.model_name} v{version}")
        return version

    def keep_prompts(self, prompts: Mapping[str, str]) -> dict[str, int]:
        """Keep each text as a version of the prompt MODEL-NAME in MLflow's prompt registry; return versions by name.

        A version has the tag `sha256` of its text. A text that has a version already gets no second one.
        """
        kept = {}
        for name, text in sorted(prompts.items()):
            digest, full = hashlib.sha256(text.encode()).hexdigest(), f"{self.model_name}-{name}"
            known = self._client.search_prompt_versions(full) if self._client.get_prompt(full) is not None else []
            same = [version.version for version in known if version.tags.get(PROMPT_HASH) == digest]
            if not same:
                # What is too long for the registry is cut there; the hash is that of the whole text.
                created = self._client.register_prompt(full, text[:_LONGEST_PROMPT], tags={PROMPT_HASH: digest})
                same = [created.version]
            kept[name] = int(max(same))
        return kept

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

    def anchor(self) -> Head | None:
        """Return the newest entry of the ledger that was noted. Raises ValueError if the note cannot be read.

        Read from MLflow's table where the registry is a database: `sluice status` does not wait for MLflow's import.
        """
        if urlparse(self._tracking_uri).scheme in ("http", "https"):
            registered = self._registered()
            noted = (registered.tags if registered else {}).get(LEDGER_HEAD)
        else:
            wanted = sa.select(_TAGS.c.value).where(_TAGS.c.name == self.model_name, _TAGS.c.key == LEDGER_HEAD)
            found = Database(self._tracking_uri).rows(wanted, table=_TAGS)
            noted = found[0]["value"] if found else None
        if noted is None:
            return None
        sequence, _, digest = noted.partition(":")
        if not (sequence.isdecimal() and digest):
            raise ValueError(
                f"tag {LEDGER_HEAD} {noted!r} of model {self.model_name} in MLflow is not SEQUENCE:HASH: remove it "
                "there, and the next release notes it again"
            )
        return Head(int(sequence), digest)

    def note_anchor(self, sequence: int, digest: str, *, repaired: bool = False) -> None:
        """Note the ledger's entry `sequence` and its hash with the registered model, for machines without its folder.

        An entry older than the noted one is not noted, unless the chain was `repaired`. Nothing is noted as long as no
        version is registered.
        """
        if self._registered() is None:
            return
        if not repaired and (noted := self.anchor()) is not None and noted.sequence >= sequence:
            return
        self._client.set_registered_model_tag(self.model_name, LEDGER_HEAD, f"{sequence}:{digest}")

    def model_folder(self, version: str, model_hash: str | None = None) -> Path:
        """Return the local folder of the version's model (in place for local artifacts), after checking its hash.

        The hash must be the registered one, and `model_hash` if that is given.
        """
        folder, actual = self._checked_model(self._version(version))
        if model_hash not in (None, actual):
            raise ValueError(
                f"{folder} is model {actual[:12]}, but the ledger has version {version} as model {model_hash[:12]}: "
                f"the registry was changed by somebody else than sluice; {_RESTORE}"
            )
        return folder

    def check_model(self, version: str) -> str:
        """Hash the version's files again, check the result against the registered hash and return it."""
        return self._checked_model(self._version(version))[1]

    def verdict_path(self, version: str) -> Path:
        """Return the local file of the verdict that was registered with the version."""
        return self._checked_verdict(self._version(version))

    def parity_path(self, version: str) -> Path | None:
        """Return the local file of the greedy answers registered with the version, whose hash its verdict has.

        None if the version has no such file.
        """
        found = self._version(version)
        if self._folder is None and not self._client.list_artifacts(found.run_id or "", PARITY_FOLDER):
            return None
        folder = self._local(found, PARITY_FOLDER)
        files = sorted(folder.iterdir()) if folder.is_dir() else []
        return files[0] if len(files) == 1 else None

    @cached_property
    def _client(self) -> "MlflowClient":
        # MLflow reads this at import; without it, every process would try to send usage reports.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow.tracking.client import MlflowClient

        for chatty in ("mlflow", "alembic"):
            logging.getLogger(chatty).setLevel(logging.WARNING)
        return MlflowClient(tracking_uri=self._tracking_uri, registry_uri=self._tracking_uri)

    def _log_run(self, model_dir: Path, verdict_path: Path, evidence: Evidence) -> tuple[str, str]:
        """Log the evidence and all files; return the id of the run and the URI of its artifacts."""
        from mlflow.entities import Metric, Param

        now_ms = int(time.time() * 1000)
        shown = {"mlflow.user": evidence.user, "mlflow.note.content": evidence.description[:_LONGEST_DESCRIPTION]}
        run = self._client.create_run(
            open_experiment(self._client, self.model_name, self._artifact_root),
            # Until it has a version.
            run_name=model_dir.name,
            tags={**evidence.tags, **shown},
        )
        run_id, status = run.info.run_id, "FAILED"
        try:
            metrics = [Metric(name, value, now_ms, 0) for name, value in sorted(evidence.metrics.items())]
            params = [Param(name, value) for name, value in sorted(evidence.params.items())]
            for first in range(0, max(len(metrics), len(params)), _AT_ONCE):
                part = slice(first, first + _AT_ONCE)
                self._client.log_batch(run_id, metrics[part], params[part])
            files = self._files(run.info.artifact_uri)
            files.log_artifacts(str(model_dir), MODEL_FOLDER)
            with tempfile.TemporaryDirectory(prefix="sluice-mlflow-") as mlflow_model:
                _save_mlflow_model(Path(mlflow_model))
                files.log_artifacts(mlflow_model)
            for folder, paths in {VERDICT_FOLDER: [verdict_path], **evidence.files}.items():
                for path in paths:
                    files.log_artifact(str(path), folder or None)
            status = "FINISHED"
        finally:
            self._client.set_terminated(run_id, status)
        return run_id, run.info.artifact_uri

    def _restore(self, version: "ModelVersion", part: str, source: Path) -> None:
        """Write the version's local files `part` again from `source` where they are missing or have changed."""
        if self._folder is None:
            return
        try:
            (self._checked_model if part == MODEL_FOLDER else self._checked_verdict)(version)
        except ValueError:
            folder = self._local(version, part)
            shutil.rmtree(folder, ignore_errors=True)
            files = self._files(folder.parent.as_uri())
            (files.log_artifacts if source.is_dir() else files.log_artifact)(str(source), part)

    def _files(self, artifact_uri: str) -> "ArtifactRepository":
        return artifact_files(artifact_uri, self._artifact_root, self._tracking_uri)

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

    def _checked_model(self, version: "ModelVersion") -> tuple[Path, str]:
        folder = self._local(version, MODEL_FOLDER)
        if not folder.is_dir():
            raise ValueError(f"{folder}, the files of version {version.version}, is gone: {_RESTORE}")
        expected, actual = version.tags.get(MODEL_HASH, ""), _verified_hash(folder)
        if actual != expected:
            raise ValueError(
                f"{folder}: model hash {actual[:12]} is not {expected[:12] or None}, with which version "
                f"{version.version} was registered: {_RESTORE}"
            )
        return folder, actual

    def _checked_verdict(self, version: "ModelVersion") -> Path:
        expected = _verdict_hash(version)
        if expected is None:
            raise ValueError(
                f"version {version.version} of {self.model_name} has no verdict: it was not registered by sluice"
            )
        folder = self._local(version, VERDICT_FOLDER)
        files = sorted(folder.iterdir()) if folder.is_dir() else []
        if len(files) != 1 or file_hash(files[0]) != expected:
            raise ValueError(
                f"{folder} does not contain the verdict with which version {version.version} was registered: {_RESTORE}"
            )
        return files[0]

    def _local(self, version: "ModelVersion", part: str) -> Path:
        """Return the local folder of the version's artifacts `part` (MODEL_FOLDER or VERDICT_FOLDER)."""
        if not version.source or not version.run_id:
            raise ValueError(f"version {version.version} of {self.model_name} was not registered by sluice")
        uri = urlparse(f"{version.source.removesuffix('/' + MODEL_FOLDER)}/{part}")
        if self._folder is not None and uri.scheme in ("", "file", "mlflow-artifacts"):
            # Wherever the workspace lay when the version was registered.
            return self._folder / version.run_id / "artifacts" / part
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


def _save_mlflow_model(folder: Path) -> None:
    """Write an MLflow model that loads the model directory `MODEL_FOLDER` beside its files."""
    from importlib.metadata import version

    from mlflow.models import Model, ModelSignature
    from mlflow.pyfunc import FLAVOR_NAME, save_model
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

    save_model(
        folder,
        python_model=str(Path(__file__).with_name("pyfunc_model.py")),
        signature=ModelSignature(
            Schema([ColSpec(DataType.string, "prompt")]),
            Schema([ColSpec(DataType.string, "text")]),
            ParamSchema(
                [
                    ParamSpec("max_tokens", DataType.long, 64),
                    ParamSpec("temperature", DataType.double, 0.0),
                    ParamSpec("seed", DataType.long, 0),
                ]
            ),
        ),
        input_example=[{"prompt": "The capital of France is"}],
        # Given, so that MLflow does not load the model to find them.
        pip_requirements=[f"sluice=={version('sluice')}"],
    )
    saved = Model.load(folder)
    # Written afterwards: as an artifact of its own, MLflow would copy the model directory.
    saved.flavors[FLAVOR_NAME]["artifacts"] = {MODEL_FOLDER: {"path": MODEL_FOLDER, "uri": MODEL_FOLDER}}
    saved.save(str(folder / "MLmodel"))


def _verdict_hash(version: "ModelVersion") -> str | None:
    return version.tags.get(VERDICT_HASH) or version.tags.get(_EARLIER_VERDICT_HASH)


def _verified_hash(folder: Path) -> str:
    """Hash of the model in `folder`, whose files must be those that its lineage.json lists."""
    # Imported here because it imports torch.
    from sluice.model.directory import check_files, model_hash

    check_files(folder)
    return model_hash(folder)
