"""`sluice gc` removes what nothing needs, and everything still works without it."""

# ruff: noqa: F811  (pytest finds the imported fixtures by name)

import json
import os
import shutil
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from release_fixtures import Workspace as ReleaseWorkspace
from release_fixtures import copied, empty_database, open_workspace, write_model  # noqa: F401

from sluice.components.artifact import write_metrics
from sluice.components.reproduce import reproduce
from sluice.components.stores import open_registry, open_releases
from sluice.components.workspace import Workspace
from sluice.core.files import write_json
from sluice.core.manifest import write_manifest
from sluice.pipelines.cli import main
from sluice.pipelines.disk_usage import find_items
from sluice.pipelines.doctor import GIB, Health, judge_garbage
from sluice.pipelines.garbage import DAY_S, GcLimits, StoredItem, count_reasons, decide, freed_bytes
from sluice.pipelines.runner import only_run
from sluice.pipelines.status import status

NOW = 1e9
ITEMS = st.lists(
    st.builds(
        StoredItem,
        kind=st.sampled_from(["runs", "versions"]),
        name=st.text("ab", max_size=3),
        paths=st.just(()),
        size_bytes=st.integers(0, 1000),
        written=st.floats(NOW - 30 * DAY_S, NOW),
        needed_by=st.sampled_from(["", "", "champion"]),
    )
)


@given(items=ITEMS, days=st.floats(0, 30), size=st.integers(0, 3000))
def test_what_is_needed_stays_and_the_rest_is_young_and_small(items: list[StoredItem], days: float, size: int) -> None:
    decisions = decide(items, GcLimits(days, size), NOW)
    assert sorted(map(id, items)) == sorted(id(decision.item) for decision in decisions)
    assert not any(decision.remove for decision in decisions if decision.item.needed_by)
    kept = [decision.item for decision in decisions if not decision.remove and not decision.item.needed_by]
    assert sum(item.size_bytes for item in kept) <= size
    assert all(NOW - item.written <= days * DAY_S for item in kept)
    assert all(decision.reason for decision in decisions)
    beyond = [each.item.written for each in decisions if each.reason.startswith("the oldest beyond")]
    assert all(item.written >= max(beyond, default=0) for item in kept), "older ones stayed in place of newer ones"


def test_age_comes_first_then_the_oldest_beyond_the_size() -> None:
    ages = {"new": 1, "middle": 5, "old": 9, "ancient": 20}
    items = [StoredItem("runs", name, (), 10, NOW - days * DAY_S) for name, days in ages.items()]
    decisions = decide(items, GcLimits(14, 20), NOW)
    assert {each.item.name: each.reason for each in decisions if each.remove} == {
        "old": "the oldest beyond 2e-08 GB",
        "ancient": "older than 14 days",
    }
    assert freed_bytes(decisions) == 20
    kept = count_reasons(each for each in decisions if not each.remove)
    assert kept == "2 at most 14 days old"


def test_an_item_beyond_the_whole_size_takes_no_other_with_it() -> None:
    sizes = {"huge": 50, "new": 10, "middle": 15, "old": 5}
    items = [StoredItem("runs", name, (), size, NOW - age) for age, (name, size) in enumerate(sizes.items())]
    decisions = decide(items, GcLimits(14, 20), NOW)
    assert {each.item.name: each.reason for each in decisions if each.remove} == {
        "huge": "larger than 2e-08 GB",
        "middle": "the oldest beyond 2e-08 GB",
        "old": "the oldest beyond 2e-08 GB",
    }


def test_doctor_says_what_could_be_freed() -> None:
    assert "0.0 GiB" in judge_garbage(0).message and judge_garbage(0).health == Health.OK
    much = judge_garbage(50 * GIB)
    assert (much.health, "50.0 GiB" in much.message, "`sluice gc`" in much.fix) == (Health.WARN, True, True)


@pytest.fixture
def released(
    empty_database: Path,
    default_params: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> tuple[Workspace, ReleaseWorkspace]:
    """A workspace with everything that grows: v4 in rollout, champion v3, rollback targets v2 and v1, v5 dropped."""
    from dvc.repo import Repo

    workspace = Workspace(tmp_path / "workspace")
    state = workspace.state
    state.mkdir(parents=True)
    monkeypatch.setenv("SLUICE_WORKSPACE", str(workspace.root))
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    monkeypatch.setitem(os.environ, "PATH", os.environ["PATH"])
    monkeypatch.chdir(workspace.root)
    (workspace.root / "conf").mkdir()
    workspace.params.write_text(default_params.read_text())

    release = open_workspace(state, copied(empty_database, state))
    for text in ("one", "two", "three"):
        release.promote(release.register(text))
    four, five = release.register("four"), release.register("five")
    release.propose(five)
    release.releases.drop("too slow")
    release.propose(four)

    (workspace.root / ".dvc").mkdir()
    (workspace.root / ".dvc" / "config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    stage = {"cmd": "exit 9", "params": ["data"], "outs": ["artifacts/ingest"]}
    (workspace.root / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"ingest": stage}}))
    source = {"sources": {"django": {"sha256": "ab" * 32}}}
    for text in ("earlier", "now"):
        for name in ("shared.txt", "own.txt"):
            (workspace.artifact("ingest") / name).parent.mkdir(parents=True, exist_ok=True)
            (workspace.artifact("ingest") / name).write_text(text if name == "own.txt" else name)
        write_manifest(workspace.artifact("ingest"), report=source)
        with Repo(str(workspace.root)) as repo:
            repo.commit("ingest", force=True)
    write_metrics(workspace, "ingest", source, {})

    for name in ("20260101-000000", "20260102-000000"):
        events = [{"step": "ingest", "kind": kind, "time": 1.0} for kind in ("start", "done")]
        path = workspace.runs / name / "events.jsonl"
        path.parent.mkdir(parents=True)
        path.write_text("".join(json.dumps(event) + "\n" for event in events))
    for name in (
        "checkpoints/old/step-1/rank.bin",
        "checkpoints/new/step-2/rank.bin",
        "downloads/django-5.2-" + "ab" * 8 + ".tar.gz",
        "downloads/other-1.0-" + "cd" * 8 + ".tar.gz",
        "evaluations/0123/results.json",
        "monitoring/20260101-000000/evidently.html",
        "traffic/hour=2026010100/version=1/a.parquet",
        "reference/hour=2026010100/version=1/a.parquet",
    ):
        write_json(state / name, name)
    for path in [*workspace.root.rglob("*")]:
        os.utime(path, (NOW, NOW))
    os.utime(state / "checkpoints/new/step-2/rank.bin", (NOW + 1, NOW + 1))
    return workspace, release


def test_after_gc_status_serving_rollback_and_the_next_run_still_work(
    released: tuple[Workspace, ReleaseWorkspace], capsys: pytest.CaptureFixture[str]
) -> None:
    workspace, release = released
    before, files = status(workspace), sorted(workspace.root.rglob("*"))
    with only_run(workspace):
        assert main(["gc", "--older-than", "0"]) == 1
        assert "another run or promotion" in capsys.readouterr().err
        assert main(["gc", "--dry-run", "--older-than", "0"]) == 0
        assert "a run is going" in capsys.readouterr().out
    assert [path for path in files if not path.exists()] == []

    assert main(["gc", "--dry-run", "--older-than", "0", "--max-size", "0", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert all((workspace.root / path).exists() for each in planned for path in each["paths"])
    assert main(["gc", "--older-than", "0", "--max-size", "0"]) == 0
    said = capsys.readouterr().out
    assert "keep  versions" in said and "2 rollback target, 1 challenger in rollout, 1 champion" in said
    assert "freed" in said
    for each in planned:
        assert [(workspace.root / path).exists() for path in each["paths"]] == [not each["remove"]] * len(each["paths"])
    removed = {path for each in planned if each["remove"] for path in each["paths"] if path.startswith(".sluice")}
    (dropped,) = (path for path in removed if "mlartifacts" in path)
    assert removed - {dropped} == {
        ".sluice/runs/20260101-000000",
        ".sluice/checkpoints/old",
        f".sluice/downloads/other-1.0-{'cd' * 8}.tar.gz",
        ".sluice/evaluations/0123",
        ".sluice/monitoring/20260101-000000",
        ".sluice/traffic/hour=2026010100",
    }
    assert list((workspace.root / dropped).parent.glob("verdict/*.json")), "its evidence stays"

    assert status(workspace) == before
    registry = open_registry(workspace)
    for version in ("1", "2", "3", "4"):
        assert registry.check_model(version)
    with pytest.raises(ValueError, match=r"files of version 5, is gone: .*`sluice promote`"):
        registry.model_folder("5")
    assert registry.register(state_model(release, "five"), release.verdicts["5"], evidence()) == "5"
    assert registry.check_model("5")
    assert main(["rollback", "--to", "v1", "--reason", "a drill"]) == 0
    assert capsys.readouterr().out == "rolled back from v3 to v1: a drill\n"
    assert reproduce(workspace, "ingest").cached
    shutil.rmtree(workspace.artifact("ingest"))
    reproduce(workspace, "ingest")
    assert (workspace.artifact("ingest") / "own.txt").read_text() == "now"


def test_of_former_champions_the_first_and_the_last_ones_stay(
    released: tuple[Workspace, ReleaseWorkspace], capsys: pytest.CaptureFixture[str]
) -> None:
    workspace, release = released
    release.releases.drop("too slow")
    release.promote(release.register("six"))
    limits = ["--older-than", "0", "--max-size", "0", "--rollback-targets"]
    with pytest.raises(SystemExit):
        main(["gc", *limits, "0"])
    assert "there is no way back" in capsys.readouterr().err
    assert main(["gc", *limits, "1"]) == 0
    said = capsys.readouterr().out
    assert "free  former champions" in said and "1 rollback target" in said
    assert "1 the gate, whose budgets count from it" in said
    registry = open_registry(workspace)
    assert all(registry.check_model(version) for version in ("1", "3", "6"))
    with pytest.raises(ValueError, match=r"version 2 cannot serve: .* is gone.*; roll back to another by --to 3"):
        open_releases(workspace).rollback("a drill", to="2")
    assert open_releases(workspace).rollback("a drill").champion == "3"
    assert open_releases(workspace).rollback("a drill").champion == "1", "version 2 is gone"


def state_model(release: ReleaseWorkspace, text: str) -> Path:
    return release.root / "models" / text


def evidence() -> object:
    from sluice.serving.registry import Evidence

    return Evidence()


def test_versions_stay_where_it_is_not_known_what_needs_them(
    released: tuple[Workspace, ReleaseWorkspace], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, _ = released

    def needed() -> list[str]:
        return sorted(item.needed_by for item in find_items(workspace, 24, NOW) if item.kind == "versions")

    roles = ["challenger in rollout", "champion", "rollback target", "rollback target"]
    assert needed() == ["", *roles]
    # Another model of this registry, whose ledger is another one.
    params = yaml.safe_load(workspace.params.read_text())
    workspace.params.write_text(yaml.safe_dump({**params, "register": {"model_name": "other"}}))
    assert needed() == ["", *roles]
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("SLUICE_DATABASE", f"sqlite:///{tmp_path / 'empty.db'}")
        assert set(needed()) == {"unknown: no ledger in this database names it"}
    verdict = next(workspace.state.glob("mlartifacts/*/artifacts/verdict/*.json"))
    verdict.write_text("{")
    assert sum("cannot be read" in reason for reason in needed()) == 1
    monkeypatch.setattr("sluice.serving.ledger.Ledger.read", lambda ledger: ([], BROKEN))
    assert not any(reason in ("", *roles) for reason in needed())
    monkeypatch.setenv("SLUICE_ARTIFACT_ROOT", str(tmp_path / "shared"))
    assert needed() == []


def test_a_file_that_a_server_renames_meanwhile_is_passed_over(
    default_params: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace(tmp_path)
    workspace.params.write_text(default_params.read_text())
    for name in ("a.parquet", ".b.parquet.partial"):
        write_json(workspace.traffic / "hour=2026010100/version=1" / name, 1)
    lstat = Path.lstat

    def renamed(path: Path) -> os.stat_result:
        if path.name.endswith(".partial"):
            path.unlink()
        return lstat(path)

    monkeypatch.setattr(Path, "lstat", renamed)
    (item,) = find_items(workspace, 24, NOW)
    assert (item.kind, item.size_bytes) == ("traffic", 2)


class BROKEN:
    """The check of a broken ledger."""

    ok = False


def test_a_database_that_cannot_be_used_keeps_versions_and_nothing_else(
    released: tuple[Workspace, ReleaseWorkspace],
) -> None:
    """A full disk is one of its faults: SQLite has no room even to read."""
    workspace, _ = released
    before = {(item.kind, item.name) for item in find_items(workspace, 24.0, NOW) if item.kind != "versions"}
    (workspace.state / "mlflow.db").write_bytes(b"not a database" * 400)
    items = find_items(workspace, 24.0, NOW)
    assert {(item.kind, item.name) for item in items if item.kind != "versions"} == before
    versions = [item.needed_by for item in items if item.kind == "versions"]
    assert versions and all("file is not a database" in reason for reason in versions)
