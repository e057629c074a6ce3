"""Sources on S3 and GCS, through the real clients, against servers on this machine that speak their protocols."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from s3_server import s3_server

from sluice.data.config import IngestConfig, Source
from sluice.data.document import read_documents
from sluice.data.sources.ingest import ingest
from sluice.data.sources.remote_hash import versions_sha256

FILES = {
    "texts/a.md": b"# A\n\nFirst.\n",
    "texts/deep/rows.jsonl": b'{"text": "one"}\n{"text": "two"}\n{"no": "text"}\n',
    "texts/notes.pdf": b"%PDF",
    "other/b.txt": b"Elsewhere.\n",
}


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    import boto3
    import s3fs

    with s3_server(monkeypatch, tmp_path, "corpus"):
        s3fs.S3FileSystem.clear_instance_cache()
        client = boto3.client("s3")
        for name, content in FILES.items():
            client.put_object(Bucket="corpus", Key=name, Body=content)
        yield
        s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def gcs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The requests of a server that lists, describes and gives objects as the JSON interface of GCS does."""
    import gcsfs

    requests: list[str] = []

    def described(name: str) -> dict[str, str]:
        return {
            "kind": "storage#object",
            "bucket": "corpus",
            "name": name,
            "size": str(len(FILES[name])),
            "etag": f"version of {name}",
            "updated": "2026-01-01T00:00:00Z",
        }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
            split = urlsplit(self.path)
            query = parse_qs(split.query)
            folder, _, name = split.path.partition("/b/corpus/o")
            name = unquote(name.lstrip("/"))
            if not folder.endswith("/storage/v1"):
                self.send_error(404)
            elif not name:
                prefix = query.get("prefix", [""])[0]
                self._send(json.dumps({"items": [described(each) for each in FILES if each.startswith(prefix)]}))
            elif name not in FILES:
                self.send_error(404)
            elif query.get("alt") == ["media"]:
                self._send(FILES[name])
            else:
                self._send(json.dumps(described(name)))

        def _send(self, content: str | bytes) -> None:
            content = content.encode() if isinstance(content, str) else content
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server.server_port}")
    gcsfs.GCSFileSystem.clear_instance_cache()
    yield requests
    gcsfs.GCSFileSystem.clear_instance_cache()
    server.shutdown()
    server.server_close()


def taken(folder: Path, source: Source | str) -> tuple[dict[str, str], dict[str, int]]:
    """Path -> text of what is read of a source, and its rejects."""
    out = folder / "out"
    out.mkdir(exist_ok=True)
    report = ingest(IngestConfig(sources=[source], attempts=1), out, cache=folder / "cache")
    return {each.metadata["path"]: each.text for each in read_documents(out)}, report.rejects


@pytest.mark.parametrize(("server", "bucket"), [("s3", "s3://corpus"), ("gcs", "gs://corpus")])
def test_folders_globs_and_files_are_read(
    request: pytest.FixtureRequest, tmp_path: Path, server: str, bucket: str
) -> None:
    request.getfixturevalue(server)
    documents, rejects = taken(tmp_path, f"{bucket}/texts")
    assert documents == {"a.md": "# A\n\nFirst.\n", "deep/rows.jsonl:1": "one", "deep/rows.jsonl:2": "two"}
    assert sum(rejects.values()) == 2, rejects
    assert set(taken(tmp_path, f"{bucket}/texts/*.md")[0]) == {"a.md"}
    assert set(taken(tmp_path, f"{bucket}/other/b.txt")[0]) == {"b.txt"}
    with pytest.raises(ValueError, match=rf"{bucket}/other/none.txt does not exist"):
        taken(tmp_path, f"{bucket}/other/none.txt")


def test_an_object_of_s3_that_changed_is_fetched_again(s3: None, tmp_path: Path) -> None:
    import boto3

    whole = IngestConfig(sources="s3://corpus/other")
    before = versions_sha256(whole)
    assert taken(tmp_path, "s3://corpus/other/b.txt")[0] == {"b.txt": "Elsewhere.\n"}
    assert versions_sha256(whole) == before
    boto3.client("s3").put_object(Bucket="corpus", Key="other/b.txt", Body=b"Now another.\n")
    assert taken(tmp_path, "s3://corpus/other/b.txt")[0] == {"b.txt": "Now another.\n"}
    changed = versions_sha256(whole)
    boto3.client("s3").put_object(Bucket="corpus", Key="other/c.txt", Body=b"One more.\n")
    assert len({before, changed, versions_sha256(whole)}) == 3


def test_an_object_of_gcs_is_fetched_once(gcs: list[str], tmp_path: Path) -> None:
    for _ in range(2):
        assert taken(tmp_path, "gs://corpus/other/b.txt")[0] == {"b.txt": "Elsewhere.\n"}
    assert len([each for each in gcs if "alt=media" in each]) == 1
