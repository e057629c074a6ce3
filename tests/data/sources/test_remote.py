"""Remote sources: a web server on this machine that fails and recovers, and file systems of fsspec."""

import gzip
import hashlib
import json
import resource
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import fsspec
import pytest
from fsspec.registry import known_implementations

from sluice.data.config import IngestConfig, Source
from sluice.data.document import read_documents
from sluice.data.sources.globs import Choice
from sluice.data.sources.ingest import IngestReport, ingest
from sluice.data.sources.location import RemoteFiles
from sluice.data.sources.remote import Remote

LINES = gzip.compress(b'{"text": "one"}\n{"text": "two"}\n' * 500)
SHA256 = hashlib.sha256(LINES).hexdigest()


class Web:
    """A web server with one file, which can be set to fail."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.fail: list[int] = []
        self.truncate = 0
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                web.requests.append(self.path)
                if web.fail:
                    self.send_error(web.fail.pop(0))
                elif self.path.partition("?")[0] != "/data/lines.jsonl.gz":
                    self.send_error(404)
                else:
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(LINES)))
                    self.end_headers()
                    half, web.truncate = web.truncate > 0, max(web.truncate - 1, 0)
                    self.wfile.write(LINES[:20] if half else LINES)

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/data/lines.jsonl.gz"
        Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()


@pytest.fixture
def web() -> Iterator[Web]:
    served = Web()
    yield served
    served.server.shutdown()
    served.server.server_close()


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    system = fsspec.filesystem("memory")
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sluice.data.sources.remote.FIRST_PAUSE_S", 0.0)


def take(folder: Path, *sources: Source | str) -> IngestReport:
    out = folder / "out"
    out.mkdir(exist_ok=True)
    return ingest(IngestConfig(sources=list(sources)), out, cache=folder / "cache")


def fetched(web: Web, cache: Path, **settings: int) -> tuple[list[tuple[str, Path]], list[float]]:
    pauses: list[float] = []
    limits = {"attempts": 4, "max_bytes": 10**6} | settings
    remote = Remote(RemoteFiles(f"{web.url}?key=secret"), cache, pause=pauses.append, **limits)
    return list(remote.files(Choice())), pauses


def test_a_file_of_a_web_server_is_read_with_its_address_as_source(web: Web, tmp_path: Path):
    report = take(tmp_path, Source(uri=f"{web.url}?key=secret", licence="CC0-1.0"))
    counts = report.sources[web.url]
    assert (counts.documents, counts.licence) == (1000, "CC0-1.0")
    first = next(read_documents(tmp_path / "out"))
    assert first.metadata["path"] == "lines.jsonl.gz:1"
    assert web.requests == ["/data/lines.jsonl.gz?key=secret"]
    assert not any("secret" in path.read_text("latin-1") for path in (tmp_path / "out").iterdir())


def test_failures_are_tried_again_with_growing_pauses(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sluice.data.sources.remote.FIRST_PAUSE_S", 0.5)
    web.fail, web.truncate = [503, 429], 1
    [(shown, copy)], pauses = fetched(web, tmp_path)
    assert (shown, copy.read_bytes()) == ("lines.jsonl.gz", LINES)
    assert pauses == [0.5, 1.0, 2.0]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"fail": [503] * 9}, "HTTP 503, 4 attempts"),
        ({"truncate": 9}, "4 attempts"),
        ({"fail": [403]}, "HTTP 403"),
        ({"fail": [404]}, "does not exist; correct the URI"),
    ],
)
def test_a_server_that_stays_broken_is_one_line_naming_the_address(
    web: Web, tmp_path: Path, fault: dict[str, object], message: str
):
    for name, value in fault.items():
        setattr(web, name, value)
    with pytest.raises(ValueError, match=message) as error:
        fetched(web, tmp_path)
    assert f"data.sources: {web.url} " in str(error.value)
    assert "secret" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_is_not_there_is_one_line(tmp_path: Path):
    with pytest.raises(
        ValueError, match=r"http://127.0.0.1:9/a.txt cannot be read \(ClientConnectorError, 4 attempts\)"
    ):
        take(tmp_path, "http://127.0.0.1:9/a.txt")


def test_a_file_beyond_the_limit_is_not_taken(web: Web, tmp_path: Path):
    with pytest.raises(ValueError, match=r"lines.jsonl.gz cannot be read \(larger than 40 bytes\)"):
        fetched(web, tmp_path, max_bytes=40)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_not_the_servers_fault(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("test_remote.LINES", bytes(200_000))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OSError, match=tmp_path.name):
            fetched(web, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(web.requests) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_pinned_file_is_checked_and_fetched_once(web: Web, tmp_path: Path):
    with pytest.raises(ValueError, match=f"lines.jsonl.gz has sha256 {SHA256}, the source pins 0000"):
        take(tmp_path, Source(uri=web.url, sha256="0" * 64))
    assert list((tmp_path / "cache").iterdir()) == []
    report = take(tmp_path, Source(uri=web.url, sha256=SHA256))
    assert report.sources[web.url].sha256 == SHA256
    asked = len(web.requests)
    take(tmp_path, Source(uri=web.url, sha256=SHA256))
    assert len(web.requests) == asked
    take(tmp_path, web.url)
    assert len(web.requests) == asked + 1, "without a pin the file may have changed"


def test_a_directory_and_a_glob_behind_fsspec(memory: fsspec.AbstractFileSystem, tmp_path: Path):
    for name in ("b.txt", "a.md", "deep/c.txt", "deep/.hidden.txt"):
        memory.pipe(f"/corpus/{name}", name.encode())
    memory.pipe("/corpus/rows.jsonl", json.dumps({"text": "row"}).encode())

    def paths(source: Source | str) -> list[str]:
        report = take(tmp_path, source)
        assert list(report.sources) == [source if isinstance(source, str) else source.uri]
        return [document.metadata["path"] for document in read_documents(tmp_path / "out")]

    assert paths("memory://corpus") == ["a.md", "b.txt", "deep/c.txt", "rows.jsonl:1"]
    assert paths("memory://corpus/*.txt") == ["b.txt"]
    assert paths(Source(uri="memory://corpus", include=["**/*.txt"], exclude=["b.*"])) == ["deep/c.txt"]
    assert paths("memory://corpus/b.txt") == ["b.txt"]
    with pytest.raises(ValueError, match="memory://corpus is a directory; sha256 pins one file"):
        take(tmp_path, Source(uri="memory://corpus", sha256=SHA256))
    with pytest.raises(ValueError, match=r"memory://nothing/x.txt does not exist"):
        take(tmp_path, "memory://nothing/x.txt")


def test_a_copy_is_taken_while_the_remote_side_names_the_same_version(
    memory: fsspec.AbstractFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    memory.pipe("/corpus/a.txt", b"first")
    read: list[str] = []
    get_file = type(memory).get_file
    monkeypatch.setattr(
        type(memory),
        "get_file",
        lambda self, path, *rest, **more: (read.append(path), get_file(self, path, *rest, **more)),
    )
    for _ in range(2):
        take(tmp_path, "memory://corpus")
    assert read == ["/corpus/a.txt"]
    memory.pipe("/corpus/a.txt", b"second")
    take(tmp_path, "memory://corpus")
    assert [document.text for document in read_documents(tmp_path / "out")] == ["second"]


def test_a_scheme_whose_package_is_missing_names_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setitem(known_implementations, "adl", {"class": "no_such_package.Files", "err": "Install adlfs"})
    with pytest.raises(ValueError, match=r"adl://container/a.txt needs a package that is not installed: Install adlfs"):
        take(tmp_path, "adl://container/a.txt")
