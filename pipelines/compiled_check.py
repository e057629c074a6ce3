"""Faults of a compiled pipeline that a cluster accepts, to fail or go wrong long afterwards."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

_REGISTRY = re.compile(r"(?:localhost|[^/]*[.:][^/]*)/.+")
"""As container runtimes read a name: otherwise its first part is a user of Docker Hub."""
_LIMITS = {"resourceCpuLimit": "cpu", "resourceMemoryLimit": "memory"}
_CHANNEL = re.compile(r"inputs\.parameter_values\['([^']+)'\]")


def find_faults(spec: Mapping[str, Any], platform: Mapping[str, Any]) -> list[str]:
    """Faults of a compiled pipeline: the documents of its file, PipelineSpec and PlatformSpec."""
    return [*_tasks(spec, platform), *_conditions(spec)]


def _tasks(spec: Mapping[str, Any], platform: Mapping[str, Any]) -> Iterator[str]:
    """Images without a registry, tasks without limits or a deadline."""
    pods = platform.get("platforms", {}).get("kubernetes", {}).get("deploymentSpec", {}).get("executors", {})
    for name, executor in spec["deploymentSpec"]["executors"].items():
        task = name.removeprefix("exec-")
        container = executor.get("container")
        if container is None:
            continue
        if not _REGISTRY.fullmatch(container["image"]):
            yield f"{task}: image {container['image']} names no registry: cluster.image=REGISTRY/NAME@sha256:DIGEST"
        for field, resource in _LIMITS.items():
            if not container.get("resources", {}).get(field):
                yield f"{task}: there is no {resource} limit: set cluster.each.{resource}"
        if not int(pods.get(name, {}).get("activeDeadlineSeconds", 0)):
            yield f"{task}: there is no deadline: set cluster.each.timeout_s"


def _conditions(spec: Mapping[str, Any]) -> Iterator[str]:
    """Conditions on a named output: a local run takes neither branch of one, and reports success."""
    for component in [spec["root"], *spec["components"].values()]:
        for name, task in component.get("dag", {}).get("tasks", {}).items():
            given = task.get("inputs", {}).get("parameters", {})
            for channel in _CHANNEL.findall(task.get("triggerPolicy", {}).get("condition", "")):
                output = given.get(channel, {}).get("taskOutputParameter", {}).get("outputParameterKey", "Output")
                if output != "Output":
                    yield f"{name}: its condition reads the named output {output}: return one str, and compare that"
