"""Data sets of the Hugging Face hub, streamed without storing them on disk."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sluice.core.network import connection_fault
from sluice.data.sources.jsonl_csv import no_column
from sluice.data.sources.limits import Limits
from sluice.data.sources.location import HubDataset
from sluice.data.sources.origin import Origin, Read
from sluice.data.sources.row_fields import turns_of

_TALKATIVE = ("huggingface_hub", "datasets", "fsspec", "urllib3", "httpx")


def read_dataset(location: HubDataset, split: str, revision: str | None, origin: Origin, limits: Limits) -> Read:
    """Read one document a row, numbered from 1. Raises ValueError for an unavailable data set or a missing field."""
    for number, row in enumerate(_rows(location, split, revision), start=1):
        if number == 1 and origin.text_field not in row and turns_of(row) is None:
            raise ValueError(f"data.sources: {location.name} has {no_column(origin.text_field, list(row))}")
        yield origin.of_fields(row, split, number, limits)


def needs_hub(location: HubDataset) -> bool:
    """Return whether the library reads the hub: it prefers a folder of that name, and offline its cache."""
    from huggingface_hub import constants

    return not constants.HF_HUB_OFFLINE and not Path(location.repository).is_dir()


def newest_commit(location: HubDataset, revision: str | None) -> str:
    """The commit that a branch or tag of the data set stands for. Raises ValueError where the hub does not answer."""
    from huggingface_hub import HfApi

    _check_connection(location)
    try:
        with _quiet():
            return str(HfApi().dataset_info(location.repository, revision=revision).sha)
    except Exception as error:  # errors of the hub and the network
        raise _unavailable(location, f"revision {revision or 'main'}", error) from error


def _rows(location: HubDataset, split: str, revision: str | None) -> Iterator[dict[str, Any]]:
    import datasets

    if needs_hub(location):
        _check_connection(location)
    try:
        # Code of the data set is never run: the library refuses it by default.
        with _quiet():
            yield from datasets.load_dataset(
                location.repository, location.configuration, split=split, revision=revision, streaming=True
            )
    except GeneratorExit:
        raise
    except Exception as error:  # errors of the hub, the network and every file format
        raise _unavailable(location, f"split {split}", error) from error


def _check_connection(location: HubDataset) -> None:
    """Raise ValueError where the hub cannot be reached: the library would try for most of a minute."""
    from huggingface_hub import constants

    if fault := connection_fault(constants.ENDPOINT):
        raise ValueError(
            f"data.sources: {location.name} cannot be read, because {constants.ENDPOINT} cannot be reached ({fault}); "
            "check the connection to the hub, or download the data set elsewhere and give the files' path"
        )


def _unavailable(location: HubDataset, part: str, error: Exception) -> ValueError:
    reason = " ".join(str(error).split())[:200]
    return ValueError(
        f"data.sources: {location.name} ({part}) cannot be read ({type(error).__name__}: {reason}); "
        "check its name and the connection to the hub, or download it and give the files' path"
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the libraries' messages about retries: the final error has what matters."""
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
