"""Hash the versions of the remote sources, to detect changed files without downloading them."""

import hashlib
import json
import re
from pathlib import Path

from sluice.data.config import IngestConfig
from sluice.data.sources.globs import Choice
from sluice.data.sources.location import HubDataset, RemoteFiles, locate

_COMMIT = re.compile(r"[0-9a-f]{40}")


def versions_sha256(config: IngestConfig) -> str | None:
    """Hash names and versions (such as ETags) of the files of remote sources, and the commits of data sets of the hub.

    None where every source is local or pinned. Raises ValueError for a source that does not answer.
    """
    versions: list[tuple[str, list[tuple[str, str]]]] = []
    for source in config.given:
        try:
            location = locate(source)
        except ValueError:
            continue  # reading it raises the error
        if isinstance(location, RemoteFiles) and source.sha256 is None:
            from sluice.data.sources.remote import Remote

            remote = Remote(location, Path(), config.attempts, config.max_file_bytes)
            listed = remote.versions(Choice(tuple(source.include), tuple(source.exclude)))
            versions.append((location.name, listed))
        elif isinstance(location, HubDataset) and not _COMMIT.fullmatch(source.revision or ""):
            from sluice.data.sources.dataset import needs_hub, newest_commit

            if not needs_hub(location):
                continue
            versions.append((location.name, [("", newest_commit(location, source.revision))]))
    return hashlib.sha256(json.dumps(versions).encode()).hexdigest() if versions else None
