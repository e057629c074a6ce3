"""Source distributions from a real index server on this machine: pins, cache, faults, and the way without a network."""

import hashlib
import io
import json
import random
import tarfile
import tracemalloc
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from sluice.data.config import IngestConfig, PackageSource, Source
from sluice.data.document import read_documents
from sluice.data.sources.archive import IndexUnreachable, Pin, fetch, spool_members
from sluice.data.sources.compression import Damaged
from sluice.data.sources.globs import Choice
from sluice.data.sources.ingest import ingest
from sluice.data.sources.origin import Limits, Origin
from sluice.data.sources.packages import read_distribution


def sdist(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"guide-1.0/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("guide-1.0/docs/link.rst")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return buffer.getvalue()


FILES = {
    "PKG-INFO": b"Name: guide\n",
    "setup.py": b"raise SystemExit('an archive must never be run')\n",
    "docs/index.txt": b"Index\n=====\n\nRead :doc:`more </topics/a>`.\n",
    "docs/topics/a.txt": b"A\n=\n\nWords.\n",
    "docs/topics/noise.txt": b"\xff\xfe\xfd",
    "docs/releases/1.txt": b"Released.\n",
    "docs/huge.txt": b"x" * 5000,
}
ARCHIVE = sdist(FILES)
SHA256 = hashlib.sha256(ARCHIVE).hexdigest()
WHEEL = b"a wheel is not opened here"
LIMITS = Limits(document_bytes=10**6, file_bytes=10**9, expansion=200)


class Index:
    """A package index with one project, which can be set to fail."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.others = ""
        self.fail: list[int] = []
        self.truncate = False
        self.digest = ""
        self.file = ARCHIVE
        index = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                index.requests.append(self.path)
                if index.fail:
                    self.send_error(index.fail.pop(0))
                elif self.path == "/simple/guide/":
                    ours = f'<a href="/files/guide-1.0.tar.gz{index.digest}">guide-1.0.tar.gz</a>'
                    self.answer((index.others + ours).encode(), "text/html")
                elif self.path.endswith("-none-any.whl"):
                    self.answer(WHEEL, "application/zip")
                elif self.path == "/files/guide-1.0.tar.gz":
                    self.answer(index.file, "application/gzip")
                else:
                    self.send_error(404)

            def answer(self, body: bytes, kind: str) -> None:
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if index.truncate and kind == "application/gzip":
                    body = body[: len(body) // 2]
                self.wfile.write(body)

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/simple/"
        Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    served = Index()
    monkeypatch.setenv("PIP_INDEX_URL", served.url)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield served
    served.server.shutdown()
    served.server.server_close()


def package(**changes: object) -> PackageSource:
    settings = {"name": "guide", "version": "1.0", "sha256": SHA256, "licence": "MIT", "include": ["docs/**/*.txt"]}
    return PackageSource.model_validate(settings | {"exclude": ["docs/releases/*"], "markup": "rst"} | changes)


def pin(**changes: str | None) -> Pin:
    return Pin(**({"name": "guide", "version": "1.0", "sha256": SHA256} | changes))


def fetch_now(pinned: Pin, cache: Path) -> tuple[Path, list[float]]:
    pauses: list[float] = []
    return fetch(pinned, cache, 4, pause=pauses.append)[0], pauses


def test_a_download_is_kept_and_trusted_only_by_its_hash(index: Index, tmp_path: Path):
    path, _ = fetch_now(pin(), tmp_path)
    assert path.read_bytes() == ARCHIVE
    asked = len(index.requests)
    assert fetch_now(pin(), tmp_path)[0] == path
    assert len(index.requests) == asked
    path.write_bytes(ARCHIVE[:-1])
    assert fetch_now(pin(), tmp_path)[0].read_bytes() == ARCHIVE


def test_another_file_than_the_pinned_one_is_refused_and_not_kept(index: Index, tmp_path: Path):
    index.file = ARCHIVE + b"x"
    with pytest.raises(ValueError, match=f"guide==1.0: the downloaded file has sha256 .* pins {SHA256}"):
        fetch_now(pin(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_wheel_is_the_one_for_every_machine(index: Index, tmp_path: Path):
    names = ("guide-1.0-cp311-cp311-manylinux_2_28_x86_64.whl", "guide-1.0-py3-none-any.whl")
    pinned = Pin("guide", "1.0", hashlib.sha256(WHEEL).hexdigest(), kind="wheel")
    index.others = f'<a href="/files/{names[0]}">{names[0]}</a>'
    with pytest.raises(ValueError, match=r"the package index has no wheel of it that ends in -none-any\.whl"):
        fetch(pinned, tmp_path, 1)
    index.others += f'<a href="/files/{names[1]}">{names[1]}</a>'
    path, _ = fetch(pinned, tmp_path, 1)
    assert path.read_bytes() == WHEEL and path.suffix == ".whl"
    asked = len(index.requests)
    assert fetch(pinned, tmp_path, 1)[0] == path and len(index.requests) == asked


@pytest.mark.parametrize(
    ("changes", "message"), [({"name": "none"}, "no such project"), ({"version": "2.0"}, "has no")]
)
def test_a_pin_the_index_does_not_have_is_refused(index: Index, tmp_path: Path, changes: dict[str, str], message: str):
    with pytest.raises(ValueError, match=message):
        fetch_now(pin(**changes), tmp_path)


def test_errors_of_the_server_are_tried_again_with_growing_pauses(index: Index, tmp_path: Path):
    index.fail = [503, 500, 429]
    path, pauses = fetch_now(pin(), tmp_path)
    assert path.read_bytes() == ARCHIVE
    assert pauses == [0.5, 1.0, 2.0]


@pytest.mark.parametrize("fault", [{"fail": [503] * 9}, {"fail": [403]}, {"truncate": True}])
def test_an_index_that_stays_broken_is_unreachable_and_leaves_nothing(
    index: Index, tmp_path: Path, fault: dict[str, object]
):
    for name, value in fault.items():
        setattr(index, name, value)
    with pytest.raises(IndexUnreachable, match="the package index"):
        fetch_now(pin(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_malformed_index_url_is_the_users_mistake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("PIP_INDEX_URL", "nonsense")
    with pytest.raises(ValueError, match="'nonsense' is no URL"):
        fetch_now(pin(), tmp_path)


def test_members_are_chosen_by_globs_and_links_are_not_followed(tmp_path: Path):
    path = tmp_path / "archive.tar.gz"
    path.write_bytes(ARCHIVE)

    def chosen(include: list[str], exclude: list[str] | None = None) -> list[str]:
        choice = Choice(tuple(include), tuple(exclude or []))
        return sorted(member.path for member in spool_members(path, choice, LIMITS, io.BytesIO()))

    everything = sorted(name for name in FILES if name.startswith("docs/"))
    assert chosen(["docs/**/*.txt"]) == everything
    assert chosen(["docs/**/*"]) == everything
    assert chosen(["docs/*.txt"]) == ["docs/huge.txt", "docs/index.txt"]
    assert chosen(["docs/**/*.txt"], ["docs/releases/*", "docs/huge.???"]) == everything[1:2] + everything[3:]
    spool = io.BytesIO()
    huge = spool_members(path, Choice(("docs/huge.txt", "docs/index.txt")), Limits(100, 10**6, 200), spool)
    content = FILES["docs/index.txt"]
    assert huge == [("docs/index.txt", 0, len(content)), ("docs/huge.txt", len(content), None)]
    assert spool.getvalue() == content


def test_packages_are_ingested_with_licence_and_markup(index: Index, tmp_path: Path):
    (tmp_path / "out").mkdir()
    config = IngestConfig(packages=[package()], max_document_bytes=1000)
    report = ingest(config, tmp_path / "out", cache=tmp_path / "cache")
    documents = list(read_documents(tmp_path / "out"))
    assert [document.metadata["path"] for document in documents] == ["docs/index.txt", "docs/topics/a.txt"]
    assert documents[0].metadata | {"title": ""} == {
        "source": "guide==1.0",
        "path": "docs/index.txt",
        "licence": "MIT",
        "title": "",
        "markup": "rst",
    }
    assert report.rejects == {"larger than 1000 bytes": 1, "not utf-16-le text, which its byte order mark names": 1}
    assert report.fallback_reason is None
    with pytest.raises(ValueError, match=r"guide==1.0: no file matches include \['nowhere/\*'\]"):
        ingest(IngestConfig(packages=[package(include=["nowhere/*"])]), tmp_path / "out", cache=tmp_path / "cache")


def test_without_a_network_the_installed_documentation_is_read_and_reported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/")
    monkeypatch.setattr("sluice.data.sources.archive._FIRST_PAUSE_S", 0.001)
    said: list[str] = []
    reports = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        config = IngestConfig(packages=[package()], fallback_bytes=300_000)
        reports.append(ingest(config, tmp_path / name, progress=lambda _done, _total, note: said.append(note)))
    report = reports[0]
    assert report.fallback_reason is not None
    assert "cannot be reached" in report.fallback_reason
    assert report.fallback_reason in said
    assert 300_000 <= report.bytes < 2_000_000
    assert all("==" in source for source in report.sources)
    assert {document.metadata["markup"] for document in read_documents(tmp_path / "one")} >= {"rst"}
    assert (tmp_path / "one/documents-0000.jsonl").read_bytes() == (tmp_path / "two/documents-0000.jsonl").read_bytes()
    assert json.loads(json.dumps(report.model_dump()))["documents"] == report.documents


def test_a_release_without_a_pin_is_checked_against_the_hash_the_index_names(index: Index, tmp_path: Path):
    with pytest.raises(ValueError, match="has no sha256 of it; set the source's sha256"):
        fetch_now(pin(sha256=None), tmp_path)
    index.digest = f"#sha256={SHA256}"
    (tmp_path / "out").mkdir()
    source = Source(uri="pypi:guide==1.0", licence="MIT", exclude=["docs/releases/*"])
    report = ingest(IngestConfig(sources=[source]), tmp_path / "out", cache=tmp_path / "cache")
    assert [document.metadata["path"] for document in read_documents(tmp_path / "out")] == [
        "docs/huge.txt",
        "docs/index.txt",
        "docs/topics/a.txt",
    ]
    counts = report.sources["guide==1.0"]
    assert (counts.documents, counts.licence, counts.sha256) == (3, "MIT", SHA256)
    index.digest = f"#sha256={'0' * 64}"
    with pytest.raises(ValueError, match="the package index has 0000"):
        fetch_now(pin(sha256=None), tmp_path)


def test_a_listed_release_that_cannot_be_had_is_one_line_and_no_fallback(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/")
    monkeypatch.setattr("sluice.data.sources.archive._FIRST_PAUSE_S", 0.001)
    with pytest.raises(ValueError, match=r"pypi:guide==1.0 cannot be read: the package index cannot be reached"):
        ingest(IngestConfig(sources="pypi:guide==1.0"), tmp_path)


def test_a_truncated_archive_is_damage(tmp_path: Path):
    path = tmp_path / "archive.tar.gz"
    path.write_bytes(ARCHIVE[: len(ARCHIVE) // 2])
    with pytest.raises(Damaged, match="damaged"):
        spool_members(path, Choice(), LIMITS, io.BytesIO())


def test_a_distribution_is_read_in_the_order_of_its_paths_a_document_in_memory(tmp_path: Path):
    size_bytes, names = 200_000, [f"docs/{number:02d}.txt" for number in range(20)]
    shuffled = random.Random(1).sample(names, len(names))
    contents = {name: random.Random(name).randbytes(size_bytes // 2).hex().encode() for name in shuffled}
    path = tmp_path / "guide.tar.gz"
    path.write_bytes(sdist(contents))
    read = read_distribution(path, Choice(), Origin("guide==1.0"), LIMITS)
    expected = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    del contents
    tracemalloc.start()
    try:
        found = [(each.metadata["path"], hashlib.sha256(each.text.encode()).hexdigest()) for each in read]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == sorted(expected.items()), "every document, whole, in the order of the paths"
    assert peak < 8 * size_bytes < len(names) * size_bytes / 2, "memory knows of one document, not of the distribution"
    assert [each.name for each in tmp_path.iterdir()] == [path.name], "nothing is left beside the archive"
