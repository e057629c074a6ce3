"""dvc.yaml, the KFP graph and the code say the same about the steps."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import grimp
import pytest
import yaml

from sluice.components.params import BLOCKS
from sluice.components.workspace import CONTENT_STEPS, EFFECT_STEPS, STEPS

PLUMBING = {
    "sluice.components.artifact",
    "sluice.components.events",
    "sluice.core.failure",
    "sluice.components.ray_head",
    "sluice.components.params",
    "sluice.components.saved_files",
    "sluice.components.stage",
    "sluice.components.workspace",
    "sluice.core.local_ray",
    "sluice.core.manifest",
    "sluice.core.network",
    "sluice.core.out_of_memory",
    "sluice.core.progress",
    "sluice.core.ray_process",
    "sluice.core.settings",
    "sluice.core.settings.block",
    "sluice.core.settings.errors",
    "sluice.core.settings.files",
    "sluice.monitoring.traffic.record",
}
"""What carries a step but does not make its content. Settings modules are out too: their values are in params.yaml.

The traffic record's columns bound a setting of the monitor.
"""

REGISTRIES = {"sluice.model.evaluation.metrics", "sluice.model.evaluation.suites.scorers"}


@pytest.fixture(scope="module")
def stages(root: Path) -> dict[str, Any]:
    return yaml.safe_load((root / "dvc.yaml").read_text())["stages"]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    from kfp import compiler

    from sluice.pipelines.lifecycle import lifecycle

    path = tmp_path_factory.mktemp("compiled") / "lifecycle.yaml"
    compiler.Compiler().compile(lifecycle(), str(path))
    return next(yaml.safe_load_all(path.read_text()))


def test_stages_are_the_content_steps(stages: dict[str, Any]) -> None:
    assert tuple(stages) == CONTENT_STEPS


def test_graph_has_every_step_once(compiled: dict[str, Any]) -> None:
    assert set(compiled["root"]["dag"]["tasks"]) == set(STEPS)


def test_graph_and_stages_have_the_same_edges(compiled: dict[str, Any], stages: dict[str, Any]) -> None:
    tasks = compiled["root"]["dag"]["tasks"]
    for step, stage in stages.items():
        reads = {Path(path).name for path in stage["deps"] if path.startswith("artifacts/")}
        inputs = tasks[step].get("inputs", {}).get("parameters", {})
        producers = {
            value["taskOutputParameter"]["producerTask"] for value in inputs.values() if "taskOutputParameter" in value
        }
        assert producers == reads, step
        assert set(tasks[step].get("dependentTasks", [])) == reads, step


def test_effects_follow_one_another(compiled: dict[str, Any]) -> None:
    tasks = compiled["root"]["dag"]["tasks"]
    order = ("evaluate", *EFFECT_STEPS)
    for before, after in pairwise(order):
        assert tasks[after]["dependentTasks"] == [before]


def test_compiled_components_install_nothing_and_use_one_image(compiled: dict[str, Any]) -> None:
    executors = compiled["deploymentSpec"]["executors"].values()
    assert len(executors) == len(STEPS)
    for executor in executors:
        text = " ".join(executor["container"]["command"])
        assert "pip install" not in text
        assert executor["container"]["image"] == "sluice:0.1.0"


def test_each_stage_depends_on_all_the_code_it_runs(root: Path, stages: dict[str, Any]) -> None:
    graph = grimp.build_graph("sluice", cache_dir=None)
    for step, stage in stages.items():
        stage_module = f"sluice.components.{step}"
        needed = {stage_module} | graph.find_upstream_modules(stage_module)
        # The registries import their files by name, which a graph of imports does not show.
        for registry in REGISTRIES & needed:
            needed |= graph.find_children(registry)
            needed |= {each for child in graph.find_children(registry) for each in graph.find_upstream_modules(child)}
        needed = {name for name in needed - PLUMBING if not _is_settings(name)}
        files = {_file(root, name) for name in needed} - {None}
        covered = {path for path in files if any(path == dep or path.startswith(f"{dep}/") for dep in stage["deps"])}
        assert files - covered == set(), f"dvc.yaml: {step} runs code that it does not list"


def test_stage_declarations_are_whole(root: Path, stages: dict[str, Any]) -> None:
    for step, stage in stages.items():
        assert stage["cmd"] == f"python -m sluice.components.{step}"
        assert stage["outs"] == [f"artifacts/{step}"]
        assert set(stage["params"]) <= {kind.block_name for kind in BLOCKS}
        code = [path for path in stage["deps"] if not path.startswith("artifacts/")]
        assert all((root / path).exists() for path in code), step


def _file(root: Path, module: str) -> str | None:
    path = root / Path(*module.split(".")[1:])
    if path.is_dir():
        # A package's own module carries no content unless somebody wrote something into it.
        init = path / "__init__.py"
        return init.relative_to(root).as_posix() if init.is_file() and init.stat().st_size > 200 else None
    return path.with_suffix(".py").relative_to(root).as_posix()


def _is_settings(module: str) -> bool:
    """A package's config.py, and what settings of every step are validated with: model shape, table of optimizers."""
    if module == "sluice.model.parallelism.optimizers":  # imports nothing: names of optimizers, and facts about them
        return True
    own_file = module.count(".") == 2 and module.endswith(".config")
    settings = own_file or module.startswith("sluice.model.architecture.")
    return settings and module.endswith("config")
