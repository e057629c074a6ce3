"""`sluice compile`: the lifecycle as files for Kubeflow Pipelines."""

import argparse
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from sluice.components.params import BLOCKS, Params
from sluice.components.workspace import Workspace
from sluice.data.config import IngestConfig, without_secrets
from sluice.model.architecture.config import ModelConfig
from sluice.model.config import PretrainConfig
from sluice.model.parallelism.rules import check
from sluice.pipelines.cluster import ClusterConfig, check_sizes
from sluice.pipelines.compose import compose_without_files
from sluice.pipelines.options import add_overrides
from sluice.serving.config import RolloutConfig

_CREDENTIALS = {"access_token", "api_key", "sig", "signature", "token", "x-amz-signature", "x-goog-signature"}
"""Parameters of signed URLs and tokens."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_overrides(
        parser,
        "as for run (profile=cluster, data.sources=s3://bucket/texts), and cluster.image=REGISTRY/sluice@sha256:.., "
        "cluster.steps.pretrain.accelerators=2, .. as in conf/cluster; relative paths are from the workspace there",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write")


def run(arguments: argparse.Namespace) -> int:
    workspace = Workspace.find_or_default()
    # Files are looked for where the steps run.
    params = compose_without_files(workspace, arguments.overrides, [ClusterConfig], here=workspace.root)
    check(params[PretrainConfig], params[ModelConfig], cuda=True)
    for source in params[IngestConfig].given:
        if holds_credentials(source.uri):
            raise ValueError(
                f"data.sources: {without_secrets(source.uri)} is given with a user, password, token or signature, "
                "which anybody who sees the pipeline could read: give credentials as variables, such as "
                "cluster.steps.ingest.secrets.AWS_ACCESS_KEY_ID=SECRET/KEY"
            )
    cluster = params[ClusterConfig]
    check_sizes(cluster, params[PretrainConfig], params[RolloutConfig])
    settings = Params(tuple(block for block in params.blocks if type(block) in BLOCKS))
    from sluice.pipelines.compile import compile_lifecycle

    compiled = compile_lifecycle(cluster, settings, Path(arguments.out))
    if "@sha256:" not in cluster.image:
        print(f"note: the tag of {cluster.image} may come to mean another image; cluster.image=..@sha256:.. cannot")
    print(f"{compiled.pipeline}  submit it: kfp run create --experiment-name sluice --package-file {compiled.pipeline}")
    print(f"{compiled.manifest}  the same as resources of {cluster.namespace}, for kubectl apply")
    return 0


def holds_credentials(uri: str) -> bool:
    parts = urlsplit(uri)
    return "@" in parts.netloc or any(name.lower() in _CREDENTIALS for name in parse_qs(parts.query))
