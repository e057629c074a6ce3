"""Documentation in source distributions: all pinned packages, or none of them."""

from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryFile

from sluice.core.progress import Progress
from sluice.data.config import UNSPECIFIED, IngestConfig, PackageSource
from sluice.data.sources.archive import IndexUnreachable, Pin, fetch, spool_members
from sluice.data.sources.compression import Damaged
from sluice.data.sources.formats import MARKUP_OF_SUFFIX, text_document
from sluice.data.sources.globs import Choice
from sluice.data.sources.licence import METADATA, distribution_licence
from sluice.data.sources.limits import Limits, too_large
from sluice.data.sources.origin import Origin, Read

_DOWNLOADS_AT_ONCE = 4
_EVERY_TEXT = tuple(f"**/*{suffix}" for suffix in MARKUP_OF_SUFFIX)


def fetch_packages(config: IngestConfig, cache: Path, progress: Progress) -> tuple[list[Path], str | None]:
    """Return the archives of the pinned packages, or none and the reason to read the installed packages instead.

    All or nothing: with only the packages that could be downloaded, the corpus would differ from machine to machine.
    """
    pins = [Pin(package.name, package.version, package.sha256) for package in config.packages]
    pool = ThreadPoolExecutor(_DOWNLOADS_AT_ONCE, thread_name_prefix="download")
    try:
        fetching = {pool.submit(fetch, pin, cache, config.attempts): pin for pin in pins}
        for done, future in enumerate(as_completed(fetching), start=1):
            future.result()
            progress(done, len(pins), f"fetched {fetching[future].name}")
        return [future.result()[0].absolute() for future in fetching], None
    except IndexUnreachable as error:
        reason = f"{error}; took the documentation of the installed packages instead"
        progress(0, config.fallback_bytes, reason)
        return [], reason
    finally:
        pool.shutdown(cancel_futures=True)


def package_origin(package: PackageSource, config: IngestConfig) -> Origin:
    name = f"{package.name}=={package.version}"
    return Origin(name, package.licence, markup=package.markup, encoding=config.encoding, default_markup=config.markup)


def read_distribution(archive: Path, choice: Choice, origin: Origin, limits: Limits) -> Read:
    """Read the chosen text files of one source distribution in path order; without `include`, those of a known suffix.

    Without a licence in `origin`, the one that the distribution declares is used.
    """
    chosen = choice if choice.include else choice._replace(include=_EVERY_TEXT)
    # Without a name, so that nothing is left behind when the process is killed.
    with TemporaryFile(dir=archive.parent) as spool:
        try:
            members = spool_members(archive, lambda path: path in METADATA or chosen(path), limits, spool)
        except Damaged as damage:
            yield origin.reject(archive.name, str(damage))
            return
        if origin.licence == UNSPECIFIED:
            metadata = {}
            for path, start, size_bytes in members:
                if path in METADATA and size_bytes is not None:
                    spool.seek(start)
                    metadata[path] = spool.read(size_bytes)
            origin = replace(origin, licence=distribution_licence(metadata))
        # The order in an archive is arbitrary.
        for path, start, size_bytes in sorted(members, key=lambda member: member[0]):
            if not chosen(path):
                continue
            if size_bytes is None:
                yield origin.reject(path, too_large(limits.document_bytes))
                continue
            spool.seek(start)
            yield text_document(spool.read(size_bytes), path, origin)
