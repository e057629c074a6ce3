"""`sluice model import hf:OWNER/NAME`: a small hub on this machine, its cache, and what is refused."""

import json
from collections.abc import Iterator
from errno import ENOSPC
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import huggingface_hub.constants
import huggingface_hub.file_download
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from benchmarks.model.parity import CASES, make_theirs
from sluice.model.directory import load_transformer, read_json
from sluice.model.huggingface.hub import fetch
from sluice.pipelines.cli import main

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """The part of the hub's API that a download needs, for the repository owner/name."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files, self.requests, self.status = files, list[str](), 0
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                hub.requests.append(path)
                parts = path.strip("/").split("/")
                headers = {}
                if hub.status:
                    body, status = b"{}", hub.status
                    headers = {"X-Error-Code": {403: "GatedRepo", 404: "RepoNotFound"}.get(status, "")}
                elif parts[:4] == ["api", "models", "owner", "name"] and "tree" in parts:
                    rows = [
                        {"type": "file", "path": name, "size": len(content), "oid": sha1(content).hexdigest()}
                        for name, content in hub.files.items()
                    ]
                    body, status = json.dumps(rows).encode(), 200
                elif parts[:4] == ["api", "models", "owner", "name"]:
                    siblings = [{"rfilename": name} for name in hub.files]
                    known = parts[-1] in {"name", "main", "v1", COMMIT}
                    body, status = json.dumps({"id": "owner/name", "sha": COMMIT, "siblings": siblings}).encode(), 200
                    if not known:
                        body, status, headers = b"{}", 404, {"X-Error-Code": "RevisionNotFound"}
                elif parts[:3] == ["owner", "name", "resolve"] and "/".join(parts[4:]) in hub.files:
                    body, status = hub.files["/".join(parts[4:])], 200
                    headers = {"ETag": f'"{sha1(body).hexdigest()}"', "X-Repo-Commit": COMMIT}
                else:
                    body, status, headers = b"{}", 404, {"X-Error-Code": "RepoNotFound"}
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            do_HEAD = do_GET

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("theirs")
    make_theirs("llama", dict(reversed(CASES.values()))["llama"]).save_pretrained(folder, max_shard_size="20KB")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    more = {"pytorch_model.bin": b"pickle", "modeling.py": b"code", "original/params.json": b"{}", "README.md": b"#"}
    return files | more


@pytest.fixture
def hub(theirs: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    served = Hub(dict(theirs))
    # What HF_ENDPOINT sets when the library is imported.
    template = huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE.replace("https://huggingface.co", served.url)
    for module in (huggingface_hub.constants, huggingface_hub.file_download):
        monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", served.url)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    yield served
    served.server.shutdown()
    served.server.server_close()


def test_a_repository_is_downloaded_once_and_imported(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["model", "import", "hf:owner/name", str(tmp_path / "ours")]) == 0
    assert load_transformer(tmp_path / "ours").config.layers == 3
    lineage = read_json(tmp_path / "ours" / "lineage.json")
    assert lineage["origin"] == {"repository": "owner/name", "revision": COMMIT}
    got = {path.rpartition("/")[2] for path in hub.requests if "/resolve/" in path}
    assert got >= {"config.json", "model.safetensors.index.json", "model-00001-of-00007.safetensors"}
    assert got.isdisjoint({"pytorch_model.bin", "modeling.py", "params.json", "README.md"})
    # From the cache, without a request: also if the hub is out of reach.
    hub.requests.clear()
    assert main(["model", "import", "hf:owner/name", str(tmp_path / "again")]) == 0
    assert hub.requests == []
    assert fetch("hf:owner/name@main").commit == COMMIT


def test_a_download_that_was_interrupted_is_completed(hub: Hub) -> None:
    folder = fetch("hf:owner/name@v1").folder
    [shard, *_] = sorted(folder.glob("model-*.safetensors"))
    shard.unlink()
    hub.requests.clear()
    assert fetch("hf:owner/name@v1").folder == folder
    assert shard.is_file()
    assert [path.rpartition("/")[2] for path in hub.requests if "/resolve/" in path][-1:] == [shard.name]


@pytest.mark.parametrize(
    ("uri", "status", "said"),
    [
        ("hf:name", 0, "must be hf:OWNER/NAME"),
        ("hf:owner/../name", 0, "must be hf:OWNER/NAME"),
        ("hf:owner/other", 0, "is not on http.*, or private: check the name"),
        ("hf:owner/name@v9", 0, "has no revision v9"),
        ("hf:owner/name", 403, "is gated: accept its terms at http.*owner/name and set HF_TOKEN"),
        ("hf:owner/name", 418, "answers with HTTP status 418"),
    ],
)
def test_what_cannot_be_fetched_is_one_line(hub: Hub, uri: str, status: int, said: str) -> None:
    hub.status = status
    with pytest.raises(ValueError, match=said) as refused:
        fetch(uri)
    assert "\n" not in str(refused.value)


def test_a_repository_of_pickles_and_one_without_a_configuration_are_refused(hub: Hub) -> None:
    whole = hub.files
    hub.files = {name: content for name, content in whole.items() if not name.endswith(".safetensors")}
    with pytest.raises(ValueError, match=r"has no safetensors but pytorch_model\.bin: only safetensors are read"):
        fetch("hf:owner/name")
    hub.files = {name: content for name, content in whole.items() if name != "config.json"}
    with pytest.raises(ValueError, match=r"has no config\.json with the weights that it names"):
        fetch("hf:owner/name")


@pytest.mark.parametrize("index", [b"[]", b"{", b'{"weight_map": []}', b'{"weight_map": {"a": ["../b"]}}'])
def test_a_repository_with_a_damaged_index_is_refused(hub: Hub, index: bytes) -> None:
    hub.files |= {"model.safetensors.index.json": index}
    with pytest.raises(ValueError, match=r"has no config\.json with the weights that it names"):
        fetch("hf:owner/name")


def test_a_full_disk_is_no_fault_of_the_network(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(name: str, *, local_files_only: bool = False, **_: object) -> str:
        if local_files_only:
            raise LocalEntryNotFoundError(name)
        raise OSError(ENOSPC, "No space left on device")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", full)
    with pytest.raises(ValueError, match=r"cache cannot be written: No space left on device; set HF_HUB_CACHE"):
        fetch("hf:owner/name")


def test_a_network_that_is_forbidden_is_not_used(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"is not in .*cache, and HF_HUB_OFFLINE forbids the network"):
        fetch("hf:owner/name")
    assert hub.requests == []


def test_without_a_network_the_cache_is_named(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    # No second try: with those of the library this takes 25 s.
    monkeypatch.setattr("time.sleep", pytest.fail)
    hub.server.shutdown()
    hub.server.server_close()
    said = r"is not in .*cache, and http.* cannot be reached \(127.0.0.1: Connection refused\): download it where"
    with pytest.raises(ValueError, match=said):
        fetch("hf:owner/name")
