"""Artifacts of MLflow runs, found from the workspace that they lie in.

MLflow stores an absolute location with every experiment, run and version, so a copied workspace would write into the
original's folder and read from it. For a local folder, what is stored is therefore `mlflow-artifacts:/..`, which is
relative: MLflow's server takes it from its `--artifacts-destination`, and `artifact_files` from the folder. MLflow that
is pointed at a workspace's SQLite file itself finds the folder beside that file by `workspace_files`, which
pyproject.toml makes known to it.
"""

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlparse
from urllib.request import url2pathname

if TYPE_CHECKING:
    from mlflow.store.artifact.artifact_repo import ArtifactRepository
    from mlflow.tracking import MlflowClient

_RELATIVE = "mlflow-artifacts:"


def local_folder(root: str) -> Path | None:
    """The folder that the artifact root `root`, a path or a URI, names; None for a remote one."""
    uri = urlparse(root)
    if uri.scheme not in ("", "file"):
        return None
    return Path(url2pathname(uri.path) if uri.scheme else root).resolve()


def open_experiment(client: "MlflowClient", name: str, root: str, below: str = "") -> str:
    """Id of the experiment `name`, made if need be, whose artifacts lie in the folder `below` of `root`.

    An experiment of that name with artifacts elsewhere keeps them and gets another name, because MLflow cannot change
    its location.
    """
    location = f"{(root if local_folder(root) is None else _RELATIVE).rstrip('/')}/{below}"
    found = client.get_experiment_by_name(name)
    if found is not None:
        if found.artifact_location.rstrip("/") == location.rstrip("/"):
            return found.experiment_id
        client.rename_experiment(found.experiment_id, f"{name} (experiment {found.experiment_id})")
    return client.create_experiment(name, artifact_location=location)


def artifact_files(artifact_uri: str, root: str, tracking_uri: str) -> "ArtifactRepository":
    """The files at `artifact_uri` as MLflow stores it, which a local `root` is put in front of."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    folder, uri = local_folder(root), urlparse(artifact_uri)
    if folder is not None and f"{uri.scheme}:" == _RELATIVE:
        artifact_uri = (folder / uri.path.lstrip("/")).as_uri()
    return get_artifact_repository(artifact_uri, tracking_uri=tracking_uri)


def workspace_files(
    artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None
) -> "ArtifactRepository":
    """The files at `mlflow-artifacts:/..`: beside a workspace's SQLite file, otherwise those of MLflow's server."""
    import mlflow
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
    from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository
    from sqlalchemy.engine import make_url

    tracking_uri, uri = tracking_uri or mlflow.get_tracking_uri(), urlparse(artifact_uri)
    if tracking_uri.startswith("sqlite:") and not uri.netloc:
        # As SQLAlchemy reads %20 and ?.
        database = make_url(tracking_uri).database
        folder = Path(database or "mlflow.db").resolve().parent / "mlartifacts"
        return LocalArtifactRepository((folder / uri.path.lstrip("/")).as_uri())
    return MlflowArtifactsRepository(artifact_uri, tracking_uri=tracking_uri, registry_uri=registry_uri)
