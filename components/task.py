"""The surroundings of a KFP task: the same on a laptop and in a pod, where the root is read-only, the user may have no
account, and nobody has set a working folder.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import yaml

import sluice
from sluice.components.events import EVENTS_VARIABLE, emit
from sluice.components.file_hashes import with_hashes
from sluice.components.params import Params, validate
from sluice.components.ray_head import prepare_own_ray
from sluice.components.reproduce import content_hash
from sluice.components.stage import tree_hash
from sluice.components.workspace import PARAMS_VARIABLE, WORKSPACE_VARIABLE, Workspace
from sluice.core.account import name_user
from sluice.core.failure import StepFailed, describe
from sluice.core.files import atomic_write
from sluice.data.config import IngestConfig

_DVC_FILES = {
    ".dvc/config": "[core]\n    no_scm = true\n    analytics = false\n    check_update = false\n",
    ".dvcignore": "__pycache__\n*.pyc\n.sluice\n",
}


def enter_task(root: str, settings: str, step: str, inputs: Mapping[str, str] | None = None) -> Workspace:
    """Prepare this process and the workspace for a step; `settings` is the content of a params.yaml, as YAML or JSON.

    `inputs` has the content hashes of the artifacts that this run's earlier steps made. Within `sluice run` the
    settings have been written and their files hashed already; in a pod, that happens here. Raises StepFailed, such as
    for a workspace that has other code than this process, or artifacts of another run.
    """
    remove_program(sys.argv)
    try:
        workspace = _prepare(Path(root).absolute(), settings, step)
        check_inputs(workspace, inputs or {})
        return workspace
    except Exception as error:
        message = describe(error)
        emit(step, "failed", message=message)
        raise StepFailed(f"{step}: {message}") from error


def remove_program(arguments: Sequence[str]) -> None:
    """Remove the temporary folder of a component's source, which KFP's command makes and leaves; it is loaded by now.

    `arguments` are those of `kfp.dsl.executor_main`.
    """
    option = "--component_module_path"
    if option in arguments[:-1]:
        program = Path(arguments[arguments.index(option) + 1])
        if {path.name for path in program.parent.iterdir()} <= {program.name, "__pycache__"}:
            shutil.rmtree(program.parent)


def _prepare(root: Path, settings: str, step: str) -> Workspace:
    name_user()
    workspace = Workspace(root)
    os.environ[WORKSPACE_VARIABLE] = str(root)
    prepare_own_ray()
    # The default lies in /var/tmp.
    os.environ.setdefault("DVC_SITE_CACHE_DIR", str(Path(tempfile.gettempdir()) / f"sluice-dvc-{os.getuid()}"))
    # Otherwise `python -m` in the workspace would take the code that lies there.
    os.environ["PYTHONSAFEPATH"] = "1"
    share_code(workspace)
    if PARAMS_VARIABLE not in os.environ:
        params = validate(yaml.safe_load(settings))
        # Hashing the sources reads them, and ingest alone uses the hash.
        blocks = [
            block if isinstance(block, IngestConfig) and step != "ingest" else with_hashes(block, workspace.root)
            for block in params.blocks
        ]
        own = Path(tempfile.mkdtemp(prefix="sluice-task-"))
        (own / "params.yaml").write_text(yaml.safe_dump(Params(tuple(blocks)).dump(), allow_unicode=True))
        os.environ[PARAMS_VARIABLE] = str(own / "params.yaml")
        os.environ[EVENTS_VARIABLE] = str(own / "events.jsonl")
    return workspace


def check_inputs(workspace: Workspace, inputs: Mapping[str, str]) -> None:
    """Raise ValueError where another run has replaced an artifact meanwhile."""
    for step, expected in inputs.items():
        if (found := content_hash(workspace, step)) != expected:
            raise ValueError(
                f"artifacts/{step} is {found}, and this run made {expected}: another run works in {workspace.root}; "
                "give it a workspace of its own, or run one after the other"
            )


def share_code(workspace: Workspace) -> None:
    """Give the workspace the code of this process, as links, where it has none: DVC compares what lies there.

    Raises ValueError where it has other code.
    """
    package = Path(sluice.__file__).resolve().parent
    stages = yaml.safe_load((package / "dvc.yaml").read_text())["stages"].values()
    code = sorted({path for stage in stages for path in stage["deps"] if not path.startswith("artifacts/")})
    workspace.root.mkdir(parents=True, exist_ok=True)
    for name, text in _DVC_FILES.items():
        if not (workspace.root / name).exists():
            (workspace.root / name).parent.mkdir(exist_ok=True)
            with atomic_write(workspace.root / name) as partial:
                partial.write_text(text)
    for name in sorted({"conf", "dvc.yaml", *(path.partition("/")[0] for path in code)}):
        link = workspace.root / name
        if not link.exists():
            # A link to another image's folder, which is gone.
            link.unlink(missing_ok=True)
            with suppress(FileExistsError):
                link.symlink_to(package / name)
    for path in ["dvc.yaml", *code]:
        there = workspace.root / path
        if there.exists() and there.samefile(package / path):
            continue
        if tree_hash(workspace.root, [path]) != tree_hash(package, [path]):
            raise ValueError(
                f"{there} differs from {package / path}, which runs: a run has one code; use the image "
                "or the installation of the workspace's commit, or remove the code from the workspace"
            )
