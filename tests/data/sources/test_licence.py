"""The licence of a package: from its metadata, installed or in a source distribution, unless the settings name one."""

import io
import tarfile
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest

from sluice.data.document import Document
from sluice.data.sources.globs import Choice
from sluice.data.sources.installed import installed_documents
from sluice.data.sources.licence import distribution_licence, licence_of
from sluice.data.sources.origin import Limits, Origin
from sluice.data.sources.packages import read_distribution

MIT = "License :: OSI Approved :: MIT License"
PKG_INFO = (
    b"Metadata-Version: 2.4\nName: guide\nVersion: 1.0\nLicense-Expression: BSD-3-Clause\n\nLicense: of the text\n"
)
DOCS = {"docs/a.rst": b"Words.\n", "docs/b.rst": b"More words.\n"}


@pytest.mark.parametrize(
    ("metadata", "licence"),
    [
        ({"license_expression": "MIT OR Apache-2.0", "license": "see file", "classifier": [MIT]}, "MIT OR Apache-2.0"),
        ({"license": " BSD ", "classifier": [MIT]}, "BSD"),
        ({"license": "Permission is hereby granted " * 9, "classifier": ["Topic :: Text", MIT]}, "MIT License"),
        ({"license": "UNKNOWN", "classifier": ["License :: OSI Approved", MIT]}, "MIT License"),
        ({"license": "UNKNOWN", "classifier": ["License :: OSI Approved"]}, "unspecified"),
        ({"license": None, "classifier": None}, "unspecified"),
        ({}, "unspecified"),
    ],
)
def test_an_expression_precedes_a_field_and_a_field_a_classifier(metadata: dict[str, Any], licence: str):
    assert licence_of(metadata) == licence


@pytest.mark.parametrize(
    ("files", "licence"),
    [
        ({"PKG-INFO": PKG_INFO}, "BSD-3-Clause"),
        (
            {"PKG-INFO": f"Name: guide\nLicense: UNKNOWN\nClassifier: Topic :: Text\nClassifier: {MIT}\n".encode()},
            "MIT License",
        ),
        ({"PKG-INFO": b"Name: guide\nAuthor: \xff\xfe\nLicense: ISC\n"}, "ISC"),
        ({"PKG-INFO": b"Name: guide\n", "pyproject.toml": b"[project]\nlicense = 'ISC'\n"}, "ISC"),
        ({"PKG-INFO": PKG_INFO, "pyproject.toml": b"[project]\nlicense = 'ISC'\n"}, "BSD-3-Clause"),
        ({"pyproject.toml": b"[project]\nlicense = {text = 'ISC'}\n"}, "ISC"),
        (
            {"pyproject.toml": f"[project]\nlicense = {{file = 'LICENSE'}}\nclassifiers = ['{MIT}']\n".encode()},
            "MIT License",
        ),
        ({"pyproject.toml": b"[tool.x]\n"}, "unspecified"),
        ({"pyproject.toml": b"project = 3"}, "unspecified"),
        ({"pyproject.toml": b"[project"}, "unspecified"),
        ({"pyproject.toml": b"\xff"}, "unspecified"),
        ({}, "unspecified"),
    ],
)
def test_a_distribution_declares_its_licence_in_either_file(files: dict[str, bytes], licence: str):
    assert distribution_licence(files) == licence


def read(tmp_path: Path, files: dict[str, bytes], choice: Choice, origin: Origin, limit: int = 10**6) -> list[Document]:
    path = tmp_path / "guide.tar.gz"
    with tarfile.open(path, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"guide-1.0/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    found = list(read_distribution(path, choice, origin, Limits(limit, 10**9, 200)))
    assert all(isinstance(each, Document) for each in found)
    return [each for each in found if isinstance(each, Document)]


@pytest.mark.parametrize("choice", [Choice(), Choice(include=("docs/*",)), Choice(exclude=("PKG-INFO", "*.toml"))])
@pytest.mark.parametrize(("named", "licence"), [("unspecified", "BSD-3-Clause"), ("0BSD", "0BSD")])
def test_documents_of_a_release_carry_its_licence_unless_the_settings_name_one(
    tmp_path: Path, choice: Choice, named: str, licence: str
):
    # The metadata stand last, and in a dependency's folder there are others.
    files = {**DOCS, "vendor/PKG-INFO": b"License: GPL\n", "pyproject.toml": b"[project]\n", "PKG-INFO": PKG_INFO}
    found = read(tmp_path, files, choice, Origin("guide==1.0", named))
    assert [each.metadata["path"] for each in found] == sorted(DOCS)
    assert {each.metadata["licence"] for each in found} == {licence}


def test_metadata_that_are_included_are_documents_too(tmp_path: Path):
    found = read(tmp_path, {**DOCS, "PKG-INFO": PKG_INFO}, Choice(include=("PKG-INFO",)), Origin("guide==1.0"))
    assert [(each.metadata["path"], each.metadata["licence"]) for each in found] == [("PKG-INFO", "BSD-3-Clause")]


def test_metadata_that_are_too_large_are_no_reject_of_the_documents(tmp_path: Path):
    found = read(tmp_path, {**DOCS, "PKG-INFO": PKG_INFO + b"x" * 999}, Choice(), Origin("guide==1.0"), limit=500)
    assert len(found) == 2 and {each.metadata["licence"] for each in found} == {"unspecified"}


def test_installed_packages_are_read_the_same_way():
    first = next(installed_documents(1)).metadata
    name = first["source"].partition("==")[0]
    assert first["licence"] == licence_of(distribution(name).metadata.json)
