"""Parse the URI of a source into the kind of location and its parts."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import unquote, urlsplit

from sluice.core.files import expand_home
from sluice.data.config import Source, without_secrets
from sluice.data.sources.globs import is_glob


@dataclass(frozen=True)
class LocalFiles:
    """A file or directory, or the paths below a directory that a glob matches."""

    top: Path
    glob: str | None = None

    @property
    def name(self) -> str:
        return str(self.top / self.glob) if self.glob else str(self.top)


@dataclass(frozen=True)
class RemoteFiles:
    """A file, directory or glob behind fsspec."""

    uri: str

    @property
    def name(self) -> str:
        return without_secrets(self.uri)

    @property
    def protocol(self) -> str:
        return self.uri.partition("://")[0].lower()


@dataclass(frozen=True)
class Release:
    """The source distribution of one version of a project on the package index."""

    project: str
    version: str

    @property
    def name(self) -> str:
        return f"{self.project}=={self.version}"


@dataclass(frozen=True)
class HubDataset:
    """A data set of the Hugging Face hub, or one configuration of it."""

    repository: str
    configuration: str | None = None

    @property
    def name(self) -> str:
        return f"hf:{self.repository}" + (f":{self.configuration}" if self.configuration else "")


@dataclass(frozen=True)
class Installed:
    """The documentation of the packages in this environment."""

    name: str = "installed:"


@dataclass(frozen=True)
class StandardInput:
    """Standard input of the process."""

    name: str = "-"


Location = LocalFiles | StandardInput | RemoteFiles | Release | HubDataset | Installed

_RELEASE = re.compile(r"(?P<project>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[A-Za-z0-9][A-Za-z0-9.!+_-]*)")
_DATASET = re.compile(r"(?P<repository>[\w.-]+(?:/[\w.-]+)?)(?::(?P<configuration>[\w.-]+))?")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")

_ROWS = ("text_field", "fields", "id_field")
# A setting that would be ignored is an error.
_SETTINGS: dict[type[Any], set[str]] = {
    LocalFiles: {"sha256", "include", "exclude", "format", "encoding", *_ROWS, "markup", "licence"},
    RemoteFiles: {"sha256", "include", "exclude", "format", "encoding", *_ROWS, "markup", "licence"},
    StandardInput: {"format", "encoding", *_ROWS, "markup", "licence"},
    Release: {"sha256", "include", "exclude", "encoding", "markup", "licence"},
    HubDataset: {"split", "revision", *_ROWS, "markup", "licence"},
    Installed: set(),
}


def locate(source: Source) -> Location:
    """Return the location of a source. Raises ValueError for an unknown URI and for settings that would be ignored."""
    location = parse(source.uri)
    unused = source.model_fields_set - {"uri"} - _SETTINGS[type(location)]
    if unused:
        allowed = ", ".join(sorted(_SETTINGS[type(location)])) or "none"
        _refuse(location.name, f"takes no {', '.join(sorted(unused))}; settings it takes: {allowed}")
    return location


def parse(uri: str) -> Location:
    """Parse a URI into a location. Raises ValueError for an unknown one."""
    if uri == "-":
        return StandardInput()
    scheme, colon, rest = uri.partition(":")
    if scheme == "pypi" and colon:
        release = _RELEASE.fullmatch(rest) or _refuse(uri, "must be pypi:NAME==VERSION, such as pypi:django==5.2.19")
        return Release(release["project"], release["version"])
    if scheme == "hf" and colon and not rest.startswith("//"):
        dataset = _DATASET.fullmatch(rest) or _refuse(uri, "must be hf:OWNER/NAME or hf:OWNER/NAME:CONFIGURATION")
        return HubDataset(dataset["repository"], dataset["configuration"])
    if scheme == "installed" and colon:
        return Installed() if not rest else _refuse(uri, "must be installed: alone")
    if match := _SCHEME.match(uri):
        if match[1].lower() != "file":
            from fsspec import available_protocols

            protocol = match[1].lower()
            if protocol not in available_protocols():
                known = "use a path, https://, s3://, gs://, pypi:, hf: or installed:"
                _refuse(without_secrets(uri), f"has the unknown scheme {protocol}://; {known}")
            return RemoteFiles(uri)
        uri = unquote(urlsplit(uri).path)
    path = expand_home(uri)
    if path.exists() or not is_glob(uri):
        if not path.exists():
            _refuse(uri, "does not exist; correct it, or name a glob, a directory or a URI")
        return LocalFiles(path)
    parts = path.parts
    fixed = next(number for number, part in enumerate(parts) if is_glob(part))
    top = Path(*parts[:fixed])
    if not top.is_dir():
        _refuse(uri, f"does not exist: {top} is no directory")
    return LocalFiles(top, "/".join(parts[fixed:]))


def _refuse(name: str, why: str) -> NoReturn:
    raise ValueError(f"data.sources: {name} {why}")
