"""Paths of a run: on a laptop in the checkout, on a cluster in a run's own folder on the shared volume."""

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

import sluice
from sluice.core.files import create_private, read_private

CONTENT_STEPS = ("ingest", "refine", "tokenizer", "pack", "pretrain", "tune", "evaluate")
"""Deterministic: DVC stages."""
EFFECT_STEPS = ("gate", "register", "rollout", "monitor")
"""They act on the world outside the workspace, so they are never cached."""
PARAMS_VARIABLE = "SLUICE_PARAMS"
"""Environment variable with the path of a run's own settings."""
WORKSPACE_VARIABLE = "SLUICE_WORKSPACE"
STEPS = CONTENT_STEPS + EFFECT_STEPS


@dataclass(frozen=True)
class Workspace:
    root: Path
    is_default: bool = False
    """Whether this is the installed package's own conf/, which commands without a workspace read and never write."""

    @classmethod
    def find(cls, start: Path | None = None) -> "Workspace":
        """Return the folder `SLUICE_WORKSPACE` names, or the nearest one upwards that holds dvc.yaml and conf/.

        Raises ValueError where there is none.
        """
        folder = _search(start)
        if folder is not None:
            return cls(folder)
        if named := os.environ.get("SLUICE_WORKSPACE"):
            raise ValueError(
                f"SLUICE_WORKSPACE={named} is no sluice workspace (a folder with dvc.yaml and conf/): correct it, or "
                "unset it"
            )
        raise ValueError(
            f"no sluice workspace at {_first_folder(start)} or above it: go to a checkout (a folder with dvc.yaml and "
            "conf/), or name one by SLUICE_WORKSPACE"
        )

    @classmethod
    def find_or_default(cls, start: Path | None = None) -> "Workspace":
        """The same, or the installed package's own settings where there is no workspace.

        Raises ValueError where `SLUICE_WORKSPACE` names a folder that is no workspace.
        """
        if _search(start) is None and not os.environ.get("SLUICE_WORKSPACE"):
            return cls(Path(sluice.__file__).parent, is_default=True)
        return cls.find(start)

    @property
    def params(self) -> Path:
        """Settings of the last run; within a run, the run's own copy, which nothing else writes."""
        return Path(os.environ.get(PARAMS_VARIABLE) or self.shown_params)

    @property
    def shown_params(self) -> Path:
        """The file that DVC reads."""
        return self.root / "params.yaml"

    @property
    def conf(self) -> Path:
        return self.root / "conf"

    def artifact(self, step: str) -> Path:
        return self.root / "artifacts" / step

    def metrics(self, step: str) -> Path:
        return self.root / "metrics" / f"{step}.json"

    @property
    def verdict(self) -> Path:
        return self.artifact("gate") / "verdict.json"

    @property
    def state(self) -> Path:
        """State that outlives a run and is not content: registry, ledger, traffic, keys, logs; the user's cache folder
        where there is no workspace.
        """
        if self.is_default:
            return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sluice"
        return self.root / ".sluice"

    @property
    def runs(self) -> Path:
        return self.state / "runs"

    @property
    def keys(self) -> Path:
        return self.state / "keys"

    @property
    def ledger_trust(self) -> Path:
        """Key and anchors of the ledger, which may not lie in its database."""
        return self.state / "ledger"

    @property
    def traffic(self) -> Path:
        return self.state / "traffic"

    @property
    def reference(self) -> Path:
        """Traffic that the champion's later traffic is compared with."""
        return self.state / "reference"

    @property
    def monitoring(self) -> Path:
        return self.state / "monitoring"

    @property
    def database_url(self) -> str:
        """MLflow's registry and the ledger, in one database (`SLUICE_DATABASE`: any SQLAlchemy URL)."""
        # Of a URL's path SQLAlchemy decodes %20, and a ? ends it.
        path = str(self.state / "mlflow.db").replace("%", "%25").replace("?", "%3f")
        return os.environ.get("SLUICE_DATABASE") or f"sqlite:///{path}"

    @property
    def registry_artifacts(self) -> str:
        return os.environ.get("SLUICE_ARTIFACT_ROOT") or (self.state / "mlartifacts").as_uri()

    @property
    def serve_lock(self) -> Path:
        """Its lock is held by a server that starts or runs."""
        return self.state / "serve.lock"

    @property
    def rollout_lock(self) -> Path:
        """Its lock is held by the process that measures a rollout, also in another pod of the same volume."""
        return self.state / "rollout.lock"

    def salt(self) -> str:
        """Random text with which sessions are hashed, made once and kept readable by the owner alone."""
        return self._secret("salt")

    def api_key(self) -> str:
        """`SLUICE_API_KEY`, else a key made once and kept readable by the owner alone."""
        if key := os.environ.get("SLUICE_API_KEY"):
            return key
        return self._secret("api_key")

    def _secret(self, name: str) -> str:
        """Return the random text in a file that is made at its first use."""
        path = self.state / name
        if not path.exists():
            self.state.mkdir(parents=True, exist_ok=True)
            create_private(path, secrets.token_urlsafe(24).encode())
        if not (secret := read_private(path).decode().strip()):
            raise ValueError(f"{path} is empty, which would let everybody in: remove it, and a new one is made")
        return secret


def _first_folder(start: Path | None) -> Path:
    return Path(os.environ.get("SLUICE_WORKSPACE") or start or Path.cwd()).resolve()


def _search(start: Path | None) -> Path | None:
    first = _first_folder(start)
    folders = [first] if os.environ.get("SLUICE_WORKSPACE") else [first, *first.parents]
    # The package has conf/ and dvc.yaml too, and nothing may be written there.
    own = Path(sluice.__file__).resolve().parent
    found = (each for each in folders if (each / "dvc.yaml").is_file() and (each / "conf").is_dir() and each != own)
    return next(found, None)
