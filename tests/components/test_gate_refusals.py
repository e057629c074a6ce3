"""Ways of getting a model past the gate that it did not earn: each is refused by name.

Every attack starts from a workspace whose candidate is promoted as it stands.
"""

# ruff: noqa: F811  (pytest finds the imported fixtures by name)

import hashlib
import json
import math
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from release_fixtures import Workspace as Release
from release_fixtures import copied, empty_database, open_workspace, write_model  # noqa: F401
from synthetic_evaluations import GOLDEN_PROMPTS, TIMINGS, items, write_evaluation

from sluice.components.artifact import write_metrics
from sluice.components.evidence import attest_candidate, kept_evaluation, measurement, policy_in_force
from sluice.components.gate import gate
from sluice.components.register import register
from sluice.components.stores import open_releases
from sluice.components.workspace import Workspace
from sluice.core.failure import StepFailed
from sluice.core.files import write_json
from sluice.core.manifest import file_hash, read_manifest, write_manifest
from sluice.model.directory import model_hash
from sluice.model.evaluation.evidence import TIMINGS_FILE, attest_folder
from sluice.model.evaluation.judging.agreement import cohens_kappa
from sluice.model.evaluation.keys import PRIVATE_KEY_FILE, TRUSTED_FOLDER, rotate, signing_key
from sluice.model.evaluation.parity import PARITY_FILE, KeptAnswer, write_parity
from sluice.model.evaluation.results import RESULTS_FILE, Item
from sluice.model.evaluation.verdict import VERDICT_FILE, read_verdict
from sluice.pipelines.cli import main
from sluice.serving.releases import ReleaseRefused

Change = Callable[[list[Item]], list[Item]]


class World:
    """A workspace with a champion and a better candidate, whose evaluations are synthetic."""

    def __init__(self, root: Path, database: Path | None = None) -> None:
        self.workspace = Workspace(root)
        state = self.workspace.state
        url = copied(database, state) if database else f"sqlite:///{state / 'mlflow.db'}"
        self.release: Release = open_workspace(state, url)
        self.release.time_s = time.time()

    @property
    def evaluation(self) -> Path:
        return self.workspace.artifact("evaluate")

    def judge(self) -> str:
        """Outcome and reason of the gate, or its refusal."""
        try:
            outcome = gate(self.workspace)
        except StepFailed as failure:
            return str(failure)
        return f"{outcome}: {read_verdict(self.workspace.verdict, self.workspace.keys).reason}"

    def propose(self, folder: Path | None = None) -> str:
        """Register the candidate with the verdict that lies there, and propose it; `proposed` or the refusal."""
        registry, releases = self.release.registry, self.release.releases
        try:
            version = registry.register(folder or self.workspace.artifact("tune"), self.workspace.verdict, evidence())
            policy = policy_in_force(self.workspace).sha256
            releases.propose(version, self.workspace.verdict, "judged", policy=policy)
        except ValueError as refusal:
            return str(refusal)
        return "proposed"

    def remeasure(self, change: Change, kappa_low: float | None = None) -> None:
        """Measure the candidate with other rows, attested as an honest measurement is."""
        rows = change(items(0.0, seed=2))
        write_evaluation(self.evaluation, model_hash(self.workspace.artifact("tune")), rows, kappa_low)
        finish(self.workspace)

    def use_policy(self, text: str) -> None:
        """Name another policy in the settings."""
        path = self.workspace.conf / "gate" / "own.yaml"
        path.write_text(text)
        params = yaml.safe_load(self.workspace.shown_params.read_text())
        params["gate"] = {"policy": "conf/gate/own.yaml", "policy_sha256": file_hash(path)}
        self.workspace.shown_params.write_text(yaml.safe_dump(params))

    def edit_items(self, change: Change) -> None:
        """Edit items.jsonl where it lies, and renew every hash that lies beside it."""
        write_evaluation(self.evaluation, model_hash(self.workspace.artifact("tune")), change(items(0.0, seed=2)))
        made = {name: each for name, each in read_manifest(self.evaluation).items() if name not in ("schema", "files")}
        write_manifest(self.evaluation, **made)


def evidence() -> Any:
    from sluice.serving.registry import Evidence

    return Evidence({"git_commit": "0" * 40})


def finish(workspace: Workspace) -> None:
    """Do what the evaluate step does after the measurement: manifest, metrics, attestation."""
    facts = {"parameters": {"evaluate": {}}, "code_sha256": "c", "inputs": {"refine": "r", "tune": "t"}, "report": {}}
    write_manifest(workspace.artifact("evaluate"), step="evaluate", **facts)
    write_metrics(workspace, "evaluate", {}, {**TIMINGS})
    attest_candidate(workspace)


def keep_evaluation(workspace: Workspace, model: Path, worse_by: float, seed: int) -> Path:
    """Keep the evaluation of another model, as the gate does once it has measured it."""
    folder = kept_evaluation(workspace, model_hash(model))
    write_evaluation(folder, model_hash(model), items(worse_by, seed))
    write_json(folder / TIMINGS_FILE, TIMINGS)
    attest_folder(folder, workspace.keys, model=model_hash(model), measured_by=measurement(workspace))
    return folder


@pytest.fixture(scope="module")
def template(root: Path, empty_database: Path, default_params: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    conf, root = root / "conf", tmp_path_factory.mktemp("refusals")
    Workspace(root).state.mkdir()
    shutil.copytree(conf / "gate", Workspace(root).conf / "gate")
    shutil.copy(GOLDEN_PROMPTS, Workspace(root).conf)
    Workspace(root).shown_params.write_text(default_params.read_text())
    world = World(root, empty_database)
    write_model(world.workspace.artifact("tune"), "candidate")
    world.remeasure(lambda rows: rows)
    world.release.promote(world.release.register("champion"))
    keep_evaluation(world.workspace, world.release.root / "models" / "champion", 0.0, seed=1)
    return root


@pytest.fixture
def world(template: Path, tmp_path: Path) -> World:
    world = World(shutil.copytree(template, tmp_path / "workspace"))
    world.release.models["1"] = model_hash(world.release.root / "models" / "champion")
    return world


def test_the_verdict_names_the_greedy_answers_that_the_evaluation_kept(world: World) -> None:
    assert world.judge().startswith("promote: ")
    assert "parity" not in read_verdict(world.workspace.verdict, world.workspace.keys).hashes
    write_parity([KeptAnswer("p", 1, ("a",), (1.0,))], world.evaluation / PARITY_FILE)
    finish(world.workspace)
    assert world.judge().startswith("promote: ")
    found = read_verdict(world.workspace.verdict, world.workspace.keys).hashes["parity"]
    assert found == file_hash(world.evaluation / PARITY_FILE)


def test_the_candidate_is_promoted_as_it_stands(world: World) -> None:
    assert world.judge().startswith("promote: ")
    verdict = read_verdict(world.workspace.verdict, world.workspace.keys)
    assert verdict.baseline and (verdict.baseline.version, verdict.baseline.model) == ("1", world.release.models["1"])
    policy = policy_in_force(world.workspace)
    assert verdict.policy and (verdict.policy.name, verdict.policy.sha256) == ("laptop", policy.sha256)
    assert verdict.anchor == verdict.baseline and set(verdict.evidence) == {"candidate", "baseline", "anchor"}
    assert verdict.time.endswith("+00:00") and verdict.key_id == signing_key(world.workspace.keys).id
    before = world.workspace.verdict.read_bytes()
    assert world.judge().startswith("promote: ") and world.workspace.verdict.read_bytes() == before, (
        "killed and resumed"
    )
    assert world.propose() == "proposed"


def nan(world: World) -> str:
    world.remeasure(lambda rows: [*rows[:-1], Item("golden_pass_rate", "g11", math.nan)])
    return world.judge()


def emptied_set(world: World) -> str:
    world.remeasure(lambda rows: [row for row in rows if row.metric != "choice_accuracy"])
    return world.judge()


def shrunk_set(world: World) -> str:
    world.edit_items(lambda rows: rows[:100] + rows[200:])
    return world.judge()


def renamed_metric(world: World) -> str:
    results = json.loads((world.evaluation / RESULTS_FILE).read_text())
    results["planned"]["golden"] = results["planned"].pop("golden_pass_rate")
    rows = items(0.0, seed=2)
    write_evaluation(world.evaluation, results["hashes"]["model"], rows[:-12])
    finish(world.workspace)
    return world.judge()


def another_models_baseline(world: World) -> str:
    """The evaluation of a weak model lies where the champion's is kept."""
    weak = write_model(world.workspace.root / "weak", "weak")
    champions = kept_evaluation(world.workspace, world.release.models["1"])
    shutil.rmtree(champions)
    keep_evaluation(world.workspace, weak, 0.5, seed=3).rename(champions)
    return world.judge()


def baseline_of_other_settings(world: World) -> str:
    champions = kept_evaluation(world.workspace, world.release.models["1"])
    attest_folder(champions, world.workspace.keys, model=world.release.models["1"], measured_by="a shorter set")
    return world.judge()


def items_edited_with_their_hash_renewed(world: World) -> str:
    def better(rows: list[Item]) -> list[Item]:
        return [Item(row.metric, row.item, row.value * 0.9, row.weight, row.cluster, row.metadata) for row in rows]

    world.edit_items(better)
    return world.judge()


def edited_latency(world: World) -> str:
    path = world.workspace.metrics("evaluate")
    path.write_text(path.read_text().replace("20.0", "10.0"))
    return world.judge()


def edited_latency_of_the_champion(world: World) -> str:
    path = kept_evaluation(world.workspace, world.release.models["1"]) / TIMINGS_FILE
    path.write_text(path.read_text().replace("20.0", "10.0"))
    return world.judge()


def file_added_to_the_evidence(world: World) -> str:
    (kept_evaluation(world.workspace, world.release.models["1"]) / "more.jsonl").write_text("{}")
    return world.judge()


def no_attestation(world: World) -> str:
    shutil.rmtree(world.workspace.state / "attestations")
    return world.judge()


def another_candidates_evaluation(world: World) -> str:
    """The weights were exchanged after the evaluation."""
    write_model(world.workspace.root / "weak", "weak")
    shutil.copytree(world.workspace.root / "weak", world.workspace.artifact("tune"), dirs_exist_ok=True)
    return world.judge()


def edited_verdict(world: World) -> str:
    world.remeasure(lambda rows: items(0.5, seed=4))
    assert world.judge().startswith("reject: ")
    document = json.loads(world.workspace.verdict.read_text())
    document["verdict"]["outcome"] = "promote"
    body = json.dumps(document["verdict"], sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    document["sha256"] = hashlib.sha256(body).hexdigest()
    world.workspace.verdict.write_text(
        json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n"
    )
    return world.propose()


def another_versions_verdict(world: World) -> str:
    assert world.judge().startswith("promote: ")
    return world.propose(write_model(world.workspace.root / "weak", "weak"))


def verdict_from_before_the_champion_changed(world: World) -> str:
    assert world.judge().startswith("promote: ")
    world.release.promote(world.release.register("newer"))
    return world.propose()


def policy_file_made_laxer(world: World) -> str:
    path = world.workspace.conf / "gate" / "laptop.yaml"
    path.write_text(path.read_text().replace("alpha: 0.05", "alpha: 0.4"))
    return world.judge()


def judge_that_always_passes(world: World) -> str:
    kappa = cohens_kappa(["yes"] * 120, ["yes", "no"] * 60)
    world.remeasure(
        lambda rows: [*rows, *(Item("helpful", f"h{n}", 1.0) for n in range(120))], kappa_low=kappa.interval[0]
    )
    world.use_policy("{name: own, version: 1, suites: {helpful: {kind: quality, scorer: always, floor: 0.5}}}")
    return world.judge()


def verdict_on_an_evaluation_of_ones_own(world: World) -> str:
    """The candidate was measured on its training text, and `sluice gate check` judged that by the policy in force."""
    own = world.workspace.root / "own"
    model = model_hash(world.workspace.artifact("tune"))
    write_evaluation(own, model, items(-0.5, seed=2))
    write_evaluation(own / "baseline", world.release.models["1"], items(0.0, seed=1))
    for folder, measured in ((own / "baseline", world.release.models["1"]), (own, model)):
        write_json(folder / TIMINGS_FILE, TIMINGS)
        attest_folder(folder, world.workspace.keys, model=measured, measured_by="training text")
    world.remeasure(lambda rows: items(0.5, seed=4))
    assert world.judge().startswith("reject: ")
    policy = str(world.workspace.conf / "gate" / "laptop.yaml")
    assert main(["gate", "check", str(own), "--policy", policy, "--key", str(world.workspace.keys)]) == 0
    shutil.copy(own / VERDICT_FILE, world.workspace.verdict)
    verdict = read_verdict(world.workspace.verdict, world.workspace.keys)
    assert verdict.policy and verdict.policy.sha256 == policy_in_force(world.workspace).sha256
    return register_step(world)


def verdict_on_an_earlier_evaluation(world: World) -> str:
    assert world.judge().startswith("promote: ")
    world.remeasure(lambda rows: items(0.5, seed=4))
    return register_step(world)


def register_step(world: World) -> str:
    try:
        return register(world.workspace)
    except StepFailed as failure:
        return str(failure)


def laxer_policy(world: World) -> str:
    before = world.workspace.shown_params.read_text()
    world.use_policy("{name: lax, version: 1, metrics: {bits_per_byte: {margin: 5.0}}}")
    assert world.judge().startswith("promote: ")
    world.workspace.shown_params.write_text(before)
    return world.propose()


def swapped_signing_key(world: World) -> str:
    other = world.workspace.root / "other"
    signing_key(other)
    shutil.copy(other / PRIVATE_KEY_FILE, world.workspace.keys / PRIVATE_KEY_FILE)
    return world.judge()


def evidence_signed_by_a_strangers_key(world: World) -> str:
    """Both the private and the public key were exchanged after the measurement."""
    shutil.rmtree(world.workspace.keys)
    signing_key(world.workspace.keys)
    return world.judge()


ATTACKS: dict[Callable[[World], str], str] = {
    nan: r"reject: .*golden_pass_rate.*NaN",
    emptied_set: r"hold: .*choice_accuracy.* n=0",
    shrunk_set: r"items.jsonl: has sha256 .* it was changed afterwards; `sluice run` measures again",
    renamed_metric: r"hold: .*golden_pass_rate.* n=0",
    another_models_baseline: r"attestation.json: measures model .*: another model's; .* gate measures it again",
    baseline_of_other_settings: r"attestation.json: measured with other settings, data or code; remove",
    items_edited_with_their_hash_renewed: r"items.jsonl: has sha256 .* it was changed .* `sluice run` measures again",
    edited_latency: r"metrics/evaluate.json: has sha256 .* it was changed afterwards; `sluice run` measures again",
    edited_latency_of_the_champion: r"timings.json: has sha256 .* it was changed afterwards; remove",
    file_added_to_the_evidence: r"more.jsonl: not among the files that were measured",
    no_attestation: r"no such attestation, so nobody vouches .* another workspace .* `sluice run` measures again",
    another_candidates_evaluation: r"evaluate.json: measures model .*: another model's; `sluice run` measures again",
    edited_verdict: r"not signed by key .* so it was changed after it was signed",
    another_versions_verdict: r"the verdict is about model .* but version 2 is model .* force does not help",
    verdict_from_before_the_champion_changed: r"compares it with model .* the champion has changed since",
    verdict_on_an_evaluation_of_ones_own: r"register: .*verdict.json is not the gate's verdict on .*artifacts/evaluate",
    verdict_on_an_earlier_evaluation: r"register: .* is not the gate's verdict on .*: `sluice run` judges that",
    laxer_policy: r"is by policy .*, but .* is in force: a laxer policy lets nothing pass",
    policy_file_made_laxer: r"laptop.yaml",
    judge_that_always_passes: r"hold: helpful: scorer always has kappa_low -?0.0. against people and needs 0.60",
    swapped_signing_key: r"signed here: the key was swapped. Restore the earlier key",
    evidence_signed_by_a_strangers_key: r"signed by key .* which is not trusted here",
}


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_it_is_refused_by_name(world: World, attack: Callable[[World], str]) -> None:

    said = attack(world)
    assert re.search(ATTACKS[attack], said, re.DOTALL), said


def test_the_gates_own_verdict_is_registered_again_and_promoted_after_a_later_evaluation(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sluice.components.register._evidence", lambda *_: evidence())
    assert world.judge().startswith("promote: ")
    write_manifest(world.workspace.artifact("tune"))
    version = register_step(world)
    assert version == register_step(world) == "2", "killed and resumed"
    world.remeasure(lambda rows: items(0.5, seed=4))
    assert "is not the gate's verdict" in register_step(world)
    assert register(world.workspace, forced_reason="a drill") == version
    releases = open_releases(world.workspace)
    releases.promote("the rollout went well")
    assert releases.state().champion == version


def test_a_verdict_on_other_golden_prompts_is_refused_at_proposal_and_promotion(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sluice.components.register._evidence", lambda *_: evidence())
    assert world.judge().startswith("promote: ")
    write_manifest(world.workspace.artifact("tune"))
    golden, params = world.workspace.conf / "golden.yaml", world.workspace.shown_params
    kept = golden.read_text()

    def use_prompts(text: str, max_age_days: float = 30) -> None:
        golden.write_text(text)
        settings = yaml.safe_load(params.read_text())
        settings["evaluate"]["golden_prompts_sha256"] = file_hash(golden)
        settings["rollout"]["max_verdict_age_days"] = max_age_days
        params.write_text(yaml.safe_dump(settings))

    golden.write_text("[]")
    assert "is not the file that params.yaml was composed with" in register_step(world)
    use_prompts("[]")
    assert "is on evaluation set golden_pass_rate as it was" in register_step(world)
    use_prompts(kept)
    assert register_step(world) == "2"
    use_prompts("[]")
    with pytest.raises(ReleaseRefused, match="is on evaluation set golden_pass_rate as it was"):
        open_releases(world.workspace, "rollout").promote("the rollout went well")
    use_prompts(kept, max_age_days=1e-9)
    with pytest.raises(ReleaseRefused, match=r"at most 1e-09 are allowed \(rollout.max_verdict_age_days\)"):
        open_releases(world.workspace, "rollout").promote("the rollout went well")


def test_evidence_of_an_earlier_key_is_read_after_a_rotation(world: World) -> None:
    assert len(list((world.workspace.keys / TRUSTED_FOLDER).iterdir())) == 1
    after = rotate(world.workspace.keys).id
    assert world.judge().startswith("promote: ")
    assert read_verdict(world.workspace.verdict, world.workspace.keys).key_id == after
