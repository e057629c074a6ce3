"""URIs: what each names, what is refused, and that no secret of one is shown."""

from pathlib import Path

import pytest

from sluice.data.config import Source
from sluice.data.sources.location import HubDataset, Installed, Release, RemoteFiles, locate, parse, without_secrets


@pytest.mark.parametrize(
    ("uri", "location", "name"),
    [
        ("pypi:django==5.2.19", Release("django", "5.2.19"), "django==5.2.19"),
        ("hf:roneneldan/TinyStories", HubDataset("roneneldan/TinyStories"), "hf:roneneldan/TinyStories"),
        ("hf:allenai/c4:en", HubDataset("allenai/c4", "en"), "hf:allenai/c4:en"),
        ("installed:", Installed(), "installed:"),
        ("memory://a/b.txt", RemoteFiles("memory://a/b.txt"), "memory://a/b.txt"),
        (
            "https://me:pw@h.org:8/a.gz?key=1#f",
            RemoteFiles("https://me:pw@h.org:8/a.gz?key=1#f"),
            "https://h.org:8/a.gz",
        ),
        ("s3://bucket/a/*.jsonl", RemoteFiles("s3://bucket/a/*.jsonl"), "s3://bucket/a/*.jsonl"),
    ],
)
def test_a_uri_is_taken_apart(uri: str, location: object, name: str):
    assert parse(uri) == location
    assert parse(uri).name == name


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("pypi:django", "must be pypi:NAME==VERSION"),
        ("pypi:a==1/../../x", "must be pypi:NAME==VERSION"),
        ("hf:a/b/c", "must be hf:OWNER/NAME"),
        ("installed:numpy", "must be installed: alone"),
        ("gopher://me:pw@hole/a", "gopher://hole/a has the unknown scheme gopher://"),
        ("/no/such/path", "/no/such/path does not exist"),
    ],
)
def test_what_no_reader_knows_is_one_line(uri: str, message: str):
    with pytest.raises(ValueError) as error:
        parse(uri)
    assert message in str(error.value)
    assert str(error.value).startswith("data.sources: ")
    assert "\n" not in str(error.value)
    assert "pw" not in str(error.value)


def test_a_setting_that_would_be_ignored_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="installed: takes no licence; settings it takes: none"):
        locate(Source(uri="installed:", licence="MIT"))
    with pytest.raises(ValueError, match="takes no split"):
        locate(Source(uri=str(tmp_path), split="test"))
    with pytest.raises(ValueError, match="takes no sha256"):
        locate(Source(uri="hf:a/b", sha256="0" * 64))


def test_a_path_has_no_secrets_to_lose():
    assert without_secrets("/a/b?c#d") == "/a/b?c#d"
