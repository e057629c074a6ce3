"""`sluice data ..`: build clean documents, explain why one was dropped, apply new thresholds, compare builds."""

import argparse
import json
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from sluice.components.workspace import Workspace
from sluice.data.config import IngestConfig, RefineConfig
from sluice.pipelines.options import add_json, add_overrides, with_debug
from sluice.pipelines.terminal import View, open_view

_STEP = "data"
_SHOWN_KINDS = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    def add(name: str, text: str, *, aliases: Sequence[str] = (), has_json: bool = True) -> argparse.ArgumentParser:
        action = actions.add_parser(name, aliases=aliases, help=text, description=text, parents=[with_debug()])
        if has_json:
            add_json(action)
        return action

    action = add("build", "clean the documents of sources into a folder, with evidence about every one of them")
    action.add_argument(
        "--source",
        action="append",
        default=[],
        metavar="URI",
        help="file, folder, glob, - for standard input, https:// s3:// gs://, pypi:NAME==VERSION, hf:OWNER/NAME, "
        "installed: (repeatable; "
        "default: the packages of conf/)",
    )
    action.add_argument(
        "--against",
        action="append",
        default=[],
        metavar="EVAL.jsonl",
        help="evaluation set to keep out of the documents: any JSONL whose strings are its items (repeatable)",
    )
    action.add_argument("--out", required=True, metavar="DIR", help="folder to write, replacing an earlier build")
    add_overrides(action, "min_words=60, markup=raw, .. of data and refine in conf/")

    action = add("why", "name the rule, or the duplicate, that removed a document")
    action.add_argument("id", metavar="ID", help="its id, the beginning of it, or the path it was read from")
    action.add_argument("--in", dest="folder", required=True, metavar="DIR", help="a build, or artifacts/refine")

    action = add("refilter", "apply new thresholds to a build, in place, without scoring it again", aliases=["recut"])
    action.add_argument("--in", dest="folder", required=True, metavar="DIR", help="a build")
    add_overrides(action, "min_words=60, max_symbol_word_ratio=null, ..")

    action = add("classifier", "train a quality classifier on good and bad documents, for refine.quality_model")
    for name in ("good", "bad"):
        action.add_argument(
            f"--{name}",
            action="append",
            required=True,
            metavar="URI",
            help=f"{name} documents, as --source (repeatable)",
        )
    action.add_argument("--out", required=True, metavar="FILE", help="file to write, such as quality.safetensors")
    action.add_argument("--seed", type=int, default=0, metavar="N")

    action = add("diff", "compare the documents of two builds")
    action.add_argument("first", metavar="A")
    action.add_argument("second", metavar="B")

    action = add("card", "draw the data card of a build: one HTML page", has_json=False)
    action.add_argument("folder", metavar="DIR", help="a build, or artifacts/refine")


def run(arguments: argparse.Namespace) -> int:
    match arguments.action:
        case "build":
            _build(arguments)
        case "why":
            from sluice.data.explain.why import why

            found = why(Path(arguments.folder), arguments.id)
            if arguments.json:
                print(json.dumps([each.model_dump() for each in found], ensure_ascii=False))
            else:
                print("\n".join(map(str, found)))
        case "refilter" | "recut":  # the name before 0.2
            _refilter(arguments)
        case "classifier":
            _classifier(arguments)
        case "diff":
            from sluice.data.card.diff import diff
            from sluice.data.card.difftext import render_text

            changes = diff(Path(arguments.first), Path(arguments.second))
            print(json.dumps(changes.model_dump(mode="json")) if arguments.json else render_text(changes))
        case "card":
            from sluice.core.manifest import read_manifest
            from sluice.data.card.card import write_card

            folder = Path(arguments.folder)
            # A page inside a step's artifact would be a change of what DVC keeps.
            is_artifact = "step" in read_manifest(folder)
            print(write_card(folder, Workspace.find_or_default().state / "data-card.html" if is_artifact else None))
    return 0


def _build(arguments: argparse.Namespace) -> None:
    from sluice.data.build import build, reusable, unfinished

    workspace = Workspace.find_or_default()
    ingest, refine = _settings(workspace, arguments)
    out = Path(arguments.out)
    # The next build replaces the folder, and would delete an index inside it.
    if refine.index is not None and Path(refine.index).resolve().is_relative_to(out.resolve()):
        raise ValueError(f"refine.index={refine.index} lies in --out {out}: name a folder beside it for the index")
    try:
        with _Progress(arguments.json) as progress:
            built = build(ingest, refine, out, cache=workspace.state / "downloads", progress=progress)
    except KeyboardInterrupt:
        half = unfinished(out)
        if reusable(half):
            raise KeyboardInterrupt(
                f"what is read and scored is kept in {half}, and the same command goes on from it"
            ) from None
        raise
    report = built.summary()
    if built.refine.warning:
        print(f"warning: {built.refine.warning}", file=sys.stderr)
    if arguments.json:
        print(json.dumps(report))
        return
    print(f"kept {report['kept']:,} of {report['in']:,} documents, {report['bytes_kept']:,} bytes, in {arguments.out}")
    for title, counts in (
        ("dropped", report["dropped"]),
        ("rejected", report["rejects"]),
        ("noted", report["noted"]),
        ("encodings", report["encodings"]),
        ("masked", report["masked"]),
        ("joined", {f"lines of {name}": count for name, count in report["joined_lines"].items()}),
    ):
        found = [(name, count) for name, count in counts.items() if count]
        if found:
            found.sort(key=lambda each: (-each[1], each[0]))
            shown, rest = found[:_SHOWN_KINDS], found[_SHOWN_KINDS:]
            more = f", and {sum(count for _, count in rest):,} of {len(rest)} other kinds" if rest else ""
            print(f"{title:<9} {', '.join(f'{name} {count:,}' for name, count in shown)}{more}")
    left_out = [
        f"{some:,} of {seen:,} words of pages of {name}" for name, (some, seen) in report["words_left_out"].items()
    ]
    if left_out:
        print(f"left out  {', '.join(left_out)}")
    print(f"hash      {report['content_sha256']}\ncard      {Path(arguments.out) / 'card.html'}")


def _settings(workspace: Workspace, arguments: argparse.Namespace) -> tuple[IngestConfig, RefineConfig]:
    """The settings of conf/ with the command line's laid over them."""
    from sluice.components.file_hashes import with_hashes
    from sluice.components.params import validate_block
    from sluice.core.settings.files import with_absolute_paths
    from sluice.pipelines.compose import compose_without_files
    from sluice.pipelines.overrides import did_you_mean

    blocks = {kind.block_name: kind for kind in (IngestConfig, RefineConfig)}
    overrides: list[str] = []
    for override in arguments.overrides:
        # Every block that has the key: `workers=4` is for `data` and `refine`.
        owners = [name for name, kind in blocks.items() if override.partition("=")[0] in kind.model_fields]
        overrides += [f"{name}.{override}" for name in owners] or [override]
    for override in overrides:
        if override.startswith(("data.sources_sha256=", "data.versions_sha256=")):
            key = override.partition("=")[0]
            raise ValueError(f"{key} is filled in from the files themselves: leave it out")
        if not override.startswith(("data.", "refine.", "profile=")):
            key = override.partition("=")[0]
            meant = did_you_mean(key, blocks, ["profile"])
            raise ValueError(f"'{key}' has no effect here: {meant}only data.KEY, refine.KEY and profile have")
    params = compose_without_files(workspace, overrides)
    # The sources' own hash is for steps that may not have to run: here they are read in any case.
    ingest, refine = params[IngestConfig], with_hashes(params[RefineConfig], workspace.root)
    here = Path.cwd()
    if here != workspace.root:
        ingest, refine = (with_absolute_paths(ingest, workspace.root), with_absolute_paths(refine, workspace.root))
    if arguments.source:
        if ignored := [each for each in overrides if each.startswith(("data.sources=", "data.packages="))]:
            raise ValueError(f"{ignored[0]} would be ignored beside --source: give one of the two")
        ingest = validate_block(IngestConfig, ingest.model_dump(mode="json") | {"sources": arguments.source})
    against = with_hashes(RefineConfig.model_validate({"evaluation_sets": arguments.against}), here)
    return ingest, refine.model_copy(update={"evaluation_sets": [*refine.evaluation_sets, *against.evaluation_sets]})


def _refilter(arguments: argparse.Namespace) -> None:
    from sluice.core.settings.errors import spelled
    from sluice.data.refilter import refilter

    changes: dict[str, Any] = {}
    for override in arguments.overrides:
        name, _, value = override.removeprefix("refine.").partition("=")
        if not value:
            raise ValueError(f"'{override}' is not key=value: for example min_words=60, or =null to turn it off")
        if name in changes:
            raise ValueError(f"{name} is given twice: say once what it shall be")
        try:
            changes[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ValueError(f"'{override}': {value} is no value; for example min_words=60 or languages=[en]") from None
    with _Progress(arguments.json) as progress:
        done = refilter(Path(arguments.folder), changes, progress=progress)
    before, after = done.before, done.after
    if arguments.json:
        report = {"in": after.documents_in, "kept": after.documents_kept, "dropped": after.dropped}
        print(json.dumps({**report, "kept_before": before.documents_kept, "dropped_before": before.dropped}))
        return
    for name, (old, new) in done.changed.items():
        print(f"{name}: {spelled(old)} -> {spelled(new)}")
    print(f"kept {after.documents_kept:,} of {after.documents_in:,} documents, {before.documents_kept:,} before")
    for rule in sorted({*before.dropped, *after.dropped}):
        was, now = before.dropped.get(rule, 0), after.dropped.get(rule, 0)
        if was != now:
            print(f"  {rule:<24} {was:>8,} -> {now:,}")


def _classifier(arguments: argparse.Namespace) -> None:
    from sluice.data.train_classifier import train_on_sources

    out, cache = Path(arguments.out), Workspace.find_or_default().state / "downloads"
    with _Progress(arguments.json) as progress:
        report = train_on_sources(
            arguments.good, arguments.bad, out, seed=arguments.seed, cache=cache, progress=progress
        )
    if arguments.json:
        print(report.model_dump_json())
        return
    print(f"trained on {report.trained_good:,} good and {report.trained_bad:,} bad documents")
    held_out = f"{report.held_out_good:,} and {report.held_out_bad:,} held out"
    print(f"a good one scores higher than a bad one in {report.held_out_auc:.1%} of the pairs of {held_out}")
    print(f"use it: sluice data build .. {shlex.quote(f'refine.quality_model={out}')} refine.min_quality=0.5")


class _Progress:
    """Progress on the terminal, or nothing where the output is JSON."""

    def __init__(self, silent: bool) -> None:
        self._view: View | None = None if silent else open_view((_STEP,))

    def __enter__(self) -> "_Progress":
        self._show("start")
        return self

    def __call__(self, done: int, total: int, note: str) -> None:
        self._show("progress", done=done, total=total, note=note)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._show("failed" if kind else "done")
        if self._view is not None:
            self._view.close()
        sys.stdout.flush()

    def _show(self, kind: str, **fields: Any) -> None:
        if self._view is not None:
            self._view.show({"step": _STEP, "kind": kind, "time": time.time(), **fields})
