"""Faults of a compiled pipeline that a cluster accepts, to fail or go wrong long afterwards."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from sluice.pipelines.cluster import SECRET_READERS

_IMAGE = re.compile(
    r"(?P<registry>(?:localhost|[\w-]+(?:\.[\w-]+)+|[\w-]+(?=:))(?::\d+)?/)?"
    r"[a-z0-9]+(?:[._/-]+[a-z0-9]+)*(?::\w[\w.-]*)?(?:@sha256:[0-9a-f]{64})?",
    re.ASCII,
)
"""As container runtimes read a name: a first part without a dot or port is a user of Docker Hub."""
_LIMITS = {"resourceCpuLimit": "cpu", "resourceMemoryLimit": "memory"}
_ONLY_OUTPUT = "Output"
"""KFP's name for the value of a component that returns one."""
_CHANNEL = re.compile(r"inputs\.parameter_values\['([^']+)'\]")


def find_faults(spec: Mapping[str, Any], platform: Mapping[str, Any]) -> list[str]:
    """Faults of a compiled pipeline: the documents of its file, PipelineSpec and PlatformSpec."""
    pods = platform.get("platforms", {}).get("kubernetes", {}).get("deploymentSpec", {}).get("executors", {})
    return [*_images(spec), *_tasks(spec, pods), *_secrets(pods), *_conditions(spec)]


def _images(spec: Mapping[str, Any]) -> Iterator[str]:
    """Images without a registry, or of no name at all."""
    containers = [executor.get("container", {}) for executor in spec["deploymentSpec"]["executors"].values()]
    for image in sorted({container["image"] for container in containers if container}):
        named = _IMAGE.fullmatch(image)
        if named is None or not named["registry"]:
            fault = "is no image's name" if named is None else "names no registry"
            yield f"image {image} {fault}: cluster.image=REGISTRY/NAME@sha256:DIGEST"


def _tasks(spec: Mapping[str, Any], pods: Mapping[str, Any]) -> Iterator[str]:
    """Tasks without limits or a deadline."""
    for name, executor in spec["deploymentSpec"]["executors"].items():
        task = name.removeprefix("exec-")
        container = executor.get("container")
        if container is None:
            continue
        for field, resource in _LIMITS.items():
            if not container.get("resources", {}).get(field):
                yield f"{task}: there is no {resource} limit: set cluster.each.{resource}"
        if not int(pods.get(name, {}).get("activeDeadlineSeconds", 0)):
            yield f"{task}: there is no deadline: set cluster.each.timeout_s"


def _secrets(pods: Mapping[str, Any]) -> Iterator[str]:
    """Secrets of ours that a task has and does not read, or lacks although another one has them."""
    given = {
        name.removeprefix("exec-"): {
            pair["envVar"] for secret in pod.get("secretAsEnv", []) for pair in secret["keyToEnv"]
        }
        for name, pod in pods.items()
    }
    for variable, readers in SECRET_READERS.items():
        holders = [task for task in given if variable in given[task]]
        for task in holders:
            if task not in readers:
                at = f"name it in cluster.steps.STEP.secrets of {', '.join(readers)} alone"
                yield f"{task}: it is given the secret {variable}, which it does not read: {at}"
        for task in readers if holders else ():
            if task in given and task not in holders:
                at = f"set cluster.steps.{task}.secrets.{variable}"
                yield f"{task}: it has no {variable}, and {holders[0]} has: {at}"


def _conditions(spec: Mapping[str, Any]) -> Iterator[str]:
    """Conditions on a named output: a local run takes neither branch of one, and reports success."""

    def walk(component: Mapping[str, Any], passed: Mapping[str, str]) -> Iterator[str]:
        """`passed`: input of the component -> the output that it comes from."""
        for name, task in component.get("dag", {}).get("tasks", {}).items():
            outputs = {
                channel: source["taskOutputParameter"]["outputParameterKey"]
                if "taskOutputParameter" in source
                else passed.get(source.get("componentInputParameter", ""), _ONLY_OUTPUT)
                for channel, source in task.get("inputs", {}).get("parameters", {}).items()
            }
            for channel in _CHANNEL.findall(task.get("triggerPolicy", {}).get("condition", "")):
                if (output := outputs.get(channel, _ONLY_OUTPUT)) != _ONLY_OUTPUT:
                    yield f"{name}: its condition reads the named output {output}: return one str, and compare that"
            # The tasks of a condition or a loop.
            yield from walk(spec["components"][task["componentRef"]["name"]], outputs)

    yield from walk(spec["root"], {})
