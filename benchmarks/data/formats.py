"""The same text in every format that is read, and how fast each is."""

import csv
import gzip
import io
import json
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.data.clock import Rate, measure, utf8_bytes
from sluice.data.config import IngestConfig
from sluice.data.document import Document
from sluice.data.sources.formats import read_file
from sluice.data.sources.origin import Limits, Origin


def reading(texts: list[str], runs: int) -> dict[str, Rate]:
    """By suffix: one file of all texts, or for .txt a file each. ValueError where a document is missing."""
    texts = [text for text in texts if text.strip()]  # an empty file is a reject
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as folder:
        written = _write(texts, Path(folder))
        for suffix, paths in written.items():
            if (got := _documents(paths)) != len(texts):
                raise ValueError(f"reading {suffix} gave {got} of {len(texts)} documents: its rate says nothing")
        works = {suffix: partial(_documents, paths) for suffix, paths in written.items()}
        return measure(works, utf8_bytes(texts), runs)


def _documents(paths: Sequence[Path]) -> int:
    limits, origin = Limits.of(IngestConfig.model_validate({"sources": "texts"})), Origin("benchmark")
    return sum(isinstance(each, Document) for path in paths for each in read_file(path, path.name, origin, limits))


def _write(texts: Sequence[str], folder: Path) -> dict[str, list[Path]]:
    lines = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts).encode()
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerows([["text"], *([text] for text in texts)])
    single = {
        suffix: folder / f"texts{suffix}"
        for suffix in (".jsonl", ".jsonl.gz", ".jsonl.zst", ".csv", ".parquet", ".warc.gz")
    }
    single[".jsonl"].write_bytes(lines)
    single[".jsonl.gz"].write_bytes(gzip.compress(lines, 6))
    with pa.CompressedOutputStream(str(single[".jsonl.zst"]), "zstd") as stream:
        stream.write(lines)
    single[".csv"].write_text(table.getvalue(), encoding="utf-8", newline="")
    pq.write_table(pa.table({"text": list(texts)}), single[".parquet"], compression="zstd")
    _write_warc(texts, single[".warc.gz"])
    files = [folder / f"{number:05d}.txt" for number in range(len(texts))]
    for path, text in zip(files, texts, strict=True):
        path.write_text(text, encoding="utf-8")
    return {".txt": files, **{suffix: [path] for suffix, path in single.items()}}


def _write_warc(texts: Sequence[str], path: Path) -> None:
    """The text stands in for a page: reading is measured here, not what is done with markup."""
    from warcio.statusandheaders import StatusAndHeaders
    from warcio.warcwriter import WARCWriter

    with path.open("wb") as file:
        writer = WARCWriter(file, gzip=True)
        for number, text in enumerate(texts):
            headers = StatusAndHeaders("200 OK", [("Content-Type", "text/html; charset=utf-8")], protocol="HTTP/1.1")
            record = writer.create_warc_record(
                f"https://example.org/{number}", "response", payload=io.BytesIO(text.encode()), http_headers=headers
            )
            writer.write_record(record)
