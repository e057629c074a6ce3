"""Model repositories of the Hugging Face hub: from the local cache where they are complete, else downloaded into it."""

import errno
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sluice.core.network import connection_fault
from sluice.model.directory import CONFIG, weight_files

_URI = re.compile(r"hf:(?P<name>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
_FILES = ("*.json", "*.jinja", "model*.safetensors", "tokenizer.model")
_OF_THE_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS})


@dataclass(frozen=True)
class Snapshot:
    """A revision of a repository on this machine."""

    folder: Path
    repository: str
    commit: str


def fetch(uri: str) -> Snapshot:
    """The repository of `hf:OWNER/NAME` or `hf:OWNER/NAME@REVISION`. Only configuration, tokenizer and safetensors are
    downloaded, never code or a pickle.

    Raises ValueError, in one line, for a name that is none, and a repository that is not there, gated, without
    safetensors or out of reach.
    """
    if (parts := _URI.fullmatch(uri)) is None:
        raise ValueError(f"{uri} must be hf:OWNER/NAME or hf:OWNER/NAME@REVISION")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    name, revision = parts["name"], parts["revision"]
    options: dict[str, Any] = {"revision": revision, "allow_patterns": list(_FILES), "ignore_patterns": ["*/*"]}
    try:
        folder = Path(snapshot_download(name, local_files_only=True, **options))
        if _is_complete(folder):
            return Snapshot(folder, name, folder.name)
    except LocalEntryNotFoundError:
        pass
    if not constants.HF_HUB_OFFLINE and (fault := connection_fault(constants.ENDPOINT)):
        raise _out_of_reach(uri, fault)
    try:
        files = HfApi().list_repo_files(name, revision=revision)
        if not any("/" not in file and file.endswith(".safetensors") for file in files):
            found = next((file for file in files if file.endswith((".bin", ".gguf", ".pt", ".pth"))), "no weights")
            raise ValueError(f"{uri} has no safetensors but {found}: only safetensors are read")
        folder = Path(snapshot_download(name, **options))
    except GatedRepoError:
        raise ValueError(f"{uri} is gated: accept its terms at {constants.ENDPOINT}/{name} and set HF_TOKEN") from None
    except RepositoryNotFoundError:
        raise ValueError(f"{uri} is not on {constants.ENDPOINT}, or private: check the name, or set HF_TOKEN") from None
    except RevisionNotFoundError:
        raise ValueError(f"{uri}: the repository has no revision {revision}") from None
    except OfflineModeIsEnabled:
        raise ValueError(
            f"{uri} is not in {constants.HF_HUB_CACHE}, and HF_HUB_OFFLINE forbids the network: name a folder"
        ) from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        raise ValueError(f"{uri}: {constants.ENDPOINT} answers with HTTP status {status}: try again later") from None
    except ValueError:
        raise
    except Exception as error:  # of the HTTP client, whose classes differ between versions
        if isinstance(error, OSError) and error.errno in _OF_THE_DISK:
            raise ValueError(
                f"{constants.HF_HUB_CACHE} cannot be written: {error.strerror}; set HF_HUB_CACHE"
            ) from None
        raise _out_of_reach(uri, type(error).__name__) from None
    if not _is_complete(folder):
        raise ValueError(f"{uri} has no {CONFIG} with the weights that it names: it is no model of transformers")
    return Snapshot(folder, name, folder.name)


def _out_of_reach(uri: str, why: str) -> ValueError:
    from huggingface_hub import constants

    return ValueError(
        f"{uri} is not in {constants.HF_HUB_CACHE}, and {constants.ENDPOINT} cannot be reached ({why}): download it "
        "where there is a network, and name its folder"
    )


def _is_complete(folder: Path) -> bool:
    """Return whether configuration and weights are there: of an interrupted download some are not."""
    try:
        return (folder / CONFIG).is_file() and bool(weight_files(folder))
    except ValueError:
        return False
