"""Settings of the compiled pipeline's tasks on Kubernetes: image, volume, resources, limits."""

import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Annotated, ClassVar, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from sluice.components.workspace import EFFECT_STEPS, STEPS
from sluice.core.settings.block import Block
from sluice.model.config import PretrainConfig
from sluice.serving.client import SERVER_VARIABLE
from sluice.serving.config import RolloutConfig

if TYPE_CHECKING:  # it takes seconds
    from kfp.dsl import PipelineTask


def _cores(value: object) -> str:
    # To Kubernetes, a limit of 0 is none.
    if not re.fullmatch(r"[1-9]\d*(\.\d+)?|0\.\d*[1-9]\d*|[1-9]\d*m", str(value), re.ASCII):
        raise ValueError("must be a number of cores, such as 2 or 500m")
    return str(value)


def _size(value: object) -> str:
    # Without a unit, 6 would be six bytes.
    if not re.fullmatch(r"[1-9]\d*[MGTP]i?", str(value), re.ASCII):
        raise ValueError("must be a size with its unit, such as 6Gi")
    return str(value)


def _as_text(value: object) -> str:
    """A variable's value as it was written: YAML reads 1 and true as more than text."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _secrets(given: dict[str, str]) -> dict[str, str]:
    for variable, value in given.items():
        if value.count("/") != 1:
            raise ValueError(f"{variable}: {value} is no SECRET/KEY, such as sluice/api-key")
    return given


SECRET_READERS: dict[str, tuple[str, ...]] = {"SLUICE_DATABASE": EFFECT_STEPS, "SLUICE_API_KEY": ("rollout",)}
"""Variables of ours that are secret, and the steps that read them: the registry and the ledger, and the server."""

Cores = Annotated[str, BeforeValidator(_cores)]
Size = Annotated[str, BeforeValidator(_size)]


class TaskConfig(Block):
    """Resources and limits of a task; requests equal limits, so that no task is evicted for what it was promised."""

    cpu: Cores = "2"
    memory: Size = "6Gi"
    shared_memory: Size = "2Gi"
    """Size of /dev/shm, part of the memory. Ray keeps its objects there if it is three tenths of the memory, and on
    the disk otherwise; Kubernetes itself gives 64 MiB.
    """
    scratch: Size = "8Gi"
    """Size of /tmp, which is all that a task may write besides the volume."""
    accelerator: str = "nvidia.com/gpu"
    """Resource name of the accelerators."""
    accelerators: int = Field(default=0, ge=0)
    timeout_s: int = Field(default=3600, ge=1)
    """The pod is ended after this time."""
    retries: int = Field(default=2, ge=0)
    """Every step goes on from what it finished, so a lost pod costs its own work only."""
    secrets: Annotated[dict[str, str], AfterValidator(_secrets)] = {}
    """Environment variable -> SECRET/KEY."""


class ClusterConfig(Block):
    """The pods of the compiled pipeline."""

    block_name: ClassVar[str] = "cluster"

    image: str
    """Image of infra/container with its registry, best by digest: REGISTRY/sluice@sha256:.."""
    pull_secret: str | None = None
    """Secret with the registry's credentials."""
    namespace: str = Field("sluice", pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")
    """Namespace of the pipeline, in which its pods run."""
    volume: str
    """PersistentVolumeClaim (ReadWriteMany) with the workspaces."""
    mount: str = Field("/workspace", pattern=r"^/")
    workspace: str = Field("/workspace/main", pattern=r"^/")
    """Folder of this pipeline's workspace on the volume; made at the first run."""
    server: str = Field(pattern=r"^https?://")
    """Address of the server that users meet; the rollout measures its traffic."""
    environment: dict[str, Annotated[str, BeforeValidator(_as_text)]] = {}
    user: int = Field(10001, ge=1)
    group: int = Field(10001, ge=1)
    node_selector: dict[str, str] = {}
    each: TaskConfig = TaskConfig()
    """Every task, unless `steps` says otherwise; a step has these secrets and its own."""
    steps: dict[str, TaskConfig] = {}

    @field_validator("steps")
    @classmethod
    def _known(cls, steps: dict[str, TaskConfig]) -> dict[str, TaskConfig]:
        if unknown := sorted(set(steps) - set(STEPS)):
            raise ValueError(f"there is no step {unknown[0]}: the steps are {', '.join(STEPS)}")
        return steps

    @model_validator(mode="after")
    def _on_the_volume(self) -> Self:
        """Refuse folders off the volume: what is written there is lost with the pod."""
        artifacts = urlsplit(self.environment.get("SLUICE_ARTIFACT_ROOT", ""))
        folders = {"workspace": self.workspace}
        if artifacts.scheme == "file":
            folders["environment.SLUICE_ARTIFACT_ROOT"] = artifacts.path
        for name, folder in folders.items():
            if not PurePosixPath(folder).is_relative_to(self.mount):
                raise ValueError(f"{name} {folder} is not on the volume: name a folder below mount, {self.mount}")
        return self

    def task(self, step: str) -> TaskConfig:
        own = self.steps.get(step, TaskConfig())
        given = {name: getattr(own, name) for name in own.model_fields_set}
        return self.each.model_copy(update=given | {"secrets": self.each.secrets | own.secrets})


def check_sizes(cluster: ClusterConfig, pretrain: PretrainConfig, rollout: RolloutConfig) -> None:
    """Raise ValueError where a task is too small for the settings of its step."""
    accelerators = cluster.task("pretrain").accelerators
    if 0 < accelerators < pretrain.workers:
        raise ValueError(
            f"cluster.steps.pretrain.accelerators={accelerators} is less than pretrain.workers={pretrain.workers}, so "
            "that all workers would train on the CPU: set them to the same number"
        )
    longest_s, timeout_s = rollout.longest_s, cluster.task("rollout").timeout_s
    if longest_s >= timeout_s:
        raise ValueError(
            f"cluster.steps.rollout.timeout_s={timeout_s} is not more than the {longest_s:g} s that the steps of the "
            "rollout may take (rollout.steps and rollout.longest_pause_s): raise it"
        )


def place(task: "PipelineTask", cluster: ClusterConfig) -> None:
    """Lay the cluster's settings over one task of the graph."""
    from kfp import kubernetes

    config = cluster.task(task.name)
    task.set_container_image(cluster.image)
    task.set_cpu_request(config.cpu).set_cpu_limit(config.cpu)
    task.set_memory_request(config.memory).set_memory_limit(config.memory)
    if config.accelerators:
        task.set_accelerator_type(config.accelerator).set_accelerator_limit(config.accelerators)
    if config.retries:
        task.set_retry(config.retries, backoff_duration="30s", backoff_factor=2, backoff_max_duration="600s")
    for name, value in {SERVER_VARIABLE: cluster.server, **cluster.environment}.items():
        task.set_env_variable(name, value)
    kubernetes.set_timeout(task, config.timeout_s)
    kubernetes.mount_pvc(task, cluster.volume, cluster.mount)
    kubernetes.empty_dir_mount(task, "scratch", "/tmp", size_limit=config.scratch)  # noqa: S108
    kubernetes.empty_dir_mount(task, "shared-memory", "/dev/shm", medium="Memory", size_limit=config.shared_memory)  # noqa: S108
    for variable, secret in config.secrets.items():
        name, key = secret.split("/")
        kubernetes.use_secret_as_env(task, name, {key: variable})
    kubernetes.set_security_context(task, run_as_user=cluster.user, run_as_group=cluster.group, run_as_non_root=True)
    # What the network policies of infra/kubernetes select.
    for label, value in {"part-of": "sluice", "name": "step", "component": task.name}.items():
        kubernetes.add_pod_label(task, f"app.kubernetes.io/{label}", value)
    if cluster.pull_secret is not None:
        kubernetes.set_image_pull_secrets(task, [cluster.pull_secret])
    for label, value in cluster.node_selector.items():
        kubernetes.add_node_selector(task, label, value)
