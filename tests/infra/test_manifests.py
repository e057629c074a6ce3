"""The manifests, held to what a cluster would refuse or regret, and to the program they deploy."""

import ast
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from sluice.monitoring.config import MonitorConfig
from sluice.monitoring.slo import BURN_WINDOWS
from sluice.monitoring.traffic.classify import CLASSES, JUDGED
from sluice.monitoring.traffic.record import TrafficRecord
from sluice.pipelines.cluster import ClusterConfig
from sluice.serving.config import ServeConfig
from sluice.serving.measurements import Exporter
from sluice.serving.routing import Routes, RouteTable

ROOT = Path(__file__).resolve().parents[2]
INFRA = ROOT / "infra"
BASE = INFRA / "kubernetes" / "base"
YAML_FILES = sorted(INFRA.rglob("*.yaml"))
RULES = INFRA / "prometheus" / "rules.yaml"
DASHBOARD = INFRA / "grafana" / "dashboard.json"


def resources(folder: Path = BASE) -> list[dict[str, Any]]:
    names = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
    return [document for name in names for document in yaml.safe_load_all((folder / name).read_text())]


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every pod template: (name, template)."""
    for resource in resources():
        name = f"{resource['kind']}/{resource['metadata']['name']}"
        if resource["kind"] == "Deployment":
            yield name, resource["spec"]["template"]
        if resource["kind"] == "RayCluster":
            yield f"{name}/head", resource["spec"]["headGroupSpec"]["template"]
            for group in resource["spec"]["workerGroupSpecs"]:
                yield f"{name}/{group['groupName']}", group["template"]


PODS = dict(pods())
DEPLOYMENTS = {name: template for name, template in PODS.items() if name.startswith("Deployment/")}


@pytest.mark.parametrize("file", YAML_FILES, ids=lambda file: str(file.relative_to(INFRA)))
def test_every_file_is_yaml_without_repeated_keys(file):
    class Strict(yaml.SafeLoader):
        pass

    def mapping(loader, node):
        keys = [loader.construct_object(key) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"{file}: a key is there twice in {keys}"
        return loader.construct_mapping(node, deep=True)

    Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    assert list(yaml.load_all(file.read_text(), Loader=Strict))


def test_every_file_of_the_base_is_in_the_kustomization():
    listed = yaml.safe_load((BASE / "kustomization.yaml").read_text())["resources"]
    assert sorted(listed) == sorted(file.name for file in BASE.glob("*.yaml") if file.name != "kustomization.yaml")


def test_resources_have_what_every_resource_needs_and_names_of_their_own():
    seen = set()
    for resource in resources():
        key = resource["kind"], resource["metadata"]["name"]
        assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", key[1])
        assert resource["apiVersion"]
        assert key not in seen
        seen.add(key)
    kinds = {kind for kind, _ in seen}
    assert kinds == {"Namespace", "PersistentVolumeClaim", "NetworkPolicy", "Deployment", "Service", "RayCluster"}


@pytest.mark.parametrize("name", PODS)
def test_pods_meet_the_restricted_standard(name):
    spec = PODS[name]["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] >= 10_000
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
    assert not any("hostPath" in volume for volume in spec["volumes"])
    for container in spec["containers"]:
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["readOnlyRootFilesystem"] is True
        assert security["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize("name", PODS)
def test_containers_say_what_they_need_and_mount_what_there_is(name):
    spec = PODS[name]["spec"]
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    for container in spec["containers"]:
        for kind in ("requests", "limits"):
            assert set(container["resources"][kind]) >= {"cpu", "memory"}
        mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert mounted.keys() == volumes.keys()
        # The root file system is read-only, and HOME is here.
        assert mounted["tmp"] == "/tmp"
        secrets = [each["valueFrom"]["secretKeyRef"] for each in container.get("env", []) if "valueFrom" in each]
        assert {(each["name"], each["key"]) for each in secrets} <= {("sluice", "database-url"), ("sluice", "api-key")}
    assert all("sizeLimit" in volume["emptyDir"] for volume in volumes.values() if "emptyDir" in volume)


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_servers_are_probed_at_a_path_that_needs_no_key(name):
    (container,) = DEPLOYMENTS[name]["spec"]["containers"]
    ports = {port["name"] for port in container["ports"]}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        is_ready = (name, probe) == ("Deployment/serving", "readinessProbe")
        assert container[probe]["httpGet"]["path"] == ("/ready" if is_ready else "/health")
        assert container[probe]["httpGet"]["port"] in ports


def test_every_image_is_the_one_that_the_pipeline_names():
    steps = ast.parse((ROOT / "pipelines" / "steps.py").read_text())
    (image,) = [
        node.value.value
        for node in steps.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "IMAGE"
    ]
    assert re.fullmatch(r"sluice:\d+\.\d+\.\d+", image)
    assert {each["image"] for template in PODS.values() for each in template["spec"]["containers"]} == {image}


def test_the_compiled_pipeline_names_what_the_manifests_have():
    conf = yaml.safe_load((ROOT / "conf" / "cluster" / "kubernetes.yaml").read_text())
    named = {(each["kind"], each["metadata"]["name"]): each for each in resources()}
    assert ("Namespace", conf["namespace"]) in named
    assert named["PersistentVolumeClaim", conf["volume"]]["spec"]["accessModes"] == ["ReadWriteMany"]
    serving = DEPLOYMENTS["Deployment/serving"]["spec"]
    environment = {each["name"]: each for each in serving["containers"][0]["env"]}
    assert environment["SLUICE_WORKSPACE"]["value"] == conf["workspace"]
    assert environment["SLUICE_ARTIFACT_ROOT"]["value"] == conf["environment"]["SLUICE_ARTIFACT_ROOT"]
    secrets = [pair for step in conf["steps"].values() for pair in step.get("secrets", {}).items()]
    assert {variable for variable, _ in secrets} == {"SLUICE_DATABASE", "SLUICE_API_KEY"}
    for variable, secret in secrets:
        reference = environment[variable]["valueFrom"]["secretKeyRef"]
        assert f"{reference['name']}/{reference['key']}" == secret
    assert serving["securityContext"]["runAsUser"] == ClusterConfig(**conf).user, "both write the volume"
    overlay = yaml.safe_load((INFRA / "kubernetes" / "overlays" / "example" / "kustomization.yaml").read_text())
    (image,) = overlay["images"]
    assert conf["image"] == f"{image['newName']}:{image['newTag']}"


def test_a_rollout_reaches_the_server_before_the_first_champion_makes_it_ready():
    address = yaml.safe_load((ROOT / "conf" / "cluster" / "kubernetes.yaml").read_text())["server"]
    services = {each["metadata"]["name"]: each["spec"] for each in resources() if each["kind"] == "Service"}
    host, port = re.fullmatch(r"http://([a-z-]+)\.sluice\.svc:(\d+)", address).groups()
    assert services[host]["publishNotReadyAddresses"] is True
    assert services[host]["selector"] == services["serving"]["selector"]
    assert [each["port"] for each in services[host]["ports"]] == [int(port)]
    assert "--wait" in DEPLOYMENTS["Deployment/serving"]["spec"]["containers"][0]["args"]
    (head,) = [template for name, template in PODS.items() if name.endswith("/head")]
    variables = {each["name"]: each.get("value") for each in head["spec"]["containers"][0]["env"]}
    assert variables["SLUICE_SERVER"] == address


def test_the_network_policies_let_the_steps_do_their_work():
    policies = {each["metadata"]["name"]: each["spec"] for each in resources() if each["kind"] == "NetworkPolicy"}
    # Drivers and Argo's own containers have no label of ours, and need names and the API of Kubernetes.
    of_a_run = policies["workflow"]
    expressions = [{"key": "workflows.argoproj.io/workflow", "operator": "Exists"}]
    assert of_a_run["podSelector"] == {"matchExpressions": expressions}
    assert {port["port"] for rule in of_a_run["egress"] for port in rule.get("ports", [])} == {53, 443, 6443}
    assert policies["names-and-database"]["podSelector"] == {"matchLabels": {"app.kubernetes.io/part-of": "sluice"}}
    is_rollout = {"matchLabels": {"app.kubernetes.io/component": "rollout"}}
    assert policies["rollout"]["podSelector"] == is_rollout
    assert {"podSelector": is_rollout} in policies["gateway"]["ingress"][0]["from"]


def test_selectors_find_their_pods():
    for resource in resources():
        spec = resource.get("spec", {})
        if resource["kind"] == "Deployment":
            assert spec["selector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()
        if resource["kind"] == "Service":
            found = [
                each for each in DEPLOYMENTS.values() if spec["selector"].items() <= each["metadata"]["labels"].items()
            ]
            assert len(found) == 1
            ports = {port["name"] for port in found[0]["spec"]["containers"][0]["ports"]}
            assert {port["targetPort"] for port in spec["ports"]} <= ports


def test_traffic_is_denied_unless_a_policy_allows_it():
    policies = {each["metadata"]["name"]: each["spec"] for each in resources() if each["kind"] == "NetworkPolicy"}
    assert policies["default-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for name, spec in policies.items():
        for direction, peers in (("ingress", "from"), ("egress", "to")):
            assert not spec.get(direction) or direction.capitalize() in spec["policyTypes"], name
            for rule in spec.get(direction, []):
                assert rule.get(peers) or rule.get("ports"), f"{name} opens everything"


def test_ray_in_the_cluster_is_the_ray_of_the_lock():
    (cluster,) = [each for each in resources() if each["kind"] == "RayCluster"]
    locked = re.search(r"^ray==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert locked is not None
    assert cluster["apiVersion"] == "ray.io/v1"
    assert cluster["spec"]["rayVersion"] == locked[1]
    assert cluster["spec"]["authOptions"] == {"mode": "token"}


@pytest.mark.process
@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_the_example_overlay_builds_and_its_image_reaches_every_pod():
    command = ["kubectl", "kustomize", str(INFRA / "kubernetes" / "overlays" / "example")]
    built = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True).stdout
    images = re.findall(r"image: (\S+)", built)
    assert images == ["registry.example.com/sluice:0.1.0"] * len(PODS)
    claims = [each for each in yaml.safe_load_all(built) if each["kind"] == "PersistentVolumeClaim"]
    assert [claim["spec"]["storageClassName"] for claim in claims] == ["shared"]


def test_the_image_is_pinned_runs_as_nobody_and_installs_the_lock():
    lines = (INFRA / "container" / "Dockerfile").read_text().splitlines()
    bases = [line.split()[1] for line in lines if line.startswith("FROM ")]
    assert bases
    assert all(re.fullmatch(r"python:3\.11-slim-[a-z]+", base) for base in bases)
    assert [line for line in lines if line.startswith("USER ")][-1] == "USER 10001:10001"
    assert any("infra/install.sh" in line for line in lines if line.startswith("RUN "))
    assert "install -r requirements.lock" in (INFRA / "install.sh").read_text()
    ignored = (INFRA / "container" / "Dockerfile.dockerignore").read_text().split()
    assert {".git", ".venv", ".sluice"} <= set(ignored)


@pytest.mark.process
def test_an_image_for_accelerators_has_the_build_of_torch_that_is_named(tmp_path: Path):
    """No GPU is seen where an image is built, so the build cannot be chosen by what is there."""
    lines = (INFRA / "container" / "Dockerfile").read_text().splitlines()
    (install,) = [number for number, line in enumerate(lines) if line.startswith("RUN ") and "install.sh" in line]
    assert 'ARG TORCH_BACKEND=""' in lines[:install]
    (tmp_path / "bin").mkdir()
    stubs = {"python": 'case "$*" in *importlib*) exit 1 ;; esac', "uv": f'echo "$*" >> {tmp_path}/asked', "c++": ""}
    for name, body in stubs.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    path = f"{tmp_path}/bin:{os.environ['PATH']}"
    environment = {"PATH": path, "PYTHON": "python", "VENV": str(tmp_path), "TORCH_BACKEND": "cu130"}
    subprocess.run([INFRA / "install.sh"], cwd=ROOT, env=environment, check=True, capture_output=True, timeout=60)
    asked = (tmp_path / "asked").read_text().splitlines()
    assert any("--torch-backend=cu130 torch==" in line for line in asked[:1]), asked


def exposed_metrics() -> set[str]:
    """Names of the series that the gateway exposes, after one request that failed and one that did not."""
    exporter = Exporter(RouteTable(Routes(ready=("7",), error="database locked", error_kind="TimeoutError")))
    for status, error in ((200, ""), (500, "NonFiniteLogits")):
        exporter.add(
            TrafficRecord(
                request_id="r",
                time=1.0,
                version="7",
                arm="champion",
                queue_ms=1.0,
                first_token_ms=2.0,
                per_token_ms=3.0,
                total_ms=4.0,
                prompt_tokens=5,
                completion_tokens=6,
                finish_reason="stop",
                status=status,
                error=error,
            ),
            "model_fault" if error else "answered",
        )
    exporter.add_fallback()
    families = text_string_to_metric_families(exporter.text(lost_records=0).decode())
    return {sample.name for family in families for sample in family.samples}


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def expressions() -> list[str]:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [rule["expr"] for rule in rules()] + [target["expr"] for panel in panels for target in panel["targets"]]


def test_rules_and_dashboard_use_metrics_that_the_gateway_exposes():
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    used = {name for expression in expressions() for name in re.findall(r"\bsluice[a-z0-9_:]+", expression)}
    assert used - recorded <= exposed_metrics()
    assert recorded <= used
    assert {"sluice_requests_total", "sluice_first_token_seconds_bucket"} <= used


def test_alerts_judge_a_version_by_the_classes_that_canary_and_monitor_judge_it_by():
    judged = f'class=~"{"|".join(JUDGED)}"'
    recorded = [rule["expr"] for rule in rules() if "record" in rule]
    assert all(judged in rule and 'class="model_fault"' in rule and "status" not in rule for rule in recorded)
    named = [names for rule in expressions() for names in re.findall(r'class=~?"([^"]+)"', rule)]
    assert {name for names in named for name in names.split("|")} <= set(CLASSES)


def test_alerts_have_the_thresholds_of_the_monitoring_room():
    config, alerts = MonitorConfig(), {rule["alert"]: rule for rule in rules() if "alert" in rule}
    for alert, (factor, long_s, short_s) in zip(
        ("SluiceErrorBudgetBurnsFast", "SluiceErrorBudgetBurns"), BURN_WINDOWS, strict=True
    ):
        bound = f"{factor * config.max_error_rate:.4g}"
        windows = f"{long_s / 3600:g}h", f"{short_s / 60:g}m"
        expected = " and ".join(f"sluice:error_ratio:rate{window} > {bound}" for window in windows)
        assert alerts[alert]["expr"] == expected
    assert f"> {config.max_first_token_p95_ms / 1000:g}" in alerts["SluiceFirstTokenSlow"]["expr"]
    assert ServeConfig().max_first_token_ms == config.max_first_token_p95_ms
    for alert in alerts.values():
        assert alert["labels"]["severity"] in {"page", "ticket"}
        assert alert["annotations"].keys() == {"summary", "description"}


def test_the_scrape_job_asks_where_the_gateway_answers():
    (job,) = yaml.safe_load((INFRA / "prometheus" / "scrape.yaml").read_text())["scrape_configs"]
    services = {
        each["metadata"]["name"]: each["spec"]["ports"][0]["port"] for each in resources() if each["kind"] == "Service"
    }
    assert job["static_configs"] == [{"targets": [f"serving.sluice.svc:{services['serving']}"]}]
    assert job["authorization"]["type"] == "Bearer"


@pytest.mark.process
@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_the_rules_fire_when_they_should():
    for command in (["check", "rules", str(RULES)], ["test", "rules", str(RULES.with_name("rules_test.yaml"))]):
        result = subprocess.run(["promtool", *command], capture_output=True, text=True, timeout=600)
        assert result.returncode == 0, result.stdout + result.stderr


def test_dashboard_panels_do_not_overlap():
    seen = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & seen
        seen |= cells
