"""A pod in small: a container's command exactly as compiled, in namespaces of this machine, without a cluster.

The image's tree is read-only at its own path and is the working folder; /tmp, /dev/shm and the scratch folders that KFP
mounts are the pod's own; the user has no account; the network is the pods' own, with names for services; the
environment is the image's and the container's, and nothing of this process.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
IMAGE_HOME = "/opt/sluice"
USER = 54321
"""No account has this number."""
KFP_SCRATCH = dict.fromkeys(("/minio", "/s3", "/gcs", "/.local", "/.cache", "/.config"), "1Gi")
"""Empty folders that KFP's server mounts into every task."""
_SUBNET = "10.77.0"
_COMPILERS = ("c++", "g++", "gcc", "cc")
"""Programs that the last stage of the image does not have."""


@cache
def why_not() -> str:
    """Why no pod can run on this machine; empty where one can."""
    if missing := [
        tool for tool in ("unshare", "nsenter", "setpriv", "ip", "mount", "chroot") if not shutil.which(tool)
    ]:
        return f"{', '.join(missing)} not installed"
    if os.geteuid() != 0:
        return "mounting an image needs root"
    tried = subprocess.run(
        ["unshare", "--mount", "--pid", "--net", "--fork", "mount", "-t", "tmpfs", "tmpfs", "/mnt"],
        capture_output=True,
        text=True,
    )
    return "" if tried.returncode == 0 else f"namespaces are not permitted: {tried.stderr.strip()}"


def image_environment() -> dict[str, str]:
    """ENV of the last stage of infra/container/Dockerfile, for an image whose tree lies at `ROOT`."""
    stage = (ROOT / "infra" / "container" / "Dockerfile").read_text().rpartition("\nFROM ")[2].replace("\\\n", " ")
    lines = [line.removeprefix("ENV ") for line in stage.splitlines() if line.startswith("ENV ")]
    pairs = dict(each.split("=", 1) for line in lines for each in shlex.split(line))
    path = {"$PATH": "/usr/local/bin:/usr/bin:/bin", IMAGE_HOME: str(ROOT)}
    return {name: re.sub(r"\$PATH|/opt/sluice", lambda match: path[match[0]], value) for name, value in pairs.items()}


@dataclass
class Cluster:
    """Pods that share a network and a volume."""

    folder: Path
    """For what the pods write, and the volume."""
    image: Path
    """Tree of the image, as it lies at `ROOT` in the pods."""
    seen: Sequence[Path] = ()
    """Further folders of this machine that the pods may read."""
    hosts: Mapping[str, int] = field(default_factory=dict)
    """Name of a service -> last part of its pod's address."""
    _bridge: int = 0
    _pods: int = 0

    @property
    def volume(self) -> Path:
        return self.folder / "volume"

    @contextmanager
    def up(self) -> Iterator["Cluster"]:
        """The network exists as long as its process."""
        holder = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "echo up; exec cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert holder.stdin is not None and holder.stdout is not None
        try:
            assert holder.stdout.readline() == b"up\n"
            self._bridge = holder.pid
            self._on_bridge(f"ip link add br0 type bridge; ip addr add {_SUBNET}.1/24 dev br0; ip link set br0 up")
            self.volume.mkdir()
            self.volume.chmod(0o777)
            for path in (self.image, *self.seen):
                path.chmod(0o755)
            yield self
        finally:
            holder.stdin.close()
            holder.wait(10)

    @contextmanager
    def pod(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        name: str,
        scratch: Mapping[str, str],
        volume: str = "/workspace",
        address: int = 0,
    ) -> Iterator["Pod"]:
        """A running pod; it is killed at the end of the block. `scratch`: path of an empty folder -> its size."""
        self._pods += 1
        own = self.folder / f"{self._pods:02}-{name}"
        for path in scratch:
            (own / path[1:]).mkdir(parents=True)
            (own / path[1:]).chmod(0o1777)
        (own / "root").mkdir()
        address = address or 100 + self._pods
        names = {"localhost": "127.0.0.1", name: f"{_SUBNET}.{address}"}
        names |= {host: f"{_SUBNET}.{number}" for host, number in self.hosts.items()}
        (own / "hosts").write_text("".join(f"{there} {host}\n" for host, there in names.items()))
        # A name that no pod has is unknown at once.
        (own / "resolv.conf").write_text("nameserver 127.0.0.1\n")
        binds = [(own / path[1:], Path(path), False) for path in scratch if path != "/dev/shm"]
        binds.append((self.volume, Path(volume), False))
        shared_memory = scratch.get("/dev/shm", "64Mi").removesuffix("i")
        (own / "start.sh").write_text(self._script(own, binds, shared_memory, command, environment, address))
        unshared = ["unshare", "--mount", "--pid", "--net", "--uts", "--ipc", "--fork", "--kill-child"]
        with (own / "log").open("wb") as log:
            process = subprocess.Popen(
                [*unshared, "bash", str(own / "start.sh"), name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={"PATH": os.environ["PATH"]},
            )
        assert process.stdin is not None and process.stdout is not None
        try:
            assert process.stdout.readline() == b"unshared\n", (own / "log").read_text()
            veth = f"v{self._pods}"
            self._on_bridge(
                f"ip link add {veth} type veth peer name eth0 netns {process.pid}; ip link set {veth} master br0 up"
            )
            process.stdin.close()
            yield Pod(process, own)
        finally:
            process.kill()
            process.wait()

    def _on_bridge(self, commands: str) -> None:
        subprocess.run(["nsenter", f"--net=/proc/{self._bridge}/ns/net", "sh", "-ec", commands], check=True)

    def _script(
        self,
        own: Path,
        writable: Sequence[tuple[Path, Path, bool]],
        shared_memory: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        address: int,
    ) -> str:
        """Set up the pod's root, network and user, and become its command."""
        root = own / "root"
        readable = {Path("/usr"), Path("/etc"), Path("/sys"), Path(sys.base_prefix), Path(sys.prefix)}
        links = {path: path.readlink() for path in map(Path, ("/bin", "/sbin", "/lib", "/lib64")) if path.is_symlink()}
        # Those first, because the image's tree may lie below /tmp on this machine.
        binds = [*writable, (self.image, ROOT, True), *((path, path, True) for path in sorted(readable))]
        binds += [(path, path, True) for path in self.seen]
        binds += [
            (Path(sys.prefix), ROOT / ".venv", True),
            *(
                (own / path.name, path, True)
                for path in map(Path, ("/etc/hosts", "/etc/resolv.conf"))
                if path.is_file()
            ),
        ]
        compilers = {Path(found).resolve() for tool in _COMPILERS if (found := shutil.which(tool))}
        binds += [(Path("/dev/null"), path, False) for path in sorted(compilers)]
        lines = [
            "set -euo pipefail",
            "echo unshared; exec >&2; cat > /dev/null",
            'hostname "$1"',
            f"ip link set lo up; ip addr add {_SUBNET}.{address}/24 dev eth0; ip link set eth0 up",
            f"ip route add default via {_SUBNET}.1",
            "mount --make-rprivate /",
            f"mount -t tmpfs -o mode=755 tmpfs {root}",
            f"mkdir -p {root}/dev {root}/proc",
            f"mount -t proc proc {root}/proc",
            f"mount -t tmpfs -o mode=755 tmpfs {root}/dev",
            f"mkdir {root}/dev/shm; mount -t tmpfs -o mode=1777,size={shared_memory} tmpfs {root}/dev/shm",
            *(
                f"touch {root}/dev/{name}; mount --bind /dev/{name} {root}/dev/{name}"
                for name in ("null", "zero", "urandom", "random")
            ),
            *(f"ln -s {target} {root}{path}" for path, target in links.items()),
        ]
        for source, target, is_readonly in binds:
            there = shlex.quote(f"{root}{target}")
            if source.is_dir():
                lines.append(f"mkdir -p {there}")
            lines.append(f"mount --bind {shlex.quote(str(source))} {there}")
            if is_readonly:
                lines.append(f"mount -o remount,bind,ro {there}")
        lines.append(f"mount -o remount,ro {root}")
        pairs = [f"{name}={value}" for name, value in environment.items()]
        user = [f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--no-new-privs", "--bounding-set=-all"]
        become = ["setpriv", *user, "env", "-i", f"--chdir={ROOT}", *pairs, *command]
        lines.append(shlex.join(["exec", "chroot", str(root), *become]))
        return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Pod:
    """A pod that was started."""

    process: "subprocess.Popen[bytes]"
    folder: Path

    def wait(self, timeout_s: float) -> None:
        """Raises AssertionError with the end of the log unless the command succeeds in time."""
        try:
            status = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            status = -1
        assert status == 0, f"{self.folder.name} ended with {status}: {self.log[-6000:]}"

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")


@dataclass(frozen=True)
class CompiledPipeline:
    """A compiled pipeline, run task by task as KFP's launcher does."""

    spec: dict[str, Any]
    platform: dict[str, Any]
    secrets: Mapping[tuple[str, str], str]
    """(secret, key) -> value."""

    @classmethod
    def read(cls, path: Path, secrets: Mapping[tuple[str, str], str]) -> "CompiledPipeline":
        spec, platform = yaml.safe_load_all(path.read_text())
        return cls(spec, platform, secrets)

    @property
    def tasks(self) -> list[str]:
        """In an order in which each follows those that it depends on."""
        tasks, ordered = self.spec["root"]["dag"]["tasks"], []
        while len(ordered) < len(tasks):
            ordered += [
                name
                for name, task in tasks.items()
                if name not in ordered and set(task.get("dependentTasks", [])) <= set(ordered)
            ]
        return ordered

    def environment(self, task: str) -> dict[str, str]:
        """The image's, the container's, and the secrets that its pod names."""
        given = image_environment()
        container = self.spec["deploymentSpec"]["executors"][f"exec-{task}"]["container"]
        given |= {each["name"]: each["value"] for each in container.get("env", [])}
        for secret in self._pod_settings(task).get("secretAsEnv", []):
            for pair in secret["keyToEnv"]:
                given[pair["envVar"]] = self.secrets[secret["secretName"], pair["secretKey"]]
        return given

    def command(self, task: str, outputs: Mapping[str, Any]) -> list[str]:
        """The container's command, with the executor's input in the place of KFP's placeholder."""
        component = self.spec["components"][f"comp-{task}"]
        container = self.spec["deploymentSpec"]["executors"][f"exec-{task}"]["container"]
        values = {}
        for name, source in self.spec["root"]["dag"]["tasks"][task]["inputs"]["parameters"].items():
            if "componentInputParameter" in source:
                values[name] = self.spec["root"]["inputDefinitions"]["parameters"][name]["defaultValue"]
            else:
                values[name] = outputs[source["taskOutputParameter"]["producerTask"]]
        declared = component["outputDefinitions"]
        executor_input = {
            "inputs": {"parameterValues": values},
            "outputs": {
                "parameters": {name: {"outputFile": f"/tmp/kfp/outputs/{name}"} for name in declared["parameters"]},
                "artifacts": {
                    name: {
                        "artifacts": [
                            {
                                "name": name,
                                "type": artifact["artifactType"],
                                "uri": f"minio://mlpipeline/v2/artifacts/sluice-lifecycle/run/{task}/{name}",
                                "metadata": {},
                            }
                        ]
                    }
                    for name, artifact in declared.get("artifacts", {}).items()
                },
                "outputFile": "/tmp/kfp_outputs/output_metadata.json",
            },
        }
        text = json.dumps(executor_input)
        return [part.replace("{{$}}", text) for part in (*container["command"], *container["args"])]

    def run(self, cluster: Cluster, task: str, outputs: Mapping[str, Any], timeout_s: float = 1200) -> Any:
        """Run one task to its end and return its output."""
        settings = self._pod_settings(task)
        scratch = KFP_SCRATCH | {each["mountPath"]: each["sizeLimit"] for each in settings.get("emptyDirMounts", [])}
        (claim,) = settings["pvcMount"]
        command, environment = self.command(task, outputs), self.environment(task)
        with cluster.pod(command, environment, name=task, scratch=scratch, volume=claim["mountPath"]) as pod:
            pod.wait(timeout_s)
            written = json.loads((pod.folder / "tmp/kfp_outputs/output_metadata.json").read_text())
        return written["parameterValues"]["Output"]

    def _pod_settings(self, task: str) -> dict[str, Any]:
        pods: dict[str, Any] = self.platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
        return pods[f"exec-{task}"]
