"""One evaluation by command: which suites and text, where the kept answers are, and the signed folder."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import sluice
from sluice.components.workspace import Workspace
from sluice.core.canonical import canonical_json
from sluice.core.files import atomic_write, write_json
from sluice.core.progress import Progress

if TYPE_CHECKING:
    from sluice.model.evaluation.judging.judge_server import JudgeServer
    from sluice.model.evaluation.plan import EvaluatedCandidate, EvaluationPlan
    from sluice.model.evaluation.suites.suite import Suite

DEFAULT_SUITES = ("arithmetic", "instructions", "facts")
"""Names in conf/suites of what is run beside the metrics where no suite is named."""
EVALUATION_CACHE = "evaluation-cache"
"""Folder of kept answers and measurements in a workspace's state."""
BASELINE = "baseline"
DEFAULT = "default"
"""Name of what is measured where no suite is named, to be measured beside named ones."""
_LM_EVAL = "lm-eval:"


@dataclass(frozen=True)
class Evaluated:
    """Content of results.json of a model, and of the baseline where there is one."""

    results: Mapping[str, Any]
    baseline: Mapping[str, Any] | None = None


def find_suite(name: str, workspace: Workspace) -> "Suite":
    """Load a suite by its YAML file, by its name in conf/suites, or by the name of a set in a pinned wheel.

    Names of the workspace's own conf/ come before those of the package. ValueError for an unknown one, with those that
    there are.
    """
    from sluice.model.evaluation.suites.suite import load_suite

    if name.endswith((".yaml", ".yml")) or "/" in name:
        return load_suite(Path(name))
    folders = [workspace.conf / "suites", Path(sluice.__file__).parent / "conf" / "suites"]
    for folder in folders:
        if (path := folder / f"{name}.yaml").is_file():
            return load_suite(path)
    from sluice.model.evaluation.safety.extraction import EXTRACTION
    from sluice.model.evaluation.sets.registry import SETS, named_suite

    if name in SETS:
        return named_suite(name, workspace.state / "downloads")
    known = sorted({path.stem for folder in folders for path in folder.glob("*.yaml")} | SETS.keys() | {EXTRACTION})
    raise ValueError(f"no suite is named {name}: use {', '.join(known)}, lm-eval:TASK, or a suite's YAML file")


def _incidents(workspace: Workspace) -> list[str]:
    """Return the suite of the workspace's incidents (`sluice incident add`), once it has one."""
    return ["incidents"] if (workspace.conf / "suites" / "incidents.yaml").is_file() else []


def make_plan(
    workspace: Workspace,
    names: Sequence[str],
    data: Path | None,
    overrides: Sequence[str],
    *,
    is_served: bool,
) -> "EvaluationPlan":
    """Return what to measure: the named suites and tasks, or without names the metrics on `data` and our own suites,
    which are named `default`.

    A served model gives no likelihoods, so by default it gets the suites that generate. ValueError for what is missing
    or wrong.
    """
    from sluice.core.settings.files import with_absolute_paths
    from sluice.data.config import PackConfig
    from sluice.data.document import read_documents
    from sluice.data.split import split_of
    from sluice.model.config import EvaluateConfig
    from sluice.model.evaluation.held_out import read_data, read_held_out
    from sluice.model.evaluation.judging.judge_server import URL_VARIABLE, JudgeServer
    from sluice.model.evaluation.plan import EvaluationPlan
    from sluice.model.evaluation.safety.extraction import EXTRACTION
    from sluice.model.evaluation.suites.retrieval import NAME as RETRIEVAL
    from sluice.model.evaluation.suites.retrieval import retrieval_suite
    from sluice.pipelines.compose import compose_without_files

    is_default = not names or DEFAULT in names
    names = [name for name in names if name != DEFAULT]
    params = compose_without_files(workspace, overrides)
    config, split = with_absolute_paths(params[EvaluateConfig], workspace.root), params[PackConfig]
    tasks = [name.removeprefix(_LM_EVAL) for name in names if name.startswith(_LM_EVAL)]
    if tasks and data is None:
        raise ValueError(
            "lm-eval reads a task's data from --data DIR, laid out as the hub's names: DIR/allenai/ai2_arc/README.md "
            "and JSONL beside it"
        )
    if tasks and is_default:
        raise ValueError("--data holds either the tasks' data or held-out text: evaluate default and lm-eval apart")
    is_refined = data is not None and any(data.glob("documents-*.jsonl*"))
    if EXTRACTION in names and not is_refined:
        raise ValueError(
            "extraction compares documents that the model was trained on with held-out ones: name the refined folder "
            "(artifacts/refine, or the output of `sluice data build`) by --data"
        )
    wanted = [name for name in names if not name.startswith(_LM_EVAL)]
    if is_default:
        wanted += [name for name in (*DEFAULT_SUITES, *_incidents(workspace)) if name not in wanted]
    asks_retrieval = is_default or RETRIEVAL in wanted
    wanted = [name for name in wanted if name not in (RETRIEVAL, EXTRACTION)]
    suites = [find_suite(name, workspace) for name in wanted]
    if len({suite.settings.name for suite in suites}) < len(suites):
        raise ValueError(f"two of the suites have one name: {', '.join(suite.settings.name for suite in suites)}")
    wants_judge = any(suite.judging is not None for suite in suites) and os.environ.get(URL_VARIABLE)
    judge = JudgeServer.from_environment() if wants_judge else None
    plan = EvaluationPlan(config, None, tuple(suites), {task: data for task in tasks if data is not None}, judge=judge)
    if is_default and is_served:
        kept = [suite for suite in suites if suite.settings.generates or suite.settings.name in names]
        plan = replace(plan, suites=tuple(kept))
    elif is_default and data is None:
        raise ValueError(
            "the default suite measures held-out text: name it by --data (a refined folder, a folder of texts or a "
            "text file), or name suites by --suite"
        )
    if data is not None and is_refined:
        train = tuple(each.text for each in read_documents(data) if split_of(each.id, split) == "train")
        extraction = read_held_out(data, split) if EXTRACTION in names else None
        plan = replace(plan, training_texts=train, extraction=extraction)
    if data is None or tasks or not asks_retrieval:
        if asks_retrieval and not is_default:
            raise ValueError("retrieval asks for sections of held-out text: name it by --data")
        return plan
    held_out = read_data(data, split)
    if (retrieval := retrieval_suite(held_out.test, seed=config.seed)) is not None:
        plan = replace(plan, suites=(*plan.suites, retrieval))
    elif not is_default or RETRIEVAL in names:
        raise ValueError(f"{data}: too few held-out sections for retrieval; add text, or raise pack.test_fraction")
    return plan if not is_default or is_served else replace(plan, held_out=held_out)


def evaluate_into(
    out: Path,
    workspace: Workspace,
    plan: "EvaluationPlan",
    candidate: "EvaluatedCandidate",
    baseline: "EvaluatedCandidate | None",
    *,
    today: date,
    cache: Path | None,
    progress: Progress,
) -> Evaluated:
    """Evaluate both models and write the signed folder, with the baseline's in it.

    A folder of an earlier evaluation is replaced. ValueError for one with ratings of people, and for another one that
    is not empty.
    """
    from sluice.model.evaluation.harness import time_in_turns
    from sluice.model.evaluation.results import RESULTS_FILE
    from sluice.model.evaluation.review.selection import REVIEW_FILE
    from sluice.model.evaluation.suites.plain import suites_for

    if (out / REVIEW_FILE).exists():
        raise ValueError(
            f"{out} has people's ratings in {REVIEW_FILE}, which a new evaluation would remove: name another folder by "
            f"--out, or move {out} away"
        )
    if out.exists() and not (out / RESULTS_FILE).is_file() and (out.is_file() or any(out.iterdir())):
        raise ValueError(f"{out} is there and no evaluation: name another folder, or remove it")
    for each in (candidate, baseline):
        if each is not None:
            suites_for(plan.suites, str(each.name), has_chat=each.has_chat)  # refuses before anything is measured
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(out) as partial:
        partial.mkdir()
        own: dict[str, float] = {}
        theirs: dict[str, float] = {}
        if baseline is not None:
            own, theirs = time_in_turns([candidate, baseline], plan, cache=cache, progress=progress)
        other = None
        if baseline is not None:
            # First, because a judge compares the candidate's answers with its.
            (partial / BASELINE).mkdir()
            other = _evaluate(
                partial / BASELINE, workspace, plan, baseline, theirs, today=today, cache=cache, progress=progress
            )
            plan = replace(plan, beside=partial / BASELINE, judge_is=_judge_is(plan.judge, candidate, baseline))
        results = _evaluate(partial, workspace, plan, candidate, own, today=today, cache=cache, progress=progress)
    return Evaluated(results, other)


def _judge_is(
    judge: "JudgeServer | None", candidate: "EvaluatedCandidate", baseline: "EvaluatedCandidate"
) -> Literal["candidate", "baseline"] | None:
    if judge is None:
        return None
    if candidate.is_served and judge.is_served_at(str(candidate.name)):
        return "candidate"
    return "baseline" if baseline.is_served and judge.is_served_at(str(baseline.name)) else None


def _evaluate(
    folder: Path,
    workspace: Workspace,
    plan: "EvaluationPlan",
    candidate: "EvaluatedCandidate",
    timed: Mapping[str, float],
    *,
    today: date,
    cache: Path | None,
    progress: Progress,
) -> dict[str, Any]:
    """Evaluate one model. `timed` are timings that were measured in turns with another's, in place of its own."""
    from sluice.model.evaluation.evidence import TIMINGS_FILE, attest_folder
    from sluice.model.evaluation.harness import run_plan
    from sluice.model.evaluation.suites.cache import code_hash

    results, timings = run_plan(candidate, plan, folder, today=today, cache=cache, progress=progress)
    write_json(folder / TIMINGS_FILE, {**timings, **timed})
    measured_by = {
        "settings": plan.config.model_dump(mode="json"),
        "code": code_hash(),
        "data": results["hashes"].get("data"),
        "suites": {name: [entry["sha256"], entry["settings"]] for name, entry in results["suites"].items()},
    }
    digest = hashlib.sha256(canonical_json(measured_by)).hexdigest()
    attest_folder(folder, workspace.keys, model=candidate.model_hash, measured_by=digest)
    return results
