"""`sluice compile`: every task carries what a cluster needs, and a walk refuses what would fail there."""

import copy
import json
from pathlib import Path
from typing import Any

import pods
import pytest
import yaml

from sluice.components.params import BLOCKS, Params
from sluice.components.workspace import EFFECT_STEPS, STEPS, Workspace
from sluice.pipelines.cli import main
from sluice.pipelines.cluster import ClusterConfig
from sluice.pipelines.compiled_check import find_faults
from sluice.pipelines.compose import compose_without_files

DIGEST = "registry.example.com/team/sluice@sha256:" + "0" * 64
OVERRIDES = [
    "profile=cluster",
    "data.sources=s3://bucket/texts",
    f"cluster.image='{DIGEST}'",
    "cluster.steps.pretrain.accelerators=2",
    "cluster.steps.ingest.retries=0",
    "cluster.node_selector={pool: batch}",
    "cluster.pull_secret=registry",
    "cluster.steps.ingest.secrets.AWS_ACCESS_KEY_ID=sluice/s3-id",
]


@pytest.fixture(scope="module")
def folder(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of `sluice compile` with these settings."""
    from sluice.pipelines.compile import compile_lifecycle

    params = compose_without_files(Workspace(root), OVERRIDES, [ClusterConfig])
    settings = Params(tuple(block for block in params.blocks if type(block) in BLOCKS))
    out = tmp_path_factory.mktemp("compiled")
    compile_lifecycle(params[ClusterConfig], settings, out)
    return out


@pytest.fixture(scope="module")
def documents(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    spec, platform = yaml.safe_load_all((folder / "lifecycle.yaml").read_text())
    return spec, platform


def test_the_files_are_what_kfps_own_protobufs_read(folder: Path, documents: Any) -> None:
    from google.protobuf.json_format import Parse
    from kfp.kubernetes.kubernetes_executor_config_pb2 import KubernetesExecutorConfig
    from kfp.pipeline_spec.pipeline_spec_pb2 import PipelineSpec, PlatformSpec

    spec, platform = documents
    Parse(json.dumps(spec), PipelineSpec())
    Parse(json.dumps(platform), PlatformSpec())
    for pod in platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values():
        Parse(json.dumps(pod), KubernetesExecutorConfig())
    resources = list(yaml.safe_load_all((folder / "kubernetes.yaml").read_text()))
    assert [each["kind"] for each in resources] == ["Pipeline", "PipelineVersion"]
    assert {each["metadata"]["namespace"] for each in resources} == {"sluice"}
    assert resources[1]["spec"]["pipelineSpec"] == spec


@pytest.mark.parametrize("step", STEPS)
def test_every_task_says_where_and_with_what_it_runs(documents: Any, step: str) -> None:
    spec, platform = documents
    container = spec["deploymentSpec"]["executors"][f"exec-{step}"]["container"]
    pod = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"][f"exec-{step}"]
    assert container["image"] == DIGEST
    resources = container["resources"]
    cpus = {"refine": "4", "pretrain": "4", "register": "1", "monitor": "1"}
    assert resources["resourceCpuLimit"] == resources["resourceCpuRequest"] == cpus.get(step, "2")
    assert resources["resourceMemoryLimit"] == resources["resourceMemoryRequest"]
    assert {each["name"]: each["value"] for each in container["env"]} == {
        "SLUICE_SERVER": "http://serving-rollout.sluice.svc:8000",
        "SLUICE_ARTIFACT_ROOT": "file:///workspace/mlartifacts",
    }
    assert int(pod["activeDeadlineSeconds"]) >= 3600
    assert [(each["constant"], each["mountPath"]) for each in pod["pvcMount"]] == [("workspace", "/workspace")]
    scratch = {each["mountPath"]: each for each in pod["emptyDirMounts"]}
    assert set(scratch) == {"/tmp", "/dev/shm"}
    assert scratch["/dev/shm"]["medium"] == "Memory"
    sizes = resources["resourceMemoryLimit"], scratch["/dev/shm"]["sizeLimit"]
    memory, shared = (int(size.removesuffix("Gi")) for size in sizes)
    assert shared >= 0.3 * memory, "Ray would keep its objects on the disk"
    keys = [(secret["secretName"], pair) for secret in pod.get("secretAsEnv", []) for pair in secret["keyToEnv"]]
    secrets = {pair["envVar"]: (name, pair["secretKey"]) for name, pair in keys}
    expected_secrets = {
        **({"SLUICE_DATABASE": ("sluice", "database-url")} if step in EFFECT_STEPS else {}),
        **({"SLUICE_API_KEY": ("sluice", "api-key")} if step == "rollout" else {}),
        **({"AWS_ACCESS_KEY_ID": ("sluice", "s3-id")} if step == "ingest" else {}),
    }
    assert secrets == expected_secrets
    assert pod["securityContext"] == {"runAsUser": "10001", "runAsGroup": "10001", "runAsNonRoot": True}
    assert pod["nodeSelector"]["labels"] == {"pool": "batch"}
    assert [each["secretName"] for each in pod["imagePullSecret"]] == ["registry"]
    retries = spec["root"]["dag"]["tasks"][step].get("retryPolicy", {}).get("maxRetryCount", 0)
    assert retries == (0 if step == "ingest" else 2)
    accelerator = resources.get("accelerator")
    expected = {"resourceType": "nvidia.com/gpu", "resourceCount": "2"} if step == "pretrain" else {}
    assert expected.items() <= (accelerator or {}).items()
    assert bool(accelerator) == bool(expected)


def test_settings_travel_with_the_pipeline_and_their_files_are_hashed_where_it_runs(documents: Any) -> None:
    given = documents[0]["root"]["inputDefinitions"]["parameters"]
    settings = json.loads(given["settings"]["defaultValue"])
    assert set(settings) == {kind.block_name for kind in BLOCKS}
    assert settings["data"]["sources"] == "s3://bucket/texts"
    assert settings["refine"]["evaluation_sets"][0]["sha256"] is None
    assert given["workspace"]["defaultValue"] == "/workspace/main"


def _without_registry(spec: Any, platform: Any) -> None:
    spec["deploymentSpec"]["executors"]["exec-tune"]["container"]["image"] = "sluice:0.1.0"


def _of_docker_hub(spec: Any, platform: Any) -> None:
    spec["deploymentSpec"]["executors"]["exec-tune"]["container"]["image"] = "team/sluice:0.1.0"


def _without_limits(spec: Any, platform: Any) -> None:
    del spec["deploymentSpec"]["executors"]["exec-tune"]["container"]["resources"]["resourceMemoryLimit"]


def _without_deadline(spec: Any, platform: Any) -> None:
    del platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["exec-tune"]["activeDeadlineSeconds"]


def _without_platform(spec: Any, platform: Any) -> None:
    platform.clear()


def _of_no_name(spec: Any, platform: Any) -> None:
    spec["deploymentSpec"]["executors"]["exec-tune"]["container"]["image"] = "https://registry.example.com/sluice:0.1.0"


def _with_the_registry(spec: Any, platform: Any) -> None:
    pods = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    pods["exec-refine"]["secretAsEnv"] = pods["exec-gate"]["secretAsEnv"]


def _without_the_registry(spec: Any, platform: Any) -> None:
    del platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["exec-monitor"]["secretAsEnv"]


def _conditional(source: Any) -> dict[str, Any]:
    """A task with a condition on a parameter from this source."""
    return {
        "componentRef": {"name": "comp-register"},
        "inputs": {"parameters": {"pipelinechannel--gate-verdict": source}},
        "triggerPolicy": {"condition": "inputs.parameter_values['pipelinechannel--gate-verdict'] == 'promote'"},
    }


_VERDICT = {"taskOutputParameter": {"producerTask": "gate", "outputParameterKey": "verdict"}}


def _named_output(spec: Any, platform: Any) -> None:
    spec["root"]["dag"]["tasks"]["register"] = _conditional(_VERDICT)


def _named_output_in_a_condition(spec: Any, platform: Any) -> None:
    inner = _conditional({"componentInputParameter": "pipelinechannel--gate-verdict"})
    spec["components"]["comp-condition"] = {"dag": {"tasks": {"inner": inner}}}
    outer = {"componentRef": {"name": "comp-condition"}, "inputs": _conditional(_VERDICT)["inputs"]}
    spec["root"]["dag"]["tasks"]["outer"] = outer


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (_without_registry, "image sluice:0.1.0 names no registry"),
        (_of_docker_hub, "image team/sluice:0.1.0 names no registry"),
        (_of_no_name, "image https://registry.example.com/sluice:0.1.0 is no image's name"),
        (_without_limits, "tune: there is no memory limit"),
        (_without_deadline, "tune: there is no deadline"),
        (_without_platform, "ingest: there is no deadline"),
        (_with_the_registry, "refine: it is given the secret SLUICE_DATABASE, which it does not read"),
        (_without_the_registry, "monitor: it has no SLUICE_DATABASE, and gate has"),
        (_named_output, "register: its condition reads the named output verdict"),
        (_named_output_in_a_condition, "inner: its condition reads the named output verdict"),
    ],
)
def test_the_walk_refuses_what_would_fail_on_a_cluster(documents: Any, spoil: Any, fault: str) -> None:
    assert find_faults(*documents) == []
    spec, platform = copy.deepcopy(documents)
    spoil(spec, platform)
    assert any(each.startswith(fault) for each in find_faults(spec, platform)), find_faults(spec, platform)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("cluster.image=sluice:0.1.0", "image sluice:0.1.0 names no registry"),
        ("cluster.steps.pretrian.cpu=4", "there is no step pretrian"),
        ("cluster.each.memory=lots", "memory"),
        ("cluster.each.memory=6", "must be a size with its unit, such as 6Gi"),
        ("cluster.each.cpu=0", "must be a number of cores, such as 2 or 500m"),
        ("cluster.each.timeout_s=0", "timeout_s"),
        ("cluster.workspace=/data/main", "workspace /data/main is not on the volume: name a folder below mount"),
        ("cluster.environment.SLUICE_ARTIFACT_ROOT=file:///data", "SLUICE_ARTIFACT_ROOT /data is not on the volume"),
        ("cluster.each.secrets={SLUICE_API_KEY: sluice}", "sluice is no SECRET/KEY"),
        (
            "cluster.each.secrets={SLUICE_API_KEY: sluice/api-key}",
            "ingest: it is given the secret SLUICE_API_KEY, which it does not read",
        ),
        ("data.sources=s3://me:secret@host/texts", "data.sources: s3://host/texts is given with a user, password"),
        ("data.sources=https://host/texts.csv?X-Amz-Signature=1f", "https://host/texts.csv is given with a user"),
        ("cluster.steps.pretrain.accelerators=1", "accelerators=1 is less than pretrain.workers=2"),
        ("rollout.longest_pause_s=2000", "cluster.steps.rollout.timeout_s=14400 is not more than the 21320 s"),
        ("cluster.imag=x", "did you mean 'cluster.image'"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_no_file(
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    override: str,
    message: str,
) -> None:
    monkeypatch.setenv("SLUICE_WORKSPACE", str(root))
    assert main(["compile", "--out", str(tmp_path / "out"), "profile=cluster", override]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list((tmp_path / "out").glob("*"))


def test_the_clusters_settings_have_no_effect_on_other_commands(root: Path) -> None:
    for override in ("cluster.image=x", "cluster=kubernetes"):
        with pytest.raises(ValueError, match="unknown key 'cluster"):
            compose_without_files(Workspace(root), [override])
    params = compose_without_files(Workspace(root), ["profile=cluster"])
    assert {block.block_name for block in params.blocks} == {kind.block_name for kind in BLOCKS}


@pytest.mark.process
@pytest.mark.skipif(pods.why_not() != "", reason=f"no pod can run here: {pods.why_not()}")
def test_a_content_step_runs_as_compiled_in_a_pod_and_again_on_new_data(
    documents: Any, root: Path, tmp_path: Path
) -> None:
    """The image is read-only and the working folder, the user has no account, and the volume is empty but for texts."""
    spec, platform = copy.deepcopy(documents)
    settings = compose_without_files(Workspace(root), ["profile=tiny", "data.sources=../texts"], here=root).dump()
    spec["root"]["inputDefinitions"]["parameters"]["settings"]["defaultValue"] = json.dumps(settings)
    secrets = {("sluice", "database-url"): "sqlite:////workspace/registry.db", ("sluice", "api-key"): "k" * 32}
    secrets["sluice", "s3-id"] = "AKIA"
    pipeline = pods.CompiledPipeline(spec, platform, secrets)
    cluster = pods.Cluster(tmp_path, root)
    with cluster.up():
        texts = cluster.volume / "texts"
        texts.mkdir()
        (texts / "a.txt").write_text("One text.\n")
        first = pipeline.run(cluster, "ingest", {})
        (texts / "b.txt").write_text("Another text.\n")
        second = pipeline.run(cluster, "ingest", {})
    assert first != second
    lock = yaml.safe_load((cluster.volume / "main" / "dvc.lock").read_text())
    assert lock["stages"]["ingest"]["outs"][0]["md5"] == second
    manifest = json.loads((cluster.volume / "main" / "artifacts" / "ingest" / "manifest.json").read_text())
    assert manifest["report"]["documents"] == 2
