"""`sluice gate ..`: judge an evaluation by a policy; explain and verify verdicts; change the key that signs."""

import argparse
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from sluice.components.workspace import Workspace
from sluice.model.evaluation.verdict import Verdict
from sluice.pipelines.options import add_json, with_debug

EXIT_STATUS = {"promote": 0, "hold": 3, "reject": 4}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        action = actions.add_parser(name, help=text, description=text, parents=[with_debug()])
        add_json(action)
        return action

    check = add("check", "judge an evaluation by a policy: exit status 0 promote, 3 hold, 4 reject")
    check.add_argument(
        "folder",
        metavar="EVAL_DIR",
        help="what `sluice evaluate --out` wrote; baseline/ and anchor/ in it are read too",
    )
    check.add_argument("--policy", required=True, metavar="FILE", help="YAML file, such as conf/gate/default.yaml")
    _add_key(check)

    explain = add("explain", "say in plain words what decided, and what is missing")
    explain.add_argument("verdict", metavar="VERDICT", help="a verdict.json, or the folder with it")
    _add_key(explain)

    verify = add("verify", "check that a verdict is as it was signed, by public keys alone")
    verify.add_argument("verdict", metavar="VERDICT", help="a verdict.json, or the folder with it")
    verify.add_argument("--public-key", metavar="FILE", help="trust this public key alone (a PEM file)")
    _add_key(verify)

    power = add("power", "say how many documents let an equal candidate pass a margin, before anything is measured")
    power.add_argument("--margin", type=float, required=True, metavar="M", help="loss that is still allowed")
    power.add_argument("--metric", default="bits_per_byte", metavar="NAME", help="a metric of `sluice evaluate`")
    power.add_argument("--documents", type=int, default=81, metavar="N", help="documents that there are")
    power.add_argument("--items", type=int, metavar="N", help="items in them (default: one a document)")
    power.add_argument(
        "--sd", type=float, default=0.05, metavar="SD", help="of a mean: deviation of the difference between documents"
    )
    power.add_argument(
        "--icc", type=float, default=0.1, metavar="ICC", help="of a rate: correlation of two items of one document"
    )
    power.add_argument(
        "--discordant", type=float, default=0.1, metavar="SHARE", help="of a rate: items that one of two models gets"
    )
    power.add_argument(
        "--size-cv", type=float, default=0.7, metavar="CV", help="deviation of the documents' sizes over their mean"
    )
    power.add_argument("--alpha", type=float, default=0.05, help="error of the one-sided check")

    rotate = add("rotate", "sign with a new key from now on; earlier signatures stay valid")
    _add_key(rotate)


def _add_key(action: argparse.ArgumentParser) -> None:
    action.add_argument(
        "--key",
        metavar="DIR",
        help="folder of the key that signs and of the trusted public keys (default: .sluice/keys of the workspace, "
        "outside of one ~/.cache/sluice/keys)",
    )


def run(arguments: argparse.Namespace) -> int:
    if arguments.action == "power":
        return _power(arguments)
    keys = Path(arguments.key) if arguments.key else Workspace.find_or_default().keys
    actions = {"check": _check, "explain": _explain, "verify": _verify, "rotate": _rotate}
    return actions[arguments.action](arguments, keys)


def _check(arguments: argparse.Namespace, keys: Path) -> int:
    from sluice.model.evaluation.evidence import NESTED, open_evaluation
    from sluice.model.evaluation.judgement import judge
    from sluice.model.evaluation.keys import trusted_keys
    from sluice.model.evaluation.policy import load_policy
    from sluice.model.evaluation.review.record import reviewed_evaluation
    from sluice.model.evaluation.verdict import VERDICT_FILE, read_verdict, write_verdict

    folder, policy = Path(arguments.folder), load_policy(Path(arguments.policy))
    if (folder / "manifest.json").is_file():
        raise ValueError(
            f"{folder} is the output of a step, which `sluice run` judges: see `sluice gate explain "
            f"{folder.parent / 'gate'}`"
        )
    redo = "measure again by `sluice evaluate MODEL --out DIR`"
    trusted = trusted_keys(keys)
    candidate = open_evaluation(folder, trusted, redo=redo)
    others = {
        name: open_evaluation(folder / name, trusted, redo=redo, measured_by=candidate.attestation.measured_by)
        for name in NESTED
        if (folder / name).is_dir()
    }
    if policy.anchor is not None and "baseline" in others and "anchor" not in others:
        raise ValueError(
            f"the budgets of policy {policy.name} count from version {policy.anchor}, and {folder / 'anchor'} is not "
            "there: evaluate that version's model the same way, and copy its folder there"
        )
    candidate = replace(candidate, evaluation=reviewed_evaluation(folder, candidate.evaluation, trusted))
    baseline = others.get("baseline")
    if baseline is not None:
        seen = reviewed_evaluation(folder, baseline.evaluation, trusted, "baseline")
        baseline = replace(baseline, evaluation=seen)
    verdict = judge(candidate, baseline, policy, anchor=others.get("anchor"), now=datetime.now(UTC))
    path = folder / VERDICT_FILE
    write_verdict(verdict, path, keys)
    verdict = read_verdict(path, keys)
    _write_page(folder, verdict)
    if arguments.json:
        _print_json(verdict, path)
    else:
        _print_checks(verdict)
        print(f"{path}, signed by key {verdict.key_id} of {keys}")
    return EXIT_STATUS[verdict.outcome]


def _power(arguments: argparse.Namespace) -> int:
    from dataclasses import asdict

    from sluice.model.evaluation.policy import DEFAULTS
    from sluice.model.evaluation.power import power_table

    if arguments.metric not in DEFAULTS:
        raise ValueError(f"unknown metric '{arguments.metric}': allowed are {', '.join(DEFAULTS)}")
    items = arguments.documents if arguments.items is None else arguments.items
    rows = power_table(
        arguments.margin,
        scale=DEFAULTS[arguments.metric].scale,
        documents=arguments.documents,
        items_per_document=items / max(arguments.documents, 1),
        sd=arguments.sd,
        icc=arguments.icc,
        discordant=arguments.discordant,
        size_cv=arguments.size_cv,
        alpha=arguments.alpha,
    )
    if arguments.json:
        print(json.dumps([asdict(row) for row in rows]))
    else:
        print(f"{'documents':>10} {'items':>10} {'power':>7}")
        for row in rows:
            print(f"{row.documents:>10,} {row.items:>10,} {row.power:>7.1%}")
    return 0


def _write_page(folder: Path, verdict: Verdict) -> None:
    from sluice.model.evaluation.lost_items import lost_items
    from sluice.model.evaluation.metrics.golden_pass_rate import GOLDEN_FILE
    from sluice.model.evaluation.report import REPORT_FILE, render
    from sluice.model.evaluation.results import RESULTS_FILE

    results = json.loads((folder / RESULTS_FILE).read_bytes())
    golden = json.loads((folder / GOLDEN_FILE).read_bytes()) if (folder / GOLDEN_FILE).is_file() else []
    lost = lost_items(folder, folder / "baseline")
    (folder / REPORT_FILE).write_text(render(results, golden, verdict, lost), encoding="utf-8")


def _print_checks(verdict: Verdict) -> None:
    from sluice.model.evaluation.explain import named_reason, summary_line
    from sluice.model.evaluation.report import interval, number

    rows = [("check", "outcome", "value", f"one-sided {100 * verdict.confidence:.4g}% limits", "bound", "n")]
    for check in verdict.checks:
        value = check.value
        if value is not None and check.baseline is not None:
            value -= check.baseline
        ends = interval(check.interval, check.metric) if value is not None else ""
        bound = number(check.bound, check.metric)
        rows.append((check.metric, check.outcome, number(value, check.metric), ends, bound, f"{check.n:,}"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print(f"\n{verdict.outcome}: {summary_line(verdict)}")
    for check in verdict.checks:
        if check.outcome != "pass":
            print(f"  {check.outcome.replace('_', ' ')}: {named_reason(check)}")
    if verdict.off:
        print(f"  off in the policy: {', '.join(verdict.off)}")


def _explain(arguments: argparse.Namespace, keys: Path) -> int:
    from sluice.model.evaluation.explain import explain, summary_line
    from sluice.model.evaluation.verdict import read_verdict

    path = _verdict_file(arguments.verdict)
    verdict = read_verdict(path, keys, _redo(path))
    if arguments.json:
        print(json.dumps({"outcome": verdict.outcome, "summary": summary_line(verdict), "lines": explain(verdict)}))
    else:
        print("\n".join(explain(verdict)))
    return 0


def _verify(arguments: argparse.Namespace, keys: Path) -> int:
    from sluice.model.evaluation.keys import only_key, trusted_keys
    from sluice.model.evaluation.verdict import verify_verdict

    path = _verdict_file(arguments.verdict)
    trusted = only_key(Path(arguments.public_key)) if arguments.public_key else trusted_keys(keys)
    verdict = verify_verdict(path, trusted, _redo(path))
    if arguments.json:
        _print_json(verdict, path)
    else:
        policy = verdict.policy
        judged_by = f"policy {policy.name} {policy.version} ({policy.sha256[:12]})" if policy else "no policy"
        model = verdict.hashes.get("model", "")[:12]
        print(f"{path} is as key {verdict.key_id} signed it: {verdict.outcome} of model {model} by {judged_by}")
    return 0


def _rotate(arguments: argparse.Namespace, keys: Path) -> int:
    from sluice.model.evaluation.keys import rotate, trusted_keys

    key = rotate(keys).id
    trusted = sorted(trusted_keys(keys).keys)
    if arguments.json:
        print(json.dumps({"key_id": key, "trusted": trusted, "folder": str(keys)}))
    else:
        print(f"key {key} of {keys} signs from now on; trusted: {', '.join(trusted)}")
    return 0


def _verdict_file(given: str) -> Path:
    from sluice.model.evaluation.verdict import VERDICT_FILE

    path = Path(given)
    return path / VERDICT_FILE if path.is_dir() else path


def _redo(path: Path) -> str:
    """Say which command writes this verdict again: the lifecycle's step, or a check by hand."""
    if path.resolve() == Workspace.find_or_default().verdict.resolve():
        return "`sluice run` writes it again"
    return f"`sluice gate check {path.parent} --policy FILE` writes it again"


def _print_json(verdict: Verdict, path: Path) -> None:
    print(json.dumps({"path": str(path), **verdict.model_dump(mode="json")}, ensure_ascii=False))
