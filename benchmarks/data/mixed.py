"""Files of every ordinary kind in one folder: read, refined and reported, in bounded memory, also after three kills.

python -m benchmarks.data.mixed [--documents N] [--bytes N] [--workers N]
"""

import argparse
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from benchmarks.data.scale import Size, watched_build
from benchmarks.data.texts import extracted, recombined
from sluice.core.manifest import read_manifest
from sluice.data.config import RefineConfig
from sluice.data.refining.score import SUMMARIES
from sluice.data.sources.installed import installed_documents
from sluice.data.sources.parts import DONE

MOST_BYTES = 1_500_000_000
"""Bound of the memory of all processes together."""
_KINDS = ("txt", "md", "html", "jsonl", "csv")
_ROWS_A_FILE, _FILES_A_FOLDER = 1000, 1000
_TEXT_BYTES = 24_000_000
_POLL_S = 0.02


def main() -> None:
    parser = argparse.ArgumentParser(description="Build a folder of mixed files, and again after three kills.")
    parser.add_argument("--documents", type=int, default=130_000)
    parser.add_argument("--bytes", type=int, default=300_000_000)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as temporary:
        folder = Path(temporary)
        size = write_mixed(folder / "mixed", arguments.documents, arguments.bytes)
        config = RefineConfig.model_validate({"workers": arguments.workers})
        for name in ("one", "two"):
            (folder / name).mkdir()
        built = watched_build(folder / "mixed", config, folder / "one", size, folder / "bytecode", markup="")
        reports = [
            f"{size / 1e6:.0f} MB, {built.documents:,} documents, {built.kept:,} kept, {built.wall_s:.0f} s",
            f"read in {built.timings['fetch_s'] + built.timings['read_s']:.1f} s",
            f"largest process {built.largest_process_bytes / 1e6:.0f} MB",
            f"all processes {built.all_processes_bytes / 1e6:.0f} MB (bound {MOST_BYTES / 1e6:.0f})",
        ]
        print(*reports, sep="\n", flush=True)
        again = after_kills(folder / "mixed", config, folder / "two", size, folder / "bytecode")
        hashes = {read_manifest(folder / name / "out")["content_sha256"] for name in ("one", "two")}
        print(f"killed while reading, scoring and writing: {'the same hash' if len(hashes) == 1 else 'ANOTHER HASH'}")
        print(f"the last build, which goes on: {again.wall_s:.0f} s")
        if len(hashes) > 1 or max(built.all_processes_bytes, again.all_processes_bytes) > MOST_BYTES:
            raise SystemExit("not met")


def write_mixed(folder: Path, documents: int, size_bytes: int) -> int:
    """Write so many documents, a fifth in each kind, and return the bytes of their texts."""
    texts = extracted(list(installed_documents(_TEXT_BYTES)))
    pieces = _pieces(recombined(texts), size_bytes // documents)
    written = 0
    for kind in _KINDS:
        for number in range(0, documents // len(_KINDS), _FILES_A_FOLDER):
            chosen = list(islice(pieces, min(_FILES_A_FOLDER, documents // len(_KINDS) - number)))
            written += sum(len(text.encode()) for text in chosen)
            _write(folder / kind / f"{number // _FILES_A_FOLDER:04d}", kind, chosen)
    return written


def _pieces(texts: Iterator[str], size_bytes: int) -> Iterator[str]:
    """Cut texts between paragraphs into documents of about a size, on average of exactly this size."""
    paragraphs: list[str] = []
    size = too_much = 0
    for text in texts:
        for paragraph in text.strip("\n").split("\n\n"):
            paragraphs.append(paragraph)
            size += len(paragraph.encode()) + 2
            # The next ones are shorter by what this one is too long, but by at most half.
            if size >= size_bytes - min(too_much, size_bytes // 2):
                yield "\n\n".join(paragraphs) + "\n"
                paragraphs, size, too_much = [], 0, too_much + size - size_bytes


def _write(path: Path, kind: str, texts: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    match kind:
        case "jsonl":
            rows = ({"text": text, "url": f"https://example.org/{n}"} for n, text in enumerate(texts))
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            path.with_suffix(".jsonl").write_text(lines, encoding="utf-8")
        case "csv":
            with path.with_suffix(".csv").open("w", encoding="utf-8", newline="") as file:
                csv.writer(file).writerows([["n", "text"], *enumerate(texts)])
        case _:
            path.mkdir()
            for number, text in enumerate(texts):
                (path / f"{number:04d}.{kind}").write_text(_marked_up(text, kind), encoding="utf-8")


def _marked_up(text: str, kind: str) -> str:
    if kind != "html":
        return text
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").split("\n\n")
    body = "".join(f"<p>{paragraph}</p>\n" for paragraph in escaped)
    return f"<!doctype html><html><head><title>Page</title></head><body><main>{body}</main></body></html>"


def after_kills(source: Path, config: RefineConfig, folder: Path, size: int, bytecode: Path) -> Size:
    """Kill a build while it reads, scores and writes, each time going on, and return the one that ends."""
    half = folder / ".out.partial"
    points: list[Callable[[], bool]] = [
        lambda: len(list(half.glob(f"read/*/{DONE}"))) >= 2,
        lambda: len(list(half.glob(f"work/*/{SUMMARIES}"))) >= 2,
        (half / "result" / "evidence").is_dir,
    ]
    for reached in points:
        command = [sys.executable, "-m", "benchmarks.data.watched", str(source), str(folder / "out")]
        process = subprocess.Popen(
            [*command, config.model_dump_json(), ""], stdout=subprocess.DEVNULL, start_new_session=True
        )
        while process.poll() is None and not reached():
            time.sleep(_POLL_S)
        if process.poll() is not None:
            raise RuntimeError(f"the build of {source} ended with {process.returncode} before it was killed")
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        print(f"killed; kept {len(list(half.glob(f'read/*/{DONE}')))} parts read", flush=True)
    shutil.rmtree(folder / "out", ignore_errors=True)
    return watched_build(source, config, folder, size, bytecode, markup="")


if __name__ == "__main__":
    main()
