"""The lifecycle compiled for a cluster: one graph, with the cluster's settings laid over each task."""

import json
from dataclasses import dataclass
from pathlib import Path

import yaml
from kfp import compiler
from kfp.compiler.compiler_utils import KubernetesManifestOptions

from sluice.components.params import Params
from sluice.pipelines.cluster import ClusterConfig, place
from sluice.pipelines.compiled_check import find_faults
from sluice.pipelines.lifecycle import lifecycle


@dataclass(frozen=True)
class Compiled:
    """The files of a compiled pipeline."""

    pipeline: Path
    """PipelineSpec and PlatformSpec, as KFP's client and page take them."""
    manifest: Path
    """Pipeline and PipelineVersion, as `kubectl apply` takes them."""


def compile_lifecycle(cluster: ClusterConfig, settings: Params, out: Path) -> Compiled:
    """Compile the graph with these settings as the default of its parameter.

    Raises ValueError with every fault of the result.
    """
    graph = lifecycle(lambda task: place(task, cluster))
    compiled = Compiled(out / "lifecycle.yaml", out / "kubernetes.yaml")
    out.mkdir(parents=True, exist_ok=True)
    # On one line: KFP writes defaults into comments at the head of the file.
    defaults = {"workspace": cluster.workspace, "settings": json.dumps(settings.dump())}
    compiler.Compiler().compile(graph, str(compiled.pipeline), pipeline_parameters=defaults)
    spec, platform = yaml.safe_load_all(compiled.pipeline.read_text())
    if faults := find_faults(spec, platform):
        compiled.pipeline.unlink()
        raise ValueError("; ".join(faults))
    compiler.Compiler().compile(
        graph,
        str(compiled.manifest),
        pipeline_parameters=defaults,
        kubernetes_manifest_format=True,
        kubernetes_manifest_options=KubernetesManifestOptions(
            namespace=cluster.namespace, include_pipeline_manifest=True
        ),
    )
    return compiled
