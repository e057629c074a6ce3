"""The graph as compiled for a cluster, each step in a pod of its own, beside the same settings run by `sluice run`."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pods
import pytest
import yaml
from lifecycle_checkout import Checkout

from sluice.components.workspace import CONTENT_STEPS

SECRETS = {("sluice", "database-url"): "sqlite:////workspace/registry.db", ("sluice", "api-key"): "k" * 32}


def deployment(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A deployment's pod and its container."""
    text = (pods.ROOT / "infra" / "kubernetes" / "base" / f"{name}.yaml").read_text()
    (found,) = [each for each in yaml.safe_load_all(text) if each["kind"] == "Deployment"]
    spec = found["spec"]["template"]["spec"]
    return spec, spec["containers"][0]


@pytest.mark.matrix
@pytest.mark.skipif(pods.why_not() != "", reason=f"no pod can run here: {pods.why_not()}")
def test_the_compiled_graph_ends_in_the_same_hashes_and_a_served_champion(
    new_checkout: Callable[[str], Checkout], corpus: Path, tmp_path: Path
) -> None:
    checkout, image = new_checkout("peer"), new_checkout("image").workspace.root
    checkout.run()
    shutil.rmtree(image / ".git")
    (image / ".venv").mkdir()
    out = tmp_path / "compiled"
    settings = [each for each in checkout.settings if not each.startswith("serve.port=")]
    compiled = checkout.sluice("compile", "--out", str(out), *settings, "cluster.environment.OMP_NUM_THREADS=1")
    assert compiled.returncode == 0, compiled.stderr
    pipeline = pods.CompiledPipeline.read(out / "lifecycle.yaml", SECRETS)
    (tmp_path / "cluster").mkdir()
    cluster = pods.Cluster(tmp_path / "cluster", image, seen=[corpus], hosts={"serving-rollout.sluice.svc": 2})
    spec, container = deployment("serving")
    environment = pods.image_environment() | {
        each["name"]: each.get("value") or SECRETS[tuple(each["valueFrom"]["secretKeyRef"].values())]
        for each in container["env"]
    }
    paths = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    scratch = {paths[each["name"]]: each["emptyDir"]["sizeLimit"] for each in spec["volumes"] if "emptyDir" in each}
    outputs: dict[str, Any] = {}
    with cluster.up():
        *before, rollout, monitor = pipeline.tasks
        for task in before:
            outputs[task] = pipeline.run(cluster, task, outputs)
        assert (outputs["gate"], outputs["register"], rollout, monitor) == ("promote", "1", "rollout", "monitor")
        command = ["sluice", *container["args"]]
        with cluster.pod(command, environment, name="serving", scratch=scratch, address=2) as server:
            outputs[rollout] = pipeline.run(cluster, rollout, outputs)
            outputs[monitor] = pipeline.run(cluster, monitor, outputs)
            record = json.loads((cluster.volume / "main" / ".sluice" / "server.json").read_text())
            assert record["host"] == "serving", "the rollout used the server that users meet, and left its record"
            assert server.process.poll() is None, server.log
        with cluster.pod(["sluice", "doctor"], environment, name="doctor", scratch=scratch) as doctor:
            doctor.wait(120)
    assert (outputs[rollout], outputs[monitor]) == ("promoted", "ok")
    lock = yaml.safe_load((cluster.volume / "main" / "dvc.lock").read_text())
    hashes = {out["path"]: out["md5"] for stage in lock["stages"].values() for out in stage["outs"]}
    expected = checkout.artifact_hashes()
    assert {path: hashes[path] for path in expected} == expected
    assert {f"artifacts/{step}": outputs[step] for step in CONTENT_STEPS} == expected


def test_the_image_of_a_pod_is_the_dockerfiles() -> None:
    environment = pods.image_environment()
    assert environment["PATH"].split(":")[0] == str(pods.ROOT / ".venv" / "bin")
    assert environment["HOME"] == "/tmp"
    assert environment["PYTHONSAFEPATH"] == "1"


@pytest.mark.process
@pytest.mark.skipif(pods.why_not() != "", reason=f"no pod can run here: {pods.why_not()}")
def test_a_pod_has_what_a_container_has_and_nothing_of_this_machine(tmp_path: Path) -> None:
    (tmp_path / "image" / ".venv").mkdir(parents=True)
    cluster = pods.Cluster(tmp_path, tmp_path / "image", hosts={"serving-rollout.sluice.svc": 2})
    script = """
        set -e
        test "$PWD" = "$IMAGE"; ! touch "$IMAGE/x"; ! touch /var/tmp/x; ! mkdir /elsewhere
        touch /tmp/x /minio/x /dev/shm/x /workspace/x
        test "$(id -u)" = 54321; ! getent passwd 54321
        test "$(getent hosts serving-rollout.sluice.svc)" = "10.77.0.2       serving-rollout.sluice.svc"
        test "$(env | grep -v '^_=\\|^SHLVL=\\|^PWD=\\|^PATH=\\|^IMAGE=')" = "ONLY=this"
        ! c++ --version
    """
    environment = {"PATH": "/usr/bin:/bin", "ONLY": "this", "IMAGE": str(pods.ROOT)}
    scratch = pods.KFP_SCRATCH | {"/tmp": "1Gi", "/dev/shm": "8Mi"}
    with cluster.up(), cluster.pod(["bash", "-c", script], environment, name="try", scratch=scratch) as pod:
        pod.wait(60)
    assert (cluster.volume / "x").stat().st_uid == pods.USER
