"""Checks of this machine before a run starts, so that no run fails late for a reason known early."""

import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

import sluice
from sluice.components.params import Params
from sluice.components.workspace import Workspace
from sluice.core.failure import describe
from sluice.core.local_ray import socket_path_fault
from sluice.core.network import connection_fault
from sluice.core.settings.files import with_absolute_paths
from sluice.data.config import IngestConfig
from sluice.model.config import PretrainConfig
from sluice.monitoring.config import MonitorConfig
from sluice.serving.config import ServeConfig

GIB = 1024**3
_NEEDED_DISK_GIB = 2.0
_ADVISED_DISK_GIB = 6.0
_NEEDED_MEMORY_GIB = 4.0
_MUCH_GARBAGE_GIB = 10.0


class Health(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Finding:
    name: str
    health: Health
    message: str
    fix: str = ""


def examine_machine(folder: Path, pretrain: PretrainConfig | None = None) -> list[Finding]:
    """Findings that depend on no settings but those of training; `folder` is on the disk that a run would use."""
    import psutil

    return [
        judge_python(sys.version_info[:2]),
        judge_packages(locked_versions(), installed_versions()),
        judge_tools({tool: shutil.which(tool) for tool in needed_tools(pretrain)}),
        judge_disk(shutil.disk_usage(folder).free),
        judge_memory(psutil.virtual_memory().total),
        judge_temporary(tempfile.gettempdir()),
    ]


def examine(workspace: Workspace, params: Params) -> list[Finding]:
    """All findings for a run with these settings."""
    from pypi_simple import PYPI_SIMPLE_ENDPOINT

    from sluice.core.manifest import MANIFEST
    from sluice.data.sources.location import locate
    from sluice.serving.client import find_server

    server = find_server(workspace.state)
    index = os.environ.get("PIP_INDEX_URL") or os.environ.get("UV_INDEX_URL") or PYPI_SIMPLE_ENDPOINT
    # Without a workspace, the folder that commands write into is the current one.
    root = Path.cwd() if workspace.is_default else workspace.root
    serve, data = params[ServeConfig], params[IngestConfig]
    faults = []
    # How sources are named; whether a remote one answers shows when it is read.
    for source in (data if Path.cwd() == root else with_absolute_paths(data, root)).given:
        try:
            locate(source)
        except ValueError as fault:
            faults.append(str(fault))
    needs_network = not data.sources and not (workspace.artifact("ingest") / MANIFEST).is_file()
    return [
        *examine_machine(root, params[PretrainConfig]),
        judge_writable(root, os.access(root, os.W_OK)),
        judge_port(
            serve.host,
            serve.port,
            port_taken(serve.host, serve.port),
            server is not None and urlsplit(server.url).port == serve.port,
        ),
        judge_sources(faults),
        judge_network(connection_fault(index) is None if needs_network else None),
        *([] if workspace.is_default else [examine_garbage(workspace, params[MonitorConfig])]),
    ]


def examine_garbage(workspace: Workspace, monitor: MonitorConfig) -> Finding:
    from sluice.pipelines.disk_usage import find_garbage
    from sluice.pipelines.garbage import freed_bytes

    try:
        return judge_garbage(freed_bytes(find_garbage(workspace, monitor)))
    except Exception as error:
        # A database that does not answer, or is damaged: the command that needs it says so.
        return Finding("garbage", Health.WARN, f"what could be freed is unknown: {describe(error)}")


def require_healthy(findings: list[Finding]) -> None:
    """Print warnings; raise ValueError with every failure in one line."""
    for finding in findings:
        if finding.health == Health.WARN:
            print(f"doctor: {finding.message}{f'; {finding.fix}' if finding.fix else ''}", flush=True)
    if failed := [finding for finding in findings if finding.health == Health.FAIL]:
        raise ValueError("; ".join(f"{finding.message}: {finding.fix}" for finding in failed))


def judge_python(version: tuple[int, ...]) -> Finding:
    text = ".".join(map(str, version))
    if (3, 11) <= version < (3, 13):
        return Finding("python", Health.OK, f"Python {text}")
    return Finding(
        "python", Health.FAIL, f"Python {text} is not supported", "use 3.11 or 3.12 (make PYTHON=python3.11)"
    )


def judge_packages(locked: Mapping[str, str], installed: Mapping[str, str]) -> Finding:
    """The direct requirements, by the lock; a local version label such as +cpu is no difference."""
    wrong = [
        f"{name} {installed.get(name, 'missing')} (locked {version})"
        for name, version in sorted(locked.items())
        if installed.get(name, "").split("+")[0] != version
    ]
    if wrong:
        return Finding(
            "packages", Health.FAIL, f"not as locked: {', '.join(wrong[:4])}", "run `make .venv/.installed` again"
        )
    return Finding("packages", Health.OK, f"{len(locked)} packages as locked")


def needed_tools(pretrain: PretrainConfig | None = None) -> tuple[str, ...]:
    """Programs that a run starts; torch.compile alone wants a compiler, which the container image does not have."""
    return ("git", "c++") if pretrain and pretrain.compile else ("git",)


def judge_tools(paths: Mapping[str, str | None]) -> Finding:
    if missing := [tool for tool, path in paths.items() if not path]:
        return Finding(
            "tools", Health.FAIL, f"{' and '.join(missing)} not found", "install it with the system's package manager"
        )
    return Finding("tools", Health.OK, ", ".join(paths))


def judge_disk(free_bytes: int) -> Finding:
    free = free_bytes / GIB
    if free < _NEEDED_DISK_GIB:
        return Finding(
            "disk", Health.FAIL, f"{free:.1f} GiB free, {_NEEDED_DISK_GIB:.0f} are needed", "free some disk space"
        )
    if free < _ADVISED_DISK_GIB:
        return Finding(
            "disk", Health.WARN, f"{free:.1f} GiB free, {_ADVISED_DISK_GIB:.0f} are advised", "free some disk space"
        )
    return Finding("disk", Health.OK, f"{free:.0f} GiB free")


def judge_memory(total_bytes: int) -> Finding:
    total = total_bytes / GIB
    if total < _NEEDED_MEMORY_GIB:
        return Finding(
            "memory",
            Health.WARN,
            f"{total:.1f} GiB of memory, {_NEEDED_MEMORY_GIB:.0f} are advised",
            "try profile=tiny",
        )
    return Finding("memory", Health.OK, f"{total:.0f} GiB")


def judge_writable(root: Path, writable: bool) -> Finding:
    if writable:
        return Finding("workspace", Health.OK, str(root))
    return Finding("workspace", Health.FAIL, f"{root} cannot be written", "run in a folder of your own")


def judge_temporary(folder: str) -> Finding:
    if fault := socket_path_fault(folder):
        message, _, fix = fault.partition("; ")
        return Finding("temporary", Health.FAIL, message, fix)
    return Finding("temporary", Health.OK, folder)


def judge_port(host: str, port: int, taken: bool, ours: bool) -> Finding:
    if taken and not ours:
        return Finding(
            "port",
            Health.FAIL,
            f"port {port} on {host} is taken by another program",
            f"stop it or set serve.port={port + 1}",
        )
    return Finding("port", Health.OK, f"{host}:{port} {'serves this workspace' if ours else 'is free'}")


def judge_sources(faults: list[str]) -> Finding:
    if faults:
        return Finding("sources", Health.FAIL, faults[0], "set data.sources to what there is")
    return Finding("sources", Health.OK, "present")


def judge_network(reachable: bool | None) -> Finding:
    """None: nothing has to be fetched."""
    if reachable is None:
        return Finding("network", Health.OK, "not needed")
    if reachable:
        return Finding("network", Health.OK, "the package index answers")
    message = (
        "no network: the package index does not answer, so the installed packages' documentation will be read instead"
    )
    return Finding("network", Health.WARN, message, "connect, or set data.sources to a local path")


def judge_garbage(size_bytes: int) -> Finding:
    """`size_bytes`: what `sluice gc` would free."""
    message = f"{size_bytes / GIB:.1f} GiB of old caches, runs and versions could be freed"
    if size_bytes > _MUCH_GARBAGE_GIB * GIB:
        return Finding("garbage", Health.WARN, message, "run `sluice gc`; `sluice gc --dry-run` shows what it removes")
    return Finding("garbage", Health.OK, message)


def locked_versions() -> dict[str, str]:
    """Locked versions of the eight core libraries, and of two whose versions are known to matter."""
    names = {"torch", "ray", "mlflow", "dvc", "kfp", "datatrove", "evidently", "deepspeed", "tokenizers", "pandas"}
    path = Path(sluice.__file__).with_name("requirements.lock")
    lines = path.read_text().splitlines() if path.is_file() else []
    pins = [line.split(";")[0].strip().split("==") for line in lines if "==" in line and not line.startswith("#")]
    return {pin[0].split("[")[0]: pin[1] for pin in pins if pin[0].split("[")[0] in names}


def installed_versions() -> dict[str, str]:
    return {(item.metadata["Name"] or "").lower(): item.version for item in metadata.distributions()}


def port_taken(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False
