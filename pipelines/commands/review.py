"""`sluice review ..`: answers of high risk and disputed ones go out blinded, and people's ratings come back."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from sluice.pipelines.options import add_json, with_debug

if TYPE_CHECKING:
    from sluice.components.workspace import Workspace
    from sluice.model.evaluation.review.selection import Reviewable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    text = "write a sheet of answers to rate, without names of models and with personal data masked"
    exporting = actions.add_parser("export", help=text, description=text, parents=[with_debug()])
    exporting.add_argument("folder", metavar="EVAL_DIR", help="the --out of `sluice evaluate`, or artifacts/evaluate")
    exporting.add_argument("--out", required=True, metavar="FILE", help="sheet to write: .csv or .jsonl")
    exporting.add_argument("--items", type=int, metavar="N", help="at most N items, those of high risk first")
    add_json(exporting)
    text = "read a filled sheet, and sign the ratings beside the evaluation; several raters may send one each"
    importing = actions.add_parser("import", help=text, description=text, parents=[with_debug()])
    importing.add_argument("folder", metavar="EVAL_DIR", help="the evaluation that was exported")
    importing.add_argument("file", metavar="FILE", help="the filled sheet")
    add_json(importing)


def run(arguments: argparse.Namespace) -> int:
    from sluice.components.workspace import Workspace
    from sluice.model.evaluation.review.selection import read_reviewable

    folder, workspace = Path(arguments.folder), Workspace.find_or_default()
    record = _verified(folder, workspace)
    reviewable = read_reviewable(folder)
    if arguments.action == "export":
        _export(arguments, reviewable, workspace.keys)
    else:
        _import(arguments, record, reviewable, workspace.keys)
    return 0


def _verified(folder: Path, workspace: "Workspace") -> Path:
    """Verify the evidence, and return the path of its review."""
    from sluice.components.evidence import candidate_evaluation, review_record
    from sluice.model.evaluation.evidence import verify_folder
    from sluice.model.evaluation.keys import trusted_keys
    from sluice.model.evaluation.review.selection import BASELINE_FOLDER, REVIEW_FILE

    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder: name the --out of `sluice evaluate`, or artifacts/evaluate")
    if (folder / "manifest.json").is_file():
        if folder.resolve() != workspace.artifact("evaluate").resolve():
            raise ValueError(f"{folder} is no evaluation of this workspace: name {workspace.artifact('evaluate')}")
        candidate_evaluation(workspace)
        return review_record(workspace)
    for each in (folder, folder / BASELINE_FOLDER):
        if each == folder or each.is_dir():
            verify_folder(each, trusted_keys(workspace.keys), redo="evaluate again with `sluice evaluate`")
    return folder / REVIEW_FILE


def _export(arguments: argparse.Namespace, reviewable: "Reviewable", keys: Path) -> None:
    from sluice.model.evaluation.review.sheet import blind, review_key, write_sheet

    out, limit = Path(arguments.out), arguments.items
    if limit is not None and limit < 1:
        raise ValueError(f"--items {limit}: export at least 1 item")
    if out.exists():
        raise ValueError(f"{out} is there already and may be filled in: choose another name, or remove it")
    chosen = blind(reviewable, review_key(keys))[:limit]
    if not chosen:
        raise ValueError(f"{arguments.folder} has nothing to review: no suite of high risk, and no disputed answer")
    write_sheet(out, chosen)
    risky = sum(1 for each in chosen if each.item.high_risk)
    if arguments.json:
        counts = {"items": len(chosen), "high_risk": risky, "required": reviewable.required, "out": str(out)}
        print(json.dumps(counts))
        return
    print(
        f"{len(chosen)} items to {out}: {risky} of {reviewable.required} of high risk, {len(chosen) - risky} disputed"
    )
    print(
        "each rater fills in a copy: rater (such as r1), rating_1 and rating_2 (pass or fail), better (first, second "
        "or tie; with rating_2 only where there are two answers)"
    )
    print(f"then: sluice review import {arguments.folder} FILE")


def _import(arguments: argparse.Namespace, record: Path, reviewable: "Reviewable", keys: Path) -> None:
    from sluice.model.evaluation.keys import trusted_keys
    from sluice.model.evaluation.review.ratings import read_ratings
    from sluice.model.evaluation.review.record import merge, read_review, write_review
    from sluice.model.evaluation.review.sheet import blind, review_key

    new = read_ratings(Path(arguments.file), blind(reviewable, review_key(keys)))
    if not new:
        raise ValueError(f"{arguments.file} has no ratings: fill in rater, rating_1 and, where it has two, the others")
    ratings = merge(read_review(record, reviewable, trusted_keys(keys)), new)
    summary = write_review(record, reviewable, ratings, keys)
    if arguments.json:
        print(json.dumps({"imported": len(new), **summary}))
        return
    raters = "1 rater" if summary["raters"] == 1 else f"{summary['raters']} raters"
    print(
        f"{len(new)} ratings imported; reviewed by {raters}: "
        f"{summary['reviewed']} of {summary['required']} items of high risk, "
        f"{summary['disputed_reviewed']} of {summary['disputed']} disputed ones"
    )
    if summary["alpha"] is None:
        print("agreement: too few items with two ratings")
    else:
        low, high = summary["alpha_interval"]
        shown = f" [{low:.2f}, {high:.2f}]" if low is not None else ""
        print(f"agreement: Krippendorff's alpha {summary['alpha']:.2f}{shown} on {summary['rated_twice']} answers")
    if summary["win_rate"] is not None:
        low, high = summary["win_rate_interval"]
        print(f"people prefer the candidate in {summary['win_rate']:.0%} [{low:.0%}, {high:.0%}]")
